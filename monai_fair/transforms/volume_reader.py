"""A reader of NIfTI volumes for MONAI's ``LoadImage``: in one orientation, or refused with every reason."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from monai_fair.data.volumes import read_volume
from monai_fair.errors import ImageFileError
from monai_fair.geometry import canonical


class VolumeReader(ImageReader):
    """Read a 3D NIfTI image as float32 with axes that run right, anterior, superior (RAS).

    MONAI's ``NibabelReader`` takes a damaged checksum, NaN voxels and a missing affine without a word, and
    ``Orientationd`` needs the affine, which a run on plain tensors (``set_track_meta(False)``) does not keep. As in the
    other readers of this package, ``read`` only takes the path and ``get_data`` loads.

    Args:
        turn: turn the axes; without it they stay as in the file, for ``Orientationd``, which ``Invertd`` can undo.
    """

    def __init__(self, *, turn: bool = True) -> None:
        super().__init__()
        self.turn = turn

    def verify_suffix(self, filename: str | Path | Sequence[str | Path]) -> bool:
        """Say yes to any name: another file is an error of this reader, not a case for another one."""
        return True

    def read(self, data: str | Path | Sequence[str | Path]) -> tuple[str | Path, ...]:
        """Take the path; :meth:`get_data` reads it."""
        names: tuple[str | Path, ...] = ensure_tuple(data)
        return names

    def get_data(self, img: Sequence[str | Path]) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Load the file of :meth:`read`.

        Returns:
            Array of shape ``(D, H, W)``, its axes in the order right, anterior, superior unless ``turn`` is false, and
            MONAI's metadata.

        Raises:
            ImageFileError: if there are several files.
            GeometryError: with every problem of the file, see :func:`monai_fair.data.read_volume`.
        """
        if len(img) != 1:
            raise ImageFileError(f"expected one volume per item, got {len(img)} files: {', '.join(map(str, img))}")
        volume = read_volume(img[0])
        array, grid = canonical(volume.array, volume.grid) if self.turn else (volume.array, volume.grid)
        meta = {
            MetaKeys.AFFINE: grid.affine.copy(),  # a grid is read-only
            MetaKeys.ORIGINAL_AFFINE: volume.grid.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(grid.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: "no_channel",
        }
        return np.ascontiguousarray(array), meta
