import numpy as np
import pytest

from monai_fair.metrics import group_gap, permutation_p
from monai_fair.metrics.gaps import gaps_of_groupings


def test_gap_by_hand() -> None:
    values = np.array([[0.9, 0.7, 0.8], [0.5, 0.6, 0.2]])
    np.testing.assert_allclose(group_gap(values, np.array([True, True, True])), [0.2, 0.4])


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_nan_group_changes_nothing_wherever_it_stands(position: int) -> None:
    values = np.insert(np.array([0.9, 0.7]), position, np.nan)
    assert group_gap(values, ~np.isnan(values)) == pytest.approx(0.2)


def test_one_group_has_no_gap() -> None:
    assert np.isnan(group_gap(np.array([[0.5, np.nan]]), np.array([True, False]))).tolist() == [True]


def test_gaps_of_several_groupings_by_hand() -> None:
    # Groupings of three groups, of none, of two, of one and of none; the second quantity leaves out two groups.
    values = np.array([[0.9, 0.7, np.nan, 0.5, 0.4, 0.3], [1.0, 0.5, 0.2, 0.1, 0.8, 0.0]])
    counted = np.array([[True, True, False, True, True, True], [True, False, True, False, True, True]])
    found = gaps_of_groupings(values, counted, np.array([0, 3, 3, 5, 6]))
    nan = np.nan
    np.testing.assert_allclose(found, [[0.2, nan, 0.1, nan, nan], [0.8, nan, nan, nan, nan]], atol=1e-12)
    batch = gaps_of_groupings(np.stack([values, 2 * values]), counted, np.array([0, 3, 3, 5, 6]))
    np.testing.assert_allclose(batch, [found, 2 * found], atol=1e-12)


def test_a_value_that_a_shuffle_leaves_undefined_takes_no_part() -> None:
    values = np.array([[[0.9, np.nan, 0.2]], [[np.nan, np.nan, 0.2]]])
    found = gaps_of_groupings(values, np.ones((1, 3), bool), np.array([0]))
    np.testing.assert_allclose(found, [[[0.7]], [[0.0]]], atol=1e-12)


def test_permutation_p_by_hand() -> None:
    # 2 of 4 shuffles reach 0.3 (equality counts, also when it is off by rounding): (1 + 2) / (4 + 1).
    assert permutation_p(0.3, np.array([0.1, 0.1 + 0.2, 0.5, 0.0])) == 3 / 5
    assert permutation_p(0.1 + 0.2, np.array([0.1, 0.3, 0.5, 0.0])) == 3 / 5


def test_permutation_p_is_never_zero() -> None:
    assert permutation_p(1.0, np.zeros(99)) == 0.01
