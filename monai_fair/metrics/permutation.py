"""What differences between groups chance alone would give: group membership is shuffled, scores stay.

All attributes of a unit (the samples of one subject in one cell) move together to another unit of the same truth, so
each group keeps its number of positives and of negatives: a difference in prevalence alone is never called a gap, and
what it alone does to a quantity such as the PPV is part of the gap by chance. One shuffle serves all attributes, their
intersections, all quantities, runs and seeds. Missing values are shuffled like any other.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.kinds import Kinds
from monai_fair.metrics.samples import Samples
from monai_fair.metrics.workers import in_chunks


def permute_groups(
    samples: Samples,
    kinds: Sequence[Kinds],
    measure: Callable[[Sequence[FloatArray]], Sequence[FloatArray]],
    *,
    permutations: int,
    seed: int,
) -> list[FloatArray]:
    """Measure quantities under shuffled group membership.

    Units are shuffled among units of the same truth: all positive, all negative, or mixed. Units of several samples are
    shuffled among those of a similar number (1, 2 to 3, 4 to 7, ...), so that group sizes stay nearly as they are.

    Args:
        samples: in canonical order.
        kinds: of every run and seed, in the same order.
        measure: gets the counts of kinds of all groups in some shuffles ``(b, G, 2, T)``, one array per element of
            ``kinds``, and returns any number of arrays with a first axis of length b.
        permutations: number of shuffles ``B``.
        seed: seed of the shuffles.

    Returns:
        What ``measure`` returned, each array with a first axis of length ``B``.
    """
    unit = samples.unit
    _, first = np.unique(unit, return_index=True)
    stratum = unit_strata(unit, samples.y)
    by_stratum = np.argsort(stratum, kind="stable")
    edges = np.flatnonzero(np.diff(stratum[by_stratum], prepend=-1, append=-1))
    cells = samples.cell[first][by_stratum].astype(np.min_scalar_type(samples.num_cells))
    place = np.empty(by_stratum.size, dtype=np.int64)
    place[by_stratum] = np.arange(by_stratum.size)
    # Samples in the order of their units' places: with one sample per unit no lookup is needed.
    rows = np.argsort(place[unit], kind="stable")
    lookup = None if rows.size == by_stratum.size else place[unit][rows]
    bases = [(samples.y * kind.count + kind.index)[rows].astype(np.int64) for kind in kinds]
    most = samples.block(max(kind.count for kind in kinds))

    def work(size: int, generator: np.random.Generator) -> list[FloatArray]:
        found = []
        for start in range(0, size, most):
            block = min(most, size - start)
            shuffled = np.tile(cells, (block, 1))
            for row in shuffled:
                for first_of, end in pairwise(edges):
                    generator.shuffle(row[first_of:end])
            moved = shuffled if lookup is None else shuffled[:, lookup]
            found.append(measure([_count(samples, k, moved, base) for k, base in zip(kinds, bases, strict=True)]))
        return [np.concatenate(arrays) for arrays in zip(*found, strict=True)]

    return [
        np.concatenate(parts)
        for parts in zip(*in_chunks(permutations, seed, work, label="shuffles of groups"), strict=True)
    ]


def _count(samples: Samples, kinds: Kinds, cells: IntArray, base: IntArray) -> FloatArray:
    """Count kinds in every group, ``(b, G, 2, T)``, of b shuffles that give each sample a cell, ``(b, N)``."""
    size = samples.num_cells * 2 * kinds.count
    code = np.multiply(cells, 2 * kinds.count, dtype=np.int64)
    code += base
    counted = np.empty((size, len(cells)))
    for column, row in enumerate(code):
        counted[:, column] = np.bincount(row, minlength=size)
    return samples.group_counts(counted.reshape(samples.num_cells, 2, kinds.count, -1))


def unit_strata(unit: IntArray, y: BoolArray) -> IntArray:
    """Return the stratum of each unit: its truth (negative, positive, mixed) and the power of two of its size.

    Args:
        unit: index of each sample's unit, from 0 without gaps, shape ``(N,)``.
        y: True for positive, shape ``(N,)``.

    Returns:
        Any integers, shape ``(number of units,)``.
    """
    size, positives = np.bincount(unit), np.bincount(unit, y)
    truth = np.where(positives == 0, 0, np.where(positives == size, 1, 2))
    return np.asarray(3 * np.floor(np.log2(size)).astype(np.int64) + truth)
