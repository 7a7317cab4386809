"""Columns made from a dataset's own: a part of an id, several columns in one text, the age at a scan."""

import re
import string
from collections.abc import Mapping
from typing import Any

import pandas as pd

from monai_fair.errors import RecipeError, raise_problems

DAYS_PER_YEAR = 365.25


def inputs_of(made: Mapping[str, Any]) -> list[str]:
    """Return the columns that a made column reads."""
    if "from" in made:
        return [str(made["from"])]
    if "to" in made:
        return pattern_columns(made["to"])
    return [str(made[key]) for key in ("age_at_entry", "days", "entry_year", "year") if key in made]


def pattern_columns(pattern: str) -> list[str]:
    """Return the columns that a text pattern such as ``{image_id}.jpg`` is filled from."""
    return [name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None]


def make_columns(
    rows: pd.DataFrame, columns: Mapping[str, Mapping[str, Any]], source: object
) -> tuple[pd.DataFrame, dict[str, Mapping[str, Any]]]:
    """Add every column whose inputs are there; the others wait until images and joins bring them.

    Args:
        rows: the dataset's rows as text.
        columns: name to how it is made. ``to``: a text pattern filled from columns (``{ID:0>3}`` pads with zeros).
            ``from`` and ``match``: a regular expression that fits a whole cell, of which the first group is taken;
            with ``to``, its groups are laid out by number: ``{3}-{1}``. ``age_at_entry`` and ``days``: years at entry
            and days since then, at 365.25 days a year, written with four decimals. ``age_at_entry``, ``entry_year``
            and ``year``: years at entry and whole years since then, where days are not published. A row with an empty
            input has an empty cell.
        source: what the rows are, for messages.

    Returns:
        The rows with the columns that could be made, and those that could not.

    Raises:
        RecipeError: with every value that does not fit the expression or is no number, and every name that the
            dataset has already.
    """
    problems = [
        f"column '{name}': the dataset has one of this name; choose another" for name in columns if name in rows
    ]
    raise_problems(RecipeError, source, problems)
    ready, waiting = rows.copy(), dict(columns)
    while possible := [name for name, made in waiting.items() if all(need in ready for need in inputs_of(made))]:
        for name in possible:
            ready[name], found = _make(ready, waiting.pop(name))
            problems += [f"column '{name}': {problem}" for problem in found]
    raise_problems(RecipeError, source, problems)
    return ready, waiting


def _make(rows: pd.DataFrame, made: Mapping[str, Any]) -> tuple[pd.Series, list[str]]:
    if "from" in made:
        return _matched(rows[made["from"]].str.strip(), re.compile(made["match"]), made.get("to"))
    inputs = [rows[name].str.strip() for name in inputs_of(made)]
    full = pd.concat([column != "" for column in inputs], axis=1).all(axis=1)
    if "to" in made:
        names = inputs_of(made)
        text = [made["to"].format(**dict(zip(names, values, strict=True))) for values in zip(*inputs, strict=True)]
        return pd.Series(text, index=rows.index, dtype=str).where(full, ""), []
    return _age(inputs, full)


def _matched(column: pd.Series, pattern: re.Pattern[str], layout: str | None) -> tuple[pd.Series, list[str]]:
    matches = {text: pattern.fullmatch(text) for text in column.unique() if text != ""}
    chosen = layout or ("{1}" if pattern.groups else "{0}")
    texts = {
        text: chosen.format(match[0], *match.groups(default="")) for text, match in matches.items() if match is not None
    }
    counts = column[column.isin([text for text, match in matches.items() if match is None])].value_counts()
    problems = [
        f"expected {column.name} like '{pattern.pattern}', got {text!r} in {count} rows"
        for text, count in counts.items()
    ]
    return column.map(texts).fillna("").astype(str), problems


def _age(inputs: list[pd.Series], full: pd.Series) -> tuple[pd.Series, list[str]]:
    """Add the time since entry to the age there: days, or the difference of two calendar years."""
    numbers = [pd.to_numeric(column, errors="coerce") for column in inputs]
    problems = [
        f"expected a number in {column.name}, got {text!r} in {count} rows"
        for column, number in zip(inputs, numbers, strict=True)
        for text, count in column[number.isna() & (column != "")].value_counts().items()
    ]
    by_days = len(inputs) == 2
    years = numbers[0] + (numbers[1] / DAYS_PER_YEAR if by_days else numbers[2] - numbers[1])
    written = years.map(("{:.4f}" if by_days else "{:.10g}").format)
    return written.where(full & years.notna(), ""), problems
