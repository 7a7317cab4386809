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
        "overall": f"{first.name} of all cases: {joined(each)}.",
        "heads": [quantity.short_gap for quantity in (*shown[1:], first)],
        "bodies": [
            {
                "attribute": table["name"],
                "rows": [
                    {
                        "run": run,
                        "cells": [_gap(table["gaps"][run][quantity.key], quantity) for quantity in (*shown[1:], first)],
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


def _gap(gap: Record, quantity: Quantity) -> Cell:
    value = as_float(gap["value"])
    if math.isnan(value):
        return cell_of("undefined", words=[str(gap["reason"])], quiet=True)
    span = quantity.span(gap["low"], gap["high"])
    chance, p = as_float(gap["chance"]), as_float(gap["p"])
    lowest = f"lowest: {gap['lowest']['group']}" if gap["lowest"] else ""
    lines = [lowest, span, "" if math.isnan(p) else f"chance {quantity.number(chance)}, p {p_text(gap['p'])}"]
    return cell_of(quantity.number(value), lines=lines)
