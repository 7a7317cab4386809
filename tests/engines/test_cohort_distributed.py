"""Two gloo processes fit the network and the codes that one process fits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from monai_fair.engines import CodeTable, CohortImages, CohortTrainer, read_template, template_match
from monai_fair.handlers import TrainingStateSaver
from monai_fair.networks import LatticeINR

LEVELS = [[1.0, 4, 2], [0.5, 3, 2]]
Results = dict[str, Any]


def fit(folder: Path, subjects: list[str], name: str, *, rank: int = 0, world: int = 1) -> tuple[nn.Module, Results]:
    """Fit four epochs in batches of two over all processes; return the network, and what to compare."""
    space = read_template(folder)
    torch.manual_seed(0)
    bare = LatticeINR(space.grid.shape, width=40, hidden=16)
    network = DistributedDataParallel(bare) if world > 1 else bare
    match = template_match(space, LEVELS)
    rows = [{"subject_id": subject, "image": folder / f"{subject}_T1w.nii.gz"} for subject in subjects]
    images = CohortImages(rows, space.grid, match, folder / f"cache{rank}", progress=False)
    codes = CodeTable(images.subject_ids, bare.code_shape)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.002, betas=(0.9, 0.99))
    path = folder / f"{name}_state.pt"
    CohortTrainer(
        "cpu",
        DataLoader(images, batch_size=2 // world, sampler=DistributedSampler(images, world, rank)),
        network,
        optimizer,
        match,
        codes,
        levels=LEVELS,
        train_handlers=[TrainingStateSaver(str(path), network, optimizer, None, settings={}, objects={"codes": codes})],
    ).run()
    return network, {"network": bare.state_dict(), "codes": codes.values}


def share(rank: int) -> Results:
    """Row 0 is changed by rank 0, row 1 by rank 1, row 2 by both, row 3 by none; then row 1 by rank 0."""
    table = CodeTable("abcd", (2,))
    rows, change = ([0, 2], [1.0, 2.0]) if rank == 0 else ([1, 2], [3.0, 4.0])
    table.add(torch.tensor(rows), torch.tensor(change)[:, None].expand(2, 2))
    table.share()
    first = table.values.clone()
    if rank == 0:
        table.add(torch.tensor([1]), torch.full((1, 2), 0.5))
    table.share()
    return {"first": first, "second": table.values}


def work(rank: int, folder: Path) -> tuple[Results, list[nn.Module]]:
    subjects = [f"sub-000{number}" for number in range(1, 5)]
    even, results = fit(folder, subjects, "even", rank=rank, world=2)
    padded, others = fit(folder, subjects[:3], "padded", rank=rank, world=2)
    return {"even": results, "padded": others, "share": share(rank)}, [even, padded]


@pytest.fixture(scope="module")
def cohort(brain: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("gloo")
    brain.write(brain.write_template(folder))
    return folder


@pytest.fixture(scope="module")
def ranks(cohort: Path, two_processes: Callable[..., list[Results]]) -> list[Results]:
    return two_processes(work, cohort)


def test_rows_that_others_changed_are_taken_over(ranks: list[Results]) -> None:
    """Row 2, which both changed by 2 and 4, gets their mean; a later change is added to what was shared."""
    for result in ranks:
        assert result["share"]["first"][:, 0].tolist() == [1.0, 3.0, 3.0, 0.0]
        assert result["share"]["second"][:, 1].tolist() == [1.0, 3.5, 3.0, 0.0]


def test_two_processes_fit_what_one_does(ranks: list[Results], cohort: Path) -> None:
    """Batches of one subject each against batches of two: sums in another order, nothing else."""
    _, single = fit(cohort, [f"sub-000{number}" for number in range(1, 5)], "single")
    scale = float(single["codes"].abs().max())
    assert scale > 0.01
    for result in ranks:
        torch.testing.assert_close(result["even"]["codes"], single["codes"], rtol=1e-4, atol=1e-4 * scale)
        torch.testing.assert_close(result["even"]["network"], single["network"], rtol=1e-4, atol=5e-5)
    assert torch.equal(ranks[0]["even"]["codes"], ranks[1]["even"]["codes"])


def test_a_subject_that_fills_up_the_last_batch_is_one_subject(ranks: list[Results], cohort: Path) -> None:
    """Three subjects on two processes: one of them is seen by both, and its code changes once, not twice."""
    assert torch.equal(ranks[0]["padded"]["codes"], ranks[1]["padded"]["codes"])
    _, single = fit(cohort, [f"sub-000{number}" for number in range(1, 4)], "three")
    found, expected = ranks[0]["padded"]["codes"].flatten(1), single["codes"].flatten(1)
    ratio = found.norm(dim=1) / expected.norm(dim=1)
    assert ((ratio > 0.9) & (ratio < 1.1)).all()


@pytest.mark.parametrize("name", ["even", "padded"])
def test_the_saved_state_has_the_codes_of_all_processes(ranks: list[Results], cohort: Path, name: str) -> None:
    state = torch.load(cohort / f"{name}_state.pt", weights_only=True)
    assert torch.equal(state["objects"]["codes"]["values"], ranks[1][name]["codes"])
