"""Rows left out until the positive rates of groups differ by wanted gaps."""

from itertools import pairwise, product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from monai_fair.data import enlarge_gaps
from monai_fair.errors import MonaiFairError

SETTINGS = settings(deadline=None, max_examples=25, derandomize=True)
Cohort = tuple[np.ndarray, pd.DataFrame]


def cohort(cells: dict[tuple[str, ...], tuple[int, int]], *names: str) -> Cohort:
    """Rows of given numbers of negatives and positives in every joint group."""
    rows = [(*group, label) for group, counts in cells.items() for label in (0, 1) for _ in range(counts[label])]
    table = pd.DataFrame(rows, columns=[*names, "label"])
    return table["label"].to_numpy(), table[list(names)]


def ids(n: int) -> list[str]:
    return [f"{number}.png" for number in range(n)]


def counted(label: np.ndarray, table: pd.DataFrame) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Negatives and positives of every joint group, as pandas counts them."""
    found = pd.crosstab([table[name] for name in table], label).reindex(columns=[0, 1], fill_value=0)
    names = found.index if found.index.nlevels > 1 else [(name,) for name in found.index]
    return {tuple(name): (int(row[0]), int(row[1])) for name, row in zip(names, found.to_numpy(), strict=True)}


def gap(label: np.ndarray, column: pd.Series, group: str) -> float:
    known = pd.DataFrame({"y": label, "group": column.to_numpy() == group})[column.to_numpy() != ""]
    rate = known.groupby("group")["y"].mean()
    return float(rate[True] - rate[False])


def random_cohort(seed: int, n: int, attributes: int, missing: float = 0.0) -> Cohort:
    rng = np.random.default_rng(seed)
    shares = [[0.5 - missing, 0.5, missing], [0.35, 0.65 - missing, missing], [0.6, 0.4 - missing, missing]]
    columns = {f"a{j}": rng.choice(["yes", "no", ""], n, p=shares[j % 3]) for j in range(attributes)}
    return (rng.random(n) < 0.3).astype(int), pd.DataFrame(columns)


# One attribute. Log-odds of women are moved by ln 2, of men by -ln 2, so that half the negatives of women and half the
# positives of men leave: 30 and 40 of women (40 / 70), 80 and 10 of men (10 / 90). Asked for is what that gives:
# a positive rate of 50 / 160, and a gap of 4/7 - 1/9 = 29/63.
def test_one_attribute_by_hand() -> None:
    label, table = cohort({("female",): (60, 40), ("male",): (80, 20)}, "sex")
    kept = enlarge_gaps(label, table, {"sex": {"female": 29 / 63}}, ids=ids(200), prevalence=50 / 160)
    assert counted(label[kept], table[kept]) == {("female",): (30, 40), ("male",): (80, 10)}


# The positive rate stays 1/2: women and men are moved by as much to either side, to odds of 2 and 1/2, since
# 2/3 - 1/3 = 1/3.
def test_the_positive_rate_is_kept_by_hand() -> None:
    label, table = cohort({("female",): (50, 50), ("male",): (50, 50)}, "sex")
    kept = enlarge_gaps(label, table, {"sex": {"female": 1 / 3}}, ids=ids(200))
    assert counted(label[kept], table[kept]) == {("female",): (25, 50), ("male",): (50, 25)}
    kept = enlarge_gaps(label, table, {"sex": {"female": -1 / 3}}, ids=ids(200))
    assert counted(label[kept], table[kept]) == {("female",): (50, 25), ("male",): (25, 50)}


# Two attributes with b = ln 4 each and a = 0: older women are moved by ln 4 (a quarter of 160 negatives stays), younger
# men by -ln 4 (a quarter of 80 positives stays), and in the two mixed groups the attributes cancel. Women then have
# 80 + 50 positives of 120 + 150 rows, men 60 + 20 of 140 + 170; older people 80 + 60 of 120 + 140, younger ones
# 50 + 20 of 150 + 170; 210 of all 580 rows are positive.
def test_two_attributes_by_hand() -> None:
    before = {
        ("female", "older"): (160, 80),
        ("female", "younger"): (100, 50),
        ("male", "older"): (80, 60),
        ("male", "younger"): (150, 80),
    }
    after = {**before, ("female", "older"): (40, 80), ("male", "younger"): (150, 20)}
    label, table = cohort(before, "sex", "age")
    wanted = {"sex": {"female": 130 / 270 - 80 / 310}, "age": {"older": 140 / 260 - 70 / 320}}
    kept = enlarge_gaps(label, table, wanted, ids=ids(len(label)), prevalence=210 / 580)
    assert counted(label[kept], table[kept]) == after


# As in the first case, and 10 rows of unknown sex, 8 and 2: a = 0, so they all stay. 52 of 170 rows are positive.
def test_a_missing_value_is_on_neither_side() -> None:
    label, table = cohort({("",): (8, 2), ("female",): (60, 40), ("male",): (80, 20)}, "sex")
    wanted = {"sex": {"female": 29 / 63}}
    kept = enlarge_gaps(label, table, wanted, ids=ids(210), prevalence=52 / 170)
    assert counted(label[kept], table[kept]) == {("",): (8, 2), ("female",): (30, 40), ("male",): (80, 10)}
    absent = table["sex"].mask(table["sex"] == "", None).to_frame()
    np.testing.assert_array_equal(enlarge_gaps(label, absent, wanted, ids=ids(210), prevalence=52 / 170), kept)


def test_groups_of_one_attribute_are_each_compared_with_all_others() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"race": rng.choice(["Asian", "Black", "White"], 3000)})
    label = (rng.random(3000) < 0.4).astype(int)
    kept = enlarge_gaps(label, table, {"race": {"Asian": 0.15, "Black": -0.2}}, ids=ids(3000))
    assert gap(label[kept], table["race"][kept], "Asian") == pytest.approx(0.15, abs=0.002)
    assert gap(label[kept], table["race"][kept], "Black") == pytest.approx(-0.2, abs=0.002)


# FCRO's cohort in small: three attributes without gaps, gaps of 0.12.
@pytest.mark.parametrize("seed", range(3))
def test_log_odds_are_additive_and_nearly_as_many_rows_stay_as_can(seed: int) -> None:
    label, table = random_cohort(seed, 60_000, 3)
    wanted = {"a0": {"yes": 0.12}, "a1": {"yes": 0.12}, "a2": {"yes": -0.12}}
    kept = enlarge_gaps(label, table, wanted, ids=ids(60_000))
    before, after = counted(label, table), counted(label[kept], table[kept])
    n, k = np.array(list(before.values())), np.array(list(after.values()))
    assert ((n == k).any(axis=1)).all()  # rows of one label only leave a joint group
    # the log-odds of every joint group are moved by a term per attribute and a constant, and by nothing else
    design = np.array([[1, *(value == "yes" for value in group)] for group in before])
    moved = np.log(k[:, 1] / k[:, 0]) - np.log(n[:, 1] / n[:, 0])
    terms = np.linalg.lstsq(design, moved, rcond=None)[0]
    np.testing.assert_allclose(design @ terms, moved, atol=0.002)  # whole rows, of about 1000
    assert 0.9 * most_rows(n, k, list(before)) < k.sum() <= most_rows(n, k, list(before)) + 1e-6


def most_rows(n: np.ndarray, kept: np.ndarray, groups: list[tuple[str, ...]]) -> float:
    """The most rows that have the same rates of all groups of an attribute, in any choice: a linear program."""
    sides = [np.ones(len(groups), dtype=bool)]
    sides += [np.array([group[j] == value for group in groups]) for j, value in product(range(3), ("yes", "no"))]
    equal = []
    for side in sides:
        rate = kept[side, 1].sum() / kept[side].sum()
        equal.append((side[:, None] * np.array([-rate, 1 - rate])).ravel())
    bounds = np.column_stack([np.zeros(n.size), n.ravel()])
    return -float(linprog(-np.ones(n.size), A_eq=np.array(equal), b_eq=np.zeros(len(equal)), bounds=bounds).fun)


@SETTINGS
@given(
    st.integers(0, 2**32 - 1),
    st.integers(300, 900),
    st.lists(st.floats(-0.15, 0.15), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.05]),
    st.one_of(st.none(), st.floats(0.25, 0.5)),
)
def test_wanted_rates_are_reached(seed: int, n: int, gaps: list[float], missing: float, prevalence: float) -> None:
    label, table = random_cohort(seed, n, len(gaps), missing)
    wanted = {f"a{j}": {"yes": value} for j, value in enumerate(gaps)}
    kept = enlarge_gaps(label, table, wanted, ids=ids(n), prevalence=prevalence)
    assert kept.shape == (n,)
    for name, value in zip(wanted, gaps, strict=True):
        assert gap(label[kept], table[name][kept], "yes") == pytest.approx(value, abs=0.005)
    assert label[kept].mean() == pytest.approx(prevalence or label.mean(), abs=0.005)
    before, after = counted(label, table), counted(label[kept], table[kept])
    # no joint group loses all its rows of a label
    assert all((after[group][kind] > 0) == (rows[kind] > 0) for group, rows in before.items() for kind in (0, 1))


@SETTINGS
@given(st.integers(0, 2**32 - 1), st.integers(0, 99), st.floats(0.05, 0.15))
def test_order_of_rows_changes_nothing_and_the_seed_only_who_stays(seed: int, draw: int, value: float) -> None:
    label, table = random_cohort(seed, 400, 2, 0.05)
    wanted, names = {"a0": {"yes": value}, "a1": {"no": value}}, np.array(ids(400))
    kept = enlarge_gaps(label, table, wanted, ids=list(names), seed=draw)
    order = np.random.default_rng(seed).permutation(400)
    again = enlarge_gaps(label[order], table.iloc[order], wanted, ids=list(names[order]), seed=draw)
    np.testing.assert_array_equal(again, kept[order])
    other = enlarge_gaps(label, table, wanted, ids=list(names), seed=draw + 1)
    assert (other != kept).any()
    assert counted(label[other], table[other]) == counted(label[kept], table[kept])
    # once more, now that the gaps are there, nothing leaves
    reached = {name: {group: gap(label[kept], table[name][kept], group) for group in wanted[name]} for name in wanted}
    assert enlarge_gaps(label[kept], table[kept], reached, ids=list(names[kept]), seed=draw).all()


@SETTINGS
@given(st.integers(0, 2**32 - 1), st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_names_of_sides_and_labels_do_not_matter(seed: int, first: float, second: float) -> None:
    label, table = random_cohort(seed, 2000, 2)
    kept = enlarge_gaps(label, table, {"a0": {"yes": first}, "a1": {"yes": second}}, ids=ids(2000))
    expected = counted(label[kept], table[kept])
    sides = enlarge_gaps(label, table, {"a1": {"no": -second}, "a0": {"yes": first}}, ids=ids(2000))
    swapped = enlarge_gaps(1 - label, table, {"a0": {"yes": -first}, "a1": {"yes": -second}}, ids=ids(2000))
    for found in (counted(label[sides], table[sides]), counted(label[swapped], table[swapped])):
        # but for counts that can be rounded either way
        assert all(abs(found[group][kind] - rows[kind]) <= 1 for group, rows in expected.items() for kind in (0, 1))


def test_who_stays_at_a_larger_gap_stays_at_a_smaller_one() -> None:
    label, table = random_cohort(0, 5000, 2)
    masks = [
        enlarge_gaps(label, table, {"a0": {"yes": value}, "a1": {"yes": value}}, ids=ids(5000), seed=7)
        for value in (0.05, 0.15, 0.25)
    ]
    cells = [tuple(row) for row in table.assign(label=label).to_numpy()]
    for small, large in pairwise(masks):
        frame = pd.DataFrame({"cell": cells, "small": small, "large": large})
        for _, rows in frame.groupby("cell"):
            fewer, more = sorted(("small", "large"), key=lambda name: rows[name].sum())
            assert not (rows[fewer] & ~rows[more]).any()


# 10 women are positive and 10 are not, 20 men are all negative. With the positive rate kept at 1/4 and one man left,
# k positive women of k + 11 rows give k = 11/3: women have a rate of (11/3) / (11/3 + 10) = 11/41 = 0.268, men of 0,
# and no gap is smaller. From the data's 0.5 to the wanted 0.2 that is 77.2 % of the way; found to 1/512 of it.
def test_what_cannot_be_reached_is_said_with_what_can() -> None:
    label, table = cohort({("female",): (10, 10), ("male",): (20, 0)}, "sex")
    with pytest.raises(MonaiFairError) as caught:
        enlarge_gaps(label, table, {"sex": {"female": 0.2}}, ids=ids(40))
    assert str(caught.value) == (
        "expected gaps that can be reached, got sex:female 0.200 at a positive rate of 0.250; from the data's own "
        "(sex:female 0.500 at a positive rate of 0.250) the largest on the way there are sex:female 0.269 at a "
        "positive rate of 0.250; ask for smaller or fewer gaps or a prevalence nearer to 0.5, or take more rows"
    )
    kept = enlarge_gaps(label, table, {"sex": {"female": 0.2}}, ids=ids(40), prevalence=0.1)
    assert gap(label[kept], table["sex"][kept], "female") == pytest.approx(0.2, abs=0.02)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    table = pd.DataFrame({"sex": ["female", "female"], "site": ["", ""], "age": [1, 2]})
    gaps: Any = {"sex": {"female": 2, "male": "x"}, "site": {"a": 0.1}, "age": {}, "race": {"White": 0.1}}
    with pytest.raises(MonaiFairError) as caught:
        enlarge_gaps([0, 0], table, gaps, ids=["a", "a"], prevalence=1)
    assert str(caught.value) == (
        "gaps: 10 problems\n"
        "  1. expected a prevalence between 0 and 1, got 1\n"
        "  2. expected rows of both labels, got none of label 1\n"
        "  3. expected an id of its own for every row, 1 are repeated\n"
        "  4. sex:male: expected a group that occurs (female), got no row of it\n"
        "  5. sex:female: expected a gap between -1 and 1, got 2\n"
        "  6. sex:male: expected a gap between -1 and 1, got 'x'\n"
        "  7. sex: expected rows of another group to compare with, got only female\n"
        "  8. site:a: expected a group that occurs (none does), got no row of it\n"
        "  9. age: expected a group and its gap, got none\n"
        "  10. race: expected a recorded attribute (sex, site, age); correct the name"
    )


@pytest.mark.parametrize(
    ("label", "gaps", "prevalence", "expected"),
    [
        (
            [0, 1, 2],
            {"sex": {"female": 0.1}},
            None,
            "expected labels 0 and 1 only; make a manifest of two classes first",
        ),
        ([0, 1, 1], {}, None, "expected at least one wanted gap, got none"),
        ([0, 1, 1], {"sex": {"female": float("nan")}}, None, "sex:female: expected a gap between -1 and 1, got nan"),
        ([0, 1, 1], {"sex": {"female": 0.1}}, "a", "expected a prevalence between 0 and 1, got 'a'"),
        (
            [0, 1],
            {"sex": {"female": 0.1}},
            None,
            "expected a label, attributes and an id for every row, got (2,) labels, 3 rows of attributes and 3 ids",
        ),
    ],
)
def test_one_thing_that_is_wrong(label: list[int], gaps: Any, prevalence: Any, expected: str) -> None:
    table = pd.DataFrame({"sex": ["female", "male", ""]})
    with pytest.raises(MonaiFairError) as caught:
        enlarge_gaps(label, table, gaps, ids=ids(3), prevalence=prevalence)
    assert str(caught.value) == f"gaps: {expected}"
