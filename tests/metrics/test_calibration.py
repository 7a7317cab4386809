from itertools import product

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from monai_fair.metrics import group_values
from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.calibration import (
    brier_score,
    calibration_influence,
    calibration_intercept,
    calibration_slope,
    ece_bins,
    error_of_calibrated_scores,
    expected_calibration_error,
)


def test_errors_by_hand() -> None:
    # At 0.2 three negatives and one positive, at 0.9 one of either. Brier: (3 x 0.04 + 0.64 + 0.81 + 0.01) / 6.
    # ECE: |1 - 4 x 0.2| = 0.2 in one bin and |1 - 2 x 0.9| = 0.8 in another: 1 / 6.
    counts, scores = np.array([[3.0, 1.0], [1.0, 1.0]]), np.array([0.2, 0.9])
    assert float(brier_score(counts, scores)) == pytest.approx(1.58 / 6, abs=1e-15)
    assert float(expected_calibration_error(counts, scores)) == pytest.approx(1 / 6, abs=1e-15)


def test_a_score_on_an_edge_is_in_the_lower_bin() -> None:
    scores = np.array([0.0, 0.05, 0.1, 0.1000001, 0.2, 0.3, 0.7, 0.9, 0.95, 1.0])
    assert ece_bins(scores).tolist() == [0, 0, 0, 1, 1, 2, 6, 8, 9, 9]
    assert ece_bins(scores, 2).tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_intercept_and_slope_by_hand() -> None:
    # Scores say 0.5, 3 of 4 are positive: logit(3/4) = log 3. Scores say 0.2 and 0.8, but 1/3 and 2/3 are positive:
    # by symmetry a = 0, and b = logit(2/3) / logit(0.8) = log 2 / log 4 = 1/2.
    assert float(calibration_intercept(np.array([[1.0], [3.0]]), np.array([0.5]))) == pytest.approx(np.log(3), abs=1e-9)
    counts = np.array([[2.0, 1.0], [1.0, 2.0]])
    assert float(calibration_slope(counts, np.array([0.2, 0.8]))) == pytest.approx(0.5, abs=1e-9)


def test_right_scores_have_intercept_zero_and_slope_one() -> None:
    scores = np.array([0.1, 0.4, 0.7])
    counts = 1000 * np.stack([1 - scores, scores])
    assert float(calibration_intercept(counts, scores)) == pytest.approx(0, abs=1e-9)
    assert float(calibration_slope(counts, scores)) == pytest.approx(1, abs=1e-9)
    assert float(expected_calibration_error(counts, scores)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("negatives", "positives"),
    [
        ([0.1, 0.3], [0.6, 0.8]),  # apart
        ([0.6, 0.8], [0.1, 0.3]),  # apart, upside down
        ([0.1, 0.5], [0.5, 0.9]),  # touching: the slope still has no bound
        ([0.4, 0.4], [0.4]),  # all equal
        ([0.1, 0.9], []),
    ],
)
@pytest.mark.parametrize("position", [0, 1])
def test_slope_without_a_bound_is_nan_wherever_it_stands(
    negatives: list[float], positives: list[float], position: int
) -> None:
    y, score = [0, 1, 0, 1], [0.2, 0.4, 0.6, 0.8]
    parts = [(y, score), ([0] * len(negatives) + [1] * len(positives), negatives + positives)]
    ordered = parts if position else parts[::-1]
    group = np.repeat([0, 1], [len(part[0]) for part in ordered])
    truth, scores = (np.concatenate([part[i] for part in ordered]) for i in (0, 1))
    slopes = group_values("calibration_slope", truth.astype(bool), scores, group, 2)
    assert np.isnan(slopes).tolist() == [position == 0, position == 1]


def test_scores_of_zero_and_one_count_as_a_millionth_inside() -> None:
    counts = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    at_the_ends, inside = np.array([0.0, 0.5, 1.0]), np.array([1e-6, 0.5, 1 - 1e-6])
    for measure in (calibration_intercept, calibration_slope):
        assert float(measure(counts, at_the_ends)) == float(measure(counts, inside))


