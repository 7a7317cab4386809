"""Distances of features to class means that are known: the second of the two passes of neural collapse."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.neural_collapse_batches import FeatureRows, feature_rows
from monai_fair.metrics.neural_collapse_head import LinearHead
from monai_fair.metrics.neural_collapse_means import ClassMeans, SumOverProcesses

# What is summed over the samples of each class in each group.
_COLUMNS = (
    "n",
    "distance",  # |h - mu_y|
    "squared",  # |h - mu_y|^2
    "whitened",  # (h - mu_y)^T Sigma_B^+ (h - mu_y)
    "n_own",  # samples whose group has a mean in their class
    "own",  # |h - mu_{y,a}| of these
    "disagree",  # classifier and nearest class mean differ
    "disagree_without_bias",
    "error",  # classifier and label differ
    "n_mislabelled",
    "to_label",  # |h - mu_y| of the mislabelled
    "to_other",  # |h - mu_{1-y}| of the mislabelled, with two classes
)


class FeatureDistances:
    """Sums of distances by class and group, around means of the same samples or of others.

    ``tr(Sigma_W Sigma_B^+)`` needs no ``d x d`` matrix: it is the mean of ``|P^T (h - mu_y)|^2`` with the ``K - 1``
    columns of :meth:`ClassMeans.whitening`.

    Args:
        means: of the first pass.
        head: last layer, for what compares it with the class means.

    Attributes:
        n_not_finite: rows left out because a feature is NaN or infinite.
        marked: whether masks of mislabelled samples were given.
    """

    def __init__(self, means: ClassMeans, head: LinearHead | None = None) -> None:
        self.means, self.head = means, head
        self.n_not_finite = 0
        self.marked = False
        self._cells: dict[str, FloatArray] = {}
        self._whitening = means.whitening()
        # one more, of NaN, for groups without means
        nowhere = np.full((1, *means.offsets.shape), np.nan)
        self._own_offsets = np.concatenate([means.group_offsets, nowhere])
        self._place = {name: place for place, name in enumerate(means.groups)}

    @property
    def groups(self) -> tuple[str, ...]:
        """Names seen so far, sorted; the empty text stands for missing values."""
        return tuple(sorted(self._cells))

    def update(
        self,
        features: npt.ArrayLike,
        labels: npt.ArrayLike,
        groups: Sequence[str] | None = None,
        mislabelled: npt.ArrayLike | None = None,
    ) -> None:
        """Add a batch; arguments and errors as of :func:`monai_fair.metrics.neural_collapse`."""
        num_classes, num_features = self.means.offsets.shape
        self.marked |= mislabelled is not None
        for rows in feature_rows(
            "neural collapse", features, labels, groups, mislabelled, num_classes=num_classes, num_features=num_features
        ):
            self.n_not_finite += rows.n_not_finite
            if len(rows.features):
                for name, sums in rows.sums_by_cell(self._columns(rows), num_classes).items():
                    self._cells[name] = self._cells.get(name, 0.0) + sums

    def _columns(self, rows: FeatureRows) -> FloatArray:
        """Return what is summed, shape ``(B, columns)``."""
        y = rows.labels
        x = rows.features - self.means.shift
        beside = x - self.means.offsets[y]
        squared = np.einsum("ij,ij->i", beside, beside)
        found = {
            "n": np.ones(len(x)),
            "distance": np.sqrt(squared),
            "squared": squared,
            **self._own(rows, x),
            **self._decisions(rows, x),
        }
        if self._whitening is not None:
            found["whitened"] = ((beside @ self._whitening) ** 2).sum(axis=1)
        if rows.mislabelled is not None:
            found["n_mislabelled"] = rows.mislabelled.astype(np.float64)
            found["to_label"] = np.where(rows.mislabelled, found["distance"], 0.0)
            if self.means.num_classes == 2:
                other = np.linalg.norm(x[rows.mislabelled] - self.means.offsets[1 - y[rows.mislabelled]], axis=1)
                found["to_other"] = np.zeros(len(x))
                found["to_other"][rows.mislabelled] = other
        return np.stack([found.get(name, np.zeros(len(x))) for name in _COLUMNS], axis=1)

    def _own(self, rows: FeatureRows, x: FloatArray) -> dict[str, FloatArray]:
        """Return the distance to the mean of the row's own group in its class, where there is one."""
        places = np.array([self._place.get(name, -1) for name in rows.names])
        if (places < 0).all():
            return {}
        own = np.linalg.norm(x - self._own_offsets[places[rows.codes], rows.labels], axis=1)
        there = np.isfinite(own)
        return {"n_own": there.astype(np.float64), "own": np.where(there, own, 0.0)}

    def _decisions(self, rows: FeatureRows, x: FloatArray) -> dict[str, FloatArray]:
        """Return where the classifier differs from the label, and from the nearest class mean."""
        if self.head is None or not self.head.finite:
            return {}
        predicted, without_bias = self.head.predicted(rows.features)
        found = {"error": predicted != rows.labels}
        if self.means.counts.all():
            around = self.means.centred
            # |x - o_k|^2 without what is the same for all k; centred, so that the rest does not drown in it
            nearest = ((around**2).sum(axis=1) - 2 * (x - self.means.offsets.mean(axis=0)) @ around.T).argmin(axis=1)
            found["disagree"] = predicted != nearest
            found["disagree_without_bias"] = without_bias != nearest
        return {name: value.astype(np.float64) for name, value in found.items()}

    def over_processes(self, total: SumOverProcesses, groups: Sequence[str]) -> "FeatureDistances":
        """Return the sums of all processes; a collective call, see :meth:`FeatureMoments.over_processes`."""
        empty = np.zeros((self.means.num_classes, len(_COLUMNS)))
        cells = np.reshape([self._cells.get(name, empty) for name in sorted(groups)], (len(groups), *empty.shape))
        summed = total(np.append(cells.ravel(), [float(self.n_not_finite), float(self.marked)]))
        found = FeatureDistances(self.means, self.head)
        found.n_not_finite, found.marked = int(summed[-2]), bool(summed[-1])
        found._cells = dict(zip(sorted(groups), summed[:-2].reshape(cells.shape), strict=True))
        return found

    def by_class(self, column: str, group: str | None = None) -> FloatArray:
        """Return the sum of a column over the samples of each class, shape ``(K,)``.

        Args:
            column: ``n``, ``distance``, ``squared``, ``whitened``, ...
            group: of one group; ``None`` is all samples.
        """
        place = _COLUMNS.index(column)
        chosen = self._cells.values() if group is None else [self._cells[group]]
        return np.asarray(sum((cells[:, place] for cells in chosen), np.zeros(self.means.num_classes)))

    def total(self, column: str, group: str | None = None) -> float:
        """Return the sum of a column over all classes; arguments as of :meth:`by_class`."""
        return float(self.by_class(column, group).sum())
