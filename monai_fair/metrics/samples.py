"""The audited samples in an order of their own, so that no name and no file order reaches a random number.

Rows are sorted by what they hold (cell, truth, scores), and cells, the smallest groups that all attributes together
make, by a digest of their rows. Subjects and exchangeable units follow in order of appearance. Renaming groups,
subjects or images, or shuffling the file, therefore changes no result.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.groups import Grouping
from monai_fair.metrics.workers import CHUNK

# Counts and samples of all draws that are worked on at once; both fit into a processor's cache or a little more.
_COUNTS, _ROWS = 400_000, 4_000_000


@dataclass(frozen=True)
class Samples:
    """Samples in canonical order.

    Attributes:
        rows: position of each sample in the table they came from, shape ``(N,)``.
        y: True for positive, shape ``(N,)``.
        subject: index of each sample's subject, shape ``(N,)``; subjects in order of appearance.
        cell: index of each sample's cell, shape ``(N,)``.
        groupings: the groupings, in the order of the groups below.
        members: which cells make up each group of all groupings one after the other, shape ``(G, C)``.
        starts: first group of each grouping, shape ``(number of groupings,)``.
    """

    rows: IntArray
    y: BoolArray
    subject: IntArray
    cell: IntArray
    groupings: tuple[Grouping, ...]
    members: sparse.csr_array
    starts: IntArray

    @property
    def num_groups(self) -> int:
        """Number of groups of all groupings together."""
        return int(self.members.shape[0])

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        return int(self.members.shape[1])

    @cached_property
    def num_subjects(self) -> int:
        """Number of subjects."""
        return int(self.subject.max()) + 1

    @cached_property
    def unit(self) -> IntArray:
        """Index of the unit each sample belongs to, shape ``(N,)``: the samples of one subject in one cell."""
        return by_appearance(self.subject * self.num_cells + self.cell)

    def group_counts(self, cell_counts: FloatArray) -> FloatArray:
        """Add up counts of cells ``(C, 2, T, B)`` of B draws into counts of groups ``(B, G, 2, T)``."""
        flat = cell_counts.reshape(self.num_cells, -1)
        summed = (self.members @ flat).reshape(self.num_groups, *cell_counts.shape[1:])
        return np.ascontiguousarray(np.moveaxis(summed, -1, 0), dtype=np.float64)

    def block(self, num_kinds: int) -> int:
        """Return how many draws to work on at once: few calls for few samples, little memory for many."""
        return max(1, min(CHUNK, _COUNTS // (self.num_groups * 2 * num_kinds), _ROWS // self.y.size))


def by_appearance(codes: IntArray) -> IntArray:
    """Number the distinct values of ``codes`` from 0 in the order in which they appear."""
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    rank = np.empty(first.size, dtype=np.int64)
    rank[np.argsort(first)] = np.arange(first.size)
    return np.asarray(rank[inverse])


def canonical_samples(
    y: BoolArray, scores: Sequence[FloatArray], subject: IntArray, groupings: Sequence[Grouping]
) -> Samples:
    """Bring samples into an order that depends on what they hold and on nothing else.

    Args:
        y: True for positive, shape ``(N,)``.
        scores: of every run and seed, each of shape ``(N,)``.
        subject: index of each sample's subject, shape ``(N,)``.
        groupings: how samples are grouped; at least one.

    Returns:
        The samples.
    """
    cell = np.zeros(y.size, dtype=np.int64)
    for grouping in groupings:
        cell = cell * (len(grouping.names) + 1) + grouping.codes + 1
        cell = np.unique(cell, return_inverse=True)[1].astype(np.int64)
    rows = np.lexsort([*scores[::-1], y, cell])
    edges = np.flatnonzero(np.diff(cell[rows], prepend=-1, append=-1))
    blocks = [rows[start:end] for start, end in pairwise(edges)]
    order = _cell_order([_digest(y[block], [score[block] for score in scores]) for block in blocks], blocks, groupings)
    rows = np.concatenate([blocks[index] for index in order])
    ranked = np.repeat(np.arange(len(order)), [blocks[index].size for index in order])
    rows = rows[_order_of_ties([ranked, y[rows], *(score[rows] for score in scores)], subject[rows])]
    parts = [_members(grouping.codes[rows], len(grouping.names), ranked) for grouping in groupings]
    sizes = [len(grouping.names) for grouping in groupings]
    return Samples(
        rows=rows,
        y=y[rows],
        subject=by_appearance(subject[rows]),
        cell=ranked,
        groupings=tuple(groupings),
        members=sparse.csr_array(sparse.vstack(parts)),
        starts=np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64),
    )


def _digest(y: BoolArray, scores: Sequence[FloatArray]) -> bytes:
    """Digest of the distinct rows of a cell, sorted, and of their shares: copies of all images change nothing."""
    starts = _run_starts([y, *scores])
    counts = np.diff(starts, append=y.size)
    digest = hashlib.blake2b((counts // np.gcd.reduce(counts)).tobytes())
    for column in (y, *scores):
        digest.update(np.ascontiguousarray(column[starts]).tobytes())
    return digest.digest()


def _cell_order(digests: Sequence[bytes], blocks: Sequence[IntArray], groupings: Sequence[Grouping]) -> list[int]:
    """Order cells by what they hold, and cells that hold the same by what the groups they lie in hold."""
    around: list[list[bytes]] = [[] for _ in digests]
    for grouping in groupings:
        codes = [int(grouping.codes[block[0]]) for block in blocks]
        held: dict[int, list[bytes]] = {}
        for code, digest in zip(codes, digests, strict=True):
            held.setdefault(code, []).append(digest)
        joint = {code: hashlib.blake2b(b"".join(sorted(parts))).digest() for code, parts in held.items()}
        for place, code in zip(around, codes, strict=True):
            place.append(joint[code] if code >= 0 else b"")
    return sorted(range(len(digests)), key=lambda index: (digests[index], sorted(around[index])))


def _order_of_ties(columns: Sequence[npt.NDArray[Any]], subject: IntArray) -> IntArray:
    """Order rows that hold the same by what the other rows of their subject hold.

    What a subject holds is told by the mean of random numbers that stand for rows, then by the number of its rows.
    """
    count = np.bincount(subject)
    if count.max() == 1:
        return np.arange(subject.size)
    run = np.zeros(subject.size, dtype=np.int64)
    run[_run_starts(columns)[1:]] = 1
    run = run.cumsum()
    marks = np.random.default_rng(0).integers(0, 2**32, run[-1] + 1).astype(np.float64)
    mean = np.bincount(subject, marks[run]) / np.maximum(count, 1)
    return np.lexsort((count[subject], mean[subject], run))


def _run_starts(columns: Sequence[npt.NDArray[Any]]) -> IntArray:
    """First row of each run of equal rows."""
    changed = np.ones(columns[0].size, dtype=np.bool_)
    changed[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return np.flatnonzero(changed)


def _members(codes: IntArray, num_groups: int, cell: IntArray) -> sparse.csr_array:
    """Which cells make up each group: a cell lies in one group of a grouping, or in none."""
    _, first = np.unique(cell, return_index=True)
    group = codes[first]
    inside = np.flatnonzero(group >= 0)
    shape = (num_groups, first.size)
    return sparse.csr_array((np.ones(inside.size), (group[inside], inside)), shape=shape)
