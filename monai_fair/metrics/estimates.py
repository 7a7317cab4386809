"""One quantity of one run in every group: value per seed, interval over cases, and why something is undefined."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.auc import auc_by_group, logit_interval, placements
from monai_fair.metrics.intervals import wilson_interval
from monai_fair.metrics.rates import RateName, confusion_counts, rate_parts

_NO_TRIAL: dict[RateName, str] = {
    "tpr": "no positive in this group",
    "fpr": "no negative in this group",
    "tnr": "no negative in this group",
    "ppv": "no sample predicted positive in this group",
}
_TRIALS: dict[RateName, str] = {
    "tpr": "positives",
    "fpr": "negatives",
    "tnr": "negatives",
    "ppv": "samples predicted positive",
}


@dataclass(frozen=True)
class Estimates:
    """One quantity over S seeds and G groups.

    Attributes:
        values: shape ``(S, G)``; NaN where undefined.
        low: lower ends over cases of each seed's value, shape ``(S, G)``.
        high: upper ends, shape ``(S, G)``.
        mean_low: lower ends over cases of the mean over seeds, shape ``(G,)``.
        mean_high: upper ends, shape ``(G,)``.
        reasons: why a group has no value; empty where it has one.
        interval_reasons: why a group has no interval over cases; empty where it has one.
        left_out: why a group does not take part in the gap; empty where it does.
    """

    values: FloatArray
    low: FloatArray
    high: FloatArray
    mean_low: FloatArray
    mean_high: FloatArray
    reasons: tuple[str, ...]
    interval_reasons: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def counted(self) -> BoolArray:
        """Groups that take part in the gap, shape ``(G,)``."""
        return np.array([not reason for reason in self.left_out], dtype=np.bool_)


def undefined(num_seeds: int, num_groups: int, reason: str) -> Estimates:
    """Return estimates that are undefined everywhere for one ``reason``."""
    seeds, groups = np.full((num_seeds, num_groups), np.nan), np.full(num_groups, np.nan)
    said = (reason,) * num_groups
    return Estimates(seeds, seeds, seeds, groups, groups, said, said, said)


def rate_estimates(
    name: RateName,
    y: BoolArray,
    y_pred: BoolArray,
    group: IntArray,
    num_groups: int,
    *,
    min_count: int = 10,
    confidence: float = 0.95,
) -> Estimates:
    """Return a rate with Wilson intervals.

    The interval of the mean over seeds takes that mean as if it came from one model on the same trials, which
    is at least as wide as its own.

    Args:
        name: the rate.
        y: True for positive, shape ``(N,)``.
        y_pred: True for predicted positive, shape ``(S, N)``.
        group: index of each sample's group or -1, shape ``(N,)``.
        num_groups: number of groups.
        min_count: trials a group needs to take part in the gap.
        confidence: of the intervals.

    Returns:
        The estimates.
    """
    counts = np.stack([confusion_counts(y, prediction, group, num_groups) for prediction in y_pred])
    successes, trials = rate_parts(name, counts)
    with np.errstate(invalid="ignore"):
        values = successes / trials
    low, high = wilson_interval(successes, trials, confidence=confidence)
    mean_trials = trials.mean(axis=0)
    mean_low, mean_high = wilson_interval(
        np.minimum(values.mean(axis=0), 1.0) * mean_trials, mean_trials, confidence=confidence
    )
    reasons = tuple(_rate_reason(name, column) for column in trials.T)
    few = f"fewer than {min_count} {_TRIALS[name]} in this group"
    left_out = tuple(
        reason or (few if count < min_count else "") for reason, count in zip(reasons, mean_trials, strict=True)
    )
    return Estimates(values, low, high, mean_low, mean_high, reasons, reasons, left_out)


def _rate_reason(name: RateName, trials: IntArray) -> str:
    empty = int((trials == 0).sum())
    if not empty:
        return ""
    return _NO_TRIAL[name] if empty == trials.size else f"{_NO_TRIAL[name]} in {empty} of {trials.size} seeds"


def auc_estimates(
    y: BoolArray,
    scores: FloatArray,
    group: IntArray,
    num_groups: int,
    *,
    min_count: int = 10,
    confidence: float = 0.95,
) -> Estimates:
    """Return the AUC with logit-DeLong intervals; the one of the mean knows how the seeds correlate.

    Args:
        y: True for positive, shape ``(N,)``.
        scores: shape ``(S, N)``.
        group: index of each sample's group or -1, shape ``(N,)``.
        num_groups: number of groups.
        min_count: positives and negatives a group needs for an interval and to take part in the gap.
        confidence: of the intervals.

    Returns:
        The estimates.
    """
    placed = np.stack([placements(y, score, group) for score in scores])
    pairs = [auc_by_group(y, placement, group, num_groups) for placement in placed]
    values, errors = (np.stack(part) for part in zip(*pairs, strict=True))
    mean, mean_error = auc_by_group(y, placed.mean(axis=0), group, num_groups)
    inside = group >= 0
    positives = np.bincount(group[inside & y], minlength=num_groups)
    negatives = np.bincount(group[inside & ~y], minlength=num_groups)
    reasons = tuple(_class_reason(p, n, 1) for p, n in zip(positives, negatives, strict=True))
    left_out = tuple(_class_reason(p, n, min_count) for p, n in zip(positives, negatives, strict=True))
    shown = np.array([not reason for reason in left_out], dtype=np.bool_)
    low, high = logit_interval(values, np.where(shown, errors, np.nan), confidence=confidence)
    mean_low, mean_high = logit_interval(mean, np.where(shown, mean_error, np.nan), confidence=confidence)
    return Estimates(
        values, low, high, mean_low, mean_high, reasons, _auc_interval_reasons(left_out, mean_low), left_out
    )


def _class_reason(positives: int, negatives: int, least: int) -> str:
    for count, singular in ((positives, "positive"), (negatives, "negative")):
        if count < least:
            return f"no {singular} in this group" if not count else f"fewer than {least} {singular}s in this group"
    return ""


def _auc_interval_reasons(left_out: Sequence[str], low: FloatArray) -> tuple[str, ...]:
    exact = "an AUC of exactly 0 or 1 has no DeLong interval"
    return tuple(reason or (exact if np.isnan(end) else "") for reason, end in zip(left_out, low, strict=True))
