"""The template in a subject's contrast: curves that are known, and fits of subjects that look another way."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from monai_fair.engines import CodeTable, CohortImages, CohortTrainer
from monai_fair.engines.contrast import evenness, intensity_curves, recolour
from monai_fair.errors import RegistrationError

LEVELS = [[1.0, 4, 3], [0.5, 3, 2]]
KNOTS = torch.linspace(0.0, 1.5, 16)


def inverted(image: Tensor) -> Tensor:
    """Bright where the template is dark, but for the background, as the cohorts with that contrast are drawn."""
    return (image / 0.2).clamp_max(1.0) * (1.1 - image)


def spread_values(seed: int = 0) -> Tensor:
    return 1.5 * torch.rand(2, 4000, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("slope", [1.0, -0.7])
def test_a_straight_curve_is_found_exactly(slope: float) -> None:
    template = spread_values()
    curves = intensity_curves(template, 0.3 + slope * template, torch.ones(2, 4000), low=0.0, high=1.5)
    torch.testing.assert_close(curves, (0.3 + slope * KNOTS).expand(2, 16), rtol=0, atol=1e-4)


def test_a_bent_curve_is_found_but_for_its_stiffness() -> None:
    template = spread_values()
    curves = intensity_curves(template, template.square(), torch.ones(2, 4000), low=0.0, high=1.5)
    torch.testing.assert_close(curves, KNOTS.square().expand(2, 16), rtol=0, atol=0.01)


def test_a_voxel_without_weight_does_not_count() -> None:
    template = spread_values()
    subjects = template.clone()
    subjects[:, ::2] = 99.0
    weight = torch.ones(2, 4000)
    weight[:, ::2] = 0.0
    curves = intensity_curves(template, subjects, weight, low=0.0, high=1.5)
    torch.testing.assert_close(curves, KNOTS.expand(2, 16), rtol=0, atol=1e-4)


def test_each_subject_has_its_own_curve() -> None:
    template, weight = spread_values(), torch.ones(2, 4000)
    subjects = torch.stack([template[0], 2.0 - template[1]])
    curves = intensity_curves(template, subjects, weight, low=0.0, high=1.5)
    torch.testing.assert_close(curves, torch.stack([KNOTS, 2.0 - KNOTS]), rtol=0, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(gain=st.floats(-3, 3), offset=st.floats(-5, 5), seed=st.integers(0, 99))
def test_a_curve_follows_gain_and_offset_of_its_subject(gain: float, offset: float, seed: int) -> None:
    template = spread_values(seed).double()
    subjects = template.sin() + 0.1 * spread_values(seed + 1).double()
    weight = spread_values(seed + 2).double()
    plain = intensity_curves(template, subjects, weight, low=0.0, high=1.5)
    other = intensity_curves(template, gain * subjects + offset, weight, low=0.0, high=1.5)
    torch.testing.assert_close(other, gain * plain + offset, rtol=0, atol=1e-7)


def test_recolouring_interpolates_between_knots_and_is_level_beyond() -> None:
    curves = torch.stack([KNOTS.square(), 3.0 - KNOTS])
    template = torch.tensor([-1.0, 0.0, 0.15, 1.5, 9.0]).reshape(5, 1, 1)
    # 0.15 lies halfway between the knots 0.1 and 0.2: (0.01 + 0.04) / 2
    expected = torch.tensor([[0.0, 0.0, 0.025, 2.25, 2.25], [3.0, 3.0, 2.85, 1.5, 1.5]]).reshape(2, 5, 1, 1)
    torch.testing.assert_close(recolour(template, curves, low=0.0, high=1.5), expected)


def test_an_even_place_has_weight_one_and_a_slope_loses_with_its_square() -> None:
    """Knots 0.1 apart: a slope of 0.01 per voxel is a tenth of that and halves the weight, 0.03 makes it 1 / 10."""
    ramp = torch.arange(6.0)[:, None, None].expand(6, 5, 4)
    for slope, expected in ((0.0, 1.0), (0.01, 0.5), (-0.03, 0.1)):
        found = evenness(slope * ramp, low=0.0, high=1.5)
        torch.testing.assert_close(found, torch.full((6, 5, 4), expected))


def test_even_places_tell_the_curve_of_a_subject_that_is_not_aligned() -> None:
    """Plates of 6 voxels, 0 and 1 in turn, in a subject of 0.8 and 0.3, one voxel aside.

    A sixth of each plate then reads the other's intensity, which draws 0.8 to 0.8 - 0.5 / 6. Those are the voxels
    at an edge, with a slope of 1 / 2 and a weight of 1 / (1 + (0.5 / (0.1 / 15))^2) = 2e-4.
    """
    template = (torch.arange(120) // 6 % 2).float()
    subject = torch.roll(0.8 - 0.5 * template, 1)
    inside = slice(6, 114)  # the roll and the derivative of the ends stay outside
    even = evenness(template[:, None, None].expand(120, 3, 3), low=0.0, high=1.0)[:, 1, 1]
    for weight, expected in ((torch.ones(120), [0.8 - 0.5 / 6, 0.3 + 0.5 / 6]), (even, [0.8, 0.3])):
        values = (value[None, inside] for value in (template, subject, weight))
        curves = intensity_curves(*values, low=0.0, high=1.0)
        torch.testing.assert_close(curves[0, [0, -1]], torch.tensor(expected), rtol=0, atol=1e-3)


# fits


def fitted(brain: Any, images: Tensor, contrast: str) -> Tensor:
    network = brain.network()
    return brain.fit(contrast=contrast)(images, network).displacement(network)


def errors(brain: Any, fields: Tensor) -> float:
    truths = [torch.from_numpy(subject.displacement_vox)[None] for subject in brain.subjects]
    return float(np.mean([brain.mean_error(fields[k, None], truth) for k, truth in enumerate(truths)]))


def test_an_inverted_subject_is_registered_where_any_contrast_is_allowed(brain: Any) -> None:
    before = errors(brain, torch.zeros(4, 3, *brain.grid.shape))
    images = inverted(brain.images)
    allowed = errors(brain, fitted(brain, images, "any"))
    assert allowed < 0.8 * before
    assert errors(brain, fitted(brain, images, "same")) > 1.2 * allowed


def test_a_power_of_intensities_costs_less_where_any_contrast_is_allowed(brain: Any) -> None:
    images = brain.images.clamp_min(0).pow(2.0)
    assert errors(brain, fitted(brain, images, "any")) < errors(brain, fitted(brain, images, "same"))


def test_gain_and_offset_of_a_subject_do_not_count(brain: Any) -> None:
    plain = fitted(brain, brain.images[:1], "any")
    other = fitted(brain, 300.0 * brain.images[:1] + 40.0, "any")
    torch.testing.assert_close(other, plain, rtol=0, atol=5e-3)


def cohort_fit(brain: Any, rows: Any, folder: Path, contrast: str) -> float:
    """Mean error of a cohort's codes after a fit of all subjects."""
    network = brain.network(width=40)
    match = brain.match(LEVELS, contrast=contrast)
    images = CohortImages(rows, brain.grid, match, folder, progress=False)
    codes = CodeTable(images.subject_ids, network.code_shape)
    sampler = DistributedSampler(images, num_replicas=1, rank=0)
    trainer = CohortTrainer(
        "cpu",
        DataLoader(images, batch_size=2, sampler=sampler),
        network,
        torch.optim.Adam(network.parameters(), lr=0.002),
        match,
        codes,
        levels=LEVELS,
    )
    trainer.run()
    with torch.no_grad():
        return errors(brain, network.eval()(codes.values, network.lattice.sampling_grid()))


def test_a_cohort_of_another_contrast_is_fitted(brain: Any, tmp_path: Path) -> None:
    rows = brain.write_images(tmp_path, inverted(brain.images))
    before = errors(brain, torch.zeros(4, 3, *brain.grid.shape))
    assert cohort_fit(brain, rows, tmp_path / "cache", "any") < 0.85 * before
    # the copies of both would lie in one folder and are not mistaken for each other
    with pytest.raises(RegistrationError) as caught:
        cohort_fit(brain, rows, tmp_path / "cache", "same")
    assert re.search(
        r"sub-0001_T1w.nii.gz: expected an image that is bright where the template is, got a correlation of -0\.\d\d; "
        "give --contrast any; ",
        str(caught.value),
    )


def test_an_unknown_contrast_is_refused(brain: Any) -> None:
    with pytest.raises(RegistrationError) as caught:
        brain.match(LEVELS, contrast="t2")
    assert str(caught.value) == "contrast: expected one of same, any, got 't2'; give one"
