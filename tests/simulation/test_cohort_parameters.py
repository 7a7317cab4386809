import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fair.simulation import BrainCohort, SkinCohort
from monai_fair.simulation.cohort_parameters import number_problems, shares_by_sex, whole_number_problems

# what is a number, and a whole number, of the range 0 to 2
CASES = [
    (0, True, True), (2, True, True), (0.0, True, False), (2.0, True, False), (1.5, True, False), (-1, False, False),
    (2.01, False, False), (math.nan, False, False), (math.inf, False, False), (True, False, False),
    ("1", False, False), (None, False, False), ([1], False, False),
]  # fmt: skip


@pytest.mark.parametrize(("value", "number", "whole"), CASES)
def test_a_value_in_a_range(value: Any, number: bool, whole: bool) -> None:
    for found, wanted, accepted in (
        (number_problems({"a": value}, {"a": (0, 2)}), "number", number),
        (whole_number_problems({"a": value}, {"a": (0, 2)}), "whole number", whole),
    ):
        text = f"a: expected a {wanted} from 0 to 2, got {value!r}; give one in that range"
        assert found == ([] if accepted else [text])


def test_every_problem_is_told_in_the_order_of_the_ranges() -> None:
    ranges = {"b": (1, 2), "a": (1, 2), "c": (1, 2), "d": (1, 2)}
    values = {"a": None, "b": None, "c": 1, "d": 3, "other": "x"}
    found = whole_number_problems(values, ranges, optional=["a", "d"])
    assert [line.split(":")[0] for line in found] == ["b", "d"]


def test_shares_by_hand() -> None:
    # p = 0.5, q = 0.5, phi = 0.2: spread 0.2 * sqrt(0.25) = 0.1, both odds 1, so 0.5 + 0.1 and 0.5 - 0.1.
    assert shares_by_sex(0.5, 0.5, 0.2) == pytest.approx({"male": 0.6, "female": 0.4})
    # p = 0.5, q = 0.2, phi = 0.2: spread 0.1, odds of men sqrt(0.8 / 0.2) = 2, so 0.5 + 0.1 * 2 and 0.5 - 0.1 / 2
    assert shares_by_sex(0.5, 0.2, 0.2) == pytest.approx({"male": 0.7, "female": 0.45})


@given(p=st.floats(0.05, 0.95), q=st.floats(0.05, 0.95), phi=st.floats(-0.95, 0.95))
def test_shares_have_the_phi_and_the_prevalence_asked_for(p: float, q: float, phi: float) -> None:
    shares = shares_by_sex(p, q, phi)
    # Pearson's correlation of two 0/1 variables over the four cells of the table is phi. Impossible shares have
    # negative cells, for which the sums hold as well.
    male, positive = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])
    weight = np.array(
        [q * shares["male"], q * (1 - shares["male"]), (1 - q) * shares["female"], (1 - q) * (1 - shares["female"])]
    )
    assert weight @ positive == pytest.approx(p)
    covariance = weight @ (male * positive) - (weight @ male) * (weight @ positive)
    assert covariance / math.sqrt(q * (1 - q) * p * (1 - p)) == pytest.approx(phi, abs=1e-9)


@pytest.mark.parametrize("kind", [SkinCohort, BrainCohort])
def test_a_cohort_has_these_shares_in_train_and_val_and_its_prevalence_in_test(kind: type[Any]) -> None:
    cohort = kind(prevalence=0.3, male_share=0.4, correlation=0.35)
    expected = shares_by_sex(0.3, 0.4, 0.35)
    assert expected["male"] > 0.4 > 0.3 > expected["female"]
    assert {name: cohort.group_prevalence(name) for name in ("train", "val")} == {"train": expected, "val": expected}
    assert cohort.group_prevalence("test") == {"male": 0.3, "female": 0.3}


@pytest.mark.parametrize("kind", [SkinCohort, BrainCohort])
def test_whole_numbers_and_floats_make_the_same_parameters(kind: type[Any]) -> None:
    assert repr(kind(correlation=0).parameters()) == repr(kind(correlation=0.0).parameters())
