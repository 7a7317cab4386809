"""Subjects as rows of numbers that were written before: any order, codes, embeddings, features of a classifier."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Activationsd
from torch import nn

from monai_fair.data import sha256
from monai_fair.data.artifacts import write_tensors
from monai_fair.errors import ArtifactError, MonaiFairError
from monai_fair.handlers import PredictionSaver
from monai_fair.subgroups import Representation, code_rows, embedding_rows


def test_rows_of_subjects_in_any_order() -> None:
    rows = Representation("codes", ["a", "b", "c"], np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(rows.of(["c", "a"]), [[4.0, 5.0], [0.0, 1.0]])
    with pytest.raises(MonaiFairError) as caught:
        rows.of(["a", "x", "y"])
    assert str(caught.value) == (
        "codes: expected a row for each of 3 subjects, got none for 2, such as 'x'; give them one or leave them out"
    )


def test_codes_are_read_as_a_registration_writes_them(tmp_path: Path) -> None:
    codes = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    metadata = {"kind": "codes", "subject_ids": json.dumps(["s1", "s2"]), "code_shape": "[3, 2]"}
    path = tmp_path / "codes.safetensors"
    write_tensors(path, {"codes": codes.reshape(2, 6)}, metadata)
    found = code_rows(path)
    assert (found.kind, found.subject_ids) == ("codes", ["s1", "s2"])
    np.testing.assert_array_equal(found.values, codes.reshape(2, 6))
    write_tensors(path, {"weights": codes})
    with pytest.raises(ArtifactError, match=r"expected a table of codes, got tensors \['weights'\]"):
        code_rows(path)


def test_embeddings_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.csv"
    pd.DataFrame({"subject_id": ["007", "b"], "d0": [0.5, 1.5], "d1": [-1, 2]}).to_csv(path, index=False)
    found = embedding_rows(path)
    assert (found.kind, found.subject_ids) == ("embeddings", ["007", "b"])
    np.testing.assert_array_equal(found.values, [[0.5, -1.0], [1.5, 2.0]])


BROKEN: list[tuple[Callable[[pd.DataFrame], Any], str]] = [
    (lambda table: table.rename(columns={"subject_id": "id"}), "expected a column 'subject_id', got none"),
    (lambda table: table.assign(subject_id="a"), "expected one row per subject, got several of 'a'"),
    (lambda table: table.assign(d1=["x", "y"]), "column 'd1': expected numbers, got text"),
    (lambda table: table.assign(d0=[np.inf, 1.0]), "column 'd0': expected finite numbers, got others"),
    (lambda table: table[["subject_id"]], "expected columns of numbers beside subject_id, got none"),
]


@pytest.mark.parametrize(("change", "words"), BROKEN)
def test_embeddings_that_cannot_be_used(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], words: str
) -> None:
    path = tmp_path / "embeddings.csv"
    table = pd.DataFrame({"subject_id": ["a", "b"], "d0": [0.5, 1.5], "d1": [1.0, 2.0]})
    change(table).to_csv(path, index=False)
    with pytest.raises(ArtifactError) as caught:
        embedding_rows(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


# features of a classifier


def test_features_are_read_as_inference_writes_them(tmp_path: Path) -> None:
    table = pd.DataFrame({"subject_id": ["s2", "007", "s1"], "image": ["c.nii", "a.nii", "b.nii"]})
    table.to_csv(tmp_path / "manifest.csv", index=False)
    network = nn.Sequential(nn.ReLU(), nn.Linear(2, 1))
    saver = PredictionSaver(
        str(tmp_path / "predictions.csv"), str(tmp_path / "manifest.csv"), labelled=False, network=network,
        features_layer="1",
    )  # fmt: skip
    items = [{"image": torch.tensor([row - 0.5, 3.0 * row]), "row": row} for row in (1, 2, 0)]
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=network,
        postprocessing=Activationsd("pred", sigmoid=True),
        val_handlers=[saver],
    ).run()
    found = embedding_rows(tmp_path / "features.safetensors")
    # in the order of the manifest, whatever the order of the loader; negative inputs of the last layer are cut off
    assert (found.kind, found.subject_ids) == ("embeddings", ["s2", "007", "s1"])
    np.testing.assert_array_equal(found.values, [[0.0, 0.0], [0.5, 3.0], [1.5, 6.0]])


def write_features(
    folder: Path, features: np.ndarray, subjects: list[str], *, name: str = "features", of: str | None = None
) -> Path:
    predictions = folder / "predictions.csv"
    pd.DataFrame({"subject_id": subjects, "score": 0.5}).to_csv(predictions, index=False)
    path = folder / "features.safetensors"
    write_tensors(path, {name: features.astype(np.float32)}, {"predictions_sha256": of or sha256(predictions)})
    return path


TWO = np.array([[0.5, 1.0], [1.5, 2.0]])
BROKEN_FEATURES: list[tuple[np.ndarray, list[str], dict[str, str], str]] = [
    (TWO, ["a", "b"], {"name": "codes"}, "expected a tensor 'features', found codes; give that of a classifier"),
    (
        TWO,
        ["a", "b"],
        {"of": "0" * 64},
        "expected features of {folder}/predictions.csv, got those of others; predict again",
    ),
    (TWO[:1], ["a", "b"], {}, "expected features of shape (2, D), a row per prediction, got (1, 2)"),
    (TWO * [[np.inf], [1.0]], ["a", "b"], {}, "expected finite features, got 1 rows with others"),
    (TWO, ["a", "a"], {}, "expected one image per subject, got several of 'a'; predict one of each"),
]


@pytest.mark.parametrize(("features", "subjects", "options", "words"), BROKEN_FEATURES)
def test_features_that_cannot_be_used(
    tmp_path: Path, features: np.ndarray, subjects: list[str], options: dict[str, str], words: str
) -> None:
    path = write_features(tmp_path, features, subjects, **options)
    with pytest.raises(ArtifactError) as caught:
        embedding_rows(path)
    assert str(caught.value) == f"{path}: {words.format(folder=tmp_path)}"


def test_features_need_their_predictions(tmp_path: Path) -> None:
    path = write_features(tmp_path, TWO, ["a", "b"])
    (tmp_path / "predictions.csv").unlink()
    with pytest.raises(ArtifactError, match=r"predictions\.csv: expected a CSV file, found none; check the path"):
        embedding_rows(path)
