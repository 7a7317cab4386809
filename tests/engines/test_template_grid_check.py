"""TemplateGridCheckd: an image of a preprocessing chain lies on the template's grid and shows a brain, or is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import LoadImaged, Orientationd

from monai_fair.data import write_volume
from monai_fair.engines import TemplateGridCheckd
from monai_fair.engines.cohort_images import read_on_grid
from monai_fair.errors import RegistrationError
from monai_fair.geometry import Grid
from monai_fair.transforms import VolumeReader


def load(path: Path, brain: Any) -> torch.Tensor:
    loader = LoadImaged("image", image_only=True, ensure_channel_first=True, reader=VolumeReader(turn=False))
    turned = Orientationd("image", axcodes="RAS", labels=None)(loader({"image": str(path)}))
    image: torch.Tensor = TemplateGridCheckd("image", brain.space)(turned)["image"]
    return image


def moved_grid(brain: Any, millimetres: float) -> Grid:
    affine = brain.grid.affine.copy()
    affine[0, 3] += millimetres
    return Grid(brain.grid.shape, affine)


def test_an_image_with_other_axes_is_what_registration_reads(brain: Any, tmp_path: Path) -> None:
    shape, affine = brain.grid.shape, brain.grid.affine
    turned = Grid(
        (shape[2], shape[0], shape[1]),
        affine @ np.array([[0, -1.0, 0, shape[0] - 1], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
    )
    image = brain.images[0].numpy()
    path = write_volume(tmp_path / "a.nii.gz", np.moveaxis(image[::-1], 2, 0), turned)
    found = load(path, brain)
    np.testing.assert_array_equal(found[0], image)
    np.testing.assert_array_equal(found[0], read_on_grid(path, brain.grid).array)


@pytest.mark.parametrize("wrong", ["shape", "place", "flat"])
def test_reasons_are_those_of_registration(brain: Any, tmp_path: Path, wrong: str) -> None:
    image, grid = brain.images[0].numpy(), brain.grid
    if wrong == "shape":
        image, grid = image[:, 2:], Grid((28, 30, 28), grid.affine)
    elif wrong == "place":
        grid = moved_grid(brain, 1.5)
    else:
        image = np.where(brain.space.mask, 1, image)
    path = write_volume(tmp_path / "a.nii.gz", image, grid)
    with pytest.raises(RegistrationError) as expected:
        read_on_grid(path, brain.grid, mask=brain.space.mask)
    with pytest.raises(RegistrationError) as caught:
        load(path, brain)
    assert str(caught.value) == str(expected.value)
    told = {"shape": "got (28, 30, 28)", "place": "1.50 mm away", "flat": "got 1 in every voxel"}
    assert told[wrong] in str(caught.value)


def test_an_image_without_a_place_is_refused(brain: Any) -> None:
    with pytest.raises(RegistrationError) as caught:
        TemplateGridCheckd("image", brain.space)({"image": brain.images[:1]})
    assert str(caught.value) == ("image: expected an image with its affine, got Tensor; keep metadata while loading")
