"""Rows drawn by weight: with the right chances, the same ones after a resume, shared by several processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, State
from monai.data import DataLoader, Dataset
from scipy.stats import chisquare
from torch import nn

from monai_fair.data import ClassBalancedBatchSampler, FixedSampler, weighted_sampler
from monai_fair.errors import ManifestError, MonaiFairError
from monai_fair.handlers import EpochSeed

WEIGHTS = [0.5, 2.0, 0.25, 1.25]


def rows(weights: list[float]) -> list[dict[str, Any]]:
    return [{"subject_id": f"s{index}", "weight": weight} for index, weight in enumerate(weights)]


def test_rows_come_in_proportion_to_their_weights() -> None:
    torch.manual_seed(0)
    draws = np.bincount(list(weighted_sampler(rows(WEIGHTS), num_samples=40_000)), minlength=4)
    expected = 40_000 * np.asarray(WEIGHTS) / sum(WEIGHTS)
    assert chisquare(draws, expected).pvalue > 0.001
    assert chisquare(draws, np.full(4, 10_000)).pvalue < 1e-12  # drawn evenly it would be seen


def test_an_epoch_is_as_long_as_the_rows_unless_said() -> None:
    assert len(weighted_sampler(rows(WEIGHTS))) == len(list(weighted_sampler(rows(WEIGHTS)))) == 4
    assert len(list(weighted_sampler(rows(WEIGHTS), num_samples=9))) == 9


def drawn_in_epoch(epoch: int, seed: int, spoil: int = 0) -> list[int]:
    """What a trainer's loader draws in an epoch that EpochSeed begins, after other uses of torch's generator."""
    dataset = Dataset([{"index": index} for index in range(20)])
    loader = DataLoader(dataset, batch_size=3, sampler=weighted_sampler(rows([1.0] * 20)))
    engine = Engine(lambda *_: None)
    engine.data_loader = loader  # type: ignore[attr-defined]
    engine.state = State(epoch=epoch)
    torch.rand(spoil)
    EpochSeed(seed)(engine)
    return [int(index) for batch in loader for index in batch["index"]]


def test_an_epoch_draws_the_same_whatever_came_before_it() -> None:
    assert drawn_in_epoch(3, 0) == drawn_in_epoch(3, 0, spoil=100)
    assert drawn_in_epoch(3, 0) != drawn_in_epoch(4, 0)
    assert drawn_in_epoch(3, 0) != drawn_in_epoch(3, 1)


def draw_in_two(rank: int, _: Path) -> tuple[dict[str, Any], list[nn.Module]]:
    weights = [9.0, 1.0] * 20 + [1.0]
    sampler: Any = weighted_sampler(rows(weights))
    epochs = []
    for epoch in range(200):
        torch.manual_seed(2 * epoch + rank)
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    labels = [{"label": label} for label in [0] * 9 + [1] * 6]
    batches = ClassBalancedBatchSampler(labels, 4, num_batches=20)
    balanced = {index for batch in batches for index in batch}
    fixed = list(FixedSampler(labels, share=0.75, seed=3))
    return {"epochs": epochs, "length": len(sampler), "balanced": sorted(balanced), "fixed": fixed}, []


@pytest.fixture(scope="module")
def drawn_in_two(tmp_path_factory: pytest.TempPathFactory, two_processes: Callable[..., Any]) -> Any:
    return two_processes(draw_in_two, tmp_path_factory.mktemp("two"))


def test_balanced_batches_of_two_processes_share_the_rows(drawn_in_two: Any) -> None:
    one, other = (set(found["balanced"]) for found in drawn_in_two)
    assert not one & other
    assert one | other == set(range(15))


def test_two_processes_share_the_draws(drawn_in_two: Any) -> None:
    one, other = drawn_in_two
    assert one["length"] == other["length"] == 21  # half of 41, and up
    for mine, yours in zip(one["epochs"], other["epochs"], strict=True):
        assert not set(mine) & set(yours)  # each has a share of its own
    assert {index for epoch in one["epochs"] for index in epoch} == set(range(41))  # dealt anew at every epoch
    drawn = np.bincount(np.concatenate(one["epochs"] + other["epochs"]), minlength=41)
    heavy = drawn[0:40:2].sum() / drawn.sum()
    assert heavy == pytest.approx(180 / 201, abs=0.01)  # 20 rows of 9 against 21 of 1


def test_a_fixed_share_is_the_same_rows_in_every_pass() -> None:
    before = torch.get_rng_state()
    sampler = FixedSampler(range(100), share=0.3, seed=1)
    first = list(sampler)
    assert first == list(sampler) == sorted(set(first))
    assert len(sampler) == len(first) == 30
    assert first != list(FixedSampler(range(100), share=0.3, seed=2))
    assert torch.equal(torch.get_rng_state(), before)
    # each row is as likely as any other
    drawn = np.bincount(np.concatenate([list(FixedSampler(range(10), share=0.3, seed=seed)) for seed in range(2000)]))
    assert chisquare(drawn).pvalue > 1e-3


def test_the_whole_is_every_row_in_its_order_and_the_least_share_one() -> None:
    assert list(FixedSampler(range(7))) == list(range(7))
    assert len(FixedSampler(range(7), share=1e-9)) == 1
    loaded = [
        int(row)
        for batch in DataLoader(
            Dataset([{"row": row} for row in range(7)]), sampler=FixedSampler(range(7), share=0.5, seed=0), batch_size=2
        )
        for row in batch["row"]
    ]
    assert loaded == list(FixedSampler(range(7), share=0.5, seed=0))


def test_two_processes_share_the_fixed_rows(drawn_in_two: Any) -> None:
    one, other = (found["fixed"] for found in drawn_in_two)
    assert sorted(one + other) == list(FixedSampler(range(15), share=0.75, seed=3))
    assert abs(len(one) - len(other)) <= 1


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(MonaiFairError, match="expected a share above 0 and up to 1, got"):
        FixedSampler(range(3), share=share)


def test_errors() -> None:
    bare = [{"subject_id": f"s{index}"} for index in range(7)]
    with pytest.raises(ManifestError) as caught:
        weighted_sampler([*bare, *rows([1.0])])
    assert str(caught.value) == (
        "weighted_sampler: expected a weight in every training row, 7 of 8 have none: s0, s1, s2, s3, s4, ...; write a "
        "manifest with weights by python -m monai_fair rebalance"
    )
    for given in ({"datalist": []}, {"datalist": rows([1.0]), "num_samples": 0}):
        with pytest.raises(ManifestError) as caught:
            weighted_sampler(**given)
        assert str(caught.value) == (
            "weighted_sampler: expected at least one row to draw, got 0; check the training rows"
        )
