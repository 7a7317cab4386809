"""What sampling and chance make of every quantity: resamples, shuffled groups, swapped runs.

Each statistic is computed from counts of kinds, the observed one too, so that a p value compares like with like.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.curves import precision_on_grid, roc_on_grid
from monai_fair.metrics.estimates import Quantity
from monai_fair.metrics.gaps import gaps_of_groupings
from monai_fair.metrics.kinds import Kinds, values_of
from monai_fair.metrics.pairing import PairedKinds, swap_runs
from monai_fair.metrics.permutation import permute_groups
from monai_fair.metrics.resampling import kind_counts, resample
from monai_fair.metrics.samples import Samples

_RANKED = ("auc", "average_precision")


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        quantities: the quantities, Q of them.
        rules: names of the threshold rules.
        starts: first group of each grouping.
        curved: groups whose curves are drawn.
    """

    quantities: tuple[Quantity, ...]
    rules: tuple[str, ...]
    starts: IntArray
    curved: IntArray

    @cached_property
    def gap_keys(self) -> tuple[str, ...]:
        """Keys of the gaps: of all quantities, then equalized odds under each rule."""
        return (*(quantity.key for quantity in self.quantities), *(f"equalized_odds@{rule}" for rule in self.rules))

    @cached_property
    def pairs(self) -> list[tuple[str, int | None]]:
        """Key of the metric and index of the rule of each quantity."""
        return [(q.metric.key, None if q.rule is None else self.rules.index(q.rule)) for q in self.quantities]

    def gaps(self, values: FloatArray, counted: BoolArray) -> FloatArray:
        """Return the gaps ``(..., Q + R, A)`` of values ``(..., Q, G)`` over the counted groups ``(Q, G)``."""
        return self.with_equalized_odds(gaps_of_groupings(values, counted, self.starts))

    def with_equalized_odds(self, gaps: FloatArray) -> FloatArray:
        """Append to gaps ``(..., Q, A)`` the larger of the TPR and the FPR gap under each rule."""
        keys = self.gap_keys
        odds = [
            np.maximum(gaps[..., keys.index(f"tpr@{rule}"), :], gaps[..., keys.index(f"fpr@{rule}"), :])
            for rule in self.rules
        ]
        return np.concatenate([gaps, np.stack(odds, axis=-2)], axis=-2) if odds else gaps


@dataclass(frozen=True)
class RunKinds:
    """Kinds of one run's seeds, and which of its groups take part in which gap, shape ``(Q, G)``."""

    seeds: tuple[str, ...]
    kinds: tuple[Kinds, ...]
    counted: BoolArray

    def values(self, counts: Sequence[FloatArray], plan: Plan) -> FloatArray:
        """Return every quantity of every seed ``(S, b, Q, G)`` from one array of counts ``(b, G, 2, T)`` per seed."""
        return np.stack([values_of(kinds, count, plan.pairs) for kinds, count in zip(self.kinds, counts, strict=True)])

    def curves(self, counts: Sequence[FloatArray], plan: Plan) -> FloatArray:
        """Return ROC and precision-recall curves, mean over seeds, shape ``(b, 2, groups, 101)``."""
        chosen = [kinds.score_counts(count[:, plan.curved]) for kinds, count in zip(self.kinds, counts, strict=True)]
        return np.stack(
            [np.mean([curve(count) for count in chosen], axis=0) for curve in (roc_on_grid, precision_on_grid)], axis=1
        ).astype(np.float32)


@dataclass(frozen=True)
class RunSpread:
    """One run: observed, resampled and shuffled.

    Attributes:
        values: quantities from kinds, mean over seeds, shape ``(Q, G)``.
        gaps: mean over seeds of each seed's gap, shape ``(Q + R, A)``.
        curves: mean over seeds, shape ``(2, groups, 101)``.
        resampled_values: shape ``(B, Q, G)``.
        gap_errors: mean over seeds of the range over groups of resampled minus observed values, ``(B, Q + R, A)``.
        resampled_curves: shape ``(B, 2, groups, 101)``.
        permuted_gaps: shape ``(P, Q + R, A)``.
    """

    values: FloatArray
    gaps: FloatArray
    curves: FloatArray
    resampled_values: FloatArray
    gap_errors: FloatArray
    resampled_curves: FloatArray
    permuted_gaps: FloatArray


