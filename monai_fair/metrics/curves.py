"""Curves on a common grid from 0 to 1, so that curves of seeds and resamples can be averaged and banded."""

from typing import Any

import numpy as np

from monai_fair.metrics.arrays import FloatArray, IntArray
from monai_fair.metrics.calibration import ECE_BINS, ece_bins
from monai_fair.metrics.intervals import wilson_interval

# The floats nearest to 0.01, 0.02, ...; some of linspace(0, 1, 101) are above, and a score of 0.35 would miss its own.
CURVE_GRID: FloatArray = np.arange(101) / 100
Record = dict[str, Any]


def roc_on_grid(counts: FloatArray) -> FloatArray:
    """Return the true positive rate at each false positive rate of ``CURVE_GRID``.

    Between two thresholds the curve is a straight line; where it rises at one false positive rate, the top counts.

    Args:
        counts: score counts, shape ``(..., 2, K)``; see :mod:`monai_fair.metrics.ranking`.

    Returns:
        TPR in [0, 1], shape ``(..., 101)``; NaN without both classes.
    """
    counts, leading = counts.reshape(-1, *counts.shape[-2:]), counts.shape[:-2]
    fpr, tpr = (_from_the_top(counts[:, label, :]) for label in (0, 1))
    at = _rowwise(fpr, CURVE_GRID, side="right") - 1
    after = np.minimum(at + 1, fpr.shape[1] - 1)
    x0, x1 = (np.take_along_axis(fpr, index, axis=1) for index in (at, after))
    y0, y1 = (np.take_along_axis(tpr, index, axis=1) for index in (at, after))
    share = np.where(x1 > x0, (CURVE_GRID - x0) / np.where(x1 > x0, x1 - x0, 1), 0)
    return _where_both(counts, y0 + share * (y1 - y0)).reshape(*leading, CURVE_GRID.size)


def precision_on_grid(counts: FloatArray) -> FloatArray:
    """Return the precision at each recall of ``CURVE_GRID``: at the highest threshold that reaches the recall.

    Args:
        counts: score counts, shape ``(..., 2, K)``.

    Returns:
        Precision in [0, 1], shape ``(..., 101)``; NaN without both classes.
    """
    counts, leading = counts.reshape(-1, *counts.shape[-2:]), counts.shape[:-2]
    recall = _from_the_top(counts[:, 1, :])[:, 1:]
    hits = counts[:, 1, ::-1].cumsum(axis=-1)
    predicted = counts.sum(axis=1)[:, ::-1].cumsum(axis=-1)
    precision = hits / np.where(predicted > 0, predicted, 1)
    # A recall is a ratio of counts and may miss the grid's by a rounding.
    at = np.minimum(_rowwise(recall, CURVE_GRID - 1e-12, side="left"), recall.shape[1] - 1)
    # Bins that a group has no sample in are no thresholds of it.
    first = _rowwise(predicted / np.where(predicted[:, -1:] > 0, predicted[:, -1:], 1), np.zeros(1), side="right")
    at = np.maximum(at, np.minimum(first, recall.shape[1] - 1))
    return _where_both(counts, np.take_along_axis(precision, at, axis=1)).reshape(*leading, CURVE_GRID.size)


def shares_above(counts: FloatArray, scores: FloatArray) -> FloatArray:
    """Return the share of each class with a score of at least each threshold of ``CURVE_GRID``.

    Args:
        counts: score counts of one group, shape ``(2, K)``.
        scores: shape ``(K,)``, ascending.

    Returns:
        FPR and TPR, shape ``(2, 101)``; NaN for a class without samples.
    """
    above = np.concatenate([counts[:, ::-1].cumsum(axis=-1)[:, ::-1], np.zeros((2, 1))], axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(above[:, np.searchsorted(scores, CURVE_GRID, side="left")] / above[:, :1])


def calibration_bins(counts: FloatArray, scores: FloatArray) -> FloatArray:
    """Return cases, sum of scores, and positives of each tenth of the scores.

    Args:
        counts: score counts of one group, shape ``(2, K)``.
        scores: shape ``(K,)``.

    Returns:
        Shape ``(3, 10)``.
    """
    bins, total = ece_bins(scores), counts.sum(axis=0)
    return np.stack([np.bincount(bins, weight, minlength=ECE_BINS) for weight in (total, total * scores, counts[1])])


def calibration_records(bins: FloatArray, worth: float, *, confidence: float) -> list[Record]:
    """Return the non-empty tenths of the scores with the share of positives and its Wilson interval.

    Args:
        bins: of :func:`calibration_bins`, mean over seeds.
        worth: independent cases per case; below 1 where subjects have several images.
        confidence: of the intervals.
    """
    records = []
    for index in np.flatnonzero(bins[0] > 0):
        n, score_sum, positives = bins[:, index]
        low, high = wilson_interval(min(positives / n, 1.0) * n * worth, n * worth, confidence=confidence)
        records.append(
            {
                "from": index / ECE_BINS,
                "to": (index + 1) / ECE_BINS,
                "n": float(n),
                "mean_score": float(score_sum / n),
                "observed": float(positives / n),
                "low": float(low),
                "high": float(high),
            }
        )
    return records


def band(value: FloatArray, low: FloatArray, high: FloatArray) -> Record:
    """Return a curve with its band, cut to [0, 1]."""
    return {
        "value": value.tolist(),
        "low": np.clip(low, 0, 1).tolist(),
        "high": np.clip(high, 0, 1).tolist(),
    }


def _from_the_top(counts: FloatArray) -> FloatArray:
    """Share of the class above each threshold from infinity down, shape ``(G, K + 1)``."""
    cumulative = counts[:, ::-1].cumsum(axis=-1)
    total = np.where(cumulative[:, -1:] > 0, cumulative[:, -1:], 1)
    return np.concatenate([np.zeros((len(counts), 1)), cumulative / total], axis=1)


def _rowwise(rows: FloatArray, values: FloatArray, *, side: Any) -> IntArray:
    """``np.searchsorted`` of the same values in each ascending row of numbers in [0, 1], in one search."""
    offset = 2.0 * np.arange(len(rows))[:, None]
    found = np.searchsorted((rows + offset).ravel(), (values + offset).ravel(), side=side)
    return np.asarray(found.reshape(len(rows), -1) - np.arange(len(rows))[:, None] * rows.shape[1])


def _where_both(counts: FloatArray, curve: FloatArray) -> FloatArray:
    both = (counts.sum(axis=-1) > 0).all(axis=-1)
    return np.where(both[:, None], curve, np.nan)
