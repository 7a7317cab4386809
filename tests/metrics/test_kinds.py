import numpy as np
import pytest

from monai_fair.metrics import METRICS, group_values
from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.kinds import MAX_BINS, Kinds, kinds_of, values_of

QUANTITIES: list[tuple[str, int | None]] = [
    *((key, None) for key, metric in METRICS.items() if metric.of_scores),
    *((key, rule) for rule in (0, 1) for key, metric in METRICS.items() if metric.of_predictions),
]
FITTED = ("calibration_intercept", "calibration_slope")


def draw(size: int, digits: int) -> tuple[BoolArray, FloatArray, IntArray, FloatArray]:
    """Truth, scores, groups and two thresholds, the second one per sample."""
    rng = np.random.default_rng(size + digits)
    y = rng.random(size) < 0.3
    score = np.round(1 / (1 + np.exp(1 - 2 * y - rng.normal(size=size))), digits)
    group = rng.integers(0, 3, size)
    return y, score, group, np.stack([np.full(size, 0.5), np.array([0.3, 0.6, 0.7])[group]])


def counts_of(kinds: Kinds, y: BoolArray, group: IntArray, weight: FloatArray | None = None) -> FloatArray:
    """Counts of kinds by group and truth, one sample at a time."""
    counts = np.zeros((3, 2, kinds.count))
    for sample in range(y.size):
        counts[group[sample], int(y[sample]), kinds.index[sample]] += 1 if weight is None else weight[sample]
    return counts


def test_kinds_by_hand() -> None:
    # Bins 0.2, 0.5, 0.8; the samples of 0.5 are apart under the second rule: four kinds.
    y, score = np.array([0, 1, 0, 1, 1], bool), np.array([0.8, 0.5, 0.2, 0.5, 0.8])
    predictions = np.array([[1, 1, 0, 1, 1], [1, 1, 0, 0, 1]], bool)
    kinds = kinds_of(y, score, predictions)
    assert kinds.scores.tolist() == [0.2, 0.5, 0.8]
    assert kinds.starts.tolist() == [0, 1, 3]
    assert kinds.index.tolist() == [3, 2, 0, 1, 3]
    assert kinds.predicted.tolist() == [[False, True, True, True], [False, False, True, True]]
    counts = np.array([[0.0, 1.0, 2.0, 4.0]])
    assert kinds.score_counts(counts).tolist() == [[0.0, 3.0, 4.0]]
    assert kinds.confusion_counts(counts, 1).tolist() == [[1.0, 6.0]]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("size", "digits"), [(60, 1), (200, 2), (MAX_BINS, 12)])
def test_few_distinct_scores_give_the_exact_values(size: int, digits: int, weighted: bool) -> None:
    y, score, group, thresholds = draw(size, digits)
    weight = np.random.default_rng(1).exponential(size=size) if weighted else None
    kinds = kinds_of(y, score, score >= thresholds)
    found = values_of(kinds, counts_of(kinds, y, group, weight), QUANTITIES)
    wide = kinds.fit_bins[0].size < kinds.scores.size
    for row, (key, rule) in enumerate(QUANTITIES):
        threshold = thresholds[rule or 0]
        expected = group_values(key, y, score, group, 3, threshold=threshold, sample_weight=weight)
        # Logistic fits use fewer bins; the spread around the value is all they are used for.
        tolerance = 0.05 if wide and key in FITTED else 1e-9 if key in FITTED else 1e-12
        np.testing.assert_allclose(found[row], expected, rtol=tolerance, atol=tolerance, err_msg=str((key, rule)))


def test_many_distinct_scores_are_binned_without_moving_predictions() -> None:
    y, score, group, thresholds = draw(5000, 12)
    kinds = kinds_of(y, score, score >= thresholds)
    counts = counts_of(kinds, y, group)
    assert kinds.scores.size <= MAX_BINS + 9  # the inner edges of the calibration error's bins are cuts too
    assert (np.diff(kinds.scores) > 0).all()
    np.testing.assert_array_equal(kinds.score_counts(counts).sum(axis=-1), counts.sum(axis=-1))
    found = values_of(kinds, counts, QUANTITIES)
    for row, (key, rule) in enumerate(QUANTITIES):
        expected = group_values(key, y, score, group, 3, threshold=thresholds[rule or 0])
        # Means of scores inside bins of the calibration error differ by group, hence its wider tolerance.
        tolerance = 1e-12 if rule is not None else 0.02 if key in FITTED else 2e-3
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=tolerance, err_msg=str((key, rule)))


def test_bins_do_not_cross_the_edges_of_the_calibration_error() -> None:
    y, score, _, _ = draw(5000, 3)
    assert np.unique(score).size > 64
    kinds = kinds_of(y, score, np.zeros((0, y.size), bool), max_bins=8)
    for bin_ in range(kinds.count):
        inside = score[kinds.index == bin_]
        assert np.ceil(inside.min() * 10 - 1e-9) == np.ceil(inside.max() * 10 - 1e-9)
        assert kinds.scores[bin_] == pytest.approx(inside.mean(), abs=1e-12)


def test_without_a_bound_every_score_is_a_bin() -> None:
    y, score, _, _ = draw(2000, 12)
    kinds = kinds_of(y, score, np.zeros((0, 2000), bool), max_bins=10**9)
    np.testing.assert_array_equal(kinds.scores, np.unique(score))


def test_one_class_is_binned_by_what_is_there() -> None:
    score = np.random.default_rng(0).random(2000)
    for y in (np.zeros(2000, bool), np.ones(2000, bool)):
        kinds = kinds_of(y, score, score[None] >= 0.5)
        assert 64 < kinds.scores.size <= MAX_BINS + 9
        assert kinds.predicted[0, kinds.index].tolist() == (score >= 0.5).tolist()


def test_wide_bins_of_fits_are_few_and_ordered() -> None:
    y, score, _, _ = draw(3000, 12)
    starts, scores = kinds_of(y, score, np.zeros((0, 3000), bool), max_bins=10**9).fit_bins
    assert starts[0] == 0
    assert starts.size == scores.size <= 64
    assert (np.diff(scores) > 0).all()
