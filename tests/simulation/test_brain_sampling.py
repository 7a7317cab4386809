import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fair.simulation import BrainCohort
from monai_fair.simulation.brain_sampling import people_table, sample_people, stream

WHOLE = BrainCohort(correlation=0.5, prevalence=0.5, male_share=0.5, train_share=0.5, val_share=0.25)


def phi(first: np.ndarray, second: np.ndarray) -> float:
    """Of a 2 x 2 table, by its determinant."""
    a, b = int((first & second).sum()), int((first & ~second).sum())
    c, d = int((~first & second).sum()), int((~first & ~second).sum())
    return (a * d - b * c) / np.sqrt(float((a + b) * (c + d) * (a + c) * (b + d)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_association_is_as_planted_in_train_and_val_and_absent_in_test(seed: int) -> None:
    # 64 subjects: 32, 16, 16; half of each men; of them 3/4 patients with phi 0.5, of women 1/4: all whole numbers
    table = people_table(sample_people(64, seed=seed, cohort=WHOLE))
    assert table["split"].value_counts().to_dict() == {"train": 32, "val": 16, "test": 16}
    expected = {"train": (12, 4, 0.5), "val": (6, 2, 0.5), "test": (4, 4, 0.0)}
    for split, (men, women, wanted) in expected.items():
        part = table[table["split"] == split]
        patients = part.groupby("sex")["label"].sum()
        assert (patients["male"], patients["female"]) == (men, women)
        assert phi((part["sex"] == "male").to_numpy(), (part["label"] == 1).to_numpy()) == pytest.approx(wanted)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 80),
    st.integers(0, 2**32),
    st.floats(0, 0.7),
    st.floats(0, 0.3),
    st.floats(0.2, 0.8),
    st.floats(-0.2, 0.2),
)
def test_every_count_is_less_than_one_from_its_plan(
    n: int, seed: int, train: float, val: float, men: float, correlation: float
) -> None:
    cohort = BrainCohort(train_share=train, val_share=val, male_share=men, correlation=correlation)
    table = people_table(sample_people(n, seed=seed, cohort=cohort))
    assert abs((table["split"] == "train").sum() - train * n) < 1
    rest = table[table["split"] != "train"]
    assert abs((rest["split"] == "val").sum() - val / (1 - train) * len(rest)) < 1
    for split, part in table.groupby("split"):
        assert abs((part["sex"] == "male").sum() - men * len(part)) < 1
        for sex, cell in part.groupby("sex"):
            assert abs(cell["label"].sum() - cohort.group_prevalence(str(split))[str(sex)] * len(cell)) < 1


def test_a_smaller_cohort_is_the_start_of_a_larger_one() -> None:
    cohort = BrainCohort(distractors=2)
    people = sample_people(50, seed=5, cohort=cohort)
    assert [sample_people(n, seed=5, cohort=cohort) for n in (1, 7, 49)] == [people[:1], people[:7], people[:49]]
    assert sample_people(50, seed=6, cohort=cohort) != people


def test_what_a_parameter_does_not_touch_stays() -> None:
    first = sample_people(40, seed=1, cohort=BrainCohort())
    second = sample_people(40, seed=1, cohort=BrainCohort(noise=0.1, distractors=3, scale_sd=0.0, group_effect=0.0))
    for before, after in zip(first, second, strict=True):
        assert dataclasses.replace(after, distractor_strengths=(), scale=before.scale) == before
        assert len(after.distractor_strengths) == 3
        assert after.scale == 1.0


def test_strengths_have_the_stated_means_and_are_otherwise_independent() -> None:
    cohort = BrainCohort(distractors=1, correlation=0.5, group_spread=1)
    table = people_table(sample_people(3000, seed=0, cohort=cohort))
    men, patients = (table["sex"] == "male").to_numpy(), (table["label"] == 1).to_numpy()
    residual = {
        "disease": table["disease_strength"].to_numpy() - np.where(patients, 1.0, -1.0),
        "group": table["group_strength"].to_numpy() - np.where(men, 2.0, 0.0),
        "distractor": table["distractor_1"].to_numpy(),
        "size": np.log(table["scale"].to_numpy()) / 0.02,
    }
    for values in residual.values():
        # standard errors with 3,000 subjects: 0.018 of a mean, 0.013 of a standard deviation, 0.018 of a correlation
        assert abs(values.mean()) < 0.08
        assert values.std() == pytest.approx(1.0, abs=0.06)
        for other in (men, patients, table["age"].to_numpy(dtype=float)):
            assert abs(np.corrcoef(values, other)[0, 1]) < 0.08
    assert np.abs(np.corrcoef(list(residual.values())) - np.eye(4)).max() < 0.08


def test_the_spread_of_a_group_scales_what_differs_within_it_and_nothing_else() -> None:
    wide, narrow = (sample_people(60, seed=2, cohort=BrainCohort(group_spread=spread)) for spread in (1.0, 0.25))
    for before, after in zip(wide, narrow, strict=True):
        mean = 2.0 if before.sex == "male" else 0.0
        assert after.group_strength - mean == pytest.approx((before.group_strength - mean) / 4, abs=1e-6)
        assert dataclasses.replace(after, group_strength=before.group_strength) == before


def test_age_goes_with_the_diagnosis_only_when_asked() -> None:
    plain, gap = (people_table(sample_people(2000, seed=3, cohort=BrainCohort(age_gap=years))) for years in (0.0, 6.0))
    difference = [table.groupby("label")["age"].mean().diff().iloc[-1] for table in (plain, gap)]
    # standard error 8 * sqrt(2 / 1000) = 0.36 years
    assert abs(difference[0]) < 1.5
    assert difference[1] - difference[0] == pytest.approx(6.0, abs=0.3)
    assert plain["age"].between(45, 90).all()


def test_streams_do_not_overlap() -> None:
    draws = [stream(0, purpose, index).random() for purpose in range(6) for index in range(20)]
    assert all(second - first > 0 for first, second in pairwise(sorted(draws)))
