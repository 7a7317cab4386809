"""Area under the ROC curve of every group at once, with DeLong's variance and an interval on the logit.

One sort serves all groups: it gives each sample its *placement*, the share of the opposite class in its own
group that it is ranked correctly against. AUC and its variance are means and variances of placements.
"""

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import t

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.clusters import Clusters, clusters_of


def placements(y: BoolArray, score: FloatArray, group: IntArray) -> FloatArray:
    """Return for each sample the share of the opposite class in its group that it is ranked correctly against.

    A positive is ranked correctly against a negative of lower score, a negative against a positive of higher
    score; a tie counts half. NaN where the group has no sample of the opposite class.

    Args:
        y: True for positive, shape ``(N,)``.
        score: higher means more positive, shape ``(N,)``.
        group: index of each sample's group, shape ``(N,)``; any integers.

    Returns:
        Placements in [0, 1], shape ``(N,)``.

    Raises:
        ValueError: if the shapes differ.

    References:
        DeLong et al., Comparing the areas under two or more correlated receiver operating characteristic
        curves, Biometrics 1988, doi:10.2307/2531595: V10 for positives, V01 for negatives.
    """
    if not y.shape == score.shape == group.shape:
        raise ValueError(f"expected y, score and group of one shape, got {y.shape}, {score.shape} and {group.shape}")
    if not y.size:
        return np.zeros(0)
    order = np.lexsort((score, group))
    positive, sorted_score, sorted_group = y[order], score[order], group[order]
    new_group = np.flatnonzero(sorted_group[1:] != sorted_group[:-1]) + 1
    new_tie = np.flatnonzero((sorted_group[1:] != sorted_group[:-1]) | (sorted_score[1:] != sorted_score[:-1])) + 1

    positives = np.concatenate(([0], np.cumsum(positive)))
    negatives = np.arange(y.size + 1) - positives
    first, last = _runs(new_group, y.size)
    tie_first, tie_last = _runs(new_tie, y.size)
    with np.errstate(invalid="ignore"):
        below = (negatives[tie_first] + negatives[tie_last]) / 2 - negatives[first]
        above = positives[last] - (positives[tie_first] + positives[tie_last]) / 2
        share = np.where(
            positive,
            below / (negatives[last] - negatives[first]),
            above / (positives[last] - positives[first]),
        )
    result = np.empty(y.size)
    result[order] = share
    return result


def _runs(starts: IntArray, size: int) -> tuple[IntArray, IntArray]:
    """First and last + 1 index of the run that each element belongs to; runs begin at 0 and at ``starts``."""
    edges = np.concatenate(([0], starts, [size]))
    lengths = np.diff(edges)
    return np.repeat(edges[:-1], lengths), np.repeat(edges[1:], lengths)


