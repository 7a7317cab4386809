import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from monai_fair.errors import MonaiFairError
from monai_fair.simulation import ChestCohort
from monai_fair.simulation.chest_cohort import CELLS, GROUPS
from monai_fair.simulation.chest_sampling import (
    cues,
    deal_patients,
    patient_ages,
    plant_findings,
    signs,
    studies_per_patient,
    study_ages,
)
from monai_fair.simulation.chest_tables import count_groups, sample_images

EVEN = {"male_share": 0.5, "white_share": 0.5, "older_share": 0.5}


def images_of(cohort: ChestCohort, n: int = 2000) -> pd.DataFrame:
    return sample_images(n, seed=np.random.SeedSequence(5), cohort=cohort)


def generator(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**32))
def test_studies_add_up(n: int, seed: int) -> None:
    counts = studies_per_patient(n, generator(seed))
    assert counts.sum() == n
    assert set(counts) <= set(range(1, 13))


def test_parts_and_combinations_have_their_patients() -> None:
    cohort = ChestCohort(male_share=0.75, white_share=0.5, older_share=0.6, train_share=0.5, val_share=0.25)
    table = deal_patients(400, cohort, generator())
    # 200 in train: 0.75 * 0.5 * 0.6 = 0.225 of them are men, White and of 60 or more: 45; women 15.
    counts = table.groupby(["split", *GROUPS]).size()
    assert counts["train", "male", "White", ">=60"] == 45
    assert counts["train", "female", "Non-White", ">=60"] == 15
    assert table["split"].value_counts().to_dict() == {"train": 200, "val": 100, "test": 100}
    for (split, *cell), count in counts.items():
        share = dict(zip(CELLS, cohort.cell_shares(), strict=True))[tuple(cell)]
        assert abs(count - share * (200 if split == "train" else 100)) < 1
    assert table["sex"].tolist() != sorted(table["sex"], reverse=True)


def test_ages_stay_in_their_group_and_never_fall() -> None:
    group = pd.Series(["<60", ">=60"] * 3000)
    first = patient_ages(group, generator())
    for name, low, high, mean in (("<60", 18, 59, 45), (">=60", 60, 90, 73)):
        ages = first[group == name]
        assert (ages.min(), ages.max()) == (low, high)
        # whole years lose a half, and what is reflected at the limits moves the mean by less than 1
        assert ages.mean() == pytest.approx(mean - 0.5, abs=1.5)
    studies = pd.DataFrame({"patient": np.repeat(np.arange(6000), 3)})
    studies["first_age"], studies["age_group"] = np.repeat(first, 3), np.repeat(group.to_numpy(), 3)
    by_patient = study_ages(studies, generator(2)).reshape(-1, 3)
    np.testing.assert_array_equal(by_patient[:, 0], first)
    assert (np.diff(by_patient, axis=1) >= 0).all()
    assert ((by_patient < 60) == (group == "<60").to_numpy()[:, np.newaxis]).all()
    # two gaps of 0.7 years on average: 1.4, less the part of a year and what the top of the group cuts off
    assert 0.5 < (by_patient[:, 2] - by_patient[:, 0]).mean() < 1.4


def test_findings_by_hand() -> None:
    cohort = ChestCohort(**EVEN, prevalence=0.4, sex_gap=0.2, race_gap=0.0, age_gap=0.0, test_gaps=0.0)
    studies = pd.DataFrame([(split, *cell) for split in ("train", "val", "test") for cell in CELLS for _ in range(25)])
    studies.columns = ["split", *GROUPS]
    studies["patient"] = np.arange(len(studies))
    found = plant_findings(studies, cohort, generator())
    # men 0.3 of 25 is 7.5, rounded to the even 8; women 0.5 of 25 is 12.5, rounded to 12; test 0.4 of 25 is 10
    counts = found.reshape(3, 8, 25).sum(axis=2)
    assert counts[0].tolist() == counts[1].tolist() == [8, 8, 8, 8, 12, 12, 12, 12]
    assert counts[2].tolist() == [10] * 8


def test_studies_of_a_patient_are_alike() -> None:
    # Liability correlates by 0.6. At a prevalence of 0.5 two studies agree with probability 1/2 + arcsin(0.6) / pi.
    cohort = ChestCohort(
        **EVEN, prevalence=0.5, sex_gap=0.0, race_gap=0.0, age_gap=0.0, train_share=0.9, val_share=0.05
    )
    patients = deal_patients(20_000, cohort, generator())
    studies = patients.loc[np.repeat(np.arange(20_000), 2)].reset_index(drop=True)
    studies["patient"] = np.repeat(np.arange(20_000), 2)
    found = plant_findings(studies, cohort, generator(2)).reshape(-1, 2)
    # standard error 0.0032
    assert (found[:, 0] == found[:, 1]).mean() == pytest.approx(0.5 + np.arcsin(0.6) / np.pi, abs=0.012)


def test_too_few_images_name_every_group() -> None:
    cohort = ChestCohort(**EVEN, prevalence=0.5, sex_gap=0.0, race_gap=0.0, age_gap=0.0)
    studies = pd.DataFrame({"split": ["train"] * 8 + ["val"] * 8, "patient": range(16)})
    studies[list(GROUPS)] = CELLS * 2
    with pytest.raises(MonaiFairError) as caught:
        plant_findings(studies, cohort, generator())
    # half of one image is rounded to none in every combination, and test has no image at all
    sentence = "n: expected at least 1 image with and 1 without the finding for {} in {}, got 0 and {}; raise n"
    names = ("male", "female", "White", "Non-White", "<60", ">=60")
    expected = [
        sentence.format(name, split, 4 if split != "test" else 0)
        for split in ("train", "val", "test")
        for name in names
    ]
    assert str(caught.value) == "simulated cohort: 18 problems\n" + "\n".join(
        f"  {number}. {text}" for number, text in enumerate(expected, start=1)
    )


