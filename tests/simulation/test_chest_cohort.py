import dataclasses
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from monai_fair.errors import MonaiFairError
from monai_fair.simulation import ChestCohort
from monai_fair.simulation.chest_cohort import CELLS, GROUPS

GAPS = st.floats(-0.2, 0.2)
SHARES = st.floats(0.2, 0.8)


def margins(cohort: ChestCohort, rates: np.ndarray) -> dict[str, dict[str, float]]:
    """Rates per group as they follow from those of all combinations, summed cell by cell."""
    found = {}
    for place, (name, groups) in enumerate(GROUPS.items()):
        found[name] = {}
        for group in groups:
            inside = [
                (s, r) for cell, s, r in zip(CELLS, cohort.cell_shares(), rates, strict=True) if cell[place] == group
            ]
            found[name][group] = sum(s * r for s, r in inside) / sum(s for s, _ in inside)
    return found


def proportional_fit(cohort: ChestCohort) -> np.ndarray:
    """Rates by iterative proportional fitting of the table label x cell to its margins (Deming and Stephan 1940)."""
    shares = cohort.cell_shares()
    table = np.stack([shares * (1.0 - cohort.prevalence), shares * cohort.prevalence])
    wanted = cohort.group_rates("train")
    for _ in range(2000):
        for place, (name, groups) in enumerate(GROUPS.items()):
            for group in groups:
                cells = np.array([cell[place] == group for cell in CELLS])
                total = shares[cells].sum()
                for label, rate in enumerate((1.0 - wanted[name][group], wanted[name][group])):
                    table[label, cells] *= rate * total / table[label, cells].sum()
        table *= shares / table.sum(axis=0)
    return table[1] / shares


def test_every_bad_parameter_is_named_at_once() -> None:
    with pytest.raises(MonaiFairError) as caught:
        ChestCohort(prevalence=1.2, sex_gap=math.nan, signal=True, finding="Edema")
    assert str(caught.value) == (
        "ChestCohort: 4 problems\n"
        "  1. prevalence: expected a number from 0.05 to 0.95, got 1.2; give one in that range\n"
        "  2. sex_gap: expected a number from -0.8 to 0.8, got nan; give one in that range\n"
        "  3. signal: expected a number from 0 to 6, got True; give one in that range\n"
        "  4. finding: expected 'Cardiomegaly' or 'Pleural Effusion', got 'Edema'; give one of the two"
    )


def test_parameters_that_do_not_go_together_are_named() -> None:
    with pytest.raises(MonaiFairError) as caught:
        ChestCohort(train_share=0.8, val_share=0.2, prevalence=0.1, sex_gap=0.5, male_share=0.5)
    # men: 0.1 - 0.5 * 0.5 = -0.15; the other two gaps leave 0.1 - 0.146 * 0.354 = 0.048 and 0.1 - 0.141 * 0.597 = 0.016
    assert str(caught.value) == (
        "ChestCohort: 2 problems\n"
        "  1. train_share, val_share: expected a sum of at most 0.95, got 1; lower one of the "
        "two to leave patients for test\n"
        "  2. sex_gap, race_gap, age_gap: expected a rate from 0.005 to 0.995 in every group, got -0.15 for male; "
        "bring the gaps nearer to 0 or prevalence nearer to 0.5"
    )


def test_gaps_that_only_fail_together_name_the_corners() -> None:
    # Each gap of 0.6 alone gives rates of 0.2 and 0.8, but no table has all three: at most 0.75 - 0.25 = 0.5
    # between the groups of each of three independent attributes, when the majority of the three decides.
    even = {"prevalence": 0.5, "male_share": 0.5, "white_share": 0.5, "older_share": 0.5}
    ChestCohort(**even, sex_gap=0.6, race_gap=0.0, age_gap=0.0)
    with pytest.raises(
        MonaiFairError, match=r"in every group, got \S+ for male White <60, .* for female Non-White >=60;"
    ):
        ChestCohort(**even, sex_gap=0.6, race_gap=0.6, age_gap=0.6)


