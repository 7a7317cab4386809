"""One class against the rest: everything the audit computes of it, before it is written into records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.clusters import Clusters, clusters_of
from monai_fair.metrics.definitions import Metric
from monai_fair.metrics.estimates import RESAMPLED, RESAMPLED_LOGIT, Estimates, GroupedRun, estimate_all, quantities_of
from monai_fair.metrics.groups import Grouping
from monai_fair.metrics.kinds import kinds_of
from monai_fair.metrics.resampling import resampled_interval, resampled_logit_interval
from monai_fair.metrics.rules import FittedRule
from monai_fair.metrics.samples import Samples, canonical_samples
from monai_fair.metrics.settings import AuditSettings
from monai_fair.metrics.spread import Plan, RunKinds, RunSpread, RunSwap, spread_of_runs, swap_of_runs
from monai_fair.metrics.workers import in_threads


@dataclass(frozen=True)
class ScoredRun:
    """One run's scores for one target, in canonical order.

    Attributes:
        name: the run.
        seeds: one name per seed.
        scores: shape ``(S, N)``.
        rules: thresholds under each rule.
        predictions: True for predicted positive, by rule, each of shape ``(S, N)``; None where there is no threshold.
    """

    name: str
    seeds: tuple[str, ...]
    scores: FloatArray
    rules: Mapping[str, FittedRule]
    predictions: Mapping[str, BoolArray | None]


@dataclass(frozen=True)
class MeasuredTarget:
    """Everything that was computed for one target.

    Attributes:
        samples: in canonical order; the first grouping is everyone.
        runs: their scores in the same order.
        estimates: of each run, one mapping per grouping.
        plan: which quantities, gaps and curves.
        spreads: resamples and shuffles of each run.
        swaps: of each later run with the first; None where they share no seed.
        clusters: subjects in each grouping.
        class_subjects: subjects with a positive, and with a negative, in each group, shape ``(2, G)``.
    """

    samples: Samples
    runs: tuple[ScoredRun, ...]
    estimates: tuple[tuple[Mapping[str, Estimates], ...], ...]
    plan: Plan
    spreads: tuple[RunSpread, ...]
    swaps: tuple[RunSwap | None, ...]
    clusters: tuple[Clusters, ...]
    class_subjects: IntArray

    @cached_property
    def codes(self) -> tuple[IntArray, ...]:
        """Group of each sample in canonical order, by grouping."""
        return tuple(grouping.codes[self.samples.rows] for grouping in self.samples.groupings)

    def subjects_behind(self, metric: Metric) -> IntArray:
        """Return the subjects that limit how well a metric is known in each group, shape ``(G,)``.

        Those with a case it is computed from; for a metric of both classes those of the smaller class.
        """
        positives, negatives = self.class_subjects
        if metric.needs == "cases":
            return np.asarray(positives + negatives)
        if metric.needs in ("positives", "negatives"):
            return np.asarray(positives if metric.needs == "positives" else negatives)
        return np.asarray(np.minimum(positives, negatives))

    def groups_of(self, index: int) -> slice:
        """Return where the groups of one grouping stand among all groups."""
        start = int(self.samples.starts[index])
        return slice(start, start + len(self.samples.groupings[index].names))


def everyone(size: int) -> Grouping:
    """Return the grouping of all samples in one group."""
    return Grouping((), ((),), ("everyone",), np.zeros(size, dtype=np.int64))


def measure_target(
    y: BoolArray,
    scores: Sequence[tuple[str, tuple[str, ...], FloatArray, Mapping[str, FittedRule]]],
    subjects: IntArray,
    grouped: Sequence[Grouping],
    settings: AuditSettings,
) -> MeasuredTarget:
    """Compute values, intervals, gaps and comparisons of all runs for one target.

    Args:
        y: True for positive, shape ``(N,)``.
        scores: name, seeds, scores ``(S, N)`` and thresholds of each run; the first is the baseline.
        subjects: index of each sample's subject, shape ``(N,)``.
        grouped: the groupings.
        settings: of the audit.

    Returns:
        What was computed.
    """
    groupings = [everyone(y.size), *grouped]
    samples = canonical_samples(y, [row for _, _, rows, _ in scores for row in rows], subjects, groupings)
    runs = tuple(_in_order(name, seeds, rows, rules, samples.rows) for name, seeds, rows, rules in scores)
    plan = Plan(
        tuple(quantities_of(settings.rules)),
        tuple(settings.rules),
        samples.starts,
        np.flatnonzero(np.repeat([len(g.attributes) < 2 for g in groupings], [len(g.names) for g in groupings])),
    )
    repeated = samples.num_subjects < y.size
    codes = [grouping.codes[samples.rows] for grouping in groupings]
    clusters = tuple(
        clusters_of(code, len(grouping.names), samples.subject if repeated else None)
        for code, grouping in zip(codes, groupings, strict=True)
    )
    jobs = [(run, index) for run in runs for index in range(len(groupings))]

    def estimate(job: tuple[ScoredRun, int]) -> dict[str, Estimates]:
        run, index = job
        grouped_run = GroupedRun(
            samples.y,
            run.scores,
            run.predictions,
            {name: rule.reason for name, rule in run.rules.items()},
            codes[index],
            len(groupings[index].names),
            clusters[index],
            settings.min_count,
            settings.confidence,
        )
        return estimate_all(grouped_run, plan.quantities)

    done = in_threads(estimate, jobs, label="values and intervals")
    estimates = tuple(tuple(done[start : start + len(groupings)]) for start in range(0, len(done), len(groupings)))
    class_subjects = [np.concatenate([c.count(chosen) for c in clusters]) for chosen in (samples.y, ~samples.y)]
    kinds = [_kinds(run, found, samples, plan) for run, found in zip(runs, estimates, strict=True)]
    spreads = spread_of_runs(
        samples, kinds, plan, resamples=settings.resamples, permutations=settings.permutations, seed=settings.seed
    )
    swaps = [
        swap_of_runs(samples, kinds[0], later, plan, permutations=settings.permutations, seed=settings.seed + 2)
        for later in kinds[1:]
    ]
    measured = MeasuredTarget(
        samples, runs, estimates, plan, tuple(spreads), tuple(swaps), clusters, np.stack(class_subjects)
    )
    return replace(measured, estimates=_with_resampled(measured, settings.confidence))


def _in_order(
    name: str, seeds: tuple[str, ...], scores: FloatArray, rules: Mapping[str, FittedRule], rows: IntArray
) -> ScoredRun:
    predictions: dict[str, BoolArray | None] = {}
    for rule, fitted in rules.items():
        of_rows = fitted.thresholds if fitted.thresholds.shape[1] == 1 else fitted.thresholds[:, rows]
        predictions[rule] = None if fitted.reason else np.asarray(scores[:, rows] >= of_rows)
    return ScoredRun(name, seeds, scores[:, rows], rules, predictions)


def _kinds(run: ScoredRun, estimates: Sequence[Mapping[str, Estimates]], samples: Samples, plan: Plan) -> RunKinds:
    kinds = []
    for seed, score in enumerate(run.scores):
        of_rules = [run.predictions[rule] for rule in plan.rules]
        predictions = [np.zeros(score.size, dtype=np.bool_) if rows is None else rows[seed] for rows in of_rules]
        kinds.append(kinds_of(samples.y, score, np.array(predictions, dtype=np.bool_).reshape(-1, score.size)))
    counted = np.stack(
        [np.concatenate([found[quantity.key].counted for found in estimates]) for quantity in plan.quantities]
    )
    return RunKinds(run.seeds, tuple(kinds), counted)


def _with_resampled(measured: MeasuredTarget, confidence: float) -> tuple[tuple[Mapping[str, Estimates], ...], ...]:
    """Fill in the intervals that come from resamples."""
    filled = []
    for spread, of_run in zip(measured.spreads, measured.estimates, strict=True):
        of_groupings = []
        for index, found in enumerate(of_run):
            inside, mended = measured.groups_of(index), dict(found)
            for row, quantity in enumerate(measured.plan.quantities):
                estimates = found[quantity.key]
                subjects = measured.subjects_behind(quantity.metric)[inside]
                resampled = spread.resampled_values[:, row, inside]
                if estimates.method == RESAMPLED:
                    low, high = resampled_interval(
                        estimates.mean, spread.values[row, inside], resampled, subjects, confidence=confidence
                    )
                elif estimates.method == RESAMPLED_LOGIT:
                    low, high = resampled_logit_interval(estimates.mean, resampled, subjects, confidence=confidence)
                else:
                    continue
                mended[quantity.key] = estimates.with_interval(low, high)
            of_groupings.append(mended)
        filled.append(tuple(of_groupings))
    return tuple(filled)
