"""What a discovery reads: the subjects of a manifest that are registered, and their rows of numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.data import read_labels, read_manifest, recorded_num_classes, sha256
from monai_fair.data.manifest import resolve_inside
from monai_fair.data.tables import read_table
from monai_fair.data.templates import find_template
from monai_fair.errors import ArtifactError, ManifestError, MonaiFairError, RegistrationError, raise_problems
from monai_fair.geometry import Grid, canonical
from monai_fair.subgroups.representations import (
    Representation,
    block_positions,
    code_rows,
    displacement_blocks,
    embedding_rows,
    intensity_blocks,
    log_jacobian_blocks,
    without_nuisances,
)

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
REPRESENTATIONS = ("log_jacobian", "displacement", "codes", "intensity", "embeddings")
FIT_SPLITS = ("train", "val")
LOG_JACOBIAN = "desc-logdetjacobian_map.nii.gz"
_FILES = {
    "log_jacobian": (LOG_JACOBIAN, "'logdet'"),
    "displacement": ("from-T1w_to-template_xfm.nii.gz", "'field' and 'inverse'"),
}
_READERS: dict[str, Callable[..., Representation]] = {
    "log_jacobian": partial(log_jacobian_blocks, allow_undefined=True),
    "displacement": displacement_blocks,
    "intensity": intensity_blocks,
}
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Cohort:
    """The registered subjects of a manifest.

    Attributes:
        table: their rows, one each, in the manifest's order.
        attributes: attribute columns.
        num_classes: of ``label``, if there is one.
        failed: subject to the reason why it has no registration.
        folder: of the registration.
    """

    table: pd.DataFrame
    attributes: tuple[str, ...]
    num_classes: int
    failed: Mapping[str, str]
    folder: Path

    @property
    def subjects(self) -> list[str]:
        """Ids, in the order of the table."""
        return list(map(str, self.table["subject_id"]))

    def fitted(self, splits: Sequence[str]) -> BoolArray:
        """Say which rows are in these splits, shape ``(n,)``."""
        return np.asarray(self.table["split"].isin(list(splits)), dtype=bool)

    def path(self, subject: str, name: str) -> Path:
        """Return the path of a file that the registration wrote for a subject."""
        bare = subject.removeprefix("sub-")
        return self.folder / f"sub-{bare}" / f"sub-{bare}_{name}"


@dataclass(frozen=True, eq=False)
class CohortRows:
    """The rows of numbers of a cohort.

    Attributes:
        representations: rows of all its subjects.
        positions: kind of those that lie on a grid to where their columns are in mm.
        grid: of the template; ``None`` where nothing lies on it.
        notes: what a reader should know of the numbers.
    """

    representations: list[Representation]
    positions: dict[str, FloatArray]
    grid: Grid | None
    notes: list[str]


def read_cohort(registered: str | Path, manifest: str | Path) -> Cohort:
    """Read which subjects of a manifest are registered.

    Args:
        registered: folder of a registration, with ``registration.csv``.
        manifest: CSV file with ``split``; labels are not needed.

    Raises:
        RegistrationError: if the folder is of no registration.
        ManifestError: if the manifest has no split, several rows of a subject, or no registered subject.
    """
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
    problems = [] if "split" in table else ["expected a column 'split' (train, val, test), found none; add it"]
    several = sorted(set(table.loc[table["subject_id"].duplicated(), "subject_id"]))
    if several:
        shown = ", ".join(several[:_SHOWN]) + (", ..." if len(several) > _SHOWN else "")
        problems.append(f"expected one row for each subject, {len(several)} have more: {shown}; keep one")
    failed = {
        subject: status.get(subject, ("", "not in registration.csv"))[1] or "failed"
        for subject in table["subject_id"]
        if status.get(subject, ("", ""))[0] != "registered"
    }
    if len(failed) == table["subject_id"].nunique():
        problems.append(f"expected subjects that are registered in {folder}, got none of {len(failed)}; check the ids")
    raise_problems(ManifestError, manifest, problems)
    kept = table[~table["subject_id"].isin(list(failed))].reset_index(drop=True)
    return Cohort(kept, checked.attributes, checked.num_classes, failed, folder)


def input_hashes(
    cohort: Cohort,
    manifest: str | Path,
    *,
    representations: Sequence[str],
    embeddings: str | Path | None,
    mask: str | Path | None,
) -> dict[str, str]:
    """Return the SHA-256 of what a discovery reads, by file name.

    The table of a registration stands for its maps: it holds measures of every one of them.
    """
    files = [Path(manifest), cohort.folder / "registration.csv"]
    files += [cohort.folder / "codes.safetensors"] if "codes" in representations else []
    files += [Path(path) for path in (mask, embeddings) if path]
    absent = [f"expected {path}, found none" for path in files if not path.is_file()]
    raise_problems(ArtifactError, "inputs", absent)
    return {path.name: sha256(path) for path in files}


def find_mask(root: str | Path, template_mask: str | Path | None, representations: Sequence[str]) -> Path | None:
    """Return the brain mask of the template, or ``None`` where no representation needs one."""
    if not set(representations) & set(_READERS):
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
) -> CohortRows:
    """Read the rows of numbers.

    Args:
        cohort: of :func:`read_cohort`.
        names: of :data:`REPRESENTATIONS`. ``intensity`` are the manifest's own images, which a registration asks to lie
            on the template's grid: what is seen without registering.
        root: data root of the images.
        mask: brain mask of the template, for what lies on its grid.
        fit_splits: parts that the regression on global scale sees.
        block_mm: side of a block.
        keep_scale: leave the mean log Jacobian of a subject, the log of its relative size, in its log Jacobians.
        embeddings: table for ``embeddings``.
        num_workers: threads that read.

    A block that is undefined in a subject, where its map folds everywhere, takes the mean of the fitted subjects.

    Raises:
        MonaiFairError: with every subject whose file is missing or cannot be read.
    """
    inside, grid, block = np.empty(0, bool), None, 1
    if mask is not None:
        inside, grid = _read_mask(mask)
        block = max(1, round(block_mm / float(np.mean(grid.spacing_mm))))
    found = CohortRows([], {}, grid, [])
    fitted = cohort.fitted(fit_splits)
    for name in names:
        if name in ("codes", "embeddings"):
            path = cohort.folder / "codes.safetensors" if name == "codes" else Path(str(embeddings))
            every = code_rows(path) if name == "codes" else embedding_rows(path)
            rows = Representation(every.kind, cohort.subjects, every.of(cohort.subjects))
        else:
            rows = _READERS[name](_paths(cohort, name, root), inside, block=block, grid=grid, num_workers=num_workers)
            places = block_positions(inside, cast(Grid, grid), block=block)
            found.positions[name] = np.tile(places, (rows.values.shape[1] // len(places), 1))
        if name == "log_jacobian":
            rows, note = _local_volume(rows, fitted, keep_scale)
            found.notes.extend(note)
        found.representations.append(rows)
    return found


def _local_volume(rows: Representation, fitted: BoolArray, keep_scale: bool) -> tuple[Representation, list[str]]:
    """Fill what is undefined, and take out the global scale; return also what was filled."""
    undefined = np.isnan(rows.values)
    notes = []
    values = rows.values
    if undefined.any():
        known = np.where(undefined, 0.0, values)[fitted].sum(axis=0) / np.maximum((~undefined[fitted]).sum(axis=0), 1)
        values = np.where(undefined, known, values)
        notes.append(
            f"log_jacobian: {int(undefined.sum())} of {undefined.size} block means are undefined, in "
            f"{int(undefined.any(axis=1).sum())} subjects, and took the mean of the fitted subjects"
        )
    if not keep_scale:
        values = without_nuisances(values, values.mean(axis=1, keepdims=True), fitted)
    return Representation(rows.kind, rows.subject_ids, values), notes


def _paths(cohort: Cohort, name: str, root: str | Path) -> dict[str, Path]:
    if name == "intensity":
        images = zip(cohort.subjects, cohort.table["image"], strict=True)
        return {subject: resolve_inside(Path(root), str(image)) for subject, image in images}
    file, exports = _FILES[name]
    paths = {subject: cohort.path(subject, file) for subject in cohort.subjects}
    absent = [subject for subject, path in paths.items() if not path.is_file()]
    if absent:
        raise RegistrationError(
            f"{cohort.folder}: expected {paths[absent[0]].name} and its like for each of {len(paths)} registered "
            f"subjects, {len(absent)} have none; register with exports that hold {exports}"
        )
    return paths


def _read_mask(path: Path) -> tuple[BoolArray, Grid]:
    volume = read_labels(path)
    array, grid = canonical(volume.array, volume.grid)
    if not (array > 0).any():
        raise MonaiFairError(f"{path}: expected a mask with voxels above 0, got none")
    return np.ascontiguousarray(array > 0), grid
