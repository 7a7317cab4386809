from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fairlearn.metrics import (
    MetricFrame,
    false_positive_rate,
    selection_rate,
    true_negative_rate,
    true_positive_rate,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    precision_score,
    roc_auc_score,
)

from monai_fair.metrics import METRICS, group_values
from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.by_group import score_counts

GROUPS, EMPTY = 5, 4
Draw = tuple[BoolArray, FloatArray, IntArray, FloatArray | None]


def draw(seed: int, weighted: bool) -> Draw:
    """Samples of four groups, of none (-1), and of a fifth group that is empty; one digit makes many ties."""
    rng = np.random.default_rng(seed)
    y = rng.random(400) < 0.4
    score = np.round(np.clip(rng.random(400) * 0.7 + 0.25 * y, 0, 1), 1)
    return y, score, rng.integers(-1, EMPTY, 400), rng.uniform(0, 3, 400) if weighted else None


def of_scores(function: Callable[..., float]) -> Callable[..., float]:
    return lambda y, score, weight: function(y, score, sample_weight=weight)


def of_predictions(function: Callable[..., float], **options: Any) -> Callable[..., float]:
    return lambda y, score, weight: function(y, score >= 0.5, sample_weight=weight, **options)


def loop_ece(y: BoolArray, score: FloatArray, weight: FloatArray | None) -> float:
    """Bins (0, 0.1], (0.1, 0.2], ...; a score of 0 in the first."""
    w = np.ones(y.size) if weight is None else weight
    total = 0.0
    for bin_ in range(10):
        low, high = bin_ / 10, (bin_ + 1) / 10
        inside = [i for i in range(y.size) if low < score[i] <= high or (bin_ == 0 and score[i] == 0)]
        if inside:
            mass = sum(w[i] for i in inside)
            observed = sum(w[i] for i in inside if y[i]) / mass
            total += mass / w.sum() * abs(observed - sum(w[i] * score[i] for i in inside) / mass)
    return total


REFERENCES = {
    "auc": of_scores(roc_auc_score),
    "average_precision": of_scores(average_precision_score),
    "brier": of_scores(brier_score_loss),
    "ece": loop_ece,
    "accuracy": of_predictions(accuracy_score),
    "balanced_accuracy": of_predictions(balanced_accuracy_score),
    "f1": of_predictions(f1_score),
    "ppv": of_predictions(precision_score),
    "npv": of_predictions(lambda y, y_pred, sample_weight: precision_score(~y, ~y_pred, sample_weight=sample_weight)),
    "tpr": of_predictions(true_positive_rate),
    "fpr": of_predictions(false_positive_rate),
    "tnr": of_predictions(true_negative_rate),
    "selection_rate": of_predictions(selection_rate),
}
FITTED = {"calibration_intercept", "calibration_slope"}


def test_every_metric_has_a_reference() -> None:
    assert set(METRICS) == set(REFERENCES) | FITTED


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", REFERENCES)
def test_equals_the_reference_in_every_group(name: str, weighted: bool) -> None:
    for seed in range(4):
        y, score, group, weight = draw(seed, weighted)
        values = group_values(name, y, score, group, GROUPS, sample_weight=weight)
        for code in range(EMPTY):
            at = group == code
            expected = REFERENCES[name](y[at], score[at], None if weight is None else weight[at])
            assert values[code] == pytest.approx(expected, abs=1e-12), (name, seed, code)
        assert np.isnan(values[EMPTY])


