"""Two arms of a study over seeds: how far they differ, how sure that is, and what so few seeds can show at all."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import mannwhitneyu

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.intervals import student_interval
from monai_fair.multiplicity import holm

Alternative = Literal["two-sided", "less", "greater"]


@dataclass(frozen=True)
class ArmDifference:
    """How much larger a quantity is in the later arm.

    Attributes:
        n_first: seeds of the first arm.
        n_later: seeds of the later arm.
        mean_first: mean over its seeds; NaN where undefined.
        mean_later: of the later arm.
        p_smallest: the smallest p that so many seeds can have without ties: above a level of a test, that test can
            never be passed.
        difference: later minus first.
        low: lower end of Welch's t interval of the difference of means; it knows seeds and not cases.
        high: upper end.
        u: Mann-Whitney's U of the later arm: pairs of seeds in which it is larger, ties count half.
        p: of that test.
        method: ``exact``; or ``asymptotic`` with ties, which is rough for few seeds.
        reason: why the difference is NaN; else empty.
        interval_reason: why there is no interval; else empty.
    """

    n_first: int
    n_later: int
    mean_first: float
    mean_later: float
    p_smallest: float
    difference: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    u: float = float("nan")
    p: float = float("nan")
    method: str = ""
    reason: str = ""
    interval_reason: str = ""


def arm_difference(
    first: npt.ArrayLike,
    later: npt.ArrayLike,
    *,
    alternative: Alternative = "two-sided",
    confidence: float = 0.95,
) -> ArmDifference:
    """Compare one quantity between two arms over seeds that are not paired.

    The p value is that of Mann and Whitney's test, exact where no two seeds have the same value. The interval is
    Welch's, of the difference of means. An undefined value (NaN) makes all undefined: it is not left out in silence.

    Args:
        first: one value per seed of the first arm, shape ``(S,)``.
        later: of the later arm, shape ``(T,)``.
        alternative: what the test looks for in the later arm: ``greater``, ``less``, or either.
        confidence: of the interval.

    Returns:
        The comparison; NaN with a reason where something is undefined.

    Raises:
        MonaiFairError: if values are not one per seed, or the alternative is unknown.

    References:
        Mann and Whitney, On a test of whether one of two random variables is stochastically larger than the other,
        Ann. Math. Statist. 1947; Welch, Biometrika 1947.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(later, dtype=np.float64)
    if a.ndim != 1 or b.ndim != 1:
        raise MonaiFairError(f"arm_difference: expected one value per seed and arm, got shapes {a.shape} and {b.shape}")
    if alternative not in get_args(Alternative):
        known = ", ".join(get_args(Alternative))
        raise MonaiFairError(f"alternative: expected one of {known}, got {alternative!r}")
    smallest = smallest_p(a.size, b.size, alternative=alternative)
    nan = float("nan")
    means = float(a.mean()) if a.size else nan, float(b.mean()) if b.size else nan
    if reason := _undefined(a, b):
        return ArmDifference(a.size, b.size, *means, smallest, reason=reason, interval_reason=reason)
    low, high, interval_reason = _welch(a, b, confidence)
    ties = len(np.unique(np.concatenate([a, b]))) < a.size + b.size
    method = "asymptotic" if ties else "exact"
    test = mannwhitneyu(b, a, alternative=alternative, method=method)
    return ArmDifference(
        a.size,
        b.size,
        *means,
        smallest,
        means[1] - means[0],
        low,
        high,
        float(test.statistic),
        float(test.pvalue),
        method,
        interval_reason=interval_reason,
    )


def smallest_p(n_first: int, n_later: int, *, alternative: Alternative = "two-sided") -> float:
    """Return the smallest p of the exact Mann-Whitney test: one order of all seeds, or two if both ends count.

    Args:
        n_first: seeds of one arm.
        n_later: of the other.
        alternative: of the test.

    Returns:
        ``1 / C(n_first + n_later, n_first)``, twice that for a two-sided test, at most 1; NaN without seeds in an arm.

    Example:
        >>> f"{smallest_p(10, 10):.2g}", smallest_p(3, 3)
        ('1.1e-05', 0.1)
    """
    if not n_first or not n_later:
        return float("nan")
    return min((2 if alternative == "two-sided" else 1) / comb(n_first + n_later, n_first), 1.0)


