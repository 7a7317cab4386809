"""Displacement fields and transforms on disk, in world millimetres (LPS) as ITK and ANTs read them.

In memory a field has shape ``(3, D, H, W)`` and is in voxels of its grid: ``subject(x) = template(x + u(x))``. A
resampler of ITK or ANTs that is given the file moves the template to the subject as ``monai_fair.geometry.warp`` does.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813

from monai_fair.data.artifacts import atomic_path
from monai_fair.data.volumes import grid_of, grid_problems, load_nifti, save_nifti, unreadable
from monai_fair.errors import GeometryError, raise_problems
from monai_fair.geometry import Axes, Grid

_HDF5 = (".h5", ".hdf5")
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# ITK keeps its own axes under the first intent, and by the NIfTI standard turns to the world's RAS for the second
_AXES_BY_INTENT = {"vector": Axes.LPS, "displacement vector": Axes.RAS}


def write_displacement(path: str | Path, displacement_vox: npt.NDArray[Any], grid: Grid) -> Path:
    """Write a field as a NIfTI image of vectors, shape ``(D, H, W, 1, 3)`` float32, as ANTs writes its warps.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file.
        displacement_vox: shape ``(3, D, H, W)``, in voxels.
        grid: of the field.

    Returns:
        ``path`` as a ``Path``.

    Raises:
        GeometryError: if the shapes differ or a value is not finite.
    """
    vectors = _to_lps(path, displacement_vox, grid)
    stored = np.moveaxis(vectors, 0, -1)[:, :, :, None, :].astype(np.float32)
    return save_nifti(path, stored, grid, intent="vector")


def read_displacement(path: str | Path) -> tuple[npt.NDArray[np.float32], Grid]:
    """Read a displacement image of vectors in LPS millimetres: NIfTI, or what else SimpleITK reads (MHA, NRRD).

    Args:
        path: the file; a ``.nii`` or ``.nii.gz`` has shape ``(D, H, W, 1, 3)`` and the intent ``vector``, or
            ``displacement vector`` with components in RAS, as ITK reads that one.

    Returns:
        The field in voxels, shape ``(3, D, H, W)``, and its grid.

    Raises:
        GeometryError: if there is no such file, it is damaged, is no image of 3D vectors, or a value is not finite.
    """
    path = Path(path)
    if path.name.endswith((".nii", ".nii.gz")):
        vectors, axes, grid = _read_nifti(path)
    else:
        vectors, axes, grid = _read_image(path)
    return _to_voxels(path, vectors, axes, grid), grid


def write_itk_transform(path: str | Path, displacement_vox: npt.NDArray[Any], grid: Grid) -> Path:
    """Write a field as ITK's ``DisplacementFieldTransform`` in HDF5, 24 bytes a voxel.

    SimpleITK knows this transform in double precision only and cannot compress it; what :func:`write_displacement`
    writes is the same field in at most half of that, for ITK and ANTs too. HDF5 keeps the time of writing, so equal
    fields do not give equal bytes here.

    Args:
        path: a ``.h5`` or ``.hdf5`` file.
        displacement_vox: shape ``(3, D, H, W)``, in voxels.
        grid: of the field.

    Returns:
        ``path`` as a ``Path``.

    Raises:
        GeometryError: if the shapes differ, a value is not finite, or the name has another ending.
    """
    path = Path(path)
    if path.suffix not in _HDF5:
        raise GeometryError(f"{path}: expected a name that ends in .h5 or .hdf5, got '{path.name}'; rename it")
    vectors = _to_lps(path, displacement_vox, grid)
    image = sitk.GetImageFromArray(np.transpose(vectors, (3, 2, 1, 0)), isVector=True)
    spacing, origin, direction = _itk_frame(grid)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    # SimpleITK chooses the format by the name's ending, so the temporary file has it too
    with atomic_path(path, suffix=path.suffix) as temporary:
        sitk.WriteTransform(sitk.DisplacementFieldTransform(image), str(temporary))
    return path


def read_itk_transform(path: str | Path, grid: Grid) -> npt.NDArray[np.float32]:
    """Read any 3D transform file of ITK (affine, B-spline, displacement field, composite) as a field on ``grid``.

    Args:
        path: what ``SimpleITK.ReadTransform`` reads: ``.h5``, ``.hdf5``, ``.tfm``, ``.txt``, ``.mat``.
        grid: where the transform is sampled; outside its own domain a displacement field or B-spline moves nothing.

    Returns:
        The field in voxels, shape ``(3, D, H, W)``.

    Raises:
        GeometryError: if there is no such file, it is damaged, or holds no 3D transform.
    """
    path = Path(path)
    if not path.is_file():
        raise GeometryError(f"{path}: expected a transform file, found none; check the path")
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise unreadable(path, "a transform file of ITK", error) from error
    if transform.GetDimension() != 3:
        raise GeometryError(f"{path}: expected a 3D transform, got {transform.GetDimension()} dimensions")
    spacing, origin, direction = _itk_frame(grid)
    image = sitk.TransformToDisplacementField(transform, sitk.sitkVectorFloat64, grid.shape, origin, spacing, direction)
    return _to_voxels(path, _vectors(image), Axes.LPS, grid)


def _itk_frame(grid: Grid) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Return spacing, origin and direction of a grid as ITK has them, in LPS."""
    to_lps = grid.matrix(Axes.VOXEL, Axes.LPS)
    direction = to_lps[:3, :3] / grid.spacing_mm
    return grid.spacing_mm, tuple(to_lps[:3, 3].tolist()), tuple(direction.ravel().tolist())


