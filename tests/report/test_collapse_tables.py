"""The cohorts of a study by counting lines, and run folders that lack something: every problem in one message."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from monai_fair.errors import ArtifactError, ManifestError, PredictionsError
from monai_fair.report.collapse_cohorts import read_cohorts
from monai_fair.report.collapse_tables import check_experiments, read_study

Records = list[dict[str, Any]]
SEX, AGE = "skin: sex", "skin: age_group"


def test_cohorts_by_counting_lines(collapse_experiments: Records) -> None:
    manifest = pd.read_csv(collapse_experiments[0]["manifest"], keep_default_na=False)
    cohort, other = read_cohorts(collapse_experiments)
    assert (cohort["name"], other["name"]) == (SEX, AGE)
    assert [group["name"] for group in cohort["groups"]] == ["female", "male", ""]
    assert (cohort["n"], cohort["n_positive"]) == (360, int(manifest["label"].sum()))
    assert cohort["splits"] == {"train": 180, "val": 60, "test": 120}
    for group in cohort["groups"]:
        own = manifest[manifest["sex"] == group["name"]]
        assert (group["n"], group["n_positive"]) == (len(own), int(own["label"].sum()))
        for split, counts in group["splits"].items():
            part = own[own["split"] == split]
            assert counts == [len(part), int(part["label"].sum())]
    eligible = manifest.query("sex == 'female' and label == 1")["split"].value_counts()
    for split in ("train", "val"):
        assert cohort["changed"][split]["n_eligible"] == eligible[split]
        assert cohort["changed"][split]["n_changed"] == [round(0.25 * eligible[split])] * 3
    assert set(cohort["changed"]) == {"train", "val"}


def test_all_files_that_are_missing_are_one_error(collapse_copy: Records) -> None:
    gone = [
        Path(collapse_copy[0]["runs"]["clean"]["early"][0]) / "neural_collapse.json",
        Path(collapse_copy[0]["runs"]["biased"]["final"][2]) / "collapse.json",
        Path(collapse_copy[1]["runs"]["biased"]["early"][1]) / "labels.json",
        Path(collapse_copy[1]["attribute_models"][0]) / "predictions.csv",
        Path(collapse_copy[1]["runs"]["biased"]["final"][0]) / "features.safetensors",
    ]
    for path in gone:
        path.unlink()
    with pytest.raises(ArtifactError) as caught:
        read_study(collapse_copy)
    message = str(caught.value)
    assert message.startswith("neural collapse study: 5 problems\n")  # the clean run belongs to both experiments
    for path in gone:
        assert f"expected the file {path}, found none; do the run again" in message


def test_experiments_that_cannot_be_read(collapse_experiments: Records) -> None:
    with pytest.raises(ArtifactError, match="expected at least one experiment, got none; name one"):
        check_experiments([])
    short = {**collapse_experiments[0], "attribute_models": collapse_experiments[0]["attribute_models"][:2]}
    none = {**collapse_experiments[1], "seeds": []}
    with pytest.raises(ArtifactError) as caught:
        check_experiments([short, collapse_experiments[1], none])
    assert str(caught.value).splitlines() == [
        "neural collapse study: 8 problems",
        f"  1. expected one experiment '{AGE}', got 2; keep one",
        f"  2. {SEX}: attribute models: expected a run for each of 3 seeds, got 2",
        f"  3. {AGE}: expected at least one seed, got none",
        f"  4. {AGE}: clean, early: expected a run for each of 0 seeds, got 3",
        f"  5. {AGE}: clean, final: expected a run for each of 0 seeds, got 3",
        f"  6. {AGE}: biased, early: expected a run for each of 0 seeds, got 3",
        f"  7. {AGE}: biased, final: expected a run for each of 0 seeds, got 3",
        f"  8. {AGE}: attribute models: expected a run for each of 0 seeds, got 3",
    ]


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_all_records_that_lack_something_are_one_error(collapse_copy: Records) -> None:
    first, second = (Path(run) for run in collapse_copy[0]["runs"]["clean"]["early"][:2])
    edit(first / "neural_collapse.json", lambda record: record["epochs"][3]["test"].pop("sex"))
    edit(second / "neural_collapse.json", lambda record: record.update(epochs=[]))
    with pytest.raises(ArtifactError) as caught:
        read_study(collapse_copy)
    assert str(caught.value).splitlines() == [
        "neural collapse study: 2 problems",
        f"  1. {first / 'neural_collapse.json'}: epoch 4: expected the attribute 'sex' in 'test', found age_group; "
        "train with it among collapse_attributes",
        f"  2. {second / 'neural_collapse.json'}: expected measures of epochs, found none; train again",
    ]


def test_checkpoints_models_and_labels_that_lack_something(collapse_copy: Records) -> None:
    run = Path(collapse_copy[0]["runs"]["biased"]["early"][0])
    edit(run / "model.json", lambda record: record.pop("epoch"))
    with pytest.raises(ArtifactError) as caught:
        read_study(collapse_copy)
    assert str(caught.value) == (
        f"neural collapse study: {run / 'model.json'}: expected the 'epoch' of the model, found none; train again"
    )
    edit(run / "model.json", lambda record: record.update(epoch=2))
    edit(run / "collapse.json", lambda record: record.update(split_test={}))
    with pytest.raises(ArtifactError) as caught:
        read_study(collapse_copy)
    assert str(caught.value) == (
        f"neural collapse study: {run / 'collapse.json'}: expected the attribute 'sex' in 'split_test', found none; "
        "evaluate with it among collapse_attributes"
    )
    edit(run / "labels.json", lambda record: record.pop("label_bias"))
    with pytest.raises(ArtifactError) as caught:
        read_cohorts(collapse_copy)
    assert str(caught.value) == (
        f"neural collapse study: {run / 'labels.json'}: expected the counts of a label bias, found none; "
        "do the run again"
    )


def test_manifests_that_do_not_fit(collapse_copy: Records) -> None:
    collapse_copy[0]["attribute"] = "race"
    with pytest.raises(
        ArtifactError, match="expected the attribute 'race' and a column 'split', found subject_id, image"
    ):
        read_cohorts(collapse_copy)
    Path(collapse_copy[1]["manifest"]).write_text("subject_id,image\n")
    with pytest.raises(ManifestError):
        read_cohorts(collapse_copy[1:])


def test_other_test_cases_are_refused(collapse_copy: Records) -> None:
    path = Path(collapse_copy[0]["runs"]["biased"]["final"][1]) / "predictions.csv"
    table = pd.read_csv(path, keep_default_na=False)
    test = table.index[table["split"] == "test"]
    table.drop(index=test[:2]).to_csv(path, index=False)
    with pytest.raises(PredictionsError, match="got 2 of them missing and 0 others"):
        read_study(collapse_copy)
