"""Residuals, weights and derivatives of the comparison of a template with subjects."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor

from monai_fair.engines import Level, SubjectFit, TemplateMatch, image_match
from monai_fair.engines.image_match import Match
from monai_fair.errors import RegistrationError
from monai_fair.geometry import sample
from monai_fair.networks import ControlLattice

SHAPE = (9, 10, 11)


class Plain(TemplateMatch):
    """Compares intensities as they are, so that values can be worked out."""

    def normalised(self, images: Tensor, level: int) -> Tensor:
        return images


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def multilinear() -> Tensor:
    """An image whose derivatives between voxels are those of its trilinear interpolation, everywhere."""
    x, y, z = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in SHAPE), indexing="ij")
    return 2.0 + 0.5 * x - 0.3 * y + 0.7 * z + 0.05 * x * y - 0.04 * y * z + 0.02 * x * z + 0.01 * x * y * z


def plain(template: Tensor, blurs: tuple[float, ...] = (0.0,)) -> Plain:
    return Plain(template, torch.ones(SHAPE), blurs).double()


def small_match(seed: int = 0, batch: int = 2) -> Match:
    shape = (batch, 3, 4, 2)
    return Match(
        residual=random(*shape, seed=seed),
        gradient=random(batch, 3, *shape[1:], seed=seed + 1),
        weight=random(*shape, seed=seed + 2).square(),
        noise=torch.ones(batch),
    )


@pytest.mark.parametrize("levels", [[[2, 4, 3], (0.5, 1, 2)], [Level(2.0, 4, 3), [0.5, 1.0, 2]]])
def test_levels_of_a_configuration(levels: Any) -> None:
    assert Level.parse(levels) == (Level(2.0, 4, 3), Level(0.5, 1, 2))


@pytest.mark.parametrize("levels", [[[1.0, 2]], [3.0], ["abc"], [[1.0, None, 2]], [[1.0, 2.5, 2]]])
def test_levels_of_another_form(levels: Any) -> None:
    with pytest.raises(RegistrationError) as caught:
        Level.parse(levels)
    assert str(caught.value) == (
        f"levels: expected a list of [blur in voxels, stride in voxels, steps], the last two whole, got {levels!r}"
    )


@pytest.mark.parametrize("level", [[-1.0, 2, 3], [1.0, 0, 3], [1.0, 2, 0], [math.nan, 2, 3], [math.inf, 2, 3]])
def test_levels_out_of_range(level: Any) -> None:
    with pytest.raises(RegistrationError) as caught:
        Level.parse([[1.0, 2, 3], level])
    assert str(caught.value) == (
        f"levels: expected each with blur 0 or more, stride and steps 1 or more, got {[[1.0, 2, 3], level]!r}"
    )


@pytest.mark.parametrize(
    ("template", "mask"),
    [(random(*SHAPE), torch.zeros(SHAPE)), (torch.ones(SHAPE), torch.ones(SHAPE))],
    ids=["empty mask", "constant"],
)
def test_a_template_without_contrast(template: Tensor, mask: Tensor) -> None:
    with pytest.raises(RegistrationError) as caught:
        TemplateMatch(template, mask, [1.0])
    assert str(caught.value) == "template: expected different intensities inside a mask that is not empty"


# value and derivative


def test_the_values_are_those_of_trilinear_interpolation() -> None:
    template = random(*SHAPE)
    grid = ControlLattice(SHAPE).sampling_grid(2, (1, 0, 1))
    displacement = 0.8 * random(2, 3, 4, 5, 5, seed=1)
    subjects = random(2, 4, 5, 5, seed=2)
    found = plain(template)(displacement, subjects, grid, 0).residual
    for place in range(2):
        points = (grid.points() + displacement[place]).numpy()
        expected = map_coordinates(template.numpy(), points, order=1, mode="nearest") - subjects[place].numpy()
        np.testing.assert_allclose(found[place].numpy(), expected, atol=1e-6)


def test_the_force_is_the_derivative_of_half_the_weighted_sum_of_squares() -> None:
    """By autograd through grid_sample, at fixed weights, where the template's own derivative is that of the values."""
    template = multilinear()
    grid = ControlLattice(SHAPE).sampling_grid(2, (1, 1, 1))
    last = torch.tensor(SHAPE)[:, None, None, None] - 1.1
    points = grid.points() + random(2, 3, *grid.points().shape[1:], seed=1)
    displacement = (points.clamp_min(0.1).minimum(last) - grid.points()).requires_grad_()  # inside the image
    subjects = random(2, *grid.points().shape[1:], seed=2)
    match = plain(template)(displacement, subjects, grid, 0)
    values = sample(template.expand(2, 1, *SHAPE), grid.points() + displacement)[:, 0]
    (match.weight.detach() * (values - subjects).square()).sum().div(2).backward()
    assert displacement.grad is not None
    torch.testing.assert_close(match.force().detach(), displacement.grad, rtol=1e-5, atol=1e-7)


