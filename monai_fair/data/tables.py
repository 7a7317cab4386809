"""Tables as CSV files: written whole, read as text, and their bad cells described."""

from pathlib import Path

import numpy as np
import pandas as pd

from monai_fair.data.artifacts import atomic_path
from monai_fair.errors import MonaiFairError


def write_table(path: str | Path, table: pd.DataFrame) -> Path:
    """Write ``table`` as UTF-8 CSV without an index; missing cells are empty."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", na_rep="")
    return Path(path)


def read_table(path: str | Path, error: type[MonaiFairError], separator: str = ",") -> pd.DataFrame:
    """Read a CSV file as text, cell by cell as it stands.

    Nothing is guessed: ``001`` stays ``001`` and ``NA`` stays ``NA``; an empty cell is the empty string.

    Args:
        path: a CSV file in UTF-8, with a header line.
        error: the class to raise, so that a manifest problem is a ``ManifestError``.
        separator: the character between cells.

    Returns:
        One row per line, every column of text.

    Raises:
        MonaiFairError: of class ``error``, if the file is missing, empty, not UTF-8, or not a table.
    """
    try:
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, na_filter=False, encoding="utf-8-sig")
    except FileNotFoundError as missing:
        raise error(f"{path}: expected a CSV file, found none; check the path") from missing
    except (OSError, UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as broken:
        raise error(f"{path}: expected a CSV file in UTF-8 with a header line; {broken}") from broken


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
