"""A cohort from manifest to manifest: every scan prepared, every failure a row, what is finished left alone."""

import re
import string
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.data.artifacts import fingerprint, read_json, sha256, write_json
from monai_fair.data.builder import BuiltManifest, build_manifest, write_manifest
from monai_fair.data.crosstables import cross_tables, small_cells
from monai_fair.data.manifest import Manifest, read_manifest, recorded_num_classes, resolve_inside
from monai_fair.data.tables import write_table
from monai_fair.data.volumes import write_volume
from monai_fair.errors import ArtifactError, ManifestError, RegistrationError, raise_problems
from monai_fair.parallel import Outcome, run_all
from monai_fair.preparation.files import ScanJob, prepare_file
from monai_fair.preparation.options import PreparationOptions, load_template

FOLDER, FOLDER_KIND = "preparation.json", "preparation"
TABLE, MANIFEST = "preparation.csv", "manifest.csv"
TEMPLATE, TEMPLATE_MASK = "template_T1w.nii.gz", "template_desc-brain_mask.nii.gz"
_GROUPS = 12  # an attribute of more values is not counted by group


@dataclass(frozen=True)
class PreparedCohort:
    """What became of a cohort.

    Attributes:
        folder: with ``manifest.csv`` of the prepared scans and ``preparation.csv`` of all.
        n_prepared: scans that can be used.
        failed: ``subject_id: reason`` of the others.
    """

    folder: Path
    n_prepared: int
    failed: tuple[str, ...]


def prepare_cohort(
    manifest: str | Path,
    root: str | Path,
    out: str | Path,
    *,
    options: PreparationOptions | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
) -> PreparedCohort:
    """Prepare every scan of a manifest and write a manifest of the prepared ones.

    ``out`` gets a BIDS derivative: per scan the image, the brain mask, the affine transform and a sidecar;
    ``preparation.csv`` with a row per scan (status, reason, measures), ``manifest.csv`` with labels, split and
    attributes carried over and its record, the template and its mask, and ``preparation.json``, which binds the
    folder to its options. Scans that are finished with the same input and options are left as they are.

    Args:
        manifest: the scans; labels and splits may be absent.
        root: data root that the paths of images, masks and affine maps start from.
        out: folder to write to; missing, empty, or of the same options.
        options: what is done to every scan.
        workers: processes; by default one per core.
        ray_address: ``local``, or the address of a Ray cluster that sees the same files.

    Returns:
        The folder and the failures.

    Raises:
        ManifestError: if the manifest or the pattern of the masks or affine maps breaks its contract.
        ArtifactError: if ``out`` holds anything else.
        RegistrationError: if not one scan could be prepared.
    """
    chosen = PreparationOptions() if options is None else options
    classes = recorded_num_classes(manifest) or 2
    checked = read_manifest(manifest, num_classes=classes, labelled=False)
    folder = Path(out)
    jobs = _jobs(checked, Path(root), folder, chosen)
    _bind(folder, chosen)
    outcomes = run_all(prepare_file, jobs, workers=workers, ray_address=ray_address, description="prepare", unit="scan")
    table = pd.DataFrame([_row(outcome, folder) for outcome in outcomes])
    table.insert(1, "image", checked.table["image"].to_numpy())
    write_table(folder / TABLE, table)
    done = (table["status"] == "prepared").to_numpy()
    failed = tuple(f"{row.subject_id}: {row.reason}" for row in table[~done].itertuples())
    if not done.any():
        raise RegistrationError(
            f"{folder}: expected at least one prepared scan, got none of {len(table)}; see {folder / TABLE}; "
            f"the first: {failed[0]}"
        )
    _write_manifest(checked, table, done, folder, manifest)
    return PreparedCohort(folder, int(done.sum()), failed)


def source_manifest(manifest: str | Path, recipe: str, root: str | Path, out: str | Path) -> Path:
    """Return the manifest to prepare: the one that is given, or one that a recipe builds from ``root``.

    Args:
        manifest: the file; empty if a recipe is given.
        recipe: name or path of a recipe; empty if a manifest is given.
        root: the dataset's folder.
        out: folder of the prepared scans; the built manifest is written beside it, as ``OUT_source_manifest.csv``.

    Raises:
        ManifestError: if both or none are given.
    """
    if bool(manifest) == bool(recipe):
        given = "both" if manifest else "none"
        raise ManifestError(f"prepare: expected one of --manifest and --recipe, got {given}; give one")
    if manifest:
        return Path(manifest)
    folder = Path(out)
    return write_manifest(build_manifest(recipe, root), folder.with_name(f"{folder.name}_source_manifest.csv"))


def _bind(folder: Path, options: PreparationOptions) -> None:
    """Tie a new or empty folder to the options, and refuse one that is tied to others."""
    parameters = options.parameters()
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder}: expected a folder, got a file; give another path")
    if (folder / FOLDER).is_file():
        known = read_json(folder / FOLDER, FOLDER_KIND)
        before = known.get("options", {})
        names = sorted({*before, *parameters})
        changes = [f"{name} {before.get(name)!r}, now {parameters.get(name)!r}" for name in names
                   if before.get(name) != parameters.get(name)]  # fmt: skip
        if changes:
            raise ArtifactError(
                f"{folder}: expected scans prepared with the same options, got a folder with {'; '.join(changes)}; "
                "give another folder, or remove this one first"
            )
        # a killed run leaves the half-written file it was at
        for leftover in folder.rglob(".*.part*"):
            leftover.unlink()
    elif folder.exists() and (found := sorted(path.name for path in folder.iterdir())):
        raise ArtifactError(
            f"{folder}: expected an empty folder or one of prepared scans, got a folder with '{found[0]}' "
            f"({len(found)} entries); give another folder"
        )
    template, mask = load_template(options)
    content = {"options_hash": fingerprint(parameters), "options": parameters, "template": template.source}
    write_json(folder / FOLDER, FOLDER_KIND, content)
    write_volume(folder / TEMPLATE, template.array, template.grid)
    write_volume(folder / TEMPLATE_MASK, mask.array, mask.grid)
    description = {"Name": "Scans prepared for registration", "BIDSVersion": "1.9.0", "DatasetType": "derivative",
                   "GeneratedBy": [{"Name": "monai_fair prepare"}]}  # fmt: skip
    write_json(folder / "dataset_description.json", "dataset_description", description)


