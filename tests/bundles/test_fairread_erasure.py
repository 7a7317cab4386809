"""Stage 1c of FairREAD: what is left of the attributes is taken out, and stage 2 starts from there."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_tensors
from monai_fair.errors import ArtifactError, root_cause

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture(scope="module")
def erased(fairread: Any, fused: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("erased")
    for name in ("stage1_attributes", "stage1_encoder"):
        for suffix in (".pt", ".json"):
            shutil.copy((fused / name).with_suffix(suffix), folder)
    fairread.train(folder, "stage1_erasure")
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


def test_only_the_erasures_are_new(erased: Path) -> None:
    before, after = weights(erased / "stage1_encoder.pt"), weights(erased / "stage1_erased.pt")
    assert len([name for name in after if "erasure" in name]) == 6
    for name, value in before.items():
        own = name.replace("encoder.", "encoder.encoder.", 1) if name.startswith("encoder.") else name
        assert torch.equal(after[own], value)
    # two attributes of two levels: two directions are taken out at either place
    for name in ("encoder.erasure", "erasure"):
        assert torch.linalg.matrix_rank(after[f"{name}.write"] @ after[f"{name}.read"].T) == 2


def test_again_it_gives_the_same(fairread: Any, erased: Path) -> None:
    before = weights(erased / "stage1_erased.pt")
    fairread.train(erased, "stage1_erasure")
    assert all(torch.equal(value, before[name]) for name, value in weights(erased / "stage1_erased.pt").items())


def test_stage_2_evaluation_and_inference_keep_it(fairread: Any, erased: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(erased, tmp_path / "run")
    fairread.train(folder, "erased")
    stage1, model = weights(folder / "stage1_erased.pt"), weights(folder / "model.pt")
    encoder = {name: value for name, value in model.items() if name.startswith("encoder.")}
    assert len(encoder) == len([name for name in stage1 if name.startswith("encoder.")])
    assert all(torch.equal(value, stage1[name]) for name, value in encoder.items())  # it is not trained further
    fairread.train(folder, "erased", "evaluate", threshold_min_count=1)
    table = read_predictions(folder / "predictions.csv").table
    inferred = fairread.infer(tmp_path / "inferred", folder / "model.pt", erased=True)
    other = read_predictions(inferred / "predictions.csv").table.set_index("image").loc[table["image"]]
    assert other["score"].to_numpy() == pytest.approx(table["score"].to_numpy(), abs=1e-6)
    with pytest.raises((RuntimeError, ArtifactError)) as caught:
        fairread.infer(tmp_path / "plain", folder / "model.pt")
    assert "erased: trained with True, now False" in root_cause(caught.value)


def test_the_erased_classifier_is_evaluated(fairread: Any, erased: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(erased, tmp_path / "run")
    fairread.train(folder, "stage1_erasure", "evaluate", threshold_min_count=1)
    tensors = read_tensors(folder / "features.safetensors")[0]
    assert tensors["features"].shape == (len(read_predictions(folder / "predictions.csv").table), 128)
