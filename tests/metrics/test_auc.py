from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from monai_fair.metrics import auc_by_group, auc_interval, logit_interval, placements
from monai_fair.metrics.arrays import FloatArray


def slow_delong(y: Any, score: FloatArray) -> tuple[float, float]:
    """AUC and its standard error from all pairs, DeLong 1988 eqs. (2) to (5), written with loops."""
    positives, negatives = score[y == 1], score[y == 0]
    psi = [[1.0 if p > n else 0.5 if p == n else 0.0 for n in negatives] for p in positives]
    m, n = len(positives), len(negatives)
    auc = sum(map(sum, psi)) / (m * n)
    v10 = [sum(row) / n for row in psi]
    v01 = [sum(psi[i][j] for i in range(m)) / m for j in range(n)]
    s10 = sum((v - auc) ** 2 for v in v10) / (m - 1)
    s01 = sum((v - auc) ** 2 for v in v01) / (n - 1)
    return auc, (s10 / m + s01 / n) ** 0.5


def test_placements_by_hand() -> None:
    # Group 0: positives 0.9, 0.4; negatives 0.4, 0.1. 0.9 beats both: 1. 0.4 ties one and beats one: 0.75.
    # Negative 0.4 is below 0.9 and ties 0.4: 0.75; negative 0.1 is below both: 1. Group 1 has no negative.
    y = np.array([True, True, False, False, True])
    score = np.array([0.9, 0.4, 0.4, 0.1, 0.7])
    group = np.array([0, 0, 0, 0, 1])
    np.testing.assert_allclose(placements(y, score, group), [1.0, 0.75, 0.75, 1.0, np.nan])


def test_auc_of_the_hand_example() -> None:
    # AUC = (1 + 0.75) / 2 = 0.875. Both variances: ((1 - .875)^2 + (.75 - .875)^2) / 1 / 2 = 0.015625.
    y = np.array([True, True, False, False])
    group = np.zeros(4, dtype=int)
    auc, error = auc_by_group(y, placements(y, np.array([0.9, 0.4, 0.4, 0.1]), group), group, 1)
    assert auc[0] == 0.875
    assert error[0] == pytest.approx((2 * 0.015625) ** 0.5, abs=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_matches_sklearn_and_slow_delong_in_every_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    group = rng.integers(-1, 4, 300)
    y = rng.random(300) < 0.4
    score = np.round(rng.random(300) + 0.3 * y, 1)  # one digit: many ties
    auc, error = auc_by_group(y, placements(y, score, group), group, 4)
    for code in range(4):
        inside = group == code
        assert auc[code] == pytest.approx(roc_auc_score(y[inside], score[inside]), abs=1e-12)
        assert (auc[code], error[code]) == pytest.approx(slow_delong(y[inside], score[inside]), abs=1e-12)


def test_mean_of_seeds_has_the_error_of_the_correlated_mean() -> None:
    # Independent check through the covariance of placements: var(mean of two) from the 2 x 2 DeLong matrix.
    rng = np.random.default_rng(0)
    y = rng.random(200) < 0.3
    scores = rng.random((2, 200)) + 0.5 * y + rng.random(200)
    group = np.zeros(200, dtype=int)
    placed = np.stack([placements(y, score, group) for score in scores])
    auc, error = auc_by_group(y, placed.mean(axis=0), group, 1)
    covariance = np.cov(placed[:, y]) / y.sum() + np.cov(placed[:, ~y]) / (~y).sum()
    assert auc[0] == pytest.approx(np.mean([roc_auc_score(y, score) for score in scores]), abs=1e-12)
    assert error[0] == pytest.approx(np.sqrt(covariance.mean()), abs=1e-12)


def test_one_class_group_is_nan_at_first_and_last_position() -> None:
    y = np.array([True, True, False, True, False, False])
    score = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    group = np.array([0, 0, 1, 1, 2, 2])
    auc, error = auc_by_group(y, placements(y, score, group), group, 3)
    np.testing.assert_array_equal(auc, [np.nan, 1.0, np.nan])
    np.testing.assert_array_equal(error, [np.nan, np.nan, np.nan])


def test_single_positive_has_a_value_but_no_error() -> None:
    y = np.array([True, False, False])
    group = np.zeros(3, dtype=int)
    auc, error = auc_by_group(y, placements(y, np.array([0.5, 0.1, 0.9]), group), group, 1)
    assert auc[0] == 0.5
    assert np.isnan(error[0])


def test_logit_interval_by_formula() -> None:
    # logit(0.8) = log 4; half width = 1.959964 * 0.05 / (0.8 * 0.2) = 0.612489.
    low, high = logit_interval([0.8], [0.05])
    half = norm.ppf(0.975) * 0.05 / 0.16
    assert low[0] == pytest.approx(1 / (1 + np.exp(-(np.log(4) - half))), abs=1e-12)
    assert high[0] == pytest.approx(1 / (1 + np.exp(-(np.log(4) + half))), abs=1e-12)


@pytest.mark.parametrize("auc", [0.0, 1.0, float("nan")])
def test_logit_interval_is_undefined_at_the_ends(auc: float) -> None:
    assert np.isnan(logit_interval([auc], [0.0])).all()


def test_auc_interval_of_one_set() -> None:
    rng = np.random.default_rng(3)
    y = rng.random(80) < 0.5
    score = rng.random(80) + 0.4 * y
    value, low, high = auc_interval(y.astype(int), score)
    area, error = slow_delong(y, score)
    assert value == pytest.approx(area, abs=1e-12)
    expected = logit_interval(area, error)
    assert (low, high) == pytest.approx(tuple(map(float, expected)), abs=1e-12)
    assert low < value < high


def test_empty_input() -> None:
    assert placements(np.zeros(0, bool), np.zeros(0), np.zeros(0, int)).shape == (0,)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"^expected y, score and group of one shape, got \(2,\), \(3,\) and \(2,\)$"):
        placements(np.zeros(2, bool), np.zeros(3), np.zeros(2, int))
