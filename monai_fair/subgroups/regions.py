"""Volumes of the regions of a template in every subject, from the maps of local volume of a registration."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_fair.data import read_labels, read_map
from monai_fair.data.tables import describe_cells, read_table
from monai_fair.errors import ArtifactError, MonaiFairError, raise_problems
from monai_fair.geometry import Axes, Grid, canonical
from monai_fair.subgroups.block_maps import on_grid
from monai_fair.subgroups.representations import FloatArray, Representation, read_rows

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of a template.

    Attributes:
        labels: shape ``(D, H, W)``, axes in RAS order; 0 is no region, ``k`` is the region ``names[k - 1]``.
        names: of the regions, by rising label of the file.
        grid: of the labels.
    """

    labels: IntArray
    names: tuple[str, ...]
    grid: Grid

    @property
    def positions(self) -> FloatArray:
        """Mean place of the voxels of each region in mm, RAS, shape ``(regions, 3)``."""
        at = np.argwhere(self.labels > 0)
        codes = self.labels[tuple(at.T)]
        counts = np.bincount(codes)[1:]
        middles = np.stack([np.bincount(codes, weights=axis)[1:] / counts for axis in at.T], axis=1)
        return np.asarray(self.grid.points(middles, Axes.VOXEL, Axes.RAS))


def region_table(path: str | Path) -> Path:
    """Return where BIDS has the names of a label image: a TSV file of its name."""
    own = Path(path)
    return own.with_name(own.name.removesuffix(".gz").removesuffix(".nii") + ".tsv")


def read_regions(path: str | Path) -> Regions:
    """Read the regions of a template.

    Args:
        path: NIfTI label image on the template's grid, such as ``template_dseg.nii.gz``; labels are whole numbers, 0
            is no region. Names are those of a table of BIDS beside it, ``template_dseg.tsv`` with the columns
            ``index`` and ``name``, if there is one; a label it does not name is called by its number.

    Raises:
        MonaiFairError: if the image cannot be read, has negative labels or no region, or the table has problems.

    References:
        BIDS specification, Derivatives, Segmentations (lookup tables of discrete segmentations).
    """
    volume = read_labels(path)
    array, grid = canonical(volume.array, volume.grid)
    found = [int(label) for label in np.unique(array)]
    if found[0] < 0:
        raise MonaiFairError(f"{path}: expected labels from 0, got {found[0]}; 0 is no region")
    labels = [label for label in found if label]
    if not labels:
        raise MonaiFairError(f"{path}: expected regions, labels above 0, got none; give a segmentation of the template")
    named = _names(region_table(path))
    names = tuple(named.get(label, str(label)) for label in labels)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MonaiFairError(
            f"{region_table(path)}: expected a name of its own for each label, '{twice[0]}' is of several"
        )
    places = np.searchsorted([0, *labels], array)
    return Regions(np.ascontiguousarray(places, dtype=np.int64), names, grid)


def regional_volumes(
    paths: Mapping[str, str | Path],
    regions: Regions,
    *,
    mask: BoolArray | None = None,
    num_workers: int = 4,
) -> Representation:
    """Return the log of the volume of every region, relative to its volume in the template.

    The maps of a registration are those of the pull-back on the template's grid that reads the subject, so det J is
    the subject's volume per volume of the template, and its mean over the voxels of a region R

        log( |phi(R)| / |R| ) = log( mean of det J over R )

    the log ratio of the region's volume in the subject, as the registration sees it, to that in the template: above 0
    where the subject's is larger. Whatever an affine preparation took out before, such as the global scale, is not in
    it.

    Args:
        paths: subject to its ``desc-logdetjacobian_map`` on the grid of the regions, its axes in any order; NaN voxels,
            where the map folds, do not count.
        regions: of :func:`read_regions`.
        mask: of the brain, on the grid of the regions; with it a last column has the volume of the brain.
        num_workers: threads that read.

    Returns:
        One column per region; NaN where a subject has no defined voxel in it.

    Raises:
        MonaiFairError: naming every subject whose map cannot be read or lies on another grid.
    """
    inside = np.flatnonzero(regions.labels)
    codes, count = regions.labels.ravel()[inside] - 1, len(regions.names)
    brain = np.flatnonzero(mask) if mask is not None else None

    def row(path: str | Path) -> FloatArray:
        volume = read_map(path)
        logs = on_grid(volume.array, volume.grid, regions.grid).ravel().astype(np.float64)
        means = _mean_volumes(logs[inside], codes, count)
        if brain is not None:
            means = np.append(means, _mean_volumes(logs[brain], np.zeros(brain.size, np.int64), 1))
        return np.log(means)

    return read_rows("regional_volumes", paths, row, num_workers)


def _mean_volumes(logs: FloatArray, codes: IntArray, count: int) -> FloatArray:
    """Return the mean of exp(logs) of every code, NaN where none is defined, shape ``(count,)``."""
    defined = np.isfinite(logs)
    voxels = np.bincount(codes[defined], minlength=count).astype(np.float64)
    voxels[voxels == 0] = np.nan
    return np.asarray(np.bincount(codes[defined], weights=np.exp(logs[defined]), minlength=count) / voxels)


def _names(path: Path) -> dict[int, str]:
    """Return label to name of a table of BIDS; none where there is no table."""
    if not path.is_file():
        return {}
    table = read_table(path, ArtifactError, separator="\t")
    raise_problems(
        ArtifactError,
        path,
        [f"expected a column '{name}', found none; add it" for name in ("index", "name") if name not in table],
    )
    rules = [
        ("index", "a whole number from 0", ~table["index"].str.fullmatch(r"[0-9]+")),
        ("index", "one row per label", table["index"].str.lstrip("0").duplicated()),
        ("name", "a name", table["name"].str.strip() == ""),
    ]
    problems = [line for column, expected, bad in rules for line in describe_cells(table, column, bad, expected)]
    raise_problems(ArtifactError, path, problems)
    return {int(label): name.strip() for label, name in zip(table["index"], table["name"], strict=True)}
