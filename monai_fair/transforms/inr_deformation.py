"""Subjects in other shapes: an image on the template is pulled through a deformation that a sampled code stands for."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor, ensure_tuple_rep
from torch import Tensor

from monai_fair.errors import MonaiFairError
from monai_fair.geometry import jacobian_determinant, warp

Decode = Callable[[Tensor], Tensor]


class Draw(Protocol):
    """What a sampler answers."""

    @property
    def code(self) -> npt.NDArray[np.float64]:
        """The code, shape ``(d,)``."""


class Sampler(Protocol):
    """What draws codes, such as :class:`monai_fair.subgroups.CodeSampler`."""

    def draw(self, cell: Hashable, rng: np.random.Generator) -> Draw:
        """Draw a code of a cell."""


def smallest_determinant(displacement_vox: Tensor, mask: Tensor) -> Tensor:
    """Return the smallest det J of pull-backs inside the brain of the subject they make.

    Args:
        displacement_vox: on the subject's grid, reading the template, shape ``(B, 3, D, H, W)``.
        mask: of the template's brain, ``(D, H, W)``, above 0 inside; it is carried to each subject.

    Returns:
        Shape ``(B,)``. At or below 0 the deformation folds; NaN where no voxel of the brain is left in the image.
    """
    masks = (mask > 0).to(displacement_vox).expand(len(displacement_vox), 1, *mask.shape)
    moved = warp(masks, displacement_vox, mode="nearest")[:, 0] > 0
    least = jacobian_determinant(displacement_vox).masked_fill(~moved, torch.inf).flatten(1).amin(dim=1)
    return torch.where(moved.flatten(1).any(dim=1), least, torch.nan)


class RandINRDeformationd(RandomizableTransform, MapTransform):
    """With a probability, replace an image by its subject in another shape of the same cell.

    The item brings the image twice: as it is (``keys``) and on the template (``template_keys``, a registration's
    ``space-template`` image). A code is drawn for the item's cell, and the image on the template is pulled through the
    deformation that ``decode`` gives for it: ``T(x + u(x))``. Draws that fold (det J <= 0 in the brain) are repeated.

    The label is left as it is, and is right: shape and image are of subjects of the item's cell, which has one label.
    The image is interpolated twice and so softer than one that was not replaced; with one probability for all cells
    that tells nothing of the label. Files of the bundle's ``generate.yaml`` are interpolated once.

    Images, mask and fields share the template's grid, axes in RAS order; load them with ``Orientationd(axcodes="RAS")``
    where files may have others.

    Args:
        keys: images to replace, of shape ``(C, D, H, W)``.
        sampler: draws codes, such as :class:`monai_fair.subgroups.CodeSampler` of the training codes.
        decode: takes codes ``(B, d)``, float32, to displacements in voxels ``(B, 3, D, H, W)``, such as
            :class:`monai_fair.engines.CodeDecoder`.
        template_keys: for each of ``keys`` the same image on the template, of the same shape.
        mask: of the template's brain, ``(D, H, W)``.
        cell_key: the item's cell, as the sampler knows it.
        prob: of a replacement, 0 to 1.
        mode: ``bilinear`` or ``nearest`` (label maps), one for all keys or one each.
        draws: codes that are tried before it is an error.
        allow_missing_keys: skip keys that an item lacks.

    Raises:
        MonaiFairError: by a call, if no draw keeps from folding, or the item's cell cannot be sampled.
    """

    def __init__(
        self,
        keys: KeysCollection,
        sampler: Sampler,
        decode: Decode,
        *,
        template_keys: KeysCollection,
        mask: npt.ArrayLike | Tensor,
        cell_key: str = "cell",
        prob: float = 0.5,
        mode: str | tuple[str, ...] = "bilinear",
        draws: int = 50,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.sampler = sampler
        self.decode = decode
        self.template_keys = ensure_tuple_rep(template_keys, len(self.keys))
        self.mask = torch.as_tensor(mask)
        self.cell_key = cell_key
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.draws = draws
        self._field: Tensor | None = None

    def randomize(self, data: Hashable) -> None:
        """Decide whether to deform, and draw the field for a cell."""
        super().randomize(None)
        # the sampler wants numpy's new generators; MONAI hands out and seeds old ones
        seed = int(self.R.randint(2**31, dtype=np.int64))
        self._field = self._drawn(data, np.random.default_rng(seed)) if self._do_transform else None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item, with its images replaced or as they are."""
        item = dict(data)
        self.randomize(item[self.cell_key])
        if self._field is None:
            return item
        for key, source, mode in self.key_iterator(item, self.template_keys, self.mode):
            image = convert_to_tensor(item[source], dtype=torch.float32, track_meta=False)[None]
            moved = warp(image, self._field.to(image.device), mode=mode)[0]
            item[key] = convert_to_dst_type(moved, item[key])[0]
        return item

    @torch.no_grad()
    def _drawn(self, cell: Hashable, rng: np.random.Generator) -> Tensor:
        least = float("nan")
        for _ in range(self.draws):
            code = torch.from_numpy(self.sampler.draw(cell, rng).code).float()[None]
            field = self.decode(code)
            least = float(smallest_determinant(field, self.mask.to(field.device))[0])
            if least > 0:
                return field
        raise MonaiFairError(
            f"cell {cell!r}: expected a deformation without folds, got none in {self.draws} draws (the last has det J "
            f"{least:.3g}); fit the registration with integration_steps, or take another rule"
        )
