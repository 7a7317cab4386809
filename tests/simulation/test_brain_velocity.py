import numpy as np
import pytest

from monai_fair.simulation.brain_regions import Site
from monai_fair.simulation.brain_velocity import TAPER_MM, local_effect, scaling, smooth_noise, taper

AXES = [np.linspace(-60.0, 60.0, 31), np.linspace(-77.0, 43.0, 31), np.linspace(-55.0, 65.0, 31)]  # 4 mm apart
SITE = Site("somewhere", (0.0, -17.0, 5.0), 12.0)  # on the voxel in the middle


def divergence(field: np.ndarray, spacing_mm: float) -> np.ndarray:
    return sum(np.gradient(field[axis], spacing_mm, axis=axis) for axis in range(3))


def test_noise_has_unit_variance_and_the_correlation_of_a_gaussian() -> None:
    # White noise under a Gaussian of width s has the correlation exp(-d^2 / (4 s^2)): 0.9394, 0.7788, 0.3679 at
    # d = s/2, s, 2s. Averaged over 60 seeds x 3 components x the voxels.
    generator = np.random.default_rng(0)
    fields = np.concatenate([smooth_noise(AXES, 8.0, generator) for _ in range(60)])
    assert fields.dtype == np.float32
    assert fields.mean() == pytest.approx(0.0, abs=0.03)
    assert (fields**2).mean() == pytest.approx(1.0, abs=0.03)
    for axis in (1, 2, 3):
        for lag, wanted in ((1, np.exp(-1 / 16)), (2, np.exp(-1 / 4)), (4, np.exp(-1.0))):
            shifted = np.take(fields, range(lag, 31), axis=axis) * np.take(fields, range(31 - lag), axis=axis)
            assert shifted.mean() == pytest.approx(wanted, abs=0.03)


def test_noise_is_fixed_in_the_world() -> None:
    """Every second voxel of a fine grid lies on a coarse one; the same seed gives the same values there."""
    coarse = [axis[::2] for axis in AXES]
    fine, same = (smooth_noise(axes, 10.0, np.random.default_rng(4)) for axes in (AXES, coarse))
    np.testing.assert_allclose(fine[:, ::2, ::2, ::2], same, atol=1e-5)


def test_components_and_subjects_are_independent() -> None:
    generator = np.random.default_rng(1)
    fields = np.concatenate([smooth_noise(AXES, 6.0, generator) for _ in range(4)]).reshape(12, -1)
    correlation = np.corrcoef(fields) - np.eye(12)
    # about (120 / (6 * 3.5))^3 = 190 independent places: standard error 0.07
    assert np.abs(correlation).max() < 0.3


@pytest.mark.parametrize("log_volume", [-0.6, 0.0, 0.45])
def test_a_local_effect_has_the_stated_divergence_at_its_centre_and_none_far_away(log_volume: float) -> None:
    field = local_effect(AXES, SITE, log_volume)
    assert field[:, 15, 15, 15] == pytest.approx(0.0, abs=1e-6)
    # central differences of x exp(-x^2 / 2r^2) over h = 4 mm: exp(-h^2 / 2r^2) = 0.946 of the derivative
    expected = -log_volume * np.exp(-0.5 * (4.0 / 12.0) ** 2)
    assert divergence(field, 4.0)[15, 15, 15] == pytest.approx(expected, abs=1e-5)
    assert np.abs(field[:, 0]).max() < 1e-4


def test_a_local_effect_points_away_where_the_place_shrinks() -> None:
    """A pull-back that points away reads the template further out, so the subject's place is smaller."""
    field = local_effect(AXES, SITE, -0.3)
    assert field[0, 18, 15, 15] > 0 > field[0, 12, 15, 15]
    assert field[2, 15, 15, 18] > 0 > field[2, 15, 15, 12]


def test_scaling_is_linear_about_the_middle_of_the_brain() -> None:
    field = scaling(AXES, 0.05)
    # a larger subject reads the template nearer to the middle: -0.05 * (x - c)
    assert field[0, 30, 3, 4] == pytest.approx(-0.05 * 60.0)
    assert field[1, 3, 30, 4] == pytest.approx(-0.05 * 60.0)
    assert divergence(field, 4.0) == pytest.approx(-0.15, abs=1e-5)


def test_taper_is_zero_on_the_faces_and_one_inside() -> None:
    factor = taper(AXES)
    for axis in range(3):
        assert not np.take(factor, [0, -1], axis=axis).any()
    deep = int(np.ceil(TAPER_MM / 4.0))
    assert (factor[deep:-deep, deep:-deep, deep:-deep] == 1.0).all()
    # half way: 3/4 - 2/8 = 1/2
    assert factor[1, 15, 15] == pytest.approx(0.5)