@pytest.mark.parametrize(
    ("finding", "sign", "other"), [("Cardiomegaly", "heart", "fluid"), ("Pleural Effusion", "fluid", "heart")]
)
def test_the_sign_has_the_planted_distance_and_ceiling(finding: str, sign: str, other: str) -> None:
    positive = (np.arange(40_000) % 4 == 0).astype(np.int64)
    drawn = signs(positive, ChestCohort(finding=finding, signal=2.0), generator(3))
    for name, distance in ((sign, 2.0), (other, 0.0)):
        values = drawn[name].to_numpy()
        assert values[positive == 0].mean() == pytest.approx(0.0, abs=0.03)
        assert values[positive == 1].mean() == pytest.approx(distance, abs=0.05)
        # Two normals of equal spread d apart have AUC Phi(d / sqrt 2).
        assert roc_auc_score(positive, values) == pytest.approx(norm.cdf(distance / np.sqrt(2)), abs=0.015)


def test_cues_have_the_planted_distance() -> None:
    studies = images_of(ChestCohort(), 20_000)
    patients = studies.drop_duplicates("patient")
    for strength in (0.0, 0.5):
        drawn = cues(studies, ChestCohort(sex_cue=strength, race_cue=strength, age_cue=strength), generator(4))
        alone = drawn.loc[patients.index]
        # Standard error of a difference: 0.4 * sqrt(1 / 2200 + 1 / 6700) = 0.01, of the slope 0.4 / (17 * sqrt(8900)).
        for name, group in (("sex", "female"), ("race", "Non-White")):
            there = (patients[name] == group).to_numpy()
            values = alone[f"{name}_cue"].to_numpy()
            assert values[there].mean() - values[~there].mean() == pytest.approx(2 * strength, abs=0.04)
        slope, level = np.polyfit(patients["age"] - 60, alone["age_cue"], 1)
        assert (slope, level) == (pytest.approx(strength / 12, abs=0.001), pytest.approx(0.0, abs=0.02))
        # cues are independent of each other and of the finding within a group
        residual = alone["sex_cue"] - strength * np.where(patients["sex"] == "female", 1, -1)
        assert abs(np.corrcoef(residual, alone["race_cue"])[0, 1]) < 0.04
        assert abs(np.corrcoef(residual, patients["positive"])[0, 1]) < 0.04


def test_studies_of_a_patient_share_sex_and_race_cues() -> None:
    images = images_of(ChestCohort())
    same = ["sex", "race", "age_group", "split", "first_age", "PRIMARY_RACE", "ETHNICITY", "sex_cue", "race_cue"]
    assert (images.groupby("subject_id")[same].nunique() == 1).all(axis=None)
    assert images["subject_id"].value_counts().max() > 3
    assert (
        images.groupby("subject_id")["study"].agg(list).map(lambda found: found == list(range(1, len(found) + 1))).all()
    )


def test_planted_rates_are_recovered() -> None:
    # Binomial tests at 1e-4 each, over 66 groups and combinations; planned counts are nearer than chance would be.
    images = images_of(ChestCohort(test_gaps=0.0), 6000)
    rows = count_groups(images, ChestCohort(test_gaps=0.0))
    assert len(rows) == 3 * (6 + 8)
    for row in rows:
        assert binomtest(row["positive"], row["images"], row["planted_rate"]).pvalue > 1e-4, row
    rates = {(row["split"], row["group"]): row["rate"] for row in rows if row["attribute"] in GROUPS}
    for name, gap in {"sex": 0.152, "race": 0.146, "age_group": 0.141}.items():
        first, second = GROUPS[name]
        for split, planted in (("train", gap), ("test", 0.0)):
            assert rates[split, second] - rates[split, first] == pytest.approx(planted, abs=0.02)


def differing(base: pd.DataFrame, other: pd.DataFrame) -> set[str]:
    return {column for column in base if not base[column].equals(other[column])}


def test_changing_one_parameter_leaves_the_rest_as_it_was() -> None:
    base = images_of(ChestCohort())
    label = {"Cardiomegaly", "No Finding"}
    changes: dict[str, tuple[float, set[str]]] = {
        "sex_cue": (0.9, {"sex_cue"}),
        "race_cue": (0.9, {"race_cue"}),
        "age_cue": (0.9, {"age_cue"}),
        "signal": (3.0, {"heart"}),
        "uncertain": (0.2, {"uncertain", *label}),
        "unknown_race": (0.2, {"unknown_race", "PRIMARY_RACE", "ETHNICITY"}),
        "sex_gap": (0.0, {"positive", "heart", *label}),
        "test_gaps": (0.0, {"positive", "heart", *label}),
    }
    for name, (value, touched) in changes.items():
        assert differing(base, images_of(ChestCohort(**{name: value}))) == touched, name


def test_only_test_changes_with_its_gaps() -> None:
    base, other = images_of(ChestCohort()), images_of(ChestCohort(test_gaps=0.0))
    changed: npt.NDArray[np.bool_] = (base["positive"] != other["positive"]).to_numpy()
    assert set(base.loc[changed, "split"]) == {"test"}
