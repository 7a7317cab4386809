"""Images of a preprocessing chain must lie on the template's grid: resampling is what `prepare` is for."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_fair.data import Volume
from monai_fair.engines.cohort_images import placed_on_grid
from monai_fair.engines.registration_files import TemplateSpace
from monai_fair.errors import RegistrationError
from monai_fair.geometry import Grid


class TemplateGridCheckd(MapTransform):
    """Refuse an image that does not lie on the template's grid, or shows nothing inside the brain's mask.

    Args:
        keys: of images with metadata, shape ``(1, D, H, W)``, axes in RAS order.
        space: of the template.

    Raises:
        RegistrationError: when called, naming the file; as
            :func:`~monai_fair.engines.cohort_images.read_on_grid` does.
    """

    def __init__(self, keys: KeysCollection, space: TemplateSpace, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.space = space

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data as they are."""
        checked = dict(data)
        for key in self.key_iterator(checked):
            image = checked[key]
            if not isinstance(image, MetaTensor):
                raise RegistrationError(
                    f"{key}: expected an image with its affine, got {type(image).__name__}; keep metadata while loading"
                )
            grid = Grid(tuple(image.shape[1:]), image.affine.cpu().numpy())
            volume = Volume(image[0].cpu().numpy(), grid, str(image.meta.get("filename_or_obj", key)))
            placed_on_grid(volume, self.space.grid, mask=self.space.mask)
        return checked