def test_gaps_that_fail_in_test_alone_are_refused() -> None:
    # A gap of -0.15 with 75 % women gives men 0.05 + 0.75 * 0.15 = 0.1625 and women 0.0125 in train; the other way
    # round men would have 0.05 - 0.1125 < 0. A gap of -0.04 gives 0.08 and 0.04, then 0.02 and 0.06.
    values = {"prevalence": 0.05, "male_share": 0.25, "race_gap": 0.0, "age_gap": 0.0, "test_gaps": -1.0}
    ChestCohort(**values, sex_gap=-0.04)
    with pytest.raises(MonaiFairError, match=r"expected a rate from 0\.005 to 0\.995 in every group, got"):
        ChestCohort(**values, sex_gap=-0.15)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ChestCohort)])
def test_every_parameter_is_checked(name: str) -> None:
    with pytest.raises(MonaiFairError, match=f"ChestCohort: {name}: expected"):
        dataclasses.replace(ChestCohort(), **{name: "wrong"})


def test_defaults_are_fairreads_rates() -> None:
    # Gao, Hao, Zhou, table 1, cardiomegaly: per cent of positives, to one decimal.
    published = {"sex": (14.9, 30.1), "race": (13.5, 28.1), "age_group": (10.2, 24.3)}
    planted = ChestCohort().group_rates("train")
    for name, rates in published.items():
        assert [100 * value for value in planted[name].values()] == pytest.approx(rates, abs=0.1)


def test_one_gap_alone_by_hand() -> None:
    cohort = ChestCohort(prevalence=0.4, male_share=0.75, sex_gap=0.2, race_gap=0.0, age_gap=0.0, test_gaps=-0.5)
    # men 0.4 - 0.25 * 0.2 = 0.35, women 0.55; in test the gap is -0.1: men 0.425, women 0.325
    for split, men, women in (("train", 0.35, 0.55), ("val", 0.35, 0.55), ("test", 0.425, 0.325)):
        expected = [men if cell[0] == "male" else women for cell in CELLS]
        np.testing.assert_allclose(cohort.cell_rates(split), expected, atol=1e-9)


def test_shares_of_combinations_by_hand() -> None:
    shares = ChestCohort(male_share=0.75, white_share=0.5, older_share=0.2).cell_shares()
    by_cell = dict(zip(CELLS, shares, strict=True))
    assert by_cell["male", "White", "<60"] == pytest.approx(0.75 * 0.5 * 0.8)
    assert by_cell["female", "Non-White", ">=60"] == pytest.approx(0.25 * 0.5 * 0.2)
    assert shares.sum() == pytest.approx(1.0)


def test_rates_are_those_of_proportional_fitting() -> None:
    cohort = ChestCohort()
    np.testing.assert_allclose(cohort.cell_rates("train"), proportional_fit(cohort), atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(gaps=st.tuples(GAPS, GAPS, GAPS), shares=st.tuples(SHARES, SHARES, SHARES), prevalence=st.floats(0.25, 0.75))
def test_rates_have_the_planted_margins_and_log_odds_add_up(
    gaps: tuple[float, ...], shares: tuple[float, ...], prevalence: float
) -> None:
    names = ("sex_gap", "race_gap", "age_gap"), ("male_share", "white_share", "older_share")
    values = dict(zip(names[0] + names[1], gaps + shares, strict=True))
    try:
        cohort = ChestCohort(**values, prevalence=prevalence, test_gaps=0.0)
    except MonaiFairError:
        assume(False)
    rates = cohort.cell_rates("train")
    assert cohort.cell_shares() @ rates == pytest.approx(prevalence, abs=1e-9)
    for name, expected in cohort.group_rates("train").items():
        assert margins(cohort, rates)[name] == pytest.approx(expected, abs=1e-9)
    logits = dict(zip(product((0, 1), repeat=3), np.log(rates / (1.0 - rates)), strict=True))
    base = logits[0, 0, 0]
    steps = [logits[1, 0, 0] - base, logits[0, 1, 0] - base, logits[0, 0, 1] - base]
    for second, logit in logits.items():
        assert logit == pytest.approx(base + np.dot(second, steps), abs=1e-6)
    np.testing.assert_allclose(cohort.cell_rates("test"), prevalence, atol=1e-9)
