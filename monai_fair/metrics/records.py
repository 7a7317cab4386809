"""Estimates, gaps and differences as JSON-like records: every number beside its n, interval or reason."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.definitions import METRICS
from monai_fair.metrics.estimates import Estimates
from monai_fair.metrics.gaps import permutation_p
from monai_fair.metrics.intervals import t_interval

Record = dict[str, Any]
ONE_SEED = "one seed: the spread over seeds is unknown"


def seed_record(
    values: FloatArray, *, confidence: float, bounds: tuple[float, float] = (0.0, 1.0)
) -> tuple[float, Record]:
    """Return the mean over seeds, and a record of its t interval.

    Args:
        values: one value per seed, shape ``(S,)``.
        confidence: of the interval.
        bounds: ends of the quantity's range.

    Returns:
        The mean, and ``n``, ``low``, ``high``, ``reason`` (why there is no interval, or None).
    """
    mean, low, high = (float(part) for part in t_interval(values, confidence=confidence, bounds=bounds))
    reason = ONE_SEED if values.size == 1 else None
    return mean, {"n": int(values.size), "low": low, "high": high, "reason": reason}


def bounds_of(key: str) -> tuple[float, float]:
    """Return the ends of the range of a quantity."""
    metric = METRICS.get(key.split("@")[0])
    return (0.0, 1.0) if metric is None or metric.is_probability else (-np.inf, np.inf)


def estimate_records(key: str, estimates: Estimates, seeds: Sequence[str], *, confidence: float) -> list[Record]:
    """Return one record per group: mean over seeds, its interval over cases, and its spread over seeds."""
    bounds = bounds_of(key)
    low, high = np.clip(estimates.low, *bounds), np.clip(estimates.high, *bounds)
    records = []
    for index, (reason, interval_reason) in enumerate(zip(estimates.reasons, estimates.interval_reasons, strict=True)):
        value, spread = seed_record(estimates.values[:, index], confidence=confidence, bounds=bounds)
        if reason:
            spread["reason"] = reason
        chance = estimates.by_chance
        records.append(
            {
                "value": value,
                "low": float(low[index]),
                "high": float(high[index]),
                "n": float(estimates.n[index]),
                "method": estimates.method,
                "reason": reason or None,
                "interval_reason": interval_reason or None,
                "by_chance": None if chance is None else float(chance[index]),
                "seeds": spread,
                "by_seed": [
                    {"seed": seed, "value": float(estimates.values[row, index])} for row, seed in enumerate(seeds)
                ],
            }
        )
    return records


def gap_record(
    by_seed: FloatArray,
    ends: Sequence[tuple[str, float]],
    left_out: Sequence[tuple[str, str]],
    *,
    best: float | None,
    observed: float,
    margin: float,
    permuted: FloatArray,
    confidence: float,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Record:
    """Return the gap between groups: mean over seeds of each seed's max - min.

    Args:
        by_seed: gap of each seed, shape ``(S,)``; NaN with fewer than two groups to compare.
        ends: name and mean over seeds of every group that takes part; empty for a gap over several quantities.
        left_out: name and reason of the others.
        best: best value of the quantity, which tells the worst group; None where there is none.
        observed: the gap as computed from kinds, to compare with shuffles.
        margin: half the length of the interval over cases.
        permuted: gaps of shuffles, as computed from kinds, shape ``(P,)``.
        confidence: of the t interval over seeds.
        bounds: ends of the gap's range.

    Returns:
        ``value``, ``low``, ``high`` (over cases), ``seeds``, ``by_seed``, ``lowest``, ``highest`` and ``worst`` group,
        ``left_out``, ``reason``, ``chance`` (mean gap of shuffled groups), ``chance_high`` (95 % of shuffles are at or
        below it), ``p``, and ``p_holm`` to be filled once all attributes are known.
    """
    value, spread = seed_record(by_seed, confidence=confidence, bounds=bounds)
    record: Record = {
        "value": value,
        "low": float("nan"),
        "high": float("nan"),
        "seeds": spread,
        "by_seed": by_seed.tolist(),
        "lowest": None,
        "highest": None,
        "worst": None,
        "groups_compared": len(ends),
        "left_out": [{"group": name, "reason": reason} for name, reason in left_out],
        "reason": None,
        "chance": float("nan"),
        "chance_high": float("nan"),
        "p": float("nan"),
        "p_holm": float("nan"),
        "permutations": 0,
    }
    if np.isnan(value):
        record["reason"] = spread["reason"] = "fewer than two groups to compare"
        return record
    if ends:
        record["lowest"], record["highest"], record["worst"] = _ends(ends, best)
    defined = permuted[~np.isnan(permuted)]
    record["p"] = permutation_p(observed, defined)
    record["permutations"] = int(defined.size)
    if defined.size:
        record["chance"] = float(defined.mean())
        record["chance_high"] = float(np.quantile(defined, 0.95))
    record["low"], record["high"] = (float(end) for end in np.clip([value - margin, value + margin], *bounds))
    return record


def _ends(ends: Sequence[tuple[str, float]], best: float | None) -> tuple[Record, Record, Record | None]:
    """Lowest, highest, and worst group; the worst is the one farthest from the best value."""
    lowest, highest = (_end(choose(ends, key=lambda end: end[1])) for choose in (min, max))
    return lowest, highest, None if best is None else _end(max(ends, key=lambda end: abs(end[1] - best)))


def _end(end: tuple[str, float]) -> Record:
    return {"group": end[0], "value": end[1]}


def difference_record(
    pairs: FloatArray,
    shared: Sequence[str],
    *,
    confidence: float,
    cases: tuple[float, float],
    p: float,
    test: str,
    bounds: tuple[float, float] = (-1.0, 1.0),
) -> Record:
    """Return the mean of later minus first over the seeds that both have.

    Args:
        pairs: difference of each shared seed.
        shared: names of the seeds.
        confidence: of the t interval.
        cases: ends of the interval over cases.
        p: of the paired test over cases; NaN where there is none.
        test: name of that test.
        bounds: ends of the difference's range.

    Returns:
        ``value``, ``low``, ``high`` (t over seeds), ``n`` shared seeds, their names, ``cases``, ``p``, ``test``,
        ``p_seeds`` (paired t test over seeds), and the ``reason`` where something is undefined.
    """
    nan = float("nan")
    record: Record = {"value": nan, "low": nan, "high": nan, "n": len(shared), "shared_seeds": list(shared)}
    record |= {"cases": {"low": nan, "high": nan}, "p": nan, "test": "", "p_seeds": nan}
    if not shared:
        return {**record, "reason": "the runs share no seed"}
    value, spread = seed_record(pairs, confidence=confidence, bounds=bounds)
    if np.isnan(value):
        return {**record, "reason": "undefined in one of the runs"}
    low, high = np.clip(cases, *bounds)
    tested = pairs.size > 1 and float(np.ptp(pairs)) > 1e-12
    return {
        **record,
        "value": value,
        "low": spread["low"],
        "high": spread["high"],
        "reason": spread["reason"],
        "cases": {"low": float(low), "high": float(high)},
        "p": p,
        "test": "" if np.isnan(p) else test,
        "p_seeds": float(ttest_1samp(pairs, 0.0).pvalue) if tested else nan,
    }
