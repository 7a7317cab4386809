"""The page of a registration: what became of every subject in numbers, and of three of them in pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_fair.data.artifacts import atomic_path, read_tensors
from monai_fair.data.manifest import load_datalist, recorded_num_classes
from monai_fair.errors import ArtifactError, MonaiFairError, RegistrationError
from monai_fair.report.quantities import Record, counted
from monai_fair.report.registration_dice import LabelMap, dice_table
from monai_fair.report.registration_table import read_registration, registered, shown_subjects
from monai_fair.report.registration_view import Pictured, registration_view
from monai_fair.report.registration_volumes import Template, load_subject, load_template, subject_files
from monai_fair.report.rendering import render

THROUGH = ("centre", "difference")


def write_registration_report(
    out: str | Path,
    *,
    dataset_dir: str | Path,
    template: str | Path,
    mask: str | Path,
    labels: Sequence[LabelMap] | None = None,
    manifest: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    through: str = "centre",
    workers: int | None = None,
) -> Path:
    """Write ``registration.html`` beside ``registration.csv``: one page without scripts, which loads nothing.

    It shows slices and names of three subjects: the best, the median and the worst by the endpoint error where the
    table has one, else by the local correlation. Where a file of theirs cannot be read, the reason stands in the place
    of their pictures.

    Args:
        out: folder that the registration wrote: ``registration.csv``, ``codes.safetensors`` where there are codes, and
            a folder per subject.
        dataset_dir: data root that the images of the manifest lie under.
        template: image of the template.
        mask: of the template's brain.
        labels: label maps whose overlap is shown label by label; every registered subject is read for it.
        manifest: of the subjects; by default ``manifest.csv`` under ``dataset_dir``.
        settings: of the registration, shown by name.
        through: where the slices lie: ``centre`` of the brain, or largest ``difference`` that is left.
        workers: processes that compare labels; ``None`` takes one per core.

    Returns:
        Path of the page.

    Raises:
        RegistrationError: if the table cannot be used, or ``through`` is something else.
        MonaiFairError: if the manifest, the template, its mask or its labels cannot be used.
    """
    if through not in THROUGH:
        raise RegistrationError(f"through: expected one of {', '.join(THROUGH)}, got {through!r}; give one of them")
    folder, root = Path(out), Path(dataset_dir)
    table = read_registration(folder / "registration.csv")
    done = registered(table)
    space = load_template(template, mask)
    images = _images(root / "manifest.csv" if manifest is None else Path(manifest), root)
    pictured = [_pictured(who, rank, images, folder, space) for rank, who in shown_subjects(done)[1]]
    names = [str(name) for name in done["subject_id"]]
    dice = [
        dice_table(each, names, out=folder, dataset_dir=root, grid=space.grid, workers=workers) for each in labels or ()
    ]
    view = registration_view(
        table,
        space,
        pictured,
        through=through,
        dice=dice,
        codes=_codes_words(folder / "codes.safetensors"),
        settings=settings,
    )
    with atomic_path(folder / "registration.html") as temporary:
        temporary.write_text(build_registration_page(view), encoding="utf-8")
    return folder / "registration.html"


def build_registration_page(view: Record) -> str:
    """Return the page of a registration: one HTML document without scripts, which loads nothing.

    Args:
        view: of :func:`~monai_fair.report.registration_view.registration_view`; every text in it is escaped.
    """
    return render("registration.html", view)


def _images(manifest: Path, root: Path) -> dict[str, list[str]]:
    """Return the images of every subject of a manifest."""
    found: dict[str, list[str]] = {}
    for item in load_datalist(manifest, root, num_classes=recorded_num_classes(manifest) or 2, labelled=False):
        found.setdefault(item["subject_id"], []).append(item["image"])
    return found


def _pictured(
    subject_id: str, rank: str, images: Mapping[str, Sequence[str]], folder: Path, template: Template
) -> Pictured:
    own = images.get(subject_id, [])
    try:
        if len(own) != 1:
            raise RegistrationError(
                f"subject '{subject_id}': expected one image in the manifest, got {len(own)}; give the manifest that "
                "was registered"
            )
        volumes = load_subject(own[0], subject_files(folder, subject_id), template)
    except MonaiFairError as error:
        # the page may travel: a reason names files under the folder, not where the folder lies
        return Pictured(subject_id, rank, None, str(error).replace(f"{folder}/", ""))
    return Pictured(subject_id, rank, volumes)


def _codes_words(path: Path) -> str:
    """Say how many codes of what length there are, and which network they belong to; nothing if there are none."""
    if not path.is_file():
        return ""
    tensors, header = read_tensors(path)
    codes = tensors.get("codes")
    if codes is None or codes.ndim != 2:
        raise ArtifactError(f"{path}: expected a tensor 'codes' of shape (N, K), found none; write it again")
    network = next((value for key, value in header.items() if "fingerprint" in key), "")
    return f"{counted(len(codes), 'code')} of {codes.shape[1]} numbers" + (f"; network {network}" if network else "")
