"""Maps on the template's grid as rows of numbers: local volume changes, displacements, intensities.

Maps become means over small blocks inside the brain mask, so that a row has a few thousand numbers instead of a
million, and neighbouring voxels, which are nearly the same number, do not count for many.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_fair.data import read_displacement, read_map, read_volume
from monai_fair.errors import GeometryError, MonaiFairError
from monai_fair.geometry import Axes, Grid, canonical
from monai_fair.subgroups.representations import FloatArray, Representation, read_rows

BoolArray = npt.NDArray[np.bool_]
_LEAST_SHARE = 0.5  # of a block inside the mask: below it the block belongs to the outside


def block_positions(mask: BoolArray, grid: Grid, *, block: int = 4) -> FloatArray:
    """Return where the blocks are that a row has numbers of: the middle of each in mm, RAS, shape ``(blocks, 3)``.

    Args:
        mask: of the brain, shape ``(D, H, W)``.
        grid: of the mask.
        block: side of a block in voxels; a block that the edge of the grid cuts has the middle of what is left.
    """
    blocks = _Blocks(mask, block)
    middles = [
        (starts + np.minimum(starts + block, size) - 1) / 2
        for starts, size in zip(blocks.starts, mask.shape, strict=True)
    ]
    at = np.argwhere(blocks.kept)
    voxels = np.stack([middle[at[:, axis]] for axis, middle in enumerate(middles)], axis=1)
    return np.asarray(grid.points(voxels, Axes.VOXEL, Axes.RAS))


def log_jacobian_blocks(
    paths: Mapping[str, str | Path],
    mask: BoolArray,
    *,
    block: int = 4,
    grid: Grid | None = None,
    allow_undefined: bool = False,
    num_workers: int = 4,
) -> Representation:
    """Return mean log volume change per block, from maps of a registration.

    Of all that deformations offer, local volume shows a local effect best: it knows nothing of where a brain lies,
    and hardly anything of its overall size. :func:`without_nuisances` takes that out altogether.

    Args:
        paths: subject to its ``desc-logdetjacobian_map`` on the template's grid; NaN voxels, where the map folds, do
            not count.
        mask: of the brain, shape ``(D, H, W)``.
        block: side of a block in voxels.
        grid: of the mask, in RAS order; with it a map in another order of axes is turned, and one of another place is
            refused. Without it the shape is all that is compared.
        allow_undefined: give NaN for a block where a subject has no defined voxel, instead of an error.
        num_workers: threads that read.

    Raises:
        MonaiFairError: naming every subject whose map cannot be read, lies on another grid, or is undefined in a block.
    """

    def row(path: str | Path) -> FloatArray:
        volume = read_map(path)
        return _means(on_grid(volume.array, volume.grid, grid)[None], blocks, allow_undefined=allow_undefined)

    blocks = _Blocks(mask, block)
    return read_rows("log_jacobian", paths, row, num_workers)


def displacement_blocks(
    paths: Mapping[str, str | Path],
    mask: BoolArray,
    *,
    block: int = 4,
    grid: Grid | None = None,
    num_workers: int = 4,
) -> Representation:
    """Return the mean displacement per block in voxels, three numbers a block; as :func:`log_jacobian_blocks`.

    Args:
        paths: subject to its ``from-T1w_to-template_xfm`` field, which lies on the template's grid.
        mask: of the brain, shape ``(D, H, W)``.
        block: side of a block in voxels.
        grid: of the mask; see :func:`log_jacobian_blocks`.
        num_workers: threads that read.
    """

    def row(path: str | Path) -> FloatArray:
        field, place = read_displacement(path)
        on_grid(field[0], place, grid, turn=False)
        return _means(field, blocks)

    blocks = _Blocks(mask, block)
    return read_rows("displacement", paths, row, num_workers)


def intensity_blocks(
    paths: Mapping[str, str | Path],
    mask: BoolArray,
    *,
    block: int = 4,
    grid: Grid | None = None,
    num_workers: int = 4,
) -> Representation:
    """Return the mean intensity per block, each image scaled to mean 0 and standard deviation 1 inside the mask.

    The rival that knows only the image: what is usually looked at when nobody registers.

    Args:
        paths: subject to its image on the template's grid.
        mask: of the brain, shape ``(D, H, W)``.
        block: side of a block in voxels.
        grid: of the mask; see :func:`log_jacobian_blocks`.
        num_workers: threads that read.
    """

    def row(path: str | Path) -> FloatArray:
        volume = read_volume(path)
        array = on_grid(volume.array, volume.grid, grid)
        if array.shape == mask.shape:
            inside = array[mask]
            array = (array - inside.mean()) / inside.std()
        return _means(array[None], blocks)

    blocks = _Blocks(mask, block)
    return read_rows("intensity", paths, row, num_workers)


class _Blocks:
    """The blocks that lie inside a mask, and the sum over them as one product along each axis."""

    def __init__(self, mask: BoolArray, side: int) -> None:
        self.mask = mask
        self.starts = [np.arange(0, size, side) for size in mask.shape]
        self.inside = self.sums(mask.astype(np.float64))
        self.kept = self.inside >= _LEAST_SHARE * side**3
        if not self.kept.any():
            raise MonaiFairError(f"mask: expected a block of side {side} half inside it, got none; take smaller blocks")

    def sums(self, values: npt.NDArray[Any]) -> FloatArray:
        """Sum ``(..., D, H, W)`` over blocks."""
        for axis, starts in zip((-3, -2, -1), self.starts, strict=True):
            values = np.add.reduceat(values, starts, axis=axis)
        return values.astype(np.float64)


def on_grid(array: npt.NDArray[Any], own: Grid, wanted: Grid | None, *, turn: bool = True) -> npt.NDArray[Any]:
    """Return the array with axes as ``wanted`` has them, or say how far away it lies."""
    if wanted is None:
        return array
    turned, grid = canonical(array, own) if turn else (array, own)
    if not grid.matches(wanted):
        apart = f", {grid.distance_mm(wanted):.3g} mm away" if grid.shape == wanted.shape else ""
        raise GeometryError(
            f"expected the template's grid of {wanted.shape} voxels, got {grid.shape} voxels{apart}; "
            "give the template of the registration"
        )
    return turned


def _means(values: npt.NDArray[Any], blocks: _Blocks, *, allow_undefined: bool = False) -> FloatArray:
    """Return block means of the defined voxels inside the mask, component by component, shape ``(C * blocks,)``."""
    if values.shape[1:] != blocks.mask.shape:
        raise MonaiFairError(f"expected the mask's shape {blocks.mask.shape}, got {values.shape[1:]}")
    counted = blocks.mask & np.isfinite(values).all(axis=0)
    count = blocks.sums(counted.astype(np.float64))[blocks.kept]
    if not count.all() and not allow_undefined:
        raise MonaiFairError(f"expected defined voxels in every block, got {int((count == 0).sum())} blocks without")
    count[count == 0] = np.nan
    return np.concatenate([blocks.sums(np.where(counted, part, 0.0))[blocks.kept] / count for part in values])
