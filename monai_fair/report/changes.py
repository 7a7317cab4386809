"""Before and after: what a later run changes in every group and in every gap, and FATE."""

import math
from collections.abc import Sequence

from monai_fair.report.cells import cell_of
from monai_fair.report.masking import Mask
from monai_fair.report.quantities import Quantity, Record, as_float, counted, level_text
from monai_fair.report.tables import change_cell

_FATE_OF = {"equalized_odds": ("accuracy", "the gap in equalized odds"), "auc": ("the AUC", "the gap in the AUC")}


def changes_view(
    results: Record, table: Record, shown: Sequence[Quantity], gaps: Sequence[Quantity], mask: Mask
) -> Record:
    """Return the changes of one attribute or intersection, from the first run to each later one.

    Args:
        results: of the audit, with at least two runs.
        table: of the results.
        shown: quantities of the table of groups.
        gaps: quantities of the table of gaps.
        mask: of the table.
    """
    later = [run["name"] for run in results["runs"][1:]]
    return {
        "name": table["name"],
        "single": len(table["attributes"]) == 1,
        "heads": [quantity.short_gap for quantity in shown],
        "rows": [
            {
                "name": row["name"],
                "n": mask.n(row),
                "cells": [
                    cell_of("masked", quiet=True)
                    if mask.hides_values(row)
                    else change_cell(row["differences"][run][quantity.key], quantity)
                    for quantity in shown
                    for run in later
                ],
            }
            for row in table["groups"]
        ],
        "gap_heads": [quantity.short_gap for quantity in gaps],
        "gaps": [
            {
                "run": run,
                "cells": [change_cell(table["gap_differences"][run][quantity.key], quantity) for quantity in gaps],
            }
            for run in later
        ],
        "fate": [
            fate_words(results, run, key, table["fate"][run][key])
            for run in later
            for key in table["fate"][run]
            if key in {quantity.key for quantity in gaps}
        ],
    }


def tests_used(table: Record, shown: Sequence[Quantity]) -> str:
    """Name the paired tests behind the p values: ``paired DeLong (AUC), paired permutation of subjects (TPR, FPR)``."""
    found: dict[str, list[str]] = {}
    for row in table["groups"]:
        for changes in row["differences"].values():
            for quantity in shown:
                names = found.setdefault(changes[quantity.key]["test"], [])
                if quantity.name not in names:
                    names.append(quantity.name)
    return ", ".join(f"{test} ({', '.join(names)})" for test, names in found.items() if test)


def fate_words(results: Record, run: str, key: str, record: Record) -> str:
    """Say what FATE of a later run is and what its sign means."""
    performance, gap = _FATE_OF[key.split("@")[0]]
    baseline = results["baseline"]
    value = as_float(record["value"])
    head = f"FATE of {performance} and {gap}, {run} against {baseline}:"
    if math.isnan(value):
        return f"{head} undefined, {record['reason']}."
    low, high = as_float(record["low"]), as_float(record["high"])
    spread = f"{level_text(results['settings']['confidence'])} interval over seeds {_two(low)} to {_two(high)}"
    if math.isnan(low):
        spread = str(record["reason"])
    sign = "gains outweigh losses" if value > 0 else "losses outweigh gains"
    if value == 0:
        sign = "gains and losses are equal"
    across = "; the interval reaches to both sides of 0" if low < 0 < high else ""
    return (
        f"{head} {_two(value)} ({spread}; {counted(record['n'], 'shared seed')}). Relative to {baseline}, and with "
        f"both taken together, {sign}{across}."
    )


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")
