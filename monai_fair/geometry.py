"""Grids, named axes and dense displacement fields: the only place where voxels and millimetres are converted.

Conventions, everywhere in this package:

* A field is a *pull-back* on the grid of its output: ``warped(x) = image(x + u(x))``, as in MONAI's ``Warp``.
* In memory a field has shape ``(B, 3, D, H, W)``; channel ``a`` is the displacement along array axis ``a`` in voxels.
* On disk (``monai_fair.data``) a field is in world millimetres, LPS, as ITK and ANTs read it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from monai_fair.errors import GeometryError

Matrix = npt.NDArray[np.float64]
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_STORED_MM = 0.01


class Axes(StrEnum):
    """Coordinate systems of points and vectors on a :class:`Grid`.

    ``VOXEL``: array indices, 0 at the centre of the first voxel, in the order of the array's axes.
    ``CUBE``: the same order, scaled so that the centres of the first and last voxel are -1 and 1
    (``align_corners=True`` of ``grid_sample``, but not in its reversed order).
    ``RAS``: world millimetres, right, anterior, superior positive (nibabel).
    ``LPS``: world millimetres, left, posterior, superior positive (ITK, ANTs, DICOM).
    """

    VOXEL = "voxel"
    CUBE = "cube"
    RAS = "ras"
    LPS = "lps"


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of voxel centres in the world.

    Attributes:
        shape: voxels along the three array axes, each at least 2.
        affine: matrix ``(4, 4)`` from voxel indices to RAS millimetres, as in nibabel.

    Raises:
        GeometryError: if the shape has not three axes of 2 voxels or more, or the affine is singular, not finite, or
            not of shape ``(4, 4)`` with last row ``0 0 0 1``.
    """

    shape: tuple[int, int, int]
    affine: Matrix

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        affine.setflags(write=False)
        shape = tuple(int(size) for size in self.shape)
        if len(shape) != 3 or min(shape) < 2:
            raise GeometryError(f"grid: expected three axes of at least 2 voxels, got shape {shape}; give a 3D volume")
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.array_equal(affine[3], [0, 0, 0, 1]):
            raise GeometryError(
                f"grid: expected a finite affine of shape (4, 4) with last row 0 0 0 1, got {affine.tolist()}"
            )
        if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise GeometryError(f"grid: expected voxels of positive size, got the singular affine {affine.tolist()}")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def isotropic(cls, shape: Sequence[int], spacing_mm: float = 1.0) -> "Grid":
        """Return an axis-aligned RAS grid with cubic voxels, centred on the world's origin."""
        affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
        affine[:3, 3] = -spacing_mm * (np.asarray(shape) - 1) / 2
        return cls(_triple(shape), affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along each array axis in millimetres."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def orientation(self) -> str:
        """Letters of the world directions nearest to the array axes, such as ``RAS``."""
        return "".join(nib.aff2axcodes(self.affine))

    def matrix(self, source: Axes, target: Axes) -> Matrix:
        """Return the homogeneous matrix ``(4, 4)`` that takes points from ``source`` to ``target`` axes."""
        if source == target:
            return np.eye(4)
        return np.linalg.solve(self._to_ras(target), self._to_ras(source)).astype(np.float64)

    def points(self, points: Any, source: Axes, target: Axes) -> Any:
        """Convert points of shape ``(..., 3)``, an array or a tensor, from ``source`` to ``target`` axes."""
        matrix = _like(self.matrix(source, target), points)
        return points @ matrix[:3, :3].T + matrix[:3, 3]

    def displacement(self, field: Any, source: Axes, target: Axes) -> Any:
        """Convert a displacement field of shape ``(..., 3, D, H, W)``, an array or a tensor, to ``target`` axes.

        Displacements are differences of points, so the affine's translation plays no part. The field's voxels stay
        where they are; its components change.
        """
        matrix = _like(self.matrix(source, target)[:3, :3], field)
        product = torch.einsum if isinstance(field, Tensor) else np.einsum
        return product("ab,...bxyz->...axyz", matrix, field)

    def matches(self, other: "Grid", *, tolerance_mm: float = _STORED_MM) -> bool:
        """Tell whether two grids have the same shape, and corners that lie within ``tolerance_mm`` of each other.

        The default is what headers of single precision may be apart.
        """
        return self.shape == other.shape and self.distance_mm(other) <= tolerance_mm

    def distance_mm(self, other: "Grid") -> float:
        """Return the largest distance in millimetres between corners (same indices of this grid's) of two grids."""
        corners = np.array(list(itertools.product(*((0, size - 1) for size in self.shape))), dtype=np.float64)
        apart = self.points(corners, Axes.VOXEL, Axes.RAS) - other.points(corners, Axes.VOXEL, Axes.RAS)
        return float(np.linalg.norm(apart, axis=-1).max())

    def _to_ras(self, axes: Axes) -> Matrix:
        if axes == Axes.CUBE:
            half = (np.asarray(self.shape) - 1) / 2
            matrix: Matrix = self.affine @ np.block([[np.diag(half), half[:, None]], [np.zeros((1, 3)), 1.0]])
            return matrix
        return {Axes.VOXEL: self.affine, Axes.RAS: np.eye(4), Axes.LPS: _LPS}[axes]


def canonical(array: npt.NDArray[Any], grid: Grid) -> tuple[npt.NDArray[Any], Grid]:
    """Flip and permute the last three axes of ``array`` so that they run right, anterior, superior.

    No value is interpolated. Registration runs in this order, so that a result lives in the world, not in the array.

    Args:
        array: shape ``(..., D, H, W)``.
        grid: its grid.

    Returns:
        The reordered array (a view) and its grid, whose orientation is ``RAS``.
    """
    turn = nib.orientations.io_orientation(grid.affine)
    moved = np.moveaxis(array, (-3, -2, -1), (0, 1, 2))
    turned = nib.orientations.apply_orientation(moved, turn)
    back = np.moveaxis(turned, (0, 1, 2), (-3, -2, -1))
    return back, Grid(_triple(back.shape[-3:]), grid.affine @ nib.orientations.inv_ornt_aff(turn, grid.shape))


def voxel_points(shape: Sequence[int], *, device: torch.device | str | None = None) -> Tensor:
    """Return the index of every voxel as float32, shape ``(3, D, H, W)``."""
    axes = [torch.arange(size, dtype=torch.float32, device=device) for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def sample(image: Tensor, points: Tensor, *, mode: str = "bilinear", padding_mode: str = "border") -> Tensor:
    """Read ``image`` at ``points`` in voxels of the image.

    Args:
        image: shape ``(B, C, D, H, W)``.
        points: shape ``(B, 3, X, Y, Z)``; channel ``a`` is the index along array axis ``a``.
        mode: ``bilinear`` (trilinear) or ``nearest``.
        padding_mode: outside the image, ``border`` repeats its edge and ``zeros`` gives 0.

    Returns:
        Values of shape ``(B, C, X, Y, Z)``.

    Raises:
        GeometryError: if the shapes do not fit together.
    """
    if image.dim() != 5 or points.dim() != 5 or points.shape[1] != 3 or image.shape[0] != points.shape[0]:
        raise GeometryError(
            f"sample: expected an image (B, C, D, H, W) and points (B, 3, X, Y, Z) of equal B, got "
            f"{tuple(image.shape)} and {tuple(points.shape)}"
        )
    scale = [2.0 / (size - 1) for size in image.shape[2:]]
    # grid_sample takes (x, y, z), the reverse of the array's axes
    cube = torch.stack([points[:, axis] * scale[axis] - 1.0 for axis in (2, 1, 0)], dim=-1)
    values: Tensor = functional.grid_sample(image, cube, mode=mode, padding_mode=padding_mode, align_corners=True)
    return values


def warp(image: Tensor, displacement_vox: Tensor, *, mode: str = "bilinear", padding_mode: str = "border") -> Tensor:
    """Return ``image(x + u(x))`` on the grid of the field ``u``.

    Args:
        image: shape ``(B, C, D, H, W)``.
        displacement_vox: shape ``(B, 3, D, H, W)``, in voxels.
        mode: ``bilinear`` or ``nearest`` (label maps).
        padding_mode: as in :func:`sample`.
    """
    points = voxel_points(displacement_vox.shape[2:], device=displacement_vox.device)
    return sample(image, points + displacement_vox, mode=mode, padding_mode=padding_mode)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Return the field of ``(id + outer) o (id + inner)``, that is ``inner(x) + outer(x + inner(x))``.

    Warping with the result equals warping with ``outer`` first and the outcome with ``inner``. Both fields have shape
    ``(B, 3, D, H, W)``, in voxels; outside the grid ``outer`` keeps its value at the edge.
    """
    return inner + warp(outer, inner)


def exponential(velocity_vox: Tensor, *, steps: int = 7) -> Tensor:
    """Integrate a stationary velocity field over unit time by scaling and squaring (Arsigny et al., MICCAI 2006).

    Args:
        velocity_vox: shape ``(B, 3, D, H, W)``, in voxels per unit time.
        steps: squarings; the first step is the field divided by ``2 ** steps``.

    Returns:
        Displacement of the flow, shape ``(B, 3, D, H, W)``, in voxels. ``exponential(-v)`` is its inverse.
    """
    field: Tensor = velocity_vox / 2**steps
    for _ in range(steps):
        field = compose(field, field)
    return field


def invert(displacement_vox: Tensor, *, iterations: int = 30, tolerance_vox: float = 0.0) -> Tensor:
    """Return the inverse field by the fixed point ``w <- -u(x + w)`` (Chen et al., Med Phys 2008).

    It converges where the field has a Lipschitz constant below 1; :func:`inverse_error` measures what is left.

    Args:
        displacement_vox: shape ``(B, 3, D, H, W)``, in voxels.
        iterations: of the fixed point, at most.
        tolerance_vox: stop when no component of any voxel changes by more.
    """
    inverse = torch.zeros_like(displacement_vox)
    for _ in range(iterations):
        renewed = -warp(displacement_vox, inverse)
        change = float((renewed - inverse).detach().abs().max())
        inverse = renewed
        if not change > tolerance_vox:
            break
    return inverse


def inverse_error(displacement_vox: Tensor, inverse_vox: Tensor) -> Tensor:
    """Return ``|| (id + u) o (id + w) - id ||`` per voxel, shape ``(B, D, H, W)``, in voxels."""
    error: Tensor = torch.linalg.vector_norm(compose(displacement_vox, inverse_vox), dim=1)
    return error


def jacobian(displacement_vox: Tensor) -> Tensor:
    """Return the Jacobian matrices of ``x + u(x)`` by finite differences.

    Differences are central inside and one-sided on the faces of the grid, as in ``numpy.gradient``.

    Args:
        displacement_vox: shape ``(B, 3, D, H, W)``, in voxels.

    Returns:
        Shape ``(B, 3, 3, D, H, W)``; entry ``[a, b]`` is the derivative of component ``a`` along array axis ``b``.
    """
    gradients = torch.stack(torch.gradient(displacement_vox, dim=(2, 3, 4)), dim=2)
    return gradients + torch.eye(3, device=gradients.device, dtype=gradients.dtype)[:, :, None, None, None]


def jacobian_determinant(displacement_vox: Tensor) -> Tensor:
    """Return det of :func:`jacobian`, shape ``(B, D, H, W)``.

    1 keeps the volume, above 1 the map expands, at or below 0 it folds. A change of linear axes does not alter it, so
    the value in voxels is the value in millimetres.
    """
    matrix = jacobian(displacement_vox)
    rows = [matrix[:, axis] for axis in range(3)]
    determinant: Tensor = (rows[0] * torch.linalg.cross(rows[1], rows[2], dim=1)).sum(dim=1)
    return determinant


def _triple(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise GeometryError(f"grid: expected three axes, got shape {tuple(shape)}; give a 3D volume")
    return int(shape[0]), int(shape[1]), int(shape[2])


def _like(matrix: Matrix, values: Any) -> Any:
    """Return ``matrix`` as the same kind of array as ``values``, so that products keep its type."""
    if isinstance(values, Tensor):
        return torch.as_tensor(matrix.copy(), dtype=values.dtype, device=values.device)
    return matrix