def auc_by_group(
    y: BoolArray, placement: FloatArray, group: IntArray, num_groups: int, clusters: Clusters | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return AUC and DeLong's standard error of each group, with subjects as clusters if given.

    0.5 means that positives and negatives are ranked like coins, 1 that each positive is above each negative.
    AUC is NaN for a group without positives or without negatives; the error also with only one of either.
    Placements averaged over several scores of the same samples give the mean AUC and its error, with the
    correlation between the scores in it; differences of placements give the difference of two AUCs and its error
    (DeLong's paired comparison).

    Args:
        y: True for positive, shape ``(N,)``.
        placement: result of :func:`placements` for the same groups, shape ``(N,)``.
        group: index from 0 to ``num_groups - 1``, or -1 for a sample of no group, shape ``(N,)``.
        num_groups: number of groups ``G``.
        clusters: the subjects of the same groups; every sample is a subject of its own by default.

    Returns:
        AUC and standard error, each of shape ``(G,)``.

    References:
        DeLong et al., Biometrics 1988; with clusters Obuchowski, Nonparametric analysis of clustered ROC curve
        data, Biometrics 1997, doi:10.2307/2533958.
    """
    auc, parts, _ = _auc_parts(y, placement, group, clusters or clusters_of(group, num_groups, None))
    # Rounding may make the sum of a zero variance and its covariance negative.
    return auc, np.sqrt(np.maximum(parts.sum(axis=0), 0.0))


def auc_degrees(y: BoolArray, placement: FloatArray, group: IntArray, clusters: Clusters) -> FloatArray:
    """Return the degrees of freedom of DeLong's standard error in each group.

    Its two parts, from positives and from negatives, are estimated as variances of two means are in Welch's test.
    With 10 positives beside 90 negatives the normal distribution gives intervals that are too short.

    Args:
        y: True for positive, shape ``(N,)``.
        placement: as in :func:`auc_by_group`.
        group: index of each sample's group or -1, shape ``(N,)``.
        clusters: the subjects of the groups.

    Returns:
        Shape ``(G,)``; NaN where the standard error is undefined or 0.

    References:
        Welch, The generalization of 'Student's' problem when several different population variances are involved,
        Biometrika 1947.
    """
    _, parts, counts = _auc_parts(y, placement, group, clusters)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((parts[0] + parts[1]) ** 2 / (parts[:2] ** 2 / (counts - 1)).sum(axis=0))


def _auc_parts(
    y: BoolArray, placement: FloatArray, group: IntArray, clusters: Clusters
) -> tuple[FloatArray, FloatArray, IntArray]:
    """AUC; its variance from positives, from negatives and from their covariance; subjects with either class."""
    inside, num_groups = group >= 0, clusters.num_groups
    sizes = [np.bincount(group[inside & chosen], minlength=num_groups) for chosen in (y, ~y)]
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = np.bincount(group[inside & y], placement[inside & y], minlength=num_groups) / sizes[0]
        # A group without negatives has NaN placements of positives already; one without positives divides 0 by 0.
        deviation = placement - np.append(auc, np.nan)[group]
        sums = [
            clusters.sums(np.where(chosen & inside, deviation, 0.0)) / np.append(size, 1)[clusters.group]
            for chosen, size in zip((y, ~y), sizes, strict=True)
        ]
        counts = np.stack([clusters.count(chosen & inside) for chosen in (y, ~y)])
        parts = [_correction(count) * clusters.total(sum_**2) for count, sum_ in zip(counts, sums, strict=True)]
        both = _correction(clusters.count(inside)) if not clusters.single else np.zeros(num_groups)
        parts.append(2 * both * clusters.total(sums[0] * sums[1]))
    return auc, np.stack(parts), counts


def _correction(count: IntArray) -> FloatArray:
    return np.asarray(count / np.where(count > 1, count - 1, np.nan))


def logit_interval(
    auc: npt.ArrayLike,
    standard_error: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    degrees: npt.ArrayLike = np.inf,
) -> tuple[FloatArray, FloatArray]:
    """Return the interval of an AUC that is symmetric on the logit scale, so that it stays inside (0, 1).

    With 10 to 25 positives it covers 92 to 96 % where the plain DeLong interval covers 81 to 92 %. Undefined
    (NaN) for an AUC of exactly 0 or 1, where the estimated error is 0 and says nothing.

    Args:
        auc: any shape.
        standard_error: DeLong's standard error, same shape.
        confidence: probability in (0, 1).
        degrees: of freedom of the standard error, same shape; infinite for the normal distribution.

    Returns:
        Lower and upper ends.

    References:
        Pepe, The Statistical Evaluation of Medical Tests for Classification and Prediction, 2003, sec. 5.2.
    """
    area = np.asarray(auc, dtype=np.float64)
    inside = np.where((area > 0) & (area < 1), area, np.nan)
    half = t.ppf(0.5 + confidence / 2, degrees) * np.asarray(standard_error) / (inside * (1 - inside))
    return expit(logit(inside) - half), expit(logit(inside) + half)


def paired_auc_difference(
    y: BoolArray, first: FloatArray, later: FloatArray, group: IntArray, num_groups: int, clusters: Clusters
) -> tuple[FloatArray, FloatArray]:
    """Return how much larger the AUC of ``later`` is than that of ``first`` on the same samples, by group.

    Args:
        y: True for positive, shape ``(N,)``.
        first: scores of one run, shape ``(S, N)``; AUCs are means over the S seeds.
        later: scores of the other, for the same seeds.
        group: index from 0 to ``num_groups - 1``, or -1 for a sample of no group, shape ``(N,)``.
        num_groups: number of groups ``G``.
        clusters: the subjects of the same groups.

    Returns:
        Difference and its standard error, each of shape ``(G,)``.

    References:
        See :func:`auc_by_group`: the variance of a difference of AUCs is that of differences of placements.
    """
    placed = [np.mean([placements(y, score, group) for score in scores], axis=0) for scores in (first, later)]
    return auc_by_group(y, placed[1] - placed[0], group, num_groups, clusters)


def auc_interval(y: npt.ArrayLike, score: npt.ArrayLike, *, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return AUC and its logit-DeLong interval for one set of samples.

    Args:
        y: 0 or 1 per sample, shape ``(N,)``.
        score: higher means more positive, shape ``(N,)``.
        confidence: probability in (0, 1).

    Returns:
        AUC, lower and upper end; NaN where undefined.
    """
    positive, value = np.asarray(y).astype(np.bool_), np.asarray(score, dtype=np.float64)
    everyone = np.zeros(positive.shape, dtype=np.int64)
    auc, error = auc_by_group(positive, placements(positive, value, everyone), everyone, 1)
    low, high = logit_interval(auc, error, confidence=confidence)
    return float(auc[0]), float(low[0]), float(high[0])
