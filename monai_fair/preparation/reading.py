"""Scans as they are published: NIfTI, the Analyze pairs of OASIS-1, the arrays of OpenBHB.

Axis conventions:

* NIfTI: sform, else qform, as ``monai_fair.data.read_volume`` says.
* Analyze 7.5 (``.hdr`` and ``.img``) does not say where left is, and a NIfTI file may lack both forms. Then
  ``orientation`` has to: three letters, the directions in which the array's axes run. RAW and ``sbj_111`` images of
  OASIS-1 are ``ASL`` (a vitamin capsule marks the left, Marcus et al. 2007).
* ``.npy``: an array ``(1, 182, 218, 182)``, as the quasi-raw images of OpenBHB, lies on FSL's 1 mm grid of MNI152,
  whose first axis runs to the left. Any other array needs ``orientation`` and is taken to have voxels of 1 mm.

Where the orientation comes from the option, the middle of the array is the world's origin.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813

from monai_fair.data.volumes import Volume, load_nifti, read_volume, unreadable
from monai_fair.errors import GeometryError, raise_problems
from monai_fair.geometry import Grid
from monai_fair.preparation.conversion import Matrix, ras_matrix

_MNI_SHAPE = (182, 218, 182)
_MNI_AFFINE = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])
_AXES = ({"L", "R"}, {"A", "P"}, {"I", "S"})
_ANALYZE = (".hdr", ".img", ".img.gz")


def orientation_problem(code: object) -> str:
    """Say what is wrong with an orientation such as ``ASL``; empty when nothing is."""
    text = str(code)
    if len(text) == 3 and all(any(letter in axis for letter in text) for axis in _AXES):
        return ""
    return (
        f"orientation: expected three letters, one each of L or R, A or P, I or S, in the order of the array's axes, "
        f"got '{text}'; give one such as ASL"
    )


def read_scan(path: str | Path, *, orientation: str = "") -> tuple[Volume, str]:
    """Read a scan of any of the published kinds.

    Args:
        path: ``.nii``, ``.nii.gz``, ``.hdr`` or ``.img`` of an Analyze or NIfTI pair, or ``.npy``.
        orientation: of files that do not say it themselves; empty refuses them.

    Returns:
        The scan as float32, and where its affine comes from: ``file``, ``option`` or ``MNI152 (array)``.

    Raises:
        GeometryError: naming the file and every problem: missing, damaged, not 3D, without an affine, spacing of 0,
            voxels that are not finite, or one value everywhere.
    """
    path = Path(path)
    if orientation and (problem := orientation_problem(orientation)):
        raise GeometryError(problem)
    if path.suffix == ".npy":
        return _read_array(path, orientation)
    if path.name.endswith(_ANALYZE):
        return _with_orientation(path, _load_pair(path), orientation)
    if orientation and not _says_orientation(image := load_nifti(path)):
        return _with_orientation(path, image, orientation)
    return read_volume(path), "file"


def read_affine(path: str | Path) -> Matrix:
    """Read an affine map that other software wrote as an ITK transform.

    Args:
        path: ``.tfm``, ``.txt``, ``.h5`` or ``.mat``, in ITK's LPS millimetres, from points of the template to points
            of the scan: what ``antsRegistration`` with the template as its fixed image writes.

    Returns:
        The matrix ``(4, 4)`` between RAS millimetres.

    Raises:
        GeometryError: naming the file, if it is no linear transform in three dimensions.
    """
    path = Path(path)
    if not path.is_file():
        raise GeometryError(f"{path}: expected an ITK transform, found none; check the path")
    try:
        transform = sitk.ReadTransform(str(path))
    except RuntimeError as error:
        raise GeometryError(
            f"{path}: expected an ITK transform (.tfm, .txt, .h5, or .mat as ANTs writes it), got something else; "
            "convert it, such as FSL's with c3d_affine_tool"
        ) from error
    if transform.GetDimension() != 3 or not transform.IsLinear():
        raise GeometryError(
            f"{path}: expected a linear transform in 3 dimensions, got {transform.GetName()} in "
            f"{transform.GetDimension()}; give the affine part alone"
        )
    return ras_matrix(transform)


def oriented_affine(shape: Sequence[int], spacing_mm: npt.ArrayLike, orientation: str) -> npt.NDArray[np.float64]:
    """Return the affine ``(4, 4)`` of an array whose axes run along ``orientation``, its middle at the origin."""
    affine = np.zeros((4, 4))
    for axis, (letter, spacing) in enumerate(zip(orientation, np.asarray(spacing_mm), strict=True)):
        world = next(place for place, letters in enumerate(_AXES) if letter in letters)
        affine[world, axis] = spacing if letter in "RAS" else -spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    affine[3, 3] = 1.0
    return affine


def _read_array(path: Path, orientation: str) -> tuple[Volume, str]:
    if not path.is_file():
        raise GeometryError(f"{path}: expected an array, found none; check the path")
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise unreadable(path, "a whole .npy file", error) from error
    spatial = _without_ones(values.shape)
    if spatial == _MNI_SHAPE and not orientation:
        return _volume(path, values, spatial, _MNI_AFFINE), "MNI152 (array)"
    if not orientation:
        raise GeometryError(
            f"{path}: expected an array of shape {_MNI_SHAPE}, which lies on the MNI152 grid, got {values.shape}, "
            "whose affine is not known; give --orientation (voxels of 1 mm), or convert it to NIfTI"
        )
    affine = oriented_affine(spatial, (1.0, 1.0, 1.0), orientation) if len(spatial) == 3 else np.eye(4)
    return _volume(path, values, spatial, affine), "option"


def _load_pair(path: Path) -> Any:
    stem = path.name.removesuffix(".gz").rsplit(".", 1)[0]
    missing = [
        " or ".join(endings)
        for endings in ((".hdr", ".hdr.gz"), (".img", ".img.gz"))
        if not any((path.parent / (stem + ending)).is_file() for ending in endings)
    ]
    if missing:
        raise GeometryError(f"{path}: expected a pair of files {stem}.hdr and {stem}.img, found no {missing[0]}")
    try:
        image = nib.load(path)
        image.get_fdata(dtype=np.float32)
    except Exception as error:
        # nibabel, gzip and numpy raise many classes, none of which names the file
        raise unreadable(path, "a whole Analyze or NIfTI pair", error) from error
    return image


def _with_orientation(path: Path, image: Any, orientation: str) -> tuple[Volume, str]:
    header, values = image.header, image.get_fdata(dtype=np.float32)
    spatial = _without_ones(values.shape)
    if _says_orientation(image):
        return _volume(path, values, spatial, image.affine), "file"
    with image.file_map.get("header", image.file_map["image"]).get_prepare_fileobj("rb") as file:
        stored = type(header).from_fileobj(file, check=False)
    # nibabel turns a spacing of 0 into 1 when it loads; the header as stored still has the 0
    spacing = np.abs(np.asarray(stored["pixdim"][1:4], dtype=np.float64))
    problems = []
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        problems.append(f"expected a voxel spacing above 0, got {spacing.tolist()}; repair the header (pixdim)")
    if not orientation:
        problems.append(
            "expected an affine, found none (Analyze does not say where left is); give --orientation, such as ASL for "
            "OASIS-1"
        )
    raise_problems(GeometryError, path, problems)
    affine = oriented_affine(spatial, spacing, orientation) if len(spatial) == 3 else np.eye(4)
    return _volume(path, values, spatial, affine), "option"


def _says_orientation(image: Any) -> bool:
    codes = [name for name in ("sform_code", "qform_code") if name in image.header]
    return any(int(image.header[name]) > 0 for name in codes)


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """Drop a leading channel axis and trailing axes of length 1, which make a volume look 4D."""
    sizes = list(shape[1:] if len(shape) == 4 and shape[0] == 1 else shape)
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    return tuple(int(size) for size in sizes)


def _volume(path: Path, values: Any, spatial: tuple[int, ...], affine: Any) -> Volume:
    """Check what any reader of voxels checks, and make a volume."""
    problems = []
    if len(spatial) != 3:
        problems.append(f"expected one 3D volume, got shape {values.shape}; give one volume per file")
    if values.dtype.kind not in "iuf":
        problems.append(f"expected real numbers, got voxels of type {values.dtype}; convert the image")
    raise_problems(GeometryError, path, problems)
    array = np.ascontiguousarray(values, dtype=np.float32).reshape(spatial)
    broken = int(array.size - np.isfinite(array).sum())
    if broken:
        raise GeometryError(
            f"{path}: expected finite voxels, got {broken} that are not, of {array.size}; repair the image"
        )
    if array.min() == array.max():
        raise GeometryError(
            f"{path}: expected an image, got the value {array.flat[0]:g} in every voxel; give another file"
        )
    return Volume(array, Grid((spatial[0], spatial[1], spatial[2]), affine), str(path))
