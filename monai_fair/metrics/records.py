"""Estimates, gaps and differences as JSON-like records: every number beside its n, interval or reason."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.estimates import Estimates
from monai_fair.metrics.gaps import group_gap, permutation_p
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


def estimate_records(estimates: Estimates, seeds: Sequence[str], *, confidence: float) -> list[Record]:
    """Return one record per group: mean over seeds, its interval over cases, and its spread over seeds."""
    records = []
    for index, (reason, interval_reason) in enumerate(zip(estimates.reasons, estimates.interval_reasons, strict=True)):
        value, spread = seed_record(estimates.values[:, index], confidence=confidence)
        if reason:
            spread["reason"] = reason
        records.append(
            {
                "value": value,
                "low": float(estimates.mean_low[index]),
                "high": float(estimates.mean_high[index]),
                "reason": reason or None,
                "interval_reason": interval_reason or None,
                "seeds": spread,
                "by_seed": _by_seed(estimates, seeds, index),
            }
        )
    return records


def _by_seed(estimates: Estimates, seeds: Sequence[str], index: int) -> list[Record]:
    parts = (estimates.values, estimates.low, estimates.high)
    return [
        {
            "seed": seed,
            **{key: float(part[row, index]) for key, part in zip(("value", "low", "high"), parts, strict=True)},
        }
        for row, seed in enumerate(seeds)
    ]


def gap_record(estimates: Estimates, names: Sequence[str], permuted: FloatArray | None, *, confidence: float) -> Record:
    """Return the gap between groups: mean over seeds of each seed's max - min.

    Args:
        estimates: the quantity.
        names: the groups.
        permuted: gaps under shuffled groups, or None where there is no gap.
        confidence: of the interval over seeds.

    Returns:
        ``value``, ``seeds``, ``by_seed``, ``lowest`` and ``highest`` group by mean over seeds, how many groups
        were compared, which were left out and why, ``chance`` (mean gap of the shuffles), ``chance_high``
        (95 of 100 shuffles are at or below it), ``p``, and ``p_holm`` to be filled once all attributes are known.
    """
    counted = estimates.counted
    by_seed = group_gap(estimates.values, counted)
    value, spread = seed_record(by_seed, confidence=confidence)
    left_out = [
        {"group": name, "reason": reason} for name, reason in zip(names, estimates.left_out, strict=True) if reason
    ]
    record: Record = {
        "value": value,
        "seeds": spread,
        "by_seed": by_seed.tolist(),
        "lowest": None,
        "highest": None,
        "groups_compared": int(counted.sum()),
        "left_out": left_out,
        "reason": None,
        "chance": float("nan"),
        "chance_high": float("nan"),
        "p": float("nan"),
        "p_holm": float("nan"),
        "permutations": 0,
    }
    if permuted is None:
        record["reason"] = spread["reason"] = "fewer than two groups to compare"
        return record
    means = np.where(counted, estimates.values.mean(axis=0), np.nan)
    for key, index in (("lowest", np.nanargmin(means)), ("highest", np.nanargmax(means))):
        record[key] = {"group": names[int(index)], "value": float(means[index])}
    record["chance"] = float(permuted.mean())
    record["chance_high"] = float(np.quantile(permuted, 0.95))
    record["p"] = permutation_p(value, permuted)
    record["permutations"] = int(permuted.size)
    return record


def difference_record(
    baseline: FloatArray,
    values: FloatArray,
    baseline_seeds: Sequence[str],
    seeds: Sequence[str],
    *,
    confidence: float,
) -> Record:
    """Return the mean of ``values - baseline`` over the seeds that both have.

    Args:
        baseline: one value per seed of the first run.
        values: one value per seed of the other run.
        baseline_seeds: names of the first run's seeds.
        seeds: names of the other run's seeds.
        confidence: of the t interval.

    Returns:
        ``value``, ``low``, ``high``, ``n`` shared seeds, their names, and the ``reason`` where something is
        undefined.
    """
    shared = [seed for seed in baseline_seeds if seed in seeds]
    record: Record = {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": len(shared)}
    record["shared_seeds"] = shared
    if not shared:
        return {**record, "reason": "the runs share no seed"}
    pairs = np.array([values[list(seeds).index(s)] - baseline[list(baseline_seeds).index(s)] for s in shared])
    value, spread = seed_record(pairs, confidence=confidence, bounds=(-1.0, 1.0))
    reason = "undefined in one of the runs" if np.isnan(value) else spread["reason"]
    return {**record, "value": value, "low": spread["low"], "high": spread["high"], "reason": reason}
