"""Class means of features in one pass over batches, in memory that does not grow with the samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_fair.errors import MonaiFairError
from monai_fair.metrics.arrays import FloatArray, IntArray
from monai_fair.metrics.neural_collapse_batches import feature_rows

SumOverProcesses = Callable[[FloatArray], FloatArray]
# Means that are nearer to each other than this part of the features' spread cannot be told apart in float64.
_COINCIDE = 1e-12


@dataclass(frozen=True)
class ClassMeans:
    """Means of the features of each class, and of each class in each group.

    A mean is ``shift + offset``. The two are kept apart, so that a mean that all features share costs no digits of what
    lies around it.

    Attributes:
        shift: a point among the features, shape ``(d,)``.
        offsets: shape ``(K, d)``; NaN for a class without a sample.
        counts: samples of each class, shape ``(K,)``.
        groups: names of the groups, sorted, without missing values.
        group_offsets: shape ``(G, K, d)``; NaN where a group has no sample of a class.
        group_counts: shape ``(G, K)``.
        scale: root mean square distance of the features from ``shift``.
        n_not_finite: rows of features that no mean contains, because they are NaN or infinite.
    """

    shift: FloatArray
    offsets: FloatArray
    counts: IntArray
    groups: tuple[str, ...]
    group_offsets: FloatArray
    group_counts: IntArray
    scale: float
    n_not_finite: int

    @property
    def n(self) -> int:
        """Samples."""
        return int(self.counts.sum())

    @property
    def num_classes(self) -> int:
        """``K``."""
        return len(self.offsets)

    @property
    def means(self) -> FloatArray:
        """Class means ``mu_k``, shape ``(K, d)``."""
        return self.shift + self.offsets

    @property
    def group_means(self) -> FloatArray:
        """Means ``mu_{k,a}`` of each class in each group, shape ``(G, K, d)``."""
        return np.asarray(self.shift + self.group_offsets)

    @property
    def centred(self) -> FloatArray:
        """``mu_k - mu_G`` with the unweighted mean ``mu_G`` of the class means, shape ``(K, d)``."""
        return np.asarray(self.offsets - self.offsets.mean(axis=0))

    @property
    def pair_distances(self) -> FloatArray:
        """Distances of the class means, each pair once, in the order of ``np.triu_indices(K, 1)``."""
        first, second = np.triu_indices(self.num_classes, 1)
        return np.asarray(np.linalg.norm(self.offsets[first] - self.offsets[second], axis=1))

    @property
    def resolution(self) -> float:
        """Length below which a difference of means is rounding."""
        return _COINCIDE * self.scale

    def whitening(self) -> FloatArray | None:
        """Return ``P`` with ``P P^T = Sigma_B^+``, the pseudoinverse of the covariance of the class means.

        ``Sigma_B = M^T M / K`` with the rows ``mu_k - mu_G`` of ``M`` has rank ``r = min(K - 1, d)``: exactly so many
        singular values are inverted, because the others are rounding.

        Returns:
            ``P`` of shape ``(d, r)``, or ``None`` if the rank is smaller: a direction in which the means agree has no
            finite weight.
        """
        if not self.counts.all():
            return None
        _, singular, rows = np.linalg.svd(self.centred, full_matrices=False)
        rank = min(self.num_classes - 1, rows.shape[1])
        if singular[rank - 1] <= self.resolution:
            return None
        scaled: FloatArray = rows[:rank].T * (np.sqrt(self.num_classes) / singular[:rank])
        return scaled


class FeatureMoments:
    """Sums of features by class and group: the first of the two passes of neural collapse.

    Sums are taken of differences from a point among the first features, so that a large common mean does not eat the
    digits of the rest. Memory is ``K d`` numbers for each group.

    Args:
        num_classes: ``K``, at least 2.
        num_features: ``d``.

    Raises:
        MonaiFairError: if there are fewer than two classes or no feature.
    """

    def __init__(self, num_classes: int, num_features: int) -> None:
        if num_classes < 2 or num_features < 1:
            raise MonaiFairError(
                f"neural collapse: expected two classes or more and features, got {num_classes} and {num_features}; "
                "a network of one logit has two classes"
            )
        self.num_classes, self.num_features = num_classes, num_features
        self.n_not_finite = 0
        self._shift: FloatArray | None = None
        self._cells: dict[str, FloatArray] = {}

    @property
    def groups(self) -> tuple[str, ...]:
        """Names seen so far, sorted; the empty text stands for missing values."""
        return tuple(sorted(self._cells))

    def update(self, features: npt.ArrayLike, labels: npt.ArrayLike, groups: Sequence[str] | None = None) -> None:
        """Add a batch; arguments and errors as of :func:`monai_fair.metrics.neural_collapse`.

        A row with a feature that is NaN or infinite is counted and left out.
        """
        for rows in feature_rows(
            "neural collapse", features, labels, groups, num_classes=self.num_classes, num_features=self.num_features
        ):
            self.n_not_finite += rows.n_not_finite
            if not len(rows.features):
                continue
            if self._shift is None:
                self._shift = rows.features.mean(axis=0)
            x = rows.features - self._shift
            ones = np.ones((len(x), 1))
            lengths = np.einsum("ij,ij->i", x, x)[:, None]
            for name, sums in rows.sums_by_cell(np.hstack([x, ones, lengths]), self.num_classes).items():
                self._cells[name] = self._cells.get(name, 0.0) + sums

    def over_processes(self, total: SumOverProcesses, groups: Sequence[str]) -> "FeatureMoments":
        """Return the moments of all processes; a collective call.

        Args:
            total: adds an array over the processes, the same in each of them.
            groups: the names that :attr:`groups` of any process holds, the same in each of them.
        """
        own = np.zeros(self.num_features) if self._shift is None else self._shift
        there = np.append(own, 1.0) if self._shift is not None else np.zeros(self.num_features + 1)
        shared = total(there)
        shift = shared[:-1] / max(shared[-1], 1.0)
        empty = np.zeros((self.num_classes, self.num_features + 2))
        moved = [_moved(self._cells.get(name, empty), own - shift) for name in sorted(groups)]
        cells = np.reshape(moved, (len(moved), *empty.shape))  # also of no group, where no row is finite
        # one message for all numbers
        summed = total(np.append(cells.ravel(), float(self.n_not_finite)))
        found = FeatureMoments(self.num_classes, self.num_features)
        found.n_not_finite = int(summed[-1])
        found._shift = shift if shared[-1] else None
        found._cells = dict(zip(sorted(groups), summed[:-1].reshape(cells.shape), strict=True))
        return found

    def means(self) -> ClassMeans:
        """Return the means of what was added.

        Raises:
            MonaiFairError: if nothing was.
        """
        if self._shift is None and not self.n_not_finite:
            raise MonaiFairError("neural collapse: expected features, got none; add a batch first")
        shift = np.zeros(self.num_features) if self._shift is None else self._shift
        empty = np.zeros((self.num_classes, self.num_features + 2))
        pooled = sum(self._cells.values(), empty)
        names = tuple(name for name in self.groups if name)
        cells = np.stack([self._cells[name] for name in names]) if names else empty[None][:0]
        offsets, counts = _divided(pooled)
        group_offsets, group_counts = _divided(cells)
        scale = float(np.sqrt(pooled[:, -1].sum() / max(counts.sum(), 1)))
        return ClassMeans(shift, offsets, counts, names, group_offsets, group_counts, scale, self.n_not_finite)


def _moved(cells: FloatArray, by: FloatArray) -> FloatArray:
    """Return the sums of one group around a point that lies ``-by`` from the old one."""
    count, sums = cells[:, -2:-1], cells[:, :-2]
    lengths = cells[:, -1:] + 2 * sums @ by[:, None] + count * (by @ by)
    return np.hstack([sums + count * by, count, lengths])


def _divided(cells: FloatArray) -> tuple[FloatArray, IntArray]:
    """Return means and counts of sums; NaN where there is nothing to divide."""
    counts = cells[..., -2:-1]
    means = np.divide(cells[..., :-2], counts, out=np.full(cells[..., :-2].shape, np.nan), where=counts > 0)
    return means, counts[..., 0].astype(np.int64)
