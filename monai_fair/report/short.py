"""What a page says in its first minute: what was found, and what every run makes of the gaps."""

import math
from collections.abc import Sequence

from monai_fair.report.cells import Cell, cell_of
from monai_fair.report.masking import Mask
from monai_fair.report.quantities import Quantity, Record, as_float, joined, p_text
from monai_fair.report.tables import value_cell


def short_view(
    target: Record, tables: Sequence[Record], runs: Sequence[str], shown: Sequence[Quantity], mask: Mask
) -> Record:
    """Return one table of the gaps of every attribute and run, and the first quantity of all cases.

    Args:
        target: of the results of an audit.
        tables: those of single attributes.
        runs: names.
        shown: quantities; the first is also said of all cases together.
        mask: of all cases.
    """
    first = shown[0]
    each = [f"{run} {_overall(target['overall'], first, run, mask)}" for run in runs]
    return {
        "overall": f"{first.name} of all {mask.n(target['overall'])} cases: {joined(each)}.",
        "heads": [quantity.short_gap for quantity in (*shown[1:], first)],
        "bodies": [
            {
                "attribute": table["name"],
                "rows": [
                    {
                        "run": run,
                        "cells": [_gap(table, run, quantity) for quantity in (*shown[1:], first)],
                    }
                    for run in runs
                ],
            }
            for table in tables
        ],
    }


def _overall(row: Record, quantity: Quantity, run: str, mask: Mask) -> str:
    cell = row["cells"][run][quantity.key]
    text = str(value_cell(row, quantity, run, mask)["text"])
    span = "" if mask.hides_values(row) else quantity.span(cell["low"], cell["high"])
    return f"{text} ({span})" if span else text


def _gap(table: Record, run: str, quantity: Quantity) -> Cell:
    gap = table["gaps"][run][quantity.key]
    value = as_float(gap["value"])
    if math.isnan(value):
        return cell_of("undefined", words=[str(gap["reason"])], quiet=True)
    chance, p = as_float(gap["chance"]), as_float(gap["p"])
    lines = [quantity.span(gap["low"], gap["high"])]
    if not math.isnan(p):
        lines += [f"chance {quantity.number(chance)}", f"p {p_text(gap['p'])}, Holm {p_text(gap['p_holm'])}"]
    words = [f"lowest: {gap['lowest']['group']}"] if gap["lowest"] else []
    changes = table["gap_differences"].get(run, {})  # the first run has none
    return cell_of(quantity.number(value), lines=lines + _change(changes.get(quantity.key), quantity), words=words)


def _change(change: Record | None, quantity: Quantity) -> list[str]:
    """Return how the gap differs from that of the first run."""
    if change is None or math.isnan(as_float(change["value"])):
        return []
    span = quantity.span(change["cases"]["low"], change["cases"]["high"])
    p = "" if math.isnan(as_float(change["p"])) else f"p {p_text(change['p'])}"
    return [f"change {quantity.signed(as_float(change['value']))}", ", ".join(filter(None, [span, p]))]
