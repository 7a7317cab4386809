"""What sets subgroups apart, voxel by voxel: mean log Jacobians, summed subject by subject."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_fair.data import read_map
from monai_fair.errors import GeometryError
from monai_fair.geometry import Grid, canonical

Map = npt.NDArray[np.float32]
_AHEAD = 4  # maps per thread that wait to be added; memory does not grow with the cohort


def subgroup_maps(
    paths: Mapping[str, str | Path], subgroup: Mapping[str, str], *, num_workers: int = 4
) -> tuple[dict[str, Map], Map, Grid]:
    """Return the mean log Jacobian of each subgroup less that of all other subjects, and the spread over all.

    Voxels that are undefined for a subject, where its map folds, are left out for that subject.

    Args:
        paths: subject to its ``desc-logdetjacobian_map``; at least one.
        subgroup: subject to the name of its subgroup.
        num_workers: threads that read.

    Returns:
        A difference for every subgroup, by name, NaN where one side has no value, and none when there is one subgroup
        only; the standard deviation over subjects (n - 1), NaN where fewer than two have a value; their grid, in RAS
        order.

    Raises:
        GeometryError: if a map cannot be read or lies on another grid than the first.
    """
    names = sorted({subgroup[subject] for subject in paths})
    first = next(iter(paths.values()))
    start, grid = _read(first)
    totals = {name: np.zeros((2, *start.shape)) for name in names}  # of values, and how many there are
    squares = np.zeros(start.shape)
    subjects = list(paths)
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        step = _AHEAD * max(1, num_workers)
        for at in range(0, len(subjects), step):
            part = subjects[at : at + step]
            for subject, (values, own) in zip(part, pool.map(_read, [paths[one] for one in part]), strict=True):
                if not own.matches(grid):
                    raise GeometryError(f"{paths[subject]}: expected the grid of {first}, got another")
                defined = np.isfinite(values)
                values = np.where(defined, values, 0.0).astype(np.float64)
                totals[subgroup[subject]] += (values, defined)
                squares += values**2
    total = np.sum(list(totals.values()), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total[0] / total[1]
        spread = np.sqrt(np.maximum(squares - total[1] * mean**2, 0.0) / (total[1] - 1))
        spread[total[1] < 2] = np.nan
        differences = {name: _difference(totals[name], total - totals[name]) for name in names if len(names) > 1}
    return differences, spread.astype(np.float32), grid


def _difference(own: npt.NDArray[np.float64], rest: npt.NDArray[np.float64]) -> Map:
    return np.asarray(own[0] / own[1] - rest[0] / rest[1], dtype=np.float32)


def _read(path: str | Path) -> tuple[Map, Grid]:
    volume = read_map(path)
    array, grid = canonical(volume.array, volume.grid)
    return np.asarray(array), grid
