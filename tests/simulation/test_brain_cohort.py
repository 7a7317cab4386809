import dataclasses
import math

import pytest

from monai_fair.errors import MonaiFairError
from monai_fair.simulation import BrainCohort


def test_every_bad_parameter_is_named_at_once() -> None:
    with pytest.raises(MonaiFairError) as caught:
        BrainCohort(prevalence=1, noise="much", distractors=1.5, contrast="t2", scramble_axes=1, smoothness_mm=1)
    assert str(caught.value) == (
        "BrainCohort: 6 problems\n"
        "  1. prevalence: expected a number from 0.05 to 0.95, got 1; give one in that range\n"
        "  2. smoothness_mm: expected a number from 4 to 60, got 1; give one in that range\n"
        "  3. noise: expected a number from 0 to 0.5, got 'much'; give one in that range\n"
        "  4. distractors: expected a whole number from 0 to 6, got 1.5; give one in that range\n"
        "  5. contrast: expected one of same, gamma, inverted, got 't2'; give one of them\n"
        "  6. scramble_axes: expected True or False, got 1; give one of the two"
    )


def test_not_a_number_is_no_number_in_a_range() -> None:
    with pytest.raises(MonaiFairError, match=r"noise: expected a number from 0 to 0\.5, got nan"):
        BrainCohort(noise=math.nan)


def test_parameters_that_do_not_go_together_are_named() -> None:
    # with p = 0.2 and half men: men 0.2 + 0.9 * 0.4 = 0.56, women 0.2 - 0.9 * 0.4 = -0.16
    with pytest.raises(MonaiFairError) as caught:
        BrainCohort(prevalence=0.2, correlation=0.9, train_share=0.8, val_share=0.3)
    assert str(caught.value) == (
        "BrainCohort: 2 problems\n"
        "  1. train_share, val_share: expected a sum of at most 1, got 1.1; lower one of the two\n"
        "  2. correlation: expected a prevalence from 0 to 1 in both sexes, got -0.16 for female; bring correlation "
        "nearer to 0, or prevalence and male_share nearer to each other"
    )


def test_parameters_are_all_there() -> None:
    assert set(BrainCohort().parameters()) == set(dataclasses.asdict(BrainCohort()))
