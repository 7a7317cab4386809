"""Decision thresholds, chosen on validation data only."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray

ThresholdMethod = Literal["youden", "min_gap", "g_means", "f1", "sensitivity", "specificity"]
THRESHOLD_METHODS: tuple[ThresholdMethod, ...] = get_args(ThresholdMethod)
TARGETED: tuple[ThresholdMethod, ...] = ("sensitivity", "specificity")


def find_threshold(
    y: npt.ArrayLike, score: npt.ArrayLike, method: ThresholdMethod = "youden", *, target: float | None = None
) -> float:
    """Return the threshold from which on a score counts as positive.

    ``score >= threshold`` is positive. The candidates are the observed scores, from the largest to the smallest:

    - ``youden``: the largest ``TPR - FPR``;
    - ``min_gap``: the smallest ``|TPR - TNR|``;
    - ``g_means``: the largest ``sqrt(TPR * TNR)``;
    - ``f1``: the largest ``2 TP / (2 TP + FP + FN)``;
    - ``sensitivity``: the highest threshold with ``TPR >= target``, which always exists;
    - ``specificity``: the lowest threshold with ``TNR >= target``.

    Among equals the first one, the highest, is taken, as ``thresholds[np.argmax(tpr - fpr)]`` does with
    scikit-learn's ``roc_curve``. Two things differ from such code. Values are compared as whole numbers or as
    ratios of them, so that equals are equal; and no score is left out, while ``roc_curve`` by default drops those
    on a straight stretch of the curve, where ``min_gap`` and ``g_means`` may have their best one.

    An infinite threshold, which predicts nothing, is no candidate. Only ``specificity`` can need it: where a
    negative has the highest score, no score may reach the target, and the threshold is NaN. For the other methods
    it is never better than the best observed score.

    Args:
        y: 0 or 1 per sample, shape ``(N,)``.
        score: finite, on any scale, shape ``(N,)``.
        method: which threshold.
        target: sensitivity or specificity to reach, in (0, 1]; for these two methods only.

    Returns:
        One of the scores; NaN when there is no positive or no negative, or no score reaches the specificity.

    Raises:
        ValueError: if the shapes differ, ``y`` has other values, or a score is not finite.
        MonaiFairError: if the method is unknown, or the target missing, superfluous or out of range.

    References:
        Youden, Index for rating diagnostic tests, Cancer 1950. Gao, Hao, Zhou, FairREAD, arXiv 2412.16373
        (``min_gap`` and ``g_means`` per subgroup).

    Example:
        >>> find_threshold([1, 1, 1, 0, 0], [0.9, 0.7, 0.4, 0.5, 0.1])
        0.7
        >>> find_threshold([1, 1, 1, 0, 0], [0.9, 0.7, 0.4, 0.5, 0.1], "sensitivity", target=0.9)
        0.4
    """
    raise_problems(MonaiFairError, "threshold", method_problems(method, target))
    return search_threshold(*checked_scores(y, score), method, target)[0]


def method_problems(method: ThresholdMethod, target: float | None) -> Iterator[str]:
    """Yield what is wrong with a method and its target."""
    if method not in THRESHOLD_METHODS:
        yield f"option 'method': expected one of {', '.join(THRESHOLD_METHODS)}, got '{method}'"
    elif method not in TARGETED:
        if target is not None:
            yield f"option 'target': expected none with the method '{method}', got {target}; leave it out"
    elif target is None or not 0 < target <= 1:
        yield f"option 'target': expected the {method} to reach, in (0, 1], got {target}; give one such as 0.9"


def checked_scores(y: npt.ArrayLike, score: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
    """Return truth and scores as arrays; see :func:`find_threshold` for what is refused."""
    truth, value = np.asarray(y), np.asarray(score, dtype=np.float64)
    if truth.shape != value.shape or truth.ndim != 1:
        raise ValueError(f"expected y and score of one shape (N,), got {truth.shape} and {value.shape}")
    positive = truth.astype(np.bool_)
    other = truth[positive != truth]
    if other.size:
        raise ValueError(
            f"expected 0 or 1 in y, got {other[0]} and {other.size - 1} more; compare with one class first"
        )
    odd = int((~np.isfinite(value)).sum())
    if odd:
        raise ValueError(
            f"expected finite scores, got {odd} of {value.size} that are not; repair or leave out these rows"
        )
    return positive, value


def search_threshold(
    positive: BoolArray, value: FloatArray, method: ThresholdMethod, target: float | None
) -> tuple[float, str]:
    """Return what :func:`find_threshold` does, from checked input, and why it is NaN.

    Args:
        positive: True for positive, shape ``(N,)``.
        value: scores, shape ``(N,)``.
        method: which threshold.
        target: for ``sensitivity`` and ``specificity``, and only for these.

    Returns:
        The threshold and an empty reason, or NaN and a reason to put after "these rows".
    """
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    if not n_positive or not n_negative:
        return math.nan, "have one class only"
    candidates, true_positives, true_negatives = _roc_counts(positive, value)
    if target is None:
        merit = _merit(method, true_positives, true_negatives, n_positive, n_negative)
        return float(candidates[np.argmax(merit)]), ""
    # Rates, not counts: 55 of 100 are 0.55, but 0.55 * 100 is more than 55 in floating point.
    if method == "sensitivity":
        return float(candidates[np.argmax(true_positives / n_positive >= target)]), ""
    reached = np.count_nonzero(true_negatives / n_negative >= target)
    if not reached:
        return math.nan, f"reach a specificity of {target} only by predicting nothing"
    return float(candidates[reached - 1]), ""


def _roc_counts(positive: BoolArray, value: FloatArray) -> tuple[FloatArray, IntArray, IntArray]:
    """Return the distinct scores, highest first, with the true positives and true negatives at each."""
    rising, inverse = np.unique(value, return_inverse=True)
    positives_at = np.bincount(inverse[positive], minlength=rising.size)[::-1]
    negatives_at = np.bincount(inverse[~positive], minlength=rising.size)[::-1]
    return rising[::-1], positives_at.cumsum(), negatives_at.sum() - negatives_at.cumsum()


def _merit(
    method: ThresholdMethod, true_positives: IntArray, true_negatives: IntArray, n_positive: int, n_negative: int
) -> npt.NDArray[np.generic]:
    """Return what is largest at the best threshold: the method's quantity, or a rising function of it."""
    if method == "youden":
        return true_positives * n_negative + true_negatives * n_positive
    if method == "min_gap":
        return np.asarray(-np.abs(true_positives * n_negative - true_negatives * n_positive))
    if method == "g_means":
        return true_positives * true_negatives
    # Rounded to the nearest float, so equal ratios are equal; different ones stay apart up to 2^25 samples.
    return np.asarray(true_positives / (true_positives + n_positive + n_negative - true_negatives))


