import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from monai_fair.data.artifacts import sha256, write_tensors
from monai_fair.data.predictions import read_predictions, write_predictions
from monai_fair.errors import ArtifactError, MonaiFairError
from monai_fair.metrics.arrays import FloatArray
from monai_fair.report import build_page, combine_seeds, incidence_section

NOISE = 4


def tensors_for(score: FloatArray, outputs: int = 1) -> dict[str, Any]:
    logit = np.log(score / (1 - score))
    noise = np.abs(np.random.default_rng(0).normal(size=(len(score), NOISE)))
    features = np.column_stack([np.maximum(logit, 0), np.maximum(-logit, 0), noise]).astype(np.float32)
    weight = np.zeros((outputs, features.shape[1]), dtype=np.float32)
    weight[-1, :2] = 1, -1
    return {"features": features, "weight": weight, "bias": np.zeros(outputs, np.float32)}


@pytest.fixture
def files(tmp_path: Path, simulated: Any) -> Any:
    table = simulated(0, 400)
    path = write_predictions(tmp_path / "predictions.csv", table)
    tensors = tensors_for(table["score"].astype(float).to_numpy())
    features = write_tensors(tmp_path / "features.safetensors", tensors, {"predictions_sha256": sha256(path)})
    return read_predictions(path), features, tensors


def test_rates_before_and_after_by_hand(files: Any) -> None:
    predictions, path, _ = files
    section = incidence_section(predictions, path, 0.5, ["sex"])
    test = predictions.table[predictions.table["split"] == "test"]
    assert section["n"] == len(test)
    row = next(r for r in section["ablation"] if r["role"] == "contrast positive" and r["group"] == "female")
    assert row["channel"] == 0
    female = test[test["sex"] == "female"]
    positives = female[female["label"] == 1]
    assert row["n_positive"] == len(positives)
    assert row["tpr_before"] == (positives["score"] >= 0.5).mean()
    assert row["fpr_before"] == (female[female["label"] == 0]["score"] >= 0.5).mean()
    # Channel 0 is the positive part of the logit: without it every positive logit becomes 0, a score of exactly
    # 0.5, which the threshold 0.5 still calls positive and one just above no longer does.
    assert row["tpr_after"] == row["tpr_before"]
    lower = incidence_section(predictions, path, 0.5000001, ["sex"])
    row = next(r for r in lower["ablation"] if r["role"] == "contrast positive" and r["group"] == "female")
    assert (row["tpr_after"], row["fpr_after"]) == (0.0, 0.0)


def test_channels_coactivation_and_concentration(files: Any) -> None:
    predictions, path, tensors = files
    section = incidence_section(predictions, path, 0.5, ["sex"])
    assert {row["role"]: row["channel"] for row in section["channels"]}["contrast negative"] == 1
    inside = (predictions.table["split"] == "test").to_numpy()
    expected = roc_auc_score(predictions.table["label"][inside], tensors["features"][inside, 0])
    cell = next(
        row
        for row in section["coactivation"]
        if (row["role"], row["attribute"], row["group"]) == ("contrast positive", "label", "1")
    )
    assert cell["auroc"] == pytest.approx(expected, abs=1e-12)
    score = predictions.table["score"].to_numpy()[inside]
    means = (score @ tensors["features"][inside].astype(float)) / score.sum()
    positive = next(row for row in section["concentration"] if row["direction"] == "positive")
    assert positive["cv"] == pytest.approx(means.std() / means.mean(), abs=1e-12)
    assert positive["top1_share"] == pytest.approx(means.max() / means.sum(), abs=1e-12)


