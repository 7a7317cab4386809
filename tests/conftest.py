import logging
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # how long an example takes says nothing on a machine that is busy
settings.load_profile("untimed")

# Rooms of tests that take minutes in one file. Files are given out in the order of collection, and one that begins last
# would keep one worker busy while the others have nothing to do.
LONG = ("pipeline", "preparation", "subgroups", "bundles", "label", "engines", "laws", "report", "simulation")

Work = Callable[[int, Path], tuple[Any, list[Any]]]


def member(rank: int, folder: Path, work: Work) -> None:
    import torch  # many tests do without
    from torch import distributed as dist

    from monai_fair.engines.process_group import leave_process_group

    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", store, timeout=timedelta(seconds=60), rank=rank, world_size=2)
    results, networks = work(rank, folder)
    torch.save(results, folder / f"{rank}.pt")
    dist.barrier()
    leave_process_group(torch.nn.ModuleList(networks))


def run_two(work: Work, folder: Path) -> list[Any]:
    import torch

    # the server imports what takes seconds, once for all tests of a worker; processes are forked from it
    context = torch.multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["monai.engines", "monai.handlers", "monai_fair.handlers", "monai_fair.losses"])
    processes = [context.Process(target=member, args=(rank, folder, work), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    hung = [process for process in processes if process.is_alive()]
    for process in hung:
        process.kill()
    assert not hung
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.fixture(scope="session")
def two_processes() -> Callable[[Work, Path], list[Any]]:
    """Run ``work(rank, folder)`` in two gloo processes; return the results of each.

    Work is a function of a test module. It returns its results and the networks that refer to the process group.
    """
    return run_two


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a bundle run changes in its process."""
    import monai
    import torch

    root = logging.getLogger()
    handlers, level, threads = root.handlers[:], root.level, torch.get_num_threads()
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    root.handlers[:], root.level = handlers, level
    torch.set_num_threads(threads)
    monai.data.set_track_meta(True)
    monai.utils.set_determinism(seed=None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    place = {name: index for index, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.parent.name, len(LONG)))