def spread_of_runs(
    samples: Samples, runs: Sequence[RunKinds], plan: Plan, *, resamples: int, permutations: int, seed: int
) -> list[RunSpread]:
    """Resample subjects and shuffle groups, for all runs at once.

    Args:
        samples: in canonical order.
        runs: their kinds, in the same order.
        plan: what to measure.
        resamples: number of resamples.
        permutations: number of shuffles.
        seed: seed of both.

    Returns:
        One per run.
    """
    kinds = [kind for run in runs for kind in run.kinds]
    edges = np.cumsum([0, *(len(run.kinds) for run in runs)])
    parts = [slice(start, end) for start, end in pairwise(edges)]

    def gaps(counts: Sequence[FloatArray]) -> list[FloatArray]:
        return [
            plan.gaps(run.values(counts[part], plan), run.counted).mean(axis=0)
            for run, part in zip(runs, parts, strict=True)
        ]

    observed_counts = [observed(samples, kind) for kind in kinds]
    centres = [run.values(observed_counts[part], plan) for run, part in zip(runs, parts, strict=True)]

    def everything(counts: Sequence[FloatArray]) -> list[FloatArray]:
        values = [run.values(counts[part], plan) for run, part in zip(runs, parts, strict=True)]
        found = [value.mean(axis=0) for value in values]
        found += [
            plan.gaps(value - centre, run.counted).mean(axis=0)
            for run, value, centre in zip(runs, values, centres, strict=True)
        ]
        return found + [run.curves(counts[part], plan) for run, part in zip(runs, parts, strict=True)]

    as_is, observed_gaps = ([array[0] for array in f(observed_counts)] for f in (everything, gaps))
    resampled = resample(samples, kinds, everything, resamples=resamples, seed=seed)
    permuted = permute_groups(samples, kinds, gaps, permutations=permutations, seed=seed + 1)
    many = len(runs)
    return [
        RunSpread(
            values=as_is[index],
            gaps=observed_gaps[index],
            curves=as_is[2 * many + index],
            resampled_values=resampled[index],
            gap_errors=resampled[many + index],
            resampled_curves=resampled[2 * many + index],
            permuted_gaps=permuted[index],
        )
        for index in range(many)
    ]


def shared_seeds(first: Sequence[str], later: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the positions of the seeds that two runs share, in the later and in the first one."""
    names = [name for name in first if name in later]
    return [later.index(name) for name in names], [first.index(name) for name in names]


def observed(samples: Samples, kinds: Kinds) -> FloatArray:
    """Return the counts of kinds of every group as they are, ``(1, G, 2, T)``."""
    code = (samples.cell * 2 + samples.y) * kinds.count + kinds.index
    counts = np.bincount(code, minlength=samples.num_cells * 2 * kinds.count).astype(np.float64)
    return kind_counts(samples, kinds, counts)


@dataclass(frozen=True)
class RunSwap:
    """Differences of a later run from the first, later minus first, observed and under swaps.

    Attributes:
        values: of quantities, mean over shared seeds, shape ``(Q, G)``.
        gaps: of gaps, shape ``(Q + R, A)``.
        swapped_values: shape ``(P, Q, G)``.
        swapped_gaps: shape ``(P, Q + R, A)``.
    """

    values: FloatArray
    gaps: FloatArray
    swapped_values: FloatArray
    swapped_gaps: FloatArray


def swap_of_runs(
    samples: Samples, first: RunKinds, later: RunKinds, plan: Plan, *, permutations: int, seed: int
) -> RunSwap | None:
    """Compare two runs by swapping them within subjects; None if they share no seed.

    Args:
        samples: in canonical order.
        first: the baseline.
        later: the other run.
        plan: what to measure.
        permutations: number of swaps.
        seed: seed of the swaps.

    Returns:
        The differences.
    """
    pairs = [
        PairedKinds(first.kinds[b], later.kinds[a])
        for a, b in zip(*shared_seeds(first.seeds, later.seeds), strict=True)
    ]
    if not pairs:
        return None
    counted = first.counted & later.counted
    ranked = np.array([key in _RANKED for key, _ in plan.pairs])
    of_ranks, of_scores = ([p for p in plan.pairs if (p[0] in _RANKED) == wanted] for wanted in (True, False))

    def measured(counts: Sequence[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
        values = np.empty((len(pairs), *counts[0][0].shape[:-3], ranked.size, samples.num_groups))
        for seed, (pair, (by_score, by_rank)) in enumerate(zip(pairs, counts, strict=True)):
            values[seed][..., ranked, :] = values_of(pair.by_rank, by_rank, of_ranks)
            values[seed][..., ~ranked, :] = values_of(pair.by_score, by_score, of_scores)
        return values.mean(axis=0), plan.gaps(values, counted).mean(axis=0)

    def measure(
        called_first: Sequence[tuple[FloatArray, FloatArray]], called_later: Sequence[tuple[FloatArray, FloatArray]]
    ) -> FloatArray:
        before, after = measured(called_first), measured(called_later)
        changes = [(b - a).reshape(len(a), -1) for a, b in zip(before, after, strict=True)]
        return np.concatenate(changes, axis=1)

    before, after = [], []
    for pair in pairs:
        counts = [observed(samples, kinds) for kinds in (pair.first, pair.later)]
        none = [np.zeros_like(count) for count in counts]
        before.append(pair.ordered(counts[0], none[1]))
        after.append(pair.ordered(none[0], counts[1]))
    change = measure(before, after)[0]
    swapped = swap_runs(samples, pairs, measure, permutations=permutations, seed=seed)
    size = len(plan.quantities) * samples.num_groups
    shapes = (len(plan.quantities), samples.num_groups), (len(plan.gap_keys), plan.starts.size)
    return RunSwap(
        change[:size].reshape(shapes[0]),
        change[size:].reshape(shapes[1]),
        swapped[:, :size].reshape(-1, *shapes[0]),
        swapped[:, size:].reshape(-1, *shapes[1]),
    )