def fit_threshold(
    table: pd.DataFrame,
    score_column: str = "score",
    *,
    positive_label: int = 1,
    split: str = "val",
    method: ThresholdMethod = "youden",
    target: float | None = None,
) -> tuple[float, str]:
    """Choose one threshold for everyone on one part of a predictions table.

    Args:
        table: columns ``split``, ``label`` and ``score_column``.
        score_column: the score of ``positive_label``.
        positive_label: the class that counts as positive.
        split: the part to fit on; the test part is refused.
        method: see :func:`find_threshold`.
        target: sensitivity or specificity to reach, for these two methods.

    Returns:
        The threshold and an empty reason, or NaN and the reason why there is none.

    Raises:
        MonaiFairError: if asked to fit on the test part, or method and target do not fit.
    """
    refuse_test(split)
    raise_problems(MonaiFairError, "threshold", method_problems(method, target))
    part = table[table["split"] == split]
    rows = checked_scores(part["label"] == positive_label, part[score_column])
    return threshold_of_part(*rows, method, target, split=split)


def threshold_of_part(
    positive: BoolArray, value: FloatArray, method: ThresholdMethod, target: float | None, *, split: str
) -> tuple[float, str]:
    """Return what :func:`search_threshold` does, with a reason that names the part the rows are from."""
    if not positive.size:
        return math.nan, f"no rows with split '{split}' to choose a threshold on"
    threshold, reason = search_threshold(positive, value, method, target)
    return threshold, reason and f"the rows with split '{split}' {reason}"


@dataclass(frozen=True)
class GroupThreshold:
    """The threshold of one group.

    Attributes:
        name: for people.
        levels: the group's value of each attribute.
        n_positive: positives it was fitted on.
        n_negative: negatives it was fitted on.
        own: the threshold from the group's rows alone; NaN where there is none.
        towards: the threshold it is drawn towards: the pooled one, or the group's shifted one.
        weight: of ``own``, in [0, 1]; see :func:`shrink_threshold`.
        threshold: the one to use; NaN where ``own`` and ``towards`` leave it undefined.
        reason: why there is no ``own``, why it has no weight, or why there is no ``threshold``; else empty.
    """

    name: str
    levels: tuple[str, ...]
    n_positive: int
    n_negative: int
    own: float
    towards: float
    weight: float
    threshold: float
    reason: str


def shrink_threshold(
    own: float, towards: float, n_positive: int, n_negative: int, *, min_count: int = 10, shrinkage: float = 10.0
) -> tuple[float, float]:
    """Draw a group's own threshold towards another, such as the pooled one, the more the fewer cases it has.

    With ``m = min(n_positive, n_negative)`` the weight is ``w = m / (m + shrinkage)``, or 0 where ``m`` is below
    ``min_count`` or there is no own threshold, and the threshold is ``w own + (1 - w) towards``. It lies between the
    two, and ``w`` never falls as either class grows.

    The fewer class decides because each side of the ROC curve is as uncertain as its own class is small. The
    defaults are a convention, not an estimate: at ``m`` = 10 both thresholds weigh the same, at 90 the own one
    weighs 0.9. A sensitivity or specificity that the own threshold reaches, one drawn away from it may miss.

    Args:
        own: NaN where there is none.
        towards: NaN where there is none.
        n_positive: positives of the group.
        n_negative: negatives of the group.
        min_count: see above, at least 1.
        shrinkage: see above, at least 0; 0 keeps the own threshold as it is.

    Returns:
        ``w`` and the threshold; the threshold is NaN where one that has weight is NaN.
    """
    fewer = min(n_positive, n_negative)
    if fewer < min_count or math.isnan(own):
        return 0.0, towards
    if shrinkage == 0:
        return 1.0, own
    weight = fewer / (fewer + shrinkage)
    threshold = weight * own + (1 - weight) * towards
    # A rounding past both would turn the cases at a shared threshold negative.
    return weight, float(np.clip(threshold, min(own, towards), max(own, towards)))


def refuse_test(split: str) -> None:
    """Raise ``MonaiFairError`` if ``split`` is the test part."""
    if split == "test":
        raise MonaiFairError(
            "threshold: expected a split other than 'test' to fit on, got 'test'; a threshold fitted on the "
            "cases it is judged on looks better than it is, use 'val'"
        )
