"""What regularisers, similarities and measures of registrations keep, for every field, image and spacing."""

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from torch import Tensor

from monai_fair.geometry import voxel_points
from monai_fair.losses import (
    bending_density,
    bending_energy,
    displacement_hessian,
    displacement_jacobian,
    field_jacobian,
    gaussian_blur,
    gradient_inverse_consistency,
    hyperelastic_energy,
    jacobian_deviation,
    local_normalize,
    local_normalized_mse,
    mutual_information,
    normalized_correlation,
)
from monai_fair.metrics import dice_by_label, local_correlation

SETTINGS = settings(max_examples=50, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**31)
SHAPES = st.tuples(*[st.integers(4, 7)] * 3)
SPACINGS = st.tuples(*[st.floats(0.5, 4)] * 3)
ANGLES = st.tuples(*[st.floats(-np.pi, np.pi)] * 3)
IMAGE = (11, 12, 13)


def random(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def rotation(angles: tuple[float, float, float]) -> Tensor:
    return torch.from_numpy(Rotation.from_euler("xyz", angles).as_matrix())


def image_of(seed: int) -> Tensor:
    """Return a smooth image of standard deviation 1, shape ``(1, 1, D, H, W)``."""
    image = gaussian_filter(np.random.default_rng(seed).normal(size=IMAGE), 1.0)
    return torch.from_numpy((image - image.mean()) / image.std())[None, None]


def energies(field: Tensor, spacing_mm: tuple[float, ...]) -> dict[str, float]:
    matrices = field_jacobian(field, spacing_mm=spacing_mm)
    return {
        "bending": bending_density(field, spacing_mm=spacing_mm).mean().item(),
        "deviation": jacobian_deviation(matrices).item(),
        "hyperelastic": hyperelastic_energy(matrices).item(),
        "two-sided": hyperelastic_energy(matrices, area="two_sided").item(),
        "consistency": gradient_inverse_consistency(matrices).item(),
    }


# regularisers


@SETTINGS
@given(SHAPES, SPACINGS, SEEDS)
def test_affine_maps_do_not_bend(shape: tuple[int, int, int], spacing_mm: tuple[float, ...], seed: int) -> None:
    field = torch.einsum("ab,bxyz->axyz", random((3, 3), seed), voxel_points(shape).double())[None] + 5
    assert bending_density(field, spacing_mm=spacing_mm).max() < 1e-20


@SETTINGS
@given(SHAPES, SPACINGS, SEEDS)
def test_an_affine_map_costs_the_same_everywhere_and_at_points(
    shape: tuple[int, int, int], spacing_mm: tuple[float, ...], seed: int
) -> None:
    # in millimetres x -> A x is u(p) = (A - I) p, in voxels S^-1 (A - I) S
    away = random((3, 3), seed, 0.3)
    spacing = torch.tensor(spacing_mm, dtype=torch.float64)
    in_voxels = away * spacing / spacing[:, None]
    field = torch.einsum("ab,bxyz->axyz", in_voxels, voxel_points(shape).double())[None]
    at_points = displacement_jacobian(lambda points: points @ away.T, random((5, 3), seed + 1))
    for regularizer in (jacobian_deviation, hyperelastic_energy, gradient_inverse_consistency):
        of_field = regularizer(field_jacobian(field, spacing_mm=spacing_mm))
        torch.testing.assert_close(of_field, regularizer(at_points), rtol=1e-8, atol=1e-12)


@SETTINGS
@given(SHAPES, SPACINGS, SEEDS)
def test_a_quadratic_map_bends_the_same_everywhere_and_at_points(
    shape: tuple[int, int, int], spacing_mm: tuple[float, ...], seed: int
) -> None:
    # central differences of quadratic fields are exact
    form = random((3, 3, 3), seed)
    spacing = torch.tensor(spacing_mm, dtype=torch.float64)

    def in_millimetres(points: Tensor) -> Tensor:
        return torch.einsum("abc,nb,nc->na", form, points, points)

    places = voxel_points(shape).double().flatten(1).T * spacing
    field = (in_millimetres(places) / spacing).T.reshape(1, 3, *shape)
    density = bending_density(field, spacing_mm=spacing_mm)
    expected = bending_energy(displacement_hessian(in_millimetres, places))
    torch.testing.assert_close(density, expected.expand_as(density), rtol=1e-6, atol=0)


@SETTINGS
@given(ANGLES, ANGLES, SEEDS)
def test_turning_what_comes_out_changes_no_area_and_no_volume(
    first: tuple[float, float, float], second: tuple[float, float, float], seed: int
) -> None:
    matrices = torch.eye(3) + random((6, 3, 3), seed, 0.2)
    turned = rotation(first) @ matrices
    for area in ("convex", "two_sided"):
        found, expected = (
            hyperelastic_energy(given, length_weight=0.0, area=area)  # type: ignore[arg-type]
            for given in (turned, matrices)
        )
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(jacobian_deviation(turned), jacobian_deviation(matrices), rtol=1e-8, atol=1e-10)
    assert hyperelastic_energy(rotation(second)[None], length_weight=0.0).item() < 1e-20


@SETTINGS
@given(SHAPES, SPACINGS, SEEDS, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_flipped_and_permuted_axes_cost_the_same(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, ...],
    seed: int,
    order: list[int],
    flips: tuple[bool, bool, bool],
) -> None:
    field = random((2, 3, *shape), seed, 0.2)
    signs = torch.tensor([-1.0 if flip else 1.0 for flip in flips])[:, None, None, None]
    flipped = (field * signs).flip([axis + 2 for axis, flip in enumerate(flips) if flip])
    other = flipped[:, order].permute(0, 1, *(axis + 2 for axis in order))
    found, expected = energies(other, tuple(spacing_mm[axis] for axis in order)), energies(field, spacing_mm)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-8, err_msg=name)


