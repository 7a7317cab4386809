from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_curve

from monai_fair.errors import MonaiFairError
from monai_fair.metrics.thresholds import (
    TARGETED,
    THRESHOLD_METHODS,
    ThresholdMethod,
    find_threshold,
    fit_threshold,
    shrink_threshold,
)

# Five cases, thresholds downwards: 0.9 TPR 1/3 TNR 1; 0.7 TPR 2/3 TNR 1; 0.5 TPR 2/3 TNR 1/2; 0.4 TPR 1 TNR 1/2;
# 0.1 TPR 1 TNR 0.
Y, SCORE = [1, 1, 1, 0, 0], [0.9, 0.7, 0.4, 0.5, 0.1]


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("youden", None, 0.7),  # 1/3, 2/3, 1/6, 1/2, 0
        ("min_gap", None, 0.5),  # 2/3, 1/3, 1/6, 1/2, 1
        ("g_means", None, 0.7),  # products 1/3, 2/3, 1/3, 1/2, 0
        ("f1", None, 0.4),  # 2/4, 4/5, 4/6, 6/7, 6/8
        ("sensitivity", 0.6, 0.7),
        ("sensitivity", 0.7, 0.4),
        ("sensitivity", 1, 0.4),
        ("specificity", 0.5, 0.4),
        ("specificity", 0.6, 0.7),
        ("specificity", 1, 0.7),
    ],
)
def test_every_method_by_hand(method: ThresholdMethod, target: float | None, expected: float) -> None:
    assert find_threshold(Y, SCORE, method, target=target) == expected


def test_a_score_at_the_threshold_is_positive() -> None:
    scores = np.array([0.2, 0.8])
    assert (scores >= find_threshold([0, 1], scores)).tolist() == [False, True]


def test_equals_take_the_highest_threshold() -> None:
    # At 0.9: TPR 1/2, FPR 0. At 0.6: TPR 1, FPR 1/2. Both 1/2.
    assert find_threshold([1, 0, 1, 0], [0.9, 0.8, 0.6, 0.1]) == 0.9


def test_equals_are_compared_exactly() -> None:
    # Every positive is followed by a negative: TPR - FPR is 1/5 at each positive, and the first one counts. In
    # floating point neither TPR - FPR nor TPR + TNR is largest there.
    assert np.argmax([found / 5 - (found - 1) / 5 for found in range(1, 6)]) > 0
    assert np.argmax([found / 5 + (6 - found) / 5 for found in range(1, 6)]) > 0
    assert find_threshold([1, 0] * 5, np.arange(10, 0, -1)) == 10


def test_a_score_on_a_straight_stretch_is_a_candidate() -> None:
    # One negative above all four positives, three below: along the positives the curve is straight at TNR 3/4, and
    # TPR reaches 3/4 inside that stretch, at 0.6.
    y, score = [0, 1, 1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.7, 0.6, 0.5, 0.3, 0.2, 0.1]
    assert 0.6 not in roc_curve(y, score)[2]
    assert find_threshold(y, score, "min_gap") == 0.6


def test_a_rate_that_equals_the_target_reaches_it() -> None:
    # 55 of 100 positives lie at or above 0.46; 0.55 * 100 is more than 55 in floating point.
    assert 0.55 * 100 > 55
    score = np.arange(1, 101) / 100
    y, all_scores = np.r_[np.ones(100), 0], np.r_[score, 0]
    assert find_threshold(y, all_scores, "sensitivity", target=0.55) == 0.46


def _exact(method: ThresholdMethod, tpr: Fraction, tnr: Fraction, positives: int, negatives: int) -> Fraction:
    found, false = tpr * positives, (1 - tnr) * negatives
    return {
        "youden": tpr + tnr - 1,
        "min_gap": -abs(tpr - tnr),
        "g_means": tpr * tnr,
        "f1": 2 * found / (found + false + positives),
    }[method]


