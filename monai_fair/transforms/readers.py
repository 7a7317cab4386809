"""Image readers for MONAI's ``LoadImage``.

``LoadImage`` answers an error in a reader's ``read`` by trying all its other readers, which may give another layout,
or crash on a damaged file. So ``read`` only takes the paths here; ``get_data`` loads, and its errors are seen.
"""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
from monai.data import NumpyReader, PILReader
from monai.utils import ensure_tuple
from PIL import ExifTags, Image, ImageOps

from monai_fair.data.sources import open_npz
from monai_fair.errors import ImageFileError


class RGBReader(PILReader):
    """Read JPEG, PNG or TIFF files as RGB with rows first, resized while decoding.

    MONAI's ``PILReader`` gives columns first and keeps grey images grey; networks with ImageNet weights expect
    rows first and three channels. Pillow resizes with antialiasing and decodes a large JPEG at the scale it is
    needed, which is several times faster than resizing the decoded tensor.

    Args:
        size: height and width of the result in pixels (the aspect ratio is not kept); ``None`` keeps the size.
        grayscale: read one channel instead of three.
    """

    def __init__(self, size: int | Sequence[int] | None = None, *, grayscale: bool = False) -> None:
        super().__init__(reverse_indexing=False)
        self.size = (size, size) if isinstance(size, int) else tuple(size) if size is not None else None
        self.mode = "L" if grayscale else "RGB"

    def read(self, data: str | Path | Sequence[str | Path]) -> tuple[str | Path, ...]:
        """Take the path of one file or several; :meth:`get_data` reads them."""
        return _paths(data)

    def get_data(self, img: Sequence[str | Path]) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Decode the files of :meth:`read`; the channels of several stand behind each other.

        Returns:
            Array of shape ``(height, width, channels)``, and MONAI's metadata.

        Raises:
            ImageFileError: with the file's name, if it is not an image, is damaged, or has more than 8 bits per
                channel.
        """
        data: tuple[npt.NDArray[Any], dict[str, Any]] = super().get_data([self._decode(name) for name in img])
        return data

    def _decode(self, name: str | Path) -> Image.Image:
        try:
            with Image.open(name) as image:
                return self._convert(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ImageFileError(f"{name}: expected a readable image; {error}") from error

    def _convert(self, image: Image.Image) -> Image.Image:
        if image.mode.startswith(("I", "F")):
            # Pillow would clip at 255; which window of the values is wanted is not for a reader to guess
            raise ValueError(f"expected 8 bits per channel, got mode '{image.mode}'; convert it to 8 bits first")
        if self.size is not None:
            height, width = self.size
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) > 4  # stored with rows and columns swapped
            # JPEG only: decode at 1/2, 1/4 or 1/8 if that is enough
            image.draft(self.mode, (height, width) if turned else (width, height))
        if "transparency" in image.info:
            image = image.convert("RGBA")  # without this step Pillow warns of palettes with transparency
        image = ImageOps.exif_transpose(image).convert(self.mode)
        return image if self.size is None else image.resize((width, height), Image.Resampling.BILINEAR)


class NPZReader(NumpyReader):
    """Read one array of ``.npz`` files, without pickle; an error names the file.

    Args:
        key: name of the array.
    """

    def __init__(self, key: str) -> None:
        super().__init__(npz_keys=key)
        self.key = key

    def read(self, data: str | Path | Sequence[str | Path]) -> tuple[str | Path, ...]:
        """Take the path of one file or several; :meth:`get_data` reads them."""
        return _paths(data)

    def get_data(self, img: Sequence[str | Path]) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Load the files of :meth:`read`; several are stacked.

        Returns:
            The array as stored, and MONAI's metadata.

        Raises:
            ImageFileError: with the file's name, if it is no ``.npz`` file, is damaged, or lacks the array.
        """
        data: tuple[npt.NDArray[Any], dict[str, Any]] = super().get_data([self._load(name) for name in img])
        return data

    def _load(self, name: str | Path) -> npt.NDArray[Any]:
        try:
            with open_npz(Path(name)) as arrays:
                array: npt.NDArray[Any] = arrays[self.key]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ImageFileError(f"{name}: expected an .npz file with the array '{self.key}'; {error}") from error
        return array


def _paths(data: str | Path | Sequence[str | Path]) -> tuple[str | Path, ...]:
    names: tuple[str | Path, ...] = ensure_tuple(data)
    return names
