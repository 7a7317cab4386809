"""Probability-weighted means of the channels that enter a classifier's last layer.

The mean of channel j for class c is a ratio of sums over the batch. The sums are kept until the end, because
sums, unlike means, can be added over processes and averaged over batches without bias.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch.nn import functional

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.losses.process_sums import sum_over_processes

Normalizer = Literal["weights", "batch"]
SampleWeight = Literal["prob", "prob_label", "prediction"]
EPS = 1e-8


def probability_weighted_means(
    features: torch.Tensor,
    prob: torch.Tensor,
    *,
    normalizer: Normalizer = "weights",
    eps: float = EPS,
    distributed: bool = False,
) -> torch.Tensor:
    """Return the mean of every channel, each sample weighted by its probability of the class.

    ``m_cj = sum_i p_ic h_ij / (sum_i p_ic + eps)`` with ``normalizer="weights"``, and
    ``m_cj = sum_i p_ic h_ij / B`` with ``"batch"``.

    Args:
        features: activations ``h``, shape ``(B, D)``.
        prob: weights ``p`` in [0, 1], shape ``(B,)`` or ``(B, C)``.
        normalizer: what the weighted sum is divided by: the sum of the weights, or the number of samples.
        eps: keeps the ratio finite when all weights of a class vanish.
        distributed: add the sums of all processes first; needs an initialised process group.

    Returns:
        Means ``m``, shape ``(C, D)``, with the unit of the features.

    Raises:
        MonaiFairError: if the shapes or ``normalizer`` do not fit.

    References:
        Shoby, Palmer, Kurian, Neuron Incidence Redistribution, arXiv 2605.19393.
    """
    if normalizer not in get_args(Normalizer):
        raise MonaiFairError(f"expected normalizer {_one_of(Normalizer)}, got '{normalizer}'; choose one")
    sums = weighted_sums(features, prob.reshape(len(prob), -1))
    return means_of_sums(sum_over_processes(sums) if distributed else sums, normalizer=normalizer, eps=eps)


def sample_weights(
    y_pred: torch.Tensor,
    y: torch.Tensor | None = None,
    *,
    kind: SampleWeight = "prob",
    multi_label: bool = False,
    classes: Sequence[int] | None = None,
) -> torch.Tensor:
    """Return how much each sample counts as evidence for each class.

    Args:
        y_pred: logits, shape ``(B,)``, ``(B, 1)`` or ``(B, K)``. One output is the logit of class 1.
        y: class indices ``(B,)`` or ``(B, 1)``, or 0/1 per label ``(B, K)`` with ``multi_label``; only
            ``"prob_label"`` needs it.
        kind: ``"prob"`` the predicted probability; ``"prob_label"`` the same for samples of the class and 0
            for others; ``"prediction"`` 1 where the class is predicted (probability at least 0.5 for one
            output or ``multi_label``, else the largest), which has no gradient.
        multi_label: one sigmoid per output instead of one softmax over outputs.
        classes: classes to keep, in this order; ``None`` keeps every output.

    Returns:
        Weights in [0, 1], shape ``(B, C)``.

    Raises:
        MonaiFairError: if shapes, classes or ``kind`` do not fit.
    """
    logits = y_pred.reshape(len(y_pred), -1)
    raise_problems(MonaiFairError, "sample_weights", _problems(y_pred, y, kind, multi_label, classes))
    sigmoid = multi_label or logits.shape[1] == 1
    if kind == "prediction":
        # argmax, not "equal to the maximum": a tie must not count one sample for two classes
        largest = functional.one_hot(logits.argmax(1), logits.shape[1])
        weights = (logits >= 0 if sigmoid else largest).to(logits.dtype)
    else:
        weights = logits.sigmoid() if sigmoid else logits.softmax(1)
    if kind == "prob_label" and y is not None:
        weights = weights * _membership(y.reshape(len(y), -1), logits.shape[1], multi_label)
    return weights if logits.shape[1] == 1 else select_classes(weights, classes)


def select_classes(values: torch.Tensor, classes: Sequence[int] | None) -> torch.Tensor:
    """Return the columns ``classes`` of ``values``, shape ``(B, K)``; ``None`` returns all."""
    # Indexing with a list would copy the indices to the device, which waits for it.
    return values if classes is None else torch.stack([values[:, index] for index in classes], dim=1)


def weighted_sums(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return ``sum_i w_ic h_ij`` in ``D`` columns, then ``sum_i w_ic``, then the number of samples.

    Args:
        features: shape ``(B, D)``.
        weights: shape ``(B, C)``.

    Returns:
        Sums, shape ``(C, D + 2)``: one tensor, so that one message carries it to the other processes.

    Raises:
        MonaiFairError: if the shapes do not fit.
    """
    if features.ndim != 2 or len(features) != len(weights) or 0 in features.shape:
        raise MonaiFairError(
            f"expected features of shape (B, D) with B = {len(weights)} as the predictions have and D >= 1, "
            f"got {tuple(features.shape)}; take the input of the last layer from the same forward pass"
        )
    total = weights.sum(0).unsqueeze(1)
    return torch.cat([weights.T @ features, total, torch.full_like(total, float(len(features)))], dim=1)


def means_of_sums(sums: torch.Tensor, *, normalizer: Normalizer = "weights", eps: float = EPS) -> torch.Tensor:
    """Divide the sums of :func:`weighted_sums`; returns means of shape ``(C, D)``."""
    total = sums[:, -2:-1] + eps if normalizer == "weights" else sums[:, -1:]
    return sums[:, :-2] / total


def _membership(y: torch.Tensor, num_outputs: int, multi_label: bool) -> torch.Tensor:
    if multi_label or num_outputs == 1:
        return y == 1
    return y == torch.arange(num_outputs, device=y.device)


def _problems(
    y_pred: torch.Tensor,
    y: torch.Tensor | None,
    kind: str,
    multi_label: bool,
    classes: Sequence[int] | None,
) -> list[str]:
    outputs = y_pred.shape[1] if y_pred.ndim == 2 else 1
    labels = outputs if multi_label else 1
    shape = None if y is None else tuple(y.shape)
    problems = []
    if y_pred.ndim not in (1, 2) or 0 in y_pred.shape:
        problems.append(f"expected y_pred of shape (B,), (B, 1) or (B, K), got {tuple(y_pred.shape)}; pool it")
    if kind not in get_args(SampleWeight):
        problems.append(f"expected sample_weight {_one_of(SampleWeight)}, got '{kind}'; choose one")
    elif kind == "prob_label" and shape not in ((len(y_pred), labels), (len(y_pred),) if labels == 1 else None):
        got = "none" if shape is None else str(shape)
        expected = f"({len(y_pred)}, {labels})"
        problems.append(f"expected y of shape {expected} for 'prob_label', got {got}; pass the labels")
    allowed = [1] if outputs == 1 else list(range(outputs))
    if classes is not None and not (classes and set(classes) <= set(allowed)):
        problems.append(
            f"expected classes among {allowed} for {outputs} outputs, got {list(classes)}; "
            "correct 'classes' or the network's outputs"
        )
    return problems


def _one_of(choices: Any) -> str:
    return " or ".join(f"'{choice}'" for choice in get_args(choices))
