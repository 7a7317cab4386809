"""Shifts by parts of a voxel: as SciPy's linear interpolation, drawn anew, and repeatable."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from monai_fair.errors import MonaiFairError
from monai_fair.transforms import RandSubvoxelShiftd
from monai_fair.transforms.subvoxel_shift import shift_voxels

STEP = st.floats(-3.0, 3.0)


@given(st.tuples(STEP, STEP, STEP), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_it_is_scipy_s_linear_shift(shift: tuple[float, float, float], seed: int) -> None:
    image = np.random.default_rng(seed).normal(size=(2, 5, 6, 4))
    moved = shift_voxels(torch.from_numpy(image), shift).numpy()
    for channel in range(2):
        expected = ndimage.shift(image[channel], shift, order=1, mode="nearest")
        np.testing.assert_allclose(moved[channel], expected, atol=1e-10)


def test_a_ramp_moves_by_half_a_voxel() -> None:
    ramp = torch.arange(6.0).reshape(1, 6, 1, 1)
    # out[i] = in[i - 0.5]: the first has no neighbour to the left, so the edge is repeated
    expected = torch.tensor([0.0, 0.5, 1.5, 2.5, 3.5, 4.5])
    assert torch.equal(shift_voxels(ramp, (0.5, 0.0, 0.0)).flatten(), expected)


def test_all_images_of_an_item_move_alike_within_the_limit_and_by_the_seed() -> None:
    ramp = torch.arange(20.0).reshape(1, 20, 1, 1).expand(1, 20, 3, 3)
    transform = RandSubvoxelShiftd(("image", "other"), 0.7).set_random_state(seed=3)
    moved = [transform({"image": ramp, "other": 2 * ramp, "kept": 1}) for _ in range(200)]
    steps = np.array([10.0 - float(item["image"][0, 10, 1, 1]) for item in moved])
    assert np.abs(steps).max() <= 0.7
    # uniform on +-0.7: standard deviation 0.7 / sqrt(3) = 0.404, its standard error 0.013 (200 draws)
    assert steps.std() == pytest.approx(0.404, abs=0.05)
    assert all(torch.equal(item["other"], 2 * item["image"]) and item["kept"] == 1 for item in moved)
    again = RandSubvoxelShiftd(("image", "other"), 0.7).set_random_state(seed=3)
    assert torch.equal(again({"image": ramp, "other": ramp})["image"], moved[0]["image"])


def test_no_shift_leaves_the_image_itself() -> None:
    image = torch.ones(1, 2, 2, 2)
    assert RandSubvoxelShiftd("image", 0.0)({"image": image})["image"] is image


@pytest.mark.parametrize("limit", [-0.1, float("nan"), float("inf")])
def test_a_limit_that_cannot_be_used_is_named(limit: float) -> None:
    with pytest.raises(MonaiFairError, match=r"max_shift: expected a number of voxels from 0, got "):
        RandSubvoxelShiftd("image", limit)