@pytest.mark.parametrize("method", THRESHOLD_METHODS)
@pytest.mark.parametrize("seed", range(8))
def test_first_best_point_of_sklearns_curve(method: ThresholdMethod, seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.random(60) < 0.3
    score = np.round(rng.random(60) * 0.8 + 0.2 * y, 1 + seed % 2)
    positives, negatives = int(y.sum()), int((~y).sum())
    # the first point of the curve predicts nothing, at an infinite threshold
    fpr, tpr, thresholds = (part[1:] for part in roc_curve(y, score, drop_intermediate=False))
    sensitivity = [Fraction(round(rate * positives), positives) for rate in tpr]
    specificity = [1 - Fraction(round(rate * negatives), negatives) for rate in fpr]
    if method == "sensitivity":
        for target in map(Fraction, ("0.05", "0.5", "0.8", "1")):
            expected = thresholds[[rate >= target for rate in sensitivity]].max()
            assert find_threshold(y, score, method, target=float(target)) == expected
        return
    if method == "specificity":
        for target in map(Fraction, ("0.05", "0.5", "0.8")):
            expected = thresholds[[rate >= target for rate in specificity]].min()
            assert find_threshold(y, score, method, target=float(target)) == expected
        return
    merits = [_exact(method, up, down, positives, negatives) for up, down in zip(sensitivity, specificity, strict=True)]
    assert find_threshold(y, score, method) == thresholds[merits.index(max(merits))]


@pytest.mark.parametrize("method", ["youden", "min_gap", "g_means", "f1"])
def test_scores_that_tell_nothing_still_give_an_observed_threshold(method: ThresholdMethod) -> None:
    # sklearn's curve begins with an infinite threshold, as good as 0.4 by all but F1; it is no candidate here.
    assert find_threshold([0, 1, 1], [0.4, 0.4, 0.4], method) == 0.4


def test_a_specificity_out_of_reach_is_nan() -> None:
    # One of two negatives has the highest score: at any score a TNR of at most 1/2.
    y, score = [0, 1, 0], [0.9, 0.5, 0.1]
    assert find_threshold(y, score, "specificity", target=0.5) == 0.5
    assert np.isnan(find_threshold(y, score, "specificity", target=0.51))
    table = pd.DataFrame({"split": "val", "label": y, "score": score})
    assert fit_threshold(table, method="specificity", target=0.95)[1] == (
        "the rows with split 'val' reach a specificity of 0.95 only by predicting nothing"
    )


@pytest.mark.parametrize("method", THRESHOLD_METHODS)
@pytest.mark.parametrize("y", [[0, 0, 0], [1, 1, 1], []])
def test_one_class_has_no_threshold(method: ThresholdMethod, y: list[int]) -> None:
    target = 0.9 if method in TARGETED else None
    assert np.isnan(find_threshold(y, np.linspace(0, 1, len(y)), method, target=target))


@pytest.mark.parametrize(
    ("y", "score", "message"),
    [
        ([0, 1], [0.5], r"^expected y and score of one shape \(N,\), got \(2,\) and \(1,\)$"),
        ([[0, 1]], [[0.5, 0.1]], r"^expected y and score of one shape \(N,\), got \(1, 2\) and \(1, 2\)$"),
        ([0, 2, 3], [0.5] * 3, r"^expected 0 or 1 in y, got 2 and 1 more; compare with one class first$"),
        ([0, np.nan], [0.5] * 2, r"^expected 0 or 1 in y, got nan and 0 more; compare with one class first$"),
        (
            [0, 1, 1],
            [0.5, np.nan, np.inf],
            r"^expected finite scores, got 2 of 3 that are not; repair or leave out these rows$",
        ),
    ],
)
def test_impossible_input_is_named(y: list[float], score: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_threshold(y, score)


@pytest.mark.parametrize(
    ("method", "target", "message"),
    [
        (
            "best",
            None,
            "threshold: option 'method': expected one of youden, min_gap, g_means, f1, sensitivity, specificity, "
            "got 'best'",
        ),
        (
            "f1",
            0.5,
            "threshold: option 'target': expected none with the method 'f1', got 0.5; leave it out",
        ),
        *(
            (
                "sensitivity",
                target,
                "threshold: option 'target': expected the sensitivity to reach, in (0, 1], got "
                f"{target}; give one such as 0.9",
            )
            for target in (None, 0, 1.5, float("nan"))
        ),
    ],
)
def test_wrong_options_are_named(method: ThresholdMethod, target: float | None, message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        find_threshold(Y, SCORE, method, target=target)
    assert str(caught.value) == message


def _table(splits: list[str], labels: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"split": splits, "label": labels, "score": np.linspace(0.1, 0.9, len(labels))})


def test_fit_uses_validation_rows_only() -> None:
    table = _table(["val", "val", "test", "test"], [0, 1, 1, 0])
    assert fit_threshold(table) == (pytest.approx(0.1 + 0.8 / 3), "")


def test_fit_on_test_is_an_error() -> None:
    with pytest.raises(MonaiFairError, match=r"^threshold: expected a split other than 'test' to fit on, got 'test'; "):
        fit_threshold(_table(["test"] * 2, [0, 1]), split="test")


def test_fit_without_validation_rows_says_so() -> None:
    threshold, reason = fit_threshold(_table(["test"] * 2, [0, 1]))
    assert np.isnan(threshold)
    assert reason == "no rows with split 'val' to choose a threshold on"


def test_fit_on_one_class_says_so() -> None:
    threshold, reason = fit_threshold(_table(["val"] * 2, [1, 1]))
    assert np.isnan(threshold)
    assert reason == "the rows with split 'val' have one class only"


def test_fit_refuses_options_even_without_rows() -> None:
    with pytest.raises(MonaiFairError, match=r"^threshold: option 'target': expected the specificity to reach"):
        fit_threshold(_table(["test"] * 2, [0, 1]), method="specificity")


def test_fit_for_one_of_several_classes() -> None:
    table = pd.DataFrame({"split": "val", "label": [0, 1, 2, 2], "score_2": [0.1, 0.2, 0.6, 0.7]})
    assert fit_threshold(table, "score_2", positive_label=2) == (0.6, "")
    assert fit_threshold(table, "score_2", positive_label=2, method="sensitivity", target=0.5) == (0.7, "")


@pytest.mark.parametrize(
    ("counts", "options", "weight", "threshold"),
    [
        ((30, 10), {}, 0.5, 0.5),  # 10 / (10 + 10); 0.4 + (0.6 - 0.4) / 2
        ((30, 90), {}, 0.75, 0.55),  # 30 / (30 + 10)
        ((30, 9), {}, 0, 0.4),
        ((30, 9), {"min_count": 9}, 9 / 19, 0.4 + 0.2 * 9 / 19),
        ((3, 1), {"min_count": 1, "shrinkage": 0}, 1, 0.6),
        ((30, 10), {"shrinkage": 30}, 0.25, 0.45),
    ],
)
def test_shrinkage_by_hand(counts: tuple[int, int], options: dict[str, float], weight: float, threshold: float) -> None:
    assert shrink_threshold(0.6, 0.4, *counts, **options) == pytest.approx((weight, threshold), abs=1e-15)  # type: ignore[arg-type]


def test_drawing_towards_an_equal_threshold_leaves_it() -> None:
    # A threshold one rounding higher would make the cases at 0.9 negative.
    assert 15 / 25 * 0.9 + (1 - 15 / 25) * 0.9 > 0.9
    assert shrink_threshold(0.9, 0.9, 15, 15)[1] == 0.9


def test_shrinking_what_is_undefined() -> None:
    nan = float("nan")
    assert shrink_threshold(nan, 0.4, 50, 50) == (0, 0.4)
    weight, threshold = shrink_threshold(0.6, nan, 50, 50)
    assert weight == pytest.approx(5 / 6)
    assert np.isnan(threshold)
    assert shrink_threshold(0.6, nan, 50, 50, shrinkage=0) == (1, 0.6)
