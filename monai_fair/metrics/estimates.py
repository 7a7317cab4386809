"""Every quantity of one run in the groups of one grouping: value per seed, interval over cases, reasons."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.auc import auc_by_group, auc_degrees, logit_interval, placements
from monai_fair.metrics.by_group import score_counts
from monai_fair.metrics.calibration import calibration_influence, error_of_calibrated_scores
from monai_fair.metrics.clusters import Clusters, effective_trials, few_subjects_share
from monai_fair.metrics.definitions import METRICS, Metric
from monai_fair.metrics.intervals import mean_of_rates_interval, student_interval, wilson_interval
from monai_fair.metrics.rates import (
    RATE_NAMES,
    RateName,
    balanced_accuracy,
    confusion_counts,
    f1_score,
    rate_parts,
    sample_parts,
)

WILSON, DELONG, MOVER, SANDWICH, RESAMPLED, RESAMPLED_LOGIT = (
    "Wilson",
    "DeLong on the logit scale",
    "of TPR and TNR together",
    "sandwich",
    "resampling of subjects",
    "resampling of subjects, on the logit scale",
)
_NO_ECE_INTERVAL = "it is above its true value by an amount that depends on n; compare it with what chance gives"


@dataclass(frozen=True)
class Quantity:
    """A metric, and for one that needs a threshold the rule that chooses it."""

    metric: Metric
    rule: str | None

    @property
    def key(self) -> str:
        """Its name in results: ``auc``, ``tpr@youden``."""
        return self.metric.key if self.rule is None else f"{self.metric.key}@{self.rule}"


def quantities_of(rules: Sequence[str]) -> list[Quantity]:
    """Return every quantity of an audit: the metrics of scores, then those of predictions under each rule."""
    scores = [Quantity(metric, None) for metric in METRICS.values() if metric.of_scores]
    return scores + [Quantity(metric, rule) for rule in rules for metric in METRICS.values() if metric.of_predictions]


@dataclass(frozen=True)
class Estimates:
    """One quantity over S seeds and G groups.

    Attributes:
        values: shape ``(S, G)``; NaN where undefined.
        low: lower ends over cases of the mean over seeds, shape ``(G,)``.
        high: upper ends, shape ``(G,)``.
        n: cases the value is computed from, mean over seeds, shape ``(G,)``.
        method: of the interval.
        reasons: why a group has no value; empty where it has one.
        interval_reasons: why a group has no interval over cases; empty where it has one.
        left_out: why a group does not take part in the gap; empty where it does.
        by_chance: what the value would be on average by chance, shape ``(G,)``, where that is not told by the metric.
    """

    values: FloatArray
    low: FloatArray
    high: FloatArray
    n: FloatArray
    method: str
    reasons: tuple[str, ...]
    interval_reasons: tuple[str, ...]
    left_out: tuple[str, ...]
    by_chance: FloatArray | None = None

    @property
    def counted(self) -> BoolArray:
        """Groups that take part in the gap, shape ``(G,)``."""
        return np.array([not reason for reason in self.left_out], dtype=np.bool_)

    @property
    def mean(self) -> FloatArray:
        """Mean over seeds, shape ``(G,)``."""
        return np.asarray(self.values.mean(axis=0))

    def with_interval(self, low: FloatArray, high: FloatArray) -> "Estimates":
        """Return the same estimates with the ends of a resampled interval where a group may have one."""
        kept = np.array([not reason for reason in self.interval_reasons])
        lost = "too few resamples define it, or it is exactly 0 or 1"
        said = tuple(
            reason or (lost if np.isnan(end) else "") for reason, end in zip(self.interval_reasons, low, strict=True)
        )
        return replace(self, low=np.where(kept, low, np.nan), high=np.where(kept, high, np.nan), interval_reasons=said)


@dataclass(frozen=True)
class GroupedRun:
    """One run's samples in the groups of one grouping.

    Attributes:
        y: True for positive, shape ``(N,)``.
        scores: shape ``(S, N)``.
        predictions: True for predicted positive, by rule, each of shape ``(S, N)``; None without a threshold.
        no_threshold: why a rule has no threshold; empty where it has one.
        group: index of each sample's group or -1, shape ``(N,)``.
        num_groups: number of groups G.
        clusters: the subjects of the groups.
        min_count: subjects a group needs for an interval and to take part in a gap.
        confidence: of the intervals.
    """

    y: BoolArray
    scores: FloatArray
    predictions: Mapping[str, BoolArray | None]
    no_threshold: Mapping[str, str]
    group: IntArray
    num_groups: int
    clusters: Clusters
    min_count: int
    confidence: float

    def few(self, singular: str, chosen: BoolArray, least: int) -> list[str]:
        """Say in which groups fewer than ``least`` subjects have a chosen sample."""
        counts = self.clusters.count(chosen)
        what = f"{singular}s" if self.clusters.single else f"subjects with a {singular}"
        said = f"fewer than {least} {what} in this group"
        return [f"no {singular} in this group" if not n else said if n < least else "" for n in counts]


def estimate_all(run: GroupedRun, quantities: Sequence[Quantity]) -> dict[str, Estimates]:
    """Return every quantity with the intervals that have a closed form; others wait for resamples.

    Args:
        run: samples in groups.
        quantities: see :func:`quantities_of`.

    Returns:
        Estimates by key of the quantity.
    """
    found: dict[str, Estimates] = {}
    by_score = _score_estimates(run)
    for quantity in quantities:
        rule = quantity.rule
        if rule is None:
            found[quantity.key] = by_score[quantity.metric.key]
        elif run.predictions[rule] is None:
            found[quantity.key] = undefined(len(run.scores), run.num_groups, run.no_threshold[rule])
    for rule, predictions in run.predictions.items():
        if predictions is not None:
            found.update({f"{key}@{rule}": e for key, e in _prediction_estimates(run, predictions).items()})
    return found


def undefined(num_seeds: int, num_groups: int, reason: str) -> Estimates:
    """Return estimates that are undefined everywhere for one ``reason``."""
    groups, said = np.full(num_groups, np.nan), (reason,) * num_groups
    return Estimates(np.full((num_seeds, num_groups), np.nan), groups, groups, groups, "", said, said, said)


def _prediction_estimates(run: GroupedRun, predictions: BoolArray) -> dict[str, Estimates]:
    counted = [confusion_counts(run.y, row, run.group, run.num_groups) for row in predictions]
    counts = np.stack(counted).astype(np.float64)
    found: dict[str, Estimates] = {}
    for name in RATE_NAMES:
        hits, trials = rate_parts(name, counts)
        worth = trials.mean(axis=0) if run.clusters.single else _worth(run, name, predictions)
        with np.errstate(invalid="ignore"):
            values = hits / trials
            rate = np.minimum(values.mean(axis=0), 1.0)
        low, high = wilson_interval(rate * np.nan_to_num(worth), np.nan_to_num(worth), confidence=run.confidence)
        reasons = _reasons(METRICS[name], values)
        subjects = trials.mean(axis=0) if run.clusters.single else _trial_subjects(run, name, predictions)
        few = _few_trials(METRICS[name], subjects, run)
        left_out = tuple(reason or less for reason, less in zip(reasons, few, strict=True))
        found[name] = Estimates(values, low, high, trials.mean(axis=0), WILSON, reasons, reasons, left_out)
    tpr, tnr = ((e.mean, e.low, e.high) for e in (found["tpr"], found["tnr"]))
    both = _both_classes(run)
    values = balanced_accuracy(counts)
    found["balanced_accuracy"] = _with_classes(
        run, METRICS["balanced_accuracy"], values, both, mean_of_rates_interval(tpr, tnr), MOVER
    )
    found["f1"] = _with_classes(run, METRICS["f1"], f1_score(counts), both, None, RESAMPLED_LOGIT)
    return found


def _worth(run: GroupedRun, name: RateName, predictions: BoolArray) -> FloatArray:
    """Independent trials that the trials of a rate are worth, mean over seeds."""
    parts = [sample_parts(name, run.y, row) for row in predictions]
    worth = [
        effective_trials(hits.astype(np.float64), trials.astype(np.float64), run.group, run.clusters)
        * few_subjects_share(run.clusters.count(trials), confidence=run.confidence)
        for hits, trials in parts
    ]
    return np.asarray(np.mean(worth, axis=0))


def _trial_subjects(run: GroupedRun, name: RateName, predictions: BoolArray) -> FloatArray:
    """Subjects with a trial of a rate, mean over seeds."""
    found = [run.clusters.count(sample_parts(name, run.y, row)[1]) for row in predictions]
    return np.asarray(np.mean(found, axis=0))


def _score_estimates(run: GroupedRun) -> dict[str, Estimates]:
    names = [key for key, metric in METRICS.items() if metric.of_scores and key != "auc"]
    values = {name: np.full((len(run.scores), run.num_groups), np.nan) for name in names}
    chance = np.full((len(run.scores), run.num_groups), np.nan)
    influence = {name: np.zeros(run.y.size) for name in ("calibration_intercept", "calibration_slope")}
    for seed, score in enumerate(run.scores):
        for index, counts, scores in score_counts(run.y, score, run.group, run.num_groups):
            for name in names:
                measure = METRICS[name].of_scores
                assert measure is not None
                values[name][seed, index] = measure(counts, scores)
            chance[seed, index] = error_of_calibrated_scores(counts, scores)
        for name, total in influence.items():
            total += calibration_influence(name, run.y, score, run.group, values[name][seed]) / len(run.scores)
    both = _both_classes(run)
    found = {"auc": _auc_estimates(run, both)}
    for name in names:
        interval = None
        if name in influence:
            interval = _sandwich(run, values[name].mean(axis=0), influence[name])
        method = SANDWICH if interval else RESAMPLED_LOGIT if name == "average_precision" else RESAMPLED
        found[name] = _with_classes(run, METRICS[name], values[name], both, interval, method)
    nothing = tuple(reason or _NO_ECE_INTERVAL for reason in found["ece"].reasons)
    found["ece"] = replace(found["ece"], interval_reasons=nothing, method="", by_chance=chance.mean(axis=0))
    return found


def _sandwich(run: GroupedRun, value: FloatArray, influence: FloatArray) -> tuple[FloatArray, FloatArray]:
    error = np.sqrt(run.clusters.total(run.clusters.sums(influence) ** 2))
    smaller = np.minimum(run.clusters.count(run.y), run.clusters.count(~run.y))
    return student_interval(value, error, smaller - 1, confidence=run.confidence)


def _auc_estimates(run: GroupedRun, both: Sequence[str]) -> Estimates:
    placed = np.stack([placements(run.y, score, run.group) for score in run.scores])
    values = np.stack([auc_by_group(run.y, row, run.group, run.num_groups, run.clusters)[0] for row in placed])
    mean, error = auc_by_group(run.y, placed.mean(axis=0), run.group, run.num_groups, run.clusters)
    degrees = auc_degrees(run.y, placed.mean(axis=0), run.group, run.clusters)
    interval = logit_interval(mean, error, confidence=run.confidence, degrees=degrees)
    estimates = _with_classes(run, METRICS["auc"], values, both, interval, DELONG)
    exact = "an AUC of exactly 0 or 1 has no DeLong interval"
    said = tuple(
        reason or (exact if np.isnan(end) else "")
        for reason, end in zip(estimates.interval_reasons, estimates.low, strict=True)
    )
    return replace(estimates, interval_reasons=said)


def _with_classes(
    run: GroupedRun,
    metric: Metric,
    values: FloatArray,
    both: Sequence[str],
    interval: tuple[FloatArray, FloatArray] | None,
    method: str,
) -> Estimates:
    """Estimates of a metric that needs enough of both classes for an interval and a gap."""
    reasons = _reasons(metric, values)
    left_out = tuple(reason or less for reason, less in zip(reasons, both, strict=True))
    shown = np.array([not reason for reason in left_out])
    empty = np.full(run.num_groups, np.nan)
    low, high = (np.where(shown, end, np.nan) for end in interval or (empty, empty))
    n = np.bincount(run.group[run.group >= 0], minlength=run.num_groups).astype(np.float64)
    return Estimates(values, low, high, n, method, reasons, left_out, left_out)


def _both_classes(run: GroupedRun) -> list[str]:
    pairs = zip(run.few("positive", run.y, run.min_count), run.few("negative", ~run.y, run.min_count), strict=True)
    return [positive or negative for positive, negative in pairs]


def _few_trials(metric: Metric, counts: FloatArray, run: GroupedRun) -> list[str]:
    subjects: dict[str, Callable[[], list[str]]] = {
        "positives": lambda: run.few("positive", run.y, run.min_count),
        "negatives": lambda: run.few("negative", ~run.y, run.min_count),
    }
    if metric.needs in subjects:
        return subjects[metric.needs]()
    what = metric.needs if run.clusters.single else f"subjects with {metric.needs}"
    few = f"fewer than {run.min_count} {what} in this group"
    return [few if count < run.min_count else "" for count in counts]


def _reasons(metric: Metric, values: FloatArray) -> tuple[str, ...]:
    """Why the mean over seeds is undefined, by group."""
    empty = np.isnan(values).sum(axis=0)
    said = f"{metric.undefined} in this group"
    return tuple(
        "" if not count else said if count == len(values) else f"{said} in {count} of {len(values)} seeds"
        for count in empty
    )