def test_many_tables_at_once_equal_each_alone() -> None:
    rng = np.random.default_rng(0)
    scores = np.sort(rng.random(12))
    counts = rng.integers(0, 5, (3, 4, 2, 12)).astype(float)
    counts[1, 2, 1] = 0  # no positive
    for measure in (
        brier_score,
        calibration_intercept,
        calibration_slope,
        error_of_calibrated_scores,
        expected_calibration_error,
    ):
        together = measure(counts, scores)
        alone = [[float(measure(table, scores)) for table in row] for row in counts]
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("centre", "spread", "slope"), [(0, 12, 0.1), (-10, 1, 1.0), (0, 1, 4.0), (2, 6, -0.2)])
def test_fits_far_from_calibration_converge(centre: float, spread: float, slope: float) -> None:
    # Saturated scores that say little, as overconfident networks give them, timid ones, and a wrong prevalence.
    rng = np.random.default_rng(1)
    x = np.clip(rng.normal(centre, spread, 400), -13.8, 13.8)
    y = rng.random(400) < 1 / (1 + np.exp(-slope * (x - centre)))
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(x[:, None], y)
    found = group_values("calibration_slope", y, 1 / (1 + np.exp(-x)), np.zeros(400, int), 1)
    assert found[0] == pytest.approx(model.coef_[0, 0], rel=1e-5)


@pytest.mark.parametrize("name", ["calibration_intercept", "calibration_slope"])
def test_influence_is_the_derivative_by_the_weight_of_a_sample(name: str) -> None:
    rng = np.random.default_rng(3)
    y, score = rng.random(40) < 0.5, np.round(rng.uniform(0.1, 0.9, 40), 1)
    group = rng.integers(-1, 2, 40)
    values = group_values(name, y, score, group, 2)
    influence = calibration_influence(name, y, score, group, values)
    step = 1e-4

    def moved(sample: int, by: float) -> FloatArray:
        weight = np.ones(40)
        weight[sample] += by
        return group_values(name, y, score, group, 2, sample_weight=weight)

    for sample in range(40):
        slope = (moved(sample, step) - moved(sample, -step)) / (2 * step)
        expected = 0.0 if group[sample] < 0 else slope[group[sample]]
        assert influence[sample] == pytest.approx(expected, abs=1e-6)


def test_influence_is_nan_where_the_quantity_is_undefined() -> None:
    y, score = np.array([1, 1, 0, 1, 0], bool), np.array([0.6, 0.7, 0.4, 0.45, 0.5])
    group = np.array([0, 0, 1, 1, 1])
    for name in ("calibration_intercept", "calibration_slope"):
        values = group_values(name, y, score, group, 2)
        influence = calibration_influence(name, y, score, group, values)
        assert np.isnan(influence).tolist() == [True, True, False, False, False]


def test_error_of_calibrated_scores_by_hand() -> None:
    # One bin, n cases of score p: the surplus has variance n p (1 - p); sqrt(2 n p q / pi) / n.
    counts = np.array([[60.0], [40.0]])
    found = float(error_of_calibrated_scores(counts, np.array([0.3])))
    assert found == pytest.approx(np.sqrt(2 / np.pi * 0.3 * 0.7 / 100), abs=1e-15)


def test_error_of_calibrated_scores_is_near_the_mean_over_all_outcomes() -> None:
    # Two bins of four cases each: all 2^8 outcomes, each with its probability. The normal law errs by a few per cent.
    scores = np.array([0.42, 0.44, 0.47, 0.49, 0.55, 0.56, 0.57, 0.58])
    exact = 0.0
    for outcome in product([0.0, 1.0], repeat=8):
        y = np.array(outcome)
        probability = np.prod(np.where(y == 1, scores, 1 - scores))
        exact += float(probability * expected_calibration_error(np.stack([1 - y, y]), scores))
    found = float(error_of_calibrated_scores(np.stack([np.ones(8), np.zeros(8)]), scores))
    assert found == pytest.approx(exact, rel=0.08)