@SETTINGS
@given(SHAPES, SPACINGS, SEEDS, st.floats(0.2, 5))
def test_only_bending_depends_on_the_size_of_voxels(
    shape: tuple[int, int, int], spacing_mm: tuple[float, ...], seed: int, scale: float
) -> None:
    field = random((1, 3, *shape), seed, 0.2)
    found, expected = energies(field, tuple(scale * value for value in spacing_mm)), energies(field, spacing_mm)
    expected["bending"] /= scale**2
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-8, err_msg=name)


# similarity


@SETTINGS
@given(SEEDS, st.floats(0.1, 10), st.floats(-100, 100))
def test_local_normalisation_ignores_gain_and_offset(seed: int, gain: float, offset: float) -> None:
    image = image_of(seed)
    expected = local_normalize(image, sigma_vox=2.0, epsilon=0.01)
    # a gain is ignored exactly where the epsilon is scaled too
    found = local_normalize(gain * image + offset, sigma_vox=2.0, epsilon=0.01 * gain)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(local_normalize(-image, sigma_vox=2.0), -expected, rtol=0, atol=1e-12)


@SETTINGS
@given(SEEDS, st.floats(-0.2, 0.2), st.floats(-3, 3))
def test_local_normalisation_hardly_sees_a_bias_field(seed: int, slope: float, ramp: float) -> None:
    # a gain of up to 20 % at the ends, and an added ramp, against images that are not related
    image, other = image_of(seed), image_of(seed + 1)
    along = torch.linspace(-1, 1, IMAGE[0], dtype=torch.float64)[:, None, None]
    # the edge is repeated, not continued, so that a ramp bends there: 3 sd of the two blurs are left out of it
    inside = torch.zeros(1, 1, *IMAGE, dtype=torch.bool)
    inside[:, :, 3:-3] = True
    options = {"sigma_vox": (1.0, 2.0, 2.0), "mask": inside}
    biased = local_normalized_mse(image * (1 + slope * along) + ramp * along, image, **options)  # type: ignore[arg-type]
    unrelated = local_normalized_mse(other, image, **options)  # type: ignore[arg-type]
    assert biased < 0.02 * unrelated


