"""``registration.csv`` as what the page prints of it: counts, reasons, summary, and which subjects are shown."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from monai_fair.data.tables import describe_cells, read_table
from monai_fair.errors import RegistrationError, raise_problems
from monai_fair.report.cells import Cell, cell_of
from monai_fair.report.quantities import Record
from monai_fair.report.registration_measures import BEFORE, MEASURE, MEASURES, SUFFIXES, Measure, Stage, stages_of

STATUS = ("registered", "failed")
_SUBJECT = re.compile(r"(?!\.+$)[A-Za-z0-9_.-]+")
_COLUMNS = [f"{measure.key}{suffix}" for measure in MEASURES for suffix in SUFFIXES]
_REASONS, _NAMED = 20, 5  # rows of the table of reasons, subjects named in each


def read_registration(path: str | Path) -> pd.DataFrame:
    """Read and check ``registration.csv``.

    Args:
        path: the file; ``subject_id`` and ``status`` are needed, every other column may be absent.

    Returns:
        One row per subject: text ``subject_id``, ``split``, ``status`` and ``reason`` (empty where the file has none),
        and as floats the measures that the file has, NaN where a cell is empty.

    Raises:
        RegistrationError: with every problem of the file, by line and column.
    """
    table = read_table(path, RegistrationError)
    problems = [
        f"expected a column '{name}', found none; add it" for name in ("subject_id", "status") if name not in table
    ]
    if not len(table):
        problems.append("expected at least one row, got none")
    raise_problems(RegistrationError, path, problems)
    subject = table["subject_id"]
    rules = [
        # it becomes part of the names of files that are read
        ("subject_id", "letters, digits, '_', '.' or '-' only", ~subject.map(_is_subject)),
        ("subject_id", "one row per subject", subject.duplicated(keep="first")),
        ("status", f"one of {', '.join(STATUS)}", ~table["status"].isin(STATUS)),
    ]
    values = {}
    for name in _COLUMNS:
        if name in table:
            values[name] = pd.to_numeric(table[name], errors="coerce").astype(np.float64)
            told = ~table[name].str.lower().isin(["", "nan"])
            rules.append((name, "a finite number or nothing", told & ~np.isfinite(values[name])))
    for column, expected, bad in rules:
        problems += describe_cells(table, column, bad, expected)
    raise_problems(RegistrationError, path, problems)
    texts = {name: table.get(name, "") for name in ("subject_id", "split", "status", "reason")}
    return pd.DataFrame({**texts, **values}, index=table.index)


def registered(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of subjects that were registered."""
    return table[table["status"] == "registered"]


def counts_by_split(table: pd.DataFrame) -> list[Record]:
    """Return how many subjects of each split were registered and how many failed, in the order of the file."""
    return [
        {
            "split": str(split) or "not said",
            "n": f"{len(rows):,}",
            "registered": f"{len(registered(rows)):,}",
            "failed": f"{len(rows) - len(registered(rows)):,}",
        }
        for split, rows in table.groupby("split", sort=False)
    ]


def failures(table: pd.DataFrame) -> Record:
    """Return why subjects failed: a row per reason, the most frequent first, and how many subjects are not shown."""
    failed = table[table["status"] == "failed"]
    groups = [(str(reason), list(rows["subject_id"])) for reason, rows in failed.groupby("reason", sort=False)]
    groups.sort(key=lambda group: -len(group[1]))
    rows = [
        {"reason": reason or "no reason given", "n": f"{len(names):,}", "subjects": _named(names)}
        for reason, names in groups[:_REASONS]
    ]
    return {"rows": rows, "rest": sum(len(names) for _, names in groups[_REASONS:])}


def summary(table: pd.DataFrame) -> Record:
    """Return the table of measures: median, quartiles and worst subject of each at each stage.

    Args:
        table: of subjects that were registered.

    Returns:
        ``heads`` of the stages, and ``rows``: name, definition, how many subjects have a value, and a cell per stage.
    """
    stages = stages_of([str(name) for name in table])
    rows = []
    for measure in MEASURES:
        columns = [stage.column(measure) for stage in stages]
        found = [table[name].notna().sum() for name in columns if name in table]
        if found:
            few, many = min(found), max(found)
            rows.append(
                {
                    "head": measure.head,
                    "words": measure.words,
                    "n": f"{many:,}" if few == many else f"{few:,} to {many:,}",
                    "cells": [_cell(table, name, measure) for name in columns],
                }
            )
    return {"heads": [stage.name for stage in stages], "rows": rows}


def shown_subjects(table: pd.DataFrame) -> tuple[Measure | None, list[tuple[str, str]]]:
    """Return the measure that ranks subjects, and the best, the median and the worst of them.

    The endpoint error ranks where any subject has one, else the local correlation; equal subjects stand in the order
    of the file. Of an even number the better one of the two in the middle is taken.

    Args:
        table: of subjects that were registered.

    Returns:
        The measure, or None if no subject has a value; and pairs of rank and ``subject_id``, three at most.
    """
    for measure in (MEASURE["endpoint_error_mm"], MEASURE["similarity"]):
        if measure.key in table and table[measure.key].notna().any():
            ranked = table[table[measure.key].notna()].sort_values(
                measure.key, ascending=measure.worse == "highest", kind="stable"
            )
            names = [str(name) for name in ranked["subject_id"]]
            places = {0: "Best", len(names) - 1: "Worst", (len(names) - 1) // 2: "Median"}
            if len(names) < 3:
                places = {0: "Best", len(names) - 1: "Worst"} if len(names) == 2 else {0: "Only"}
            return measure, [(places[place], names[place]) for place in sorted(places)]
    return None, []


def subject_facts(table: pd.DataFrame, subject_id: str) -> list[tuple[str, str]]:
    """Return the measures of one subject as pairs of name and text, with the value before where there is one."""
    row = table[table["subject_id"] == subject_id].iloc[0]
    said = [("Split", row["split"])] if row["split"] else []
    for measure in MEASURES:
        if measure.key in table:
            text = measure.value(row[measure.key])
            earlier = row.get(BEFORE.column(measure), np.nan)
            said.append((measure.name, text if np.isnan(earlier) else f"{text} (before: {measure.value(earlier)})"))
    return said


def stage_values(table: pd.DataFrame, measure: Measure, stages: Sequence[Stage]) -> list[tuple[int, pd.Series]]:
    """Return the defined values of ``measure`` at each stage that has any, with the number of the stage."""
    columns = [(place, stage.column(measure)) for place, stage in enumerate(stages)]
    found = [(place, table[name].dropna()) for place, name in columns if name in table]
    return [(place, values) for place, values in found if len(values)]


def _cell(table: pd.DataFrame, column: str, measure: Measure) -> Cell:
    if column not in table:
        return cell_of("")
    values = table[column].dropna()
    if not len(values):
        return cell_of("undefined", words=["no subject has a value"], quiet=True)
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    if low == high == values.min() == values.max():
        return cell_of(measure.number(middle), words=["the same for all" if len(values) > 1 else ""])
    words = []
    if measure.worse:
        place = int(np.argmin(values) if measure.worse == "lowest" else np.argmax(values))
        name = table.loc[values.index, "subject_id"].iloc[place]
        words = [f"worst {measure.number(values.iloc[place])}: {name}"]
    span = f"{measure.number(low)} to {measure.number(high)}"
    return cell_of(measure.number(middle), lines=[span], words=words)


def _is_subject(text: str) -> bool:
    return _SUBJECT.fullmatch(text) is not None


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
