"""Changes from the first run to a later one: in every group, in every gap, and FATE."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import norm

from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.auc import paired_auc_difference
from monai_fair.metrics.fairness import fate
from monai_fair.metrics.records import Record, bounds_of, difference_record, seed_record
from monai_fair.metrics.resampling import resampled_interval
from monai_fair.metrics.target_table import TargetTable

SWAPPED, PAIRED_DELONG = "paired permutation of subjects", "paired DeLong"


def two_sided_p(observed: FloatArray, swapped: FloatArray) -> FloatArray:
    """Return the share of swaps with a difference at least as large in size as the observed one, itself counted.

    Args:
        observed: differences, any shape.
        swapped: shape ``(P, ...)``.

    Returns:
        p values; NaN where the difference is undefined.

    References:
        Phipson and Smyth, SAGMB 2010, doi:10.2202/1544-6115.1585.
    """
    defined = ~np.isnan(swapped)
    reached = (np.abs(swapped) >= np.abs(observed) - 1e-12) & defined
    p = (1 + reached.sum(axis=0)) / (1 + defined.sum(axis=0))
    return np.asarray(np.where(np.isnan(observed), np.nan, p))


def group_changes(table: TargetTable, run: int) -> dict[str, list[Record]]:
    """Return the change of every quantity in every group, by key of the quantity.

    Args:
        table: the table.
        run: index of the later run.
    """
    at_later, at_first = table.shared(run)
    names = [table.target.runs[run].seeds[index] for index in at_later]
    found: dict[str, list[Record]] = {}
    for row, quantity in enumerate(table.target.plan.quantities):
        key, scale = quantity.key, bounds_of(quantity.key)[1]
        first, later = (table.estimates[index][key] for index in (0, run))
        pairs = later.values[at_later] - first.values[at_first]
        low, high, p = _over_cases(table, run, row, pairs)
        # A group too small for an interval is too small for a test.
        kept = [not (a or b) for a, b in zip(first.left_out, later.left_out, strict=True)]
        found[key] = [
            difference_record(
                pairs[:, group],
                names,
                confidence=table.settings.confidence,
                cases=(low[group], high[group]) if kept[group] else (np.nan, np.nan),
                p=float(p[group]) if kept[group] else float("nan"),
                test=PAIRED_DELONG if key == "auc" else SWAPPED,
                bounds=(-scale, scale),
            )
            for group in range(table.size)
        ]
    return found


def _over_cases(table: TargetTable, run: int, row: int, pairs: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Interval and p over cases of a change in every group."""
    spread, swap = table.target.spreads[run], table.target.swaps[run - 1]
    if swap is None:
        undefined = np.full(table.size, np.nan)
        return undefined, undefined, undefined
    if table.target.plan.quantities[row].key == "auc":
        return _paired_delong(table, run)
    low, high = resampled_interval(
        pairs.mean(axis=0),
        spread.change[0][row, table.inside],
        spread.resampled_change[0][:, row, table.inside],
        table.target.subjects_behind(table.target.plan.quantities[row].metric)[table.inside],
        confidence=table.settings.confidence,
    )
    return low, high, two_sided_p(swap.values[row, table.inside], swap.swapped_values[:, row, table.inside])


def _paired_delong(table: TargetTable, run: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    at_later, at_first = table.shared(run)
    first, later = table.target.runs[0].scores[at_first], table.target.runs[run].scores[at_later]
    value, error = paired_auc_difference(table.target.samples.y, first, later, table.codes, table.size, table.clusters)
    half = norm.ppf(0.5 + table.settings.confidence / 2) * error
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.where(error > 0, 2 * norm.sf(np.abs(value) / error), np.where(value == 0, 1.0, np.nan))
    return value - half, value + half, p


def gap_changes(table: TargetTable, run: int, gaps: Mapping[str, Mapping[str, Record]]) -> dict[str, Record]:
    """Return the change of every gap, by key of the gap.

    Args:
        table: the table.
        run: index of the later run.
        gaps: gaps of every run.
    """
    at_later, at_first = table.shared(run)
    names = [table.target.runs[run].seeds[index] for index in at_later]
    spread, swap = table.target.spreads[run], table.target.swaps[run - 1]
    found = {}
    for row, key in enumerate(table.target.plan.gap_keys):
        first, later = (np.array(gaps[name][key]["by_seed"]) for name in (table.names[0], table.names[run]))
        pairs, scale = later[at_later] - first[at_first], bounds_of(key)[1]
        cases, p = (float("nan"), float("nan")), float("nan")
        if swap is not None and not np.isnan(pairs).any():
            subjects = np.fmin(table.counted_subjects(0, key), table.counted_subjects(run, key))
            cases = table.change_interval(
                float(pairs.mean()), spread.change[1][row], spread.resampled_change[1][:, row], subjects
            )
            p = float(two_sided_p(swap.gaps[row, table.index], swap.swapped_gaps[:, row, table.index]))
        found[key] = difference_record(
            pairs,
            names,
            confidence=table.settings.confidence,
            cases=cases,
            p=p,
            test=SWAPPED,
            bounds=(-scale, scale),
        )
    return found


def fate_of_table(table: TargetTable, run: int, gaps: Mapping[str, Mapping[str, Record]]) -> dict[str, Record]:
    """Return FATE of a later run: of accuracy and equalized odds under each rule, and of the AUC and its gap.

    Args:
        table: the table.
        run: index of the later run.
        gaps: gaps of every run.
    """
    at_later, at_first = table.shared(run)
    pairs = [(f"equalized_odds@{rule}", f"accuracy@{rule}") for rule in table.target.plan.rules] + [("auc", "auc")]
    found = {}
    for gap, performance in pairs:
        overall = [table.target.estimates[index][0][performance].values[:, 0] for index in (run, 0)]
        unfair = [np.array(gaps[table.names[index]][gap]["by_seed"]) for index in (run, 0)]
        values = fate(overall[0][at_later], overall[1][at_first], unfair[0][at_later], unfair[1][at_first])
        record: Record = {"value": float("nan"), "low": float("nan"), "high": float("nan"), "n": len(at_later)}
        record |= {"by_seed": values.tolist(), "reason": "the runs share no seed"}
        if at_later:
            value, spread = seed_record(values, confidence=table.settings.confidence, bounds=(-np.inf, np.inf))
            reason = "the baseline or its gap is 0 or undefined" if np.isnan(value) else spread["reason"]
            record |= {"value": value, "low": spread["low"], "high": spread["high"], "reason": reason}
        found[gap] = record
    return found
