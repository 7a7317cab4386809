"""Kinds of samples: what one seed of a run tells apart, so that a resample or a shuffle is a count of kinds.

A kind is a bin of scores together with the predictions under every threshold. Up to ``MAX_BINS`` distinct scores each
is a bin of its own and counts are exact. Beyond, bins hold neighbouring scores, half of them cut at quantiles of the
positives and half at quantiles of the negatives; scores inside a bin count as tied. Values of an audit never come
from bins, only the spread of resamples and shuffles around them does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit, logit

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.calibration import ECE_BINS
from monai_fair.metrics.definitions import METRICS

MAX_BINS = 256
# Logistic fits need no finer bins than this, and are the dearest of all metrics.
_MAX_FIT_BINS = 64
_FITTED = ("calibration_intercept", "calibration_slope")


@dataclass(frozen=True)
class Kinds:
    """The kinds of one seed's samples.

    Attributes:
        index: kind of each sample, shape ``(N,)``; kinds ascend with the score.
        starts: first kind of each of K bins, shape ``(K,)``.
        scores: mean score of each bin, shape ``(K,)``, ascending.
        predicted: whether a kind is predicted positive, by rule, shape ``(R, T)`` for T kinds.
    """

    index: IntArray
    starts: IntArray
    scores: FloatArray
    predicted: BoolArray

    @property
    def count(self) -> int:
        """Number of kinds T."""
        return int(self.predicted.shape[1])

    def score_counts(self, counts: FloatArray) -> FloatArray:
        """Add up counts of kinds ``(..., 2, T)`` into score counts ``(..., 2, K)``."""
        return counts if self.starts.size == self.count else np.add.reduceat(counts, self.starts, axis=-1)

    @cached_property
    def fit_bins(self) -> tuple[IntArray, FloatArray]:
        """First bin of each of at most 64 wider bins for logistic fits, and their scores (mean on the logit scale)."""
        size = self.scores.size
        starts = np.unique(np.linspace(0, size, min(size, _MAX_FIT_BINS) + 1)[:-1].astype(np.int64))
        if starts.size == size:
            return starts, self.scores
        logits = logit(np.clip(self.scores, 1e-6, 1 - 1e-6))
        return starts, expit(np.add.reduceat(logits, starts) / np.diff(starts, append=size))

    def confusion_counts(self, counts: FloatArray, rule: int) -> FloatArray:
        """Add up counts of kinds ``(..., 2, T)`` into counts of truth and prediction ``(..., 2, 2)``."""
        both = np.stack([~self.predicted[rule], self.predicted[rule]], axis=-1).astype(np.float64)
        return np.asarray(counts @ both)


def kinds_of(y: BoolArray, score: FloatArray, predictions: BoolArray, *, max_bins: int = MAX_BINS) -> Kinds:
    """Sort samples into kinds.

    Args:
        y: True for positive, shape ``(N,)``.
        score: in [0, 1], shape ``(N,)``.
        predictions: whether each sample is predicted positive, by rule, shape ``(R, N)``.
        max_bins: number of distinct scores up to which each has its own bin.

    Returns:
        The kinds.
    """
    bins, means = _bins(y, score, max_bins)
    code = bins
    for row in predictions:
        code = 2 * code + row
    distinct, index = np.unique(code, return_inverse=True)
    of_bin = distinct >> len(predictions)
    bits = np.arange(len(predictions))[::-1]
    predicted = (distinct >> bits[:, None] & 1).astype(np.bool_)
    return Kinds(index.astype(np.int64), np.flatnonzero(np.diff(of_bin, prepend=-1)), means, predicted)


def _bins(y: BoolArray, score: FloatArray, max_bins: int) -> tuple[IntArray, FloatArray]:
    """Bin of each sample, and the mean score of each bin."""
    distinct, inverse = np.unique(score, return_inverse=True)
    if distinct.size <= max_bins:
        return inverse.astype(np.int64), distinct
    half = np.linspace(0, 1, max_bins // 2 + 1)[1:-1]
    cuts = [np.quantile(part, half, method="higher") for part in (score[y], score[~y]) if part.size]
    # A score on an edge of the calibration error's bins belongs to the lower one.
    cuts.append(np.nextafter(np.linspace(0, 1, ECE_BINS + 1)[1:-1], 2.0))
    bins = np.searchsorted(np.unique(np.concatenate(cuts)), score, side="right")
    bins = np.unique(bins, return_inverse=True)[1]
    return bins.astype(np.int64), np.bincount(bins, score) / np.bincount(bins)


def values_of(kinds: Kinds, counts: FloatArray, quantities: Sequence[tuple[str, int | None]]) -> FloatArray:
    """Return quantities of every group from counts of kinds.

    Args:
        kinds: of one seed.
        counts: shape ``(..., G, 2, T)``.
        quantities: key of a metric and index of the rule; None for a metric of scores.

    Returns:
        Values, shape ``(..., Q, G)``; NaN where undefined.
    """
    by_score = kinds.score_counts(counts)
    rules = {rule for _, rule in quantities if rule is not None}
    confusion = {rule: kinds.confusion_counts(counts, rule) for rule in rules}
    starts, fit_scores = kinds.fit_bins
    for_fits = by_score if starts.size == kinds.scores.size else np.add.reduceat(by_score, starts, axis=-1)
    values = np.empty((*counts.shape[:-3], len(quantities), counts.shape[-3]))
    for row, (key, rule) in enumerate(quantities):
        metric = METRICS[key]
        if metric.of_predictions is not None and rule is not None:
            values[..., row, :] = metric.of_predictions(confusion[rule])
        elif metric.of_scores is not None:
            fitted = key in _FITTED
            values[..., row, :] = metric.of_scores(
                for_fits if fitted else by_score, fit_scores if fitted else kinds.scores
            )
    return values
