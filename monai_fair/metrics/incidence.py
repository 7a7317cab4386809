"""Which penultimate channels carry a prediction, how concentrated they are, and what happens without one.

These are the diagnostics beside neuron incidence redistribution. They need the features that enter the last
linear layer and the scores of a held-out set; no model and no torch. The paper's own recipe is not public.

References:
    Shoby, Palmer, Kurian, Neuron Incidence Redistribution, arXiv 2605.19393.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import entropy

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.arrays import BoolArray, FloatArray


@dataclass(frozen=True)
class ChannelIncidence:
    """Mean activation of every channel under positive and under negative predictions.

    Attributes:
        n: samples.
        n_predicted_positive: samples with a probability of at least ``threshold``.
        threshold: the threshold.
        hard_positive: mean over samples predicted positive, ``D`` values; all NaN without such samples.
        hard_negative: mean over samples predicted negative.
        soft_positive: mean over all samples weighted by the probability ``p``.
        soft_negative: mean over all samples weighted by ``1 - p``.
        dominant: channel index by name. ``hard_positive``, ``hard_negative``, ``soft_positive`` and
            ``soft_negative``: the largest mean. ``*_contrast_positive`` and ``*_contrast_negative``: the largest
            and the smallest difference of positive and negative mean, because a channel that is always on can
            be the largest of both. ``None`` where undefined; the first of equal channels.
        reasons: why something is undefined, by name.
    """

    n: int
    n_predicted_positive: int
    threshold: float
    hard_positive: tuple[float, ...]
    hard_negative: tuple[float, ...]
    soft_positive: tuple[float, ...]
    soft_negative: tuple[float, ...]
    dominant: dict[str, int | None]
    reasons: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def channel_incidence(features: npt.ArrayLike, prob: npt.ArrayLike, *, threshold: float = 0.5) -> ChannelIncidence:
    """Return the mean activation of every channel under positive and negative predictions, hard and soft.

    Args:
        features: input of the last linear layer, shape ``(N, D)``.
        prob: predicted probability of the class, shape ``(N,)``, in [0, 1]; of several classes, one at a time.
        threshold: a sample counts as predicted positive from this probability on.

    Raises:
        MonaiFairError: if shapes do not fit or values are not finite or out of range.
    """
    hidden, p = _features("channel_incidence", features), np.asarray(prob, dtype=np.float64)
    if p.shape != hidden.shape[:1] or not bool(np.all((p >= 0) & (p <= 1))):
        raise MonaiFairError(
            f"channel_incidence: expected {len(hidden)} probabilities in [0, 1], got shape {p.shape} "
            f"from {_range(p)}; give one score per row of features"
        )
    positive = p >= threshold
    weights = {
        "hard_positive": positive.astype(np.float64),
        "hard_negative": (~positive).astype(np.float64),
        "soft_positive": p,
        "soft_negative": 1 - p,
    }
    means = {name: _weighted_mean(hidden, weight) for name, weight in weights.items()}
    reasons = {name: _no_weight(name, threshold) for name, mean in means.items() if np.isnan(mean).any()}
    return ChannelIncidence(
        n=len(p),
        n_predicted_positive=int(positive.sum()),
        threshold=float(threshold),
        **{name: tuple(mean.tolist()) for name, mean in means.items()},
        dominant=_dominant(means),
        reasons=reasons,
    )


@dataclass(frozen=True)
class Concentration:
    """How unevenly evidence lies over ``D`` channels with means ``m_j``; all values 0 to 1 except ``cv``.

    Attributes:
        num_channels: ``D``.
        cv: coefficient of variation, population standard deviation over mean; 0 when even, at most
            ``sqrt(D - 1)``.
        top1_share: largest channel over the sum; ``1 / D`` when even, 1 when one channel has everything.
        top10_share: the ten largest channels over the sum.
        normalized_entropy: ``-sum_j q_j log q_j / log D`` with ``q_j = m_j / sum m``; 1 when even, 0 when one
            channel has everything.
        gini: ``sum_j (2 j - D - 1) m_(j) / (D sum m)``, channels sorted upwards, ``j`` from 1; 0 when even, at
            most ``(D - 1) / D``.
        participation_ratio: ``(sum m)^2 / (D sum m^2)``; 1 when even, at least ``1 / D``.
        reasons: why a value is NaN, by name.
    """

    num_channels: int
    cv: float
    top1_share: float
    top10_share: float
    normalized_entropy: float
    gini: float
    participation_ratio: float
    reasons: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def concentration(means: npt.ArrayLike) -> Concentration:
    """Return how concentrated channel means are; the definitions stand in :class:`Concentration`.

    Args:
        means: one mean per channel, shape ``(D,)``, such as ``ChannelIncidence.soft_positive``.

    Returns:
        The measures. All are NaN, with a reason, if the means are not finite, are partly negative, or are all
        0; the entropy also for one channel.

    Raises:
        MonaiFairError: if ``means`` is not one row of at least one channel.
    """
    m = np.asarray(means, dtype=np.float64)
    if m.ndim != 1 or not m.size:
        raise MonaiFairError(f"concentration: expected means of shape (D,), D >= 1, got {m.shape}; give one class")
    names = ("cv", "top1_share", "top10_share", "normalized_entropy", "gini", "participation_ratio")
    reason = _no_shares(m)
    values = dict.fromkeys(names, float("nan")) if reason else _measures(m)
    reasons = dict.fromkeys(names, reason) if reason else {}
    if m.size == 1 and not reason:
        reasons = {"normalized_entropy": "there is one channel only"}
    return Concentration(num_channels=m.size, **values, reasons=reasons)


def ablate_channel(
    features: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike,
    channel: int,
    *,
    replace: Literal["zero", "mean"] = "zero",
) -> FloatArray:
    """Return the logits the last linear layer gives when one channel is replaced in every sample.

    Nothing after the features depends on the rest of the network, so this is exact and needs no model.
    Probabilities follow with ``scipy.special.expit`` (one output) or ``softmax`` (several).

    Args:
        features: input of the last linear layer, shape ``(N, D)``.
        weight: its weight, shape ``(D,)``, ``(1, D)`` or ``(K, D)``.
        bias: its bias, a number or shape ``(K,)``; 0 without bias.
        channel: index of the channel, 0 to ``D - 1``.
        replace: ``"zero"``, or ``"mean"`` for the channel's mean over the samples.

    Returns:
        Logits, shape ``(N,)`` for one output and ``(N, K)`` for several.

    Raises:
        MonaiFairError: if shapes, ``channel`` or ``replace`` do not fit; all problems in one message.
    """
    hidden = _features("ablate_channel", features)
    rows = np.atleast_2d(np.asarray(weight, dtype=np.float64))
    offset = np.atleast_1d(np.asarray(bias, dtype=np.float64))
    problems = []
    if rows.ndim != 2 or rows.shape[1] != hidden.shape[1]:
        problems.append(f"expected weight of shape (K, {hidden.shape[1]}), got {rows.shape}; give the last layer's")
    if offset.shape not in ((1,), (len(rows),)):
        problems.append(f"expected bias of shape ({len(rows)},), got {offset.shape}; give the last layer's")
    if not 0 <= channel < hidden.shape[1]:
        problems.append(f"expected channel from 0 to {hidden.shape[1] - 1}, got {channel}; correct it")
    if replace not in ("zero", "mean"):
        problems.append(f"expected replace 'zero' or 'mean', got '{replace}'; choose one")
    raise_problems(MonaiFairError, "ablate_channel", problems)
    replaced = hidden.copy()
    replaced[:, channel] = 0 if replace == "zero" else hidden[:, channel].mean()
    logits = replaced @ rows.T + offset
    return logits[:, 0] if len(rows) == 1 else logits


def _features(source: str, features: npt.ArrayLike) -> FloatArray:
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or not values.size or not bool(np.isfinite(values).all()):
        raise MonaiFairError(
            f"{source}: expected finite features of shape (N, D), N and D at least 1, got shape {values.shape} "
            f"from {_range(values)}; check the run that wrote them"
        )
    return values


def _range(values: FloatArray) -> str:
    return f"{values.min()} to {values.max()}" if values.size else "nothing"


def _weighted_mean(hidden: FloatArray, weight: FloatArray) -> FloatArray:
    total = weight.sum()
    return weight @ hidden / total if total > 0 else np.full(hidden.shape[1], np.nan)


def _no_weight(name: str, threshold: float) -> str:
    kind, side = name.split("_")
    if kind == "hard":
        return f"no sample is predicted {side} at threshold {threshold:g}"
    return f"every sample has a {side} probability of 0"


def _dominant(means: dict[str, FloatArray]) -> dict[str, int | None]:
    result = {name: _argmax(mean) for name, mean in means.items()}
    for kind in ("hard", "soft"):
        contrast = means[f"{kind}_positive"] - means[f"{kind}_negative"]
        result[f"{kind}_contrast_positive"] = _argmax(contrast)
        result[f"{kind}_contrast_negative"] = _argmax(-contrast)
    return result


def _argmax(values: FloatArray) -> int | None:
    return None if np.isnan(values).any() else int(values.argmax())


def _no_shares(m: FloatArray) -> str:
    if not bool(np.isfinite(m).all()):
        return "a channel mean is not finite"
    negative: BoolArray = m < 0
    if negative.any():
        return f"{int(negative.sum())} of {m.size} channel means are negative; take features after ReLU"
    return "" if m.any() else "all channel means are 0"


def _measures(m: FloatArray) -> dict[str, float]:
    # Every measure is free of scale; dividing first keeps squares of tiny or huge means in range.
    m = np.sort(m / m.max())
    total, rank = m.sum(), np.arange(1, m.size + 1)
    return {
        "cv": float(m.std() / m.mean()),
        "top1_share": float(m[-1] / total),
        "top10_share": float(m[-10:].sum() / total),
        "normalized_entropy": float(entropy(m) / np.log(m.size)) if m.size > 1 else float("nan"),
        "gini": float(((2 * rank - m.size - 1) * m).sum() / (m.size * total)),
        "participation_ratio": float(total**2 / (m.size * (m**2).sum())),
    }
