"""Counts of groups as sums over combinations of levels, and which may be shown without giving a hidden one away."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from monai_fair.metrics.arrays import FloatArray
from monai_fair.report.quantities import Record

# Combinations of levels up to which links between tables are worked out.
_MOST_CELLS = 600
_ZERO = 1e-8
Cell = tuple[str | None, ...]


@dataclass
class Hidden:
    """Counts that one table hides.

    Attributes:
        n: names of groups whose n is hidden.
        classes: names of groups whose positives, negatives and prevalence are hidden; those of ``n`` are among them.
        missing: whether the number of cases without a value is hidden.
    """

    n: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)
    missing: bool = False


@dataclass(frozen=True)
class Linked:
    """Tables whose counts are sums of the same cells; a count is a vector over (negative, positive) x cells.

    Attributes:
        tables: single attributes and their intersections.
        members: for each table the cells of each group, by name, shape ``(C,)``; those without a value under ``""``.
        size: number of cells C.
    """

    tables: Sequence[Record]
    members: Sequence[Mapping[str, FloatArray]]
    size: int

    def n(self, table: int, name: str) -> FloatArray:
        """Return the n of a group, or for ``""`` of the cases without a value, as a vector of shape ``(2 C,)``."""
        member = self.members[table][name]
        return np.concatenate([member, member])

    def positives(self, table: int, name: str) -> FloatArray:
        """Return the positives of a group as a vector of shape ``(2 C,)``."""
        member = self.members[table][name]
        return np.concatenate([np.zeros_like(member), member])

    def totals(self) -> tuple[FloatArray, FloatArray]:
        """Return n and positives of everyone as vectors."""
        return np.ones(2 * self.size), np.repeat([0.0, 1.0], self.size)

    def small(self, small: Sequence[Hidden]) -> Iterator[FloatArray]:
        """Yield the vectors of small counts: n, positives and negatives."""
        for index, (table, found) in enumerate(zip(self.tables, small, strict=True)):
            if found.missing:
                yield self.n(index, "")
            for row in table["groups"]:
                name = row["name"]
                if name in found.n:
                    yield self.n(index, name)
                if name in found.classes:
                    yield self.positives(index, name)
                    yield self.n(index, name) - self.positives(index, name)


def link(tables: Sequence[Record]) -> Linked | None:
    """Return the counts of tables as sums of the same cells; None when there are too many cells to work with."""
    cells = _cells(tables)
    if cells is None:
        return None
    place = {table["attributes"][0]: index for index, table in enumerate(_singles(tables))}
    return Linked(tables, [_members(table, place, cells) for table in tables], len(cells))


def _singles(tables: Sequence[Record]) -> list[Record]:
    return [table for table in tables if len(table["attributes"]) == 1]


def _cells(tables: Sequence[Record]) -> list[Cell] | None:
    """Combinations of levels, None for missing, that may have cases; None when they are too many.

    A combination that a table would list and does not is known to be empty.
    """
    single = _singles(tables)
    names = [table["attributes"][0] for table in single]
    listed = [
        ([names.index(name) for name in table["attributes"]], {tuple(row["levels"]) for row in table["groups"]})
        for table in tables
    ]
    cells: list[Cell] = [()]
    for index, table in enumerate(single):
        levels = [row["levels"][0] for row in table["groups"]] + [None] * (table["n_missing"] > 0)
        checks = [(places, groups) for places, groups in listed if max(places) == index]
        grown = ((*cell, level) for cell in cells for level in levels)
        cells = [cell for cell in grown if all(_possible(cell, places, groups) for places, groups in checks)]
        if len(cells) > _MOST_CELLS:
            return None
    return cells


def _possible(cell: Cell, places: Sequence[int], groups: set[tuple[str, ...]]) -> bool:
    levels = tuple(cell[place] for place in places)
    return None in levels or levels in groups


def _members(table: Record, place: Mapping[str, int], cells: Sequence[Cell]) -> dict[str, FloatArray]:
    places = [place[name] for name in table["attributes"]]
    levels = [tuple(cell[index] for index in places) for cell in cells]
    members = {row["name"]: np.array([own == tuple(row["levels"]) for own in levels], float) for row in table["groups"]}
    return {**members, "": np.array([None in own for own in levels], float)}


class _Shown:
    """The counts that are shown; it refuses one from which, with the others, a hidden one would follow."""

    def __init__(self, hidden: FloatArray) -> None:
        self._basis: FloatArray = np.zeros((0, hidden.shape[1]))
        self._left = hidden

    def admit(self, count: FloatArray) -> bool:
        """Take up a count, or say that it may not be shown."""
        rest = count
        for _ in range(2):  # the second time removes what rounding left
            rest = rest - self._basis.T @ (self._basis @ rest)
        length = float(np.linalg.norm(rest))
        if length <= _ZERO * max(float(np.linalg.norm(count)), 1.0):
            return True
        direction = rest / length
        left = self._left - np.outer(self._left @ direction, direction)
        if (np.linalg.norm(left, axis=1) <= _ZERO).any():
            return False
        self._basis, self._left = np.vstack([self._basis, direction]), left
        return True


def hide_sums(linked: Linked, hidden: Sequence[Hidden], small: Sequence[Hidden]) -> None:
    """Hide more counts until no small one is a sum or difference of counts that are shown.

    Counts are taken up one after the other, single attributes and large counts first.

    Args:
        linked: the tables.
        hidden: what each hides; changed in place.
        small: the small counts of each.
    """
    protected = list(linked.small(small))
    if not protected:
        return
    shown = _Shown(np.array(protected))
    for total in linked.totals():
        shown.admit(total)
    order = [
        (len(table["attributes"]), -row["n"], index, row["name"])
        for index, table in enumerate(linked.tables)
        for row in [*table["groups"], {"name": "", "n": table["n_missing"]}]
    ]
    for _, _, index, name in sorted(order):
        found, count = hidden[index], linked.n(index, name)
        if not name:
            found.missing = found.missing or not shown.admit(count)
            continue
        if name not in found.n and not shown.admit(count):
            found.n.add(name)
            found.classes.add(name)
        if name not in found.classes and not shown.admit(linked.positives(index, name)):
            found.classes.add(name)
