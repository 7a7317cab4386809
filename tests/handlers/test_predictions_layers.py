"""Layers beside predictions: what leaves or enters a module, once for each row, and no hook that stays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.networks.nets import DenseNet
from monai.transforms import Activationsd
from torch import nn
from torch.nn.parallel import DataParallel

from monai_fair.data.artifacts import read_tensors, sha256
from monai_fair.errors import MonaiFairError
from monai_fair.handlers import PredictionSaver
from monai_fair.handlers.layer_outputs import LayerOutputs, fairread_layers
from monai_fair.networks import AttributeEncoder, EmbeddingClassifier, FairREAD, classifier_like

ROWS = 5


def encoder() -> nn.Module:
    net = DenseNet(2, 3, 1, init_features=4, growth_rate=4, block_config=(1, 1))
    return net.features


@pytest.fixture
def fused() -> FairREAD:
    torch.manual_seed(0)
    return FairREAD(encoder(), AttributeEncoder([2, 3], 6, positive_scale=True), channels=8, latent=6, blocks=3)


@pytest.fixture
def classifier() -> EmbeddingClassifier:
    torch.manual_seed(1)
    return EmbeddingClassifier(encoder(), channels=8, embedding=7)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(ROWS, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def codes() -> torch.Tensor:
    return torch.tensor([[0.0, 2], [1, 0], [1, 1], [0, 0], [1, 2]])


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = range(ROWS)
    split = ["val", "test", "test", "train", "test"]
    table = pd.DataFrame({"subject_id": [f"s{row}" for row in rows], "image": [f"{row}.png" for row in rows],
                          "label": [row % 2 for row in rows], "split": split, "sex": "f"})  # fmt: skip
    table.to_csv(tmp_path / "manifest.csv", index=False)
    return tmp_path / "manifest.csv"


def hooks(*networks: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks)
        for network in networks
        for module in network.modules()
    )


def evaluate(saver: PredictionSaver, network: nn.Module, images: torch.Tensor, rows: list[int], **more: Any) -> None:
    items = [{"image": images[row], "row": row, **{key: value[row] for key, value in more.items()}} for row in rows]
    prepare = {"prepare_batch": PrepareBatchExtraInput(list(more))} if more else {}
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=network,
        postprocessing=Activationsd("pred", sigmoid=True),
        val_handlers=[saver],
        **prepare,
    ).run()


def test_every_layer_of_fairread_is_that_of_the_formula(
    fused: FairREAD, images: torch.Tensor, codes: torch.Tensor, manifest: Path
) -> None:
    path = manifest.parent / "predictions.csv"
    saver = PredictionSaver(str(path), str(manifest), network=fused, features_layer="out.1",
                            layers=fairread_layers(fused))  # fmt: skip
    evaluate(saver, fused, images, [4, 1, 2, 1, 0], codes=codes)  # a sampler may repeat rows and mix them
    found, metadata = read_tensors(path.with_name("layers.safetensors"))
    assert metadata["predictions_sha256"] == sha256(path)
    rows = [0, 1, 2, 4]
    with torch.no_grad():
        at = fused.eval().encoder(images[rows])
        mu, sigma = fused.attributes(codes[rows])
        expected = {"map": at, "mu": mu, "sigma": sigma}
        for place, block in enumerate(fused.blocks):
            at = block(at, mu, sigma)
            expected[f"fused_{place + 1}"] = at
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        mean = value.mean(dim=(2, 3)) if value.ndim == 4 else value
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], mean.numpy(), rtol=0, atol=1e-6, err_msg=name)
    assert (found["map"] < 0).any()  # before any ReLU
    # what enters the last layer of all is the last map's mean
    features = read_tensors(path.with_name("features.safetensors"))[0]["features"]
    np.testing.assert_allclose(found["fused_3"], features, rtol=0, atol=1e-6)
    assert hooks(fused) == 0


def test_embeddings_of_stage_1_are_those_of_both_models(
    classifier: EmbeddingClassifier, images: torch.Tensor, manifest: Path
) -> None:
    told = classifier_like(classifier, 3).train()  # it runs in eval(), whatever it was in
    nn.init.normal_(told.projection.weight)
    path = manifest.parent / "predictions.csv"
    saver = PredictionSaver(str(path), str(manifest), layers=fairread_layers(DataParallel(classifier), told))
    evaluate(saver, classifier, images, list(range(ROWS)))
    found = read_tensors(path.with_name("layers.safetensors"))[0]
    with torch.no_grad():
        expected = {
            "map": classifier.eval().encoder(images).mean(dim=(2, 3)),
            "embedding": classifier.embed(images),
            "attribute_embedding": told.eval().embed(images),
        }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value.numpy(), rtol=0, atol=1e-6, err_msg=name)
    assert not np.allclose(found["embedding"], found["attribute_embedding"])
    assert hooks(classifier, told) == 0


def test_without_layers_there_is_no_file(classifier: nn.Module, images: torch.Tensor, manifest: Path) -> None:
    path = manifest.parent / "predictions.csv"
    evaluate(PredictionSaver(str(path), str(manifest)), classifier, images, [0, 1])
    assert not path.with_name("layers.safetensors").exists()


def test_a_run_that_failed_leaves_no_hook_to_the_next(
    classifier: nn.Module, images: torch.Tensor, manifest: Path
) -> None:
    saver = PredictionSaver(str(manifest.parent / "p.csv"), str(manifest), network=classifier, features_layer="out",
                            layers=[LayerOutputs(classifier, {"map": "encoder"})])  # fmt: skip
    with pytest.raises(RuntimeError, match="size"):
        evaluate(saver, classifier, images[:, :1], [0, 1])
    evaluate(saver, classifier, images, [0, 1])
    assert hooks(classifier) == 0
    assert len(read_tensors(manifest.parent / "layers.safetensors")[0]["map"]) == 2


@pytest.mark.parametrize("split", ["", "test"])
def test_a_split_that_is_given_stands_in_every_row(
    classifier: nn.Module, images: torch.Tensor, manifest: Path, split: str
) -> None:
    path = manifest.parent / "predictions.csv"
    evaluate(PredictionSaver(str(path), str(manifest), split=split), classifier, images, list(range(ROWS)))
    written = pd.read_csv(path)["split"].tolist()
    assert written == ([split] * ROWS if split else ["val", "test", "test", "train", "test"])


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inner(x), x + 1


class Twice(nn.Module):
    """Runs a part twice, and another never."""

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.idle = Pair(), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pair(x)[0] + self.pair(x)[1]


@pytest.fixture
def looked() -> Iterator[Any]:
    made: list[LayerOutputs] = []

    def look(network: nn.Module, layers: dict[str, str]) -> LayerOutputs:
        made.append(LayerOutputs(network, layers))
        made[-1].start()
        return made[-1]

    yield look
    for outputs in made:
        outputs.remove()


def test_one_of_several_things_and_what_enters(looked: Any) -> None:
    network, x = Pair(), torch.arange(6.0).reshape(2, 3)
    outputs = looked(network, {"first": "[0]", "second": "[1]", "enters": "input:inner"})
    network(x)
    found = outputs.take()
    assert {name: value.tolist() for name, value in found.items()} == {
        "first": x.tolist(), "second": (x + 1).tolist(), "enters": x.tolist(),
    }  # fmt: skip


def test_several_passes_or_none_are_told(looked: Any) -> None:
    network = Twice()
    outputs = looked(network, {"pair": "pair[0]", "idle": "idle"})
    network(torch.zeros(1, 2))
    with pytest.raises(MonaiFairError) as caught:
        outputs.take()
    remedy = "use an inferer that calls the network once per batch, such as SimpleInferer"
    assert str(caught.value) == (
        "layers: 2 problems\n"
        f"  1. pair: expected one pass through 'pair[0]' since it was last taken, got several; {remedy}\n"
        f"  2. idle: expected one pass through 'idle' since it was last taken, got none; {remedy}"
    )


@pytest.mark.parametrize(
    ("place", "got"), [("pair", "2 things"), ("pair[2]", "2 things"), ("pair.inner[0]", "one thing")]
)
def test_a_wrong_number_of_things_is_told(looked: Any, place: str, got: str) -> None:
    network = Twice()
    looked(network, {"x": place})
    with pytest.raises(MonaiFairError) as caught:
        network(torch.zeros(1, 2))
    assert str(caught.value) == (
        f"layer '{place}': expected one thing to keep, got {got}; give [0], [1], ... for one of several, and none else"
    )


def test_modules_that_are_not_there_are_named() -> None:
    with pytest.raises(MonaiFairError) as caught:
        LayerOutputs(Twice(), {"a": "pair", "b": "input:head", "c": "other[1]"})
    assert str(caught.value) == (
        "layers of Twice: 2 problems\n"
        "  1. b: expected a module, got no 'head'; name one of its named_modules()\n"
        "  2. c: expected a module, got no 'other'; name one of its named_modules()"
    )


def test_another_network_has_no_layers_of_fairread() -> None:
    with pytest.raises(MonaiFairError) as caught:
        fairread_layers(Twice())
    assert str(caught.value) == (
        "fairread_layers: expected a FairREAD or EmbeddingClassifier network, got Twice; name its layers in a "
        "LayerOutputs"
    )
