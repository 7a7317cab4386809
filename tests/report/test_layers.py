from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_fair.data.artifacts import sha256, write_tensors
from monai_fair.data.predictions import Predictions, read_predictions, write_predictions
from monai_fair.errors import ArtifactError
from monai_fair.report.layers import layer_file, read_layers

ROWS = 30


@pytest.fixture
def predictions(tmp_path: Path, simulated: Any) -> Predictions:
    return read_predictions(write_predictions(tmp_path / "predictions.csv", simulated(0, ROWS)))


def write(predictions: Predictions, name: str = "layers.safetensors", **tensors: Any) -> Path:
    path = Path(predictions.source).with_name(name)
    return write_tensors(path, tensors, {"predictions_sha256": sha256(predictions.source)})


def test_layers_go_before_features(predictions: Predictions) -> None:
    assert layer_file(predictions) is None
    features = write(predictions, "features.safetensors", features=np.ones((ROWS, 2), np.float32))
    assert layer_file(predictions) == features
    layers = write(predictions, mu=np.ones((ROWS, 2), np.float32))
    assert layer_file(predictions) == layers


def test_layers_are_read_in_natural_order(predictions: Predictions) -> None:
    tensors = {name: np.full((ROWS, 2), float(name[-1]), np.float32) for name in ("fused_9", "map_1")}
    path = write(predictions, **tensors, fused_10=np.zeros((ROWS, 3), np.float32))
    found = read_layers(path, predictions)
    assert list(found) == ["fused_9", "fused_10", "map_1"]
    assert found["fused_9"].tolist() == tensors["fused_9"].tolist()


def test_of_features_only_those_are_a_layer(predictions: Predictions) -> None:
    last = {"weight": np.ones((1, 2), np.float32), "bias": np.ones(1, np.float32)}
    path = write(predictions, "features.safetensors", features=np.ones((ROWS, 2), np.float32), **last)
    assert list(read_layers(path, predictions)) == ["features"]


def test_all_problems_of_a_file_are_named(predictions: Predictions) -> None:
    path = write(
        predictions,
        few=np.ones((3, 2), np.float32),
        flat=np.ones(ROWS, np.float32),
        holes=np.full((ROWS, 2), np.nan, np.float32),
        none=np.ones((ROWS, 0), np.float32),
        whole=np.ones((ROWS, 2), np.int64),
    )
    with pytest.raises(ArtifactError) as caught:
        read_layers(path, predictions)
    shape = f"expected shape ({ROWS}, d), one row per prediction, got"
    kind = "expected finite numbers, got others; check the run that wrote them"
    assert str(caught.value).splitlines() == [
        f"{path}: 5 problems",
        f"  1. layer 'few': {shape} (3, 2); predict again",
        f"  2. layer 'flat': {shape} ({ROWS},); predict again",
        f"  3. layer 'holes': {kind}",
        f"  4. layer 'none': {shape} ({ROWS}, 0); predict again",
        f"  5. layer 'whole': {kind}",
    ]


@pytest.mark.parametrize("known", [{}, {"predictions_sha256": "0" * 64}])
def test_layers_of_another_table_are_refused(predictions: Predictions, known: dict[str, str]) -> None:
    path = Path(predictions.source).with_name("layers.safetensors")
    write_tensors(path, {"mu": np.ones((ROWS, 2), np.float32)}, known)
    with pytest.raises(ArtifactError) as caught:
        read_layers(path, predictions)
    assert str(caught.value) == (
        f"{path}: expected predictions_sha256 {sha256(predictions.source)} of {predictions.source}, got "
        f"{known.get('predictions_sha256', 'none')}; predict again, so that both files are of one run"
    )


def test_a_file_without_layers_and_a_damaged_one_are_refused(predictions: Predictions) -> None:
    path = write(predictions, "features.safetensors", weight=np.ones((1, 2), np.float32))
    with pytest.raises(ArtifactError, match="expected the tensor of a layer, found none; predict again"):
        read_layers(path, predictions)
    path.write_bytes(b"no tensors")
    with pytest.raises(ArtifactError, match="expected a readable safetensors file"):
        read_layers(path, predictions)
