"""A dataset's tables, found by name or pattern and read as text, whatever kind of file they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.data.artifacts import sha256
from monai_fair.data.columns import inputs_of, make_columns
from monai_fair.data.manifest import is_inside
from monai_fair.data.spreadsheets import SUFFIXES, read_spreadsheet
from monai_fair.data.tables import read_table
from monai_fair.errors import RecipeError, raise_problems

_LISTED = 3  # names of a file that a message spells out
_TOLD = 20  # contradictions that a note spells out


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


def need_tables(tables: Sequence[str | Sequence[str]], root: Path) -> None:
    """Raise one error that names every table that is not there, before the first of them is read.

    Args:
        tables: for each table a name or pattern under the root, or several of them in the order to try.
        root: the dataset's folder.

    Raises:
        RecipeError: if a table is not there.
    """
    listed = [names_of(table) for table in tables]
    absent = [names for names in listed if not any(files_like(name, root) for name in names)]
    raise_problems(RecipeError, root, [_absent(names) for names in absent])


def read_named_table(spec: Mapping[str, Any], root: Path, *, columns: Sequence[str] | None = None) -> NamedTable:
    """Read the first table of a list of names that is there.

    Args:
        spec: ``table``: names or patterns under the root, in the order to try. ``.tab`` and ``.tsv`` files have tabs;
            ``.xls`` and ``.xlsx`` files are spreadsheets, of which ``sheet`` names the sheet to read (the first one
            if not given) and ``header_rows`` the number of rows of its header (1 if not given). ``also_named``: column
            to the names it has in other versions of the table. ``columns``: columns made from the table's own, see
            :func:`monai_fair.data.columns.make_columns`. ``one_row_per``: a column; see :func:`merge_rows`, which takes
            ``missing`` and ``contradiction``.
        root: the dataset's folder.
        columns: the columns that are of use, so that rows of one key are not compared in others; all if not given.

    Raises:
        RecipeError: if no file is found, a pattern fits several, the file is no table, or a column cannot be made.
    """
    path = _find(names_of(spec["table"]), root)
    name = path.relative_to(root).as_posix()
    if path.suffix.lower() in SUFFIXES:
        rows = read_spreadsheet(path, RecipeError, spec.get("sheet"), header_rows=spec.get("header_rows", 1))
    else:
        separator = "\t" if Path(path.name.removesuffix(".gz")).suffix in {".tab", ".tsv"} else ","
        rows = read_table(path, RecipeError, separator)
    rows = _made(_renamed(rows, spec.get("also_named", {})), spec.get("columns", {}), name)
    if "one_row_per" not in spec:
        return NamedTable(rows, name, sha256(path))
    if columns is not None and set(columns) <= set(rows):
        rows = rows[list(dict.fromkeys(columns))]
    missing, contradiction = spec.get("missing", [""]), spec.get("contradiction", "")
    rows, notes = merge_rows(rows, spec["one_row_per"], name, missing=missing, contradiction=contradiction)
    return NamedTable(rows, name, sha256(path), tuple(notes))


def _renamed(rows: pd.DataFrame, also_named: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Give columns the name that the recipe knows; a table that has it already is left alone."""
    known = {
        other: name for name, others in also_named.items() if name not in rows for other in others if other in rows
    }
    return rows.rename(columns=known)


def _made(rows: pd.DataFrame, columns: Mapping[str, Mapping[str, Any]], name: str) -> pd.DataFrame:
    ready, waiting = make_columns(rows, columns, name)
    found = ", ".join(map(str, rows.columns))
    problems = [
        f"expected a column '{need}' (for column '{made}'), found {found}"
        for made, rule in waiting.items()
        for need in inputs_of(rule)
        if need not in ready and need not in waiting
    ]
    raise_problems(RecipeError, name, problems)
    return ready


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
    raise RecipeError(f"{root}: {_absent(names)}")


def _absent(names: Sequence[str]) -> str:
    others = f" (or under one of {len(names) - 1} other names and places, see the recipe)"
    shown = " or ".join(names) if len(names) <= _LISTED else names[0] + others
    return f"expected the metadata file {shown}, found none; check --root"


def files_like(pattern: str, root: Path) -> list[Path]:
    """Return the files under ``root`` that a glob pattern fits, in order; hidden ones are left out.

    Raises:
        RecipeError: if the pattern leads out of the folder.
    """
    if not is_inside(pattern):
        raise RecipeError(f"{root}: expected a path or pattern under this folder, got '{pattern}'")
    # a Mac leaves a file ._NAME beside NAME on disks that are not its own
    return sorted(file for file in root.glob(pattern) if not file.name.startswith(".") and file.is_file())


def merge_rows(
    rows: pd.DataFrame, key: str, source: str, *, missing: Sequence[Any], contradiction: str = ""
) -> tuple[pd.DataFrame, list[str]]:
    """Take the rows of one key together as one.

    A cell gets the one value that is not missing. Where rows contradict each other it stays empty, because nobody can
    tell which is right.

    Args:
        rows: text.
        key: the column that tells whose row it is.
        source: the table's name, for messages and notes.
        missing: codes that are no value.
        contradiction: the text of a cell where rows contradict each other, so that a rule can tell it from a missing
            value.

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
    merged = rows[~keys.duplicated()].set_index(keys[~keys.duplicated()])
    codes = [str(code) for code in missing]
    conflicts: dict[str, list[str]] = {}
    for name in rows.columns:
        cells = rows.loc[repeated, name].str.strip()
        pairs = pd.DataFrame({"who": keys[repeated], "value": cells})[~cells.isin(codes)].drop_duplicates()
        alone = pairs.drop_duplicates("who", keep=False).set_index("who")["value"]
        several = pairs[pairs["who"].duplicated(keep=False)].groupby("who", sort=False)["value"].agg(", ".join)
        merged.loc[keys[repeated].unique(), name] = ""
        merged.loc[alone.index, name] = alone
        merged.loc[several.index, name] = contradiction
        for who, values in several.items():
            conflicts.setdefault(str(who), []).append(f"{who} ({name}: {values})")
    notes = [f"{source}: {repeated.sum()} rows of {keys[repeated].nunique()} {key} are taken together, one row each"]
    if conflicts:
        told = [text for who in merged.index.intersection(list(conflicts), sort=False) for text in conflicts[who]]
        shown = "; ".join(told[:_TOLD]) + ("; ..." if len(told) > _TOLD else "")
        left = f"say '{contradiction}'" if contradiction else "are left empty"
        notes.append(f"{source}: {len(told)} cells contradict each other and {left}: {shown}")
    return merged.reset_index(drop=True), notes
