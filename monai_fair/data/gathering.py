"""All that a recipe reads before its rules apply: the table, the images it finds, joined tables and made columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.data.columns import make_columns
from monai_fair.data.found_images import FoundImages, find_images
from monai_fair.data.joins import join_table
from monai_fair.data.named_tables import need_tables
from monai_fair.data.row_filters import add_reasons
from monai_fair.data.sources import read_source
from monai_fair.errors import RecipeError


@dataclass(frozen=True)
class Gathered:
    """The rows a recipe's rules read.

    Attributes:
        rows: every column of text; one row per image.
        found: the images found by pattern, row by row; ``None`` when the recipe names them by their columns.
        sources: file to its SHA-256, or pattern to the number of files; the dataset's first table comes first.
        notes: what was seen on the way, one sentence each.
        waiting: columns that could not be made, because they need columns that are not there.
        without_partner: per row, why it leaves the manifest: no row in a table where the recipe asks for one.
        without_image: rows left out because they have no image.
    """

    rows: pd.DataFrame
    found: FoundImages | None
    sources: dict[str, str]
    notes: list[str]
    waiting: dict[str, Mapping[str, Any]]
    without_partner: pd.Series
    without_image: pd.DataFrame = field(default_factory=pd.DataFrame)


def gather_rows(content: Mapping[str, Any], root: Path, source: object) -> Gathered:
    """Read the dataset's table, find its images, join its other tables, and make columns as soon as they can be.

    Args:
        content: a checked recipe.
        root: the dataset's folder.
        source: the recipe's file, for messages.

    Returns:
        The rows, and what is to be recorded of them.

    Raises:
        RecipeError: if tables are missing (all are named at once), columns are, or values do not fit.
        ImageFileError: if an ``.npz`` file of the source cannot be read.
    """
    _need_files(content, root)
    rows, sources, notes = read_source(content["source"], root)
    rows, waiting = make_columns(rows, content.get("columns", {}), source)
    found, without = None, pd.DataFrame()
    if "glob" in content["image"]:
        found = find_images(content["image"], rows, root)
        notes += found.notes
        rows, waiting = make_columns(found.rows, waiting, source)
        if content["image"].get("if_missing", "error") == "drop":
            there = found.images != ""
            rows, without = rows[there].reset_index(drop=True), rows[~there]
            _check_subjects(without, content["subject_id"], source)
            found = replace(found, images=_kept(found.images, there), problems=_kept(found.problems, there))
    alone = pd.Series("", index=rows.index, dtype=object)
    for spec in (content.get("join") or {}).values():
        joined = join_table(rows, spec, root, source)
        rows, waiting = make_columns(joined.rows, waiting, source)
        sources[joined.table.name] = joined.table.sha256
        notes += [*joined.table.notes, joined.note]
        if spec.get("if_missing", "keep") == "drop":
            alone = add_reasons(alone, f"no row in {joined.table.name}", ~joined.found)
    return Gathered(rows, found, sources, notes, waiting, alone, without)


def _need_files(content: Mapping[str, Any], root: Path) -> None:
    """Name all tables that are not there at once; a folder that is not there is told by whoever reads it."""
    source = content["source"]
    tables = [source["table"], *source.get("more", {}).values()] if "table" in source else []
    tables += [spec["table"] for spec in (content.get("join") or {}).values()]
    if root.is_dir():
        need_tables(tables, root)


def _check_subjects(without: pd.DataFrame, subject: str, source: object) -> None:
    if len(without) and subject not in without:
        raise RecipeError(
            f"{source}: subject_id: expected a column of the first table or of the images' paths, so that subjects "
            f"without an image can be named; '{subject}' comes later"
        )


def _kept(column: pd.Series, there: pd.Series) -> pd.Series:
    return column[there].reset_index(drop=True)
