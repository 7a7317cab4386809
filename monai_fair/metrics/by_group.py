"""Exact values of any metric in every group, from samples."""

from collections.abc import Iterator

import numpy as np

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.definitions import METRICS
from monai_fair.metrics.rates import confusion_counts


def group_values(
    name: str,
    y: BoolArray,
    score: FloatArray,
    group: IntArray,
    num_groups: int,
    *,
    threshold: float | FloatArray = 0.5,
    sample_weight: FloatArray | None = None,
) -> FloatArray:
    """Return a metric of every group.

    Args:
        name: a key of ``METRICS``.
        y: True for positive, shape ``(N,)``.
        score: in [0, 1], shape ``(N,)``.
        group: index from 0 to ``num_groups - 1``, or -1 for a sample of no group, shape ``(N,)``.
        num_groups: number of groups ``G``.
        threshold: ``score >= threshold`` is predicted positive; one, or one per sample.
        sample_weight: non-negative weight of each sample, shape ``(N,)``; each counts once by default.

    Returns:
        Values, shape ``(G,)``; NaN where undefined.

    Raises:
        ValueError: if the metric is unknown, or the shapes differ.
    """
    metric = METRICS.get(name)
    if metric is None:
        raise ValueError(f"metric: expected one of {', '.join(METRICS)}, got '{name}'")
    if metric.of_predictions is not None:
        counted = confusion_counts(y, score >= threshold, group, num_groups, sample_weight)
        return metric.of_predictions(counted)
    values = np.full(num_groups, np.nan)
    for index, counts, scores in score_counts(y, score, group, num_groups, sample_weight):
        assert metric.of_scores is not None
        values[index] = metric.of_scores(counts, scores)
    return values


def score_counts(
    y: BoolArray, score: FloatArray, group: IntArray, num_groups: int, sample_weight: FloatArray | None = None
) -> Iterator[tuple[int, FloatArray, FloatArray]]:
    """Yield each group that has samples, with its own distinct scores; all groups share one sort.

    Args:
        y: True for positive, shape ``(N,)``.
        score: shape ``(N,)``.
        group: index from 0 to ``num_groups - 1``, or -1 for a sample of no group, shape ``(N,)``.
        num_groups: number of groups.
        sample_weight: weight of each sample, shape ``(N,)``.

    Yields:
        Index of the group, its score counts ``(2, K)``, and its scores ``(K,)``, ascending.

    Raises:
        ValueError: if the shapes differ.
    """
    if not y.shape == score.shape == group.shape:
        raise ValueError(f"expected y, score and group of one shape, got {y.shape}, {score.shape} and {group.shape}")
    by_score = np.argsort(score, kind="stable")
    codes = group[by_score]
    # Small integers are sorted by counting, and stably, so scores stay in order inside each group.
    rows = by_score[np.argsort(codes.astype(np.min_scalar_type(max(num_groups, 1))), kind="stable")]
    sizes = np.bincount(codes[codes >= 0], minlength=num_groups)
    weight = np.ones(y.size) if sample_weight is None else sample_weight
    # -1 became the largest code, so samples of no group stand behind all others.
    for index, end in enumerate(sizes.cumsum()):
        inside = rows[end - sizes[index] : end]
        if not inside.size:
            continue
        ordered = score[inside]
        starts = np.flatnonzero(np.diff(ordered, prepend=np.nan) != 0)
        split = np.stack([np.where(y[inside], 0.0, weight[inside]), np.where(y[inside], weight[inside], 0.0)])
        yield index, np.add.reduceat(split, starts, axis=-1), ordered[starts]
