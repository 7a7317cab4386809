"""GroupMetricHandler in MONAI's engines: what it reads of a batch, and that undefined never wins a selection."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ROCAUC, CheckpointSaver, ValidationHandler, from_engine
from monai.transforms import Activationsd
from torch import nn

from monai_fair.errors import ArtifactError, MonaiFairError
from monai_fair.handlers import BestModelSaver, EarlyStopping, GroupMetricHandler

# What the network gives is the image itself. Group A: positives 0.9, 0.4 above the negative 0.1: AUC 1. Group B: the
# positive 0.2 above neither 0.3 nor 0.6: AUC 0.
ITEMS = [
    {"image": score, "label": label, "group": group}
    for score, label, group in zip(
        [0.9, 0.4, 0.1, 0.2, 0.3, 0.6, 0.5], [1, 1, 0, 1, 0, 0, 1], ["A", "A", "A", "B", "B", "B", ""], strict=True
    )
]
DATA = [
    {
        "image": torch.tensor([item["image"]]),
        "label": item["label"],
        "row": 10 + row,
        "attributes": {"sex": item["group"], "age": "60"},
    }
    for row, item in enumerate(ITEMS)
]


def evaluator(metrics: dict[str, Any], *, data: Any = None, network: nn.Module | None = None, **options: Any) -> Any:
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(DATA if data is None else data), batch_size=3),
        network=network or nn.Identity(),
        key_val_metric=metrics,
        **options,
    )


def handler(name: str = "auc", **options: Any) -> GroupMetricHandler:
    return GroupMetricHandler(name, "sex", **{"min_count": 1, **options})


@pytest.mark.parametrize("decollate", [True, False])
def test_values_of_an_epoch(decollate: bool) -> None:
    metrics = {
        "worst": handler(),
        "mean": handler(summary="mean"),
        "overall": handler(summary="overall"),
        "gap": handler(summary="gap"),
        "score": handler(summary="gap", as_score=True),
        "false_alarms": handler("fpr", as_score=True),
        "monai": ROCAUC(output_transform=from_engine(["pred", "label"])),
    }
    engine = evaluator(metrics, decollate=decollate)
    engine.run()
    found = engine.state.metrics
    assert engine.state.best_metric == found["worst"] == 0.0
    assert found["mean"] == 0.5
    assert found["overall"] == pytest.approx(found["monai"], abs=1e-12)
    assert (found["gap"], found["score"]) == (1.0, -1.0)
    assert found["false_alarms"] == -0.5  # A 0 of 1, B 1 of 2
    results = metrics["worst"].results
    assert results.names == ("A", "B")
    assert results.values.tolist() == [1.0, 0.0]
    assert (results.n.tolist(), results.n_missing) == ([3, 3], 1)


def test_a_second_epoch_starts_anew() -> None:
    found = handler()
    engine = evaluator({"worst": found})
    engine.run()
    engine.run()
    assert found.results is not None
    assert found.results.n_total == 7


def test_the_log_names_the_groups_with_n(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="monai_fair"):
        evaluator({"worst": handler()}).run()
    assert "auc, worst of 'sex': 0.0000; A 1.0000 (n 3), B 0.0000 (n 3)" in caplog.messages
    assert "auc, worst of 'sex': 1 of 7 samples have no value" in caplog.messages


def test_probabilities_come_from_postprocessing() -> None:
    logits = [{**item, "image": torch.logit(item["image"])} for item in DATA]
    # the logits of 0.6 and 0.5 are 0.405 and 0
    with pytest.raises(MonaiFairError, match=r"expected probabilities in \[0, 1\], 5 of 7 samples have others"):
        evaluator({"worst": handler()}, data=logits).run()
    engine = evaluator(
        {"mean": handler(summary="mean")}, data=logits, postprocessing=Activationsd("pred", sigmoid=True)
    )
    engine.run()
    assert engine.state.metrics["mean"] == 0.5


def test_other_data_by_transforms() -> None:
    data = [{"image": item["image"], "label": item["label"], "site": item["attributes"]["sex"]} for item in DATA]
    data = [{**item, "name": f"{index}.png"} for index, item in enumerate(data)]
    found = handler(
        output_transform=lambda output: ([item["pred"] for item in output], [item["label"] for item in output]),
        batch_transform=lambda batch: ([item["site"] for item in batch], [item["name"] for item in batch]),
    )
    engine = evaluator({"worst": found}, data=data)
    engine.run()
    assert engine.state.metrics["worst"] == 0.0


@pytest.mark.parametrize("decollate", [True, False])
def test_a_batch_without_the_attribute_or_row_is_an_error(decollate: bool) -> None:
    data = [{"image": item["image"], "label": item["label"], "attributes": {"age": "60"}} for item in DATA]
    with pytest.raises(MonaiFairError) as caught:
        evaluator({"worst": handler()}, data=data, decollate=decollate).run()
    assert str(caught.value) == (
        "GroupMetricHandler: 2 problems\n"
        "  1. expected the attribute 'sex' in the batch, the ones there are age\n"
        "  2. expected 'row' in the batch, as load_datalist gives it; or give batch_transform"
    )


@pytest.mark.parametrize(
    "options",
    [{"summary": "gap"}, {"name": "fpr"}, {"name": "brier"}, {"name": "calibration_slope"}],
    ids=lambda options: str(*options.values()),
)
def test_a_key_metric_of_which_smaller_is_better_must_be_made_a_score(options: dict[str, Any]) -> None:
    with pytest.raises(MonaiFairError, match="expected a number of which larger is better; add as_score: true"):
        evaluator({"key": handler(**options)})
    evaluator({"key": handler(**options, as_score=True)})
    evaluator({"key": handler(), "more": handler(**options)})


def test_a_score_needs_a_best_value() -> None:
    with pytest.raises(MonaiFairError) as caught:
        handler("selection_rate", summary="mean", as_score=True)
    assert str(caught.value) == (
        "as_score: expected a metric with a best value, 'selection_rate' has none; leave it out"
    )


class Rising(nn.Module):
    """Gives the image times a weight of 0 in the first epoch, 1 later: at first nothing is predicted positive."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight.clamp(0, 1)


