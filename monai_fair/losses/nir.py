"""Neuron incidence redistribution (NIR): spread the evidence for a class over the whole penultimate layer.

A classifier tends to read a disease off few channels, and those channels also answer to sex, age or race. NIR
penalises the variance, over the channels of the last layer's input, of the probability-weighted mean
activation. Training needs no attribute. "NIR" here never means neural image registration.

References:
    Shoby, Palmer, Kurian, Neuron Incidence Redistribution, arXiv 2605.19393.
"""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import nn

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.losses.channel_means import (
    EPS,
    Normalizer,
    SampleWeight,
    means_of_sums,
    sample_weights,
    select_classes,
    weighted_sums,
)
from monai_fair.losses.process_sums import in_process_group, sum_over_processes

Activation = Literal["relu", "abs"]


def neuron_incidence_redistribution(
    means: torch.Tensor, *, correction: int = 0, scale_free: bool = False
) -> torch.Tensor:
    """Return the variance of the channel means over channels, averaged over classes.

    ``(1 / C) sum_c (1 / (D - correction)) sum_j (m_cj - mean_j m_cj)^2``. 0 means that all channels of a class
    have the same mean. The value has the squared unit of the features, so smaller features lower it too;
    ``scale_free`` divides by ``(mean_j m_cj)^2``, which gives the squared coefficient of variation.

    Args:
        means: probability-weighted channel means, shape ``(C, D)``.
        correction: 0 for the population variance, 1 for the sample variance.
        scale_free: divide the variance by the squared mean; meant for features without negative values.

    Returns:
        A scalar tensor, at least 0.

    Raises:
        MonaiFairError: if ``means`` is not ``(C, D)`` with ``D`` greater than ``correction``.

    References:
        Shoby, Palmer, Kurian, Neuron Incidence Redistribution, arXiv 2605.19393.
    """
    if means.ndim != 2 or means.shape[1] <= correction:
        raise MonaiFairError(
            f"expected means of shape (C, D) with D > {correction}, got {tuple(means.shape)}; "
            "choose a layer with more channels or correction=0"
        )
    variance = means.var(dim=1, correction=correction)
    if scale_free:
        variance = variance / (means.mean(dim=1).square() + EPS)
    return variance.mean()


