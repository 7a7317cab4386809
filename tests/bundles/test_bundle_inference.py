"""Evaluation and inference: the same score for the same image, and files that keep their contract."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_tensors, sha256

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture(scope="module")
def evaluated(bundle: Any, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # another batch size than training
    options = {"ckpt_path": str(trained / "model.pt"), "batch_size": 7}
    return bundle.evaluate(tmp_path_factory.mktemp("evaluated"), **options)


@pytest.fixture
def manifest(bundle: Any) -> pd.DataFrame:
    return pd.read_csv(bundle.cohort / "manifest.csv", dtype=str, keep_default_na=False)


def test_inference_gives_the_scores_of_evaluation(bundle: Any, trained: Path, evaluated: Path, tmp_path: Path) -> None:
    inferred = bundle.infer(tmp_path / "inference", trained / "model.pt")
    one = read_predictions(evaluated / "predictions.csv").table.set_index("image")["score"]
    other = read_predictions(inferred / "predictions.csv").table.set_index("image")["score"]
    assert len(one) == 23
    assert len(other) == 60
    assert one.nunique() > 10  # not one constant, for which equality would say nothing
    np.testing.assert_allclose(other[one.index], one, rtol=0, atol=1e-6)


def test_predictions_hold_each_row_of_the_splits_once(evaluated: Path, manifest: pd.DataFrame) -> None:
    predictions = read_predictions(evaluated / "predictions.csv")
    table = pd.read_csv(evaluated / "predictions.csv", dtype=str, keep_default_na=False)
    wanted = manifest[manifest["split"] != "train"].reset_index(drop=True)
    assert predictions.attributes == ("sex", "age", "age_group")
    columns = ["subject_id", "image", "image_id", "split", "label", "score", "sex", "age", "age_group"]
    assert list(table) == columns
    pd.testing.assert_frame_equal(table.drop(columns="score"), wanted[[name for name in columns if name != "score"]])


def test_features_with_the_last_layer_give_the_scores(evaluated: Path) -> None:
    arrays, metadata = read_tensors(evaluated / "features.safetensors")
    scores = read_predictions(evaluated / "predictions.csv").table["score"].to_numpy()
    assert arrays["features"].shape == (23, 16)
    np.testing.assert_allclose(
        expit(arrays["features"] @ arrays["weight"].T + arrays["bias"])[:, 0], scores, rtol=0, atol=1e-5
    )
    assert metadata["predictions_sha256"] == sha256(evaluated / "predictions.csv")


def test_features_can_be_left_out(bundle: Any, trained: Path, tmp_path: Path) -> None:
    bundle.evaluate(tmp_path, ckpt_path=str(trained / "model.pt"), save_features=False)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_inference_writes_features_when_asked(bundle: Any, trained: Path, tmp_path: Path) -> None:
    bundle.infer(tmp_path, trained / "model.pt", save_features=True)
    arrays, metadata = read_tensors(tmp_path / "features.safetensors")
    assert arrays["features"].shape == (60, 16)
    assert metadata["predictions_sha256"] == sha256(tmp_path / "predictions.csv")


def test_one_split_alone_can_be_evaluated(bundle: Any, trained: Path, tmp_path: Path) -> None:
    bundle.evaluate(tmp_path, ckpt_path=str(trained / "model.pt"), evaluate_splits="test")
    assert set(read_predictions(tmp_path / "predictions.csv").table["split"]) == {"test"}


def test_images_without_labels_are_scored(bundle: Any, trained: Path, tmp_path: Path, manifest: pd.DataFrame) -> None:
    bare = tmp_path / "bare.csv"
    manifest[["subject_id", "image"]].iloc[:7].to_csv(bare, index=False)
    output = bundle.infer(tmp_path / "bare", trained / "model.pt", manifest=str(bare))
    whole = bundle.infer(tmp_path / "whole", trained / "model.pt")
    table = pd.read_csv(output / "predictions.csv", keep_default_na=False)
    assert list(table) == ["subject_id", "image", "split", "label", "score"]
    assert (table[["split", "label"]] == "").all(axis=None)
    scores = read_predictions(whole / "predictions.csv").table["score"].to_numpy()[:7]
    np.testing.assert_allclose(table["score"], scores, rtol=0, atol=1e-6)


def test_weights_of_another_network_are_refused(bundle: Any, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        bundle.infer(tmp_path, trained / "model.pt", **{"network_def#block_inplanes": [4, 8, 8, 8]})
    assert "size mismatch for fc.weight" in str(caught.value.__cause__)
    assert not (tmp_path / "predictions.csv").exists()


@pytest.mark.parametrize("stage", ["evaluate", "infer"])
def test_a_model_is_not_used_on_images_of_another_size(bundle: Any, trained: Path, tmp_path: Path, stage: str) -> None:
    model = trained / "model.pt"
    configs = {"evaluate": ["train", "small", "evaluate"], "infer": ["inference"]}[stage]
    with pytest.raises(RuntimeError) as caught:
        bundle.run(*configs, output=tmp_path, ckpt_path=str(model), image_size=24)
    assert str(caught.value.__cause__) == (
        f"{model}: image_size: trained with 28, now 24; load_size: trained with 32, now 27; "
        "give the values it was trained with"
    )
    assert not (tmp_path / "predictions.csv").exists()


def test_evaluation_does_not_change_the_model(bundle: Any, trained: Path, tmp_path: Path) -> None:
    before = torch.load(trained / "training_state.pt", weights_only=True)["network"]
    digest = sha256(trained / "model.pt")
    bundle.evaluate(tmp_path, ckpt_path=str(trained / "model.pt"))
    assert sha256(trained / "model.pt") == digest
    after = torch.load(trained / "training_state.pt", weights_only=True)["network"]
    assert all(torch.equal(before[name], after[name]) for name in before)
