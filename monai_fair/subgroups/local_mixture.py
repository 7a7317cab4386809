"""Two subgroups that differ in one place of the brain: found where the population has two modes, then sharpened.

A local effect is a small part of what varies between brains: principal components, and all clusters of them, follow
the large smooth variation and miss it. In the right place, however, a population of two kinds has two modes, and two
modes have a low kurtosis. The scan looks at every place by itself and asks how low a kurtosis the lowest of so many
correlated places would have in one normal population.
"""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.stats import kurtosis
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.subgroups.valleys import valley_p, window_counts

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_FLAT = 1e-12  # range of a column over its size, below which it is rounding
_LEAST_ROWS = 8  # fewer have no shape to speak of


def excess_kurtosis(values: FloatArray) -> FloatArray:
    """Return the excess kurtosis of every column: 0 of a normal one, -2 of two equal points, its least.

    Two equal normal populations whose means are d standard deviations apart have ``-2 (d^2 / 4)^2 / (1 + d^2 / 4)^2``.

    Args:
        values: shape ``(n, d)``. A column without variance gets infinity, so that it is never the lowest.
    """
    found = np.full(values.shape[1], np.inf)
    varies = np.ptp(values, axis=0) > _FLAT * np.abs(values).max(axis=0)
    found[varies] = kurtosis(values[:, varies])
    return found


def scan_p(values: FloatArray, lowest: float, *, draws: int, random: np.random.RandomState) -> float:
    """Return how often one normal population of the same covariance has a column with so low a kurtosis.

    The null rows are random mixtures of the observed ones, which have the observed covariance on average; so the
    number of places, and that neighbours tell nearly the same, are in the p.

    Args:
        values: the observed rows, shape ``(n, d)``.
        lowest: the kurtosis to compare with.
        draws: number of null populations.
        random: where they come from.

    Returns:
        A p value from ``1 / (draws + 1)`` to 1.

    References:
        Phipson and Smyth, Permutation p-values should never be zero, SAGMB 2010, doi:10.2202/1544-6115.1585.
    """
    centred = (values - values.mean(axis=0)) / np.sqrt(len(values))
    reached = 0
    for _ in range(draws):
        drawn = random.standard_normal((len(values), len(values))) @ centred
        reached += bool(excess_kurtosis(drawn).min() <= lowest)
    return (1 + reached) / (1 + draws)


