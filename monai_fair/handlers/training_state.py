"""Resume: a killed run that starts again ends with the weights of an uninterrupted one."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import ignite.handlers
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.engines import Evaluator, Trainer
from torch.utils.data import DistributedSampler

from monai_fair.data.artifacts import atomic_path
from monai_fair.errors import ArtifactError
from monai_fair.handlers.best_model import BestModelSaver
from monai_fair.networks import unwrapped

_UNHEARD = logging.Logger("unheard", logging.CRITICAL)


class EpochSeed:
    """Seed every epoch by its number, so that an epoch draws the same numbers whether or not it follows a resume.

    Seeds torch's generators and the random transforms of the dataset, and tells a distributed sampler the epoch.

    Args:
        seed: the seed of the run; processes of one run draw different augmentations.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed the epoch that starts."""
        epoch = engine.state.epoch
        # a large odd step keeps the seeds of two runs from meeting: seed 0, epoch 2 is not seed 1, epoch 1
        epoch_seed = (self.seed * 1_000_003 + epoch * 1_009 + idist.get_rank()) % 2**31
        torch.manual_seed(epoch_seed)
        set_rnd(engine.data_loader.dataset, seed=epoch_seed)
        sampler = getattr(engine.data_loader, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            sampler.set_epoch(self.seed * 1_000_003 + epoch)


class EarlyStopping:
    """Stop a training when the evaluator's key metric has not improved for ``patience`` validations.

    ignite's ``EarlyStopping``, in the order of a bundle: attached to the trainer after its ``ValidationHandler``,
    with a state that a resumed run takes over (MONAI's ``EarlyStopHandler`` forgets it).

    Args:
        patience: validations without improvement before the training stops.
        evaluator: the validation evaluator; a larger key metric is better.
        start: epochs at the beginning that do not count, such as those of coarser levels.
        saver: end the writing of this best model instead of the training, which goes on to its last epoch.

    Attributes:
        stopped_epoch: the epoch after which the training stopped, or would have; 0 before that.
    """

    def __init__(
        self, patience: int, evaluator: Evaluator, *, start: int = 0, saver: BestModelSaver | None = None
    ) -> None:
        self.patience = patience
        self.evaluator = evaluator
        self.start = start
        self.saver = saver
        self.stopped_epoch = 0
        self.handler: ignite.handlers.EarlyStopping | None = None
        self._signal = Engine(lambda *_: None)  # stands in for the trainer, to hear what ignite decides
        self._signal.logger = _UNHEARD

    def attach(self, engine: Trainer) -> None:
        """Register with a MONAI trainer, after the handler that runs the validation."""
        self.handler = ignite.handlers.EarlyStopping(self.patience, self._score, self._signal)
        if self.saver is not None:
            self.handler.logger = _UNHEARD  # would say that the training stops
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._count)

    def _count(self, engine: Trainer) -> None:
        if engine.state.epoch > self.start and not self.stopped_epoch:
            self._decide(engine)
        if self.stopped_epoch and self.saver is None:  # also of a run that went on with the state of one with a saver
            engine.terminate()

    def _decide(self, engine: Trainer) -> None:
        assert self.handler is not None
        self.handler(engine)
        if not self._signal.should_terminate:
            return
        self.stopped_epoch = engine.state.epoch
        if self.saver is not None:
            self.saver.closed = True
            engine.logger.info(f"{self.saver.path}: final after epoch {self.stopped_epoch}; the training goes on")

    def _score(self, _: Engine) -> float:
        state = self.evaluator.state
        return float(state.metrics[state.key_metric_name])

    def state_dict(self) -> dict[str, Any]:
        """Return the counter, best score and epoch."""
        assert self.handler is not None, "attach the handler first"
        return {**self.handler.state_dict(), "stopped_epoch": self.stopped_epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the counter, best score and epoch of an earlier run."""
        assert self.handler is not None, "attach the handler first"
        own = dict(state)
        self.stopped_epoch = int(own.pop("stopped_epoch", 0))  # states written before it was kept have none
        if self.saver is not None:
            self.saver.closed = bool(self.stopped_epoch)
        self.handler.load_state_dict(own)


class TrainingStateSaver:
    """Save the whole state of a training after every epoch, and continue from it when the run starts again.

    A training that has stopped early or reached ``max_epochs`` makes the run return at once; with a larger
    ``max_epochs`` the latter goes on. A file of other settings is refused by name, so that a changed learning rate
    never continues an old run.

    Args:
        path: the file; replaced atomically after every epoch.
        network: the network in training.
        optimizer: its optimiser.
        evaluator: the validation evaluator, whose best metric is part of the state; ``None`` if there is none.
        settings: what must be equal for a resume, such as seed and learning rate; JSON-like.
        objects: further named objects with ``state_dict`` and ``load_state_dict``, such as a scheduler.

    Raises:
        ArtifactError: at the start of a run, if the file is of other settings or cannot be read.
    """

    def __init__(
        self,
        path: str,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        evaluator: Evaluator | None,
        *,
        settings: Mapping[str, Any],
        objects: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.network = network
        self.optimizer = optimizer
        self.evaluator = evaluator
        self.settings = {name: str(value) for name, value in settings.items()}
        self.objects = dict(objects or {})

    def attach(self, engine: Trainer) -> None:
        """Register with a MONAI trainer, as the last of its handlers."""
        engine.add_event_handler(Events.STARTED, self.resume)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def resume(self, engine: Trainer) -> None:
        """Load the state if there is one."""
        if not self.path.is_file():
            return
        state = self._read(engine.state.device)
        unwrapped(self.network).load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, item in self.objects.items():
            item.load_state_dict(state["objects"][name])
        if engine.scaler is not None and state["scaler"]:
            engine.scaler.load_state_dict(state["scaler"])
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        if self.evaluator is not None:
            self.evaluator.state.best_metric = state["best_metric"]
            self.evaluator.state.best_metric_epoch = state["best_metric_epoch"]
        if state["finished"] or state["epoch"] >= engine.state.max_epochs:
            engine.logger.info(f"{self.path}: training is finished after {state['epoch']} epochs; nothing to do")
            engine.terminate()
        else:
            engine.logger.info(f"{self.path}: continuing after epoch {state['epoch']}")

    def _read(self, device: torch.device) -> dict[str, Any]:
        try:
            state: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:  # torch raises pickle, zip and runtime errors for a damaged file
            raise ArtifactError(f"{self.path}: expected a training state; {error}; delete it to start anew") from error
        if not isinstance(state, dict) or not {"settings", "network", "optimizer"} <= set(state):
            raise ArtifactError(f"{self.path}: expected a training state, got another file; delete it to start anew")
        saved = state["settings"]
        changed = [
            f"{name}: {saved.get(name, 'not set')} there, {self.settings.get(name, 'not set')} now"
            for name in sorted({*saved, *self.settings})
            if saved.get(name) != self.settings.get(name)
        ]
        if changed:
            raise ArtifactError(
                f"{self.path}: this run has other settings than the one saved there ({'; '.join(changed)}); "
                "choose another output_dir, or delete the file to start anew"
            )
        return state

    def save(self, engine: Trainer) -> None:
        """Write the state after an epoch."""
        if idist.get_rank() != 0:
            return
        validation = None if self.evaluator is None else self.evaluator.state
        state = {
            "settings": self.settings,
            "epoch": engine.state.epoch,
            "iteration": engine.state.iteration,
            # stopped early: with this epoch, so that a kill right after it does not train on; a run that ended with
            # its last epoch is told by max_epochs, and goes on when that is raised
            "finished": bool(engine.should_terminate),
            # numpy scalars would not load with weights_only=True
            "best_metric": float("nan") if validation is None else float(validation.best_metric),
            "best_metric_epoch": -1 if validation is None else int(validation.best_metric_epoch),
            "network": unwrapped(self.network).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objects": {name: item.state_dict() for name, item in self.objects.items()},
            "scaler": engine.scaler.state_dict() if engine.scaler is not None else {},
        }
        with atomic_path(self.path) as temporary:
            torch.save(state, temporary)
