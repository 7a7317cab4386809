"""Two gloo processes give the value and the gradients of one process that sees all samples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_fair.errors import MonaiFairError
from monai_fair.losses import NIRLoss, NIRRegularizer

Results = dict[str, dict[str, torch.Tensor]]
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "batch": {"normalizer": "batch"},
    "scale_free": {"scale_free": True, "correction": 1},
    "momentum": {"momentum": 0.5},
    "contribution": {"use_contribution": True},
}
SHARDS = (range(5), range(5, 12))  # unequal, so that a mean of the ranks' values would be wrong
HALVES = (range(6), range(6, 12))
STEPS = 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 8), nn.ReLU())
        self.fc = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.encoder(x)
        return self.fc(features), features


def make(seed: int = 0) -> tuple[Net, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return Net().double(), torch.randn(STEPS, 12, 3).double(), torch.randint(0, 2, (STEPS, 12))


def run(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    rows: list[int],
    *,
    weight: float | None,
    option: str,
) -> dict[str, torch.Tensor]:
    """Return values and gradients of two steps, the penalty alone (weight None) or with its base loss."""
    regularizer = NIRRegularizer(**OPTIONS[option])
    loss_function = None if weight is None else NIRLoss(weight, regularizer=regularizer)
    bare = getattr(network, "module", network)
    result = {}
    for step in range(STEPS):
        network.zero_grad()
        y_pred, features = network(images[step][rows])
        y = labels[step][rows]
        if loss_function is None:
            loss = regularizer(y_pred, features, y, bare.fc.weight)
        else:
            loss = loss_function(y_pred, y, features, bare.fc.weight)
        loss.backward()
        result[f"value{step}"] = loss.detach()
        result |= {f"{name}{step}": parameter.grad.clone() for name, parameter in bare.named_parameters()}
    return result


def work(rank: int, _: Path) -> tuple[Results, list[nn.Module]]:
    results = {}
    networks = []
    for option in OPTIONS:
        network, images, labels = make()
        ddp = DistributedDataParallel(network)
        networks.append(ddp)
        results[f"{option} alone"] = run(ddp, images, labels, list(SHARDS[rank]), weight=None, option=option)
        results[f"{option} loss"] = run(ddp, images, labels, list(HALVES[rank]), weight=0.5, option=option)
    local = NIRRegularizer(distributed=False)
    y_pred, features = network(images[0][list(SHARDS[rank])])
    results["local"] = {"value0": local(y_pred, features).detach()}
    return results, networks


@pytest.fixture(scope="module")
def ranks(two_processes: Callable[..., list[Results]], tmp_path_factory: pytest.TempPathFactory) -> list[Results]:
    return two_processes(work, tmp_path_factory.mktemp("gloo"))


@pytest.mark.parametrize("option", OPTIONS)
def test_penalty_of_unequal_shards_is_that_of_the_whole_batch(ranks: list[Results], option: str) -> None:
    network, images, labels = make()
    single = run(network, images, labels, list(range(12)), weight=None, option=option)
    assert single["encoder.0.weight0"].abs().max() > 1e-4  # there is a gradient to compare
    for result in ranks:
        torch.testing.assert_close(result[f"{option} alone"], single, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("option", OPTIONS)
def test_gradients_of_the_loss_are_those_of_the_whole_batch(ranks: list[Results], option: str) -> None:
    network, images, labels = make()
    single = run(network, images, labels, list(range(12)), weight=0.5, option=option)
    results = [result[f"{option} loss"] for result in ranks]
    for name, expected in single.items():
        if name.startswith("value"):
            # the base loss is a mean over the rank's own samples, so only the average is that of the batch
            torch.testing.assert_close((results[0][name] + results[1][name]) / 2, expected, rtol=1e-10, atol=1e-12)
        else:
            for result in results:
                torch.testing.assert_close(result[name], expected, rtol=1e-10, atol=1e-12)


def test_without_reduction_each_process_has_its_own_value(ranks: list[Results]) -> None:
    network, images, _ = make()
    for result, rows in zip(ranks, SHARDS, strict=True):
        y_pred, features = network(images[0][list(rows)])
        torch.testing.assert_close(result["local"]["value0"], NIRRegularizer()(y_pred, features).detach())
    assert ranks[0]["local"]["value0"] != ranks[1]["local"]["value0"]


def test_reduction_without_a_process_group_is_an_error() -> None:
    with pytest.raises(MonaiFairError) as caught:
        NIRRegularizer(distributed=True)(torch.zeros(2), torch.zeros(2, 3))
    assert str(caught.value) == (
        "distributed=True: expected an initialised torch.distributed process group, got none; "
        "call init_process_group first or leave 'distributed' to its default"
    )