def test_the_derivative_of_a_smooth_template_is_near_that_of_its_values(brain: Any) -> None:
    """Central differences, interpolated, against autograd in the middle of cells, where both mean the same."""
    match = brain.match([[1.0, 1, 1]])
    grid = ControlLattice(brain.grid.shape).sampling_grid(2, (2, 2, 2))
    displacement = torch.full((1, 3, *grid.points().shape[1:]), 0.5, requires_grad=True)
    found = match(displacement, torch.zeros(1, *grid.points().shape[1:]), grid, 0)
    sample(match.templates[:, :1], grid.points() + displacement).sum().backward()
    assert displacement.grad is not None
    error = (found.gradient.detach() - displacement.grad).norm() / displacement.grad.norm()
    assert error < 0.2  # of a template blurred by one voxel


def test_the_curvature_is_that_of_the_linearised_objective() -> None:
    match = small_match(batch=1)

    def objective(change: Tensor) -> Tensor:
        linear = match.residual + (match.gradient * change).sum(dim=1)
        return (match.weight * linear.square()).sum() / 2

    size = match.gradient.numel()
    hessian = torch.autograd.functional.hessian(objective, torch.zeros_like(match.gradient)).reshape(size, size)
    units = torch.eye(size, dtype=torch.float64).reshape(size, *match.gradient.shape[1:])
    applied = torch.stack([match.curvature(unit[None]).flatten() for unit in units])
    torch.testing.assert_close(applied, hessian, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(applied, applied.T, rtol=1e-12, atol=1e-12)
    assert torch.linalg.eigvalsh(applied).min() > -1e-12
    torch.testing.assert_close(match.stiffness(), torch.trace(applied)[None] / 3, rtol=1e-12, atol=0)


def test_thinned_by_one_is_the_match_itself() -> None:
    match = small_match()
    assert match.thinned(1) is match


def test_the_thinned_stiffness_is_that_of_all_voxels_on_average() -> None:
    """Over the eight places where every second voxel can start."""
    shape = (2, 6, 4, 8)
    weight, gradient = random(*shape).square(), random(2, 3, *shape[1:], seed=1)
    stiffness = []
    for place in range(8):
        shift = [-(place >> axis & 1) for axis in range(3)]
        rolled = Match(random(*shape), gradient.roll(shift, (2, 3, 4)), weight.roll(shift, (1, 2, 3)), torch.ones(2))
        thinned = rolled.thinned(2)
        assert thinned.residual.shape == (2, 3, 2, 4)
        stiffness.append(thinned.stiffness())
    whole = Match(random(*shape), gradient, weight, torch.ones(2)).stiffness()
    torch.testing.assert_close(torch.stack(stiffness).mean(dim=0), whole, rtol=1e-12, atol=0)


# weights


@pytest.mark.parametrize(("blur", "stride"), [(0.0, 1), (1.5, 1), (0.5, 2)])
def test_noise_and_weight_of_equal_residuals(blur: float, stride: int) -> None:
    """A residual of c everywhere, worked out by hand.

    The variance starts at c^2. Trust 4 / (4 + 1) makes it 4/5 c^2, trust 4 / (4 + 5/4) = 16/21 makes it 16/21 c^2.
    Each weight is then trust / variance = 4 / (4 + 21/16) * 21 / (16 c^2) = 84 / (85 c^2), times the voxels that a
    sampled one stands for, over the voxels that share their noise, 1 + (2 sqrt(pi) blur)^3.
    """
    template, c = random(*SHAPE), torch.tensor([3.0, 0.5], dtype=torch.float64)
    grid = ControlLattice(SHAPE).sampling_grid(stride)
    shape = grid.points().shape
    subjects = template[grid.slices] - c[:, None, None, None]
    match = plain(template, (blur,))(torch.zeros(2, *shape, dtype=torch.float64), subjects, grid, 0)
    torch.testing.assert_close(match.noise, c * math.sqrt(16 / 21), rtol=1e-5, atol=0)
    sharing = 1 + (2 * math.sqrt(math.pi) * blur) ** 3
    expected = (84 / 85 / c.square() * stride**3 / sharing)[:, None, None, None].expand_as(match.weight)
    torch.testing.assert_close(match.weight, expected, rtol=1e-5, atol=0)


def test_weights_end_where_the_mask_does(brain: Any) -> None:
    match = brain.match([[1.0, 1, 1]])
    grid = ControlLattice(brain.grid.shape).sampling_grid()
    subjects = match.normalised(brain.images, 0)
    found = match(torch.zeros(4, 3, *brain.grid.shape), subjects, grid, 0)
    soft = gaussian_filter(brain.space.mask.astype(np.float64), 1.5, mode="nearest")
    assert float(found.weight[:, torch.from_numpy(soft < 1e-6)].max()) < 1e-4 * float(found.weight.max())
    # the larger a voxel's residual is, the less its square counts
    inside = torch.from_numpy(soft > 0.5)
    order = found.residual[0].abs()[inside].argsort()
    shares = (found.weight[0] / match.mask)[inside][order]
    assert (shares.diff() <= 1e-5 * shares[0]).all()
    assert shares[-1] < shares[0] / 3


def test_an_image_that_fits_exactly_has_finite_weights() -> None:
    """Here 1 / variance would be beyond float32, and 0 times infinity no number."""
    template = random(9, 9, 9).float()  # a size at which voxels are read without rounding
    grid = ControlLattice(template.shape).sampling_grid(4)
    match = Plain(template, torch.ones(9, 9, 9), (0.0,))(
        torch.zeros(1, 3, 3, 3, 3), template[None, ::4, ::4, ::4], grid, 0
    )
    assert torch.equal(match.residual, torch.zeros_like(match.residual))
    assert torch.equal(match.force(), torch.zeros_like(match.gradient))
    assert torch.isfinite(match.curvature(torch.ones_like(match.gradient))).all()
    torch.testing.assert_close(match.noise, torch.tensor([1e-6]))


def moved(brain: Any, change: Tensor, **options: Any) -> float:
    """Mean change of the field inside the brain, in voxels, when ``change`` is added to a subject."""
    network = brain.network()
    fit: SubjectFit = brain.fit(**options)
    image = brain.images[:1]
    before, after = (fit(each, network).displacement(network) for each in (image, image + change))
    return float((after - before).norm(dim=1)[0][torch.from_numpy(brain.space.mask)].mean())


def test_a_lesion_pulls_less_than_by_least_squares(brain: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    offsets = torch.from_numpy(np.indices(brain.grid.shape)) - torch.tensor([10, 18, 17])[:, None, None, None]
    lesion = -0.7 * (offsets.square().sum(dim=0) < 9).float()
    robust = moved(brain, lesion)
    monkeypatch.setattr(image_match, "_DEGREES", 1e9)  # all residuals keep their weight
    least_squares = moved(brain, lesion)
    assert 0 < robust < 0.5 * least_squares  # 0.09 and 0.24 voxels


# normalisation


@pytest.mark.parametrize(("gain", "offset"), [(40.0, 0.0), (1.0, 300.0), (0.01, -2.0)])
def test_gain_and_offset_of_a_subject_do_not_count(brain: Any, gain: float, offset: float) -> None:
    match = brain.match([[1.0, 1, 1]])
    expected = match.normalised(brain.images, 0)
    torch.testing.assert_close(match.normalised(gain * brain.images + offset, 0), expected, rtol=0, atol=5e-3)
    assert moved(brain, (gain - 1) * brain.images[:1] + offset) < 5e-3


def test_a_bias_field_hardly_counts(brain: Any) -> None:
    """A factor from 0.7 to 1.3 over the head."""
    ramp = torch.linspace(0.7, 1.3, brain.grid.shape[1])[None, :, None]
    change = moved(brain, (ramp - 1) * brain.images[:1])
    assert change < 0.08


def test_a_subject_is_normalised_alone(brain: Any) -> None:
    match = brain.match([[1.0, 1, 1]])
    alone = torch.cat([match.normalised(image[None], 0) for image in brain.images])
    torch.testing.assert_close(match.normalised(brain.images, 0), alone, rtol=0, atol=1e-5)


def test_the_settings_decide_the_normalisation(brain: Any) -> None:
    match = brain.match([[1.0, 1, 1]], [[0.5, 2, 1]], sigma_vox=3.0, epsilon=0.2)
    assert match.settings() == [3.0, 0.2, 1.0, 0.5]
    assert match.templates.shape == (2, 4, *brain.grid.shape)
    torch.testing.assert_close(match.templates[1, 0], match.normalised(brain.template[None], 1)[0])
