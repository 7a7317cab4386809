"""One table of the audit: the groups of one grouping, their values in every run, gaps and differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from monai_fair.metrics.arrays import BoolArray, FloatArray
from monai_fair.metrics.estimates import Estimates, auc_estimates, rate_estimates, undefined
from monai_fair.metrics.gaps import holm
from monai_fair.metrics.groups import Grouping, Missing
from monai_fair.metrics.permutation import permuted_auc_gaps, permuted_rate_gaps
from monai_fair.metrics.rates import RATE_NAMES, RateName
from monai_fair.metrics.records import Record, difference_record, estimate_records, gap_record
from monai_fair.metrics.roc import mean_roc

Rule = Literal["youden", "0.5"]
RULES: tuple[Rule, ...] = ("youden", "0.5")
GAP_RATES: tuple[RateName, ...] = ("tpr", "fpr")


@dataclass(frozen=True)
class AuditSettings:
    """How an audit is done; see :func:`monai_fair.metrics.audit`."""

    attributes: tuple[str, ...]
    split: str
    intersections: bool
    missing: Missing
    permutations: int
    seed: int
    min_count: int
    confidence: float


@dataclass(frozen=True)
class ScoredRun:
    """One run's scores for one target, with its thresholds.

    Attributes:
        name: the run.
        seeds: one name per seed.
        y: True for positive, shape ``(N,)``.
        scores: shape ``(S, N)``.
        thresholds: one per seed, by rule; NaN where there is none.
        threshold_reasons: why a rule has no threshold; empty where it has one.
    """

    name: str
    seeds: tuple[str, ...]
    y: BoolArray
    scores: FloatArray
    thresholds: Mapping[Rule, FloatArray]
    threshold_reasons: Mapping[Rule, str]

    def y_pred(self, rule: Rule) -> BoolArray:
        """Predictions under ``rule``, shape ``(S, N)``; a score equal to the threshold is positive."""
        return np.asarray(self.scores >= self.thresholds[rule][:, None])


def audit_groups(grouping: Grouping, runs: Sequence[ScoredRun], settings: AuditSettings) -> Record:
    """Return one table: the groups of ``grouping``, their values in every run, gaps and differences.

    Args:
        grouping: which group each case belongs to.
        runs: scores of the same cases; the first run is the baseline of the differences.
        settings: of the audit.

    Returns:
        ``name``, ``attributes``, ``n_missing``, ``groups``, ``gaps`` and ``gap_differences``.
    """
    estimates = {run.name: _estimate(run, grouping, settings) for run in runs}
    groups = _group_rows(grouping, runs[0].y)
    for run in runs:
        for quantity, found in estimates[run.name].items():
            records = estimate_records(found, run.seeds, confidence=settings.confidence)
            for row, record in zip(groups, records, strict=True):
                row["cells"].setdefault(run.name, {})[quantity] = record
        if len(grouping.attributes) == 1:
            for code, row in enumerate(groups):
                row["roc"][run.name] = _roc(run, grouping.codes == code)
    _add_differences(groups, runs, estimates, settings)
    gaps = {run.name: _gaps(run, grouping, estimates[run.name], settings) for run in runs}
    return {
        "name": grouping.name,
        "attributes": list(grouping.attributes),
        "n_missing": grouping.num_missing,
        "groups": groups,
        "gaps": gaps,
        "gap_differences": {run.name: _gap_differences(runs[0], run, gaps, settings) for run in runs[1:]},
    }


def _group_rows(grouping: Grouping, y: BoolArray) -> list[Record]:
    rows = []
    for code, (name, levels) in enumerate(zip(grouping.names, grouping.levels, strict=True)):
        inside = y[grouping.codes == code]
        rows.append(
            {
                "name": name,
                "levels": list(levels),
                "n": int(inside.size),
                "n_positive": int(inside.sum()),
                "n_negative": int(inside.size - inside.sum()),
                "prevalence": float(inside.mean()),
                "cells": {},
                "differences": {},
                "roc": {},
            }
        )
    return rows


def _estimate(run: ScoredRun, grouping: Grouping, settings: AuditSettings) -> dict[str, Estimates]:
    codes, count = grouping.codes, len(grouping.names)
    least, confidence = settings.min_count, settings.confidence
    found = {"auc": auc_estimates(run.y, run.scores, codes, count, min_count=least, confidence=confidence)}
    for rule in RULES:
        for name in RATE_NAMES:
            if run.threshold_reasons[rule]:
                found[f"{name}@{rule}"] = undefined(len(run.seeds), count, run.threshold_reasons[rule])
                continue
            found[f"{name}@{rule}"] = rate_estimates(
                name, run.y, run.y_pred(rule), codes, count, min_count=least, confidence=confidence
            )
    return found


def _roc(run: ScoredRun, inside: BoolArray) -> list[float] | None:
    y = run.y[inside]
    return mean_roc(y, run.scores[:, inside]).tolist() if y.any() and not y.all() else None


def _gaps(
    run: ScoredRun, grouping: Grouping, estimates: Mapping[str, Estimates], settings: AuditSettings
) -> dict[str, Record]:
    gaps = {"auc": _gap(run, grouping, estimates["auc"], None, None, settings)}
    for rule in RULES:
        for name in GAP_RATES:
            gaps[f"{name}@{rule}"] = _gap(run, grouping, estimates[f"{name}@{rule}"], name, rule, settings)
    return gaps


def _gap(
    run: ScoredRun,
    grouping: Grouping,
    estimates: Estimates,
    name: RateName | None,
    rule: Rule | None,
    settings: AuditSettings,
) -> Record:
    """A gap's record; ``name`` and ``rule`` are None for the AUC."""
    counted = estimates.counted
    permuted = None
    if counted.sum() >= 2:
        inside = np.append(counted, False)[grouping.codes]
        options = {"permutations": settings.permutations, "seed": settings.seed}
        if name is None or rule is None:
            permuted = permuted_auc_gaps(run.y[inside], run.scores[:, inside], grouping.codes[inside], **options)
        else:
            trials = inside & (run.y if name == "tpr" else ~run.y)
            permuted = permuted_rate_gaps(run.y_pred(rule)[:, trials], grouping.codes[trials], **options)
    record = gap_record(estimates, grouping.names, permuted, confidence=settings.confidence)
    if rule is not None and run.threshold_reasons[rule]:
        record["reason"] = record["seeds"]["reason"] = run.threshold_reasons[rule]
    return record


