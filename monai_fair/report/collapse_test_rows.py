"""Tables of tests on the page of a study of neural collapse: arms compared, SPLIT test, orders of experiments."""

import math
from collections.abc import Sequence

from monai_fair.report.cells import Cell, cell_of
from monai_fair.report.collapse_difference_figure import significance_mark
from monai_fair.report.collapse_words import (
    PARTS,
    chosen,
    group_name,
    is_few,
    measure_name,
    number,
    p_words,
    seeds,
    signed,
    small,
)
from monai_fair.report.collapse_words import span as written_span
from monai_fair.report.quantities import Record, as_float


def comparison_bodies(rows: Sequence[Record], experiments: Sequence[Record]) -> list[Record]:
    """Return comparisons of both arms, a body per experiment.

    Args:
        rows: of the results; those without ``checkpoint`` have none.
        experiments: of the results.
    """
    bodies = [
        {"name": own["name"], "rows": [_comparison(row, own) for row in chosen(rows, experiment=own["name"])]}
        for own in experiments
    ]
    return [body for body in bodies if body["rows"]]


def _comparison(row: Record, experiment: Record) -> Record:
    measure = row["measure"]
    of_f1 = measure == "f1" and is_few(row)
    return {
        "checkpoint": row.get("checkpoint") or "",
        "measure": measure_name(measure),
        "part": row["part"] if measure == "f1" else PARTS[row["part"]],
        "group": group_name(row, experiment) or "all",
        "counts": _counts_text(row),
        "few": of_f1,
        "means": [number(measure, row[key]) for key in ("mean_first", "mean_later")],
        "difference": _difference(row),
        "tests": _tests(row),
        "n": [row["n_first"], row["n_later"]],
    }


def _counts_text(row: Record) -> str:
    n, positive = as_float(row.get("group_n")), as_float(row.get("group_n_positive"))
    return "" if math.isnan(n) or math.isnan(positive) else f"n {n:,.0f}, {positive:,.0f} positive"


def _difference(row: Record) -> Cell:
    measure = row["measure"]
    if math.isnan(as_float(row["difference"])):
        return cell_of("undefined", words=[str(row["reason"])], quiet=True)
    interval = written_span(measure, row["low"], row["high"])
    words = [] if interval else [str(row["interval_reason"])]
    return cell_of(signed(measure, row["difference"]), lines=[interval], words=words)


def _tests(row: Record) -> list[str]:
    """Return U, p with its mark and method, p after Holm's adjustment, and the smallest p there can be."""
    p = as_float(row["p"])
    if math.isnan(p):
        return ["", "undefined", "", small(row["p_smallest"])]
    ties = " (ties)" if row["method"] == "asymptotic" else ""
    own = f"{small(p)}{ties} {significance_mark(row)}".strip()
    return [f"{as_float(row['u']):g}", own, small(row["p_holm"]), small(row["p_smallest"])]


def agreement_rows(results: Record) -> list[Record]:
    """Return a row per arm and checkpoint: Kendall's tau of separability and SPLIT test over experiments."""
    rows = []
    for row in results["split"]["agreement"]:
        if math.isnan(as_float(row["tau"])):
            cell = cell_of("undefined", words=[str(row["reason"])], quiet=True)
        else:
            cell = cell_of(number("auc", row["tau"]), lines=["ties" if row["method"] == "asymptotic" else ""])
        p = [small(row[key]) if not math.isnan(as_float(row[key])) else "" for key in ("p", "p_smallest")]
        rows.append({"arm": row["arm"], "checkpoint": row["checkpoint"], "n": row["n"], "tau": cell, "p": p})
    return rows


def split_bodies(results: Record) -> list[Record]:
    """Return for every experiment a row per arm: separability, SPLIT test early and final, and the change."""
    split = results["split"]
    bodies = []
    for own in results["experiments"]:
        rows = []
        for change in chosen(split["changes"], experiment=own["name"]):
            points = chosen(split["points"], experiment=own["name"], arm=change["arm"])
            rows.append({"arm": change["arm"], "n": change["n"], "cells": _split_cells(points, change)})
        bodies.append({"name": own["name"], "rows": rows})
    return [body for body in bodies if body["rows"]]


def _split_cells(points: Sequence[Record], change: Record) -> list[Cell]:
    by_checkpoint = {point["checkpoint"]: point for point in points}
    seen = _auc_cell(by_checkpoint.get("final"), "separability")
    read = [_auc_cell(by_checkpoint.get(checkpoint), "split") for checkpoint in ("early", "final")]
    if math.isnan(as_float(change["difference"])):
        return [seen, *read, cell_of("undefined", words=[str(change["reason"])], quiet=True)]
    lines = [
        written_span("auc", change["low"], change["high"]),
        p_words(change),
        f"smallest {small(change['p_smallest'])}",
    ]
    words = [str(change["reason"])] if change["reason"] else []
    return [seen, *read, cell_of(signed("auc", change["difference"]), lines=lines, words=words)]


def _auc_cell(point: Record | None, kind: str) -> Cell:
    if point is None or math.isnan(as_float(point[f"{kind}_mean"])):
        reason = str((point or {}).get("reason") or "not in the results")
        return cell_of("undefined", words=[reason], quiet=True)
    sd = as_float(point[f"{kind}_sd"])
    lines = ["" if math.isnan(sd) else f"± {number('auc', sd)}", seeds(point["n"])]
    return cell_of(number("auc", point[f"{kind}_mean"]), lines=lines)
