"""torchvision's weights in MONAI's network: the same features; a file that does not fit says why."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import DenseNet121

from monai_fair.errors import ArtifactError
from monai_fair.networks import LayerInput, load_imagenet_weights

torchvision = pytest.importorskip("torchvision")

CONFIG = Path(__file__).parents[2] / "bundles" / "fair_image_classification" / "configs" / "train.yaml"


def network(**overrides: Any) -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config(str(CONFIG))
    parser.update({f"network_def#{name}": value for name, value in overrides.items()})
    return parser.get_parsed_content("network_def")


def randomised(name: str = "resnet18") -> torch.nn.Module:
    """torchvision's network with random running statistics too, which new networks have at 0 and 1."""
    torch.manual_seed(0)
    source: torch.nn.Module = torchvision.models.get_model(name, weights=None)
    for name, value in source.named_buffers():
        if name.endswith("running_mean"):
            value.uniform_(-0.2, 0.2)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    return source.eval()


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(randomised().state_dict(), path)
    return path


def test_the_network_of_the_bundle_gives_torchvisions_features(weights_file: Path) -> None:
    own = network()
    head = own.fc.weight.clone()
    loaded = load_imagenet_weights(own, str(weights_file)).eval()
    assert loaded is own
    assert torch.equal(own.fc.weight, head)
    source = randomised()
    ours, theirs = LayerInput(own, "fc"), LayerInput(source, "fc")
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        own(images)
        source(images)
    expected = theirs.take()
    assert expected.std() > 0.01
    torch.testing.assert_close(ours.take(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("old", [False, True])
def test_monai_s_densenet_gives_torchvisions_features(tmp_path: Path, old: bool) -> None:
    """The published file has the names of an old version, ``norm.1`` for ``norm1``, and counts no batches."""
    source, own = randomised("densenet121"), DenseNet121(spatial_dims=2, in_channels=3, out_channels=1).eval()
    stored = source.state_dict()
    if old:
        stored = {
            re.sub(r"(norm|conv)([12])\.", r"\1.\2.", name): value
            for name, value in stored.items()
            if not name.endswith("num_batches_tracked")
        }
        assert "features.denseblock1.denselayer1.norm.1.weight" in stored
    torch.save(stored, tmp_path / "w.pth")
    load_imagenet_weights(own, str(tmp_path / "w.pth"), head="class_layers.out")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = source.features(images)
        assert expected.std() > 0.01
        torch.testing.assert_close(own.features(images), expected, rtol=1e-5, atol=1e-5)


def test_the_file_that_is_missing_has_the_name_of_the_network_s(tmp_path: Path) -> None:
    own = DenseNet121(spatial_dims=2, in_channels=3, out_channels=1)
    with pytest.raises(ArtifactError, match=r"put densenet121-a639ec97\.pth there"):
        load_imagenet_weights(own, str(tmp_path / "w.pth"), head="class_layers.out")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        load_imagenet_weights(torch.nn.Linear(1, 1), str(tmp_path / "w.pth"))
    assert str(caught.value) == (
        f"{tmp_path}/w.pth: expected ImageNet weights in torchvision's format, found no file; put "
        "resnet18-f37072fd.pth there, or set download to true to fetch it, or pretrained to false to start from "
        "random weights"
    )


def test_no_file_given_is_an_error() -> None:
    with pytest.raises(ArtifactError, match=r"^pretrained: expected weights_file, .* got none; give the file"):
        load_imagenet_weights(torch.nn.Linear(1, 1))


def test_another_depth_is_refused_and_the_network_kept(weights_file: Path) -> None:
    own = network(layers=[1, 1, 1, 1])
    before = {name: value.clone() for name, value in own.state_dict().items()}
    with pytest.raises(ArtifactError) as caught:
        load_imagenet_weights(own, str(weights_file))
    message = str(caught.value)
    assert message.startswith(f"{weights_file}: its weights do not fit the network (first differences: layer1.1.bn1.")
    assert message.endswith("); check the depth")
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


def test_another_width_is_refused(weights_file: Path) -> None:
    with pytest.raises(ArtifactError, match=r"do not fit the network .*layer4\.0\.conv1\.weight"):
        load_imagenet_weights(network(block_inplanes=[64, 128, 256, 32]), str(weights_file))


@pytest.mark.parametrize("name", ["pretrained", "download"])
@pytest.mark.parametrize("value", ["false", "true", 0, None])
def test_text_in_place_of_true_or_false_is_refused(name: str, value: Any) -> None:
    options = {"pretrained": False, "download": False, name: value}
    with pytest.raises(ArtifactError) as caught:
        load_imagenet_weights(torch.nn.Linear(1, 1), "w.pth", **options)
    got = f"{options['pretrained']!r} and {options['download']!r}"
    assert str(caught.value) == f"expected True or False for pretrained and download, got {got}"


def test_without_pretrained_nothing_is_read() -> None:
    layer = torch.nn.Linear(1, 1)
    assert load_imagenet_weights(layer, "does/not/exist.pth", pretrained=False) is layer


class Attack:
    """Unpickling this would make a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.mkdir, (self.path,)


def test_a_file_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "w.pth", tmp_path / "trace"
    torch.save({"conv1.weight": Attack(str(trace))}, path)
    with pytest.raises(ArtifactError) as caught:
        load_imagenet_weights(network(), str(path))
    assert str(caught.value).startswith(f"{path}: expected a file of weights without code in it; ")
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the attack is a real one
    assert trace.is_dir()


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="expected a file of weights without code in it"):
        load_imagenet_weights(network(), str(path))


@pytest.mark.parametrize("stored", [[1.0, 2.0], torch.zeros(3), {"state_dict": {"conv1.weight": torch.zeros(1)}}])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, stored: Any) -> None:
    path = tmp_path / "w.pth"
    torch.save(stored, path)
    with pytest.raises(ArtifactError) as caught:
        load_imagenet_weights(network(), str(path))
    assert str(caught.value) == (
        f"{path}: expected a state dict (names to tensors), got something else; give the right file"
    )
