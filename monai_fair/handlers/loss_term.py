"""A term that a handler adds to the loss of any MONAI ``SupervisedTrainer``, without a change to network or loss."""

import logging
from abc import ABC, abstractmethod
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from monai_fair.errors import MonaiFairError
from monai_fair.networks import LayerInput


class LossTerm(ABC):
    """Add a term to a MONAI trainer's loss, and log it.

    After the trainer has computed its own loss and before the backward pass, the term of the batch is added to
    ``engine.state.output["loss"]``; mixed precision, gradient accumulation (the term is then one of each micro-batch)
    and DistributedDataParallel work as in MONAI. At the end of an epoch ``engine.state.metrics`` gets the epoch
    averages of the values that come with the term, which MONAI's Stats, TensorBoard and MLflow handlers then log,
    wherever they stand in the list of handlers.

    Attributes:
        elsewhere: what to use in loops that are no MONAI trainer, for the message.
    """

    elsewhere = "the loss itself"

    def __init__(self) -> None:
        self._totals: dict[str, torch.Tensor] = {}
        self._steps = 0

    @abstractmethod
    def terms(self, engine: SupervisedTrainer) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """Return what to add to the loss of this iteration, ``None`` for nothing, and scalars to log."""

    @abstractmethod
    def begin(self, engine: SupervisedTrainer) -> None:
        """Look at the network of a run that starts; a trainer knows it only after its handlers are attached."""

    @abstractmethod
    def end(self) -> None:
        """Leave the network as it was."""

    @abstractmethod
    def forget(self) -> None:
        """Let go of what validation, or a network run between iterations, has left in a hook."""

    def start(self, engine: SupervisedTrainer) -> None:
        """Prepare an iteration."""
        self.forget()

    def about(self) -> str:
        """Return what stands in the log behind the epoch."""
        return type(self).__name__

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI ``SupervisedTrainer``; a second call changes nothing.

        Raises:
            TypeError: if ``engine`` is another kind of engine.
        """
        if not isinstance(engine, SupervisedTrainer):
            raise TypeError(
                f"{type(self).__name__}: expected a monai.engines.SupervisedTrainer, got {type(engine).__name__}; "
                f"in other loops use {self.elsewhere}"
            )
        for event, function in self._functions().items():
            if not engine.has_event_handler(function, event):
                engine.add_event_handler(event, function)

    def detach(self, engine: Engine) -> None:
        """Undo :meth:`attach`, and leave the network as it was."""
        for event, function in self._functions().items():
            if engine.has_event_handler(function, event):
                engine.remove_event_handler(function, event)
        self.end()

    def _functions(self) -> dict[Any, Any]:
        return {
            Events.STARTED: self._begin,
            Events.EPOCH_STARTED: self._reset,
            Events.ITERATION_STARTED: self.start,
            IterationEvents.LOSS_COMPLETED: self._add_penalty,
            Events.ITERATION_COMPLETED: self._end_iteration,
            Events.EPOCH_COMPLETED: self._end_epoch,
            Events.COMPLETED: self._end,
        }

    def _begin(self, engine: SupervisedTrainer) -> None:
        self.end()
        self.begin(engine)

    def _end(self, _: Engine) -> None:
        self.end()

    def _reset(self, _: Engine) -> None:
        self._totals, self._steps = {}, 0

    def _add_penalty(self, engine: SupervisedTrainer) -> None:
        output = engine.state.output
        term, values = self.terms(engine)
        if term is not None:  # adding 0 would turn -0.0 into 0.0
            output[Keys.LOSS] = output[Keys.LOSS] + term
        # on the device: reading a number here would make the host wait at every step
        self._totals = {name: self._totals.get(name, 0) + value.detach() for name, value in values.items()}
        self._steps += 1

    def _end_iteration(self, engine: Engine) -> None:
        """Release memory; publish in the last iteration, before any handler of the epoch's end can run."""
        self.forget()
        length = engine.state.epoch_length
        if length and engine.state.iteration % length == 0:
            self._publish(engine)

    def _end_epoch(self, engine: Engine) -> None:
        """Publish for loaders of unknown length, which end an epoch without a last iteration."""
        if not self._steps:
            raise MonaiFairError(
                f"{type(self).__name__}: expected the event LOSS_COMPLETED in every iteration, got none in this epoch; "
                "fire it in the trainer's iteration_update before the backward pass"
            )
        self._publish(engine)
        if engine.state.rank == 0:
            values = ", ".join(f"{name} {engine.state.metrics[name]:.4g}" for name in self._totals)
            logging.getLogger(type(self).__module__).info("epoch %d, %s: %s", engine.state.epoch, self.about(), values)

    def _publish(self, engine: Engine) -> None:
        engine.state.metrics |= {name: float(total) / self._steps for name, total in self._totals.items()}


class LayerTerm(LossTerm):
    """A term of what enters one linear layer of the network.

    Args:
        layer: name of the layer in the bare network; see :class:`monai_fair.networks.LayerInput`.
    """

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer
        self._input: LayerInput | None = None

    def begin(self, engine: SupervisedTrainer) -> None:
        """Set the hook."""
        self._input = LayerInput(engine.network, self.layer)

    def end(self) -> None:
        """Take the hook off the network."""
        if self._input is not None:
            self._input.remove()
        self._input = None

    def forget(self) -> None:
        """Drop what validation, or a network run between iterations, has left in the hook."""
        if self._input is not None:
            self._input.clear()

    def about(self) -> str:
        """Return the layer."""
        return f"layer '{self.layer}'"

    @property
    def input(self) -> LayerInput:
        """What holds the layer's input.

        Raises:
            MonaiFairError: if the handler was attached within a run.
        """
        if self._input is None:
            raise MonaiFairError(
                f"{type(self).__name__}: expected to be attached before the run starts, got attached within it; attach "
                "it earlier"
            )
        return self._input
