"""Group DRO in any MONAI ``SupervisedTrainer``: the handler tells the loss the groups of the batch."""

import logging
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents

from monai_fair.data.row_groups import row_group
from monai_fair.errors import MonaiFairError
from monai_fair.losses import GroupDROLoss

logger = logging.getLogger(__name__)


class GroupDROHandler:
    """Tell a trainer's :class:`monai_fair.losses.GroupDROLoss` the groups of every batch, and log the weights.

    A MONAI trainer calls its loss with predictions and labels only; the groups are read from ``attributes`` of the
    batch, as :func:`monai_fair.data.load_datalist` gives them. The loss stays the trainer's ``loss_function``, so
    that mixed precision, gradient accumulation, DistributedDataParallel and :class:`monai_fair.handlers.NIRHandler`
    work beside it. At the end of an epoch the log has the weight of every group.

    Args:
        loss: the loss that the trainer has as ``loss_function``.
        attribute: column of the manifest, such as ``subgroup`` or ``sex``.
        by_label: groups are attribute and label together, as in the loss's ``counts``.

    Raises:
        MonaiFairError: at the start of a run, if the trainer has another loss; in a run, if the batch has no such
            attribute.
    """

    def __init__(self, loss: GroupDROLoss, attribute: str = "subgroup", *, by_label: bool = True) -> None:
        self.loss = loss
        self.attribute = attribute
        self.by_label = by_label

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI ``SupervisedTrainer``; a second call changes nothing.

        Raises:
            TypeError: if ``engine`` is another kind of engine.
        """
        if not isinstance(engine, SupervisedTrainer):
            raise TypeError(
                f"GroupDROHandler: expected a monai.engines.SupervisedTrainer, got {type(engine).__name__}; "
                "in other loops pass the groups to GroupDROLoss"
            )
        functions = {
            Events.STARTED: self._check,
            IterationEvents.FORWARD_COMPLETED: self._tell,
            Events.EPOCH_COMPLETED: self._log,
        }
        for event, function in functions.items():
            if not engine.has_event_handler(function, event):
                engine.add_event_handler(event, function)

    def _check(self, engine: SupervisedTrainer) -> None:
        if engine.loss_function is not self.loss:
            raise MonaiFairError(
                "GroupDROHandler: expected the trainer's loss_function to be its GroupDROLoss, got "
                f"{type(engine.loss_function).__name__}; lay group_dro.yaml over configs that set another loss"
            )

    def _tell(self, engine: SupervisedTrainer) -> None:
        self.loss.expect(batch_groups(engine.state.batch, self.attribute, by_label=self.by_label))

    def _log(self, engine: SupervisedTrainer) -> None:
        if engine.state.rank == 0:
            weights = ", ".join(f"{name}: {weight:.4f}" for name, weight in self.loss.weights.items())
            logger.info("epoch %d, weights of the groups: %s", engine.state.epoch, weights)


def batch_groups(batch: Mapping[str, Any], attribute: str, *, by_label: bool = True) -> list[str]:
    """Return the group of every sample of a collated batch, named as :func:`monai_fair.data.group_counts` does.

    Args:
        batch: has ``attributes`` (name to one text per sample) and ``label`` (one class index per sample).
        attribute: whose values are the groups.
        by_label: split every value by the label.

    Raises:
        MonaiFairError: if the batch has no such attribute.
    """
    attributes = batch.get("attributes", {})
    if attribute not in attributes:
        raise MonaiFairError(
            f"expected the attribute '{attribute}' in the batch, the ones there are {', '.join(attributes) or 'none'}; "
            "load the rows by load_datalist"
        )
    values, labels = attributes[attribute], batch["label"].reshape(-1).tolist()
    return [
        row_group({"attributes": {attribute: value}, "label": label}, attribute, by_label=by_label)
        for value, label in zip(values, labels, strict=True)
    ]
