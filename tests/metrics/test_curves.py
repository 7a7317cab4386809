import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_curve, roc_curve

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.by_group import score_counts
from monai_fair.metrics.curves import (
    CURVE_GRID,
    band,
    calibration_bins,
    calibration_records,
    precision_on_grid,
    roc_on_grid,
    shares_above,
)


def draw(seed: int, digits: int) -> tuple[BoolArray, FloatArray, IntArray]:
    rng = np.random.default_rng(seed)
    y = rng.random(300) < 0.3
    return y, np.round(np.clip(rng.random(300) * 0.8 + 0.2 * y, 0, 1), digits), rng.integers(0, 3, 300)


def on_shared_scores(y: BoolArray, score: FloatArray, group: IntArray) -> FloatArray:
    """Score counts of all groups over the scores of all, as resamples have them."""
    distinct, index = np.unique(score, return_inverse=True)
    counts = np.zeros((3, 2, distinct.size))
    np.add.at(counts, (group, y.astype(int), index), 1)
    return counts


def test_the_grid_is_of_decimal_numbers() -> None:
    assert CURVE_GRID.tolist() == [float(f"{k / 100:.2f}") for k in range(101)]


def test_roc_by_hand() -> None:
    # Thresholds 0.9, 0.6, 0.2 give (FPR, TPR) (0, 1/2), (1/2, 1/2), (1, 1): flat to 1/2, then a line of slope 1.
    counts = np.array([[[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]])
    expected = np.where(CURVE_GRID <= 0.5, 0.5, CURVE_GRID)
    np.testing.assert_allclose(roc_on_grid(counts)[0], expected, rtol=0, atol=1e-15)


def test_precision_by_hand() -> None:
    # The highest threshold finds one of two positives alone; the second one needs all four cases.
    counts = np.array([[[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]])
    expected = np.where(CURVE_GRID <= 0.5, 1.0, 0.5)
    np.testing.assert_array_equal(precision_on_grid(counts)[0], expected)


def height_at(x: float, fpr: FloatArray, tpr: FloatArray) -> float:
    """The line from the last point at or before x to the next one."""
    at = max(index for index in range(fpr.size) if fpr[index] <= x)
    if at + 1 == fpr.size:
        return float(tpr[at])
    share = (x - fpr[at]) / (fpr[at + 1] - fpr[at])
    return float(tpr[at] + share * (tpr[at + 1] - tpr[at]))


@pytest.mark.parametrize("digits", [1, 2, 9])
@pytest.mark.parametrize("seed", range(3))
def test_curves_equal_sklearns_in_every_group(seed: int, digits: int) -> None:
    y, score, group = draw(seed, digits)
    shared = on_shared_scores(y, score, group)
    together = roc_on_grid(shared), precision_on_grid(shared)
    for index, counts, _ in score_counts(y, score, group, 3):
        at = group == index
        fpr, tpr, _ = roc_curve(y[at], score[at], drop_intermediate=False)
        expected_roc = [height_at(x, fpr, tpr) for x in CURVE_GRID]
        precision, recall, _ = precision_recall_curve(y[at], score[at])
        # sklearn's thresholds rise; its last point, recall 0 and precision 1, is no threshold.
        expected_pr = [precision[:-1][recall[:-1] >= wanted - 1e-12][-1] for wanted in CURVE_GRID]
        for found in (roc_on_grid(counts[None])[0], together[0][index]):
            np.testing.assert_allclose(found, expected_roc, rtol=0, atol=1e-12)
        for found in (precision_on_grid(counts[None])[0], together[1][index]):
            np.testing.assert_allclose(found, expected_pr, rtol=0, atol=1e-12)


@pytest.mark.parametrize("position", [0, 2])
def test_a_group_of_one_class_has_no_curve_and_leaves_the_others(position: int) -> None:
    y, score, group = draw(0, 2)
    counts = on_shared_scores(y, score, group)
    before = roc_on_grid(counts), precision_on_grid(counts)
    counts[position, 1] = 0
    for curve, known in zip((roc_on_grid(counts), precision_on_grid(counts)), before, strict=True):
        assert np.isnan(curve).all(axis=1).tolist() == [index == position for index in range(3)]
        others = [index for index in range(3) if index != position]
        np.testing.assert_array_equal(curve[others], known[others])


def test_shares_above_every_threshold() -> None:
    # Two digits: every score is a point of the grid, and counts at its own threshold.
    y, score, _ = draw(1, 2)
    _, counts, scores = next(iter(score_counts(y, score, np.zeros(300, int), 1)))
    found = shares_above(counts, scores)
    expected = [[(score[y == truth] >= float(f"{k / 100:.2f}")).mean() for k in range(101)] for truth in (0, 1)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)
    counts[1] = 0
    assert np.isnan(shares_above(counts, scores)).all(axis=1).tolist() == [False, True]


def test_calibration_records_by_hand() -> None:
    # Scores 0.1 (first tenth) and 0.55, 0.6 (sixth): 1 of 2 and 2 of 3 positive.
    counts = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    bins = calibration_bins(counts, np.array([0.1, 0.55, 0.6]))
    first, second = calibration_records(bins, 1.0, confidence=0.9)
    wilson = binomtest(1, 2).proportion_ci(0.9, method="wilson")
    assert first == {
        "from": 0.0,
        "to": 0.1,
        "n": 2.0,
        "mean_score": pytest.approx(0.1),
        "observed": 0.5,
        "low": pytest.approx(wilson.low, abs=1e-12),
        "high": pytest.approx(wilson.high, abs=1e-12),
    }
    assert (second["from"], second["to"], second["n"]) == (0.5, 0.6, 3.0)
    assert (second["mean_score"], second["observed"]) == (pytest.approx(1.7 / 3), pytest.approx(2 / 3))


def test_calibration_intervals_count_subjects() -> None:
    # Six images worth half a case each: the interval of 1 of 3.
    counts = np.array([[4.0], [2.0]])
    (record,) = calibration_records(calibration_bins(counts, np.array([0.35])), 0.5, confidence=0.95)
    wilson = binomtest(1, 3).proportion_ci(method="wilson")
    assert (record["low"], record["high"]) == pytest.approx((wilson.low, wilson.high), abs=1e-12)
    assert record["n"] == 6.0


def test_bands_stay_in_range() -> None:
    found = band(np.array([0.5, 1.0]), np.array([-0.1, 0.9]), np.array([0.6, 1.1]))
    assert found == {"value": [0.5, 1.0], "low": [0.0, 0.9], "high": [0.6, 1.0]}
