"""Volumes and matrices as SimpleITK objects and back, and one thread for all of ITK."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813

from monai_fair.geometry import Axes, Grid

Matrix = npt.NDArray[np.float64]
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@contextmanager
def one_thread() -> Iterator[None]:
    """Let ITK use one thread inside the block: sums in another order would give other last bits.

    ITK's filters inside filters know only the global number, so that it is set and put back.
    """
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def to_itk(array: npt.NDArray[Any], grid: Grid) -> Any:
    """Return ``array`` of shape ``(D, H, W)`` as a SimpleITK image; booleans become uint8."""
    stored = array.astype(np.uint8) if array.dtype == bool else array
    # SimpleITK takes (z, y, x) and world axes left, posterior, superior
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored.transpose(2, 1, 0)))
    matrix = grid.matrix(Axes.VOXEL, Axes.LPS)
    image.SetSpacing(grid.spacing_mm)
    image.SetDirection((matrix[:3, :3] / np.asarray(grid.spacing_mm)).ravel().tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    return image


def from_itk(image: Any) -> npt.NDArray[Any]:
    """Return the voxels of a SimpleITK image, shape ``(D, H, W)``, C-contiguous."""
    return np.ascontiguousarray(sitk.GetArrayFromImage(image).transpose(2, 1, 0))


def itk_affine(matrix_ras: Matrix) -> Any:
    """Return a homogeneous matrix between points in RAS millimetres as an ITK affine transform, which is LPS."""
    lps = _LPS @ matrix_ras @ _LPS
    return sitk.AffineTransform(lps[:3, :3].ravel().tolist(), lps[:3, 3].tolist())


def ras_matrix(transform: Any) -> Matrix:
    """Return a linear ITK transform of any class as a homogeneous matrix ``(4, 4)`` in RAS millimetres."""
    corners = np.vstack([np.zeros(3), np.eye(3)])
    moved = np.array([transform.TransformPoint(point.tolist()) for point in corners])
    lps = np.eye(4)
    lps[:3, 3] = moved[0]
    lps[:3, :3] = (moved[1:] - moved[0]).T
    matrix: Matrix = _LPS @ lps @ _LPS
    return matrix


def resample(image: Any, transform: Any, reference: Any, *, interpolation: str = "linear") -> Any:
    """Read ``image`` on the grid of ``reference`` through ``transform`` (reference to image); 0 outside.

    Args:
        image: what is read.
        transform: from points of ``reference`` to points of ``image``.
        reference: image with the output's grid.
        interpolation: ``linear``, ``bspline`` (cubic) or ``nearest``.
    """
    kinds = {"linear": sitk.sitkLinear, "bspline": sitk.sitkBSpline, "nearest": sitk.sitkNearestNeighbor}
    return sitk.Resample(image, reference, transform, kinds[interpolation], 0.0, image.GetPixelID())
