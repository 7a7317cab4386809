"""Which epoch each strategy chooses, and why an epoch has no part."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monai_fair.metrics.selection import distance_to_utopia, pareto_front, select_epochs

NAN = float("nan")
# Best of group A is 0.9 (epoch 0), of group B 0.8 (epoch 3): the utopia point is (0.9, 0.8). In hundredths the epochs
# are away from it by (0, 30), (3, 4), (10, 10), (40, 0) and (5, 12): 30, 5, sqrt(200) = 14.14, 40 and 13.
GROUPS = np.array([[0.90, 0.50], [0.87, 0.76], [0.80, 0.70], [0.50, 0.80], [0.85, 0.68]])
OVERALL = np.array([0.95, 0.80, 0.80, 0.60, 0.70])


def test_each_strategy_chooses_its_epoch() -> None:
    # epochs 2 and 4 are dominated by epoch 1
    assert select_epochs(OVERALL, GROUPS) == {
        "overall": 0,
        "worst_group": 1,
        "dto": 1,
        "pareto": [0, 1, 3],
        "left_out": {},
    }
    np.testing.assert_allclose(distance_to_utopia(GROUPS), [0.30, 0.05, np.sqrt(0.02), 0.40, 0.13], rtol=1e-12)


def test_the_strategies_may_all_differ() -> None:
    # utopia (1.0, 0.7): distances sqrt(0.01 + 0.04), sqrt(0.09 + 0) = 0.3, and 0.25 of the last; worst 0.5, 0.7, 0.45
    values = np.array([[0.9, 0.5], [0.7, 0.7], [1.0, 0.45]])
    chosen = select_epochs([0.6, 0.7, 0.8], values)
    assert (chosen["overall"], chosen["worst_group"], chosen["dto"]) == (2, 1, 0)
    assert chosen["pareto"] == [0, 1, 2]


def test_ties_go_to_the_earliest_epoch_and_equal_epochs_stand_side_by_side() -> None:
    # In eighths, so that equal distances are equal: the utopia point is (6, 6) / 8, and each epoch is 2 / 8 away.
    values = np.array([[6, 4], [4, 6], [6, 4]]) / 8
    chosen = select_epochs([0.5, 0.5, 0.5], values)
    assert (chosen["overall"], chosen["worst_group"], chosen["dto"]) == (0, 0, 0)
    assert chosen["pareto"] == [0, 1, 2]


@pytest.mark.parametrize("place", [0, 1, 4], ids=["first", "inner", "last"])
def test_an_undefined_epoch_has_no_part_and_a_reason(place: int) -> None:
    values, overall = GROUPS.copy(), OVERALL.copy()
    # without the NaN this epoch would be chosen by every strategy, and move the utopia point
    values[place], overall[place] = (1.0, NAN), 1.0
    chosen = select_epochs(overall, values, names=["A", "é"])
    rest = [epoch for epoch in range(5) if epoch != place]
    expected = select_epochs(overall[rest], values[rest])
    for strategy in ("overall", "worst_group", "dto"):
        assert chosen[strategy] == rest[expected[strategy]]
    assert chosen["pareto"] == [rest[epoch] for epoch in expected["pareto"]]
    assert chosen["left_out"] == {place: "undefined: the value of 'é'"}


def test_without_a_defined_epoch_nothing_is_chosen() -> None:
    assert select_epochs([NAN, 0.5], [[0.5, 0.5], [NAN, NAN]]) == {
        "overall": None,
        "worst_group": None,
        "dto": None,
        "pareto": [],
        "left_out": {
            0: "undefined: the overall value",
            1: "undefined: the value of group 0, the value of group 1",
        },
    }
    assert select_epochs([], np.zeros((0, 2)))["overall"] is None


@pytest.mark.parametrize(
    ("overall", "by_group", "message"),
    [
        (
            [0.5],
            [0.5],
            r"expected overall of shape \(E,\) and by_group of shape \(E, G\) with G > 0, got \(1,\) and \(1,\)",
        ),
        ([0.5], [[0.5], [0.6]], r"got \(1,\) and \(2, 1\)"),
        ([0.5], [[]], r"got \(1,\) and \(1, 0\)"),
    ],
)
def test_shapes_that_do_not_fit_are_an_error(overall: list[float], by_group: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_epochs(overall, by_group)


def test_a_missing_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected one name for each of 2 groups, got 1"):
        select_epochs(OVERALL, GROUPS, names=["A"])


VALUES = arrays(
    np.float64,
    st.tuples(st.integers(1, 7), st.integers(1, 4)),
    elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, NAN]),
)


@given(VALUES)
def test_laws_of_the_front_and_of_the_choices(values: np.ndarray) -> None:
    """Against a front written as loops over pairs."""

    def dominates(one: np.ndarray, other: np.ndarray) -> bool:
        pairs = list(zip(one, other, strict=True))
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    defined = [epoch for epoch, row in enumerate(values) if all(value == value for value in row)]
    front = [e for e in defined if not any(dominates(values[o], values[e]) for o in defined)]
    assert np.flatnonzero(pareto_front(values)).tolist() == front
    chosen = select_epochs(np.zeros(len(values)), values)
    assert sorted({*chosen["left_out"], *defined}) == list(range(len(values)))
    if defined:
        worst = [min(values[epoch]) for epoch in defined]
        assert chosen["worst_group"] == defined[worst.index(max(worst))]
        # nothing dominates what is closest to the utopia point, up to an equal epoch
        assert chosen["dto"] in front
        assert chosen["overall"] == defined[0]


@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_of_groups_changes_nothing(values: np.ndarray, random: object) -> None:
    order = list(range(values.shape[1]))
    random.shuffle(order)  # type: ignore[attr-defined]
    one, other = (select_epochs(np.zeros(len(values)), table) for table in (values, values[:, order]))
    assert (one["worst_group"], one["pareto"]) == (other["worst_group"], other["pareto"])
    np.testing.assert_allclose(distance_to_utopia(values), distance_to_utopia(values[:, order]), atol=1e-12)
