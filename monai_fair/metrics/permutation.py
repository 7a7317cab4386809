"""What gap between groups chance alone would give: group membership is shuffled within positives and negatives.

Shuffling within the truth keeps every group's number of positives and negatives, so a rate that is defined
stays defined, and a difference in prevalence alone is never called a gap in a rate. All seeds of a run are
shuffled together, because they are scores of the same samples.
"""

from itertools import pairwise

import numpy as np
from scipy.stats import random_table

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray

# Largest number of array elements held at once; bounds memory for any number of samples and permutations.
_ELEMENTS = 4_000_000


def permuted_rate_gaps(hits: BoolArray, group: IntArray, *, permutations: int, seed: int) -> FloatArray:
    """Return the gap (max - min over groups, mean over seeds) of a rate under shuffled group membership.

    Samples with the same hits over all seeds are alike, so a shuffle is a random table of groups by hit
    pattern with both margins kept. Its cost does not grow with the number of samples.

    Args:
        hits: which trials are successes, shape ``(S, N)``: for TPR the predictions of the positives.
        group: index of each trial's group, shape ``(N,)``; at least two groups, each with a trial.
        permutations: number of shuffles.
        seed: seed of the shuffles. The result does not depend on the order of samples or groups.

    Returns:
        Gaps in [0, 1], shape ``(permutations,)``.
    """
    sizes = np.sort(np.unique(group, return_counts=True)[1])
    patterns, counts = np.unique(hits.T, axis=0, return_counts=True)
    tables = random_table(sizes, counts, seed=np.random.default_rng(seed))
    chunk = max(1, _ELEMENTS // (sizes.size * max(len(counts), hits.shape[0])))
    gaps = []
    for start in range(0, permutations, chunk):
        drawn = tables.rvs(min(chunk, permutations - start))
        rates = drawn @ patterns.astype(np.float64) / sizes[:, None]
        gaps.append((rates.max(axis=1) - rates.min(axis=1)).mean(axis=-1))
    return np.concatenate(gaps)


def permuted_auc_gaps(y: BoolArray, scores: FloatArray, group: IntArray, *, permutations: int, seed: int) -> FloatArray:
    """Return the gap (max - min over groups, mean over seeds) of the AUC under shuffled group membership.

    Args:
        y: True for positive, shape ``(N,)``.
        scores: shape ``(S, N)``.
        group: index of each sample's group, shape ``(N,)``; at least two groups, each with both classes.
        permutations: number of shuffles.
        seed: seed of the shuffles. The result does not depend on the order of groups; samples must come in an
            order of their own (such as by identifier) for the same result each time.

    Returns:
        Gaps in [0, 1], shape ``(permutations,)``.
    """
    codes = np.unique(group, return_inverse=True)[1]
    sizes = np.stack([np.bincount(codes, ~y), np.bincount(codes, y)], axis=1).astype(np.int64)
    sizes = sizes[np.lexsort(sizes.T)]
    ranks = np.stack([np.unique(score, return_inverse=True)[1] for score in scores])
    rng = np.random.default_rng(seed)
    chunk = max(1, _ELEMENTS // y.size)
    gaps = []
    for start in range(0, permutations, chunk):
        count = min(chunk, permutations - start)
        negatives = _shuffles(np.flatnonzero(~y), count, rng)
        positives = _shuffles(np.flatnonzero(y), count, rng)
        gaps.append(np.mean([_gaps(rank, negatives, positives, sizes) for rank in ranks], axis=0))
    return np.concatenate(gaps)


def _shuffles(indices: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    return rng.permuted(np.broadcast_to(indices, (count, indices.size)), axis=1)


def _gaps(rank: IntArray, negatives: IntArray, positives: IntArray, sizes: IntArray) -> FloatArray:
    """Gap of each shuffle: consecutive slices of the shuffled negatives and positives are the groups."""
    edges = np.concatenate((np.zeros((1, 2), dtype=np.int64), sizes.cumsum(axis=0)))
    slices = [
        _auc_rows(rank[negatives[:, low[0] : high[0]]], rank[positives[:, low[1] : high[1]]])
        for low, high in pairwise(edges)
    ]
    aucs = np.stack(slices)
    return np.asarray(aucs.max(axis=0) - aucs.min(axis=0))


def _auc_rows(negatives: IntArray, positives: IntArray) -> FloatArray:
    """AUC of each row, from ranks of shape ``(B, n)`` and ``(B, m)``; ties count half.

    Sorting with negatives first among equals counts ties as correct, with positives first as wrong; the mean
    of the two is the AUC.
    """
    n, m = negatives.shape[1], positives.shape[1]
    correct = _wins(2 * negatives, 2 * positives + 1, positive_bit=1)
    wrong = _wins(2 * negatives + 1, 2 * positives, positive_bit=0)
    return np.asarray((correct + wrong) / (2 * n * m))


def _wins(negatives: IntArray, positives: IntArray, *, positive_bit: int) -> FloatArray:
    """Pairs of each row in which the positive is sorted above the negative; the last bit tells the class."""
    keys = np.sort(np.concatenate((negatives, positives), axis=1), axis=1)
    is_positive = (keys & 1) == positive_bit
    m = positives.shape[1]
    rank_sum = is_positive @ np.arange(1, keys.shape[1] + 1, dtype=np.float64)
    return np.asarray(rank_sum - m * (m + 1) / 2)
