"""A dataset's tables, found by name or pattern and read as text, whatever kind of file they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.data.artifacts import sha256
from monai_fair.data.manifest import is_inside
from monai_fair.data.spreadsheets import SUFFIXES, read_spreadsheet
from monai_fair.data.tables import read_table
from monai_fair.errors import RecipeError, raise_problems


@dataclass(frozen=True)
class NamedTable:
    """A table of the dataset.

    Attributes:
        rows: every column of text.
        name: path under the dataset's folder.
        sha256: of the file.
        notes: what was done to its rows, one sentence each.
    """

    rows: pd.DataFrame
    name: str
    sha256: str
    notes: tuple[str, ...] = ()


def read_named_table(spec: Mapping[str, Any], root: Path, *, columns: Sequence[str] | None = None) -> NamedTable:
    """Read the first table of a list of names that is there.

    Args:
        spec: ``table``: names or patterns under the root, in the order to try. ``.tab`` and ``.tsv`` files have tabs;
            ``.xls`` and ``.xlsx`` files are spreadsheets, of which ``sheet`` names the sheet to read (the first one
            if not given). ``one_row_per``: a column; see :func:`merge_rows`, which takes ``missing``.
        root: the dataset's folder.
        columns: the columns that are of use, so that rows of one key are not compared in others; all if not given.

    Raises:
        RecipeError: if no file is found, a pattern fits several, or the file is no table.
    """
    path = _find(names_of(spec["table"]), root)
    name = path.relative_to(root).as_posix()
    if path.suffix.lower() in SUFFIXES:
        rows = read_spreadsheet(path, RecipeError, spec.get("sheet"))
    else:
        separator = "\t" if Path(path.name.removesuffix(".gz")).suffix in {".tab", ".tsv"} else ","
        rows = read_table(path, RecipeError, separator)
    if "one_row_per" not in spec:
        return NamedTable(rows, name, sha256(path))
    if columns is not None and set(columns) <= set(rows):
        rows = rows[list(dict.fromkeys(columns))]
    rows, notes = merge_rows(rows, spec["one_row_per"], name, missing=spec.get("missing", [""]))
    return NamedTable(rows, name, sha256(path), tuple(notes))


def names_of(value: str | Sequence[str]) -> list[str]:
    """Return one name or several as a list."""
    return [value] if isinstance(value, str) else list(value)


def _find(names: list[str], root: Path) -> Path:
    for name in names:
        found = files_like(name, root)
        if len(found) > 1:
            shown = ", ".join(file.relative_to(root).as_posix() for file in found)
            raise RecipeError(f"{root}: expected one metadata file {name}, found {len(found)}: {shown}; keep one")
        if found:
            return found[0]
    raise RecipeError(f"{root}: expected the metadata file {' or '.join(names)}, found none; check --root")


def files_like(pattern: str, root: Path) -> list[Path]:
    """Return the files under ``root`` that a glob pattern fits, in order; hidden ones are left out.

    Raises:
        RecipeError: if the pattern leads out of the folder.
    """
    if not is_inside(pattern):
        raise RecipeError(f"{root}: expected a path or pattern under this folder, got '{pattern}'")
    # a Mac leaves a file ._NAME beside NAME on disks that are not its own
    return sorted(file for file in root.glob(pattern) if not file.name.startswith(".") and file.is_file())


def merge_rows(rows: pd.DataFrame, key: str, source: str, *, missing: Sequence[Any]) -> tuple[pd.DataFrame, list[str]]:
    """Take the rows of one key together as one.

    A cell gets the one value that is not missing. Where rows contradict each other it stays empty, because nobody can
    tell which is right.

    Args:
        rows: text.
        key: the column that tells whose row it is.
        source: the table's name, for messages and notes.
        missing: codes that are no value.

    Returns:
        One row per key, in the order of first appearance, and notes on repeated and contradicting rows.

    Raises:
        RecipeError: if the table has no such column, or a row has no key.
    """
    raise_problems(RecipeError, source, [f"expected a column '{key}', found none"] if key not in rows else [])
    keys = rows[key].str.strip()
    raise_problems(
        RecipeError,
        source,
        [f"expected a value of '{key}' in every row, {n} have none" for n in [(keys == "").sum()] if n],
    )
    repeated = keys.duplicated(keep=False)
    if not repeated.any():
        return rows, []
    codes = [str(code) for code in missing]
    merged, conflicts = rows[~keys.duplicated()].copy(), []
    place = dict(zip(keys[~keys.duplicated()], merged.index, strict=True))
    for who, group in rows[repeated].groupby(keys[repeated], sort=False):
        for name in rows.columns:
            values = {value: None for value in group[name].str.strip() if value not in codes}
            merged.loc[place[who], name] = next(iter(values)) if len(values) == 1 else ""
            conflicts += [f"{who} ({name}: {', '.join(values)})"] if len(values) > 1 else []
    notes = [f"{source}: {repeated.sum()} rows of {keys[repeated].nunique()} {key} are taken together, one row each"]
    if conflicts:
        shown = "; ".join(conflicts[:20]) + ("; ..." if len(conflicts) > 20 else "")
        notes.append(f"{source}: {len(conflicts)} cells contradict each other and are left empty: {shown}")
    return merged.reset_index(drop=True), notes
