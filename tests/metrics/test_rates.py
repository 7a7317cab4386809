import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_negative_rate, true_positive_rate
from sklearn.metrics import precision_score

from monai_fair.metrics import RATE_NAMES, confusion_counts, rate
from monai_fair.metrics.rates import RateName, balanced_accuracy, f1_score, rate_parts, sample_parts

# 4 positives, 3 of them called positive; 6 negatives, 1 of them called positive.
HAND = np.array([[5, 1], [1, 3]])


def test_rates_by_hand() -> None:
    expected = {"tpr": 3 / 4, "fpr": 1 / 6, "tnr": 5 / 6, "ppv": 3 / 4, "npv": 5 / 6, "accuracy": 8 / 10}
    expected["selection_rate"] = 4 / 10
    assert {name: float(rate(name, HAND)) for name in RATE_NAMES} == expected


def test_balanced_accuracy_and_f1_by_hand() -> None:
    # (3/4 + 5/6) / 2 = 19/24; 2 * 3 / (2 * 3 + 1 + 1) = 3/4.
    assert float(balanced_accuracy(HAND)) == pytest.approx(19 / 24, abs=1e-15)
    assert float(f1_score(HAND)) == 0.75


@pytest.mark.parametrize("name", RATE_NAMES)
def test_samples_above_and_below_the_line_add_up_to_the_parts(name: RateName) -> None:
    rng = np.random.default_rng(0)
    y, y_pred = rng.random(50) < 0.4, rng.random(50) < 0.5
    above, below = sample_parts(name, y, y_pred)
    parts = rate_parts(name, confusion_counts(y, y_pred, np.zeros(50, int), 1)[0])
    assert (above.sum(), below.sum()) == tuple(int(part) for part in parts)
    assert not (above & ~below).any()


def test_weights_are_added_up() -> None:
    weight = np.array([0.5, 2.0, 1.5])
    counts = confusion_counts(np.array([1, 1, 0], bool), np.array([1, 0, 1], bool), np.array([0, 0, -1]), 1, weight)
    assert counts.tolist() == [[[0.0, 0.0], [2.0, 0.5]]]
    assert float(rate("tpr", counts[0])) == 0.2


def test_counts_by_hand() -> None:
    y = np.array([1, 1, 0, 0, 1], bool)
    y_pred = np.array([1, 0, 1, 0, 1], bool)
    group = np.array([0, 0, 1, 1, -1])
    # group 0: one missed, one found; group 1: one false alarm, one true negative; the last has no group.
    expected = [[[0, 0], [1, 1]], [[1, 1], [0, 0]]]
    assert confusion_counts(y, y_pred, group, 2).tolist() == expected


@pytest.mark.parametrize("seed", range(3))
def test_matches_fairlearn_where_defined(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, y_pred = rng.random(400) < 0.3, rng.random(400) < 0.4
    group = rng.integers(0, 5, 400)
    counts = confusion_counts(y, y_pred, group, 5)
    frame = MetricFrame(
        metrics={
            "tpr": true_positive_rate,
            "fpr": false_positive_rate,
            "tnr": true_negative_rate,
            "sel": selection_rate,
        },
        y_true=y,
        y_pred=y_pred,
        sensitive_features=group,
    )
    for name in ("tpr", "fpr", "tnr"):
        np.testing.assert_allclose(rate(name, counts), frame.by_group[name], rtol=0, atol=1e-12)
        assert np.ptp(rate(name, counts)) == pytest.approx(frame.difference()[name], abs=1e-12)
    selected = counts[:, :, 1].sum(axis=1) / counts.sum(axis=(1, 2))
    np.testing.assert_allclose(selected, frame.by_group["sel"], rtol=0, atol=1e-12)
    for code in range(5):
        expected = precision_score(y[group == code], y_pred[group == code])
        assert rate("ppv", counts)[code] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("position", [0, 2])
def test_group_without_positives_is_nan_not_zero(position: int) -> None:
    counts = np.tile(np.array([[5, 1], [1, 3]]), (3, 1, 1))
    counts[position, 1] = 0
    undefined = [index == position for index in range(3)]
    assert np.isnan(rate("tpr", counts)).tolist() == undefined
    assert not np.isnan(rate("fpr", counts)).any()


def test_ppv_without_a_predicted_positive_is_nan() -> None:
    assert np.isnan(rate("ppv", np.array([[5, 0], [2, 0]])))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"^expected y, y_pred and group of one shape, got \(2,\), \(1,\) and \(2,\)$"):
        confusion_counts(np.zeros(2, bool), np.zeros(1, bool), np.zeros(2, int), 1)
