"""Further tables of a dataset, joined to its rows by a key, or by the key and the nearest day."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_fair.data.named_tables import NamedTable, read_named_table
from monai_fair.errors import RecipeError, raise_problems

_ISO_DATE = r"\d{4}-\d{2}-\d{2}"
_KEY, _DAY, _VISIT, _PLACE = "\0key", "\0day", "\0visit", "\0place"  # no column of a file has such a name


@dataclass(frozen=True)
class JoinedRows:
    """Rows with the columns of another table.

    Attributes:
        rows: the rows with the new columns, empty where nothing fits.
        table: the other table.
        found: per row, whether it has a row there.
        note: how many rows have.
    """

    rows: pd.DataFrame
    table: NamedTable
    found: pd.Series
    note: str


def join_table(rows: pd.DataFrame, spec: Mapping[str, Any], root: Path, source: object) -> JoinedRows:
    """Bring columns of another table to the rows.

    Args:
        rows: the dataset's rows, of text.
        spec: a table as in :func:`monai_fair.data.named_tables.read_named_table`, ``keys`` (column here to column
            there), ``take`` (columns to bring) and, for tables with several rows per key, ``nearest``: ``here`` and
            ``there``, columns with a number of days or a date such as 2006-04-18, and ``within_days``. The row
            nearest in time brings its columns; rows there with an empty cell among them are passed over, and of two
            that are equally near the earlier one is taken.
        root: the dataset's folder.
        source: what the rows are, for messages.

    Returns:
        The rows with the new columns, and which of them found theirs.

    Raises:
        RecipeError: if a column is missing or has a name that is taken, a day is no number or date, or several rows
            of the table that differ have one key.
    """
    here, there = list(spec["keys"]), list(spec["keys"].values())
    nearest: Mapping[str, Any] | None = spec.get("nearest")
    take = list(spec["take"])
    table = read_named_table(spec, root, columns=[*there, *take] if "one_row_per" in spec else None)
    days = ([nearest["here"]], [nearest["there"]]) if nearest else ([], [])
    _check_columns(rows, source, [*here, *days[0]], f"to join {table.name}")
    _check_columns(table.rows, table.name, [*there, *take, *days[1]], "to join")
    taken = [f"column '{name}' of {table.name}: the dataset has one of this name" for name in take if name in rows]
    raise_problems(RecipeError, source, taken)
    left = _keys(rows, here)
    right = table.rows[take].apply(lambda column: column.str.strip()).assign(**{_KEY: _keys(table.rows, there)})
    if nearest:
        brought, found, note = _nearest(rows, left, table, right, nearest)
    else:
        there_once = _unique(right, table, there)
        brought, found = there_once.reindex(left), left.isin(there_once.index)
        note = f"{table.name}: {found.sum()} of {len(rows)} rows have a row there"
    joined = rows.copy()
    for name in take:
        joined[name] = pd.Series(brought[name].fillna("").tolist(), index=rows.index, dtype=str)
    return JoinedRows(joined, table, found, note)


def _check_columns(rows: pd.DataFrame, source: object, names: list[str], use: str) -> None:
    found = ", ".join(map(str, rows.columns))
    raise_problems(
        RecipeError,
        source,
        [f"expected a column '{name}' ({use}), found {found}" for name in dict.fromkeys(names) if name not in rows],
    )


def _keys(rows: pd.DataFrame, names: list[str]) -> pd.Series:
    """Join the key's cells to one text; a row with an empty one has no key."""
    cells = zip(*(rows[name].str.strip() for name in names), strict=True)
    return pd.Series(["\x1f".join(row) if all(row) else "" for row in cells], index=rows.index, dtype=str)


def _unique(right: pd.DataFrame, table: NamedTable, there: list[str]) -> pd.DataFrame:
    """Return one row per key; rows that say the same are one."""
    rows = right[right[_KEY] != ""].drop_duplicates()
    counts = rows[_KEY].value_counts()
    raise_problems(
        RecipeError,
        table.name,
        [
            f"expected one row per {' and '.join(there)}, found {n} that differ for '{str(key).replace(chr(31), ' ')}'"
            for key, n in counts[counts > 1].sort_index().items()
        ],
    )
    return rows.set_index(_KEY)


def _nearest(
    rows: pd.DataFrame, left: pd.Series, table: NamedTable, right: pd.DataFrame, nearest: Mapping[str, Any]
) -> tuple[pd.DataFrame, pd.Series, str]:
    """Return the row there that is nearest in time to each row here, which rows have one, and a note on how many."""
    within = int(nearest["within_days"])
    here, problems = _days(rows[nearest["here"]])
    there, found = _days(table.rows[nearest["there"]])
    raise_problems(RecipeError, table.name, problems + found)
    full = (right != "").all(axis=1) & there.notna()
    visits = right[full].assign(**{_DAY: there[full].astype(np.int64), _VISIT: there[full]})
    known = here[here.notna()].astype(np.int64)
    scans = pd.DataFrame({_PLACE: known.index, _KEY: left[known.index].to_numpy(), _DAY: known.to_numpy()})
    joined = pd.merge_asof(
        scans.sort_values(_DAY, kind="stable"),
        visits.sort_values(_DAY, kind="stable"),
        on=_DAY,
        by=_KEY,
        direction="nearest",
        tolerance=within,
    )
    apart = (joined[_DAY] - joined[_VISIT]).abs().dropna()
    furthest = f", at most {apart.max():g} apart" if len(apart) else ""
    note = f"{table.name}: {len(apart)} of {len(rows)} rows have a row there within {within} days{furthest}"
    brought = joined.set_index(_PLACE).reindex(rows.index)
    return brought, brought[_VISIT].notna(), note


def _days(column: pd.Series) -> tuple[pd.Series, list[str]]:
    """Turn numbers and dates into days, an empty cell into NaN; the second value says what is neither."""
    text = column.str.strip()
    dates = text.str.fullmatch(_ISO_DATE)
    day = pd.to_datetime(text.where(dates), format="%Y-%m-%d", errors="coerce")
    since = (day - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1)
    numbers = pd.to_numeric(text.where(~dates), errors="coerce").astype(np.float64)
    result = since.where(dates, numbers).astype(np.float64)
    bad = text[(text != "") & ~(np.isfinite(result) & (result % 1 == 0))].value_counts()
    wanted = f"a whole number of days or a date such as 2006-04-18 in '{column.name}'"
    return result, [f"expected {wanted}, got {value!r} in {count} rows" for value, count in bad.items()]
