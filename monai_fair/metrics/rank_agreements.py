"""Whether two measures put experiments into the same order: Kendall's tau-b with its p."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln
from scipy.stats import kendalltau

from monai_fair.errors import MonaiFairError

_MOST_EXACT = 33  # pairs up to which the exact distribution is taken, as in SciPy


@dataclass(frozen=True)
class RankAgreement:
    """Kendall's tau-b of pairs.

    Attributes:
        tau: 1 for the same order, -1 for the reverse, near 0 for none; NaN where it is undefined.
        p: two-sided, of no association.
        p_smallest: the smallest p that so many pairs can have without ties, ``2 / n!``: above a level of a test, that
            test can never be passed.
        n: pairs.
        method: ``exact``; or ``asymptotic`` with ties or more than 33 pairs, which is rough for few pairs.
        reason: why tau is NaN; else empty.
    """

    tau: float
    p: float
    p_smallest: float
    n: int
    method: str
    reason: str = ""


def rank_agreement(first: npt.ArrayLike, second: npt.ArrayLike) -> RankAgreement:
    """Return Kendall's tau-b between two measures of the same experiments, such as separability and SPLIT test.

    Args:
        first: one value per experiment, shape ``(n,)``.
        second: of the same experiments, shape ``(n,)``.

    Returns:
        NaN with a reason for fewer than two pairs, an undefined value, or a measure that is the same in all.

    Raises:
        MonaiFairError: if the shapes differ.

    References:
        Kendall, The treatment of ties in ranking problems, Biometrika 1945.
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise MonaiFairError(f"rank_agreement: expected two measures of the same experiments, got {x.shape}, {y.shape}")
    n, nan = len(x), float("nan")
    smallest = min(2 * float(np.exp(-gammaln(n + 1))), 1.0) if n > 1 else nan
    undefined = int((np.isnan(x) | np.isnan(y)).sum())
    distinct = [len(np.unique(values)) for values in (x, y)]
    if n < 2:
        return RankAgreement(nan, nan, nan, n, "", "fewer than two experiments")
    if undefined:
        return RankAgreement(nan, nan, smallest, n, "", f"undefined in {undefined} of {n} experiments")
    if min(distinct) == 1:
        return RankAgreement(nan, nan, smallest, n, "", "a measure is the same in all experiments")
    method = "exact" if min(distinct) == n <= _MOST_EXACT else "asymptotic"
    found = kendalltau(x, y, method=method)
    return RankAgreement(float(found.statistic), float(found.pvalue), smallest, n, method)
