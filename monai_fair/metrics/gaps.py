"""The gap between groups, and how often chance makes one as large."""

import numpy as np

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray


def group_gap(values: FloatArray, counted: BoolArray) -> FloatArray:
    """Return the largest minus the smallest value over the counted groups.

    0 means that the counted groups have the same value, 1 is the largest gap a rate or an AUC can have. NaN
    with fewer than two counted groups. A group that is not counted changes nothing, wherever it stands.

    Args:
        values: shape ``(..., G)``.
        counted: which groups take part, shape ``(G,)``; those with a NaN value must not.

    Returns:
        Gaps, shape ``(...)``.
    """
    if counted.sum() < 2:
        return np.full(values.shape[:-1], np.nan)
    chosen = values[..., counted]
    return np.asarray(chosen.max(axis=-1) - chosen.min(axis=-1))


def gaps_of_groupings(values: FloatArray, counted: BoolArray, starts: IntArray) -> FloatArray:
    """Return the gap of every quantity in every grouping, of groups that stand one grouping after the other.

    A value that a shuffle or resample left undefined takes no part in it.

    Args:
        values: shape ``(..., Q, G)``.
        counted: which groups take part in which quantity, shape ``(Q, G)``.
        starts: first group of each grouping, shape ``(A,)``.

    Returns:
        Gaps, shape ``(..., Q, A)``; NaN with fewer than two counted groups.
    """
    gaps = np.full((*values.shape[:-1], starts.size), np.nan)
    # reduceat takes the next grouping's first group for a grouping without groups.
    filled = np.diff(starts, append=values.shape[-1]) > 0
    at = starts[filled]
    high = np.fmax.reduceat(np.where(counted, values, np.nan), at, axis=-1)
    low = np.fmin.reduceat(np.where(counted, values, np.nan), at, axis=-1)
    enough = np.add.reduceat(counted.astype(np.int64), at, axis=-1) >= 2
    gaps[..., filled] = np.where(enough, high - low, np.nan)
    return gaps


def permutation_p(observed: float, permuted: FloatArray) -> float:
    """Return the share of shuffles with a gap at least as large as the observed one, itself counted as one.

    Args:
        observed: the gap.
        permuted: gaps under shuffled groups, shape ``(B,)``.

    Returns:
        A p value from ``1 / (B + 1)`` to 1.

    References:
        Phipson and Smyth, Permutation p-values should never be zero, SAGMB 2010, doi:10.2202/1544-6115.1585.
    """
    # Gaps of the same counts may differ in the last bit; they are equal.
    reached = int((permuted >= observed - 1e-12).sum())
    return (1 + reached) / (1 + permuted.size)
