"""Fit a linear erasure to the training images, in any MONAI evaluator."""

from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.utils.enums import CommonKeys as Keys
from torch import nn

from monai_fair.errors import MonaiFairError
from monai_fair.networks import AttributeColumns, LinearErasure, unwrapped


class ErasureFitter:
    """Fit the :class:`~monai_fair.networks.LinearErasure` of a network to what enters it while an evaluator runs.

    The evaluator goes over the training images without augmentation. Of a map the mean over places counts. A row that
    lacks an attribute is left out, and a line of the log says how many are. Of several erasures, one after the other in
    a network, each needs a run of its own, in their order.

    Args:
        network: the network.
        name: of the erasure in the bare network, such as ``encoder.erasure``.
        levels: number of levels of every attribute; 0 for a continuous one.
        by_class: take covariances within the classes; see :func:`monai_fair.networks.least_squares_erasure`.
        key: of a batch, for codes of :func:`monai_fair.data.with_attribute_codes`.

    Raises:
        MonaiFairError: when a run starts, if there is no erasure of this name; when it ends, if rows lack everything.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        *,
        levels: Sequence[int],
        by_class: bool = True,
        key: str = "attribute_codes",
    ) -> None:
        self.network, self.name, self.by_class, self.key = network, name, by_class, key
        self.columns = AttributeColumns(levels)
        self._entered: list[torch.Tensor] = []
        self._codes: list[torch.Tensor] = []
        self._labels: list[torch.Tensor] = []
        self._hook: Any = None

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI evaluator that leaves batches together (``decollate=False``)."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._fit)

    def _start(self, _: Engine) -> None:
        self._entered, self._codes, self._labels = [], [], []
        self._hook = self._erasure().register_forward_pre_hook(self._enter)

    def _erasure(self) -> LinearErasure:
        found = dict(unwrapped(self.network).named_modules()).get(self.name)
        if not isinstance(found, LinearErasure):
            raise MonaiFairError(
                f"ErasureFitter: expected a LinearErasure '{self.name}' in the network, got {type(found).__name__}; "
                "correct 'name'"
            )
        return found

    def _enter(self, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        features = inputs[0].detach().as_subclass(torch.Tensor).float()
        self._entered.append(features.flatten(2).mean(dim=2) if features.ndim > 2 else features)

    def _collect(self, engine: Engine) -> None:
        batch = engine.state.batch
        self._codes.append(torch.as_tensor(batch[self.key]).as_subclass(torch.Tensor).float())
        self._labels.append(torch.as_tensor(batch[Keys.LABEL]).as_subclass(torch.Tensor).reshape(-1))

    def _fit(self, engine: Engine) -> None:
        self._hook.remove()
        features = torch.cat(self._entered)
        columns = self.columns(torch.cat(self._codes)).to(features.device)
        labels = torch.cat(self._labels).to(features.device)
        known = columns.isfinite().all(dim=1)
        if int(known.sum()) < 2:
            raise MonaiFairError(
                f"ErasureFitter: expected two rows or more with every attribute, got {int(known.sum())} of "
                f"{len(known)}; leave out the attribute that is missing"
            )
        engine.logger.info(f"erasure {self.name}: fitted to {int(known.sum())} of {len(known)} rows")
        self._erasure().fit(features[known], columns[known], labels[known] if self.by_class else None)
