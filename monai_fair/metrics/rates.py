"""Rates and their relatives from counts of truth and prediction, for every group at once.

Counts have shape ``(..., 2, 2)``, indexed ``[y, y_pred]``; they may be sums of sample weights.
"""

from typing import Literal

import numpy as np

from monai_fair.metrics.arrays import BoolArray, CountArray, FloatArray, IntArray

RateName = Literal["tpr", "fpr", "tnr", "ppv", "npv", "accuracy", "selection_rate"]

# Which of the counts [[TN, FP], [FN, TP]] stand above the line, and which below it.
_PARTS: dict[RateName, tuple[list[list[int]], list[list[int]]]] = {
    "tpr": ([[0, 0], [0, 1]], [[0, 0], [1, 1]]),
    "fpr": ([[0, 1], [0, 0]], [[1, 1], [0, 0]]),
    "tnr": ([[1, 0], [0, 0]], [[1, 1], [0, 0]]),
    "ppv": ([[0, 0], [0, 1]], [[0, 1], [0, 1]]),
    "npv": ([[1, 0], [0, 0]], [[1, 0], [1, 0]]),
    "accuracy": ([[1, 0], [0, 1]], [[1, 1], [1, 1]]),
    "selection_rate": ([[0, 1], [0, 1]], [[1, 1], [1, 1]]),
}
RATE_NAMES: tuple[RateName, ...] = tuple(_PARTS)


def confusion_counts(
    y: BoolArray, y_pred: BoolArray, group: IntArray, num_groups: int, sample_weight: FloatArray | None = None
) -> CountArray:
    """Count samples by group, truth and prediction.

    Args:
        y: True for positive, shape ``(N,)``.
        y_pred: True for predicted positive, shape ``(N,)``.
        group: index from 0 to ``num_groups - 1``, or -1 for a sample of no group, shape ``(N,)``.
        num_groups: number of groups ``G``.
        sample_weight: weight of each sample, shape ``(N,)``; each counts once by default.

    Returns:
        Counts of shape ``(G, 2, 2)``, indexed ``[group, y, y_pred]``; whole numbers without weights.

    Raises:
        ValueError: if the shapes differ.
    """
    if not y.shape == y_pred.shape == group.shape:
        raise ValueError(f"expected y, y_pred and group of one shape, got {y.shape}, {y_pred.shape} and {group.shape}")
    inside = group >= 0
    cell = (4 * group + 2 * y + y_pred)[inside]
    weight = None if sample_weight is None else sample_weight[inside]
    return np.bincount(cell, weight, minlength=4 * num_groups).reshape(num_groups, 2, 2)


def rate_parts(name: RateName, counts: CountArray) -> tuple[CountArray, CountArray]:
    """Return what a rate counts above and below the line.

    ``tpr``: predicted positive among positives (sensitivity). ``fpr``: predicted positive among negatives.
    ``tnr``: predicted negative among negatives (specificity). ``ppv``: positives among predicted positives.
    ``npv``: negatives among predicted negatives. ``accuracy``: predicted right among all. ``selection_rate``:
    predicted positive among all.

    Args:
        name: which rate.
        counts: shape ``(..., 2, 2)``, indexed ``[y, y_pred]``.

    Returns:
        Successes and trials, each of shape ``(...)``.
    """
    above, below = (np.array(part, dtype=counts.dtype) for part in _PARTS[name])
    return (counts * above).sum(axis=(-2, -1)), (counts * below).sum(axis=(-2, -1))


def sample_parts(name: RateName, y: BoolArray, y_pred: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Return which samples a rate counts above and below the line; both of shape ``(N,)``."""
    above, below = (np.array(part, dtype=np.bool_) for part in _PARTS[name])
    cell = y.astype(np.int64), y_pred.astype(np.int64)
    return above[cell], below[cell]


def rate(name: RateName, counts: CountArray) -> FloatArray:
    """Return the rate ``name``: 0 means none, 1 means all of its trials; NaN without a trial, never 0.

    Args:
        name: which rate; see :func:`rate_parts`.
        counts: shape ``(..., 2, 2)``, indexed ``[y, y_pred]``.

    Returns:
        Values in [0, 1], shape ``(...)``.
    """
    successes, trials = rate_parts(name, counts)
    with np.errstate(invalid="ignore"):
        return np.asarray(successes / trials, dtype=np.float64)


def balanced_accuracy(counts: CountArray) -> FloatArray:
    """Return the mean of TPR and TNR: 0.5 for a coin, 1 when all are right; NaN without both classes.

    Args:
        counts: shape ``(..., 2, 2)``, indexed ``[y, y_pred]``.

    Returns:
        Values in [0, 1], shape ``(...)``.
    """
    return np.asarray((rate("tpr", counts) + rate("tnr", counts)) / 2)


def f1_score(counts: CountArray) -> FloatArray:
    """Return ``2 TP / (2 TP + FP + FN)``, the harmonic mean of TPR and PPV.

    0 when no positive is found, 1 when all are right; NaN where there is neither a positive nor a predicted
    positive.

    Args:
        counts: shape ``(..., 2, 2)``, indexed ``[y, y_pred]``.

    Returns:
        Values in [0, 1], shape ``(...)``.
    """
    twice = 2 * counts[..., 1, 1]
    with np.errstate(invalid="ignore"):
        return np.asarray(twice / (twice + counts[..., 0, 1] + counts[..., 1, 0]), dtype=np.float64)