class LocalMixture(ClusterMixin, BaseEstimator):
    """Two subgroups that differ in one place, found without labels and without attributes.

    The place is the column of lowest kurtosis. Two normals with one variance divide it; then a linear discriminant
    (with Ledoit and Wolf's shrinkage) of all columns within ``radius`` of the place, and two normals of its scores,
    divide the rows again until nothing changes: the neighbours share the effect and not the noise.

    Two subgroups always come out. Whether there are any is for ``p_`` (the scan) and :meth:`valley_p` (rows that were
    not fitted) to say, and both count: a flat single population has a low kurtosis too, but no valley.

    Args:
        positions: place of every column, such as block centres in mm, shape ``(d, D)``; ``None`` takes all columns
            for neighbours.
        radius: of the neighbourhood, in the unit of ``positions``.
        null_draws: normal populations behind ``p_``; 0 leaves it NaN.
        max_iter: most rounds.
        random_state: seed or generator of the null populations and the starts.

    Attributes:
        place_: column of lowest kurtosis; ``kurtosis_``: its excess kurtosis; ``p_``: see :func:`scan_p`.
        neighbours_: columns of the discriminant, shape ``(d,)``, bool.
        weights_, means_: share and mean score of the two, shape ``(2,)``, rising; ``variance_``: of the scores.
        labels_: subgroup of each fitted row, shape ``(n,)``.
        converged_: whether the last round changed no row; ``n_iter_``: rounds.

    Raises:
        MonaiFairError: if an option is not what it should be, or no column varies.
    """

    def __init__(
        self,
        positions: Any = None,
        *,
        radius: float = 20.0,
        null_draws: int = 199,
        max_iter: int = 50,
        random_state: Any = None,
    ) -> None:
        self.positions = positions
        self.radius = radius
        self.null_draws = null_draws
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the place and divide the rows; ``y`` is ignored.

        Args:
            X: one row per subject, shape ``(n, d)``, such as mean log Jacobians of blocks.
            y: not used.
        """
        x = validate_data(self, X, dtype=np.float64, ensure_min_samples=_LEAST_ROWS)
        positions = self._check(x)
        random = check_random_state(self.random_state)
        by_place = excess_kurtosis(x)
        self.place_ = int(by_place.argmin())
        self.kurtosis_ = float(by_place[self.place_])
        if not np.isfinite(self.kurtosis_):
            raise MonaiFairError("LocalMixture: expected a column that varies, got none")
        self.p_ = scan_p(x, self.kurtosis_, draws=self.null_draws, random=random) if self.null_draws else float("nan")
        self.neighbours_ = np.linalg.norm(positions - positions[self.place_], axis=1) <= self.radius
        self._divide(x, int(random.randint(2**31)))
        return self

    def decision_function(self, X: Any) -> FloatArray:
        """Return the score of each row on the discriminant, shape ``(n,)``; the second subgroup has the larger ones."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(x[:, self.neighbours_] @ self._axis - self._offset)

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the responsibility of both subgroups for each row, shape ``(n, 2)``."""
        return self._responsibilities(self.decision_function(X))

    def predict(self, X: Any) -> IntArray:
        """Return the subgroup of each row, 0 or 1, shape ``(n,)``."""
        return np.asarray(self.predict_proba(X).argmax(axis=1))

    def valley_p(self, X: Any, *, n_folds: int = 5) -> float:
        """Return how surprising the valley between the two is in rows that were not fitted, if there were one cloud.

        Place, discriminant and normals are found anew without each fold.

        Args:
            X: rows that may be fitted, shape ``(n, d)``.
            n_folds: parts; each is held out once. Their order is drawn from ``random_state``.

        Returns:
            p of :func:`monai_fair.subgroups.valleys.valley_p`.
        """
        x = np.asarray(X, dtype=np.float64)
        counts = []
        random = check_random_state(self.random_state)
        for inside, outside in KFold(n_folds, shuffle=True, random_state=int(random.randint(2**31))).split(x):
            options = {**self.get_params(), "null_draws": 0}
            fitted = type(self)(**options).fit(x[inside])
            scores, held_out = (fitted.decision_function(x[rows])[:, None] for rows in (inside, outside))
            variances = np.full((2, 1), fitted.variance_)
            shares = fitted.predict_proba(x[inside])
            counts.append(window_counts(scores, shares, held_out, fitted.predict(x[outside]), variances))
        return valley_p(counts)

    def _divide(self, x: FloatArray, seed: int) -> None:
        near, alone = x[:, self.neighbours_], x[:, self.place_]
        # the place by itself, to begin with, and to end with where that leaves one side without rows
        self._axis = (np.flatnonzero(self.neighbours_) == self.place_) / alone.std()
        self._offset = float(alone.mean() / alone.std())
        scores = near @ self._axis - self._offset
        labels, self.converged_, self.n_iter_ = self._two_normals(scores, None, seed), False, 0
        while self.n_iter_ < self.max_iter and not self.converged_ and 0 < labels.sum() < len(labels):
            found = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(near, labels)
            self._axis, self._offset = found.coef_[0], float(near.mean(axis=0) @ found.coef_[0])
            scores = near @ self._axis - self._offset
            again = self._two_normals(scores, labels, seed)
            self.converged_ = bool((again == labels).all())
            labels, self.n_iter_ = again, self.n_iter_ + 1
        self.labels_ = labels

    def _two_normals(self, scores: FloatArray, labels: IntArray | None, seed: int) -> IntArray:
        start = None if labels is None else [[scores[labels == side].mean()] for side in (0, 1)]
        mixture = GaussianMixture(
            2, covariance_type="tied", n_init=1 if labels is not None else 5, means_init=start, random_state=seed
        ).fit(scores[:, None])
        order = np.argsort(mixture.means_[:, 0])
        self.weights_, self.means_ = mixture.weights_[order], mixture.means_[order, 0]
        self.variance_ = float(mixture.covariances_[0, 0])
        return np.asarray(self._responsibilities(scores).argmax(axis=1))

    def _responsibilities(self, scores: FloatArray) -> FloatArray:
        with np.errstate(divide="ignore"):
            joint = np.log(self.weights_) - np.square(scores[:, None] - self.means_) / (2 * self.variance_)
        joint = np.exp(joint - joint.max(axis=1, keepdims=True))
        return np.asarray(joint / joint.sum(axis=1, keepdims=True))

    def _check(self, x: FloatArray) -> FloatArray:
        problems = []
        if not self.radius >= 0:
            problems.append(f"radius: expected a number from 0, got {self.radius!r}")
        for name, least in (("null_draws", 0), ("max_iter", 1)):
            if not getattr(self, name) >= least:
                problems.append(f"{name}: expected a whole number from {least}, got {getattr(self, name)!r}")
        positions = np.zeros((x.shape[1], 1)) if self.positions is None else np.asarray(self.positions, np.float64)
        if positions.ndim != 2 or len(positions) != x.shape[1]:
            problems.append(f"positions: expected one for each of {x.shape[1]} columns, got shape {positions.shape}")
        raise_problems(MonaiFairError, type(self).__name__, problems)
        return positions
