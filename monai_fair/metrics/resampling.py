"""Intervals by resampling subjects, for every quantity, group, run and seed at once.

Each resample gives every subject a random weight with an exponential distribution (the Bayesian bootstrap). All images
of a subject get its weight, so they move together; no weight is zero, so no group vanishes. The same weights serve all
runs and seeds, so differences between runs are paired.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import expit, logit
from scipy.stats import norm, t

from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.intervals import student_interval
from monai_fair.metrics.kinds import Kinds
from monai_fair.metrics.samples import Samples
from monai_fair.metrics.workers import in_chunks


def weighing(samples: Samples, kinds: Kinds) -> sparse.csr_array:
    """Return the matrix that turns weights of subjects into counts of kinds.

    Args:
        samples: in canonical order.
        kinds: of one seed, in the same order.

    Returns:
        Shape ``(C x 2 x T, number of subjects)``.
    """
    row = (samples.cell * 2 + samples.y) * kinds.count + kinds.index
    shape = (samples.num_cells * 2 * kinds.count, samples.num_subjects)
    ones = np.ones(row.size, dtype=np.float32)
    return sparse.csr_array((ones, (row.astype(np.int32), samples.subject.astype(np.int32))), shape=shape)


def resample(
    samples: Samples,
    kinds: Sequence[Kinds],
    measure: Callable[[Sequence[FloatArray]], Sequence[FloatArray]],
    *,
    resamples: int,
    seed: int,
) -> list[FloatArray]:
    """Measure quantities on resamples of subjects.

    Args:
        samples: in canonical order.
        kinds: of every run and seed, in the same order.
        measure: gets the counts of kinds of all groups in some resamples ``(b, G, 2, T)``, one array per element of
            ``kinds``, and returns any number of arrays with a first axis of length b.
        resamples: number of resamples ``B``.
        seed: seed of the weights.

    Returns:
        What ``measure`` returned, each array with a first axis of length ``B``.

    References:
        Rubin, The Bayesian bootstrap, Annals of Statistics 1981.
    """
    matrices = [weighing(samples, kind) for kind in kinds]
    most = samples.block(max(kind.count for kind in kinds))

    def work(size: int, generator: np.random.Generator) -> list[FloatArray]:
        found = []
        for start in range(0, size, most):
            block = min(most, size - start)
            # Drawn per resample, so that the number of resamples at once does not change them.
            weights = np.empty((samples.num_subjects, block), dtype=np.float32)
            for column in range(block):
                weights[:, column] = generator.standard_exponential(samples.num_subjects, dtype=np.float32)
            found.append(
                measure([kind_counts(samples, kind, m @ weights) for kind, m in zip(kinds, matrices, strict=True)])
            )
        return [np.concatenate(arrays) for arrays in zip(*found, strict=True)]

    return [
        np.concatenate(parts)
        for parts in zip(*in_chunks(resamples, seed, work, label="resamples of subjects"), strict=True)
    ]


def kind_counts(samples: Samples, kinds: Kinds, of_cells: FloatArray) -> FloatArray:
    """Turn weighed counts ``(C x 2 x T, B)`` into counts of kinds of every group, ``(B, G, 2, T)``."""
    return samples.group_counts(np.asarray(of_cells).reshape(samples.num_cells, 2, kinds.count, -1))


def resampled_interval(
    value: FloatArray, centre: FloatArray, resampled: FloatArray, num_subjects: npt.ArrayLike, *, confidence: float
) -> tuple[FloatArray, FloatArray]:
    """Return the bias-corrected, expanded percentile interval.

    Percentiles of resamples are too narrow for few subjects and off centre for a biased quantity. The first is
    mended by taking more extreme percentiles, those of Student's t instead of the normal distribution with the factor
    sqrt(m / (m - 1)) for m subjects; the second by shifting them by the share of resamples below the observed value.

    Args:
        value: the quantity, any shape.
        centre: the quantity as computed from kinds, same shape; it differs from ``value`` where scores were binned.
        resampled: shape ``(B, ...)``; NaN where a resample leaves it undefined.
        num_subjects: subjects m behind the quantity: for one of two classes those of the smaller class, same shape.
        confidence: probability in (0, 1).

    Returns:
        Lower and upper ends; NaN with fewer than two subjects or where ``value`` is undefined.

    References:
        Efron, Better bootstrap confidence intervals, JASA 1987 (bias correction); Hesterberg, What teachers should
        know about the bootstrap, The American Statistician 2015, sec. 4.5 (expanded percentiles).
    """
    count = np.asarray(num_subjects, dtype=np.float64)
    m = np.where(count >= 2, count, np.nan)
    half = widening(m) * t.ppf(0.5 + confidence / 2, m - 1)
    below = (resampled < centre).mean(axis=0) / 2 + (resampled <= centre).mean(axis=0) / 2
    edge = 1 / (2 * len(resampled))
    shift = 2 * norm.ppf(np.clip(below, edge, 1 - edge))
    ends = [value + _quantile(resampled, norm.cdf(shift + side * half)) - centre for side in (-1, 1)]
    return ends[0], ends[1]


def resampled_logit_interval(
    value: FloatArray, resampled: FloatArray, num_subjects: npt.ArrayLike, *, confidence: float
) -> tuple[FloatArray, FloatArray]:
    """Return the interval that is symmetric on the logit scale, with Student's t and the spread of resampled logits.

    For shares such as average precision and F1, whose resamples spread a little too little.

    Args:
        value: the quantity in [0, 1], any shape; undefined at exactly 0 and 1.
        resampled: shape ``(B, ...)``; NaN where a resample leaves it undefined.
        num_subjects: as in :func:`resampled_interval`.
        confidence: probability in (0, 1).

    Returns:
        Lower and upper ends.

    References:
        Boyd, Eng and Page, Area under the precision-recall curve: point estimates and confidence intervals, ECML PKDD
        2013 (logit intervals for average precision).
    """
    count = np.asarray(num_subjects, dtype=np.float64)
    inside = np.where((value > 0) & (value < 1), value, np.nan)
    logits = np.ma.masked_invalid(logit(np.clip(resampled, 1e-4, 1 - 1e-4)))
    spread = widening(count) * np.ma.filled(logits.std(axis=0), np.nan)
    low, high = student_interval(logit(inside), spread, count - 1, confidence=confidence)
    return expit(low), expit(high)


def widening(num_subjects: FloatArray) -> FloatArray:
    """Return sqrt(m / (m - 1)), by which the spread of resamples of m subjects is too small; NaN below 2."""
    m = np.where(num_subjects >= 2, num_subjects, np.nan)
    return np.asarray(np.sqrt(m / (m - 1)))


def range_margin(ranges: FloatArray, num_subjects: float, *, confidence: float) -> FloatArray:
    """Return how far the gap between groups may lie from the observed one.

    A gap cannot move by more than the range (largest minus smallest) of the errors of its groups. The margin is the
    quantile of that range over resamples, widened as in :func:`resampled_interval` for few subjects. Unlike
    percentiles of resampled gaps, which are too large where groups hardly differ, it holds at any true gap; for many
    groups it is wider than it need be.

    Args:
        ranges: range over groups of resampled minus observed value, shape ``(B, ...)``; NaN is left out.
        num_subjects: subjects of the smaller class in the smallest group that takes part.
        confidence: probability in (0, 1).

    Returns:
        Margins, shape ``(...)``; NaN with fewer than two subjects.
    """
    if not num_subjects >= 2:
        return np.full(ranges.shape[1:], np.nan)
    tail = 0.5 + confidence / 2
    factor = widening(np.array(num_subjects)) * t.ppf(tail, num_subjects - 1) / norm.ppf(tail)
    return np.asarray(factor * _quantile(ranges, np.full(ranges.shape[1:], confidence)))


def _quantile(resampled: FloatArray, probability: FloatArray) -> FloatArray:
    """One quantile per column, at its own probability; NaN values of a column are left out."""
    ordered = np.sort(resampled, axis=0)  # NaN last
    defined = (~np.isnan(resampled)).sum(axis=0)
    position = np.nan_to_num(probability) * np.maximum(defined - 1, 0)
    lower = np.floor(position).astype(np.int64)
    upper = np.minimum(lower + 1, np.maximum(defined - 1, 0))
    low, high = (np.take_along_axis(ordered, index[None], axis=0)[0] for index in (lower, upper))
    return np.asarray(np.where(np.isnan(probability) | (defined < 2), np.nan, low + (position - lower) * (high - low)))
