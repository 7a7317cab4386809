"""Neuron incidence redistribution in any MONAI ``SupervisedTrainer``, without a change to network or loss."""

import logging
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys

from monai_fair.errors import MonaiFairError
from monai_fair.losses import NIRRegularizer, incidence_statistics
from monai_fair.losses.nir_loss import checked_weight
from monai_fair.networks import LayerInput

logger = logging.getLogger(__name__)


class NIRHandler:
    """Add ``weight`` times neuron incidence redistribution to a MONAI trainer's loss, and log what it does.

    After the trainer has computed its own loss and before the backward pass, the penalty of the batch is added
    to ``engine.state.output["loss"]``; mixed precision, gradient accumulation (the penalty is then one of each
    micro-batch) and DistributedDataParallel work as in MONAI. At the end of an epoch ``engine.state.metrics``
    gets the epoch averages ``nir`` (the penalty before ``weight``), ``nir_cv``, ``nir_top1_share`` and
    ``nir_feature_scale`` (see :func:`monai_fair.losses.incidence_statistics`), which MONAI's Stats,
    TensorBoard and MLflow handlers then log, wherever they stand in the list of handlers.

    With ``weight=0`` the training is untouched, bit by bit, and the same numbers are logged.

    Args:
        layer: name of the last linear layer in the bare network: ``fc`` for MONAI's ResNet,
            ``class_layers.out`` for DenseNet, ``_fc`` for EfficientNet.
        weight: factor of the penalty, at least 0; the paper uses 0.1.
        regularizer: the penalty with its options; ``None`` is ``NIRRegularizer()``.

    Raises:
        MonaiFairError: if ``weight`` is negative or not finite; in a run, if the layer is not a linear layer of
            the network, runs more or less than once per iteration, or its batch is not that of the predictions.

    References:
        Shoby, Palmer, Kurian, Neuron Incidence Redistribution, arXiv 2605.19393.
    """

    def __init__(self, layer: str, weight: float = 0.1, *, regularizer: NIRRegularizer | None = None) -> None:
        self.layer = layer
        self.weight = checked_weight("NIRHandler", weight)
        self.regularizer = NIRRegularizer() if regularizer is None else regularizer
        self._input: LayerInput | None = None
        self._totals: dict[str, torch.Tensor] = {}
        self._steps = 0

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI ``SupervisedTrainer``; a second call changes nothing.

        Raises:
            TypeError: if ``engine`` is another kind of engine.
        """
        if not isinstance(engine, SupervisedTrainer):
            raise TypeError(
                f"NIRHandler: expected a monai.engines.SupervisedTrainer, got {type(engine).__name__}; "
                "in other loops use monai_fair.losses.NIRLoss"
            )
        for event, function in self._functions().items():
            if not engine.has_event_handler(function, event):
                engine.add_event_handler(event, function)

    def detach(self, engine: Engine) -> None:
        """Undo :meth:`attach` and take the hook off the network."""
        for event, function in self._functions().items():
            if engine.has_event_handler(function, event):
                engine.remove_event_handler(function, event)
        self._remove_hook(engine)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep: the running sums of a regulariser with momentum."""
        return dict(self.regularizer.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.regularizer.load_state_dict(state_dict)

    def _functions(self) -> dict[Any, Any]:
        return {
            # A trainer knows its network only after its handlers are attached.
            Events.STARTED: self._set_hook,
            Events.EPOCH_STARTED: self._reset,
            Events.ITERATION_STARTED: self._forget_input,
            IterationEvents.LOSS_COMPLETED: self._add_penalty,
            Events.ITERATION_COMPLETED: self._end_iteration,
            Events.EPOCH_COMPLETED: self._end_epoch,
            Events.COMPLETED: self._remove_hook,
        }

    def _set_hook(self, engine: Engine) -> None:
        self._remove_hook(engine)
        self._input = LayerInput(engine.network, self.layer)

    def _remove_hook(self, _: Engine) -> None:
        if self._input is not None:
            self._input.remove()
        self._input = None

    def _forget_input(self, _: Engine) -> None:
        """Drop what validation, or a network run between iterations, has left in the hook."""
        if self._input is not None:
            self._input.clear()

    def _reset(self, _: Engine) -> None:
        self._totals, self._steps = {}, 0

    def _add_penalty(self, engine: Engine) -> None:
        output = engine.state.output
        # Without weight no graph is built and the loss is not touched: adding 0 would turn -0.0 into 0.0.
        with torch.set_grad_enabled(self.weight > 0):
            means = self._channel_means(output[Keys.PRED], output[Keys.LABEL])
            penalty = self.regularizer.penalty(means)
        if self.weight > 0:
            output[Keys.LOSS] = output[Keys.LOSS] + self.weight * penalty
        self._accumulate({"nir": penalty.detach()} | _prefixed(incidence_statistics(means)))

    def _channel_means(self, y_pred: Any, y: torch.Tensor) -> torch.Tensor:
        if self._input is None:
            raise MonaiFairError(
                "NIRHandler: expected to be attached before the run starts, got attached within it; attach it earlier"
            )
        features = self._input.take()
        if not isinstance(y_pred, torch.Tensor) or len(y_pred) != len(features):
            got = f"shape {tuple(y_pred.shape)}" if isinstance(y_pred, torch.Tensor) else type(y_pred).__name__
            raise MonaiFairError(
                f"NIRHandler: expected 'pred' to be logits of the {len(features)} samples that entered layer "
                f"'{self.layer}', got {got}; name the layer that makes the logits"
            )
        return self.regularizer.channel_means(y_pred, features, y, self._input.layer.weight)

    def _accumulate(self, values: dict[str, torch.Tensor]) -> None:
        """Add up on the device: reading a number here would make the host wait at every step."""
        self._totals = {name: self._totals.get(name, 0) + value for name, value in values.items()}
        self._steps += 1

    def _end_iteration(self, engine: Engine) -> None:
        """Release memory; publish in the last iteration, before any handler of the epoch's end can run."""
        self._forget_input(engine)
        length = engine.state.epoch_length
        if length and engine.state.iteration % length == 0:
            self._publish(engine)

    def _end_epoch(self, engine: Engine) -> None:
        """Publish for loaders of unknown length, which end an epoch without a last iteration."""
        if not self._steps:
            raise MonaiFairError(
                "NIRHandler: expected the event LOSS_COMPLETED in every iteration, got none in this epoch; "
                "fire it in the trainer's iteration_update before the backward pass"
            )
        self._publish(engine)
        if engine.state.rank == 0:
            values = ", ".join(f"{name} {engine.state.metrics[name]:.4g}" for name in self._totals)
            logger.info("epoch %d, layer '%s': %s", engine.state.epoch, self.layer, values)

    def _publish(self, engine: Engine) -> None:
        engine.state.metrics |= {name: float(total) / self._steps for name, total in self._totals.items()}


def _prefixed(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"nir_{name}": value for name, value in values.items()}
