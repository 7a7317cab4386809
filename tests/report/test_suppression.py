"""X7: a hidden count does not follow from those that are shown."""

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.report.linked_counts import Hidden
from monai_fair.report.suppression import hidden_counts

LEAST = 10
GROUPS = ("f", 300, 100), ("m", 200, 90), ("missing", 3, 1)


def row(name: str, levels: list[str], n: int, n_positive: int, n_subjects: int | None = None) -> dict[str, Any]:
    counts = {"n": n, "n_subjects": n_subjects or n, "n_positive": n_positive, "n_negative": n - n_positive}
    return {"name": name, "levels": levels, **counts}


def one_table(*groups: tuple[str, int, int], missing: int = 0) -> list[dict[str, Any]]:
    rows = [row(name, [name], n, n_positive) for name, n, n_positive in groups]
    return [{"name": "a", "attributes": ["a"], "n_missing": missing, "groups": rows}]


def everyone(tables: list[dict[str, Any]]) -> dict[str, Any]:
    groups = tables[0]["groups"]
    n = tables[0]["n_missing"] + sum(group["n"] for group in groups)
    return row("everyone", [], n, sum(group["n_positive"] for group in groups))


def hide(*groups: tuple[str, int, int], missing: int = 0) -> Hidden:
    tables = one_table(*groups, missing=missing)
    return hidden_counts(tables, everyone(tables), LEAST)[0]


def test_nothing_is_hidden_where_nothing_is_small() -> None:
    assert hide(("f", 200, 80), ("m", 200, 90), missing=12) == Hidden()


def test_the_smallest_large_group_is_hidden_with_the_small_one() -> None:
    # 600 - 333 = 261 + 6: with either shown, the other follows.
    assert hide(("north", 333, 132), ("south", 261, 90), ("tiny", 6, 2)) == Hidden({"south", "tiny"}, {"south", "tiny"})


def test_missing_cases_are_hidden_first_where_they_are_fewest() -> None:
    # The classes of missing cases are on no page, but may all be of one class: they do not stand in for a group.
    found = hide(("north", 333, 132), ("tiny", 6, 2), missing=30)
    assert found == Hidden({"tiny"}, {"tiny", "north"}, missing=True)


def test_few_missing_cases_are_hidden_like_a_group() -> None:
    assert hide(("f", 300, 100), ("m", 200, 90), missing=3) == Hidden({"m"}, {"m"}, missing=True)


def test_a_small_class_hides_classes_only() -> None:
    # Of 80 cases 75 are positive: n may be shown, the 5 negatives may not, nor those of the smallest other group.
    found = hide(("x", 80, 75), ("y", 300, 100), ("z", 200, 90))
    assert found == Hidden(set(), {"x", "z"})


def test_two_small_groups_do_not_hide_each_other() -> None:
    # Together they have 18 cases; as none has 10, both must have 9. A large group has to be hidden with them.
    found = hide(("x", 9, 4), ("y", 9, 4), ("z", 500, 200), ("w", 300, 100))
    assert found.n == {"x", "y", "w"}


def test_a_partner_that_is_not_large_would_tell_too_much() -> None:
    # 1 + 10: knowing that one has less than 10 and the other has not leaves one answer.
    assert "b" in hide(("x", 1, 0), ("a", 11, 1), ("b", 300, 100)).n


def test_without_a_large_group_all_are_hidden() -> None:
    assert hide(("x", 7, 3), ("y", 15, 5)).n == {"x", "y"}


def test_missing_cases_that_are_a_group_are_no_group_twice() -> None:
    tables = one_table(*GROUPS)
    tables[0]["n_missing"] = 3
    assert hidden_counts(tables, everyone(one_table(*GROUPS)), LEAST)[0] == Hidden({"m", "missing"}, {"m", "missing"})


def test_few_subjects_with_many_images_are_hidden() -> None:
    tables = one_table(("x", 80, 40), ("y", 300, 100))
    tables[0]["groups"][0]["n_subjects"] = 4
    assert hidden_counts(tables, everyone(tables), LEAST)[0].n == {"x", "y"}