def _jobs(manifest: Manifest, root: Path, folder: Path, options: PreparationOptions) -> list[ScanJob]:
    table = manifest.table
    patterns = {"masks": options.masks, "affines": options.affines}
    problems = [text for name, pattern in patterns.items() for text in _pattern_problems(name, pattern, table)]
    raise_problems(ManifestError, manifest.source, problems)
    stems, problems = _stems(table["subject_id"].tolist())
    jobs = []
    for stem, row in zip(stems, table.to_dict("records"), strict=True):
        try:
            scan = resolve_inside(root, row["image"])
            mask, affine = (
                resolve_inside(root, pattern.format_map(row)) if pattern else None for pattern in patterns.values()
            )
        except ManifestError as error:
            problems.append(str(error))
            continue
        digest = row.get("sha256", "")
        jobs.append(ScanJob(row["subject_id"], scan, mask, folder / stem, digest, options, affine))
    raise_problems(ManifestError, manifest.source, problems)
    return jobs


def _pattern_problems(option: str, pattern: str, table: pd.DataFrame) -> list[str]:
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        return [f"{option}: expected a path with columns in braces, got '{pattern}' ({error})"]
    names = [(name, form, turn) for _, name, form, turn in parts if name is not None]
    if pattern and not names:
        same = f"got '{pattern}', the same for every scan"
        return [f"{option}: expected a column in braces, such as {{subject_id}}, {same}"]
    return [
        f"{option}: expected a column of the manifest in braces ({', '.join(table.columns)}), got '{{{name}}}'"
        for name, form, turn in names
        if name not in table or form or turn
    ]


def _stems(subjects: list[str]) -> tuple[list[str], list[str]]:
    """Return the start of every scan's path, and the subjects whose BIDS names would be one and the same.

    BIDS allows letters and digits only; a subject with several scans gets a session for each, in the manifest's order.
    """
    labels = {subject: re.sub("[^A-Za-z0-9]", "", subject.removeprefix("sub-")) for subject in dict.fromkeys(subjects)}
    by_label: dict[str, list[str]] = {}
    for subject, label in labels.items():
        # some file systems do not tell upper case from lower case
        by_label.setdefault(label.lower(), []).append(subject)
    problems = [
        f"subjects {' and '.join(map(repr, same))} have the same name in BIDS (letters and digits only); rename one"
        for label, same in by_label.items()
        if len(same) > 1 or not label
    ]
    counts, seen, stems = Counter(subjects), Counter[str](), []
    for subject in subjects:
        seen[subject] += 1
        sub = f"sub-{labels[subject]}"
        session = f"ses-{seen[subject]:02d}" if counts[subject] > 1 else ""
        parts = [sub, *([session] if session else []), "anat", "_".join(filter(None, (sub, session)))]
        stems.append("/".join(parts))
    return stems, problems


def _row(outcome: Outcome[ScanJob, dict[str, Any]], folder: Path) -> dict[str, Any]:
    job, content = outcome.item, outcome.value
    row: dict[str, Any] = {"subject_id": job.subject_id, "status": "failed", "reason": " ".join(outcome.error.split()),
                           "prepared_image": ""}  # fmt: skip
    if content is None:
        return row
    given = content["input"]
    row |= {"status": "prepared", "prepared_image": job.output("image").relative_to(folder).as_posix()}
    row |= content["measures"]
    row |= {"input_spacing_mm": " x ".join(f"{step:g}" for step in given["spacing_mm"])}
    return row | {"input_orientation": given["orientation"], "affine_from": given["affine_from"]}


def _write_manifest(checked: Manifest, table: pd.DataFrame, done: Any, folder: Path, source: str | Path) -> None:
    """Carry labels, split and attributes of the prepared scans over, and count who is left."""
    kept = checked.table[done].copy()
    kept["image"] = table.loc[done, "prepared_image"].to_numpy()
    kept["sha256"] = [sha256(folder / image) for image in kept["image"]]
    record: dict[str, Any] = {
        "prepared_from": {"manifest": Path(source).name, "sha256": sha256(source)},
        "options_hash": read_json(folder / FOLDER, FOLDER_KIND)["options_hash"],
        "num_classes": checked.num_classes,
        "dropped": [
            {"reason": row.reason, "n": 1, "subject_id": [row.subject_id]} for row in table[~done].itertuples()
        ],
        "n": len(kept),
        "n_subjects": int(kept["subject_id"].nunique()),
    }
    if "label" in kept and checked.part in kept:
        names = [name for name in checked.attributes if kept[name].nunique() <= _GROUPS]
        cells = cross_tables(kept, names, part=checked.part, num_classes=checked.num_classes)
        record |= {"cross_tables": cells, "warnings": small_cells(cells)}
    write_manifest(BuiltManifest(kept.astype(str), record), folder / MANIFEST)
