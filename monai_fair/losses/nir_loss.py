"""Base loss plus neuron incidence redistribution, for training loops that have the features at hand."""

import torch
from torch import nn

from monai_fair.errors import MonaiFairError
from monai_fair.losses.classification import ClassificationLoss
from monai_fair.losses.nir import NIRRegularizer


class NIRLoss(nn.Module):
    """Base loss plus ``weight`` times neuron incidence redistribution, for training loops with features at hand.

    In a MONAI trainer use :class:`monai_fair.handlers.NIRHandler`, which needs no change to network or loss.

    Args:
        weight: factor of the penalty, at least 0; the paper uses 0.1. With 0 the result is the base loss.
        loss_function: takes ``(y_pred, y)``; ``None`` is :class:`ClassificationLoss`.
        regularizer: the penalty with its options; ``None`` is ``NIRRegularizer()``.

    Raises:
        MonaiFairError: if ``weight`` is negative or not finite, or a multi-label penalty has no base loss.

    References:
        Shoby, Palmer, Kurian, Neuron Incidence Redistribution, arXiv 2605.19393.
    """

    def __init__(
        self,
        weight: float = 0.1,
        loss_function: nn.Module | None = None,
        *,
        regularizer: NIRRegularizer | None = None,
    ) -> None:
        super().__init__()
        self.weight = checked_weight("NIRLoss", weight)
        self.regularizer = NIRRegularizer() if regularizer is None else regularizer
        if loss_function is None and self.regularizer.multi_label:
            raise MonaiFairError(
                "NIRLoss: expected a loss_function for a multi-label penalty, got none; "
                "give one, such as torch.nn.BCEWithLogitsLoss()"
            )
        self.loss_function = ClassificationLoss() if loss_function is None else loss_function

    def forward(
        self,
        y_pred: torch.Tensor,
        y: torch.Tensor,
        features: torch.Tensor,
        classifier_weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the sum of base loss and weighted penalty, a scalar; arguments as in the two parts."""
        loss: torch.Tensor = self.loss_function(y_pred, y)
        if self.weight == 0:
            return loss
        penalty: torch.Tensor = self.regularizer(y_pred, features, y, classifier_weight)
        return loss + self.weight * penalty


def checked_weight(source: str, weight: float) -> float:
    """Return ``weight`` if it is finite and at least 0, else raise ``MonaiFairError`` naming ``source``."""
    if 0 <= weight < float("inf"):
        return float(weight)
    raise MonaiFairError(f"{source}: expected a finite weight of at least 0, got {weight}; correct 'weight'")
