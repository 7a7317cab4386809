"""Two runs on the same cases: what swapping them within subjects, by chance alone, makes of their difference."""

from collections.abc import Callable, Sequence

import numpy as np

from monai_fair.metrics.arrays import FloatArray, IntArray
from monai_fair.metrics.kinds import Kinds
from monai_fair.metrics.resampling import kind_counts, weighing
from monai_fair.metrics.samples import Samples
from monai_fair.metrics.workers import in_chunks

# Counts of kinds (b, G, 2, T) in the order of scores, and in that of ranks.
Ordered = tuple[FloatArray, FloatArray]


class PairedKinds:
    """Kinds of two runs side by side, so that a sample may count with the score of either.

    Metrics of the order of scores compare ranks within each run, because two runs may use the scale of scores
    differently; metrics of probabilities compare the scores as they are.

    References:
        Venkatraman and Begg, A distribution-free procedure for comparing receiver operating characteristic curves from
        a paired experiment, Biometrika 1996.
    """

    def __init__(self, first: Kinds, later: Kinds) -> None:
        self.first, self.later = first, later
        self.by_score, self._score_order = _side_by_side(first, later, [first.scores, later.scores])
        self.by_rank, self._rank_order = _side_by_side(first, later, [_ranks(first), _ranks(later)])

    def ordered(self, of_first: FloatArray, of_later: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Join counts of kinds of both runs ``(..., T)`` in the order of scores, and in that of ranks."""
        joined = np.concatenate([of_first, of_later], axis=-1)
        return joined[..., self._score_order], joined[..., self._rank_order]


def _ranks(kinds: Kinds) -> FloatArray:
    """Middle rank of each bin among all samples, in (0, 1)."""
    counts = np.bincount(kinds.index, minlength=kinds.count)
    sizes = np.add.reduceat(counts, kinds.starts)
    return np.asarray((sizes.cumsum() - sizes / 2) / sizes.sum())


def _side_by_side(first: Kinds, later: Kinds, values: Sequence[FloatArray]) -> tuple[Kinds, IntArray]:
    of_kinds = np.concatenate(
        [
            np.repeat(value, np.diff(kinds.starts, append=kinds.count))
            for value, kinds in zip(values, (first, later), strict=True)
        ]
    )
    order = np.argsort(of_kinds, kind="stable")
    ordered = of_kinds[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1.0) > 0)
    predicted = np.concatenate([first.predicted, later.predicted], axis=1)[:, order]
    return Kinds(np.zeros(0, dtype=np.int64), starts, ordered[starts], predicted), order


def swap_runs(
    samples: Samples,
    pairs: Sequence[PairedKinds],
    measure: Callable[[Sequence[Ordered], Sequence[Ordered]], FloatArray],
    *,
    permutations: int,
    seed: int,
) -> FloatArray:
    """Measure differences under random swaps: for each subject a coin decides which run its scores are said to be from.

    Args:
        samples: in canonical order.
        pairs: kinds of both runs for every seed they share.
        measure: gets, for what is called the first and for what is called the later run, per seed the counts of kinds
            of some swaps ``(b, G, 2, T)`` in the order of scores and in that of ranks; returns an array with a first
            axis of length b.
        permutations: number of swaps ``B``.
        seed: seed of the coins.

    Returns:
        What ``measure`` returned, with a first axis of length ``B``.
    """
    sides = [(pair.first, pair.later) for pair in pairs]
    matrices = [[weighing(samples, kinds) for kinds in both] for both in sides]
    everyone = np.ones((samples.num_subjects, 1), dtype=np.float32)
    totals = [[np.asarray(matrix @ everyone) for matrix in both] for both in matrices]

    most = samples.block(max(a.count + b.count for a, b in sides))

    def work(size: int, generator: np.random.Generator) -> FloatArray:
        found = []
        for start in range(0, size, most):
            block = min(most, size - start)
            coins = np.empty((samples.num_subjects, block), dtype=np.float32)
            for column in range(block):
                coins[:, column] = generator.integers(0, 2, samples.num_subjects, dtype=np.uint8)
            called_first, called_later = [], []
            for pair, both, total, matrix in zip(pairs, sides, totals, matrices, strict=True):
                moved = [np.asarray(each @ coins) for each in matrix]
                gone = [kind_counts(samples, k, part) for k, part in zip(both, moved, strict=True)]
                kept = [kind_counts(samples, k, all_ - part) for k, all_, part in zip(both, total, moved, strict=True)]
                called_first.append(pair.ordered(kept[0], gone[1]))
                called_later.append(pair.ordered(gone[0], kept[1]))
            found.append(measure(called_first, called_later))
        return np.concatenate(found)

    return np.concatenate(in_chunks(permutations, seed, work, label="swaps of runs"))
