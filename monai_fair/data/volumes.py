"""NIfTI volumes: read whole or refused with a reason, written whole, the same bytes for the same content."""

import gzip
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_fair.data.artifacts import atomic_path
from monai_fair.errors import GeometryError, raise_problems
from monai_fair.geometry import Grid

_SUFFIXES = (".nii", ".nii.gz")
_SCANNER = 1  # NIfTI code: the affine leads to the scanner's millimetres
_ITK_PREAMBLE = re.compile(r"ERROR: (?:\w+\(0x[0-9a-f]+\): )?")
_SHEAR_TOLERANCE = 1e-5  # cosine between axes; what float32 headers leave of a right angle is far below


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D image and where it lies.

    Attributes:
        array: shape ``(D, H, W)``, C-contiguous; float32 from :func:`read_volume`, int32 from :func:`read_labels`.
        grid: of its voxels.
        source: the file it came from.
    """

    array: npt.NDArray[Any]
    grid: Grid
    source: str


def read_volume(path: str | Path) -> Volume:
    """Read a 3D NIfTI image as float32, with the header's slope and intercept applied.

    Where sform and qform differ, the sform counts, as in nibabel. Axes of length 1 after the third are dropped. The
    checksum of a compressed file is verified; an uncompressed file has none.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file.

    Returns:
        The image, its array in the order of the file's axes.

    Raises:
        GeometryError: with all problems found: no file, not a whole NIfTI file, not one 3D volume of real numbers, no
            sform and no qform, a spacing of 0, a unit other than millimetres, a singular affine, voxels that are not
            finite, or one value everywhere.
    """
    image = load_nifti(path)
    problems = _kind_problems(image)
    # voxels of another kind cannot be looked at; a bad header does not hide bad voxels
    array = _voxels(image, np.float32) if not problems else np.empty(0, np.float32)
    problems += grid_problems(image)
    if array.size:
        problems += _value_problems(array)
    raise_problems(GeometryError, path, problems)
    return Volume(array, grid_of(image), str(path))


def read_map(path: str | Path) -> Volume:
    """Read a 3D NIfTI map, such as a log Jacobian, as float32; undefined voxels (NaN) and one value are allowed.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file.

    Raises:
        GeometryError: as :func:`read_volume` does, but for the values.
    """
    image = load_nifti(path)
    problems = _kind_problems(image)
    problems += grid_problems(image)
    raise_problems(GeometryError, path, problems)
    return Volume(_voxels(image, np.float32), grid_of(image), str(path))


def read_labels(path: str | Path) -> Volume:
    """Read a 3D NIfTI label map as int32; a map with one label everywhere is allowed.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file; whole numbers stored as floats are accepted.

    Raises:
        GeometryError: as :func:`read_volume` does, or if a voxel is not a whole number of 32 bits.
    """
    image = load_nifti(path)
    problems = _kind_problems(image)
    values = _voxels(image, np.float64) if not problems else np.empty(0, np.float64)
    problems += grid_problems(image)
    limits = np.iinfo(np.int32)
    broken = values[(values != np.rint(values)) | (values < limits.min) | (values > limits.max)]
    if broken.size:
        problems.append(
            f"expected labels, whole numbers of 32 bits, got {broken.size} other voxels of {values.size}, the first is "
            f"{broken[0]:g}; give a label map, or resample it with nearest neighbours"
        )
    raise_problems(GeometryError, path, problems)
    return Volume(values.astype(np.int32), grid_of(image), str(path))


def write_volume(path: str | Path, array: npt.NDArray[Any], grid: Grid, *, dtype: npt.DTypeLike | None = None) -> Path:
    """Write a 3D array as NIfTI, without a slope; values that are not finite are written as they are.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file (compressed at level 1, without a time stamp).
        array: shape ``(D, H, W)``, on ``grid``.
        grid: its grid; the sform always holds it, the qform where the axes are perpendicular.
        dtype: type of the voxels on disk; ``None`` writes floats as float32, booleans as uint8, 64-bit integers as
            int32 and other integers as they are.

    Returns:
        ``path`` as a ``Path``.

    Raises:
        GeometryError: if the shapes differ, the name has another ending, the values are no real numbers, or an
            integer ``dtype`` cannot hold one.
    """
    array = np.asarray(array)
    if array.shape != grid.shape:
        raise GeometryError(f"{path}: expected an array of the grid's shape {grid.shape}, got {array.shape}")
    if array.dtype.kind not in "biuf":
        raise GeometryError(f"{path}: expected an array of real numbers, got {array.dtype}; convert it")
    stored = np.dtype(_default_dtype(array.dtype) if dtype is None else dtype)
    if np.issubdtype(stored, np.integer):
        with np.errstate(invalid="ignore"):  # NaN to integer; the comparison sees it
            kept = array.astype(stored) == array
        if not kept.all():
            raise GeometryError(
                f"{path}: expected values that {stored} can hold, got {int((~kept).sum())} other voxels of "
                f"{kept.size}, the first is {array[~kept][0]:g}; choose another dtype"
            )
    return save_nifti(path, array.astype(stored), grid)


def load_nifti(path: str | Path) -> Any:
    """Return the nibabel image of a whole single-file NIfTI, its voxels in memory as bytes.

    Raises:
        GeometryError: if there is no such file, or it is empty, damaged, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise GeometryError(f"{path}: expected a NIfTI file, found none; check the path")
    try:
        content = path.read_bytes()
        # read to its end: nibabel stops at the last voxel and would not see gzip's checksum behind it
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        if content[344:348] == b"n+1\0":
            return _whole(nib.Nifti1Image.from_bytes(content), len(content))
        if content[4:8] == b"n+2\0":
            return _whole(nib.Nifti2Image.from_bytes(content), len(content))
    except Exception as error:
        # gzip, zlib and nibabel raise many classes, none of which names the file
        raise unreadable(path, "a whole NIfTI file", error) from error
    raise GeometryError(
        f"{path}: expected a NIfTI file (.nii, .nii.gz), got {len(content)} bytes of another kind; convert it"
    )


