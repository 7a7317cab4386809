"""Which group each sample belongs to: by one recorded attribute, or by several at once."""

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations, compress
from typing import Literal

import numpy as np
import pandas as pd

from monai_fair.errors import MonaiFairError, raise_problems
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


@dataclass(frozen=True)
class _Factor:
    """One attribute, or several taken together, as numbers.

    Attributes:
        levels: the values that occur in natural order, one tuple each.
        names: one name per level, for people.
        codes: index of each row's level, shape ``(N,)``.
    """

    levels: list[tuple[str, ...]]
    names: list[str]
    codes: IntArray


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
    return _grouping({name: _factor(table[name]) for name in attributes}, missing)


def _grouping(factors: Mapping[str, _Factor], missing: Missing) -> Grouping:
    joint = reduce(_joint, factors.values())
    kept = np.array([missing == "group" or "" not in level for level in joint.levels], dtype=np.bool_)
    codes = np.where(kept, np.cumsum(kept) - 1, -1)[joint.codes].astype(np.int64)
    return Grouping(tuple(factors), tuple(compress(joint.levels, kept)), tuple(compress(joint.names, kept)), codes)


def _factor(column: pd.Series) -> _Factor:
    found, values = pd.factorize(column, use_na_sentinel=False)
    levels = sorted(values.tolist(), key=natural_order)
    place = {level: code for code, level in enumerate(levels)}
    codes = np.array([place[value] for value in values], dtype=np.int64)[found]
    return _Factor([(level,) for level in levels], [level or _missing_name(place) for level in levels], codes)


def _joint(left: _Factor, right: _Factor) -> _Factor:
    """Take two factors together; only pairs that occur get a code, so that numbers stay below N squared."""
    width = len(right.levels)
    codes, pairs = pd.factorize(left.codes * width + right.codes, sort=True)
    places = [divmod(pair, width) for pair in pairs.tolist()]
    return _Factor(
        [left.levels[one] + right.levels[other] for one, other in places],
        [f"{left.names[one]} & {right.names[other]}" for one, other in places],
        codes.astype(np.int64),
    )


def _missing_name(values: Container[str]) -> str:
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
    factors = {attribute: _factor(table[attribute]) for attribute in attributes}
    return [_grouping({name: factors[name] for name in subset}, missing) for subset in [*chosen, *joint]]


def attribute_levels(groups: pd.DataFrame, attributes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return each row's attribute values; without attributes an empty tuple per row.

    Args:
        groups: the attributes as text, ``N`` rows; an empty cell is a missing value.
        attributes: columns.

    Returns:
        ``N`` tuples.

    Raises:
        MonaiFairError: with every attribute that is not a column or not text.
    """
    there = ", ".join(map(str, groups.columns)) or "none"
    problems = [
        f"expected the attribute '{name}', the columns there are {there}; add it"
        for name in attributes
        if name not in groups
    ]
    for name in attributes:
        # 1 and "1" would be different groups, and every row of the other kind would silently get the pooled one
        odd = [value for value in groups.get(name, []) if not isinstance(value, str)]
        if odd:
            problems.append(f"attribute '{name}': expected text, empty where missing, got {odd[0]!r}; read it as text")
    raise_problems(MonaiFairError, "thresholds", problems)
    return list(zip(*(groups[name] for name in attributes), strict=True)) if attributes else [()] * len(groups)