def _undefined(a: FloatArray, b: FloatArray) -> str:
    arms = {"first": a, "later": b}
    empty = [f"no seed in the {name} arm" for name, values in arms.items() if not values.size]
    broken = [
        f"undefined in {int(np.isnan(values).sum())} of {values.size} seeds of the {name} arm"
        for name, values in arms.items()
        if np.isnan(values).any()
    ]
    return "; ".join(empty + broken)


def _welch(a: FloatArray, b: FloatArray, confidence: float) -> tuple[float, float, str]:
    if min(a.size, b.size) < 2:
        return float("nan"), float("nan"), "one seed in an arm: the spread over seeds is unknown"
    parts = np.array([values.var(ddof=1) / values.size for values in (a, b)])
    if not parts.sum():
        return float("nan"), float("nan"), "all seeds of an arm have the same value: there is no spread to go by"
    degrees = parts.sum() ** 2 / (parts**2 / np.array([a.size - 1, b.size - 1])).sum()
    difference = np.asarray(b.mean() - a.mean())
    low, high = student_interval(difference, np.sqrt(parts.sum()), degrees, confidence=confidence)
    return float(low), float(high), ""


def compare_arms(
    values: pd.DataFrame,
    *,
    by: Sequence[str],
    arms: tuple[str, str] = ("clean", "biased"),
    alternative: Alternative = "two-sided",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Compare two arms in every cell of a table of values, with p values adjusted for the number of comparisons.

    Args:
        values: one row per cell, arm and seed: the columns ``by``, ``arm``, ``seed`` and ``value``; others are not
            looked at. Values of F1 come from :func:`f1_by_seed`, those of NC1 from what a training recorded.
        by: columns that tell comparisons apart, such as ``["experiment", "measure", "group"]``.
        arms: first and later arm, by name.
        alternative: see :func:`arm_difference`.
        confidence: of the intervals.

    Returns:
        One row per cell in order of appearance: ``by``, the fields of :class:`ArmDifference`, and ``p_holm``, Holm's
        adjusted p over all rows that have one. Make one table of all comparisons that belong together.

    Raises:
        MonaiFairError: with every problem: columns or arms that are not there, or several values of a seed.
    """
    raise_problems(MonaiFairError, "compare_arms", _table_problems(values, by, arms))
    rows = []
    for key, cell in values.groupby(list(by), sort=False, dropna=False):
        numbers = [cell.loc[cell["arm"] == arm, "value"].to_numpy(dtype=np.float64) for arm in arms]
        found = arm_difference(*numbers, alternative=alternative, confidence=confidence)
        rows.append({**dict(zip(by, key, strict=True)), **asdict(found)})
    table = pd.DataFrame(rows)
    table.insert(list(table).index("p") + 1, "p_holm", holm(table["p"].to_numpy(dtype=np.float64)))
    return table


def _table_problems(values: pd.DataFrame, by: Sequence[str], arms: tuple[str, str]) -> list[str]:
    found = ", ".join(map(str, values.columns))
    wanted = [*by, "arm", "seed", "value"]
    problems = [f"expected a column '{name}', found {found}" for name in wanted if name not in values]
    if not by:
        problems.append("by: expected at least one column that tells comparisons apart, got none")
    if problems:
        return problems
    there = ", ".join(map(str, dict.fromkeys(values["arm"]))) or "none"
    problems = [f"expected rows of the arm '{arm}', found {there}" for arm in arms if not (values["arm"] == arm).any()]
    repeated = values[values["arm"].isin(arms) & values.duplicated([*by, "arm", "seed"], keep="first")]
    if len(repeated):
        where = ", ".join(f"{name} {repeated[name].iloc[0]}" for name in [*by, "arm", "seed"])
        problems.append(f"expected one value per seed, {len(repeated)} are repeated, such as that of {where}")
    return problems
