"""Results of an audit as what the page's template prints: texts and tables, with small cells masked."""

import math
from collections.abc import Sequence

from monai_fair.report.cells import Cell, cell_of
from monai_fair.report.figures import gap_figure, roc_figure
from monai_fair.report.masking import Mask
from monai_fair.report.quantities import AUC, Quantity, Record, as_float, counted, joined, p_text, predictive, rates
from monai_fair.report.sentences import gap_sentences, left_out, what_was_compared


def page_view(results: Record, *, show_small: bool = False) -> Record:
    """Return everything the template prints, except incidence and provenance.

    Args:
        results: of :func:`monai_fair.metrics.audit`, as computed or as read back from JSON.
        show_small: show cells below the least count instead of masking them.

    Returns:
        Texts, tables and figures.
    """
    mask = Mask(results["settings"]["min_count"], show_small)
    runs = [run["name"] for run in results["runs"]]
    return {
        "title": f"Differences between groups: {joined(runs)}",
        "runs": runs,
        "min_count": mask.least,
        "masking": not show_small,
        "level": f"{100 * results['settings']['confidence']:g}\u00a0%",
        "several_seeds": any(len(run["seeds"]) > 1 for run in results["runs"]),
        "settings": results["settings"],
        "notes": results["notes"],
        "targets": [_target_view(results, target, mask) for target in results["targets"]],
    }


def _target_view(results: Record, target: Record, mask: Mask) -> Record:
    runs = [run["name"] for run in results["runs"]]
    has_youden = any(not rules["youden"]["reason"] for rules in target["thresholds"].values())
    primary = "youden" if has_youden else "0.5"
    quantities = [AUC, *rates(primary)]
    single = [table for table in target["tables"] if len(table["attributes"]) == 1]
    several = [table for table in target["tables"] if len(table["attributes"]) > 1]
    return {
        "name": target["name"],
        "compared": what_was_compared(results, target, mask),
        "facts": _facts(results, target, mask),
        "rule": "the threshold chosen on validation" if has_youden else "the threshold 0.5",
        "who": _who(single, target["overall"], results, mask),
        "overall": _overall(target, runs, [*quantities, *predictive(primary)], mask),
        "found": [_found(results, target, table, quantities, mask) for table in single],
        "attributes": [_section(table, runs, quantities, mask) for table in single],
        "intersections": [_section(table, runs, quantities, mask) for table in several],
        "fixed": [_section(table, runs, list(rates("0.5")), mask) for table in single] if has_youden else [],
        "roc": roc_figure(results, target, mask),
        "gaps": gap_figure(results, target, quantities),
    }


def _facts(results: Record, target: Record, mask: Mask) -> list[tuple[str, str]]:
    seeds = {len(run["seeds"]) for run in results["runs"]}
    low, high = min(seeds), max(seeds)
    return [
        (f"{results['data']['n']:,}", f"{results['settings']['split']} cases"),
        (f"{results['data']['n_subjects']:,}", "subjects"),
        (mask.positives(target["overall"]), "positive"),
        (mask.prevalence_with_unit(target["overall"]), "prevalence"),
        (str(low) if low == high else f"{low} to {high}", "seeds per run"),
    ]


def _who(tables: Sequence[Record], overall: Record, results: Record, mask: Mask) -> list[Record]:
    n = results["data"]["n"]
    return [
        {
            "attribute": table["name"],
            "missing": mask.missing(table["n_missing"]),
            "rows": [
                {
                    "name": row["name"],
                    "n": mask.count(row["n"]),
                    "share": "masked" if mask.hides(row["n"]) else f"{100 * row['n'] / n:.1f}",
                    "n_positive": mask.positives(row),
                    "prevalence": mask.prevalence(row),
                }
                for row in table["groups"]
            ],
        }
        for table in [*tables, {"name": "everyone", "n_missing": 0, "groups": [overall]}]
    ]


def _found(results: Record, target: Record, table: Record, quantities: Sequence[Quantity], mask: Mask) -> Record:
    items = [
        {"quantity": quantity.words, "sentences": gap_sentences(results, target, table, quantity, mask)}
        for quantity in (*quantities[1:], quantities[0])
    ]
    return {"attribute": table["name"], "items": items}