def unreadable(path: str | Path, expected: str, error: Exception) -> GeometryError:
    """Return the error that says a file cannot be read, with the first line of the reader's own reason."""
    # ITK's messages open with its source file and an address in memory
    reason = (_ITK_PREAMBLE.split(str(error))[-1].splitlines() or [""])[0]
    kind = type(error).__name__
    return GeometryError(
        f"{path}: expected {expected}, which cannot be read ({f'{kind}: {reason}' if reason else kind}); "
        f"fetch or write it again"
    )


def grid_of(image: Any) -> Grid:
    """Return the grid of the first three axes of a nibabel image."""
    return Grid(image.shape[:3], image.affine)


def grid_problems(image: Any) -> list[str]:
    """Return what is wrong with a header of :func:`load_nifti`, as far as it says where the voxels lie."""
    problems = []
    # the header as stored: nibabel's own turns a spacing of 0 into 1 and a negative one into a positive one
    with image.file_map["image"].get_prepare_fileobj("rb") as file:
        stored = type(image.header).from_fileobj(file, check=False)
    spacing = np.abs(np.asarray(stored["pixdim"][1:4], dtype=np.float64))
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        problems.append(f"expected a voxel spacing above 0, got {spacing.tolist()}; repair the header (pixdim)")
    if unit := {1: "metres", 3: "micrometres"}.get(int(stored["xyzt_units"]) % 8):
        problems.append(f"expected a spacing in millimetres, got one in {unit}; convert the header")
    if not (stored["sform_code"] > 0 or stored["qform_code"] > 0):
        problems.append(
            "expected an affine (sform or qform), got neither, so left and right are not known; copy it from the scan"
        )
    try:
        grid_of(image)
    except GeometryError as error:
        # an array without three axes is said by its kind
        problems += [str(error)] if len(image.shape) > 2 else []
    return problems


def save_nifti(path: str | Path, array: npt.NDArray[Any], grid: Grid, *, intent: str = "none") -> Path:
    """Write ``array``, whose first three axes lie on ``grid``, as NIfTI of the array's type with an ``intent``."""
    path = Path(path)
    if not path.name.endswith(_SUFFIXES):
        raise GeometryError(f"{path}: expected a name that ends in .nii or .nii.gz, got '{path.name}'; rename it")
    image = nib.Nifti1Image(array, grid.affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.header.set_intent(intent)
    image.set_sform(grid.affine, code=_SCANNER)
    if _is_perpendicular(grid):
        image.set_qform(grid.affine, code=_SCANNER)
    content = image.to_bytes()
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(content, compresslevel=1, mtime=0) if path.suffix == ".gz" else content)
    return path


def _whole(image: Any, size: int) -> Any:
    """Return ``image`` if its header fits a file of ``size`` bytes; nibabel would reserve whatever it asks for."""
    shape = image.shape
    if min(shape, default=0) < 0:
        raise ValueError(f"the header asks for the shape {shape}")
    needed = image.dataobj.offset + math.prod(shape) * image.get_data_dtype().itemsize
    if needed > size:
        raise EOFError(f"the header asks for {needed} bytes, the file has {size}")
    return image


def _is_perpendicular(grid: Grid) -> bool:
    """Tell whether the array axes stand at right angles, as a quaternion (the qform) needs."""
    directions = grid.affine[:3, :3] / grid.spacing_mm
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() < _SHEAR_TOLERANCE)


def _kind_problems(image: Any) -> list[str]:
    problems = []
    if len(image.shape) < 3 or any(size != 1 for size in image.shape[3:]):
        problems.append(f"expected one 3D volume, got shape {image.shape}; give one volume per file")
    if (kind := image.get_data_dtype()).kind not in "iuf":
        problems.append(f"expected voxels that are real numbers, got {_name(kind)}; convert the image")
    return problems


def _name(kind: np.dtype[Any]) -> str:
    return str(kind) if kind.names is None else f"colours ({', '.join(kind.names)})"


def _value_problems(array: npt.NDArray[np.float32]) -> list[str]:
    broken = int(array.size - np.isfinite(array).sum())
    if broken:
        return [f"expected finite voxels, got {broken} that are not, of {array.size}; repair the image"]
    if array.min() == array.max():
        return [f"expected an image, got the value {array.flat[0]:g} in every voxel; give another file"]
    return []


def _voxels(image: Any, dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
    # what float32 cannot hold becomes infinite, and is reported with the voxels that are not finite
    with np.errstate(over="ignore"):
        values = image.get_fdata(dtype=dtype, caching="unchanged")
    return np.ascontiguousarray(values.reshape(image.shape[:3]))


def _default_dtype(dtype: np.dtype[Any]) -> npt.DTypeLike:
    if dtype.kind == "f":
        return np.float32
    if dtype.kind == "b":
        return np.uint8
    # readers other than nibabel seldom know 64-bit integers
    return np.int32 if dtype.itemsize == 8 else dtype
