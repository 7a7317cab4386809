"""The base loss of a classifier: binary or multi-class cross-entropy, chosen by the shape of the logits."""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import nn
from torch.nn import functional

from monai_fair.errors import MonaiFairError, raise_problems


class ClassificationLoss(nn.Module):
    """Cross-entropy of logits with class indices, for one output unit as for several.

    Logits ``(B,)`` or ``(B, 1)`` mean one output unit, ``p = sigmoid(logit)`` (binary cross-entropy with
    logits); logits ``(B, K)`` with ``K >= 2`` mean ``softmax`` (cross-entropy). With class weights the mean is
    ``sum(w_y * l) / sum(w_y)``, as in ``torch.nn.CrossEntropyLoss``, in both forms.

    One logit ``s`` is computed as the pair ``(0, s)``: its softmax is ``sigmoid(s)``, so value and gradient
    are those of binary cross-entropy with logits, and one path serves both.

    Args:
        weight: one positive number per class; ``None`` weighs all samples alike.

    Raises:
        MonaiFairError: if a weight is not a positive finite number, or there are fewer than two.

    Example:
        >>> import torch
        >>> ClassificationLoss()(torch.tensor([0.0]), torch.tensor([1]))
        tensor(0.6931)
    """

    weight: torch.Tensor | None

    def __init__(self, weight: Sequence[float] | None = None) -> None:
        super().__init__()
        values = None if weight is None else [float(value) for value in weight]
        raise_problems(MonaiFairError, "ClassificationLoss", _weight_problems(values))
        # A constant of the configuration, not a state: an old checkpoint must not overwrite it.
        tensor = None if values is None else torch.tensor(values, dtype=torch.float64)
        self.register_buffer("weight", tensor, persistent=False)

    def forward(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the (weighted) mean loss over the batch.

        Args:
            y_pred: logits, shape ``(B,)``, ``(B, 1)`` or ``(B, K)``.
            y: class indices of any dtype, shape ``(B,)`` or ``(B, 1)``.

        Returns:
            A scalar tensor.

        Raises:
            MonaiFairError: if shapes, the number of class weights or the labels do not fit. Labels on an
                accelerator are checked there, by the assertion inside torch's kernel, to avoid a host sync.
        """
        logits, labels = y_pred.as_subclass(torch.Tensor), y.as_subclass(torch.Tensor)
        classes = 2 if logits.ndim == 1 or logits.shape[-1] == 1 else logits.shape[-1]
        raise_problems(MonaiFairError, "ClassificationLoss", self._problems(logits, labels, classes))
        if self.weight is not None and self.weight.device != logits.device:
            self.weight = self.weight.to(logits.device)
        if logits.ndim == 1 or logits.shape[-1] == 1:
            logits = functional.pad(logits.reshape(-1, 1), (1, 0))
        weight = None if self.weight is None else self.weight.to(logits.dtype)
        return functional.cross_entropy(logits, _class_index(labels.reshape(-1), classes), weight)

    def _problems(self, logits: torch.Tensor, labels: torch.Tensor, classes: int) -> list[str]:
        problems = []
        if logits.ndim not in (1, 2) or 0 in logits.shape:
            problems.append(
                f"expected y_pred of shape (B,), (B, 1) or (B, K) with B >= 1, got {tuple(logits.shape)}; "
                "pool spatial dimensions first"
            )
        elif tuple(labels.shape) not in ((len(logits),), (len(logits), 1)):
            problems.append(
                f"expected y of shape ({len(logits)},) or ({len(logits)}, 1) for y_pred {tuple(logits.shape)}, "
                f"got {tuple(labels.shape)}; give class indices, not one-hot rows"
            )
        elif labels.device.type == "cpu":
            problems += _label_problems(labels.reshape(-1), classes)
        if self.weight is not None and len(self.weight) != classes:
            problems.append(
                f"expected one weight per class, {classes} for y_pred {tuple(logits.shape)}, "
                f"got {len(self.weight)}; correct 'weight'"
            )
        return problems


def _class_index(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return labels as int64; what is not a class index becomes ``classes``, which cross-entropy refuses.

    Without this, 0.5 would be cut to 0 and -100, torch's ``ignore_index``, would drop the sample silently.
    """
    known = (labels == labels.to(torch.int64)) & (labels >= 0)
    return torch.where(known, labels.to(torch.int64), classes)


def _label_problems(labels: torch.Tensor, classes: int) -> list[str]:
    index = _class_index(labels, classes)
    bad = labels[index >= classes]
    if not len(bad):
        return []
    return [
        f"expected y to hold class indices from 0 to {classes - 1}, got {bad[0].item()} "
        f"({len(bad)} of {len(labels)} labels); correct the labels or the number of outputs"
    ]


def _weight_problems(weight: list[float] | None) -> list[str]:
    if weight is None:
        return []
    problems = [
        f"expected weight[{index}] to be a positive finite number, got {value}; correct 'weight'"
        for index, value in enumerate(weight)
        if not (isfinite(value) and value > 0)
    ]
    if len(weight) < 2:
        problems.append(f"expected one weight per class, at least 2, got {len(weight)}; correct 'weight'")
    return problems
