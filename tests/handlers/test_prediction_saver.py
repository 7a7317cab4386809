"""PredictionSaver in a MONAI evaluator: every row once, in the manifest's order, or an error."""

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

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_tensors, sha256
from monai_fair.errors import PredictionsError
from monai_fair.handlers import PredictionSaver

TABLE = pd.DataFrame(
    {
        "subject_id": ["s0", "s1", "s2", "s2", "s4"],
        "image": [f"{index}.png" for index in range(5)],
        "label": ["0", "1", "0", "1", "1"],
        "split": ["train", "val", "test", "test", "test"],
        "image_id": ["001", "NA", "3", "4", "5"],
        "weight": ["1", "1", "2", "1", "1"],
        "sex": ["female", "", "male", "NA", "89+"],
    }
)


class Net(nn.Module):
    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(x))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.csv"
    TABLE.to_csv(path, index=False)
    return path


def evaluate(saver: PredictionSaver, rows: list[int], network: nn.Module, *, sigmoid: bool = True) -> None:
    items = [{"image": torch.tensor([row / 4, 1.0]), "row": row} for row in rows]
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=network,
        postprocessing=Activationsd("pred", sigmoid=True) if sigmoid else None,
        val_handlers=[saver],
    ).run()


@pytest.mark.parametrize("rows", [[2, 3, 4], [4, 2, 3], [3, 2, 4, 2, 3]], ids=["in order", "shuffled", "repeated"])
def test_rows_stand_once_and_in_the_manifests_order(tmp_path: Path, manifest: Path, rows: list[int]) -> None:
    torch.manual_seed(0)
    network, path = Net(), tmp_path / "out" / "predictions.csv"
    saver = PredictionSaver(str(path), str(manifest), network=network, features_layer="fc")
    evaluate(saver, rows, network)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    expected = TABLE.loc[[2, 3, 4], ["subject_id", "image", "image_id", "split", "label", "sex"]]
    pd.testing.assert_frame_equal(table.drop(columns="score"), expected.reset_index(drop=True))
    inputs = torch.tensor([[row / 4, 1.0] for row in (2, 3, 4)])
    scores = network(inputs).sigmoid()[:, 0].detach().numpy()
    # the digits in the file tell float32 numbers apart
    np.testing.assert_array_equal(table["score"].astype(np.float32), scores)
    arrays, metadata = read_tensors(path.with_name("features.safetensors"))
    np.testing.assert_array_equal(arrays["features"], inputs.numpy())
    np.testing.assert_array_equal(arrays["weight"], network.fc.weight.detach().numpy())
    assert metadata["predictions_sha256"] == sha256(path)


def test_a_second_run_replaces_the_first(tmp_path: Path, manifest: Path) -> None:
    network, path = Net(), tmp_path / "predictions.csv"
    saver = PredictionSaver(str(path), str(manifest), network=network, features_layer="fc")
    evaluate(saver, [2, 3, 4], network)
    evaluate(saver, [1], network)
    assert read_predictions(path).table["image"].tolist() == ["1.png"]
    assert read_tensors(path.with_name("features.safetensors"))[0]["features"].shape == (1, 2)


def test_a_layer_without_bias_has_a_bias_of_zero(tmp_path: Path, manifest: Path) -> None:
    network, path = Net(bias=False), tmp_path / "predictions.csv"
    evaluate(PredictionSaver(str(path), str(manifest), network=network, features_layer="fc"), [1], network)
    np.testing.assert_array_equal(read_tensors(path.with_name("features.safetensors"))[0]["bias"], [0.0])


def test_the_network_keeps_no_hook(tmp_path: Path, manifest: Path) -> None:
    network = Net()
    evaluate(
        PredictionSaver(str(tmp_path / "p.csv"), str(manifest), network=network, features_layer="fc"), [1], network
    )
    assert not network.fc._forward_pre_hooks


def test_scores_that_are_no_probabilities_are_refused(tmp_path: Path, manifest: Path) -> None:
    network = Net()
    nn.init.constant_(network.fc.weight, 3.0)
    with pytest.raises(PredictionsError, match=r"p\.csv: .*expected a number in \[0, 1\]"):
        evaluate(PredictionSaver(str(tmp_path / "p.csv"), str(manifest)), [2, 3], network, sigmoid=False)
    assert not (tmp_path / "p.csv").exists()


def test_scores_that_are_not_a_number_are_refused(tmp_path: Path, manifest: Path) -> None:
    network = Net()
    nn.init.constant_(network.fc.weight, float("nan"))
    with pytest.raises(PredictionsError, match=r"expected a number in \[0, 1\]"):
        evaluate(PredictionSaver(str(tmp_path / "p.csv"), str(manifest)), [2], network)


def test_features_need_the_network(tmp_path: Path, manifest: Path) -> None:
    with pytest.raises(PredictionsError) as caught:
        PredictionSaver(str(tmp_path / "p.csv"), str(manifest), features_layer="fc")
    assert str(caught.value) == "features_layer 'fc': expected the network too, got none"


def test_an_evaluator_without_images_is_an_error(tmp_path: Path, manifest: Path) -> None:
    from ignite.engine import Engine

    engine: Any = Engine(lambda *_: None)
    PredictionSaver(str(tmp_path / "p.csv"), str(manifest)).attach(engine)
    with pytest.raises(PredictionsError) as caught:
        engine.run([0], max_epochs=0)
    assert str(caught.value) == f"{tmp_path}/p.csv: expected predictions, but the evaluator saw no image"
