"""M7: two gloo processes give the value of one, whatever the sampler repeats, on both ranks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset, DistributedSampler
from monai.engines import SupervisedEvaluator
from torch import nn

from monai_fair.errors import MonaiFairError
from monai_fair.handlers import GroupMetricHandler
from monai_fair.metrics.cumulative import GroupMetric
from monai_fair.metrics.summaries import Summary

# Seven samples, so that a sampler of two processes pads to eight with the first one again. B: 0.2 and 0.8 against 0.6,
# 1 of 2 pairs; ž: 0.9 and 0.1 against 0.3, 1 of 2, which would be 2 of 3 if the first sample counted twice. Overall:
# 0.9, 0.2, 0.1, 0.8 against 0.6, 0.3, 0.5 are right in 3, 0, 0 and 3 of 3 pairs each, 6 of 12. PPV at 0.5: ž 1 of 1, B
# 1 of 2.
SCORE = [0.9, 0.2, 0.1, 0.6, 0.3, 0.8, 0.5]
LABEL = [1, 1, 1, 0, 0, 1, 0]
GROUP = ["ž", "B", "ž", "B", "ž", "B", ""]
SUMMARIES: tuple[Summary, ...] = ("worst", "overall", "mean", "gap")  # the first one is the key metric


def items(rows: range = range(7)) -> list[dict[str, Any]]:
    return [
        {
            "image": torch.tensor([SCORE[row]], dtype=torch.float64),
            "label": LABEL[row],
            "row": row,
            "attributes": {"sex": GROUP[row]},
        }
        for row in rows
    ]


def evaluate(*, padded: bool | None) -> dict[str, Any]:
    """Run an evaluator, over several processes with a sampler that pads or not, over one without."""
    data = Dataset(items())
    sampler = None if padded is None else DistributedSampler(data, even_divisible=padded, shuffle=False)
    metrics = {summary: GroupMetricHandler("auc", "sex", summary=summary, min_count=1) for summary in SUMMARIES}
    metrics["ppv"] = GroupMetricHandler("ppv", "sex", min_count=1)
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(data, batch_size=2, sampler=sampler),
        network=nn.Identity(),
        key_val_metric=metrics,
    )
    engine.run()
    results = metrics["worst"].results
    assert results is not None
    return {
        "metrics": dict(engine.state.metrics),
        "names": list(results.names),
        "n": results.n.tolist(),
        "n_total": results.n_total,
        "n_missing": results.n_missing,
    }


def add(found: GroupMetric, rows: range) -> GroupMetric:
    for row in rows:
        found(torch.tensor([SCORE[row]]), torch.tensor([LABEL[row]]), [GROUP[row]], [str(row)])
    return found


def shards(rank: int) -> dict[str, Any]:
    """Loops of one's own: all samples on one rank, none on the other; and an error that only one rank has caused."""
    alone = add(GroupMetric("auc", attribute="sex", summary="mean", min_count=1), range(7 if rank == 1 else 0))
    bad = add(GroupMetric("auc", attribute="sex", min_count=1), range(3) if rank == 0 else range(3, 7))
    if rank == 0:
        bad(torch.tensor([4.0]), torch.tensor([1]), ["B"], ["99"])
    clash = GroupMetric("auc", attribute="sex", min_count=1)
    clash(torch.tensor([0.1 + 0.8 * rank]), torch.tensor([1]), ["B"], ["é"])
    messages = []
    for found in (bad, clash):
        with pytest.raises(MonaiFairError) as caught:
            found.aggregate()
        messages.append(str(caught.value))
    return {"alone": alone.aggregate(), "messages": messages}


def work(rank: int, _: Path) -> tuple[dict[str, Any], list[nn.Module]]:
    return {"padded": evaluate(padded=True), "uneven": evaluate(padded=False), "shards": shards(rank)}, []


@pytest.fixture(scope="module")
def ranks(two_processes: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return two_processes(work, tmp_path_factory.mktemp("gloo"))


@pytest.mark.parametrize("sampler", ["padded", "uneven"])
def test_two_processes_give_the_value_of_one(ranks: list[dict[str, Any]], sampler: str) -> None:
    single = evaluate(padded=None)
    assert single["metrics"] == {"worst": 0.5, "overall": 0.5, "mean": 0.5, "gap": 0.0, "ppv": 0.5}
    assert single["names"] == ["B", "ž"]
    for rank in ranks:
        assert rank[sampler] == single  # to the last bit


def test_a_process_without_samples_takes_part(ranks: list[dict[str, Any]]) -> None:
    alone = add(GroupMetric("auc", attribute="sex", summary="mean", min_count=1), range(7))
    assert [rank["shards"]["alone"] for rank in ranks] == [alone.aggregate()] * 2


def test_an_error_reaches_every_process(ranks: list[dict[str, Any]]) -> None:
    """Else the others would wait for the one that is gone."""
    expected = [
        "auc, worst of 'sex': expected probabilities in [0, 1], 1 of 8 samples have others, first 4; "
        "add Activationsd to the postprocessing",
        "auc, worst of 'sex': expected ids that tell samples apart, 'é' stands for several; "
        "use the row or the image's path",
    ]
    assert [rank["shards"]["messages"] for rank in ranks] == [expected] * 2
