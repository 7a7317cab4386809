import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from monai_fair.errors import MonaiFairError
from monai_fair.simulation import SkinCohort
from monai_fair.simulation.skin_sampling import (
    Cell,
    appearance,
    flip_labels,
    photo_cues,
    photos_per_lesion,
    plan_cells,
    sample_lesions,
)
from monai_fair.simulation.skin_tables import sample_images


def images_of(cohort: SkinCohort, n: int = 1200) -> pd.DataFrame:
    return sample_images(n, seed=np.random.SeedSequence(5), cohort=cohort)


def many_lesions(cohort: SkinCohort, count: int = 40_000) -> pd.DataFrame:
    return sample_lesions(plan_cells(count, cohort), cohort, np.random.default_rng(1))


@given(n=st.integers(1, 3000), seed=st.integers(0, 2**32))
def test_photos_add_up(n: int, seed: int) -> None:
    counts = photos_per_lesion(n, np.random.default_rng(seed))
    assert counts.sum() == n
    assert set(counts) <= {1, 2, 3}


def test_cells_by_hand() -> None:
    cohort = SkinCohort(prevalence=0.5, correlation=0.2, male_share=0.6, train_share=0.5, val_share=0.25)
    # 200 lesions: 100 / 50 / 50, men 60 / 30 / 30. Spread 0.2 * 0.5 = 0.1, sqrt(0.4 / 0.6) = 0.81650:
    # men 0.58165, women 0.5 - 0.1 / 0.81650 = 0.37753. Of 60 men 34.9, of 40 women 15.1; half of each in val.
    assert plan_cells(200, cohort) == [
        Cell("train", "male", 60, 35),
        Cell("train", "female", 40, 15),
        Cell("val", "male", 30, 17),
        Cell("val", "female", 20, 8),
        Cell("test", "male", 30, 15),
        Cell("test", "female", 20, 10),
    ]


def test_too_few_lesions_name_every_empty_cell() -> None:
    with pytest.raises(MonaiFairError) as caught:
        plan_cells(20, SkinCohort(correlation=0.0))
    # val has 15 - 12 = 3 lesions, 2 men (1.5 rounds to 2) and 1 woman; 0.3 of 1 rounds to 0.
    assert str(caught.value) == (
        "simulated cohort: n: expected at least 1 malignant and 1 benign lesion for female in val, got 0 and 1; raise n"
    )


def test_log_odds_rise_with_age_as_asked() -> None:
    # Without the rounding of ages to 5 years the fit is unbiased; with it the slope shrinks by about 1 %.
    # Its standard error is about 0.008 for 40,000 lesions.
    lesions = many_lesions(SkinCohort(age_slope=0.5, correlation=0.0))
    fit = LogisticRegression(C=np.inf).fit(lesions[["age"]] / 10.0, lesions["malignant"])
    assert fit.coef_[0, 0] == pytest.approx(0.5, abs=0.03)


def test_no_age_slope_means_no_effect_of_age() -> None:
    lesions = many_lesions(SkinCohort(age_slope=0.0))
    means = lesions.groupby("malignant")["age"].mean()
    # Standard error of the difference: 16 * sqrt(1 / 12000 + 1 / 28000) = 0.17 years.
    assert means[1] == pytest.approx(means[0], abs=0.6)


@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_exact_number_of_flips_in_the_right_cells(rate: float) -> None:
    cohort = SkinCohort(label_bias=rate, underdiagnosed_group="male")
    lesions = many_lesions(cohort, 1000)
    lesions["flipped"] = flip_labels(lesions, cohort, np.random.default_rng(2))
    for (split, sex, malignant), part in lesions.groupby(["split", "sex", "malignant"]):
        hit = split != "test" and sex == "male" and malignant == 1
        assert part["flipped"].sum() == (round(rate * len(part)) if hit else 0)


def test_evidence_has_the_planted_distance_and_ceiling() -> None:
    cohort = SkinCohort(signal=2.0, contrast_gap=0.25, harder_group="male")
    lesions = many_lesions(cohort)
    look = appearance(lesions, cohort, np.random.default_rng(3))
    for sex, distance in (("female", 2.0), ("male", 1.5)):
        rows = lesions["sex"] == sex
        evidence, malignant = look.loc[rows, "evidence"], lesions.loc[rows, "malignant"]
        assert evidence[malignant == 0].mean() == pytest.approx(0.0, abs=0.03)
        assert evidence[malignant == 1].mean() == pytest.approx(distance, abs=0.05)
        # Two normals of equal spread d apart have AUC Phi(d / sqrt 2).
        assert roc_auc_score(malignant, evidence) == pytest.approx(norm.cdf(distance / np.sqrt(2)), abs=0.01)
    ratio = (
        look.loc[lesions["sex"] == "male", "contrast"].mean() / look.loc[lesions["sex"] == "female", "contrast"].mean()
    )
    assert ratio == pytest.approx(0.75, abs=0.01)


def test_cue_has_the_planted_distance() -> None:
    sex = pd.Series(["male", "female"] * 5000)
    for strength in (0.0, 0.4):
        cue = photo_cues(sex, SkinCohort(cue_strength=strength), np.random.default_rng(4))
        # Standard error of the difference: 0.25 * sqrt(2 / 5000) = 0.005.
        assert cue[::2].mean() - cue[1::2].mean() == pytest.approx(2 * strength, abs=0.02)


def test_changing_one_parameter_leaves_the_rest_as_it_was() -> None:
    base = images_of(SkinCohort())
    changes = {
        "label_bias": (0.9, {"flipped", "recorded", "dx", "dx_type"}),
        "cue_strength": (0.9, {"cue"}),
        "contrast_gap": (0.8, {"contrast", "evidence", "irregularity", "variegation"}),
        "missing_age": (0.3, {"recorded_age"}),
        "unknown_sex": (0.3, {"recorded_sex"}),
    }
    for name, (value, touched) in changes.items():
        other = images_of(SkinCohort(**{name: value}))
        differs = {column for column in base if not base[column].equals(other[column])}
        assert differs == touched, name


def test_photographs_of_a_lesion_share_what_is_on_record() -> None:
    images = images_of(SkinCohort())
    per_lesion = images.drop(columns=["image_id", "cue"]).groupby("lesion_id").nunique(dropna=False)
    assert (per_lesion == 1).all(axis=None)
    assert set(images["lesion_id"].value_counts()) == {1, 2, 3}
