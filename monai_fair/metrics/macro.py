"""Macro averages of a task of several classes: the mean over classes of each against the rest."""

from collections.abc import Sequence

import numpy as np

from monai_fair.metrics.definitions import METRICS
from monai_fair.metrics.records import Record

NO_INTERVAL = "classes are audited one by one, so a mean over them has no interval"


def macro_averages(targets: Sequence[Record], runs: Sequence[str]) -> Record:
    """Return the mean over classes of every quantity, overall and in every group, and the gap of that mean.

    Args:
        targets: one per class, as the audit returns them.
        runs: names of the runs.

    Returns:
        ``reason`` why there are no intervals, ``overall`` and ``tables``. Each value stands beside the number of
        classes and, where a class leaves it undefined, the reason; a gap lists the groups left out.
    """
    tables = []
    for index, table in enumerate(targets[0]["tables"]):
        rows = [[target["tables"][index]["groups"][row] for target in targets] for row in range(len(table["groups"]))]
        groups = [{"name": of_row[0]["name"], "n": of_row[0]["n"], "cells": _means(of_row, runs)} for of_row in rows]
        gaps = {run: {key: _gap(groups, run, key) for key in _keys(targets, run)} for run in runs}
        tables.append({"name": table["name"], "groups": groups, "gaps": gaps})
    overall = _means([target["overall"] for target in targets], runs)
    return {"reason": NO_INTERVAL, "overall": overall, "tables": tables}


def _keys(targets: Sequence[Record], run: str) -> list[str]:
    return [key for key in targets[0]["overall"]["cells"][run] if key.partition("@")[0] in METRICS]


def _means(rows: Sequence[Record], runs: Sequence[str]) -> Record:
    return {
        run: {key: _mean([row["cells"][run][key] for row in rows]) for key in rows[0]["cells"][run]} for run in runs
    }


def _mean(cells: Sequence[Record]) -> Record:
    undefined = [f"class {label}: {cell['reason']}" for label, cell in enumerate(cells) if cell["reason"]]
    value = float(np.mean([cell["value"] for cell in cells]))
    return {"value": value, "n_classes": len(cells), "reason": "; ".join(undefined) or None}


def _gap(groups: Sequence[Record], run: str, key: str) -> Record:
    values = {group["name"]: group["cells"][run][key] for group in groups}
    defined = [cell["value"] for cell in values.values() if not cell["reason"]]
    left_out = [{"group": name, "reason": cell["reason"]} for name, cell in values.items() if cell["reason"]]
    value = max(defined) - min(defined) if len(defined) > 1 else float("nan")
    reason = None if len(defined) > 1 else "fewer than two groups to compare"
    return {"value": value, "groups_compared": len(defined), "left_out": left_out, "reason": reason}
