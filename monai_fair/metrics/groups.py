"""Which group each sample belongs to: by one recorded attribute, or by several at once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

from monai_fair.metrics.arrays import IntArray

Missing = Literal["drop", "group"]


@dataclass(frozen=True)
class Grouping:
    """Samples sorted into groups.

    Attributes:
        attributes: the attributes that define the groups; more than one for intersections.
        levels: one tuple of attribute values per group; an empty text is the missing value.
        names: one name per group, for people.
        codes: index of each sample's group, shape ``(N,)``; -1 for a sample left out as missing.
    """

    attributes: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    codes: IntArray

    @property
    def name(self) -> str:
        """The attributes' names, joined."""
        return " & ".join(self.attributes)

    @property
    def num_missing(self) -> int:
        """Number of samples with an empty cell in at least one of the attributes, in a group or left out."""
        hidden = [index for index, level in enumerate(self.levels) if "" in level]
        return int((self.codes < 0).sum() + np.isin(self.codes, hidden).sum())


def group_by(table: pd.DataFrame, attributes: Sequence[str], *, missing: Missing = "drop") -> Grouping:
    """Group the rows of ``table`` by the values of ``attributes`` taken together.

    Groups are in natural order of their values (9 before 10). Values that differ are never merged, even if
    their joined names look the same.

    Args:
        table: the attributes as text; an empty cell is a missing value.
        attributes: one or more columns.
        missing: ``drop`` leaves rows with an empty cell out of every group; ``group`` gives the missing value
            its own row, named ``missing``.

    Returns:
        The groups that occur.
    """
    columns = list(attributes)
    keys = list(zip(*(table[column].tolist() for column in columns), strict=True))
    kept = set(keys) if missing == "group" else {key for key in keys if "" not in key}
    levels = sorted(kept, key=lambda key: [natural_order(value) for value in key])
    index = {level: code for code, level in enumerate(levels)}
    codes = np.array([index.get(key, -1) for key in keys], dtype=np.int64)
    shown = [{value: value or _missing_name(set(table[column])) for value in set(table[column])} for column in columns]
    names = tuple(" & ".join(names[value] for names, value in zip(shown, level, strict=True)) for level in levels)
    return Grouping(tuple(columns), tuple(levels), names, codes)


def _missing_name(values: set[str]) -> str:
    return "missing" if "missing" not in values else "missing (empty cell)"


def natural_order(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key under which numbers inside a text count as numbers; the missing value is last."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    key = [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts]
    return (key or [(2, 0, "")]), text


def groupings(
    table: pd.DataFrame, attributes: Sequence[str], *, intersections: bool = True, missing: Missing = "drop"
) -> list[Grouping]:
    """Return the grouping of each attribute, then of each pair, then of all attributes together.

    Args:
        table: the attributes as text.
        attributes: columns.
        intersections: whether to add pairs and the whole.
        missing: see :func:`group_by`.

    Returns:
        Single attributes in the order given, then intersections.
    """
    chosen = [(attribute,) for attribute in attributes]
    sizes = sorted({2, len(attributes)}) if intersections and len(attributes) > 1 else []
    joint = [subset for size in sizes for subset in combinations(attributes, size)]
    return [group_by(table, subset, missing=missing) for subset in [*chosen, *joint]]
