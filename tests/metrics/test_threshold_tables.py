"""Thresholds from one table into another: stored with their counts, and applied row by row."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from monai_fair.data import read_predictions, sha256, write_predictions
from monai_fair.data.artifacts import read_tensors, write_tensors
from monai_fair.data.tables import read_table
from monai_fair.errors import MonaiFairError, PredictionsError
from monai_fair.metrics import fit_thresholds, read_thresholds, store_thresholds, write_threshold_column


def table(split: str = "val", n: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    label = np.arange(n) % 2
    sex = np.where(np.arange(n) // 2 % 2 == 0, "f", "m")
    score = (0.25 * label + 0.2 * (sex == "m") + 0.5 * rng.random(n)).round(4)
    names = [f"s{row:02d}" for row in range(n)]
    return pd.DataFrame(
        {"subject_id": names, "image": names, "split": split, "label": label, "score": score, "sex": sex}
    )


def test_they_are_those_of_the_fitter(tmp_path: Path) -> None:
    other = table("test").assign(subject_id=[f"t{row}" for row in range(80)], score=0.5)
    path = write_predictions(tmp_path / "p.csv", pd.concat([table(), other]))
    stored = store_thresholds(path, tmp_path / "t.json", rule="min_gap by sex", min_count=5)
    expected = fit_thresholds(table(), method="min_gap", attributes=["sex"], min_count=5)
    assert stored == expected == read_thresholds(tmp_path / "t.json")
    assert [group.name for group in stored.groups] == ["f", "m"]
    assert store_thresholds(path, tmp_path / "t.json", rule="min_gap", by=["sex"], min_count=5) == expected


def test_the_published_protocol_fits_on_the_training_rows(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "p.csv", table("train"))
    found = store_thresholds(path, tmp_path / "t.json", rule="min_gap by sex", split="train", min_count=1, shrinkage=0)
    rows = table()
    for group in found.groups:
        own = rows[rows["sex"] == group.name]
        tpr, tnr = (((own["score"] >= group.threshold) == wanted)[own["label"] == wanted].mean() for wanted in (1, 0))
        gaps = [
            abs((own["score"] >= cut)[own["label"] == 1].mean() - (own["score"] < cut)[own["label"] == 0].mean())
            for cut in own["score"]
        ]
        assert group.weight == 1
        assert abs(tpr - tnr) == pytest.approx(min(gaps))


def test_every_row_gets_the_threshold_of_its_group(tmp_path: Path) -> None:
    fitted = write_predictions(tmp_path / "p.csv", table())
    stored = store_thresholds(fitted, tmp_path / "t.json", rule="youden by sex", min_count=5)
    rows = table("test").assign(sex=["f", "m", "", "x"] * 20)
    path = write_predictions(tmp_path / "test.csv", rows)
    assert write_threshold_column(path, tmp_path / "t.json") == path
    found = read_predictions(path).table
    by_sex = {group.name: group.threshold for group in stored.groups}
    expected = [by_sex["f"], by_sex["m"], stored.pooled, stored.pooled] * 20  # unknown and unseen: the pooled one
    assert found["threshold"].tolist() == expected
    pd.testing.assert_frame_equal(found.drop(columns="threshold"), read_predictions(fitted).table.assign(
        split="test", sex=rows["sex"]
    ))  # fmt: skip
    write_threshold_column(path, tmp_path / "t.json")  # again is the same
    assert read_predictions(path).table["threshold"].tolist() == expected


def test_predictions_without_labels_get_theirs_too(tmp_path: Path) -> None:
    store_thresholds(write_predictions(tmp_path / "p.csv", table()), tmp_path / "t.json")
    path = write_predictions(tmp_path / "new.csv", table().assign(split="", label=""), labelled=False)
    write_threshold_column(path, tmp_path / "t.json", labelled=False)
    found = read_table(path, PredictionsError)
    assert set(found["label"]) == {""}
    assert set(found["threshold"].astype(float)) == {read_thresholds(tmp_path / "t.json").pooled}


@pytest.mark.parametrize("name", ["features.safetensors", "layers.safetensors"])
def test_features_stay_those_of_their_table(tmp_path: Path, name: str) -> None:
    path = write_predictions(tmp_path / "predictions.csv", table())
    store_thresholds(path, tmp_path / "t.json")
    features, values = tmp_path / name, {"features": np.eye(3, dtype=np.float32)}
    write_tensors(features, values, {"predictions_sha256": sha256(path)})
    write_threshold_column(path, tmp_path / "t.json")
    tensors, metadata = read_tensors(features)
    assert metadata["predictions_sha256"] == sha256(path)
    np.testing.assert_array_equal(tensors["features"], values["features"])
    write_tensors(features, values, {"predictions_sha256": "of another"})
    write_threshold_column(path, tmp_path / "t.json")
    assert read_tensors(features)[1]["predictions_sha256"] == "of another"


def test_bad_input(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "p.csv", table().assign(label=1))
    store_thresholds(path, tmp_path / "t.json")
    before = path.read_bytes()
    with pytest.raises(MonaiFairError, match=r"expected a threshold for every row, .*t\.json has none for 80 of 80 \("):
        write_threshold_column(path, tmp_path / "t.json")
    assert path.read_bytes() == before
    with pytest.raises(MonaiFairError, match=r"rule: expected one that chooses a threshold on validation, got '0\.5'"):
        store_thresholds(path, tmp_path / "t.json", rule="0.5")
    several = table().drop(columns="score").assign(score_0=0.2, score_1=0.3, score_2=0.5)
    path = write_predictions(tmp_path / "several.csv", several)
    with pytest.raises(MonaiFairError, match="expected a binary task, got 3 classes"):
        store_thresholds(path, tmp_path / "t.json")
