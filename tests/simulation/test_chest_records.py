import numpy as np
import pandas as pd
import pytest

from monai_fair.simulation import ChestCohort
from monai_fair.simulation.chest_records import LABELS, record_labels, record_race, uncertain_rows

N = 20_000


@pytest.fixture(scope="module")
def studies() -> pd.DataFrame:
    table = pd.DataFrame({"split": np.tile(["train", "train", "val", "test"], N // 4)})
    table["positive"] = (np.arange(N) // 4 % 5 == 0).astype(int)
    table["uncertain"] = uncertain_rows(table, ChestCohort(uncertain=0.1), np.random.default_rng(1)).astype(int)
    return table


@pytest.fixture(scope="module")
def labels(studies: pd.DataFrame) -> pd.DataFrame:
    return record_labels(studies, ChestCohort(), np.random.default_rng(2))


def test_uncertain_labels_are_the_exact_share_of_train_and_val(studies: pd.DataFrame) -> None:
    assert studies.groupby("split")["uncertain"].sum().to_dict() == {"train": 1000, "val": 500, "test": 0}


def test_labels_have_chexperts_names_and_values(labels: pd.DataFrame) -> None:
    assert tuple(labels.columns) == (*LABELS, "AP/PA")
    assert LABELS == (
        "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
        "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
        "Support Devices",
    )  # fmt: skip
    assert set(labels[list(LABELS)].to_numpy().ravel()) == {"1.0", "0.0", "-1.0", ""}
    assert set(labels["No Finding"]) == {"1.0", "0.0", ""}
    assert set(labels["AP/PA"]) == {"AP", "PA"}


def test_the_planted_finding_is_on_record(studies: pd.DataFrame, labels: pd.DataFrame) -> None:
    shown = labels["Cardiomegaly"]
    assert (shown[studies["uncertain"] == 1] == "-1.0").all()
    known = studies["uncertain"] == 0
    assert ((shown[known] == "1.0") == (studies["positive"][known] == 1)).all()
    without = shown[known & (studies["positive"] == 0) & (studies["split"] != "test")]
    # standard error sqrt(0.2 * 0.8 / 10800) = 0.004
    assert (without == "0.0").mean() == pytest.approx(0.2, abs=0.015)


def test_another_finding_may_be_planted(studies: pd.DataFrame) -> None:
    other = record_labels(studies, ChestCohort(finding="Pleural Effusion"), np.random.default_rng(2))
    known = studies["uncertain"] == 0
    assert ((other["Pleural Effusion"] == "1.0") == (studies["positive"] == 1))[known].all()
    # Cardiomegaly is then drawn at random: 12 per cent, whatever the image shows
    random = (other["Cardiomegaly"] == "1.0").groupby(studies["positive"]).mean()
    assert random.to_numpy() == pytest.approx([0.12, 0.12], abs=0.02)


def test_readers_know_yes_and_no_only(studies: pd.DataFrame, labels: pd.DataFrame) -> None:
    test = labels.loc[studies["split"] == "test", list(LABELS)]
    assert set(test.to_numpy().ravel()) == {"1.0", "0.0"}


def test_no_finding_is_the_absence_of_all_but_devices(labels: pd.DataFrame) -> None:
    findings = labels[[name for name in LABELS if name not in ("No Finding", "Support Devices")]]
    any_found = ((findings == "1.0") | (findings == "-1.0")).any(axis=1)
    assert ((labels["No Finding"] == "1.0") == ~any_found).all()
    assert 0.02 < (labels["No Finding"] == "1.0").mean() < 0.3


def test_names_of_races_have_white_in_them_only_for_white_patients() -> None:
    race = pd.Series(["White", "Non-White"] * (N // 2))
    table = record_race(race, ChestCohort(unknown_race=0.1), np.random.default_rng(3))
    assert table["unknown_race"].sum() == N // 10
    known = ~table["unknown_race"]
    assert (table["PRIMARY_RACE"].str.contains("White") == (race == "White"))[known].all()
    assert set(table.loc[~known, "PRIMARY_RACE"]) == {"Unknown", "Race and Ethnicity Unknown", "Patient Refused", ""}
    assert table["PRIMARY_RACE"].nunique() == 24
    said = table["PRIMARY_RACE"].str.endswith(", Hispanic")
    assert set(table.loc[said, "ETHNICITY"]) == {"Hispanic/Latino", "Hispanic"}
    denied = table["PRIMARY_RACE"].str.endswith("non-Hispanic")
    assert set(table.loc[denied, "ETHNICITY"]) == {"Non-Hispanic/Non-Latino", "Not Hispanic", "Unknown"}
