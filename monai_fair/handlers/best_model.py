"""The best model of a training, and the check that it is used as it was trained."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from monai_fair.data.artifacts import atomic_path, read_json, write_json
from monai_fair.errors import ArtifactError
from monai_fair.networks import unwrapped


def write_model(network: torch.nn.Module, path: Path, settings: Mapping[str, Any] | None, *, epoch: int) -> None:
    """Write a state dict, and its settings and epoch as JSON beside it; of several processes the first one does.

    Args:
        network: a ``DistributedDataParallel`` one is written without its wrapper.
        path: the file, replaced atomically.
        settings: see :class:`BestModelSaver`.
        epoch: of the training, after which this is the network.
    """
    if idist.get_rank() != 0:
        return
    if settings is not None:
        write_json(path.with_suffix(".json"), "model", {"settings": settings, "epoch": epoch})
    with atomic_path(path) as temporary:
        torch.save(unwrapped(network).state_dict(), temporary)


class BestModelSaver:
    """Write the network's state dict whenever the evaluator's key metric reaches a new best.

    Args:
        network: the network; a ``DistributedDataParallel`` one is written without its wrapper.
        path: the file, such as ``model.pt``; a plain state dict, replaced atomically.
        settings: what whoever uses the model must share with its training, such as the size of images; written as
            JSON of the same name beside it, with the epoch, for :class:`ModelSettingsCheck`.

    Attributes:
        closed: nothing is written any more; set by an :class:`~monai_fair.handlers.EarlyStopping` that ends this
            instead of the training, so that the file has what it would have kept.
    """

    def __init__(self, network: torch.nn.Module, path: str, *, settings: Mapping[str, Any] | None = None) -> None:
        self.network = network
        self.path = Path(path)
        self.settings = None if settings is None else dict(settings)
        self.closed = False

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI evaluator that has a key metric."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the network if this epoch is the best so far."""
        state = engine.state
        value = state.metrics[state.key_metric_name]
        if not math.isfinite(value):
            raise ArtifactError(
                f"validation metric '{state.key_metric_name}': expected a number, got {value}; "
                "it is undefined when the validation split holds a single class or no group has enough cases (the log "
                "names them), so check the manifest's splits"
            )
        if state.best_metric_epoch == state.epoch and not self.closed:
            write_model(self.network, self.path, self.settings, epoch=state.epoch)


class ModelSettingsCheck:
    """Refuse to run a model on images of another size, another normalisation or other classes than it was trained on.

    A network takes images of any size and scores them without complaint, so a forgotten ``--image_size`` would
    only show as worse numbers. A model without a record beside it, from elsewhere, is not checked, and a line of
    the log says so.

    Args:
        path: the model that :class:`BestModelSaver` wrote.
        settings: the settings of this run; only those that both have are compared.

    Raises:
        ArtifactError: at the start of a run, naming every setting that differs.
    """

    def __init__(self, path: str, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.settings = dict(settings)

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare the settings."""
        record = self.path.with_suffix(".json")
        if not record.is_file():
            engine.logger.info(f"{record}: not there, so the settings of the model's training are not checked")
            return
        trained = read_json(record, "model")["settings"]
        changed = [
            f"{name}: trained with {trained[name]}, now {value}"
            for name, value in self.settings.items()
            if name in trained and trained[name] != value
        ]
        if changed:
            raise ArtifactError(f"{self.path}: {'; '.join(changed)}; give the values it was trained with")
