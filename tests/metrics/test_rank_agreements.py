"""Kendall's tau-b: by hand, by counting pairs and orders, and where it is undefined."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from monai_fair.errors import MonaiFairError
from monai_fair.metrics import rank_agreement


def tau_b(x: np.ndarray, y: np.ndarray) -> float:
    """Concordant minus discordant pairs over the geometric mean of the pairs that each measure does not tie."""
    score = tied_x = tied_y = pairs = 0
    for i, j in combinations(range(len(x)), 2):
        pairs += 1
        score += int(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j]))
        tied_x += x[i] == x[j]
        tied_y += y[i] == y[j]
    return float(score / np.sqrt((pairs - tied_x) * (pairs - tied_y)))


def test_six_experiments_in_one_order_have_the_smallest_p_there_is() -> None:
    found = rank_agreement([0.5, 0.6, 0.7, 0.8, 0.9, 0.95], [0.4, 0.5, 0.55, 0.7, 0.72, 0.9])
    # two of 6! = 720 orders are as far from chance: this one and its reverse
    assert (found.tau, found.p, found.p_smallest) == pytest.approx((1.0, 2 / 720, 2 / 720))
    assert (found.n, found.method, found.reason) == (6, "exact", "")
    assert f"{found.p_smallest:.4f}" == "0.0028"


def test_four_experiments_by_hand() -> None:
    # 5 of 6 pairs are in order: tau = 4/6. Of 24 orders 1 has tau 1 and 3 have 4/6, and as many below: p = 8/24
    found = rank_agreement([1, 2, 3, 4], [1, 2, 4, 3])
    assert (found.tau, found.p, found.p_smallest) == pytest.approx((2 / 3, 1 / 3, 1 / 12))


def test_p_counts_orders() -> None:
    x, y = np.arange(6.0), np.array([2.0, 0.0, 1.0, 5.0, 3.0, 4.0])
    found = rank_agreement(x, y)
    every = np.array([tau_b(x, np.array(order)) for order in permutations(range(6))])
    assert found.tau == pytest.approx(tau_b(x, y))
    assert found.p == pytest.approx((np.abs(every) >= abs(found.tau) - 1e-12).mean())


VALUES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(VALUES, st.randoms(use_true_random=False))
def test_ties_order_and_direction(pairs: list[tuple[int, int]], shuffle: object) -> None:
    x, y = np.array(pairs, dtype=float).T
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    found = rank_agreement(x, y)
    assert found.tau == pytest.approx(tau_b(x, y), abs=1e-12)
    assert found.method == ("exact" if len(set(x)) == len(set(y)) == len(x) else "asymptotic")
    order = list(range(len(x)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    again, turned = rank_agreement(x[order], y[order]), rank_agreement(-x, np.exp(y))
    assert (again.tau, again.p) == pytest.approx((found.tau, found.p), abs=1e-9)
    assert (turned.tau, turned.p) == pytest.approx((-found.tau, found.p), abs=1e-9)


def test_many_experiments() -> None:
    rng = np.random.default_rng(0)
    found = rank_agreement(rng.random(50), rng.random(50))
    assert found.method == "asymptotic"
    assert 0 < found.p_smallest < 1e-60
    assert rank_agreement(np.arange(200.0), np.arange(200.0)).p_smallest == 0.0


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([], [], "fewer than two experiments"),
        ([1], [2], "fewer than two experiments"),
        ([1, np.nan, 3], [1, 2, np.nan], "undefined in 2 of 3 experiments"),
        ([1, 2, 3], [5, 5, 5], "a measure is the same in all experiments"),
    ],
)
def test_undefined_has_a_reason(x: list[float], y: list[float], reason: str) -> None:
    found = rank_agreement(x, y)
    assert np.isnan([found.tau, found.p]).all()
    assert (found.n, found.reason) == (len(x), reason)


def test_measures_of_other_experiments() -> None:
    with pytest.raises(MonaiFairError) as caught:
        rank_agreement([1, 2], [1, 2, 3])
    assert str(caught.value) == "rank_agreement: expected two measures of the same experiments, got (2,), (3,)"
