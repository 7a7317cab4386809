"""What an encoder of pictures is shown of an image: slices of a volume, or the picture as it is."""

from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from scipy.ndimage import map_coordinates

from monai_fair.data import Volume, read_volume
from monai_fair.errors import ImageFileError
from monai_fair.geometry import canonical

_WINDOW = (0.5, 99.5)  # percentiles that become black and white
_OUTSIDE = 0.005  # share of the bright voxels that may lie on either side of what counts as inside
_MOST_PIXELS = 1024  # along a side: what a wrong spacing asks for must fit in memory


def volume_views(volume: Volume, *, slices: int = 3) -> npt.NDArray[np.uint8]:
    """Return axial, coronal and sagittal slices through the middle of what is inside an image.

    Inside is the box that holds all but 0.5 % of the voxels above the image's mean on either side along each axis.
    The slices of an axis divide it into equal parts: with 3 they lie at 1/4, 1/2 and 3/4. They show the whole field
    of view with square pixels, of the smallest spacing, on a black square of its longest side, so that the size of a
    head is not scaled away; anterior or superior is up, right is right. The 0.5th and the 99.5th percentile inside the
    box are black and white.

    Args:
        volume: of any orientation and spacing.
        slices: of each of the three directions.

    Returns:
        Shape ``(3 * slices, side, side)``: axial from inferior, coronal from posterior, sagittal from left.

    Raises:
        ImageFileError: if both percentiles are the same.
    """
    array, grid = canonical(volume.array, volume.grid)
    inside = array > array.mean(dtype=np.float64)
    box = [_extent(inside.sum(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    low, high = np.percentile(array[tuple(slice(first, last + 1) for first, last in box)], _WINDOW)
    if not low < high:
        raise ImageFileError(
            f"{volume.source}: expected an image with contrast, got {low:g} in 99 % of the voxels inside it; look at it"
        )
    lengths = (np.asarray(grid.shape) - 1) * grid.spacing_mm
    step = max(min(grid.spacing_mm), float(lengths.max()) / (_MOST_PIXELS - 1))
    # a rounding error must not cost the last pixel
    sizes = np.floor(lengths / step + 1e-6).astype(int) + 1
    views = np.zeros((3 * slices, sizes.max(), sizes.max()), np.uint8)
    for place, axes in enumerate(combinations(range(3), 2)):
        first, last = box[3 - sum(axes)]
        points = [np.arange(sizes[axis]) * step / grid.spacing_mm[axis] for axis in axes]
        for number in range(slices):
            at = round(first + (last - first) * (number + 1) / (slices + 1))
            plane = np.clip((array.take(at, axis=3 - sum(axes)) - low) / (high - low), 0.0, 1.0)
            sampled = map_coordinates(plane, np.meshgrid(*points, indexing="ij"), order=1, mode="nearest")
            _put(views[place * slices + number], np.rot90(np.rint(255 * sampled)))
    return views


def read_views(path: str | Path, *, slices: int = 3) -> list[Image.Image]:
    """Read what an encoder is shown of an image file.

    Args:
        path: NIfTI volume (``.nii``, ``.nii.gz``): the slices of :func:`volume_views`, in three equal channels. Any
            other file is a picture that Pillow reads, of 8 bits per channel: one view, as it is.
        slices: of each direction of a volume.

    Returns:
        RGB images.

    Raises:
        GeometryError: if the volume cannot be read.
        ImageFileError: if the picture cannot be read, or the volume has no contrast.
    """
    if str(path).endswith((".nii", ".nii.gz")):
        return [Image.fromarray(view).convert("RGB") for view in volume_views(read_volume(path), slices=slices)]
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                # which window of the values is wanted is not for a reader to guess
                raise ValueError(f"expected 8 bits per channel, got mode '{image.mode}'; convert it to 8 bits first")
            # without this step Pillow warns of palettes with transparency
            plain = image.convert("RGBA") if "transparency" in image.info else image
            return [ImageOps.exif_transpose(plain).convert("RGB")]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageFileError(f"{path}: expected a NIfTI volume or a picture; {error}") from error


def _extent(counts: npt.NDArray[np.int_]) -> tuple[int, int]:
    """Return the first and the last index of an axis that is inside, from the bright voxels at each."""
    below = np.cumsum(counts) / counts.sum()
    last = np.searchsorted(below, 1.0 - _OUTSIDE)
    return int(np.searchsorted(below, _OUTSIDE, side="right")), min(int(last), len(counts) - 1)


def _put(view: npt.NDArray[np.uint8], picture: npt.NDArray[np.float32]) -> None:
    """Write a picture in the middle of a view."""
    top, left = ((size - own) // 2 for size, own in zip(view.shape, picture.shape, strict=True))
    view[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
