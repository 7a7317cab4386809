import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_negative_rate, true_positive_rate
from sklearn.metrics import precision_score

from monai_fair.metrics import RATE_NAMES, confusion_counts, rate


def test_rates_by_hand() -> None:
    # 4 positives, 3 called positive; 6 negatives, 1 called positive: TPR 3/4, FPR 1/6, TNR 5/6, PPV 3/4.
    counts = np.array([[5, 1], [1, 3]])
    assert [float(rate(name, counts)) for name in RATE_NAMES] == [0.75, 1 / 6, 5 / 6, 0.75]


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
