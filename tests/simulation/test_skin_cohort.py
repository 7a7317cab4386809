import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from monai_fair.errors import MonaiFairError
from monai_fair.simulation import SkinCohort


def test_group_prevalence_by_hand() -> None:
    # p = 0.5, q = 0.5, phi = 0.2: spread 0.2 * sqrt(0.25) = 0.1, both odds 1, so 0.5 + 0.1 and 0.5 - 0.1.
    found = SkinCohort(prevalence=0.5, correlation=0.2).group_prevalence("train")
    assert found == pytest.approx({"male": 0.6, "female": 0.4})


def test_test_split_has_the_same_prevalence_in_both_sexes() -> None:
    assert SkinCohort(correlation=0.4).group_prevalence("test") == {"male": 0.3, "female": 0.3}


@given(p=st.floats(0.05, 0.95), q=st.floats(0.1, 0.9), phi=st.floats(-0.8, 0.8))
def test_group_prevalence_has_the_phi_and_the_prevalence_asked_for(p: float, q: float, phi: float) -> None:
    try:
        cohort = SkinCohort(prevalence=p, male_share=q, correlation=phi)
    except MonaiFairError:
        assume(False)
    shares = cohort.group_prevalence("val")
    # Pearson's correlation of two 0/1 variables over the four cells of the table is phi.
    male, malignant = np.array([1, 1, 0, 0]), np.array([1, 0, 1, 0])
    weight = np.array(
        [q * shares["male"], q * (1 - shares["male"]), (1 - q) * shares["female"], (1 - q) * (1 - shares["female"])]
    )
    covariance = np.cov(male, malignant, aweights=weight, ddof=0)
    assert covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1]) == pytest.approx(phi, abs=1e-9)
    assert weight @ malignant == pytest.approx(p)


def test_every_bad_parameter_is_named_at_once() -> None:
    with pytest.raises(MonaiFairError) as caught:
        SkinCohort(prevalence=1.2, label_bias=math.nan, signal=True, harder_group="men")
    assert str(caught.value) == (
        "SkinCohort: 4 problems\n"
        "  1. prevalence: expected a number from 0.05 to 0.95, got 1.2; give one in that range\n"
        "  2. signal: expected a number from 0 to 6, got True; give one in that range\n"
        "  3. label_bias: expected a number from 0 to 1, got nan; give one in that range\n"
        "  4. harder_group: expected 'male' or 'female', got 'men'; give one of the two"
    )


def test_parameters_that_do_not_go_together_are_named() -> None:
    with pytest.raises(MonaiFairError) as caught:
        SkinCohort(train_share=0.8, val_share=0.2, prevalence=0.1, correlation=0.5)
    # prevalence of women: 0.1 - 0.5 * sqrt(0.1 * 0.9) = 0.1 - 0.15 = -0.05
    assert str(caught.value) == (
        "SkinCohort: 2 problems\n"
        "  1. train_share, val_share: expected a sum of at most 0.95, got 1; lower one of the "
        "two to leave lesions for test\n"
        "  2. correlation: expected a prevalence from 0.01 to 0.99 in both sexes, got -0.05 for female; "
        "bring correlation nearer to 0 or prevalence nearer to 0.5"
    )


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SkinCohort)])
def test_every_parameter_is_checked(name: str) -> None:
    with pytest.raises(MonaiFairError, match=f"SkinCohort: {name}: expected"):
        dataclasses.replace(SkinCohort(), **{name: "wrong"})


def test_whole_numbers_and_floats_make_the_same_parameters() -> None:
    assert repr(SkinCohort(correlation=0).parameters()) == repr(SkinCohort(correlation=0.0).parameters())
