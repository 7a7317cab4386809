"""SelectionRecorder: what it writes after every validation, through a resume, and the table at the end."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from torch import nn

from monai_fair.data.artifacts import read_json
from monai_fair.errors import MonaiFairError
from monai_fair.handlers import BestModelSaver, EarlyStopping, GroupMetricHandler, SelectionRecorder, TrainingStateSaver
from monai_fair.metrics.summaries import GroupResults

NAN = float("nan")
Row = tuple[float, float, float]  # overall, A, B
# The utopia point is (0.95, 0.8). Epoch 1 is 0.3 away from it, epoch 2 (0.06, 0.08) and so 0.1, epoch 3 0.4.
ROWS: list[Row] = [(0.9, 0.95, 0.5), (0.8, 0.89, 0.72), (0.7, 0.55, 0.8)]
CHOICES = {"overall": [1], "worst_group": [2], "dto": [2], "pareto": [1, 2, 3]}


class Scripted(GroupMetricHandler):
    """Groups that take their values from a list, by epoch; a third group never has enough cases."""

    def __init__(self, rows: Sequence[Row], epoch: Any) -> None:
        self.rows, self.epoch = rows, epoch
        super().__init__("auc", "sex")

    def iteration_completed(self, engine: Any) -> None:
        pass

    def compute(self) -> float:
        overall, *values = self.rows[self.epoch() - 1]
        few = "fewer than 10 positives in this group"
        self.results = GroupResults(
            names=("A", "B", "ç"),
            n=np.array([120, 30, 4]),
            n_positive=np.array([60, 12, 1]),
            values=np.array([*values, 1.0]),
            left_out=(*(few if np.isnan(value) else "" for value in values), few),
            overall=overall,
            n_total=155,
            n_missing=1,
        )
        return min(values)


class Toy:
    """A trainer whose validation is scripted, with all that a bundle attaches, in its order."""

    def __init__(
        self, folder: Path, rows: Sequence[Row], *, epochs: int, patience: int = 99, interval: int = 1
    ) -> None:
        self.path = folder / "selection.json"
        network = nn.Linear(1, 1)
        data = Dataset([{"image": torch.ones(1), "label": torch.ones(1)}])
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        metric = Scripted(rows, lambda: self.trainer.state.epoch)
        evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(data),
            network=network,
            key_val_metric={"worst": metric},
            val_handlers=[BestModelSaver(network, str(folder / "model.pt"))],
        )
        self.recorder = SelectionRecorder(str(self.path), metric, evaluator)
        stopping = EarlyStopping(patience, evaluator)
        state = TrainingStateSaver(
            str(folder / "training_state.pt"),
            network,
            optimizer,
            evaluator,
            settings={},
            objects={"selection": self.recorder, "early_stopping": stopping},
        )
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=epochs,
            train_data_loader=DataLoader(data),
            network=network,
            optimizer=optimizer,
            loss_function=nn.MSELoss(),
            # early stopping asks for a validation in every epoch
            train_handlers=[
                ValidationHandler(interval, evaluator),
                self.recorder,
                *([stopping, state] if interval == 1 else []),
            ],
        )

    def run(self) -> dict[str, Any]:
        self.trainer.run()
        return read_json(self.path, "selection")


def epochs_of(content: dict[str, Any]) -> dict[str, list[int]]:
    return {strategy: [row["epoch"] for row in rows] for strategy, rows in content["choices"].items()}


def test_the_file_holds_all_epochs_and_every_choice(tmp_path: Path) -> None:
    content = Toy(tmp_path, ROWS, epochs=3).run()
    assert epochs_of(content) == CHOICES
    assert (content["metric"], content["attribute"], content["data"]) == ("auc", "sex", "validation")
    assert content["groups"] == {
        "A": {"n": 120, "n_positive": 60},
        "B": {"n": 30, "n_positive": 12},
        "ç": {"n": 4, "n_positive": 1},
    }
    assert content["epochs"][1] == {
        "epoch": 2,
        "overall": 0.8,
        "values": {"A": 0.89, "B": 0.72, "ç": 1.0},
        "left_out": {"A": "", "B": "", "ç": "fewer than 10 positives in this group"},
    }
    (chosen,) = content["choices"]["dto"]
    assert chosen.pop("dto") == pytest.approx(0.1, abs=1e-12)
    assert chosen.pop("gap") == pytest.approx(0.17, abs=1e-12)
    assert chosen == {"epoch": 2, "overall": 0.8, "worst": 0.72, "worst_group": "B", "worst_group_n": 30}
    assert content["epochs_left_out"] == {}


def test_the_table_stands_at_the_end_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="monai_fair.handlers.selection"):
        Toy(tmp_path, ROWS, epochs=3).run()
    (table,) = [record.getMessage() for record in caplog.records if record.name == "monai_fair.handlers.selection"]
    assert table.splitlines() == [
        "epochs chosen by validation auc over 'sex' (3 validations)",
        "strategy     epoch  overall   worst     gap     DTO  worst group",
        "overall          1   0.9000  0.5000  0.4500  0.3000  B (n 30)",
        "worst_group      2   0.8000  0.7200  0.1700  0.1000  B (n 30)",
        "dto              2   0.8000  0.7200  0.1700  0.1000  B (n 30)",
        "pareto           1   0.9000  0.5000  0.4500  0.3000  B (n 30)",
        "pareto           2   0.8000  0.7200  0.1700  0.1000  B (n 30)",
        "pareto           3   0.7000  0.5500  0.2500  0.4000  A (n 120)",
        "group 'ç' left out: fewer than 10 positives in this group",
    ]


def test_an_epoch_in_which_a_group_is_undefined_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [ROWS[0], (0.99, 0.99, NAN), *ROWS[1:]]
    # the saver of the best model needs a number: the scripted key metric is the smallest of A and B
    toy = Toy(tmp_path, rows, epochs=4)
    toy.trainer.remove_event_handler(toy.recorder.report, Events.COMPLETED)
    toy.recorder.metric.compute = lambda: (Scripted.compute(toy.recorder.metric), 0.5)[1]  # type: ignore[method-assign]
    content = toy.run()
    assert epochs_of(content) == {"overall": [1], "worst_group": [3], "dto": [3], "pareto": [1, 3, 4]}
    assert content["epochs_left_out"] == {"2": "undefined: the value of 'B'"}
    with caplog.at_level(logging.INFO, logger="monai_fair.handlers.selection"):
        toy.recorder.report(toy.trainer)
    assert "epoch 2 left out: undefined: the value of 'B'" in caplog.text
    assert "group 'B' left out" not in caplog.text


def test_without_a_group_nothing_is_chosen_and_the_reason_is_there(tmp_path: Path) -> None:
    toy = Toy(tmp_path, [(0.9, NAN, NAN)], epochs=1)
    toy.recorder.metric.compute = lambda: (Scripted.compute(toy.recorder.metric), 0.5)[1]  # type: ignore[method-assign]
    content = toy.run()
    assert epochs_of(content) == {"overall": [], "worst_group": [], "dto": [], "pareto": []}
    assert content["epochs_left_out"] == {"1": "no group has enough cases"}
    assert json.loads(toy.path.read_text())["epochs"][0]["values"]["A"] is None


@pytest.mark.parametrize("stop_at", [1, 2])
def test_a_resumed_run_ends_with_the_file_of_an_uninterrupted_one(tmp_path: Path, stop_at: int) -> None:
    (tmp_path / "whole").mkdir()
    whole = Toy(tmp_path / "whole", ROWS, epochs=3).run()
    (tmp_path / "parts").mkdir()
    assert len(Toy(tmp_path / "parts", ROWS, epochs=stop_at).run()["epochs"]) == stop_at
    assert Toy(tmp_path / "parts", ROWS, epochs=3).run() == whole


def test_an_epoch_that_was_recorded_but_not_saved_is_recorded_once(tmp_path: Path) -> None:
    """Killed between the two files: the epoch is trained again."""
    Toy(tmp_path, ROWS, epochs=1).run()
    saved = (tmp_path / "training_state.pt").read_bytes()
    Toy(tmp_path, ROWS, epochs=2).run()
    (tmp_path / "training_state.pt").write_bytes(saved)
    assert [row["epoch"] for row in Toy(tmp_path, ROWS, epochs=3).run()["epochs"]] == [1, 2, 3]


def test_a_run_that_stops_early_has_its_table(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="monai_fair.handlers.selection"):
        content = Toy(tmp_path, [ROWS[1], ROWS[0], ROWS[2], ROWS[2]], epochs=4, patience=2).run()
    assert [row["epoch"] for row in content["epochs"]] == [1, 2, 3]
    assert "(3 validations)" in caplog.text


def test_epochs_without_a_validation_are_not_recorded(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[1], ROWS[2], ROWS[0], ROWS[2]]
    content = Toy(tmp_path, rows, epochs=5, interval=2).run()
    assert [row["epoch"] for row in content["epochs"]] == [2, 4]


@pytest.mark.parametrize("name", ["fpr", "calibration_slope", "selection_rate"])
def test_a_metric_of_which_larger_is_not_better_is_refused(tmp_path: Path, name: str) -> None:
    metric = GroupMetricHandler(name, "sex", summary="gap")
    with pytest.raises(MonaiFairError) as caught:
        SelectionRecorder("selection.json", metric, None)  # type: ignore[arg-type]
    assert str(caught.value) == (f"selection.json: expected a metric of which larger is better, got '{name}'; use auc")
