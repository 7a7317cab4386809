"""What a discovery reads: the subjects of a manifest that are registered, and their rows of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.data import read_manifest, recorded_num_classes, sha256
from monai_fair.data.artifacts import fingerprint
from monai_fair.data.tables import read_table
from monai_fair.data.templates import find_template
from monai_fair.errors import ArtifactError, ManifestError, RegistrationError, raise_problems
from monai_fair.geometry import Grid
from monai_fair.subgroups.nuisances import Nuisances, read_nuisances
from monai_fair.subgroups.regions import region_table
from monai_fair.subgroups.registered_rows import ON_TEMPLATE, Cohort, RowReader, image_paths
from monai_fair.subgroups.representations import Representation, is_features
from monai_fair.subgroups.row_rules import RowRule, fit_rule

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
_SHOWN = 5
_TOLD = (
    "embeddings: features of a classifier tell the labels of rows it was trained on; where these are fitted, "
    "subgroups may be labels"
)


@dataclass(frozen=True, eq=False)
class CohortRows:
    """The rows of numbers of a cohort.

    Attributes:
        representations: rows of all its subjects.
        positions: kind of those that lie on a grid to where their columns are in mm.
        grid: of the template; ``None`` where nothing lies on it.
        notes: what a reader should know of the numbers.
        nuisances: what was taken out of all of them.
        region_names: of the columns of ``regional_volumes``.
        rules: kind to how its numbers became rows.
    """

    representations: list[Representation]
    positions: dict[str, FloatArray]
    grid: Grid | None
    notes: list[str]
    nuisances: Nuisances
    region_names: Sequence[str]
    rules: dict[str, RowRule] = field(default_factory=dict)


def read_cohort(registered: str | Path, manifest: str | Path) -> Cohort:
    """Read which subjects of a manifest are registered.

    Args:
        registered: folder of a registration, with ``registration.csv``.
        manifest: CSV file with ``split``; labels are not needed.

    Raises:
        RegistrationError: if the folder is of no registration.
        ManifestError: if the manifest has no split, several rows of a subject, or no registered subject.
    """
    cohort, rows = _registered(registered, manifest)
    problems = [] if "split" in rows else ["expected a column 'split' (train, val, test), found none; add it"]
    problems += _several(rows)
    if len(cohort.failed) == rows["subject_id"].nunique():
        problems.append(
            f"expected subjects that are registered in {cohort.folder}, got none of {len(cohort.failed)}; check the ids"
        )
    raise_problems(ManifestError, manifest, problems)
    return cohort


def read_new_subjects(registered: str | Path, manifest: str | Path) -> Cohort:
    """Read which subjects of a manifest are registered, where no fit is to be made: there may be none, and no split.

    Args:
        registered: see :func:`read_cohort`.
        manifest: as well.

    Raises:
        RegistrationError: see :func:`read_cohort`.
        ManifestError: if a subject has several rows.
    """
    cohort, rows = _registered(registered, manifest)
    raise_problems(ManifestError, manifest, _several(rows))
    return cohort


def _registered(registered: str | Path, manifest: str | Path) -> tuple[Cohort, pd.DataFrame]:
    """Return the registered subjects of a manifest, and all its rows."""
    folder = Path(registered)
    checked = read_manifest(manifest, num_classes=recorded_num_classes(manifest) or 2, labelled=False)
    table = checked.table
    if not (folder / "registration.csv").is_file():
        raise RegistrationError(
            f"{folder}: expected registration.csv, found none; give the output_dir of the registration's inference.yaml"
        )
    found = read_table(folder / "registration.csv", RegistrationError)
    absent = [name for name in ("subject_id", "status", "reason") if name not in found]
    raise_problems(
        RegistrationError, folder / "registration.csv", [f"expected a column '{name}', found none" for name in absent]
    )
    status = dict(zip(found["subject_id"], zip(found["status"], found["reason"], strict=True), strict=True))
    failed = {
        subject: status.get(subject, ("", "not in registration.csv"))[1] or "failed"
        for subject in table["subject_id"]
        if status.get(subject, ("", ""))[0] != "registered"
    }
    kept = table[~table["subject_id"].isin(list(failed))].reset_index(drop=True)
    return Cohort(kept, checked.attributes, checked.num_classes, failed, folder), table


def _several(rows: pd.DataFrame) -> list[str]:
    """Say which subjects have more than one row."""
    several = sorted(set(rows.loc[rows["subject_id"].duplicated(), "subject_id"]))
    if not several:
        return []
    shown = ", ".join(several[:_SHOWN]) + (", ..." if len(several) > _SHOWN else "")
    return [f"expected one row for each subject, {len(several)} have more: {shown}; keep one"]


def input_hashes(
    cohort: Cohort,
    manifest: str | Path,
    *,
    representations: Sequence[str],
    embeddings: str | Path | None,
    mask: str | Path | None,
    regions: str | Path | None = None,
    root: str | Path = ".",
) -> dict[str, str]:
    """Return the SHA-256 of what a discovery reads, by file name; a second file of one name has a number behind it.

    The table of a registration stands for its maps: it holds measures of every one of them. Nothing stands for the
    images of ``intensity``, so all are read: ``images``.
    """
    files = [Path(manifest), cohort.folder / "registration.csv"]
    files += [cohort.codes] if "codes" in representations else []
    files += [Path(path) for path in (mask, embeddings, regions) if path]
    # what lies beside a file that is given, and is read with it
    if embeddings and is_features(embeddings):
        files.append(Path(embeddings).with_name("predictions.csv"))
    if regions and region_table(regions).is_file():
        files.append(region_table(regions))
    images = list(image_paths(cohort, root).values()) if "intensity" in representations else []
    absent = [f"expected {path}, found none" for path in [*files, *images] if not path.is_file()]
    raise_problems(ArtifactError, "inputs", absent)
    hashes: dict[str, str] = {}
    for place, path in enumerate(files):
        alike = sum(other.name == path.name for other in files[:place])
        hashes[f"{path.name} ({alike + 1})" if alike else path.name] = sha256(path)
    if images:
        hashes["images"] = fingerprint([sha256(path) for path in images])
    return hashes


def find_mask(root: str | Path, template_mask: str | Path | None, representations: Sequence[str]) -> Path | None:
    """Return the brain mask of the template, or ``None`` where no representation needs one."""
    if not set(representations) & ON_TEMPLATE:
        return None
    return Path(template_mask) if template_mask else find_template(root).mask


def read_representations(
    cohort: Cohort,
    names: Sequence[str],
    *,
    root: str | Path,
    mask: Path | None,
    fit_splits: Sequence[str],
    block_mm: float,
    keep_scale: bool,
    embeddings: str | Path | None,
    num_workers: int,
    regions: str | Path | None = None,
    nuisances: Sequence[str] = (),
) -> CohortRows:
    """Read the rows of numbers, and take out of them what is to be taken out.

    A number that is undefined in a subject, where its map folds everywhere, takes the mean of the fitted subjects.

    Args:
        cohort: of :func:`read_cohort`.
        names: of :data:`~monai_fair.subgroups.registered_rows.REPRESENTATIONS`.
        root: see :class:`~monai_fair.subgroups.registered_rows.RowReader`, as the next and ``block_mm``.
        mask: brain mask of the template, for what lies on its grid.
        fit_splits: parts that linear effects are estimated in.
        block_mm: side of a block.
        keep_scale: leave the log of a subject's relative size in its volumes: the mean of its log Jacobians, and the
            brain's volume beside those of regions.
        embeddings: file for ``embeddings``.
        num_workers: threads that read.
        regions: label image for ``regional_volumes``.
        nuisances: attributes taken out of every representation, with the size where that is taken out: all at once,
            because effects taken out one after the other come back where they are correlated.

    Raises:
        MonaiFairError: with every subject whose file is missing or cannot be read, and every problem of nuisances.
    """
    reader = RowReader(
        cohort=cohort,
        root=Path(root),
        mask=mask,
        embeddings=Path(embeddings) if embeddings else None,
        regions=Path(regions) if regions else None,
        block_mm=block_mm,
        num_workers=num_workers,
    )
    fitted = cohort.fitted(fit_splits)
    recorded = read_nuisances(cohort.table, nuisances, fitted)
    region_names = reader.template_regions.names if regions else ()
    found = CohortRows([], {}, None if mask is None else reader.brain[1], [], recorded, region_names)
    for name in names:
        rows, positions = reader.rows(name)
        rule, notes = fit_rule(rows, recorded.values, fitted, keep_scale=keep_scale)
        values = rule.rows(rows.values, recorded.values)
        found.representations.append(Representation(name, cohort.subjects, values))
        found.rules[name] = rule
        found.notes.extend(notes)
        if positions is not None:
            found.positions[name] = positions
    if embeddings and is_features(embeddings) and "train" in fit_splits:
        found.notes.append(_TOLD)
    return found