def incidence_statistics(means: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what to log beside NIR, because NIR alone can fall when all features shrink.

    Args:
        means: probability-weighted channel means, shape ``(C, D)``.

    Returns:
        Scalars without gradient, averaged over classes: ``cv``, population standard deviation over absolute
        mean; ``top1_share``, the largest ``|m_cj|`` over their sum (``1 / D`` to 1); ``feature_scale``, the
        mean of ``m_cj``. ``cv`` and ``top1_share`` are NaN where the means are all 0.
    """
    means = means.detach()
    scale, size = means.mean(dim=1), means.abs()
    spread = means.std(dim=1, correction=0) / scale.abs()
    return {
        "cv": torch.where(scale == 0, torch.nan, spread).mean(),
        "top1_share": (size.amax(dim=1) / size.sum(dim=1)).mean(),
        "feature_scale": scale.mean(),
    }


class NIRRegularizer(nn.Module):
    """Neuron incidence redistribution of one batch, with every choice the paper leaves open as an option.

    The defaults are: weighted mean, population variance, gradient through the probabilities, raw activations,
    the batch alone. Everything is computed in float32 at least, whatever autocast says.

    Args:
        normalizer: divide the weighted sums by the ``"weights"`` or by the number of samples (``"batch"``,
            which scales the value with the squared mean probability).
        correction: 0 population variance, 1 sample variance.
        detach_prob: let no gradient pass through the probabilities, so that only the encoder is moved.
        use_contribution: spread contributions ``w_cj h_ij`` instead of activations ``h_ij``; needs the last
            layer's weight in :meth:`forward`.
        momentum: share in [0, 1) of the running sums kept at each batch, for batches below about 16 samples;
            gradients flow through the present batch only. ``None`` uses the batch alone, as does ``eval()``.
        sample_weight: see :func:`monai_fair.losses.sample_weights`.
        activation: ``"relu"`` or ``"abs"`` applied to the features first, for layers with signed input
            (vision transformers, DenseNet without its last ReLU); ``None`` takes them as they are.
        scale_free: squared coefficient of variation instead of the variance.
        classes: classes whose evidence is spread; ``None`` is every output. ``[1]`` makes a two-output softmax
            equal to the form with one output.
        multi_label: one sigmoid per output instead of a softmax.
        distributed: add the sums over all processes; ``None`` does so when torch.distributed runs with more
            than one. Every process must then call this the same number of times.

    Raises:
        MonaiFairError: if options are out of range; all of them in one message.

    References:
        Shoby, Palmer, Kurian, Neuron Incidence Redistribution, arXiv 2605.19393.
    """

    def __init__(
        self,
        *,
        normalizer: Normalizer = "weights",
        correction: int = 0,
        detach_prob: bool = False,
        use_contribution: bool = False,
        momentum: float | None = None,
        sample_weight: SampleWeight = "prob",
        activation: Activation | None = None,
        scale_free: bool = False,
        classes: Sequence[int] | None = None,
        multi_label: bool = False,
        distributed: bool | None = None,
    ) -> None:
        super().__init__()
        self.normalizer = normalizer
        self.correction = correction
        self.detach_prob = detach_prob
        self.use_contribution = use_contribution
        self.momentum = momentum
        self.sample_weight = sample_weight
        self.activation = activation
        self.scale_free = scale_free
        self.classes = None if classes is None else tuple(classes)
        self.multi_label = multi_label
        self.distributed = distributed
        self._running: torch.Tensor | None = None
        raise_problems(MonaiFairError, "NIRRegularizer", _option_problems(self))

    def forward(
        self,
        y_pred: torch.Tensor,
        features: torch.Tensor,
        y: torch.Tensor | None = None,
        classifier_weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the penalty of one batch.

        Args:
            y_pred: logits, shape ``(B,)``, ``(B, 1)`` or ``(B, K)``.
            features: input of the last linear layer, before dropout, shape ``(B, D)``.
            y: labels, for ``sample_weight="prob_label"`` only.
            classifier_weight: weight of the last linear layer, ``(K, D)``, for ``use_contribution`` only.

        Returns:
            A scalar tensor, float32 or float64.

        Raises:
            MonaiFairError: if shapes do not fit or a needed argument is missing.
        """
        return self.penalty(self.channel_means(y_pred, features, y, classifier_weight))

    def penalty(self, means: torch.Tensor) -> torch.Tensor:
        """Return the penalty of channel means ``(C, D)`` made by :meth:`channel_means`."""
        return neuron_incidence_redistribution(means, correction=self.correction, scale_free=self.scale_free)

    def channel_means(
        self,
        y_pred: torch.Tensor,
        features: torch.Tensor,
        y: torch.Tensor | None = None,
        classifier_weight: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the channel means ``(C, D)`` that :meth:`penalty` takes; arguments as in :meth:`forward`."""
        logits, hidden = y_pred.as_subclass(torch.Tensor), features.as_subclass(torch.Tensor)
        dtype = torch.promote_types(torch.promote_types(logits.dtype, hidden.dtype), torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            sums = self._sums(logits.to(dtype), hidden.to(dtype), y)
            means = means_of_sums(sums, normalizer=self.normalizer)
            return means * self._contribution(classifier_weight, means) if self.use_contribution else means

    def get_extra_state(self) -> dict[str, Any]:
        """Return the running sums for a checkpoint; ``None`` before the first batch."""
        return {"running": self._running}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the running sums from a checkpoint."""
        self._running = state["running"]

    def extra_repr(self) -> str:
        """Return the options for ``print``."""
        names = ("normalizer", "sample_weight", "activation", "scale_free", "classes", "momentum")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def _sums(self, logits: torch.Tensor, hidden: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
        if self.activation is not None:
            hidden = hidden.relu() if self.activation == "relu" else hidden.abs()
        labels = None if y is None else y.as_subclass(torch.Tensor)
        weights = sample_weights(
            logits, labels, kind=self.sample_weight, multi_label=self.multi_label, classes=self.classes
        )
        sums = weighted_sums(hidden, weights.detach() if self.detach_prob else weights)
        if in_process_group() if self.distributed is None else self.distributed:
            sums = sum_over_processes(sums)
        return self._mix_running(sums) if self.momentum is not None and self.training else sums

    def _mix_running(self, sums: torch.Tensor) -> torch.Tensor:
        """Average sums, not means: a batch with little evidence for a class then counts little."""
        if self._running is not None and self._running.shape != sums.shape:
            raise MonaiFairError(
                f"NIRRegularizer: expected running sums of shape {tuple(sums.shape)} (classes, channels + 2), "
                f"got {tuple(self._running.shape)} from earlier batches or a checkpoint; use one per network"
            )
        if self._running is not None and self.momentum is not None:
            sums = torch.lerp(sums, self._running.to(sums), self.momentum)
        self._running = sums.detach()
        return sums

    def _contribution(self, weight: torch.Tensor | None, means: torch.Tensor) -> torch.Tensor:
        rows = None if weight is None or len(weight) == 1 else self.classes
        chosen = None if weight is None else select_classes(weight.as_subclass(torch.Tensor).T, rows).T
        if chosen is None or chosen.shape != means.shape:
            got = "none" if weight is None else str(tuple(weight.shape))
            raise MonaiFairError(
                f"NIRRegularizer: expected classifier_weight of shape (K, {means.shape[1]}) for use_contribution, "
                f"got {got}; pass the weight of the last linear layer"
            )
        return chosen.to(means.dtype)


def _option_problems(options: NIRRegularizer) -> list[str]:
    allowed: dict[str, tuple[object, ...]] = {
        "normalizer": get_args(Normalizer),
        "correction": (0, 1),
        "sample_weight": get_args(SampleWeight),
        "activation": (None, *get_args(Activation)),
    }
    problems = [
        f"expected {name} to be {' or '.join(map(repr, choices))}, got {getattr(options, name)!r}; choose one"
        for name, choices in allowed.items()
        if getattr(options, name) not in choices
    ]
    if options.momentum is not None and not 0 <= options.momentum < 1:
        problems.append(f"expected momentum to be None or in [0, 1), got {options.momentum}; correct it")
    if options.classes is not None and (not options.classes or len(set(options.classes)) < len(options.classes)):
        problems.append(f"expected classes to be None or distinct indices, got {list(options.classes)}; correct it")
    return problems