@SETTINGS
@given(SEEDS, st.floats(0.5, 4), st.floats(0.5, 4))
def test_blurs_add_their_variances(seed: int, first: float, second: float) -> None:
    # of Gaussians wide enough to be sampled well, away from the edge, which is more than 4 sd away
    image = torch.zeros(1, 1, 61, 1, 1, dtype=torch.float64)
    image[0, 0, 28:33, 0, 0] = random((5,), seed)
    sigmas = [(value + 0.8, 0.0, 0.0) for value in (first, second)]
    both = float(np.hypot(sigmas[0][0], sigmas[1][0]))
    twice = gaussian_blur(gaussian_blur(image, sigmas[0]), sigmas[1])
    torch.testing.assert_close(gaussian_blur(image, (both, 0.0, 0.0)), twice, rtol=0, atol=1e-3)


@SETTINGS
@given(SEEDS, st.floats(0.01, 100), st.floats(-100, 100))
def test_correlations_ignore_gain_and_offset_and_tell_inversion(seed: int, gain: float, offset: float) -> None:
    image, other = image_of(seed), image_of(seed + 1)
    expected = normalized_correlation(image, other)
    torch.testing.assert_close(normalized_correlation(gain * image + offset, other), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(normalized_correlation(other, -image), -expected, rtol=0, atol=1e-12)
    assert normalized_correlation(image, gain * image + offset).item() > 1 - 1e-9
    mask = np.ones(IMAGE, dtype=bool)
    one, two = image[0, 0].numpy(), other[0, 0].numpy()
    local = local_correlation(one, two, mask=mask, window_vox=5)
    np.testing.assert_allclose(local_correlation(gain * one + offset, two, mask=mask, window_vox=5), local, atol=1e-7)
    np.testing.assert_allclose(local_correlation(two, -one, mask=mask, window_vox=5), -local, atol=1e-9)
    assert -1 <= local <= 1


@SETTINGS
@given(SEEDS, st.floats(0.6, 1.7))
def test_mutual_information_is_about_order_not_value(seed: int, power: float) -> None:
    image, other = image_of(seed), image_of(seed + 1)
    unit = (image - image.min()) / (image.max() - image.min())
    self_information = mutual_information(unit, unit)
    torch.testing.assert_close(mutual_information(unit, 3 - 5 * unit), self_information, rtol=0, atol=1e-4)
    torch.testing.assert_close(mutual_information(other, unit), mutual_information(unit, other), rtol=0, atol=1e-9)
    # a monotone remap keeps most of it, another image none
    assert mutual_information(unit, unit**power) > 0.8 * self_information
    assert mutual_information(unit, other) < 0.5 * self_information
    assert mutual_information(unit, other) > -1e-6


@SETTINGS
@given(SEEDS)
def test_mutual_information_and_correlation_do_not_see_places(seed: int) -> None:
    one, two = image_of(seed).flatten(1), image_of(seed + 1).flatten(1)
    order = torch.randperm(one.shape[1], generator=torch.Generator().manual_seed(seed))
    for measure in (mutual_information, normalized_correlation):
        torch.testing.assert_close(measure(one[:, order], two[:, order]), measure(one, two), rtol=0, atol=1e-9)


# overlap


@SETTINGS
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60), st.randoms())
def test_dice_is_symmetric_and_blind_to_order(pairs: list[tuple[int, int]], random_order: Any) -> None:
    first, second = np.array(pairs).T
    expected = dice_by_label(first, second)
    assert dice_by_label(second, first) == expected
    random_order.shuffle(pairs)
    shuffled = np.array(pairs).T
    assert dice_by_label(*shuffled) == expected
    assert set(dice_by_label(first, first).values()) <= {1.0}
    assert all(0 <= value <= 1 for value in expected.values())
    # other names for the labels
    names = np.array([0, 9, 2, 1, 30])
    assert sorted(dice_by_label(names[first], names[second]).values()) == sorted(expected.values())