def test_two_outputs_are_a_softmax(tmp_path: Path, simulated: Any) -> None:
    table = simulated(0, 200)
    path = write_predictions(tmp_path / "predictions.csv", table)
    score = table["score"].astype(float).to_numpy()
    known = {"predictions_sha256": sha256(path)}
    one = write_tensors(tmp_path / "one.safetensors", tensors_for(score), known)
    two = write_tensors(tmp_path / "two.safetensors", tensors_for(score, outputs=2), known)
    sections = [incidence_section(read_predictions(path), features, 0.4, ["sex"]) for features in (one, two)]
    assert str(sections[0]) == str(sections[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": None}, "expected a tensor 'bias', found none; write it"),
        (
            {"features": np.ones((3, 6), np.float32)},
            r"expected features of shape \(400, D\), one row per prediction, got",
        ),
        (
            {"weight": np.ones((1, 5), np.float32)},
            r"expected weight of shape \(1 or 2, 6\), got \(1, 5\); write the last",
        ),
        ({"bias": np.ones(2, np.float32)}, r"expected bias of shape \(1,\), got \(2,\); write the last layer's"),
        (
            {"bias": np.ones(1, np.float32)},
            "expected features, weight and bias to give the scores of .* got a difference of",
        ),
        ({"bias": np.full(1, np.nan, np.float32)}, "expected features, weight and bias to give the scores of"),
    ],
)
def test_other_tensors_are_refused(files: Any, change: dict[str, Any], message: str) -> None:
    predictions, path, tensors = files
    changed = {name: value for name, value in {**tensors, **change}.items() if value is not None}
    write_tensors(path, changed, {"predictions_sha256": sha256(predictions.source)})
    with pytest.raises(ArtifactError, match=message):
        incidence_section(predictions, path, 0.5, ["sex"])


@pytest.mark.parametrize("known", [{}, {"predictions_sha256": "0" * 64}])
def test_features_of_another_table_are_refused(files: Any, known: dict[str, str]) -> None:
    predictions, path, tensors = files
    write_tensors(path, tensors, known)
    with pytest.raises(
        ArtifactError, match=f"expected predictions_sha256 {sha256(predictions.source)} of .* predict again"
    ):
        incidence_section(predictions, path, 0.5, ["sex"])


def test_several_classes_are_refused(tmp_path: Path, simulated: Any) -> None:
    table = simulated(0, 60)
    for index in range(3):
        table[f"score_{index}"] = table["score"]
    path = write_predictions(tmp_path / "predictions.csv", table.drop(columns="score"))
    with pytest.raises(MonaiFairError, match="expected a binary task for neuron incidence, got 3 classes; leave"):
        incidence_section(read_predictions(path), tmp_path / "none", 0.5, ["sex"])


def test_page_shows_concentration_and_masks_small_groups(files: Any, results: dict[str, Any]) -> None:
    predictions, path, _ = files
    section = incidence_section(predictions, path, 0.5, ["sex", "site"])
    tiny = next(row for row in section["ablation"] if row["group"] == "tiny")
    assert tiny["n"] < 10
    extended = {
        **copy.deepcopy(results),
        "incidence": {"ERM": combine_seeds({"0": section}), "NIR": combine_seeds({"0": section, "1": section})},
    }
    page = build_page(extended)
    cv = next(row for row in section["concentration"] if row["direction"] == "positive")["cv"]
    assert f"<b>{cv:.3f}</b>" in page or f"<b>{cv:.2f}</b>" in page
    assert "one seed" in page
    part = page[page.index('id="incidence"') : page.index('id="read"')]
    assert '<th scope="row">site: tiny</th><td>&lt;10</td><td>&lt;10</td>' in part
    assert page.count("<svg ") == 7


def test_undefined_concentration_gives_its_reason_instead_of_bars(files: Any, results: dict[str, Any]) -> None:
    predictions, path, tensors = files
    shifted = {**tensors, "features": tensors["features"].copy()}
    shifted["features"][:, 2] = -1
    write_tensors(path, shifted, {"predictions_sha256": sha256(predictions.source)})
    section = incidence_section(predictions, path, 0.5, ["sex"])
    page = build_page({**copy.deepcopy(results), "incidence": {"ERM": combine_seeds({"0": section})}})
    assert page.count("<svg ") == 6
    assert "1 of 6 channel means are negative; take features after ReLU" in page
