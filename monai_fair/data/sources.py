"""Where a recipe's rows come from: a table, or one ``.npz`` file per image; and where its images lie."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from monai_fair.data.named_tables import NamedTable, names_of, read_named_table
from monai_fair.errors import ImageFileError, RecipeError, raise_problems


def read_source(source: Mapping[str, Any], root: Path) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Read the rows of a dataset as text.

    Args:
        source: ``table``: file names to try, in order, see :func:`monai_fair.data.named_tables.read_named_table`; or
            ``npz``: glob patterns under the root, with ``columns``, the scalar arrays of each file to read. ``more``:
            name to a further table of the same columns, whose rows follow. ``origin``: a column to add, and what it
            says in rows of the first table; in those of a further table it says that table's name.
        root: the dataset's folder.

    Returns:
        The rows, a record of the files read (the first table first), and notes on repeated rows. Rows from ``.npz``
        files have three more columns: ``file`` (path under the root), ``stem`` (its name without suffix) and
        ``folder`` (name of its folder).

    Raises:
        RecipeError: if no file is found, tables have other columns, or an array is missing or not a scalar.
        ImageFileError: if a file cannot be read.
    """
    if not root.is_dir():
        raise RecipeError(f"{root}: expected the dataset's folder, found none; check --root")
    if "table" in source:
        further = {str(name): {**source, "table": names} for name, names in source.get("more", {}).items()}
        tables = [read_named_table(spec, root) for spec in (source, *further.values())]
        for column, first in source.get("origin", {}).items():
            values = [str(first), *further]
            tables = [_from(table, column, value) for table, value in zip(tables, values, strict=True)]
        return _one_below_the_other(tables), {t.name: t.sha256 for t in tables}, [n for t in tables for n in t.notes]
    rows, record = _read_npz(names_of(source["npz"]), source["columns"], root)
    return rows, record, []


def _from(table: NamedTable, column: str, value: str) -> NamedTable:
    if column in table.rows:
        raise RecipeError(f"{table.name}: origin: the table has a column '{column}'; choose another name")
    return replace(table, rows=table.rows.assign(**{column: value}))


def _one_below_the_other(tables: Sequence[NamedTable]) -> pd.DataFrame:
    first = tables[0]
    for table in tables[1:]:
        wanted, found = (", ".join(map(str, rows)) for rows in (first.rows, table.rows))
        if set(table.rows) != set(first.rows):
            raise RecipeError(f"{table.name}: expected the columns of {first.name}, {wanted}; found {found}")
    return pd.concat([table.rows for table in tables], ignore_index=True) if len(tables) > 1 else first.rows


def _read_npz(patterns: list[str], columns: Sequence[str], root: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    files = sorted({file for pattern in patterns for file in root.glob(pattern)})
    if not files:
        raise RecipeError(f"{root}: expected files like {' or '.join(patterns)}, found none; check --root")
    rows, problems = [], []
    for file in files:
        place = {"file": file.relative_to(root).as_posix(), "stem": file.stem, "folder": file.parent.name}
        try:
            rows.append({**place, **_scalars(file, columns)})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            problems.append(f"{place['file']}: {error}")
    raise_problems(ImageFileError, root, problems)
    return pd.DataFrame(rows, dtype=str), {" ".join(patterns): f"{len(files)} files"}


@contextmanager
def open_npz(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """Open an ``.npz`` file without pickle; unlike ``np.load``, close it when it turns out not to be one."""
    with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
        yield arrays


def _scalars(file: Path, columns: Sequence[str]) -> dict[str, str]:
    """Read the named scalars of one file; numpy reads only these members of the archive."""
    with open_npz(file) as arrays:
        missing = [name for name in columns if name not in arrays]
        if missing:
            raise ValueError(f"expected the arrays {', '.join(missing)}, found {', '.join(arrays.files)}")
        values = {name: arrays[name] for name in columns}
    large = [name for name, value in values.items() if value.size != 1]
    if large:
        raise ValueError(f"expected one value each in {', '.join(large)}, got arrays")
    return {name: _text(value) for name, value in values.items()}


def _text(value: np.ndarray) -> str:
    """Write a scalar as a person would: 1.0 is ``1``, so that codes match; NaN is a missing value."""
    item = value.item()
    if isinstance(item, float):
        return "" if np.isnan(item) else f"{item:.10g}"
    return str(int(item)) if isinstance(item, bool) else str(item)


def locate_images(image: Mapping[str, Any], rows: pd.DataFrame, root: Path, *, table: str = "") -> pd.Series:
    """Find the image of every row.

    Args:
        image: ``file``, a pattern such as ``{image_id}.jpg`` filled from the row's columns; and either ``folders``, the
            folders under the root to look in, in order, or ``beside: table``: paths start from the folder of the
            dataset's table. With neither, paths start from the root and are not looked for. ``if_missing``:
            ``error`` or ``drop``.
        rows: the dataset's rows.
        root: the dataset's folder.
        table: path of the dataset's table under the root.

    Returns:
        Path under the root per row, with ``/`` between folders; empty where the image is not there and may be dropped.

    Raises:
        RecipeError: if images are missing, or a file of this name lies in two folders.
    """
    columns = {str(name): rows[name].tolist() for name in rows}
    names = [
        image["file"].format(**dict(zip(columns, values, strict=True)))
        for values in zip(*columns.values(), strict=True)
    ]
    if "beside" in image:
        beside = PurePosixPath(table).parent
        places = [[str(beside)] if (root / beside / name).is_file() else [] for name in names]
        looked = f"the folder of {table}"
    elif "folders" in image:
        places, looked = _folders_of(names, image["folders"], root), ", ".join(image["folders"])
    else:
        return pd.Series(names, index=rows.index)
    keep_all = image.get("if_missing", "error") == "error"
    raise_problems(RecipeError, root, _place_problems(names, places, looked, keep_all=keep_all))
    paths = [
        (PurePosixPath(found[0]) / name).as_posix() if found else "" for name, found in zip(names, places, strict=True)
    ]
    return pd.Series(paths, index=rows.index, dtype=str)


def _folders_of(names: Sequence[str], folders: Sequence[str], root: Path) -> list[list[str]]:
    there = [name for name in folders if (root / name).is_dir()]
    # one listing per folder instead of one look-up per row and folder
    listings = {name: {entry.name for entry in (root / name).iterdir()} for name in there}
    return [[folder for folder in there if name in listings[folder]] for name in names]


def _place_problems(
    names: Sequence[str], places: Sequence[Sequence[str]], looked: str, *, keep_all: bool
) -> Iterator[str]:
    absent = [name for name, found in zip(names, places, strict=True) if not found]
    twice = [name for name, found in zip(names, places, strict=True) if len(found) > 1]
    if absent and keep_all:
        yield f"expected {len(names)} images in {looked}; {len(absent)} are not there: {_some(absent)}"
    if twice:
        yield f"{len(twice)} images lie in more than one folder of {looked}: {_some(twice)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
