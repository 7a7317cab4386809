"""Two values of each seed: how far the second is from the first, how sure that is, and what so few seeds can show."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from monai_fair.errors import MonaiFairError
from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.intervals import student_interval


@dataclass(frozen=True)
class PairedDifference:
    """How much larger the later value of a seed is than its first one.

    Attributes:
        n: seeds.
        mean_first: mean of the first values; NaN where undefined.
        mean_later: of the later ones.
        p_smallest: the smallest p that so many seeds can have without ties, ``2 / 2^n``: above a level of a test, that
            test can never be passed.
        difference: mean of later minus first.
        low: lower end of Student's t interval of that mean; it knows seeds and not cases.
        high: upper end.
        w: Wilcoxon's sum of the ranks of the differences above 0, by size; those of 0 have no rank.
        p: two-sided, of that test, exact also with ties.
        reason: why the difference is NaN; else empty.
        interval_reason: why there is no interval; else empty.
    """

    n: int
    mean_first: float
    mean_later: float
    p_smallest: float
    difference: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    w: float = float("nan")
    p: float = float("nan")
    reason: str = ""
    interval_reason: str = ""


def paired_difference(first: npt.ArrayLike, later: npt.ArrayLike, *, confidence: float = 0.95) -> PairedDifference:
    """Compare two values of each seed, such as those of one training early and at its end.

    The p value is that of Wilcoxon's signed-rank test, two-sided: the share of all ways to give signs to the
    differences whose sum of ranks is as far out, twice that of the nearer end. Differences of one size share their
    ranks, and those of 0 are left out. The interval is Student's, of the mean difference. An undefined value (NaN)
    makes all undefined: it is not left out in silence.

    Args:
        first: one value per seed, shape ``(n,)``.
        later: of the same seeds in the same order, shape ``(n,)``.
        confidence: of the interval.

    Returns:
        The comparison; NaN with a reason where something is undefined.

    Raises:
        MonaiFairError: if the shapes differ or are not those of one value per seed.

    References:
        Wilcoxon, Individual comparisons by ranking methods, Biometrics 1945.

    Example:
        >>> found = paired_difference([0.8, 0.7, 0.9], [0.6, 0.6, 0.6])
        >>> round(found.difference, 3), found.w, found.p, found.p_smallest
        (-0.2, 0.0, 0.25, 0.25)
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(later, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise MonaiFairError(f"paired_difference: expected two values of each seed, got shapes {a.shape} and {b.shape}")
    n, nan = a.size, float("nan")
    if not n:
        return PairedDifference(0, nan, nan, nan, reason="no seed", interval_reason="no seed")
    means, smallest = (float(a.mean()), float(b.mean())), min(2.0 ** (1 - n), 1.0)
    change = b - a
    if undefined := int(np.isnan(change).sum()):
        reason = f"undefined in {undefined} of {n} seeds"
        return PairedDifference(n, *means, smallest, reason=reason, interval_reason=reason)
    w, p = _signed_ranks(change)
    low, high, interval_reason = _student(change, confidence)
    return PairedDifference(n, *means, smallest, float(change.mean()), low, high, w, p, interval_reason=interval_reason)


def _signed_ranks(change: FloatArray) -> tuple[float, float]:
    """Return the sum of the ranks above 0, and p from its distribution over all signs."""
    moved = change[change != 0]
    twice = (2 * rankdata(np.abs(moved))).astype(np.int64)  # ranks that are shared may end in a half
    chance = np.zeros(twice.sum() + 1)  # of each sum
    chance[0] = 1.0
    for rank in twice:
        chance = (chance + np.roll(chance, rank)) / 2  # what is rolled over the end is 0
    place = int(twice[moved > 0].sum())
    p = 2 * min(chance[: place + 1].sum(), chance[place:].sum())
    return place / 2, min(float(p), 1.0)


def _student(change: FloatArray, confidence: float) -> tuple[float, float, str]:
    if change.size < 2:
        return float("nan"), float("nan"), "one seed: the spread over seeds is unknown"
    error = change.std(ddof=1) / np.sqrt(change.size)
    if not error:
        return float("nan"), float("nan"), "all seeds differ by the same: there is no spread to go by"
    low, high = student_interval(np.asarray(change.mean()), error, change.size - 1, confidence=confidence)
    return float(low), float(high), ""
