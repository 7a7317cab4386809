"""Changes from the first run to a later one: in every group, in every gap, and FATE."""

from collections.abc import Mapping

import numpy as np
from scipy.stats import norm

from monai_fair.metrics.arrays import BoolArray, FloatArray
from monai_fair.metrics.auc import paired_auc_difference
from monai_fair.metrics.fairness import fate
from monai_fair.metrics.intervals import paired_difference_interval, student_interval
from monai_fair.metrics.records import Record, bounds_of, difference_record, seed_record
from monai_fair.metrics.resampling import range_margin, widening
from monai_fair.metrics.target_table import TargetTable

_ROUNDING = 1e-12  # of values between 0 and 1
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
    swap = table.target.swaps[run - 1]
    if swap is None:
        undefined = np.full(table.size, np.nan)
        return undefined, undefined, undefined
    if table.target.plan.quantities[row].key == "auc":
        return _paired_delong(table, run)
    low, high = _value_change(table, run, row, pairs.mean(axis=0))
    return low, high, two_sided_p(swap.values[row, table.inside], swap.swapped_values[:, row, table.inside])


def _value_change(table: TargetTable, run: int, row: int, change: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Interval over cases of the change of a quantity in every group."""
    quantity = table.target.plan.quantities[row]
    subjects = table.target.subjects_behind(quantity.metric)[table.inside].astype(np.float64)
    first, later = (table.target.spreads[index].resampled_values[:, row, table.inside] for index in (0, run))
    estimates = [table.estimates[index][quantity.key] for index in (0, run)]
    if quantity.metric.key == "ece":  # has no interval of its own
        error = widening(subjects) * (later - first).std(axis=0)
        return student_interval(change, error, subjects - 1, confidence=table.settings.confidence)
    # Resamples of few subjects overstate how closely two runs go together.
    correlation = _correlation(first, later) * subjects / (subjects + 2)
    a, b = ((found.mean, found.low, found.high) for found in estimates)
    low, high = paired_difference_interval(a, b, correlation)
    shift = change - (estimates[1].mean - estimates[0].mean)  # the runs may share only some of their seeds
    return low + shift, high + shift


def _correlation(first: FloatArray, later: FloatArray) -> FloatArray:
    """Correlation over the first axis; 0 where one of the two does not vary by more than rounding."""
    a, b = first - first.mean(axis=0), later - later.mean(axis=0)
    # a mean of equal numbers may differ from them by a bit, and deviations of that size correlate with anything
    varies = (np.ptp(first, axis=0) > _ROUNDING) & (np.ptp(later, axis=0) > _ROUNDING)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (a * b).mean(axis=0) / (a.std(axis=0) * b.std(axis=0))
    return np.asarray(np.where(varies, np.clip(np.nan_to_num(found), -1, 1), 0.0))


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
    swap = table.target.swaps[run - 1]
    found = {}
    for row, key in enumerate(table.target.plan.gap_keys):
        first, later = (np.array(gaps[name][key]["by_seed"]) for name in (table.names[0], table.names[run]))
        pairs, scale = later[at_later] - first[at_first], bounds_of(key)[1]
        cases, p = (float("nan"), float("nan")), float("nan")
        if swap is not None and not np.isnan(pairs).any():
            subjects = np.fmin(table.counted_subjects(0, key), table.counted_subjects(run, key))
            margin = _gap_margin(table, run, key, float(np.fmin.reduce(subjects, initial=np.nan)))
            cases = float(pairs.mean()) - margin, float(pairs.mean()) + margin
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


def _gap_margin(table: TargetTable, run: int, key: str, subjects: float) -> float:
    """Half the length of the interval over cases of a gap's change."""
    parts = [key.replace("equalized_odds", name) for name in ("tpr", "fpr")] if key.startswith("equal") else [key]
    errors = np.max([_gap_change_errors(table, run, part) for part in parts], axis=0)
    return float(range_margin(errors, subjects, confidence=table.settings.confidence))


def _gap_change_errors(table: TargetTable, run: int, key: str) -> FloatArray:
    """How far the change of a gap may lie from the observed one in each resample, shape ``(B,)``.

    A gap moves with the groups at its ends. Which these are is not sure: every group within one standard error of an
    observed end may be it, and the bound takes the worst of them in both runs. Where one group stands clearly at each
    end this is the error of a difference of differences.
    """
    row = table.target.plan.gap_keys.index(key)
    ends = []
    for index in (0, run):
        counted = table.estimates[index][key].counted
        spread = table.target.spreads[index]
        value = spread.values[row, table.inside][counted]
        error = spread.resampled_values[:, row, table.inside][:, counted] - value
        if np.isnan(value).any():  # defined from samples, but not from binned scores
            return np.full(len(error), np.nan)
        ends.append(tuple(error[:, _may_be_top(sign * value, error)] for sign in (1, -1)))
    (a_high, a_low), (b_high, b_low) = ends
    up = b_high.max(axis=1) - b_low.min(axis=1) - a_high.min(axis=1) + a_low.max(axis=1)
    down = b_high.min(axis=1) - b_low.max(axis=1) - a_high.max(axis=1) + a_low.min(axis=1)
    return np.asarray(np.maximum(np.abs(up), np.abs(down)))


def _may_be_top(value: FloatArray, error: FloatArray) -> BoolArray:
    """Groups within one standard error of a largest value, the largest among them; of equal ones none comes first."""
    found = np.zeros(len(value), dtype=bool)
    for top in np.flatnonzero(value >= value.max() - _ROUNDING):
        distance = np.ma.masked_invalid(error - error[:, [top]]).std(axis=0).filled(0.0)
        found |= value >= value[top] - distance - _ROUNDING
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
