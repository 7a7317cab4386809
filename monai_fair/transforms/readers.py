"""Image readers for MONAI's ``LoadImage``."""

from collections.abc import Sequence
from pathlib import Path

from monai.data import PILReader
from PIL import Image, ImageOps

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
        super().__init__(converter=self._convert, reverse_indexing=False)
        self.size = (size, size) if isinstance(size, int) else tuple(size) if size is not None else None
        self.mode = "L" if grayscale else "RGB"

    def read(self, data: str | Path | Sequence[str | Path]) -> Image.Image | list[Image.Image]:
        """Read one file or several.

        Raises:
            ImageFileError: with the file's name, if it is not an image or is damaged.
        """
        try:
            image: Image.Image | list[Image.Image] = super().read(data)
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageFileError(f"{data}: expected a readable image; {error}") from error
        return image

    def _convert(self, image: Image.Image) -> Image.Image:
        if self.size is not None:
            height, width = self.size
            image.draft(self.mode, (width, height))  # JPEG only: decode at 1/2, 1/4 or 1/8 if that is enough
            image = ImageOps.exif_transpose(image).convert(self.mode)
            return image.resize((width, height), Image.Resampling.BILINEAR)
        return ImageOps.exif_transpose(image).convert(self.mode)
