from fractions import Fraction
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency, fisher_exact
from scipy.stats.contingency import odds_ratio

from monai_fair.errors import MonaiFairError
from monai_fair.subgroups.contingency import cramers_v, group_odds_ratio


def pair_of(table: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Two variables with these counts."""
    rows, columns = np.indices(np.shape(table)).reshape(2, -1)
    counts = np.ravel(table)
    return np.repeat(rows, counts), np.repeat(columns, counts)


def test_v_by_hand() -> None:
    # 20 expected in each cell, so chi2 = 4 * 10^2 / 20 = 20, phi2 = 20 / 80 and V = 1/2. Corrected:
    # (1/4 - 1/79) / (1 - 1/79) = (79/4 - 1) / 78 = 18.75 / 78.
    found = cramers_v(*pair_of([[30, 10], [10, 30]]))
    assert (found.n, found.reason) == (80, "")
    assert found.value == pytest.approx(0.5, abs=1e-12)
    assert found.corrected == pytest.approx((18.75 / 78) ** 0.5, abs=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_one_variable_that_names_the_other_is_1(size: int) -> None:
    names = np.repeat(np.arange(size), 7)
    found = cramers_v(names, [f"group {name}" for name in names])
    assert (found.value, found.corrected) == (pytest.approx(1), pytest.approx(1))
    assert found.p == 1 / 1001  # no shuffle of 1000 gets there


def test_independent_variables_are_0() -> None:
    found = cramers_v(*pair_of([[8, 4], [4, 2], [12, 6]]))
    assert (found.value, found.corrected, found.p) == (pytest.approx(0, abs=1e-12), 0, 1)


def test_v_is_that_of_pandas_scipy_and_the_published_correction() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        n, r, c = rng.integers([20, 2, 2], [200, 6, 6])
        first = rng.integers(0, r, n)
        second = (first + rng.integers(0, c, n)) % c
        counts = pd.crosstab(first, second)
        found = cramers_v(first, second, permutations=1)
        # written as Bergsma does, from chi2 and with the corrected r and c
        phi2 = chi2_contingency(counts, correction=False).statistic / n
        rows, columns = counts.shape
        rows_, columns_ = rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)
        corrected = max(0, phi2 - (rows - 1) * (columns - 1) / (n - 1)) / (min(rows_, columns_) - 1)
        assert found.value == pytest.approx((phi2 / (min(rows, columns) - 1)) ** 0.5, abs=1e-12)
        assert found.corrected == pytest.approx(corrected**0.5, abs=1e-9)


def test_p_is_the_share_of_all_shuffles() -> None:
    first, second = [0, 0, 0, 1, 1, 2, 2], np.array([0, 0, 1, 1, 1, 2, 2])
    exact = [cramers_v(first, shuffled, permutations=0).value for shuffled in set(permutations(second.tolist()))]
    found = cramers_v(first, second, permutations=20_000)
    expected = np.mean(np.array(exact) >= found.value - 1e-9)
    # standard error at 20,000 shuffles: sqrt(p (1 - p) / 20000) < 0.0036
    assert found.p == pytest.approx(expected, abs=0.011)
    assert cramers_v(first, second, permutations=200, seed=1) == cramers_v(first, second, permutations=200, seed=1)


def test_tables_as_far_from_independence_count_although_they_round_differently() -> None:
    # 2 of 11 rows are in the second column; all 55 pairs are as likely. Exact chi2, up to what all share: the sum of
    # squared counts over their row's total (and column's total).
    rows = np.repeat([0, 1, 2], [3, 4, 4])

    def distance(pair: tuple[int, ...]) -> Fraction:
        second = np.bincount(rows[list(pair)], minlength=3).tolist()
        return sum(
            (Fraction((n - x) ** 2, 9 * n) + Fraction(x**2, 2 * n) for n, x in zip((3, 4, 4), second, strict=True)),
            Fraction(0),
        )

    far = [distance(pair) >= distance((3, 4)) for pair in combinations(range(11), 2)]
    found = cramers_v(rows, np.isin(np.arange(11), (3, 4)), permutations=20_000)
    assert found.p == pytest.approx(sum(far) / 55, abs=0.01)


def test_shuffles_in_blocks_are_as_many_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = pair_of([[6, 2], [2, 6]])
    whole = cramers_v(*pair, permutations=1000)
    monkeypatch.setattr("monai_fair.subgroups.contingency._HELD", 28)  # 7 tables of 4 cells
    assert cramers_v(*pair, permutations=1000).p == pytest.approx(whole.p, abs=0.06)
    assert cramers_v(*pair_of([[5, 0], [0, 5]]), permutations=10).p >= 1 / 11
    assert cramers_v(*pair_of([[4, 4], [4, 4]]), permutations=10).p == 1


def test_chance_alone_has_a_small_p_as_often_as_it_should_and_no_corrected_v() -> None:
    rng = np.random.default_rng(1)
    found = [cramers_v(rng.integers(0, 4, 60), rng.integers(0, 3, 60), permutations=199, seed=at) for at in range(400)]
    # 5 % of 400 with a standard error of 1.1 %
    assert np.mean([one.p <= 0.05 for one in found]) == pytest.approx(0.05, abs=0.033)
    # plain V: phi2 is (r - 1)(c - 1) / (n - 1) = 6/59 on average, so V is about sqrt(6 / 59 / 2) = 0.23
    assert np.mean([one.value for one in found]) == pytest.approx(0.22, abs=0.02)
    assert np.median([one.corrected for one in found]) == pytest.approx(0, abs=0.05)


def test_undefined_v_says_why() -> None:
    for pair, which in (([0] * 4, [0, 1, 0, 1]), "first"), (([0, 1, 0, 1], ["a"] * 4), "second"):
        found = cramers_v(*pair)
        assert np.isnan([found.value, found.corrected, found.p]).all()
        assert (found.n, found.reason) == (4, f"{which} variable has one value only")
    # names of subjects tell every group; that is no finding
    found = cramers_v(["a", "b", "c", "d"], [0, 1, 2, 3])
    assert (found.value, found.p) == (pytest.approx(1), 1)
    assert np.isnan(found.corrected)
    assert found.reason == "corrected V: every row has a value of its own"


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([0, 1], [0], "expected two variables of one length, got 2 and 1 rows"),
        ([0, None], [0, 1], "first: expected one value per row, got shape (2,) with 1 missing"),
        ([0, 1], [[0], [1]], "second: expected one value per row, got shape (2, 1) with 0 missing"),
        ([], [], "first: expected one value per row, got shape (0,) with 0 missing"),
    ],
)
def test_bad_variables_are_refused(first: Any, second: Any, message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        cramers_v(first, second)
    assert str(caught.value) == message


def test_odds_ratio_by_hand() -> None:
    # Of 4 rows 2 are positive and 2 in the group: 1, 4 and 1 ways for 0, 1 and 2 hits. With odds ratio w, one hit or
    # more has (4 w + w^2) / (1 + 4 w + w^2) = 1/40 where w^2 + 4 w = 1/39: w = sqrt(4 + 1/39) - 2. The table is the
    # same from both sides, so the upper end is 1 / w, the estimate 1, and p all of 1.
    found = group_odds_ratio(1, 2, 2, 4)
    low = (4 + 1 / 39) ** 0.5 - 2
    assert (found.value, found.p, found.reason) == (pytest.approx(1), 1, "")
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-9), pytest.approx(1 / low, rel=1e-9))


def test_odds_ratio_is_that_of_scipy() -> None:
    rng = np.random.default_rng(2)
    for confidence in (0.8, 0.95, 0.99):
        for _ in range(15):
            table = rng.integers(1, 40, (2, 2))
            table[rng.integers(0, 2), rng.integers(0, 2)] *= rng.integers(0, 2)
            hits, n, positives, total = table[0, 0], table[0].sum(), table[:, 0].sum(), table.sum()
            found = group_odds_ratio(int(hits), int(n), int(positives), int(total), confidence=confidence)
            expected = odds_ratio(table)
            low, high = expected.confidence_interval(confidence)
            assert (found.low, found.high) == (pytest.approx(low, rel=1e-6), pytest.approx(high, rel=1e-6))
            assert found.value == pytest.approx(expected.statistic, rel=1e-12)
            assert found.p == fisher_exact(table).pvalue


def test_odds_ratio_of_many_rows() -> None:
    # computed once by scipy.stats.contingency.odds_ratio(...).confidence_interval(), which takes 22 s here
    found = group_odds_ratio(30_000, 40_000, 50_000, 100_000)
    assert (found.low, found.high) == (pytest.approx(5.83206312272596, rel=1e-7), pytest.approx(6.172832366, rel=1e-7))


def test_an_empty_cell_bounds_the_odds_ratio_on_one_side() -> None:
    # 5 of 5 against 0 of 5: all or nothing. Only 1 of C(10, 5) = 252 draws is so; p = 2 / 252.
    found = group_odds_ratio(5, 5, 5, 10)
    assert (found.value, found.high) == (np.inf, np.inf)
    assert found.p == pytest.approx(2 / 252)
    assert found.low == pytest.approx(2.2970488, rel=1e-6)  # scipy
    mirrored = group_odds_ratio(0, 5, 5, 10)
    assert (mirrored.value, mirrored.low, mirrored.high) == (0, 0, pytest.approx(1 / found.low, rel=1e-9))


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ((0, 0, 2, 4), "no row in the subgroup"),
        ((2, 4, 2, 4), "every row is in the subgroup"),
        ((0, 2, 0, 4), "no positive row"),
        ((2, 2, 4, 4), "no negative row"),
    ],
)
def test_undefined_odds_say_why(counts: tuple[int, int, int, int], reason: str) -> None:
    found = group_odds_ratio(*counts)
    assert np.isnan([found.value, found.low, found.high, found.p]).all()
    assert found.reason == reason