def train(metric: Any, *, epochs: int, handlers: list[Any], defined_from: int, patience: int = 99) -> Any:
    """A training whose key metric is undefined before the epoch ``defined_from``."""
    network = Rising()
    engine = evaluator({"key": metric}, network=network, val_handlers=[build(network) for build in handlers])

    def rise(trainer: Engine) -> None:
        with torch.no_grad():
            network.weight.fill_(float(trainer.state.epoch >= defined_from))

    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(Dataset(DATA), batch_size=7),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=lambda y_pred, y: y_pred.sum(),
    )
    trainer.add_event_handler(Events.EPOCH_COMPLETED, rise)
    ValidationHandler(1, engine).attach(trainer)
    EarlyStopping(patience, engine).attach(trainer)
    trainer.run()
    return trainer, engine


def checkpoint(folder: Path) -> Any:
    return lambda network: CheckpointSaver(str(folder), {"net": network}, save_key_metric=True)


def test_an_undefined_epoch_does_not_win(tmp_path: Path) -> None:
    _, engine = train(handler("ppv"), epochs=3, handlers=[checkpoint(tmp_path)], defined_from=2)
    # PPV of A is 1 of 1, of B 0 of 1
    assert (engine.state.best_metric, engine.state.best_metric_epoch) == (0.0, 2)
    (kept,) = tmp_path.iterdir()
    assert torch.load(kept, weights_only=True)["weight"] == 1


class Undefined(GroupMetricHandler):
    """As it would be without the rule for key metrics."""

    @staticmethod
    def _is_key(engine: Engine, name: str | None) -> bool:
        return False


def test_nan_would_win(tmp_path: Path) -> None:
    """Why a key metric is minus infinity: MONAI compares with ``>``."""
    metric = Undefined("ppv", "sex", min_count=1)
    _, engine = train(metric, epochs=3, handlers=[checkpoint(tmp_path)], defined_from=2)
    assert math.isnan(engine.state.best_metric)
    assert engine.state.best_metric_epoch == 1


def test_undefined_epochs_count_as_no_improvement() -> None:
    trainer, engine = train(handler("ppv"), epochs=9, handlers=[], defined_from=99, patience=2)
    assert trainer.state.epoch == 3
    assert engine.state.metrics["key"] == -math.inf
    # with NaN every epoch would be a new best
    trainer, _ = train(Undefined("ppv", "sex", min_count=1), epochs=9, handlers=[], defined_from=99, patience=2)
    assert trainer.state.epoch == 9


def test_undefined_stays_nan_where_it_chooses_nothing() -> None:
    metrics = {"key": handler(min_count=1), "more": handler(min_count=5)}
    engine = evaluator(metrics)
    engine.run()
    assert math.isnan(engine.state.metrics["more"])


def test_the_best_model_saver_ends_a_run_without_a_defined_key_metric(tmp_path: Path) -> None:
    def saver(network: nn.Module) -> BestModelSaver:
        return BestModelSaver(network, str(tmp_path / "model.pt"))

    with pytest.raises(ArtifactError, match="validation metric 'key': expected a number, got -inf"):
        train(handler(min_count=5), epochs=1, handlers=[saver], defined_from=1)
    assert not list(tmp_path.iterdir())
