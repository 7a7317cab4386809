"""Projection pursuit: the direction of lowest kurtosis, against an exhaustive search, and its null."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import kurtosis

from monai_fair.subgroups.pursuit import pursue, pursuit_p

ALL = np.arange(2)


def everything(place: int) -> npt.NDArray[np.int64]:
    return ALL


def opposed(seed: int, *, n: int = 400, distance: float = 1.2) -> tuple[np.ndarray, np.ndarray]:
    """Two columns that share most of their variance, and whose difference tells two groups apart."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % 2 == 0
    shared = 3.0 * rng.standard_normal(n)
    apart = np.where(group, distance, -distance) + 0.3 * rng.standard_normal(n)
    return np.column_stack([shared + apart, shared - apart]), group


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_best_of_all_directions_of_two_columns(seed: int) -> None:
    x, _ = opposed(seed)
    found = pursue(x, everything, n_components=2, n_starts=2)
    angles = np.linspace(0.0, np.pi, 20_001)
    every = kurtosis(x @ np.array([np.cos(angles), np.sin(angles)]))
    assert found.kurtosis == pytest.approx(every.min(), abs=1e-6)
    assert found.kurtosis == pytest.approx(kurtosis(x @ found.axis), abs=1e-9)
    assert np.var(x @ found.axis) == pytest.approx(1.0)


def test_a_combination_shows_what_no_column_shows() -> None:
    x, group = opposed(7)
    alone = pursue(x, everything, n_components=0, n_starts=2)
    together = pursue(x, everything, n_components=2, n_starts=2)
    assert np.count_nonzero(alone.axis) == 1
    assert alone.kurtosis > -0.6
    # the difference is +-2.4 with a spread of 0.6: d = 8 sd apart, -2 (16 / 17)^2 = -1.77
    assert together.kurtosis == pytest.approx(-1.77, abs=0.05)
    assert together.axis[0] == pytest.approx(-together.axis[1], rel=0.1)
    sides = x @ together.axis > (x @ together.axis).mean()
    assert max((sides == group).mean(), (sides != group).mean()) == 1.0


def test_gain_and_offset_change_nothing_and_a_flat_column_counts_for_nothing() -> None:
    x, _ = opposed(1)
    first = pursue(x, everything, n_components=2, n_starts=2)
    gained = np.column_stack([4.0 * x[:, 0] - 9.0, x[:, 1], np.full(len(x), 5.0)])
    second = pursue(gained, lambda _: np.arange(3), n_components=3, n_starts=3)
    assert second.kurtosis == pytest.approx(first.kurtosis, abs=1e-9)
    assert second.axis[2] == 0.0
    same = second.axis[:2] * [4.0, 1.0]
    np.testing.assert_allclose(same * np.sign(same[0] * first.axis[0]), first.axis, rtol=1e-6)


def test_nothing_that_varies_has_no_direction() -> None:
    found = pursue(np.ones((20, 2)), everything, n_components=2, n_starts=2)
    assert found.kurtosis == np.inf
    assert not found.axis.any()


def test_p_counts_the_null_populations_that_reach_it() -> None:
    x, _ = opposed(3, n=80)

    def look(values: np.ndarray) -> object:
        return pursue(values, everything, n_components=2, n_starts=2)

    random = np.random.RandomState(0)
    assert pursuit_p(x, look(x).kurtosis, look, draws=19, random=random) == 1 / 20
    assert pursuit_p(x, np.inf, look, draws=19, random=random) == 1.0  # every draw is as low as that
    assert np.isnan(pursuit_p(x, -1.0, look, draws=0, random=random))
    # the null has the covariance of the rows: its own lowest values are spread around those of one normal population
    drawn = [look(random.standard_normal((80, 2)) @ np.linalg.cholesky(np.cov(x.T)).T).kurtosis for _ in range(39)]
    p = [pursuit_p(x, lowest, look, draws=39, random=random) for lowest in drawn]
    assert 0.3 < np.mean(p) < 0.7
