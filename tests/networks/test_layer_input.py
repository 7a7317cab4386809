"""The input of a named linear layer: right tensor, right graph, every wrapper, exact error text."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import DenseNet121, EfficientNetBN, resnet18
from torch import distributed as dist
from torch import fx, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from monai_fair.errors import MonaiFairError
from monai_fair.networks import LayerInput
from monai_fair.networks.layer_input import unwrapped


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x))


@pytest.fixture
def network() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 1, 6, 6)


def test_takes_the_input_with_its_graph(network: nn.Module, images: torch.Tensor) -> None:
    capture = LayerInput(network, "fc")
    y_pred = network(images)
    features = capture.take()
    assert torch.equal(features, network.body(images))
    assert torch.equal(network.fc(features), y_pred)
    (gradient,) = torch.autograd.grad(features.var(), network.body[0].weight)
    (expected,) = torch.autograd.grad(network.body(images).var(), network.body[0].weight)
    torch.testing.assert_close(gradient, expected)
    assert capture.layer is network.fc


@pytest.mark.parametrize(
    ("make", "layer", "channels"),
    [
        (lambda: resnet18(spatial_dims=2, n_input_channels=1, num_classes=2), "fc", 512),
        (lambda: DenseNet121(spatial_dims=2, in_channels=1, out_channels=2), "class_layers.out", 1024),
        (lambda: EfficientNetBN("efficientnet-b0", False, in_channels=1, num_classes=2), "_fc", 1280),
        (lambda: resnet18(spatial_dims=3, n_input_channels=1, num_classes=2), "fc", 512),
    ],
    ids=["resnet", "densenet", "efficientnet", "resnet3d"],
)
def test_monai_classifiers(make: Callable[[], Any], layer: str, channels: int) -> None:
    network = make().eval()
    spatial_dims = 3 if any(isinstance(module, nn.Conv3d) for module in network.modules()) else 2
    capture = LayerInput(network, layer)
    with torch.no_grad():
        y_pred = network(MetaTensor(torch.rand(2, 1, *[32] * spatial_dims)))
        features = capture.take()
        assert features.shape == (2, channels)
        assert type(features) is torch.Tensor
        torch.testing.assert_close(capture.layer(features), y_pred.as_tensor())


def test_looks_through_data_parallel_and_compile(network: nn.Module, images: torch.Tensor) -> None:
    for wrapped in (
        DataParallel(network),
        torch.compile(network, backend="eager"),
        DataParallel(DataParallel(network)),
    ):
        assert unwrapped(wrapped) is network
        capture = LayerInput(wrapped, "fc")
        assert capture.layer is network.fc
        capture.remove()


def test_compiled_network(network: nn.Module, images: torch.Tensor) -> None:
    """One graph without a break; and many passes without ``take`` compile no more than one graph per state."""
    graphs = []

    def backend(graph: fx.GraphModule, _: object) -> fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(network, backend=backend, fullgraph=True)
    capture = LayerInput(compiled, "fc")
    for _ in range(4):
        compiled(images)
        features = capture.take()
        assert torch.equal(features, network.body(images))
        assert features.requires_grad
    assert len(graphs) == 1
    for _ in range(6):
        compiled(images)
    assert len(graphs) <= 3
    capture.clear()
    compiled(images)
    assert torch.equal(capture.take(), network.body(images))
    torch._dynamo.reset()


def test_distributed_data_parallel(network: nn.Module, images: torch.Tensor, tmp_path: Path) -> None:
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(network)
        capture = LayerInput(wrapped, "fc")
        wrapped(images)
        assert torch.equal(capture.take(), network.body(images))
    finally:
        dist.destroy_process_group()


def test_keyword_input(network: nn.Module, images: torch.Tensor) -> None:
    class Keyword(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(input=self.body(x))

    network = Keyword()
    capture = LayerInput(network, "fc")
    network(images)
    assert torch.equal(capture.take(), network.body(images))


def test_nothing_is_held_after_take(network: nn.Module, images: torch.Tensor) -> None:
    entered = []
    network.fc.register_forward_pre_hook(lambda _, args: entered.append(weakref.ref(args[0])))
    capture = LayerInput(network, "fc")
    network(images)
    gc.collect()
    assert entered[0]() is not None
    capture.take()
    gc.collect()
    assert entered[0]() is None


def test_several_runs_hold_no_input(network: nn.Module, images: torch.Tensor) -> None:
    capture = LayerInput(network, "fc")
    network(images), network(images)
    assert capture._input is None


def test_clear_forgets_and_remove_leaves_no_hook(network: nn.Module, images: torch.Tensor) -> None:
    capture = LayerInput(network, "fc")
    network(images)
    capture.clear()
    network(images)
    assert capture.take().shape == (3, 4)
    capture.remove()
    assert not network.fc._forward_pre_hooks
    network(images)
    with pytest.raises(MonaiFairError, match="got none"):
        capture.take()


def test_take_recovers_after_an_error(network: nn.Module, images: torch.Tensor) -> None:
    capture = LayerInput(network, "fc")
    network(images), network(images)
    with pytest.raises(MonaiFairError):
        capture.take()
    network(images)
    assert capture.take().shape == (3, 4)


ONCE = (
    "layer 'fc': expected one forward pass since its input was last taken, got {}; "
    "use an inferer that calls the network once per batch, such as SimpleInferer"
)


@pytest.mark.parametrize(
    ("runs", "message"),
    [(0, ONCE.format("none") + ", and compile the network only after this hook is set"), (2, ONCE.format("several"))],
)
def test_number_of_runs_is_checked(network: nn.Module, images: torch.Tensor, runs: int, message: str) -> None:
    capture = LayerInput(network, "fc")
    for _ in range(runs):
        network(images)
    with pytest.raises(MonaiFairError) as caught:
        capture.take()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("head", "layer 'head': expected an nn.Linear in Net, got no layer of that name; its linear layers are: 'fc'"),
        ("body.0", "layer 'body.0': expected an nn.Linear in Net, got a Conv2d; its linear layers are: 'fc'"),
    ],
)
def test_wrong_layer(network: nn.Module, layer: str, message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        LayerInput(network, layer)
    assert str(caught.value) == message


def test_wrong_layer_without_and_with_many_linear_layers() -> None:
    with pytest.raises(MonaiFairError, match=r"its linear layers are: none$"):
        LayerInput(nn.Sequential(nn.ReLU()), "fc")
    many = nn.Sequential(*[nn.Linear(1, 1) for _ in range(25)])
    with pytest.raises(MonaiFairError, match=r"its linear layers are: 5 more, '5', .*'24'$"):
        LayerInput(many, "fc")


def test_input_of_tokens_is_refused() -> None:
    network = nn.Sequential(nn.Linear(4, 2))
    capture = LayerInput(network, "0")
    network(torch.zeros(2, 7, 4))
    with pytest.raises(MonaiFairError) as caught:
        capture.take()
    assert str(caught.value) == (
        "layer '0': expected an input of shape (B, D), got (2, 7, 4); name the layer after pooling"
    )
