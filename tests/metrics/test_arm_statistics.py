"""Two arms over seeds: by hand, by counting all ways to deal seeds to arms, SciPy's interval, laws and messages."""

from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from monai_fair.errors import MonaiFairError
from monai_fair.metrics import arm_difference, compare_arms, smallest_p
from monai_fair.multiplicity import holm


def test_three_seeds_by_hand() -> None:
    found = arm_difference([1, 2, 3], [4, 5, 6])
    assert (found.n_first, found.n_later, found.mean_first, found.mean_later) == (3, 3, 2, 5)
    # all 9 pairs are larger; 2 of C(6, 3) = 20 ways to deal the seeds are as extreme
    assert (found.difference, found.u, found.p, found.p_smallest) == pytest.approx((3, 9, 0.1, 0.1))
    # variances of 1: standard error sqrt(2/3), 4 degrees of freedom, whose 97.5 % quantile is 2.776445
    assert (found.low, found.high) == pytest.approx((3 - 2.776445 * np.sqrt(2 / 3), 3 + 2.776445 * np.sqrt(2 / 3)))
    assert (found.method, found.reason, found.interval_reason) == ("exact", "", "")


def test_ten_seeds_against_ten_can_reach_one_in_a_hundred_thousand() -> None:
    found = arm_difference(np.arange(10), np.arange(10) + 100)
    assert found.p == pytest.approx(found.p_smallest) == pytest.approx(2 / 184756)
    one_sided = arm_difference(np.arange(10), np.arange(10) + 100, alternative="greater")
    assert one_sided.p == pytest.approx(one_sided.p_smallest) == pytest.approx(1 / 184756)
    assert arm_difference(np.arange(10), np.arange(10) + 100, alternative="less").p == pytest.approx(1)


@pytest.mark.parametrize(("n", "m", "two", "one"), [(1, 1, 1.0, 0.5), (3, 3, 0.1, 0.05), (5, 5, 2 / 252, 1 / 252)])
def test_the_smallest_p(n: int, m: int, two: float, one: float) -> None:
    assert smallest_p(n, m) == pytest.approx(two)
    assert smallest_p(n, m, alternative="less") == pytest.approx(one)
    assert np.isnan(smallest_p(0, m))


SEEDS = st.lists(st.floats(-1e3, 1e3).map(lambda value: round(value, 3)), min_size=1, max_size=5)
SETTINGS = settings(deadline=None, max_examples=80, derandomize=True)


def pairs_won(a: np.ndarray, b: np.ndarray) -> float:
    return float((b[:, None] > a[None, :]).sum() + (b[:, None] == a[None, :]).sum() / 2)


@SETTINGS
@given(SEEDS, SEEDS, st.sampled_from(["two-sided", "greater", "less"]))
def test_p_counts_the_ways_to_deal_seeds(first: list[float], later: list[float], alternative: Any) -> None:
    a, b = np.array(first), np.array(later)
    found = arm_difference(a, b, alternative=alternative)
    pooled = np.concatenate([a, b])
    assert found.u == pytest.approx(pairs_won(a, b))
    if len(set(pooled)) < pooled.size:
        assert found.method == "asymptotic"
        return
    dealt = np.array([
        pairs_won(np.delete(pooled, chosen), pooled[list(chosen)])
        for chosen in combinations(range(pooled.size), b.size)
    ])  # fmt: skip
    assert dealt.size == comb(pooled.size, b.size)
    up, down = (dealt >= found.u).mean(), (dealt <= found.u).mean()
    wanted = {"greater": up, "less": down, "two-sided": min(1.0, 2 * min(up, down))}[alternative]
    assert (found.method, found.p) == ("exact", pytest.approx(wanted, abs=1e-12))
    assert found.p >= found.p_smallest - 1e-12


