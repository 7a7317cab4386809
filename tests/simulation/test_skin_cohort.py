import dataclasses
import math

import pytest

from monai_fair.errors import MonaiFairError
from monai_fair.simulation import SkinCohort


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
