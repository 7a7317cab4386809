"""Records of one table of the audit: its groups, their values in every run, gaps and changes."""

import numpy as np

from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.changes import fate_of_table, gap_changes, group_changes
from monai_fair.metrics.definitions import METRICS
from monai_fair.metrics.estimates import Estimates
from monai_fair.metrics.gaps import group_gap
from monai_fair.metrics.group_curves import curves_of_groups
from monai_fair.metrics.intervals import wilson_interval
from monai_fair.metrics.records import Record, bounds_of, estimate_records, gap_record
from monai_fair.metrics.target_table import TargetTable
from monai_fair.multiplicity import holm


def table_record(table: TargetTable) -> Record:
    """Return a table: ``name``, ``attributes``, ``n_missing``, ``groups``, ``gaps``, ``gap_differences``, ``fate``."""
    gaps = {name: _gaps(table, run) for run, name in enumerate(table.names)}
    later = list(enumerate(table.names))[1:]
    return {
        "name": table.grouping.name,
        "attributes": list(table.grouping.attributes),
        "n_missing": table.grouping.num_missing,
        "groups": group_records(table),
        "gaps": gaps,
        "gap_differences": {name: gap_changes(table, run, gaps) for run, name in later},
        "fate": {name: fate_of_table(table, run, gaps) for run, name in later},
    }


def group_records(table: TargetTable) -> list[Record]:
    """Return one row per group, with its values in every run, their changes, and curves."""
    rows = _counts(table)
    for run, name in enumerate(table.names):
        seeds = table.target.runs[run].seeds
        for key, found in table.estimates[run].items():
            records = estimate_records(key, found, seeds, confidence=table.settings.confidence)
            for row, record in zip(rows, records, strict=True):
                row["cells"].setdefault(name, {})[key] = record
        for key, changes in (group_changes(table, run) if run else {}).items():
            for row, record in zip(rows, changes, strict=True):
                row["differences"].setdefault(name, {})[key] = record
        if len(table.grouping.attributes) < 2:
            for row, curves in zip(rows, curves_of_groups(table, run), strict=True):
                row["curves"][name] = curves
    return rows


def _counts(table: TargetTable) -> list[Record]:
    y, codes = table.target.samples.y, table.codes
    n = np.bincount(codes[codes >= 0], minlength=table.size)
    positive = np.bincount(codes[(codes >= 0) & y], minlength=table.size)
    subjects = table.clusters.count(codes >= 0)
    of_class = [table.clusters.count((codes >= 0) & chosen) for chosen in (y, ~y)]
    low, high = wilson_interval(positive / n * subjects, subjects, confidence=table.settings.confidence)
    return [
        {
            "name": name,
            "levels": list(levels),
            "n": int(n[code]),
            "n_subjects": int(subjects[code]),
            "n_subjects_positive": int(of_class[0][code]),
            "n_subjects_negative": int(of_class[1][code]),
            "n_positive": int(positive[code]),
            "n_negative": int(n[code] - positive[code]),
            "prevalence": float(positive[code] / n[code]),
            "prevalence_low": float(low[code]),
            "prevalence_high": float(high[code]),
            "cells": {},
            "differences": {},
            "curves": {},
        }
        for code, (name, levels) in enumerate(zip(table.grouping.names, table.grouping.levels, strict=True))
    ]


def _gaps(table: TargetTable, run: int) -> dict[str, Record]:
    plan, spread = table.target.plan, table.target.spreads[run]
    by_seed: dict[str, FloatArray] = {
        key: group_gap(found.values, found.counted) for key, found in table.estimates[run].items()
    }
    for rule in plan.rules:
        by_seed[f"equalized_odds@{rule}"] = np.maximum(by_seed[f"tpr@{rule}"], by_seed[f"fpr@{rule}"])
    gaps = {}
    for row, key in enumerate(plan.gap_keys):
        metric, found = METRICS.get(key.split("@")[0]), table.estimates[run].get(key)
        ends, left_out = _ends(table, found) if found else ([], _left_out_of_odds(table, run, key))
        gaps[key] = gap_record(
            by_seed[key],
            ends,
            left_out,
            best=metric.best if metric else None,
            observed=float(spread.gaps[row, table.index]),
            margin=table.gap_margin(spread.gap_errors[:, row], table.counted_subjects(run, key)),
            permuted=spread.permuted_gaps[:, row, table.index],
            confidence=table.settings.confidence,
            bounds=(0.0, bounds_of(key)[1]),
        )
        if not found and not gaps[key]["reason"]:
            gaps[key]["groups_compared"] = int((table.counted_subjects(run, key) >= 0).sum())
        rule = key.partition("@")[2]
        if rule and table.target.runs[run].rules[rule].reason:
            gaps[key]["reason"] = gaps[key]["seeds"]["reason"] = table.target.runs[run].rules[rule].reason
    return gaps


def _ends(table: TargetTable, found: Estimates) -> tuple[list[tuple[str, float]], list[tuple[str, str]]]:
    """Groups that take part in a gap with their values, and the others with their reasons."""
    names, mean = table.grouping.names, found.mean
    ends = [(name, float(value)) for name, value, kept in zip(names, mean, found.counted, strict=True) if kept]
    return ends, [(name, reason) for name, reason in zip(names, found.left_out, strict=True) if reason]


def _left_out_of_odds(table: TargetTable, run: int, key: str) -> list[tuple[str, str]]:
    rule = key.partition("@")[2]
    parts = [table.estimates[run][f"{name}@{rule}"] for name in ("tpr", "fpr")]
    return [pair for found in parts for pair in _ends(table, found)[1]]


def adjust_gaps(tables: list[Record], runs: list[str]) -> None:
    """Fill in Holm's adjusted p over all ``tables``, for each run and quantity."""
    for run in runs if tables else ():
        for quantity in tables[0]["gaps"][run]:
            family = [table["gaps"][run][quantity] for table in tables]
            for gap, adjusted in zip(family, holm([gap["p"] for gap in family]), strict=True):
                gap["p_holm"] = float(adjusted)
                gap["holm_over"] = int(sum(not np.isnan(other["p"]) for other in family))
