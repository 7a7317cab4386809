"""True and false positive rates and their relatives, for every group at once from one count."""

from typing import Literal

import numpy as np

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray

RateName = Literal["tpr", "fpr", "tnr", "ppv"]

# Of the samples counted below the line, the share that is also above it; indices are (y, y_pred).
_ABOVE: dict[RateName, tuple[int, int]] = {"tpr": (1, 1), "fpr": (0, 1), "tnr": (0, 0), "ppv": (1, 1)}
RATE_NAMES: tuple[RateName, ...] = tuple(_ABOVE)


def confusion_counts(y: BoolArray, y_pred: BoolArray, group: IntArray, num_groups: int) -> IntArray:
    """Count samples by group, truth and prediction.

    Args:
        y: True for positive, shape ``(N,)``.
        y_pred: True for predicted positive, shape ``(N,)``.
        group: index from 0 to ``num_groups - 1``, or -1 for a sample of no group, shape ``(N,)``.
        num_groups: number of groups ``G``.

    Returns:
        Counts of shape ``(G, 2, 2)``, indexed ``[group, y, y_pred]``.

    Raises:
        ValueError: if the shapes differ.
    """
    if not y.shape == y_pred.shape == group.shape:
        raise ValueError(f"expected y, y_pred and group of one shape, got {y.shape}, {y_pred.shape} and {group.shape}")
    cell = (4 * group + 2 * y + y_pred)[group >= 0]
    return np.bincount(cell, minlength=4 * num_groups).reshape(num_groups, 2, 2)


def rate_parts(name: RateName, counts: IntArray) -> tuple[IntArray, IntArray]:
    """Return what a rate counts above and below the line.

    ``tpr``: predicted positive among positives (sensitivity). ``fpr``: predicted positive among negatives.
    ``tnr``: predicted negative among negatives (specificity). ``ppv``: positives among predicted positives.

    Args:
        name: which rate.
        counts: shape ``(..., 2, 2)``, indexed ``[y, y_pred]``.

    Returns:
        Successes and trials, each of shape ``(...)``.
    """
    truth, prediction = _ABOVE[name]
    below = counts[..., prediction] if name == "ppv" else counts[..., truth, :]
    return counts[..., truth, prediction], below.sum(axis=-1)


def rate(name: RateName, counts: IntArray) -> FloatArray:
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
