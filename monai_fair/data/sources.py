"""Where a recipe's rows come from: a table, or one ``.npz`` file per image; and where its images lie."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_fair.data.named_tables import names_of, read_named_table
from monai_fair.errors import ImageFileError, RecipeError, raise_problems


def read_source(source: Mapping[str, Any], root: Path) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """Read the rows of a dataset as text.

    Args:
        source: ``table``: file names to try, in order, see :func:`monai_fair.data.named_tables.read_named_table`; or
            ``npz``: glob patterns under the root, with ``columns``, the scalar arrays of each file to read.
        root: the dataset's folder.

    Returns:
        The rows, a record of the files read, and notes on repeated rows. Rows from ``.npz`` files have three more
        columns: ``file`` (path under the root), ``stem`` (its name without suffix) and ``folder`` (name of its folder).

    Raises:
        RecipeError: if no file is found, or an array is missing or not a scalar.
        ImageFileError: if a file cannot be read.
    """
    if not root.is_dir():
        raise RecipeError(f"{root}: expected the dataset's folder, found none; check --root")
    if "table" in source:
        table = read_named_table(source, root)
        return table.rows, {table.name: table.sha256}, list(table.notes)
    rows, record = _read_npz(names_of(source["npz"]), source["columns"], root)
    return rows, record, []


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


def locate_images(image: Mapping[str, Any], rows: pd.DataFrame, root: Path) -> pd.Series:
    """Find the image of every row.

    Args:
        image: ``file``, a pattern such as ``{image_id}.jpg`` filled from the row's columns, and ``folders``, the
            folders under the root to look in, in order.
        rows: the dataset's rows.
        root: the dataset's folder.

    Returns:
        Path under the root per row, with ``/`` between folders.

    Raises:
        RecipeError: if images are missing, or a file of this name lies in two folders.
    """
    folders = [name for name in image.get("folders", ["."]) if (root / name).is_dir()]
    # one listing per folder instead of one look-up per row and folder
    listings = {name: {entry.name for entry in (root / name).iterdir()} for name in folders}
    columns = {str(name): rows[name].tolist() for name in rows}
    names = [
        image["file"].format(**dict(zip(columns, values, strict=True)))
        for values in zip(*columns.values(), strict=True)
    ]
    if "folders" not in image:
        return pd.Series(names, index=rows.index)
    places = [[folder for folder in folders if name in listings[folder]] for name in names]
    absent = [name for name, found in zip(names, places, strict=True) if not found]
    twice = [name for name, found in zip(names, places, strict=True) if len(found) > 1]
    looked = ", ".join(image["folders"])
    problems = (
        [f"expected {len(names)} images in {looked}; {len(absent)} are not there: {_some(absent)}"] if absent else []
    )
    problems += [f"{len(twice)} images lie in more than one folder of {looked}: {_some(twice)}"] if twice else []
    raise_problems(RecipeError, root, problems)
    paths = [(Path(found[0]) / name).as_posix() for name, found in zip(names, places, strict=True)]
    return pd.Series(paths, index=rows.index)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