@SETTINGS
@given(SEEDS, SEEDS, st.randoms(use_true_random=False), st.floats(0.1, 10))
def test_order_and_scale_change_nothing_and_swapped_arms_the_sign(
    first: list[float], later: list[float], shuffle: Any, scale: float
) -> None:
    found, swapped = arm_difference(first, later), arm_difference(later, first)
    assert swapped.difference == pytest.approx(-found.difference, abs=1e-9)
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low), abs=1e-9, nan_ok=True)
    assert swapped.p == pytest.approx(found.p, abs=1e-12)
    assert swapped.u == len(first) * len(later) - found.u
    shuffle.shuffle(first)
    scaled = arm_difference(scale * np.array(first), scale * np.array(later))
    assert scaled.difference == pytest.approx(scale * found.difference, abs=1e-6)
    if scaled.method == found.method:
        assert scaled.p == pytest.approx(found.p, abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(10, 10), (5, 9), (2, 20)])
def test_the_interval_is_welchs(n: int, m: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.8, 0.02, n), rng.normal(0.7, 0.1, m)
    found = arm_difference(a, b, confidence=0.9)
    wanted = ttest_ind(b, a, equal_var=False).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


def test_where_there_is_no_interval() -> None:
    one = arm_difference([0.5], [0.6, 0.7])
    assert (one.difference, one.p) == pytest.approx((0.15, 2 / 3))
    assert np.isnan([one.low, one.high]).all()
    assert one.interval_reason == "one seed in an arm: the spread over seeds is unknown"
    same = arm_difference([0.5, 0.5], [0.75, 0.75])
    assert (same.difference, same.method, same.reason) == (0.25, "asymptotic", "")
    assert same.interval_reason == "all seeds of an arm have the same value: there is no spread to go by"
    equal = arm_difference([0.5, 0.5], [0.5, 0.5])
    assert (equal.difference, equal.p) == (0, 1)


def test_undefined_has_a_reason() -> None:
    found = arm_difference([0.5, np.nan, np.nan], [0.6, 0.7])
    assert np.isnan([found.mean_first, found.difference, found.low, found.high, found.u, found.p]).all()
    assert (found.n_first, found.n_later, found.mean_later) == (3, 2, pytest.approx(0.65))
    assert found.p_smallest == pytest.approx(0.2)  # 2 / C(5, 2)
    assert found.reason == found.interval_reason == "undefined in 2 of 3 seeds of the first arm"
    nobody = arm_difference([], [0.6, np.nan])
    assert nobody.reason == "no seed in the first arm; undefined in 1 of 2 seeds of the later arm"
    assert np.isnan(nobody.p_smallest)


def test_bad_options() -> None:
    with pytest.raises(MonaiFairError) as caught:
        arm_difference([1.0], [2.0], alternative="larger")  # type: ignore[arg-type]
    assert str(caught.value) == "alternative: expected one of two-sided, less, greater, got 'larger'"
    with pytest.raises(MonaiFairError) as caught:
        arm_difference([[1.0]], [2.0])
    assert str(caught.value) == "arm_difference: expected one value per seed and arm, got shapes (1, 1) and (1,)"


def study() -> pd.DataFrame:
    """F1 and NC1 of two groups; F1 of men falls in all seeds, NC1 of women rises in all, and the others hardly move."""
    rows = []
    for seed in range(4):
        for arm in ("clean", "biased"):
            late = arm == "biased"
            values = {
                ("f1", "female"): 0.8 + 0.01 * seed + 0.005 * late,
                ("f1", "male"): 0.7 + 0.01 * seed - 0.1 * late,
                ("nc1", "female"): 1.0 + 0.1 * seed + 0.6 * late,
                ("nc1", "male"): 1.0 + 0.1 * seed + 0.04 * late,
            }
            rows += [(*cell, arm, str(seed), value, "x") for cell, value in values.items()]
    return pd.DataFrame(rows, columns=["measure", "group", "arm", "seed", "value", "note"])


