"""Samples of one subject within a group: they are one draw from the population, not several."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import norm, t

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Clusters:
    """The subjects of every group.

    Attributes:
        index: cluster of each sample, shape ``(N,)``.
        group: group of each cluster, shape ``(M,)``; -1 for one of no group.
        num_groups: number of groups G.
        single: whether every cluster is one sample.
    """

    index: IntArray
    group: IntArray
    num_groups: int
    single: bool

    def sums(self, value: FloatArray) -> FloatArray:
        """Add up a value per sample ``(N,)`` within every cluster, shape ``(M,)``."""
        summed = value if self.single else np.bincount(self.index, value, minlength=self.group.size)
        return np.asarray(summed, dtype=np.float64)

    @cached_property
    def _places(self) -> IntArray:
        # Clusters of no group are counted in a group of their own behind the others.
        return np.where(self.group < 0, self.num_groups, self.group)

    def total(self, value: FloatArray) -> FloatArray:
        """Add up a value per cluster ``(M,)`` within every group, shape ``(G,)``."""
        summed = np.bincount(self._places, value, minlength=self.num_groups + 1)
        return np.asarray(summed[: self.num_groups], dtype=np.float64)

    def count(self, chosen: BoolArray) -> IntArray:
        """Count clusters with a chosen sample, by group; ``chosen`` has shape ``(N,)``, the result ``(G,)``."""
        return self.total((self.sums(chosen.astype(np.float64)) > 0).astype(np.float64)).astype(np.int64)


def clusters_of(group: IntArray, num_groups: int, subject: IntArray | None) -> Clusters:
    """Find the subjects of every group.

    Args:
        group: index from 0 to ``num_groups - 1``, or -1 for a sample of no group, shape ``(N,)``.
        num_groups: number of groups.
        subject: index of each sample's subject, shape ``(N,)``; None if every sample is a subject of its own.

    Returns:
        The clusters.
    """
    if subject is None or not subject.size or np.bincount(subject).max() == 1:
        return Clusters(np.arange(group.size), group, num_groups, single=True)
    key = (group + 1) * (int(subject.max()) + 1) + subject
    distinct, index = np.unique(key, return_inverse=True)
    return Clusters(index.astype(np.int64), distinct // (int(subject.max()) + 1) - 1, num_groups, single=False)


def effective_trials(hits: FloatArray, trials: FloatArray, group: IntArray, clusters: Clusters) -> FloatArray:
    """Return how many independent trials the clustered trials of a rate are worth, by group.

    The design effect is the variance of the rate with subjects as clusters, by linearization, over that of
    independent trials; it is taken as at least 1. Twice the same images have a design effect of 2, so that
    they are worth what they are once. Where the rate is 0 or 1 the variance says nothing, and every subject is
    worth one trial.

    Args:
        hits: 1 for a success, shape ``(N,)``.
        trials: 1 for a trial, shape ``(N,)``.
        group: index of each sample's group or -1, shape ``(N,)``.
        clusters: of the same groups.

    Returns:
        Effective trials, shape ``(G,)``; NaN without a trial.

    References:
        Kish, Survey Sampling, 1965; Korn and Graubard, Confidence intervals for proportions with small expected
        number of positive counts estimated from survey data, Survey Methodology 1998.
    """
    total = clusters.total(clusters.sums(trials))
    if clusters.single:
        return np.where(total > 0, total, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = clusters.total(clusters.sums(hits)) / total
        residual = hits - np.append(rate, 0.0)[group] * trials
        effect = clusters.total(clusters.sums(residual) ** 2) / (total * rate * (1 - rate))
    subjects = clusters.count(trials > 0)
    worth = np.where((rate > 0) & (rate < 1), total / np.maximum(effect, 1.0), subjects)
    return np.where(total > 0, worth, np.nan)


def few_subjects_share(subjects: IntArray, *, confidence: float) -> FloatArray:
    """Return the share of effective trials to keep because their design effect comes from few subjects.

    The squared ratio of the normal's to Student's quantile, with one degree of freedom less than subjects.

    Args:
        subjects: with a trial, any shape.
        confidence: of the interval the trials are for.

    Returns:
        Values in (0, 1), same shape.

    References:
        Korn and Graubard, Survey Methodology 1998.
    """
    tail = 0.5 + confidence / 2
    return np.asarray((norm.ppf(tail) / t.ppf(tail, np.maximum(subjects - 1, 1))) ** 2)
