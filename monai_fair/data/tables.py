"""Tables as CSV files: written whole, read as text, and their bad cells described."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from monai_fair.data.artifacts import atomic_path
from monai_fair.errors import MonaiFairError, raise_problems


def write_table(path: str | Path, table: pd.DataFrame) -> Path:
    """Write ``table`` as UTF-8 CSV without an index; missing cells are empty."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", na_rep="")
    return Path(path)


def read_table(path: str | Path, error: type[MonaiFairError], separator: str = ",") -> pd.DataFrame:
    """Read a CSV file as text, cell by cell as it stands.

    Nothing is guessed: ``001`` stays ``001`` and ``NA`` stays ``NA``; an empty cell is the empty string. Every row
    stands on one line and has as many cells as the header, so that problems can be told by line and a row that was
    cut short is not taken for missing values. Blank lines at the end are left out.

    Args:
        path: a CSV file in UTF-8, with a header line.
        error: the class to raise, so that a manifest problem is a ``ManifestError``.
        separator: the character between cells.

    Returns:
        One row per line, every column of text.

    Raises:
        MonaiFairError: of class ``error``, if the file is missing, empty, not UTF-8, or not a table; with every
            line that does not fit the header.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            # pandas would skip blank lines, fill short rows and, where all rows are longer, shift the columns
            rows = list(csv.reader(file, delimiter=separator, strict=True))
    except FileNotFoundError as missing:
        raise error(f"{path}: expected a CSV file, found none; check the path") from missing
    except (OSError, UnicodeDecodeError, csv.Error) as broken:
        raise error(f"{path}: expected a CSV file in UTF-8 with a header line; {broken}") from broken
    while rows and not any(rows[-1]):
        rows.pop()
    if not rows:
        raise error(f"{path}: expected a CSV file in UTF-8 with a header line; it is empty")
    header, body = rows[0], rows[1:]
    raise_problems(error, path, _shape_problems(header, body))
    return pd.DataFrame(body, columns=pd.Index(header, dtype=str), dtype=str)


def _shape_problems(header: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    problems = [f"expected one column '{name}', found {n}; keep one" for name, n in Counter(header).items() if n > 1]
    if "" in header:
        problems.append(f"line 1: expected a name for every column, column {list(header).index('') + 1} has none")
    for line, row in enumerate(body, start=2):
        if any("\n" in cell or "\r" in cell for cell in row):
            problems.append(f"line {line}: expected one line per row, got a cell with a line break; remove it")
            break  # lines cannot be told any more
        if len(row) != len(header):
            problems.append(f"line {line}: expected {len(header)} cells as in the header, got {len(row)}")
    return problems


def describe_cells(table: pd.DataFrame, column: str, bad: pd.Series, expected: str) -> list[str]:
    """Describe all bad cells of a column in one sentence: the first is quoted, the others are listed by line.

    Args:
        table: text, in file order.
        column: the column.
        bad: true for a row that breaks the rule.
        expected: the rule in words.

    Returns:
        No sentence or one. Lines count from 1 at the header, as an editor shows them.
    """
    lines = np.flatnonzero(bad.to_numpy()) + 2
    if not len(lines):
        return []
    first = table[column].iloc[lines[0] - 2]
    others = ", ".join(map(str, lines[1:6])) + (", ..." if len(lines) > 6 else "")
    more = f"; {len(lines) - 1} more rows have this: lines {others}" if len(lines) > 1 else ""
    return [f"line {lines[0]}, column '{column}': expected {expected}, got '{first}'{more}"]
