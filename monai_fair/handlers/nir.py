"""Neuron incidence redistribution in any MONAI ``SupervisedTrainer``, without a change to network or loss."""

from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.utils.enums import CommonKeys as Keys

from monai_fair.errors import MonaiFairError
from monai_fair.handlers.loss_term import LayerTerm
from monai_fair.losses import NIRRegularizer, incidence_statistics
from monai_fair.losses.nir_loss import checked_weight


class NIRHandler(LayerTerm):
    """Add ``weight`` times neuron incidence redistribution to a MONAI trainer's loss, and log what it does.

    How the penalty is added and logged is that of :class:`monai_fair.handlers.LossTerm`; the values are ``nir`` (the
    penalty before ``weight``), ``nir_cv``, ``nir_top1_share`` and ``nir_feature_scale`` (see
    :func:`monai_fair.losses.incidence_statistics`).

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

    elsewhere = "monai_fair.losses.NIRLoss"

    def __init__(self, layer: str, weight: float = 0.1, *, regularizer: NIRRegularizer | None = None) -> None:
        super().__init__(layer)
        self.weight = checked_weight("NIRHandler", weight)
        self.regularizer = NIRRegularizer() if regularizer is None else regularizer

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep: the running sums of a regulariser with momentum."""
        return dict(self.regularizer.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`."""
        self.regularizer.load_state_dict(state_dict)

    def terms(self, engine: SupervisedTrainer) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """Return the weighted penalty, and what is logged beside it."""
        output = engine.state.output
        # Without weight no graph is built and the loss is not touched.
        with torch.set_grad_enabled(self.weight > 0):
            means = self._channel_means(output[Keys.PRED], output[Keys.LABEL])
            penalty = self.regularizer.penalty(means)
        values = {"nir": penalty} | {f"nir_{name}": value for name, value in incidence_statistics(means).items()}
        return (self.weight * penalty if self.weight > 0 else None), values

    def _channel_means(self, y_pred: Any, y: torch.Tensor) -> torch.Tensor:
        features = self.input.take()
        if not isinstance(y_pred, torch.Tensor) or len(y_pred) != len(features):
            got = f"shape {tuple(y_pred.shape)}" if isinstance(y_pred, torch.Tensor) else type(y_pred).__name__
            raise MonaiFairError(
                f"NIRHandler: expected 'pred' to be logits of the {len(features)} samples that entered layer "
                f"'{self.layer}', got {got}; name the layer that makes the logits"
            )
        return self.regularizer.channel_means(y_pred, features, y, self.input.layer.weight)