def _to_lps(path: str | Path, displacement_vox: npt.NDArray[Any], grid: Grid) -> npt.NDArray[np.float64]:
    field = np.asarray(displacement_vox, dtype=np.float64)
    if field.shape != (3, *grid.shape):
        raise GeometryError(f"{path}: expected a field of shape {(3, *grid.shape)} on its grid, got {field.shape}")
    raise_problems(GeometryError, path, _value_problems(field))
    vectors: npt.NDArray[np.float64] = grid.displacement(field, Axes.VOXEL, Axes.LPS)
    return vectors


def _to_voxels(path: Path, vectors_mm: npt.NDArray[Any], axes: Axes, grid: Grid) -> npt.NDArray[np.float32]:
    raise_problems(GeometryError, path, _value_problems(vectors_mm))
    field = grid.displacement(vectors_mm.astype(np.float64), axes, Axes.VOXEL)
    return np.ascontiguousarray(field, dtype=np.float32)


def _value_problems(field: npt.NDArray[Any]) -> list[str]:
    broken = int(field.size - np.isfinite(field).sum())
    return [f"expected finite displacements, got {broken} values that are not, of {field.size}"] if broken else []


def _read_nifti(path: Path) -> tuple[npt.NDArray[Any], Axes, Grid]:
    image = load_nifti(path)
    problems = grid_problems(image)
    intent = image.header.get_intent()[0]
    if image.shape[3:] != (1, 3) or intent not in _AXES_BY_INTENT:
        problems.append(
            f"expected a field of shape (D, H, W, 1, 3) with intent 'vector', got shape {image.shape} with intent "
            f"'{intent}'; write it with ITK, ANTs or this package"
        )
    raise_problems(GeometryError, path, problems)
    values = np.asarray(image.dataobj, dtype=np.float64)
    return np.moveaxis(values[:, :, :, 0, :], -1, 0), _AXES_BY_INTENT[intent], grid_of(image)


def _read_image(path: Path) -> tuple[npt.NDArray[Any], Axes, Grid]:
    if not path.is_file():
        raise GeometryError(f"{path}: expected a displacement image, found none; check the path")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise unreadable(path, "a displacement image", error) from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 3:
        raise GeometryError(
            f"{path}: expected a 3D image of 3 components, got {image.GetDimension()} dimensions and "
            f"{image.GetNumberOfComponentsPerPixel()} components; a transform file is read by read_itk_transform"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return _vectors(image), Axes.LPS, Grid(image.GetSize(), _LPS @ affine)


def _vectors(image: Any) -> npt.NDArray[Any]:
    return np.transpose(sitk.GetArrayFromImage(image), (3, 2, 1, 0))
