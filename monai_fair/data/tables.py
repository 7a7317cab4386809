"""Tables as CSV or Parquet files: written whole, read as text, and their bad cells described."""

import csv
import gzip
import hashlib
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from monai_fair.data.artifacts import atomic_path
from monai_fair.errors import MonaiFairError, raise_problems

if TYPE_CHECKING:
    from _csv import Reader

CHUNK = 4096  # rows that stand in memory as Python text at a time; larger ones are slower too
_TEXT = pa.large_string()  # what pandas keeps text in; rows of one file may hold more than 2 GB
_GZIP = b"\x1f\x8b"  # no CSV file in UTF-8 starts with these bytes
_LINE_BREAK = "expected one line per row, got a cell with a line break; remove it"


def write_table(path: str | Path, table: pd.DataFrame) -> Path:
    """Write ``table`` as UTF-8 CSV without an index; missing cells are empty."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", na_rep="")
    return Path(path)


def table_sha256(table: pd.DataFrame) -> str:
    """Return the SHA-256 of the bytes that :func:`write_table` makes of ``table``."""
    return hashlib.sha256(table.to_csv(index=False, lineterminator="\n", na_rep="").encode("utf-8")).hexdigest()


def read_table(path: str | Path, error: type[MonaiFairError], separator: str = ",") -> pd.DataFrame:
    """Read a CSV or Parquet file as text, cell by cell as it stands.

    Nothing is guessed: ``001`` stays ``001`` and ``NA`` stays ``NA``; an empty cell is the empty string. Every row
    stands on one line and has as many cells as the header, so that problems can be told by line and a row that was
    cut short is not taken for missing values. Blank lines at the end are left out.

    A CSV file may be compressed with gzip, which its first bytes tell. A Parquet file is known by the suffix
    ``.parquet``; its numbers and booleans become the text Python prints (``7``, ``0.1``, ``True``), dates and times
    that of ISO 8601. A null or a NaN there is an empty cell, and rows are counted as lines of a CSV file, the first
    row as line 2.

    Args:
        path: a file with a header line in UTF-8, or with Parquet's columns.
        error: the class to raise, so that a manifest problem is a ``ManifestError``.
        separator: the character between cells of a CSV file.

    Returns:
        One row per line, every column of text, held by Arrow where pandas can (pandas 3).

    Raises:
        MonaiFairError: of class ``error``, if the file is missing, empty, damaged, not UTF-8, or not a table; with
            every line that does not fit the header.
    """
    parquet = Path(path).suffix.lower() == ".parquet"
    kind = "Parquet" if parquet else "CSV"
    wanted = "a readable Parquet file" if parquet else "a CSV file in UTF-8 with a header line"
    try:
        names, columns, problems = _read_parquet(path) if parquet else _read_csv(path, separator)
    except FileNotFoundError as missing:
        raise error(f"{path}: expected a {kind} file, found none; check the path") from missing
    except (gzip.BadGzipFile, EOFError, zlib.error) as broken:
        raise error(f"{path}: expected a whole gzip file; {broken}; copy it again") from broken
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as broken:
        raise error(f"{path}: expected {wanted}; {broken}") from broken
    if not names and not problems:
        raise error(f"{path}: expected {wanted}; it is empty")
    raise_problems(error, path, problems)
    # pandas before 3 has no text type of its own and makes objects
    table: pd.DataFrame = pa.table(columns, names=names).to_pandas().astype(str)
    return table


def _header_problems(header: Sequence[str]) -> list[str]:
    problems = [f"expected one column '{name}', found {n}; keep one" for name, n in Counter(header).items() if n > 1]
    if "" in header:
        problems.append(f"line 1: expected a name for every column, column {list(header).index('') + 1} has none")
    return problems


@contextmanager
def _open_text(path: str | Path) -> Iterator[TextIO]:
    with Path(path).open("rb") as file:
        packed = Path(path).suffix.lower() == ".gz" or file.read(len(_GZIP)) == _GZIP
    with (gzip.open if packed else open)(path, "rt", encoding="utf-8-sig", newline="") as text:
        yield text


def _read_csv(path: str | Path, separator: str) -> tuple[list[str], list[pa.Array], list[str]]:
    """Return the header, the columns of text, and the problems; a file without any text has no header."""
    with _open_text(path) as file:
        # pandas would skip blank lines, fill short rows and, where all rows are longer, shift the columns
        reader = csv.reader(file, delimiter=separator, strict=True)
        header = next(reader, [])
        problems = _header_problems(header)
        columns: list[list[pa.Array]] = [[] for _ in header]
        line = 1
        for line, rows, several in _row_chunks(reader):
            problems += _line_problems(rows, line, len(header), several=several)
            if several:
                break  # lines cannot be told any more
            if not problems:
                for column, cells in zip(columns, zip(*rows, strict=True), strict=True):
                    column.append(pa.array(cells, _TEXT))
    if line == 1 and not any(header):
        return [], [], []
    return header, [_joined(column) for column in columns], problems


def _row_chunks(reader: "Reader") -> Iterator[tuple[int, list[list[str]], bool]]:
    """Yield the line of the first row, some rows, and whether one of them stands on several lines.

    Rows without text are left out at the end of the file.
    """
    line, above = 2, reader.line_num
    blank: list[list[str]] = []
    while read := list(islice(reader, CHUNK)):
        rows = blank + read
        several = reader.line_num - above != line - 2 + len(rows)
        filled = len(rows)
        while filled and not any(rows[filled - 1]):
            filled -= 1
        rows, blank = rows[:filled], rows[filled:]
        if rows:
            yield line, rows, several
        line += filled


def _line_problems(rows: Sequence[Sequence[str]], first: int, width: int, *, several: bool) -> Iterator[str]:
    if not several and {len(row) for row in rows} == {width}:
        return
    for line, row in enumerate(rows, start=first):
        if several and any("\n" in cell or "\r" in cell for cell in row):
            yield f"line {line}: {_LINE_BREAK}"
            return
        if len(row) != width:
            yield f"line {line}: expected {width} cells as in the header, got {len(row)}"


def _read_parquet(path: str | Path) -> tuple[list[str], list[pa.Array], list[str]]:
    """Return the names of the columns, the columns as text, and the problems."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        names = list(file.schema_arrow.names)
        problems = _header_problems(names)
        problems += [
            f"column '{field.name}': expected text, numbers, booleans or dates, got {field.type}; leave it out"
            for field in file.schema_arrow
            if pa.types.is_nested(field.type) or isinstance(field.type, pa.BaseExtensionType)
        ]
        columns: list[list[pa.Array]] = [[] for _ in names]
        line = 2
        for batch in file.iter_batches(CHUNK) if not problems else ():
            texts = [_as_text(name, values) for name, values in zip(names, batch.columns, strict=True)]
            broken = np.logical_or.reduce([pc.match_substring_regex(text, "[\r\n]") for text in texts])
            if broken.any():
                problems.append(f"line {line + int(broken.argmax())}: {_LINE_BREAK}")
                break
            for column, text in zip(columns, texts, strict=True):
                column.append(text)
            line += len(broken)
    return names, [_joined(column) for column in columns], problems


def _joined(chunks: list[pa.Array]) -> pa.Array:
    """Join the chunks of a column, because taking rows from many chunks is slow."""
    return pa.concat_arrays(chunks) if chunks else pa.array([], _TEXT)


def _as_text(name: str, values: pa.Array) -> pa.Array:
    """Write every value as Python prints it, a float with the digits that tell it apart; null and NaN are empty."""
    try:
        if pa.types.is_dictionary(values.type):
            return _as_text(name, values.dictionary_decode())
        if pa.types.is_floating(values.type):
            numbers = values.to_numpy(zero_copy_only=False)
            text = pa.array(np.where(np.isnan(numbers), "", numbers.astype(str)).tolist(), _TEXT)
        elif pa.types.is_boolean(values.type):
            text = pc.if_else(values, "True", "False").cast(_TEXT)
        else:
            text = values.cast(_TEXT)
        text.validate(full=True)  # Parquet does not promise UTF-8, and pandas would not look
    except pa.ArrowException as broken:
        raise pa.ArrowInvalid(f"column '{name}': {broken}") from broken
    return text.fill_null("")


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