def test_every_cell_is_compared_and_p_adjusted_over_all() -> None:
    found = compare_arms(study(), by=["measure", "group"])
    cells = [("f1", "female"), ("f1", "male"), ("nc1", "female"), ("nc1", "male")]
    assert list(zip(found["measure"], found["group"], strict=True)) == cells
    assert found["difference"].tolist() == pytest.approx([0.005, -0.1, 0.6, 0.04])
    # wins of pairs: seeds differ by 0.01 and 0.1, so that the biased arm wins 10 of 16 where it is a little larger
    assert found["u"].tolist() == [10, 0, 16, 10]
    # 2 of C(8, 4) = 70 for none and all of the pairs; twice the share of ways with 10 or more of 16 is 48/70
    assert found["p"].tolist() == pytest.approx([48 / 70, 2 / 70, 2 / 70, 48 / 70])
    # Holm: 4 times the smallest for both of these; 2 and 1 times 48/70, at most 1, and never falling
    assert found["p_holm"].tolist() == pytest.approx([1, 8 / 70, 8 / 70, 1])
    assert found["p_smallest"].tolist() == pytest.approx([2 / 70] * 4)
    assert found["n_first"].tolist() == found["n_later"].tolist() == [4] * 4
    assert list(found) == [
        "measure", "group", "n_first", "n_later", "mean_first", "mean_later", "p_smallest", "difference", "low", "high",
        "u", "p", "p_holm", "method", "reason", "interval_reason",
    ]  # fmt: skip


def test_order_of_rows_changes_no_number() -> None:
    first = compare_arms(study(), by=["measure", "group"]).set_index(["measure", "group"]).sort_index()
    shuffled = study().sample(frac=1, random_state=1)
    again = compare_arms(shuffled, by=["measure", "group"]).set_index(["measure", "group"]).sort_index()
    pd.testing.assert_frame_equal(again, first)


def test_a_cell_that_one_arm_lacks_is_a_row_with_its_reason_and_no_test() -> None:
    table = study()
    gone = table[~((table["group"] == "male") & (table["measure"] == "nc1") & (table["arm"] == "biased"))]
    found = compare_arms(gone, by=["measure", "group"])
    assert found["reason"].tolist() == ["", "", "", "no seed in the later arm"]
    assert np.isnan(found["p_holm"].iloc[3])
    np.testing.assert_allclose(found["p_holm"], holm(found["p"]))
    assert found["p_holm"].iloc[1] == pytest.approx(3 * 2 / 70)


def test_other_arms_take_no_part() -> None:
    table = study()
    third = table.assign(arm=table["arm"].replace("biased", "nir"), value=9.0)
    both = pd.concat([table, third[third["arm"] == "nir"]])
    pd.testing.assert_frame_equal(
        compare_arms(both, by=["measure", "group"]), compare_arms(table, by=["measure", "group"])
    )
    assert (compare_arms(both, by=["measure", "group"], arms=("clean", "nir"))["mean_later"] == 9).all()


def refusal(table: pd.DataFrame, **options: Any) -> str:
    with pytest.raises(MonaiFairError) as caught:
        compare_arms(table, **{"by": ["measure", "group"], **options})
    return str(caught.value)


def test_tables_that_cannot_be_compared() -> None:
    table = study()
    assert refusal(table.drop(columns=["seed"]), by=["experiment"]) == (
        "compare_arms: 2 problems\n"
        "  1. expected a column 'experiment', found measure, group, arm, value, note\n"
        "  2. expected a column 'seed', found measure, group, arm, value, note"
    )
    assert "by: expected at least one column that tells comparisons apart, got none" in refusal(table, by=[])
    assert (
        refusal(table, arms=("clean", "bias")) == "compare_arms: expected rows of the arm 'bias', found clean, biased"
    )
    assert refusal(table, by=["measure"]) == (
        "compare_arms: expected one value per seed, 16 are repeated, such as that of measure f1, arm clean, seed 0"
    )
