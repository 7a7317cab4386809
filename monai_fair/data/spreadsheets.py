"""Spreadsheets (.xls, .xlsx) read as text, so that a dataset's own file needs no export by hand."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.errors import MonaiFairError, raise_problems

SUFFIXES = (".xls", ".xlsx")


def read_spreadsheet(
    path: str | Path, error: type[MonaiFairError], sheet: str | None = None, *, header_rows: int = 1
) -> pd.DataFrame:
    """Read one sheet whose first row, or first rows, are the header.

    Whole numbers are written without a point (``2``, although a sheet stores 2.0), other numbers with the digits that
    tell them apart, dates as ``2005-03-01``; an empty cell and an error value are the empty string. Rows without text
    are left out.

    Args:
        path: the file.
        error: the class to raise.
        sheet: name of the sheet; the first one if not given.
        header_rows: rows of the header. With several, a column is named by the lowest of its cells there that is not
            empty, so that headings over several columns, and cells merged over rows, do no harm.

    Returns:
        One row per row, every column of text.

    Raises:
        MonaiFairError: of class ``error``, if the file is missing, damaged or has no such sheet, or a column has no
            name or one that another has.
    """
    from python_calamine import CalamineError, CalamineWorkbook  # not needed for tables of text

    try:
        with CalamineWorkbook.from_path(str(path)) as book:
            names = book.sheet_names
            if sheet is not None and sheet not in names:
                raise error(f"{path}: expected a sheet '{sheet}', found {', '.join(names)}")
            cells = book.get_sheet_by_name(sheet or names[0]).to_python(skip_empty_area=False)
    except (CalamineError, OSError) as broken:
        raise error(f"{path}: expected a readable spreadsheet; {broken}") from broken
    rows = [[_cell_text(cell) for cell in row] for row in cells]
    header = [_lowest(column) for column in zip(*rows[:header_rows], strict=True)]
    below = rows[header_rows:]
    while header and not header[-1] and not any(row[len(header) - 1] for row in below):
        header.pop()  # cells that were once used widen the sheet
    problems = [f"expected one column '{name}', found {n}; keep one" for name, n in Counter(header).items() if n > 1]
    if "" in header or not header:
        where = "the first row" if header_rows == 1 else f"one of the first {header_rows} rows"
        problems.append(f"expected a name for every column in {where}")
    raise_problems(error, path, problems)
    filled = [row[: len(header)] for row in below if any(row)]
    return pd.DataFrame(filled, columns=header, dtype=str)


def _lowest(cells: Sequence[str]) -> str:
    return next((text.strip() for text in reversed(cells) if text.strip()), "")


def _cell_text(cell: Any) -> str:
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == time() else cell.isoformat(" ")
    return cell.isoformat() if isinstance(cell, date) else str(cell).strip()
