"""The model of the last epoch, for trainings whose validation data should not choose one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_fair.handlers.best_model import write_model


class LastModelSaver:
    """Write the network's state dict after every epoch, so that the file holds the latest.

    For trainings of a fixed schedule: a validation split that shares the bias of the training rows prefers the epochs
    that use it. :class:`monai_fair.handlers.BestModelSaver` chooses by the key metric instead.

    Args:
        network: the network; a ``DistributedDataParallel`` one is written without its wrapper.
        path: the file, such as ``model.pt``; a plain state dict, replaced atomically.
        settings: as of :class:`monai_fair.handlers.BestModelSaver`, written beside it.
    """

    def __init__(self, network: torch.nn.Module, path: str, *, settings: Mapping[str, Any] | None = None) -> None:
        self.network = network
        self.path = Path(path)
        self.settings = None if settings is None else dict(settings)

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the network."""
        write_model(self.network, self.path, self.settings, epoch=engine.state.epoch)
