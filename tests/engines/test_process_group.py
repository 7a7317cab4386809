"""A process group that is left is gone, threads and all; else a process may abort when it exits."""

import logging
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_fair.engines.process_group import leave_process_group
from monai_fair.errors import MonaiFairError

TASKS = Path("/proc/self/task")


def gloo_workers() -> set[str]:
    """Ids of the threads that run gloo's collectives, of this group and of any that a test before has left."""
    found = set()
    for task in TASKS.iterdir():
        try:
            name = (task / "comm").read_text()
        except OSError:  # it ended meanwhile
            continue
        if "gloo_runloop" in name:
            found.add(task.name)
    return found


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def trained(module: nn.Module) -> DistributedDataParallel:
    """DDP after a step, which is kept alive by a cycle as a trainer with handlers is."""
    network = DistributedDataParallel(module)
    optimizer = torch.optim.Adam(network.parameters())
    network.optimizer = optimizer
    network.itself = [network]
    network(torch.rand(5, 3)).sum().backward()
    optimizer.step()
    dist.all_gather([torch.zeros(3)], torch.ones(3))
    return network


@pytest.mark.skipif(not TASKS.is_dir(), reason="threads are counted as Linux lists them")
@pytest.mark.parametrize("nested", [False, True], ids=["ddp", "in a module"])
def test_no_thread_of_the_group_is_left(nested: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = gloo_workers()
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    network = trained(nn.Linear(3, 2))
    own = gloo_workers() - before
    assert own
    gone = weakref.ref(dist.group.WORLD)
    leave_process_group(nn.ModuleList([nn.Identity(), network]) if nested else network)
    assert gone() is None
    assert not dist.is_initialized()
    for _ in range(500):  # Linux lists a thread a moment longer than others wait for it
        if not own & gloo_workers():
            break
        time.sleep(0.01)
    assert not own & gloo_workers()
    assert caplog.text == ""
    assert network.module(torch.rand(2, 3)).shape == (2, 2)


@pytest.mark.usefixtures("group")
def test_another_reference_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    network = trained(nn.Linear(3, 2))
    kept = dist.group.WORLD
    with caplog.at_level(logging.WARNING):
        leave_process_group(network)
    del kept
    assert not dist.is_initialized()
    assert caplog.messages == [
        "the process group is destroyed, but something other than the network refers to it, so that its threads still "
        "run; with gloo the process may abort when it exits"
    ]


@pytest.mark.usefixtures("group")
def test_a_network_without_ddp() -> None:
    gone = weakref.ref(dist.group.WORLD)
    leave_process_group(nn.Linear(3, 2))
    assert gone() is None


def test_without_a_group_it_is_an_error() -> None:
    with pytest.raises(MonaiFairError) as caught:
        leave_process_group(nn.Linear(3, 2))
    assert str(caught.value) == (
        "leave_process_group: expected an initialised torch.distributed process group, got none; "
        "call it once, after init_process_group"
    )
