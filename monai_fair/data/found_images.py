"""Images found by a pattern of their paths, and matched to the dataset's rows by what the paths say."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.data.named_tables import files_like, names_of
from monai_fair.errors import RecipeError, raise_problems


@dataclass(frozen=True)
class FoundImages:
    """Rows with their images.

    Attributes:
        rows: the dataset's rows, one per image, with a column for every further named group.
        images: path under the root per row; empty where there is no image.
        problems: per row, what is wrong with its image; empty where nothing is. It matters only if the row is kept.
        notes: what else was seen, one sentence each.
    """

    rows: pd.DataFrame
    images: pd.Series
    problems: pd.Series
    notes: tuple[str, ...]


def find_images(image: Mapping[str, Any], rows: pd.DataFrame, root: Path) -> FoundImages:
    """Find the image of every row by what its path says.

    Args:
        image: ``glob``: patterns of paths under the root. ``match``: a regular expression searched in each path. A
            named group that is a column of the dataset has to equal it; any other becomes a column (empty where it
            takes no part). ``per``: such new columns; a row is repeated for each of their values, one image each.
            ``several``: what to do with more than one image: ``error``, or the ``first`` or ``last`` by name.
        rows: the dataset's rows, of text.
        root: the dataset's folder.

    Returns:
        Rows and images.

    Raises:
        RecipeError: if there are no images at all, or the paths cannot be told apart by a column of the dataset.
    """
    patterns = names_of(image["glob"])
    files = sorted({file.relative_to(root).as_posix() for pattern in patterns for file in files_like(pattern, root)})
    if not files:
        raise RecipeError(f"{root}: expected images like {' or '.join(patterns)}, found none; check --root")
    fields, notes = _fields(image["match"], files, root)
    groups = list(re.compile(image["match"]).groupindex)
    keys = [name for name in groups if name in rows]
    owner = _owners(rows, keys, groups, root)
    per = [name for name in image.get("per", []) if name not in keys]
    found: dict[int, dict[tuple[str, ...], list[str]]] = {row: {} for row in range(len(rows))}
    strangers = []
    for path, said in fields.items():
        row = owner.get(tuple(said[name] for name in keys))
        if row is None:
            strangers.append(path)
        else:
            found[row].setdefault(tuple(said[name] for name in per), []).append(path)
    notes += [f"{len(strangers)} images have no row in the dataset's table: {_some(strangers)}"] if strangers else []
    places = [(row, paths) for row, of_row in found.items() for paths in (of_row.values() or [[]])]
    repeated = rows.iloc[[row for row, _ in places]].reset_index(drop=True)
    extra = [name for name in groups if name not in keys]
    return _chosen(repeated, [paths for _, paths in places], fields, extra, image.get("several", "error"), notes)


def _fields(match: str, files: list[str], root: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return the named groups of every path that the expression finds, and a note on the other paths."""
    pattern = re.compile(match)
    found = {file: hit.groupdict(default="") for file in files if (hit := pattern.search(file)) is not None}
    others = [file for file in files if file not in found]
    if not found:
        raise RecipeError(f"{root}: expected paths of images like '{match}', got {_some(others)}")
    notes = [f"{len(others)} images are left out, their paths are not like '{match}': {_some(others)}"]
    return found, notes if others else []


def _owners(rows: pd.DataFrame, keys: list[str], groups: list[str], root: Path) -> dict[tuple[str, ...], int]:
    """Return the row that images with these values belong to."""
    if not keys:
        raise RecipeError(
            f"{root}: expected a column of the dataset among the named groups of 'match' ({', '.join(groups)}), "
            f"found the columns {', '.join(map(str, rows.columns))}"
        )
    values = list(zip(*(rows[name].str.strip() for name in keys), strict=True))
    problems = [
        f"expected one row per {' and '.join(keys)}, found {n} of '{' '.join(value)}'"
        for value, n in Counter(values).items()
        if n > 1
    ]
    raise_problems(RecipeError, root, problems)
    return {value: row for row, value in enumerate(values)}


def _chosen(
    rows: pd.DataFrame,
    paths: list[list[str]],
    fields: Mapping[str, Mapping[str, str]],
    extra: list[str],
    several: str,
    notes: list[str],
) -> FoundImages:
    """Choose one image per row; more than one is a problem unless the recipe says which to take."""
    images = [found[-1 if several == "last" else 0] if found else "" for found in paths]
    for name in extra:
        rows[name] = pd.Series([fields[image][name] if image else "" for image in images], dtype=str)
    many = sum(len(found) > 1 for found in paths)
    if many and several != "error":
        notes = [*notes, f"{many} rows have several images, of which the {several} by name is taken"]
    problems = [_problem(found) if not found or several == "error" else "" for found in paths]
    return FoundImages(rows, pd.Series(images, dtype=str), pd.Series(problems, dtype=str), tuple(notes))


def _problem(found: list[str]) -> str:
    if len(found) == 1:
        return ""
    return f"expected one image, found {len(found)}: {_some(found)}" if found else "expected one image, found none"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