@pytest.mark.parametrize("weighted", [False, True])
def test_equals_fairlearns_metric_frame(weighted: bool) -> None:
    y, score, group, weight = draw(9, weighted)
    names = {"auc": roc_auc_score, "average_precision": average_precision_score, "brier": brier_score_loss}
    names |= {"tpr": true_positive_rate, "fpr": false_positive_rate, "selection_rate": selection_rate}
    for name, metric in names.items():
        there = group >= 0
        options = {} if weight is None else {"sample_params": {"sample_weight": weight[there]}}
        predicted = score if name in ("auc", "average_precision", "brier") else score >= 0.5
        frame = MetricFrame(
            metrics=metric, y_true=y[there], y_pred=predicted[there], sensitive_features=group[there], **options
        )
        values = group_values(name, y, score, group, GROUPS, sample_weight=weight)
        np.testing.assert_allclose(values[:EMPTY], frame.by_group, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_calibration_equals_unpenalised_logistic_regression(weighted: bool) -> None:
    y, score, group, weight = draw(2, weighted)
    score = np.clip(score, 0.03, 0.97)
    slopes = group_values("calibration_slope", y, score, group, GROUPS, sample_weight=weight)
    intercepts = group_values("calibration_intercept", y, score, group, GROUPS, sample_weight=weight)
    for code in range(EMPTY):
        at = group == code
        x, w = np.log(score[at] / (1 - score[at])), np.ones(at.sum()) if weight is None else weight[at]
        model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(x[:, None], y[at], sample_weight=w)
        assert slopes[code] == pytest.approx(model.coef_[0, 0], abs=1e-6)
        # The intercept beside a slope of 1 solves sum w (y - p) = 0, which is monotone: bisection is a reference.
        low, high = -20.0, 20.0
        for _ in range(80):
            middle = (low + high) / 2
            surplus = (w * (y[at] - 1 / (1 + np.exp(-middle - x)))).sum()
            low, high = (middle, high) if surplus > 0 else (low, middle)
        assert intercepts[code] == pytest.approx(low, abs=1e-9)
    assert np.isnan([slopes[EMPTY], intercepts[EMPTY]]).all()


@pytest.mark.parametrize("position", [0, 2])
def test_what_a_group_does_not_define_is_nan_and_nothing_else(position: int) -> None:
    y, score, _, _ = draw(1, False)
    group = np.random.default_rng(0).integers(0, 3, y.size)
    lost: dict[str, BoolArray] = {
        "positives": y & (group == position),
        "negatives": ~y & (group == position),
    }
    undefined = {
        "positives": {"auc", "average_precision", "tpr", "balanced_accuracy", *FITTED},
        "negatives": {"auc", "fpr", "tnr", "balanced_accuracy", *FITTED},
    }
    for gone, rows in lost.items():
        kept = ~rows
        for name in METRICS:
            values = group_values(name, y[kept], score[kept], group[kept], 3)
            expected = [index == position and name in undefined[gone] for index in range(3)]
            assert np.isnan(values).tolist() == expected, (gone, name)


# fairlearn and scikit-learn call these 0 (the latter with a warning); nothing was measured, so they are undefined.
@pytest.mark.parametrize(
    ("name", "y", "score"),
    [
        ("tpr", [0, 0], [0.9, 0.1]),
        ("fpr", [1, 1], [0.9, 0.1]),
        ("ppv", [1, 0], [0.1, 0.1]),
        ("npv", [1, 0], [0.9, 0.9]),
        ("f1", [0, 0], [0.1, 0.1]),
        ("average_precision", [0, 0], [0.9, 0.1]),
    ],
)
def test_known_traps_are_nan(name: str, y: list[int], score: list[float]) -> None:
    values = group_values(name, np.array(y, bool), np.array(score), np.zeros(2, int), 1)
    assert np.isnan(values).tolist() == [True]


def test_f1_is_zero_where_positives_are_all_missed() -> None:
    values = group_values("f1", np.array([True, False]), np.array([0.1, 0.2]), np.zeros(2, int), 1)
    assert values.tolist() == [0.0]


@pytest.mark.parametrize("name", METRICS)
def test_no_sample_at_all(name: str) -> None:
    nothing = np.zeros(0)
    assert np.isnan(group_values(name, nothing.astype(bool), nothing, nothing.astype(int), 2)).all()
    alone = group_values(name, np.ones(3, bool), np.full(3, 0.7), np.full(3, -1), 2)
    assert np.isnan(alone).all()


@pytest.mark.parametrize("count", [255, 256, 300])
def test_many_groups_do_not_run_into_those_of_no_group(count: int) -> None:
    # Codes are sorted as small unsigned integers, in which -1 must stay the largest.
    group = np.append(np.repeat(np.arange(count), 2), [-1, -1])
    y = np.tile([True, False], count + 1)
    score = np.append(np.tile([0.8, 0.3], count), [0.1, 0.9])
    np.testing.assert_array_equal(group_values("auc", y, score, group, count), np.ones(count))


def test_a_threshold_per_sample() -> None:
    # 0.6 reaches 0.5 but not 0.7.
    y, score, group = np.ones(4, bool), np.full(4, 0.6), np.array([0, 0, 1, 1])
    threshold = np.array([0.5, 0.7, 0.7, 0.7])
    np.testing.assert_array_equal(group_values("tpr", y, score, group, 2, threshold=threshold), [0.5, 0.0])


def test_score_counts_by_hand() -> None:
    y = np.array([1, 0, 1, 0, 1], bool)
    score = np.array([0.5, 0.5, 0.2, 0.9, 0.9])
    group = np.array([1, 1, 1, 0, -1])
    found = {index: (counts.tolist(), scores.tolist()) for index, counts, scores in score_counts(y, score, group, 3)}
    assert found == {0: ([[1.0], [0.0]], [0.9]), 1: ([[0.0, 1.0], [1.0, 1.0]], [0.2, 0.5])}


def test_unknown_metric_and_unequal_shapes_are_refused() -> None:
    y, score, group = np.zeros(2, bool), np.zeros(2), np.zeros(2, int)
    with pytest.raises(ValueError, match=r"^metric: expected one of auc, .*, calibration_slope, got 'recall'$"):
        group_values("recall", y, score, group, 1)
    with pytest.raises(ValueError, match=r"^expected y, score and group of one shape, got \(2,\), \(3,\) and \(2,\)$"):
        group_values("auc", y, np.zeros(3), group, 1)
