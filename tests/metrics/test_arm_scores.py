"""F1 by group and seed from predictions: as scikit-learn has it, on one set of cases with one set of labels."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from monai_fair.data import Predictions
from monai_fair.data.predictions import check_predictions
from monai_fair.errors import PredictionsError
from monai_fair.metrics import compare_arms, f1_by_seed

Simulated = Callable[..., Predictions]


def arms(simulated: Simulated) -> dict[str, list[Predictions]]:
    return {
        "clean": [simulated(seed, source=f"clean/seed_{seed}/p.csv") for seed in (3, 5)],
        "biased": [simulated(seed, gap=-1.0, source=f"biased/seed_{seed}/p.csv") for seed in (3, 5)],
    }


def test_every_value_is_scikit_learns(simulated: Simulated) -> None:
    runs = arms(simulated)
    found = f1_by_seed(runs, "sex", threshold=0.6)
    assert list(zip(found["arm"], found["seed"], found["group"], strict=True)) == [
        (arm, seed, group) for arm in ("clean", "biased") for seed in ("3", "5") for group in ("f", "m")
    ]
    for row in found.to_dict("records"):
        table = runs[row["arm"]]["35".index(row["seed"])].table
        inside = table[(table["split"] == "test") & (table["sex"] == row["group"])]
        assert row["value"] == pytest.approx(f1_score(inside["label"], inside["score"] >= 0.6), abs=1e-12)
        assert (row["n"], row["n_positive"]) == (len(inside), inside["label"].sum())
        assert (row["measure"], row["attribute"], row["n_missing"], row["reason"]) == ("f1", "sex", 0, "")


def test_it_is_what_arms_are_compared_by(simulated: Simulated) -> None:
    values = f1_by_seed(arms(simulated), "sex")
    compared = compare_arms(values, by=["measure", "attribute", "group"])
    means = values.groupby(["group", "arm"])["value"].mean()
    for row in compared.to_dict("records"):
        assert row["difference"] == pytest.approx(means[row["group"], "biased"] - means[row["group"], "clean"])
        assert (row["n_first"], row["n_later"]) == (2, 2)
    # the scores of women are the same in both arms, those of men a logit lower
    assert compared["difference"].iloc[0] == 0
    assert compared["difference"].iloc[1] < 0


def test_two_scores_are_those_of_two_classes(simulated: Simulated) -> None:
    one = simulated(0)
    two = one.table.assign(score_0=1 - one.table["score"], score_1=one.table["score"]).drop(columns="score")
    both = {"clean": [check_predictions(two.astype(str), "p.csv")]}
    pd.testing.assert_frame_equal(f1_by_seed(both, "sex"), f1_by_seed({"clean": [one]}, "sex"))


def test_missing_attributes_are_counted(simulated: Simulated) -> None:
    sex = np.where(np.arange(600) % 10 == 1, "", np.where(np.arange(600) % 2 == 0, "f", "m"))
    runs = {"clean": [simulated(0, sex=sex)]}
    left_out = f1_by_seed(runs, "sex")
    assert left_out["group"].tolist() == ["f", "m"]
    assert left_out["n_missing"].tolist() == [40, 40]  # of 60, a third is of val
    assert left_out["n"].sum() == 360
    kept = f1_by_seed(runs, "sex", missing="group")
    assert kept["group"].tolist() == ["f", "m", "missing"]
    assert kept["n"].tolist()[2] == 40
    pd.testing.assert_frame_equal(kept[:2], left_out)


def test_a_group_without_a_positive_is_nan_with_its_reason(simulated: Simulated) -> None:
    sex = np.where(np.arange(600) < 30, "x", "f")
    label = np.where(np.arange(600) < 30, 0, np.arange(600) % 2)
    score = np.where(np.arange(600) < 30, 0.1, 0.9)
    found = f1_by_seed({"clean": [simulated(0, sex=sex, label=label, score=score)]}, "sex")
    assert found["group"].tolist() == ["f", "x"]
    assert np.isnan(found["value"].iloc[1])
    assert found["reason"].tolist() == ["", "no positive case and none predicted positive in this group"]
    assert found["n_positive"].iloc[1] == 0


def test_arms_have_to_be_measured_on_the_same_clean_labels(simulated: Simulated) -> None:
    runs = arms(simulated)
    table = runs["biased"][1].table
    biased = table["label"].mask((table["sex"] == "m") & (table.index < 300), 0)
    runs["biased"][1] = check_predictions(table.assign(label=biased).astype(str), "biased/seed_5/p.csv")
    with pytest.raises(PredictionsError, match=r"expected the same 'label' as in run 'clean', seed 3 .*rows differ"):
        f1_by_seed(runs, "sex")
    with pytest.raises(PredictionsError) as caught:
        f1_by_seed({"clean": [simulated(0, classes=3)]}, "sex")
    assert str(caught.value) == "f1_by_seed: expected two classes, got 3 score columns"
