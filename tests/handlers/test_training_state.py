"""Seeds per epoch, the best model, early stopping and the saved state, on a toy with a scripted metric."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from ignite.metrics import Metric
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from monai.transforms import Compose, RandGaussianNoised
from torch import nn

from monai_fair.data.artifacts import read_json
from monai_fair.errors import ArtifactError
from monai_fair.handlers import BestModelSaver, EarlyStopping, EpochSeed, LastModelSaver, TrainingStateSaver


class Scripted(Metric):
    """A key metric that takes its values from a list, by epoch."""

    def __init__(self, values: Sequence[float], epoch: Any) -> None:
        self.values, self.epoch = values, epoch
        super().__init__()

    def reset(self) -> None:
        pass

    def update(self, output: Any) -> None:
        pass

    def compute(self) -> float:
        return self.values[self.epoch() - 1]


class Kill:
    """End the process when an epoch is trained, at the place of this handler among the others."""

    def __init__(self, epoch: int | None) -> None:
        self.epoch = epoch

    def attach(self, engine: SupervisedTrainer) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: SupervisedTrainer) -> None:
        if engine.state.epoch == self.epoch:
            raise KeyboardInterrupt


class Toy:
    """A trainer of one weight; after every epoch the weight is another one, and the metric is scripted.

    With ``beyond`` it goes on when early stopping ends the best model. It is killed before or after an epoch is saved.
    """

    def __init__(
        self,
        folder: Path,
        values: Sequence[float],
        *,
        epochs: int,
        patience: int = 99,
        settings: Any = None,
        beyond: bool = False,
        killed: tuple[int, str] = (0, ""),
    ) -> None:
        torch.manual_seed(0)
        self.model = folder / "model.pt"
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.network.weight)
        data = [{"image": torch.ones(1), "label": torch.ones(1)} for _ in range(2)]
        optimizer = torch.optim.SGD(self.network.parameters(), lr=1.0)
        self.evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(Dataset(data), batch_size=2),
            network=self.network,
            key_val_metric={"scripted": Scripted(values, lambda: self.trainer.state.epoch)},
        )
        best = BestModelSaver(self.network, str(self.model), settings={"size": 1})
        best.attach(self.evaluator)
        self.stopping = EarlyStopping(patience, self.evaluator, saver=best if beyond else None)
        self.saver = TrainingStateSaver(
            str(folder / "training_state.pt"),
            self.network,
            optimizer,
            self.evaluator,
            settings=settings or {"seed": 0},
            objects={"early_stopping": self.stopping},
        )
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=epochs,
            train_data_loader=DataLoader(Dataset(data), batch_size=2),
            network=self.network,
            optimizer=optimizer,
            # the gradient is -1, so the weight is 1 plus the number of epochs
            loss_function=lambda y_pred, y: -y_pred.mean(),
            train_handlers=[ValidationHandler(1, self.evaluator), self.stopping],
        )
        epoch, when = killed
        Kill(epoch if when == "before" else None).attach(self.trainer)
        self.saver.attach(self.trainer)
        Kill(epoch if when == "after" else None).attach(self.trainer)

    def run(self) -> "Toy":
        self.trainer.run()
        return self

    def best_weight(self) -> float:
        return float(torch.load(self.model, weights_only=True)["weight"])


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    toy = Toy(tmp_path, [0.5, 0.9, 0.7], epochs=3).run()
    assert toy.best_weight() == 1 + 2  # after the second epoch
    assert float(toy.network.weight.detach()) == 1 + 3


def test_of_equal_epochs_the_first_is_kept(tmp_path: Path) -> None:
    assert Toy(tmp_path, [0.5, 0.9, 0.9], epochs=3).run().best_weight() == 1 + 2


def test_a_worse_epoch_after_a_resume_does_not_replace_the_best(tmp_path: Path) -> None:
    Toy(tmp_path, [0.9], epochs=1).run()
    toy = Toy(tmp_path, [0.9, 0.5, 0.8], epochs=3).run()
    assert toy.trainer.state.epoch == 3
    assert toy.best_weight() == 1 + 1
    assert toy.evaluator.state.best_metric == 0.9
    assert toy.evaluator.state.best_metric_epoch == 1


def test_a_better_epoch_after_a_resume_replaces_the_best(tmp_path: Path) -> None:
    Toy(tmp_path, [0.5], epochs=1).run()
    assert Toy(tmp_path, [0.5, 0.6, 0.55], epochs=3).run().best_weight() == 1 + 2


def test_an_undefined_metric_is_an_error(tmp_path: Path) -> None:
    toy = Toy(tmp_path, [float("nan")], epochs=1)
    with pytest.raises(ArtifactError) as caught:
        toy.run()
    assert str(caught.value) == (
        "validation metric 'scripted': expected a number, got nan; it is undefined when the validation split holds a "
        "single class or no group has enough cases (the log names them), so check the manifest's splits"
    )
    assert not list(tmp_path.iterdir())


# patience 2: the second validation in a row without a new best stops; an equal one is none
@pytest.mark.parametrize(
    ("values", "last"),
    [([0.5, 0.4, 0.4, 0.9], 3), ([0.5, 0.5, 0.5, 0.9], 3), ([0.5, 0.4, 0.6, 0.5, 0.6, 0.9], 5), ([0.1, 0.2, 0.3], 3)],
)
@pytest.mark.parametrize("stop_at", [None, 1, 2])
def test_early_stopping_counts_through_a_resume(
    tmp_path: Path, values: list[float], last: int, stop_at: int | None
) -> None:
    if stop_at is not None:
        Toy(tmp_path, values, epochs=stop_at, patience=2).run()
    toy = Toy(tmp_path, values, epochs=len(values), patience=2).run()
    assert toy.trainer.state.epoch == last


def test_a_training_that_stopped_early_stays_finished(tmp_path: Path) -> None:
    Toy(tmp_path, [0.5, 0.4, 0.4], epochs=3, patience=1).run()
    before = (tmp_path / "training_state.pt").stat().st_mtime_ns
    toy = Toy(tmp_path, [0.5, 0.4, 0.9], epochs=3, patience=1)
    toy.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: pytest.fail("an epoch started"))
    assert toy.run().trainer.state.epoch == 2
    assert (tmp_path / "training_state.pt").stat().st_mtime_ns == before


# patience 2: after epoch 4 early stopping would end, with the best of epoch 2; later epochs are better
LATER_BETTER = [0.5, 0.6, 0.4, 0.4, 0.9, 0.3, 0.95]


def content(folder: Path) -> str:
    """All that a run leaves; weights of the toy are small whole numbers, which text shows in full."""
    files = {path.name: torch.load(path, weights_only=True) for path in sorted(folder.glob("*.pt"))}
    return repr(files) + "".join(path.read_text() for path in sorted(folder.glob("*.json")))


def test_the_best_model_ends_and_the_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    toy = Toy(tmp_path, LATER_BETTER, epochs=7, patience=2, beyond=True)
    toy.trainer.logger = logging.getLogger("toy")
    with caplog.at_level(logging.INFO, "toy"):
        toy.run()
    assert (toy.trainer.state.epoch, toy.stopping.stopped_epoch) == (7, 4)
    assert float(toy.network.weight.detach()) == 1 + 7
    assert toy.best_weight() == 1 + 2
    record = read_json(tmp_path / "model.json", "model")
    assert (record["settings"], record["epoch"]) == ({"size": 1}, 2)
    shown = [line for line in caplog.messages if "model.pt" in line]
    assert shown == [f"{tmp_path}/model.pt: final after epoch 4; the training goes on"]


def test_the_best_model_is_that_of_a_training_that_stops(tmp_path: Path) -> None:
    beyond, stopping = tmp_path / "beyond", tmp_path / "stopping"
    Toy(beyond, LATER_BETTER, epochs=7, patience=2, beyond=True).run()
    toy = Toy(stopping, LATER_BETTER, epochs=7, patience=2).run()
    assert (toy.trainer.state.epoch, toy.stopping.stopped_epoch) == (4, 4)
    one, other = (torch.load(folder / "model.pt", weights_only=True)["weight"] for folder in (beyond, stopping))
    assert torch.equal(one, other)
    assert (beyond / "model.json").read_bytes() == (stopping / "model.json").read_bytes()


@pytest.mark.parametrize("when", ["before", "after"])  # the state of the epoch is saved
@pytest.mark.parametrize("epoch", range(1, 8))
def test_a_training_beyond_early_stopping_is_resumed(tmp_path: Path, epoch: int, when: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    Toy(whole, LATER_BETTER, epochs=7, patience=2, beyond=True).run()
    with pytest.raises(KeyboardInterrupt):
        Toy(killed, LATER_BETTER, epochs=7, patience=2, beyond=True, killed=(epoch, when)).run()
    toy = Toy(killed, LATER_BETTER, epochs=7, patience=2, beyond=True).run()
    assert toy.stopping.stopped_epoch == 4
    assert content(killed) == content(whole)


def test_a_state_from_before_the_epoch_was_kept_is_taken_over(tmp_path: Path) -> None:
    Toy(tmp_path, LATER_BETTER, epochs=3, patience=2).run()
    path = tmp_path / "training_state.pt"
    state = torch.load(path, weights_only=True)
    assert state["objects"]["early_stopping"].pop("stopped_epoch") == 0
    torch.save(state, path)
    toy = Toy(tmp_path, LATER_BETTER, epochs=7, patience=2, beyond=True).run()  # one bad epoch was counted before
    assert (toy.trainer.state.epoch, toy.stopping.stopped_epoch, toy.best_weight()) == (7, 4, 1 + 2)


def test_a_training_that_stops_goes_no_further_than_an_epoch_beyond(tmp_path: Path) -> None:
    Toy(tmp_path, LATER_BETTER, epochs=5, patience=2, beyond=True).run()
    toy = Toy(tmp_path, LATER_BETTER, epochs=7, patience=2).run()
    assert (toy.trainer.state.epoch, toy.stopping.stopped_epoch) == (6, 4)


def test_the_last_model_says_its_epoch(tmp_path: Path) -> None:
    toy = Toy(tmp_path, LATER_BETTER, epochs=7, patience=2, beyond=True)
    LastModelSaver(toy.network, str(tmp_path / "last.pt"), settings={"size": 1}).attach(toy.trainer)
    toy.run()
    assert float(torch.load(tmp_path / "last.pt", weights_only=True)["weight"]) == 1 + 7
    record = read_json(tmp_path / "last.json", "model")
    assert (record["settings"], record["epoch"]) == ({"size": 1}, 7)


def test_the_state_of_other_settings_is_refused_with_every_difference(tmp_path: Path) -> None:
    Toy(tmp_path, [0.5], epochs=1, settings={"seed": 0, "weights": [1, 2], "gone": True}).run()
    with pytest.raises(ArtifactError) as caught:
        Toy(tmp_path, [0.5], epochs=2, settings={"seed": 1, "weights": [1, 2], "new": None}).run()
    assert str(caught.value) == (
        f"{tmp_path}/training_state.pt: this run has other settings than the one saved there "
        "(gone: True there, not set now; new: not set there, None now; seed: 0 there, 1 now); "
        "choose another output_dir, or delete the file to start anew"
    )


class Attack:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def test_a_state_with_code_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "trace"
    torch.save({"settings": Attack(str(folder))}, tmp_path / "training_state.pt")
    with pytest.raises(ArtifactError, match=r"training_state\.pt: expected a training state; "):
        Toy(tmp_path, [0.5], epochs=1).run()
    assert not folder.exists()


@pytest.mark.parametrize("stored", [{"epoch": 1}, [1, 2]])
def test_a_file_that_is_no_training_state_is_refused(tmp_path: Path, stored: Any) -> None:
    torch.save(stored, tmp_path / "training_state.pt")
    with pytest.raises(ArtifactError, match=r"training_state\.pt: expected a training state, got another file"):
        Toy(tmp_path, [0.5], epochs=1).run()


def test_a_write_that_fails_leaves_the_state_of_the_epoch_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = Toy(tmp_path, [0.5, 0.4], epochs=2)
    save = torch.save

    def full_disk(content: Any, path: Path) -> None:
        if toy.trainer.state.epoch == 2:
            path.write_bytes(b"half a file")
            raise OSError("no space left")
        save(content, path)

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        toy.run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.pt", "training_state.pt"]
    monkeypatch.undo()
    assert Toy(tmp_path, [0.5, 0.4], epochs=2).run().trainer.state.epoch == 2


def drawn(seed: int, epochs: int, *, start: int = 0) -> list[torch.Tensor]:
    """What the augmentation and torch's generator give in every epoch."""
    torch.manual_seed(99)
    noise = Compose([RandGaussianNoised("image", prob=1.0)])
    noise.set_random_state(99)
    data = Dataset([{"image": torch.zeros(2, 2)} for _ in range(3)], noise)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=DataLoader(data, batch_size=3, shuffle=True),
        network=nn.Linear(1, 1),
        optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1),
        loss_function=nn.MSELoss(),
        prepare_batch=lambda batch, *_, **__: (batch["image"], None),
        iteration_update=lambda _, batch: {"image": torch.as_tensor(batch["image"]), "draw": torch.rand(2)},
        train_handlers=[EpochSeed(seed)],
        decollate=False,
    )
    values: list[torch.Tensor] = []

    def keep() -> None:
        output = trainer.state.output
        values.append(torch.cat([output["image"].flatten(), output["draw"]]))

    trainer.add_event_handler(Events.ITERATION_COMPLETED, keep)
    trainer.state.epoch = start
    trainer.run()
    return values


def test_an_epoch_draws_the_same_whatever_came_before() -> None:
    whole, resumed = drawn(3, 3), drawn(3, 3, start=2)
    assert len(whole) == 3
    assert len(resumed) == 1
    assert torch.equal(whole[2], resumed[0])


def test_epochs_and_seeds_draw_differently() -> None:
    values = [*drawn(0, 3), *drawn(1, 3)]
    assert len({tuple(value.tolist()) for value in values}) == 6