def cohort(seed: int) -> tuple[list[IntArray], BoolArray]:
    """Up to three attributes with uneven levels, some missing, and labels."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([60, 150, 400]))
    columns = []
    for levels in rng.integers(2, 4, int(rng.integers(1, 4))):
        column = rng.choice(levels, n, p=rng.dirichlet(np.full(levels, 0.7)))
        column[rng.random(n) < 0.1 * rng.integers(0, 2)] = -1
        columns.append(column)
    return columns, rng.random(n) < rng.uniform(0.2, 0.6)


def tables_of(columns: list[IntArray], y: BoolArray) -> list[dict[str, Any]]:
    every = range(len(columns))
    combos = [*itertools.combinations(every, 1), *itertools.combinations(every, 2)]
    tables = []
    for combo in [*combos, tuple(every)] if len(columns) > 2 else combos:
        inside = np.all([columns[i] >= 0 for i in combo], axis=0)
        groups = []
        for levels in sorted(set(zip(*(columns[i][inside].tolist() for i in combo), strict=True))):
            own = inside & np.all([columns[i] == level for i, level in zip(combo, levels, strict=True)], axis=0)
            name = " & ".join(map(str, levels))
            groups.append(row(name, [str(level) for level in levels], int(own.sum()), int(y[own].sum())))
        attributes = [f"a{i}" for i in combo]
        missing = int((~inside).sum())
        tables.append({"name": name, "attributes": attributes, "n_missing": missing, "groups": groups})
    return tables


class Reader:
    """All a reader of the page can know, as a linear program over numbers of negatives and positives in each cell."""

    def __init__(self, tables: list[dict[str, Any]], hidden: list[Hidden], overall: dict[str, Any]) -> None:
        self.names = [table["attributes"][0] for table in tables if len(table["attributes"]) == 1]
        levels = [
            [group["levels"][0] for group in table["groups"]] + [None] * bool(table["n_missing"])
            for table in tables[: len(self.names)]
        ]
        self.cells = [cell for cell in itertools.product(*levels) if all(self.listed(cell, table) for table in tables)]
        everyone = np.ones(len(self.cells))
        self.equal = [(self.n(everyone), overall["n"]), (self.positives(everyone), overall["n_positive"])]
        self.at_most: list[tuple[FloatArray, float]] = []
        self.secret: list[tuple[FloatArray, int]] = []
        for table, own in zip(tables, hidden, strict=True):
            self.read(table, own)

    def own(self, cell: tuple[str | None, ...], table: dict[str, Any]) -> list[str | None]:
        return [cell[self.names.index(name)] for name in table["attributes"]]

    def listed(self, cell: tuple[str | None, ...], table: dict[str, Any]) -> bool:
        own = self.own(cell, table)
        return None in own or own in [group["levels"] for group in table["groups"]]

    def n(self, cells: FloatArray) -> FloatArray:
        return np.concatenate([cells, cells])

    def positives(self, cells: FloatArray) -> FloatArray:
        return np.concatenate([0 * cells, cells])

    def read(self, table: dict[str, Any], own: Hidden) -> None:
        missing = self.n(np.array([None in self.own(cell, table) for cell in self.cells], float))
        if not own.missing:
            self.equal.append((missing, table["n_missing"]))
        elif table["n_missing"] < LEAST:
            self.at_most.append((missing, LEAST - 1))
            self.secret.append((missing, table["n_missing"]))
        for group in table["groups"]:
            inside = np.array([self.own(cell, table) == group["levels"] for cell in self.cells], float)
            n, positives = self.n(inside), self.positives(inside)
            self.at_most.append((-n, -1))  # it is listed, so someone is in it
            if group["name"] not in own.n:
                self.equal.append((n, group["n"]))
            elif group["n"] < LEAST:
                self.at_most.append((n, LEAST - 1))
                self.secret.append((n, group["n"]))
            if group["name"] not in own.classes:
                self.equal.append((positives, group["n_positive"]))
            elif min(group["n_positive"], group["n_negative"]) < LEAST:
                if group["n_positive"] < LEAST:
                    self.at_most.append((positives, LEAST - 1))
                self.secret += [(positives, group["n_positive"]), (n - positives, group["n_negative"])]

    def range_of(self, count: FloatArray) -> tuple[float, float]:
        (a, b), (c, d) = (
            (np.array([v for v, _ in rows]), np.array([v for _, v in rows])) for rows in (self.equal, self.at_most)
        )
        ends = [linprog(sign * count, A_eq=a, b_eq=b, A_ub=c, b_ub=d) for sign in (1, -1)]
        return float(ends[0].fun), float(-ends[1].fun)


@pytest.mark.parametrize("seed", [1, 6, 18, 50, 59, 124, 134])
def test_a_reader_cannot_tell_a_small_count(seed: int) -> None:
    """With every sum worked out over all tables, each hidden count could still be another whole number."""
    columns, y = cohort(seed)
    tables = tables_of(columns, y)
    overall = row("everyone", [], len(y), int(y.sum()))
    reader = Reader(tables, hidden_counts(tables, overall, LEAST), overall)
    assert reader.secret
    for count, true in reader.secret:
        low, high = reader.range_of(count)
        assert low - 1e-6 <= true <= high + 1e-6
        assert high - low >= 1 - 1e-6


def test_a_reader_could_tell_if_only_small_counts_were_hidden() -> None:
    """The test above can fail: without partners many small counts follow."""
    columns, y = cohort(50)
    tables = tables_of(columns, y)
    overall = row("everyone", [], len(y), int(y.sum()))
    small = [Hidden({g["name"] for g in t["groups"] if g["n"] < LEAST}) for t in tables]
    for found, table in zip(small, tables, strict=True):
        few = {g["name"] for g in table["groups"] if min(g["n_positive"], g["n_negative"]) < LEAST}
        found.classes = found.n | few
        found.missing = 0 < table["n_missing"] < LEAST
    reader = Reader(tables, small, overall)
    told = [high - low < 1 - 1e-6 for low, high in map(reader.range_of, (count for count, _ in reader.secret))]
    assert sum(told) > len(told) / 4


def test_intersections_too_many_to_work_out_show_no_counts() -> None:
    rng = np.random.default_rng(0)
    tables = tables_of([rng.integers(0, 9, 4000) for _ in range(3)], rng.random(4000) < 0.4)
    overall = row("everyone", [], 4000, sum(group["n_positive"] for group in tables[0]["groups"]))
    assert hidden_counts(tables, overall, LEAST)[0] == Hidden()
    table = tables[-1]
    assert hidden_counts(tables, overall, LEAST)[-1].n == {group["name"] for group in table["groups"]}
