"""Subgroups within each label: what patients are of several kinds in, and controls in another way."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from monai_fair.errors import MonaiFairError
from monai_fair.subgroups.mixture import ErrorAwareMixture
from monai_fair.subgroups.selection import Selection, select_components
from monai_fair.subgroups.targets import class_names, label_shares

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_STARTS, _MOST_STEPS = 3, 1000  # of the mixture that is taken when none is given


class LabelwiseMixture(BaseEstimator):
    """A mixture of its own in the rows of every label.

    The model is one of densities, ``p(x, y) = P(y) sum_k pi_yk p(x | y, k)``, so that a row without a label has a
    place too: the components of all labels share it. No error of a model counts: subgroups are found also where the
    same shortcut holds in every row at hand. A component belongs to one label, so its association with the label says
    nothing; what :func:`~monai_fair.subgroups.discover` claims is shared by labels.

    Args:
        mixture: copied for every label: scikit-learn's ``GaussianMixture`` or ``BayesianGaussianMixture``, or another
            estimator with their ``fit``, ``predict_proba``, ``score_samples`` and ``weights_``. ``None`` takes normals
            with diagonal covariances, in each label as many as :func:`~monai_fair.subgroups.select_components` chooses
            (one, which is no subgroup, is a choice).
        max_components: most that may be chosen in a label, without a mixture.
        random_state: seed or generator of all mixtures that take one.

    Attributes:
        classes_: labels, shape ``(C,)``, ascending.
        class_prior_: share of each among the fitted rows, shape ``(C,)``.
        mixtures_: fitted mixture of each label.
        component_classes_: label of each of the K components of all mixtures, in the order of the labels, shape
            ``(K,)``.
        selections_: what the number was chosen from, for each label; empty when a mixture was given.

    Raises:
        MonaiFairError: if labels are missing or none of the fitted ones, or a label has too few rows to choose from.

    References:
        Hastie and Tibshirani, Discriminant analysis by Gaussian mixtures, J. R. Stat. Soc. B 1996,
        doi:10.1111/j.2517-6161.1996.tb02073.x (the model); Sohoni et al., No subclass left behind, NeurIPS 2020,
        arXiv:2011.12945 (clusters within labels as groups that nobody recorded).

    Example:
        >>> import numpy as np
        >>> from sklearn.mixture import GaussianMixture
        >>> x = np.concatenate([np.linspace(0, 1, 20), np.linspace(5, 6, 20), np.linspace(20, 21, 10)])[:, None]
        >>> y = np.repeat([1, 1, 0], [20, 20, 10])
        >>> found = LabelwiseMixture(GaussianMixture(2), random_state=0).fit(x, y)
        >>> found.component_classes_.tolist()
        [0, 0, 1, 1]
        >>> np.bincount(found.predict(x, y), minlength=4)[2:].tolist()
        [20, 20]
    """

    def __init__(self, mixture: Any = None, *, max_components: int = 5, random_state: Any = None) -> None:
        self.mixture = mixture
        self.max_components = max_components
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        """Say that labels are needed."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the mixture of every label.

        Args:
            X: embeddings, shape ``(n, d)``.
            y: labels, shape ``(n,)``.
        """
        x, labels = validate_data(self, X, y, dtype=np.float64)
        random = check_random_state(self.random_state)
        self.classes_ = class_names(labels, None)
        self.class_prior_ = label_shares(labels, self.classes_, len(x)).mean(axis=0)
        self.mixtures_: list[Any] = []
        self.selections_: list[Selection] = []
        for label in self.classes_:
            seed = int(random.randint(2**31))
            self.mixtures_.append(self._template(x[labels == label], label, seed).fit(x[labels == label]))
        sizes = [len(mixture.weights_) for mixture in self.mixtures_]
        self.component_classes_ = np.repeat(self.classes_, sizes)
        return self

    def predict_proba(self, X: Any, y: Any = None) -> FloatArray:
        """Return the responsibility of every component for every row, shape ``(n, K)``.

        Args:
            X: embeddings, shape ``(n, d)``.
            y: labels, shape ``(n,)``: components of other labels have none; without it those of all labels share a row.
        """
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        with np.errstate(divide="ignore"):
            shares = self.class_prior_ if y is None else label_shares(y, self.classes_, len(x))
            prior = np.log(np.broadcast_to(shares, (len(x), len(self.classes_))))
        # within a label its density is the same for all components, and cancels
        density = np.stack([mixture.score_samples(x) for mixture in self.mixtures_], axis=1) if y is None else 0.0
        by_class = np.exp(log_softmax(prior + density, axis=1))
        parts = [mixture.predict_proba(x) for mixture in self.mixtures_]
        return np.hstack([by_class[:, [place]] * part for place, part in enumerate(parts)])

    def predict(self, X: Any, y: Any = None) -> IntArray:
        """Return the component of each row, shape ``(n,)``: a place in ``component_classes_``."""
        return np.asarray(self.predict_proba(X, y).argmax(axis=1))

    def _template(self, x: FloatArray, label: Any, seed: int) -> Any:
        """Return the mixture to fit to the rows of one label."""
        if self.mixture is not None:
            given = clone(self.mixture)
            return given.set_params(random_state=seed) if "random_state" in given.get_params() else given
        normals = ErrorAwareMixture(n_init=_STARTS, max_iter=_MOST_STEPS, random_state=seed)
        numbers = range(1, self.max_components + 1)
        try:
            chosen = select_components(x, mixture=normals, candidates=numbers, seed=seed)
        except MonaiFairError as error:
            raise MonaiFairError(f"label {label}: {error}") from error
        self.selections_.append(chosen)
        return normals.set_params(n_components=chosen.chosen)