def _add_differences(
    groups: Sequence[Record],
    runs: Sequence[ScoredRun],
    estimates: Mapping[str, Mapping[str, Estimates]],
    settings: AuditSettings,
) -> None:
    first = runs[0]
    for run in runs[1:]:
        for quantity, found in estimates[run.name].items():
            baseline = estimates[first.name][quantity].values
            for index, row in enumerate(groups):
                row["differences"].setdefault(run.name, {})[quantity] = difference_record(
                    baseline[:, index],
                    found.values[:, index],
                    first.seeds,
                    run.seeds,
                    confidence=settings.confidence,
                )


def _gap_differences(
    first: ScoredRun, run: ScoredRun, gaps: Mapping[str, Mapping[str, Record]], settings: AuditSettings
) -> dict[str, Record]:
    return {
        quantity: difference_record(
            np.array(gaps[first.name][quantity]["by_seed"]),
            np.array(gap["by_seed"]),
            first.seeds,
            run.seeds,
            confidence=settings.confidence,
        )
        for quantity, gap in gaps[run.name].items()
    }


def adjust_gaps(tables: Sequence[Record], runs: Sequence[str]) -> None:
    """Fill in Holm's adjusted p over all ``tables``, for each run and quantity."""
    for run in runs:
        for quantity in tables[0]["gaps"][run]:
            family = [table["gaps"][run][quantity] for table in tables]
            for gap, adjusted in zip(family, holm([gap["p"] for gap in family]), strict=True):
                gap["p_holm"] = float(adjusted)
                gap["holm_over"] = int(sum(not np.isnan(other["p"]) for other in family))
