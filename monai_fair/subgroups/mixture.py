"""Subgroups in which a model errs alike: a mixture of embeddings, labels and predictions, as scikit-learn has them."""

import warnings
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances_argmin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.subgroups.mixture_steps import Factor, FloatArray, Parameters, expect, maximise
from monai_fair.subgroups.targets import class_names, label_shares, prediction_shares

_EMPTY_ROWS = 0.5  # a component that holds less than half a row has no error to speak of


class ErrorAwareMixture(DensityMixin, BaseEstimator):
    """Mixture whose components are alike in embedding, label and prediction (the model of Domino).

    A row with embedding x, label y and prediction y' has the likelihood

        ``sum_s pi_s N(x; mu_s, diag v_s) (y . p_s)^label_weight (y' . q_s)^prediction_weight``

    where y and y' are rows of probabilities over C classes. What is not given, in a fit or for new rows, is left out;
    with neither label nor prediction this is scikit-learn's ``GaussianMixture(covariance_type="diag")``. The weights
    are exponents: above 1 they make components purer in label or prediction, and the likelihood is one only up to a
    constant that depends on the component.

    It is fitted by expectation and maximisation. ``p_s`` and ``q_s`` are means weighted by responsibility, which is
    the maximum for labels and predictions of one class; then the likelihood never falls from one step to the next
    (but for what ``reg_covar`` adds). With probabilities the weighted mean is Domino's step and not the maximum:
    the likelihood may fall between steps, and ``q_s`` stays the mean prediction of the component's rows.

    Fit it on rows it will not be judged on. Columns of very different scale should be brought to one scale before.

    Args:
        n_components: K. :func:`~monai_fair.subgroups.select_components` chooses it; Domino takes 25 for slices.
        label_weight: exponent of the label, 0 or more; 0 only describes the components by their labels.
        prediction_weight: exponent of the prediction; 10 is common for slices of one kind of error.
        reg_covar: added to every variance.
        tol: the fit ends when the mean log likelihood changes by less.
        max_iter: most steps.
        n_init: starts; the one with the highest likelihood is kept.
        init_params: ``kmeans`` starts with clusters of the embeddings, ``random`` with random responsibilities.
        means_init: starting means, shape ``(K, d)``: each row starts in the component of the nearest one.
        random_state: seed or generator of the starts.

    Attributes:
        weights_: share of each component, shape ``(K,)``. A component that has lost its rows keeps its place.
        means_: shape ``(K, d)``.
        covariances_: variances, shape ``(K, d)``.
        classes_: of labels and predictions, shape ``(C,)``; absent when fitted with neither.
        label_probabilities_: p, shape ``(K, C)``; absent when fitted without labels.
        prediction_probabilities_: q, shape ``(K, C)``; absent when fitted without predictions.
        error_gap_: largest ``|q - p|`` over classes, shape ``(K,)``; NaN for a component without rows, and for all
            when fitted without labels or without predictions.
        ranking_: components by falling ``error_gap_``; undefined ones last.
        lower_bound_: mean log likelihood at the end; ``lower_bounds_``: at every step.
        converged_: whether the last change was below ``tol``. ``n_iter_``: number of steps.

    Raises:
        MonaiFairError: if a parameter, a label or a probability is not what it should be.
        ValueError: scikit-learn's own, for embeddings that are not finite numbers in a table.

    References:
        Eyuboglu et al., Domino: Discovering systematic errors with cross-modal embeddings, ICLR 2022,
        arXiv:2203.14960.

    Example:
        >>> import numpy as np
        >>> x = np.concatenate([np.linspace(-1, 1, 20), np.linspace(9, 11, 20)])[:, None]
        >>> y, y_prob = np.ones(40, dtype=int), np.repeat([0.9, 0.2], 20)
        >>> mixture = ErrorAwareMixture(2, random_state=0).fit(x, y, y_prob)
        >>> mixture.error_gap_[mixture.ranking_].round(2).tolist()
        [0.8, 0.1]
    """

    weights_: FloatArray
    means_: FloatArray
    covariances_: FloatArray
    lower_bound_: float
    lower_bounds_: list[float]

    def __init__(
        self,
        n_components: int = 25,
        *,
        label_weight: float = 1.0,
        prediction_weight: float = 1.0,
        reg_covar: float = 1e-6,
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "kmeans",
        means_init: Any = None,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.label_weight = label_weight
        self.prediction_weight = prediction_weight
        self.reg_covar = reg_covar
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.means_init = means_init
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, y_prob: Any = None) -> Self:
        """Fit the mixture.

        Args:
            X: embeddings, shape ``(n, d)``.
            y: labels, shape ``(n,)``, or probabilities, shape ``(n, C)``. Beside ``y_prob``, labels are class
                indices from 0.
            y_prob: predicted probability of class 1, shape ``(n,)``, or of every class, shape ``(n, C)``.
        """
        x = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self._check_parameters(x)
        for name in ("classes_", "label_probabilities_", "prediction_probabilities_"):  # of an earlier fit
            self.__dict__.pop(name, None)
        factors = self._read_classes(y, y_prob, len(x))
        middle = x.mean(axis=0)
        found = self._best_start(x - middle, factors, middle)
        self.weights_, self.means_, self.covariances_ = found.weights, found.means + middle, found.variances
        self._describe(found.probabilities, y is not None, y_prob is not None, len(x))
        return self

    def fit_predict(self, X: Any, y: Any = None, y_prob: Any = None) -> npt.NDArray[np.int64]:
        """Fit the mixture and return the component of each row, shape ``(n,)``."""
        return self.fit(X, y, y_prob).predict(X, y, y_prob)

    def predict_proba(self, X: Any, y: Any = None, y_prob: Any = None) -> FloatArray:
        """Return the responsibility of every component for every row, shape ``(n, K)``.

        Args:
            X: embeddings, shape ``(n, d)``.
            y: labels; leave them out to place a row by its embedding (and prediction) alone.
            y_prob: predictions; may be left out as well.
        """
        return self._expect(X, y, y_prob)[0]

    def predict(self, X: Any, y: Any = None, y_prob: Any = None) -> npt.NDArray[np.int64]:
        """Return the most responsible component of each row, shape ``(n,)``."""
        return np.asarray(self._expect(X, y, y_prob)[0].argmax(axis=1))

    def score_samples(self, X: Any, y: Any = None, y_prob: Any = None) -> FloatArray:
        """Return the log likelihood of each row, shape ``(n,)``."""
        return self._expect(X, y, y_prob)[1]

    def score(self, X: Any, y: Any = None, y_prob: Any = None) -> float:
        """Return the mean log likelihood of the rows."""
        return float(self.score_samples(X, y, y_prob).mean())

    def bic(self, X: Any, y: Any = None, y_prob: Any = None) -> float:
        """Return the Bayesian information criterion; lower is better."""
        log_likelihood = self.score_samples(X, y, y_prob)
        return float(self._free(y, y_prob) * np.log(len(log_likelihood)) - 2 * log_likelihood.sum())

    def aic(self, X: Any, y: Any = None, y_prob: Any = None) -> float:
        """Return Akaike's information criterion; lower is better."""
        return float(2 * self._free(y, y_prob) - 2 * self.score_samples(X, y, y_prob).sum())

    def _free(self, y: Any, y_prob: Any) -> int:
        """Free parameters of the components and of the factors that are used."""
        given = ((y, self.label_weight), (y_prob, self.prediction_weight))
        factors = sum(values is not None and weight > 0 for values, weight in given)
        per_class = len(self.classes_) - 1 if factors else 0
        return int(self.means_.size * 2 + len(self.weights_) * (1 + factors * per_class) - 1)

    def _read_classes(self, y: Any, y_prob: Any, n: int) -> list[Factor]:
        factors, columns = [], None
        if y_prob is not None:
            factors.append(Factor(prediction_shares(y_prob, None, n), self.prediction_weight))
            columns = factors[0].shares.shape[1]
            self.classes_ = np.arange(columns)
        if y is not None:
            self.classes_ = class_names(y, columns)
            factors.insert(0, Factor(label_shares(y, self.classes_, n), self.label_weight))
        return factors

    def _best_start(self, x: FloatArray, factors: list[Factor], middle: FloatArray) -> Parameters:
        random = check_random_state(self.random_state)
        best: Parameters | None = None
        for _ in range(self.n_init):
            responsibilities = self._start(x, middle, random)
            current = self._step(x, factors, responsibilities, None)
            bounds: list[float] = []
            converged = False
            while len(bounds) < self.max_iter and not converged:
                responsibilities, log_likelihood = expect(x, factors, current)
                current = self._step(x, factors, responsibilities, current)
                bounds.append(float(log_likelihood.mean()))
                converged = len(bounds) > 1 and abs(bounds[-1] - bounds[-2]) < self.tol
            if best is None or bounds[-1] > self.lower_bound_:
                best = current
                self.lower_bound_, self.lower_bounds_ = bounds[-1], bounds
                self.converged_, self.n_iter_ = converged, len(bounds)
        if not self.converged_:
            warnings.warn(
                f"the best of {self.n_init} starts did not converge in {self.max_iter} steps; raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=4,
            )
        assert best is not None
        return best

    def _start(self, x: FloatArray, middle: FloatArray, random: Any) -> FloatArray:
        if self.means_init is not None:
            labels = pairwise_distances_argmin(x, np.asarray(self.means_init, dtype=np.float64) - middle)
        elif self.init_params == "random":
            shares = random.uniform(size=(len(x), self.n_components))
            return np.asarray(shares / shares.sum(axis=1, keepdims=True))
        else:
            labels = KMeans(self.n_components, n_init=1, random_state=random).fit(x).labels_
        return np.asarray(np.eye(self.n_components)[labels])

    def _step(
        self, x: FloatArray, factors: list[Factor], responsibilities: FloatArray, previous: Parameters | None
    ) -> Parameters:
        found = maximise(x, factors, responsibilities, reg_covar=self.reg_covar, previous=previous)
        if found.variances.min() <= 0:
            raise MonaiFairError("a component has a column without variance; raise reg_covar or drop the column")
        return found

    def _describe(self, probabilities: tuple[FloatArray, ...], labels: bool, predictions: bool, n: int) -> None:
        if labels:
            self.label_probabilities_ = probabilities[0]
        if predictions:
            self.prediction_probabilities_ = probabilities[-1]
        self.error_gap_ = np.full(len(self.weights_), np.nan)
        if labels and predictions:
            gap = np.abs(self.prediction_probabilities_ - self.label_probabilities_).max(axis=1)
            self.error_gap_ = np.where(self.weights_ * n < _EMPTY_ROWS, np.nan, gap)
        self.ranking_ = np.argsort(-self.error_gap_, kind="stable")

    def _expect(self, X: Any, y: Any, y_prob: Any) -> tuple[FloatArray, FloatArray]:
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        factors, probabilities = [], []
        if y is not None:
            probabilities.append(self._known("label_probabilities_", "y"))
            factors.append(Factor(label_shares(y, self.classes_, len(x)), self.label_weight))
        if y_prob is not None:
            probabilities.append(self._known("prediction_probabilities_", "y_prob"))
            factors.append(Factor(prediction_shares(y_prob, len(self.classes_), len(x)), self.prediction_weight))
        middle = self.weights_ @ self.means_
        parameters = Parameters(self.weights_, self.means_ - middle, self.covariances_, tuple(probabilities))
        return expect(x - middle, factors, parameters)

    def _known(self, attribute: str, name: str) -> FloatArray:
        if not hasattr(self, attribute):
            raise MonaiFairError(f"{name}: expected none, because the mixture was fitted without; leave it out")
        known: FloatArray = getattr(self, attribute)
        return known

    def _check_parameters(self, x: FloatArray) -> None:
        problems = [
            f"{name}: expected a whole number from 1, got {value!r}"
            for name in ("n_components", "max_iter", "n_init")
            if not _is_number(value := getattr(self, name), Integral, 1)
        ]
        problems += [
            f"{name}: expected a number from 0, got {value!r}"
            for name in ("label_weight", "prediction_weight", "reg_covar", "tol")
            if not _is_number(value := getattr(self, name), Real, 0)
        ]
        if self.init_params not in ("kmeans", "random"):
            problems.append(f"init_params: expected kmeans or random, got {self.init_params!r}")
        if not problems and len(x) < self.n_components:
            problems.append(f"expected at least n_components = {self.n_components} rows, got n_samples = {len(x)}")
        if self.means_init is not None and np.shape(self.means_init) != (self.n_components, x.shape[1]):
            shape = (self.n_components, x.shape[1])
            problems.append(f"means_init: expected shape {shape}, got {np.shape(self.means_init)}")
        raise_problems(MonaiFairError, type(self).__name__, problems)


def _is_number(value: Any, kind: type, least: float) -> bool:
    return isinstance(value, kind) and least <= float(value) < np.inf  # type: ignore[arg-type]
