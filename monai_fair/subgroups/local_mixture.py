"""Two subgroups that differ in one place of the brain: found where the population has two modes, then sharpened.

A local effect is a small part of what varies between brains: principal components, and all clusters of them, follow
the large smooth variation and miss it. In the right place, however, a population of two kinds has two modes, and two
modes have a low kurtosis. The scan looks for the place and the combination of its neighbours with the lowest one, and
asks how low that would be in one normal population.
"""

from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.subgroups.assignment import LocalAssignment, shares_of_normals
from monai_fair.subgroups.pursuit import pursue, pursuit_p
from monai_fair.subgroups.valleys import valley_p, window_counts

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_LEAST_ROWS = 8  # fewer have no shape to speak of


class LocalMixture(ClusterMixin, BaseEstimator):
    """Two subgroups that differ in one place, found without labels and without attributes.

    Around the columns of lowest kurtosis, projection pursuit (:func:`~monai_fair.subgroups.pursuit.pursue`) looks for
    the combination of neighbours whose kurtosis is lowest. Two normals with one variance divide it; then a linear
    discriminant (with Ledoit and Wolf's shrinkage) of all columns within ``radius`` of the place, and two normals of
    its scores, divide the rows again until nothing changes.

    Two subgroups always come out. Whether there are any is for ``p_`` (the scan) and :meth:`valley_p` (rows that were
    not fitted) to say, and both count: a flat single population has a low kurtosis too, but no valley.

    Args:
        positions: place of every column, such as block centres in mm, shape ``(d, D)``; ``None`` takes all columns
            for neighbours.
        radius: of the neighbourhood, in the unit of ``positions``.
        n_components: principal components of a neighbourhood that are combined; 0 looks at single columns only.
        n_starts: columns whose neighbourhoods are looked at.
        null_draws: normal populations behind ``p_``; 0 leaves it NaN.
        max_iter: most rounds.
        random_state: seed or generator of the null populations and the starts.

    Attributes:
        place_: column the combination lies around; ``kurtosis_``: excess kurtosis of the combination; ``p_``: see
            :func:`~monai_fair.subgroups.pursuit.pursuit_p`.
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
        n_components: int = 8,
        n_starts: int = 10,
        null_draws: int = 199,
        max_iter: int = 50,
        random_state: Any = None,
    ) -> None:
        self.positions = positions
        self.radius = radius
        self.n_components = n_components
        self.n_starts = n_starts
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
        tree = KDTree(positions)

        def near(place: int) -> IntArray:
            return np.array(tree.query_ball_point(positions[place], self.radius, return_sorted=True))

        look = partial(pursue, neighbours=near, n_components=self.n_components, n_starts=self.n_starts)
        found = look(x)
        if not np.isfinite(found.kurtosis):
            raise MonaiFairError("LocalMixture: expected a column that varies, got none")
        self.place_, self.kurtosis_ = found.place, found.kurtosis
        self.p_ = pursuit_p(x, found.kurtosis, look, draws=self.null_draws, random=random)
        self.neighbours_ = np.linalg.norm(positions - positions[self.place_], axis=1) <= self.radius
        self._axis = found.axis[self.neighbours_]
        self._divide(x, int(random.randint(2**31)))
        return self

    def decision_function(self, X: Any) -> FloatArray:
        """Return the score of each row on the discriminant, shape ``(n,)``; the second subgroup has the larger ones."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        return self.assignment().scores(x)

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the responsibility of both subgroups for each row, shape ``(n, 2)``."""
        return shares_of_normals(self.decision_function(X), self.weights_, self.means_, self.variance_)

    def assignment(self) -> LocalAssignment:
        """Return what rows are divided by, as plain arrays."""
        check_is_fitted(self)
        return LocalAssignment(self.neighbours_, self._axis, self._offset, self.weights_, self.means_, self.variance_)

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
        near = x[:, self.neighbours_]
        # the combination that was found begins, and ends where it leaves one side without a covariance
        self._offset = float(near.mean(axis=0) @ self._axis)
        scores = near @ self._axis - self._offset
        labels, self.converged_, self.n_iter_ = self._two_normals(scores, None, seed), False, 0
        while self.n_iter_ < self.max_iter and not self.converged_ and 1 < labels.sum() < len(labels) - 1:
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
        shares = shares_of_normals(scores, self.weights_, self.means_, self.variance_)
        return np.asarray(shares.argmax(axis=1))

    def _check(self, x: FloatArray) -> FloatArray:
        problems = []
        if not self.radius >= 0:
            problems.append(f"radius: expected a number from 0, got {self.radius!r}")
        for name, least in (("n_components", 0), ("n_starts", 1), ("null_draws", 0), ("max_iter", 1)):
            if not getattr(self, name) >= least:
                problems.append(f"{name}: expected a whole number from {least}, got {getattr(self, name)!r}")
        positions = np.zeros((x.shape[1], 1)) if self.positions is None else np.asarray(self.positions, np.float64)
        if positions.ndim != 2 or len(positions) != x.shape[1]:
            problems.append(f"positions: expected one for each of {x.shape[1]} columns, got shape {positions.shape}")
        raise_problems(MonaiFairError, type(self).__name__, problems)
        return positions
