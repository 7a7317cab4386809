"""Two values of each seed: by hand, by counting ways to give signs, SciPy's test and interval, laws, messages."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel, wilcoxon

from monai_fair.errors import MonaiFairError
from monai_fair.metrics import PairedDifference, paired_difference

SETTINGS = settings(deadline=None, max_examples=80, derandomize=True)
# quarters: differences of one size are exactly that, so that ties are seen in every order of sums
VALUES = st.lists(st.tuples(st.integers(-8, 8), st.integers(-8, 8)), min_size=1, max_size=7)


def test_four_seeds_by_hand() -> None:
    # differences 1, -2, 3, 4: ranks 1, 2, 3, 4, of which 1, 3 and 4 are above 0
    found = paired_difference([0, 5, 0, 0], [1, 3, 3, 4])
    assert (found.n, found.mean_first, found.mean_later, found.difference) == (4, 1.25, 2.75, 1.5)
    # of 16 ways to give signs these have a sum of 8 or more: 8 (1, 3, 4), 9 (2, 3, 4), 10 (all): p = 2 * 3/16
    assert (found.w, found.p, found.p_smallest) == (8, pytest.approx(6 / 16), 2 / 16)
    # variance of the differences (0.25 + 12.25 + 2.25 + 6.25) / 3 = 7; t of 3 degrees of freedom at 97.5 % is 3.182446
    half = 3.182446 * np.sqrt(7 / 4)
    assert (found.low, found.high) == pytest.approx((1.5 - half, 1.5 + half), rel=1e-6)
    assert (found.reason, found.interval_reason) == ("", "")


def test_ties_share_their_ranks_and_differences_of_0_are_left_out() -> None:
    # differences 0, 2, -2, 2, 5: without the 0 ranks 2, 2, 2 and 4, of which 2, 2 and 4 are above 0: 8 of 10
    found = paired_difference([1, 1, 3, 1, 1], [1, 3, 1, 3, 6])
    # at least 8: all (10), and without any one of the three 2s (8): 4 of 16 ways
    assert (found.n, found.w, found.p) == (5, 8, 2 * 4 / 16)
    halves = paired_difference([0, 0, 0], [1, -1, 2])  # ranks 1.5, 1.5 and 3
    assert (halves.w, halves.p) == (4.5, pytest.approx(2 * 3 / 8))


def test_ten_seeds_can_reach_two_in_a_thousand() -> None:
    found = paired_difference(np.arange(10.0), np.arange(10) * 1.5 + 1)
    assert found.p == found.p_smallest == 2 / 2**10


def counted(change: np.ndarray) -> tuple[float, float]:
    """W and its two-sided p by trying all signs, with ranks by comparing every pair."""
    sizes = np.abs(change[change != 0])
    ranks = np.array([(sizes < size).sum() + ((sizes == size).sum() + 1) / 2 for size in sizes])
    own = float(ranks[change[change != 0] > 0].sum())
    sums = np.array([ranks[np.array(signs, dtype=bool)].sum() for signs in product([0, 1], repeat=len(ranks))])
    return own, min(1.0, 2 * min((sums >= own).mean(), (sums <= own).mean()))


@SETTINGS
@given(VALUES)
def test_p_counts_the_ways_to_give_signs(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=float).T / 4
    found = paired_difference(a, b)
    assert (found.w, found.p) == pytest.approx(counted(b - a), abs=1e-12)
    assert found.p >= found.p_smallest - 1e-12


@pytest.mark.parametrize("n", [2, 9, 30])
def test_p_and_interval_are_scipys(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.8, 0.1, n), rng.normal(0.75, 0.1, n)
    found = paired_difference(a, b, confidence=0.9)
    assert found.p == pytest.approx(wilcoxon(b - a, method="exact").pvalue, abs=1e-12)
    assert found.w == wilcoxon(b - a, method="exact", alternative="greater").statistic
    wanted = ttest_rel(b, a).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@SETTINGS
@given(VALUES, st.randoms(use_true_random=False), st.sampled_from([0.25, 2.0, 8.0]))
def test_order_and_scale_change_nothing_and_swapped_values_the_sign(
    pairs: list[tuple[int, int]], shuffle: Any, scale: float
) -> None:
    a, b = np.array(pairs, dtype=float).T
    found, swapped = paired_difference(a, b), paired_difference(b, a)
    assert swapped.difference == -found.difference
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low), nan_ok=True)
    moved = int((a != b).sum())
    assert (swapped.w, swapped.p) == (moved * (moved + 1) / 2 - found.w, pytest.approx(found.p))
    order = list(range(len(pairs)))
    shuffle.shuffle(order)
    again = paired_difference(scale * a[order], scale * b[order])
    assert (again.w, again.p) == (found.w, pytest.approx(found.p))
    assert again.difference == pytest.approx(scale * found.difference)


def test_where_there_is_no_interval() -> None:
    one = paired_difference([0.5], [0.75])
    assert (one.difference, one.p, one.p_smallest) == (0.25, 1, 1)
    assert np.isnan([one.low, one.high]).all()
    assert one.interval_reason == "one seed: the spread over seeds is unknown"
    same = paired_difference([0.5, 1, 2], [0.75, 1.25, 2.25])
    assert (same.difference, same.p) == (0.25, 2 / 8)
    assert same.interval_reason == "all seeds differ by the same: there is no spread to go by"
    equal = paired_difference([0.5, 0.25], [0.5, 0.25])
    assert (equal.difference, equal.w, equal.p) == (0, 0, 1)


def test_undefined_has_a_reason() -> None:
    found = paired_difference([0.5, np.nan, 0.5], [0.6, 0.7, np.nan])
    nan = float("nan")
    expected = PairedDifference(3, nan, nan, 0.25, reason="undefined in 2 of 3 seeds")
    assert repr(found) == repr(expected).replace("interval_reason=''", "interval_reason='undefined in 2 of 3 seeds'")
    nobody = paired_difference([], [])
    assert (nobody.n, nobody.reason, nobody.interval_reason) == (0, "no seed", "no seed")
    assert np.isnan([nobody.difference, nobody.p, nobody.p_smallest]).all()


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])])
def test_values_that_are_no_pairs(a: Any, b: Any) -> None:
    with pytest.raises(MonaiFairError) as caught:
        paired_difference(a, b)
    shapes = f"{np.shape(a)} and {np.shape(b)}"
    assert str(caught.value) == f"paired_difference: expected two values of each seed, got shapes {shapes}"
