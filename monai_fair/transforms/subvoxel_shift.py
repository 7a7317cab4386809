"""Random shifts by parts of a voxel, the augmentation of small effects on a coarse grid."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from monai_fair.errors import MonaiFairError


def shift_voxels(image: Tensor, shift: tuple[float, ...]) -> Tensor:
    """Return the image moved by parts of a voxel: linear along each axis, with the values at the edges repeated.

    ``out[i] = image[i - shift]``. Three passes over the array, a tenth of the time of a resampling in three dimensions
    with the same result.

    Args:
        image: shape ``(C, *spatial)``, floating point.
        shift: voxels along each spatial axis.
    """
    for axis, step in enumerate(shift, start=1):
        whole = int(np.floor(-step))
        places = torch.arange(image.shape[axis], device=image.device) + whole
        low, high = (part.clamp(0, image.shape[axis] - 1) for part in (places, places + 1))
        image = torch.lerp(image.index_select(axis, low), image.index_select(axis, high), -step - whole)
    return image


class RandSubvoxelShiftd(Randomizable, MapTransform):
    """Move images at random, at most by ``max_shift`` voxels along each axis, each time anew.

    Where voxels are hardly smaller than an effect, moving by whole voxels blurs what is to be learned, and not moving
    at all lets a network learn the very voxels of each image.

    Args:
        keys: images, shape ``(C, *spatial)``; all of an item move alike.
        max_shift: voxels, at least 0; drawn evenly from the interval of both signs. 0 leaves images as they are.
        allow_missing_keys: see MONAI's ``MapTransform``.

    Raises:
        MonaiFairError: if ``max_shift`` is negative or no finite number.
    """

    def __init__(self, keys: KeysCollection, max_shift: float, *, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if not (np.isfinite(max_shift) and max_shift >= 0):
            raise MonaiFairError(f"max_shift: expected a number of voxels from 0, got {max_shift}; correct it")
        self.max_shift = float(max_shift)
        self.shift: tuple[float, ...] = ()

    def randomize(self, data: int) -> None:
        """Draw a shift for ``data`` spatial axes."""
        self.shift = tuple(self.R.uniform(-self.max_shift, self.max_shift, size=data).tolist())

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Move the images of an item."""
        item = dict(data)
        first = self.first_key(item)
        if not self.max_shift or first == ():
            return item
        self.randomize(item[first].ndim - 1)
        for key in self.key_iterator(item):
            item[key] = shift_voxels(torch.as_tensor(item[key]), self.shift)
        return item
