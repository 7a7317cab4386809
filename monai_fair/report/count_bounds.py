"""What a reader can tell of hidden counts from what is shown, because no count is below 0."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from monai_fair.metrics.arrays import FloatArray
from monai_fair.report.linked_counts import Hidden, Linked
from monai_fair.report.quantities import Record

# Data sets that fit what is shown, drawn to see which hidden counts vary; the others are looked at one by one.
_DRAWS = 8
_ZERO = 1e-6
# A shown count as (vector, value, table, group or "" for missing, whether it is n); everyone has the table -1.
_Count = tuple[FloatArray, float, int, str, bool]


class _Reader:
    """What the page says, as a linear program over the numbers of cases in each cell."""

    def __init__(self, linked: Linked, hidden: Sequence[Hidden], overall: Record, least: int) -> None:
        n, positives = linked.totals()
        self.shown: list[_Count] = [
            (n, overall["n"], -1, "", True),
            (positives, overall["n_positive"], -1, "", False),
        ]
        limits: list[tuple[FloatArray, float, float]] = []
        for index, (table, found) in enumerate(zip(linked.tables, hidden, strict=True)):
            self.shown += _shown(linked, index, table, found)
            limits += _limits(linked, index, table, found, least)
        below = [(-vector, -low) for vector, low, _ in limits if low > 0]
        below += [(vector, high) for vector, _, high in limits if high < np.inf]
        self._equal = sparse.csr_array(np.array([count[0] for count in self.shown]))
        self._values = np.array([count[1] for count in self.shown])
        self._below = sparse.csr_array(np.array([vector for vector, _ in below])) if below else None
        self._ends = np.array([end for _, end in below]) if below else None

    def solve(self, direction: FloatArray) -> Any:
        """Return the data set that fits the page and is smallest in a direction."""
        bounds = (0, self._values[0])
        return linprog(direction, A_ub=self._below, b_ub=self._ends, A_eq=self._equal, b_eq=self._values, bounds=bounds)


def _shown(linked: Linked, index: int, table: Record, found: Hidden) -> Iterator[_Count]:
    if not found.missing:
        yield linked.n(index, ""), table["n_missing"], index, "", True
    for row in table["groups"]:
        name = row["name"]
        if name not in found.n:
            yield linked.n(index, name), row["n"], index, name, True
        if name not in found.classes:
            yield linked.positives(index, name), row["n_positive"], index, name, False


def _limits(
    linked: Linked, index: int, table: Record, found: Hidden, least: int
) -> Iterator[tuple[FloatArray, float, float]]:
    """What is known of hidden counts: below ``least`` or not, and that a group that is listed has a case."""
    if found.missing:
        yield linked.n(index, ""), *_side(table["n_missing"], least, 1)
    for row in table["groups"]:
        name = row["name"]
        n, positives = linked.n(index, name), linked.positives(index, name)
        if name in found.n:
            yield n, *_side(row["n"], least, 1)
        if name in found.classes:
            yield positives, *_side(row["n_positive"], least, 0)
            if row["n_negative"] < least <= row["n"]:
                yield n - positives, 0, least - 1


def _side(count: int, least: int, lowest: int) -> tuple[float, float]:
    return (lowest, least - 1) if count < least else (least, np.inf)


def hide_bounded(
    linked: Linked, hidden: Sequence[Hidden], small: Sequence[Hidden], overall: Record, least: int
) -> None:
    """Hide more counts until each small one might be another, as far as a reader can tell.

    Of the shown counts that pin a small one down, the smallest is hidden.

    Args:
        linked: the tables.
        hidden: what each hides; changed in place.
        small: the small counts of each.
        overall: row of everyone.
        least: smallest count that may be shown.
    """
    left = list(linked.small(small))
    while left:
        reader = _Reader(linked, hidden, overall, least)
        left, pins = _pinned(reader, left)
        for index, name, is_n in pins:
            found = hidden[index]
            found.missing = found.missing or not name
            found.classes |= {name} - {""}
            found.n |= {name} - {""} if is_n else set()


def _pinned(reader: _Reader, vectors: Sequence[FloatArray]) -> tuple[list[FloatArray], set[tuple[int, str, bool]]]:
    """Counts that can be told exactly, and for each the smallest shown count that pins it down."""
    draws = np.random.default_rng(0).normal(size=(_DRAWS, vectors[0].size))
    found = [reader.solve(direction) for direction in draws]
    if any(solution.x is None for solution in found):  # counts that contradict each other, as in an edited file
        return [], set()
    seen = np.array([[vector @ solution.x for solution in found] for vector in vectors])
    told, pins = [], set()
    for vector, values in zip(vectors, seen, strict=True):
        if values.max() - values.min() >= 1 - _ZERO:
            continue
        ends = [reader.solve(sign * vector) for sign in (1, -1)]
        if -ends[1].fun - ends[0].fun >= 1 - _ZERO:
            continue
        weights = sum(np.abs(end.eqlin.marginals) for end in ends)
        used = [count for count, weight in zip(reader.shown, weights, strict=True) if weight > _ZERO and count[2] >= 0]
        if used:
            _, _, index, name, is_n = min(used, key=lambda count: count[1])
            pins.add((index, name, is_n))
            told.append(vector)
    return told, pins