def _section(table: Record, runs: Sequence[str], quantities: Sequence[Quantity], mask: Mask) -> Record:
    missing = table["n_missing"]
    return {
        "name": table["name"],
        "missing": counted(missing, "case") if not mask.hides(missing) else f"{mask.missing(missing)} cases",
        "heads": [quantity.short for quantity in quantities],
        "rows": [
            {
                "name": row["name"],
                "n": mask.count(row["n"]),
                "n_positive": mask.positives(row),
                "cells": [_value(row, quantity, run, mask) for quantity in quantities for run in runs],
            }
            for row in table["groups"]
        ],
        "gaps": [_gap_row(table, quantity, runs, mask) for quantity in quantities],
        "left_out": left_out(table, list(quantities), mask),
    }


def _value(row: Record, quantity: Quantity, run: str, mask: Mask) -> Cell:
    """A group's value, with its interval over cases and its interval over seeds."""
    if mask.hides_classes(row):
        return cell_of("masked", quiet=True)
    record = row["cells"][run][quantity.key]
    value = as_float(record["value"])
    if math.isnan(value):
        return cell_of("undefined", words=[mask.reason(record["reason"])], quiet=True)
    span = quantity.span(as_float(record["low"]), as_float(record["high"]))
    words = [] if span else [mask.reason(str(record["interval_reason"]))]
    seeds = quantity.span(as_float(record["seeds"]["low"]), as_float(record["seeds"]["high"]))
    return cell_of(quantity.number(value), lines=[span, f"seeds {seeds}" if seeds else ""], words=words)


def _change(record: Record, quantity: Quantity) -> Cell:
    value = as_float(record["value"])
    if math.isnan(value):
        return cell_of("undefined", words=[str(record["reason"])], quiet=True)
    span = quantity.span(as_float(record["low"]), as_float(record["high"]))
    sign = "+" if value > 0 else ""
    shared = counted(record["n"], "shared seed")
    return cell_of(sign + quantity.number(value), lines=[span, shared])


def _gap_row(table: Record, quantity: Quantity, runs: Sequence[str], mask: Mask) -> Record:
    short = quantity.name
    return {
        "name": short,
        "unit": quantity.unit,
        "cells": [cell for run in runs for cell in _gap_cells(table["gaps"][run][quantity.key], quantity, mask)],
        "changes": [_change(table["gap_differences"][run][quantity.key], quantity) for run in runs[1:]],
    }


def _gap_cells(gap: Record, quantity: Quantity, mask: Mask) -> list[Cell]:
    """Gap, chance and p of one run."""
    value = as_float(gap["value"])
    if math.isnan(value):
        undefined = cell_of("undefined", words=[mask.reason(str(gap["reason"]))], quiet=True)
        return [undefined, cell_of("", quiet=True), cell_of("", quiet=True)]
    seeds = quantity.span(as_float(gap["seeds"]["low"]), as_float(gap["seeds"]["high"]))
    ends = [f"low: {gap['lowest']['group']}", f"high: {gap['highest']['group']}"]
    chance, high = quantity.number(as_float(gap["chance"])), quantity.number(as_float(gap["chance_high"]))
    return [
        cell_of(quantity.number(value), lines=[f"seeds {seeds}" if seeds else ""], words=ends),
        cell_of(chance, lines=[f"95 of 100 up to {high}"]),
        cell_of(p_text(gap["p"]), lines=[f"Holm {p_text(gap['p_holm'])}"]),
    ]


def _overall(target: Record, runs: Sequence[str], quantities: Sequence[Quantity], mask: Mask) -> list[Record]:
    """One row per quantity, all cases together: a value per run, and the change from the first run."""
    row = target["overall"]
    return [
        {
            "name": quantity.words,
            "short": quantity.short,
            "n": mask.trials(row, quantity),
            "cells": [_value(row, quantity, run, mask) for run in runs],
            "changes": [
                cell_of("masked", quiet=True)
                if mask.hides_classes(row)
                else _change(row["differences"][run][quantity.key], quantity)
                for run in runs[1:]
            ],
        }
        for quantity in quantities
    ]
