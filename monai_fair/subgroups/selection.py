"""How many subgroups there are, chosen without the truth; one, which is none, is an answer."""

import warnings
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.validation import check_array

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.subgroups.mixture import ErrorAwareMixture
from monai_fair.subgroups.targets import class_names, label_shares, prediction_shares
from monai_fair.subgroups.valleys import valley_p, window_counts

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """What was chosen, and from what.

    Attributes:
        chosen: number of components; 1 says that no subgroups were found.
        table: one row per candidate: ``n_components``; ``held_out`` and ``held_out_se``, mean log likelihood of rows
            that were not fitted and its standard error over folds; ``below_best`` and ``below_best_se``, how far that
            is below the best candidate that may be chosen, compared fold by fold; ``bic``; ``stability``, mean
            adjusted Rand index of pairs of fits to resamples; ``valley_p``, see
            :func:`~monai_fair.subgroups.valleys.valley_p`; ``smallest``, rows of the smallest component;
            ``not_converged``, fits that did not, of ``fits``; ``reason``, why it was not chosen.
        n: rows; ``n_subjects``: subjects.
    """

    chosen: int
    table: pd.DataFrame
    n: int
    n_subjects: int


@dataclass(frozen=True)
class _Rows:
    """What every fit draws from."""

    x: FloatArray
    y: npt.NDArray[Any] | None
    y_prob: npt.NDArray[Any] | None
    folds: IntArray
    resamples: tuple[IntArray, ...]

    def at(self, rows: IntArray) -> tuple[FloatArray, Any, Any]:
        """Arguments of a fit on ``rows``."""
        y, y_prob = (None if values is None else values[rows] for values in (self.y, self.y_prob))
        return self.x[rows], y, y_prob


def select_components(
    X: Any,
    y: Any = None,
    y_prob: Any = None,
    *,
    mixture: ErrorAwareMixture | None = None,
    candidates: Iterable[int] = range(1, 11),
    groups: Any = None,
    n_folds: int = 5,
    n_seeds: int = 5,
    min_stability: float = 0.8,
    max_valley_p: float | None = 0.05,
    seed: int = 0,
    n_jobs: int | None = None,
) -> Selection:
    """Choose the number of components of a mixture.

    A candidate may be chosen if its components come back when it is fitted with other seeds to resamples of the
    subjects, and if every two components have a valley between them in held-out rows: without it, a cloud that is
    skewed or heavy-tailed would be cut into pieces. Of those that may, the smallest within one standard error of the
    best held-out likelihood is chosen. A single component may always be chosen.

    Give only rows of training or validation: never those that the subgroups are judged on.

    Args:
        X: embeddings, shape ``(n, d)``.
        y: labels or probabilities, as :meth:`ErrorAwareMixture.fit` takes them.
        y_prob: predictions, as well.
        mixture: its options serve for all fits but for the number of components and the seed. Held-out likelihood and
            BIC take the exponents of label and prediction as 1, because others would reward components that are pure.
            Exponents well above 1 sort rows by label and prediction first; subgroups of the embedding may be missed.
        candidates: numbers of components; 1 must be among them.
        groups: subject of each row, shape ``(n,)``, so that no subject is on both sides; without it rows are subjects.
        n_folds: parts of the subjects; each is held out once.
        n_seeds: resamples of the subjects for the stability.
        min_stability: least mean adjusted Rand index, in [-1, 1].
        max_valley_p: largest p of a valley; ``None`` asks for no valley, for subgroups that only errors tell apart.
        seed: of folds, resamples and fits.
        n_jobs: processes over candidates, as joblib takes them; the result is the same.

    Returns:
        The number, and the table it was chosen from.

    Raises:
        MonaiFairError: if options or data do not allow every fit.
    """
    x = check_array(X, dtype=np.float64)
    numbers = sorted(set(candidates))
    subjects = np.arange(len(x)) if groups is None else np.asarray(groups)
    labels, predictions = (None if values is None else np.asarray(values) for values in (y, y_prob))
    _check(x, labels, predictions, subjects, numbers, n_folds=n_folds, n_seeds=n_seeds)
    # classes of all rows: a fold may have none of a rare one
    if predictions is not None:
        predictions = prediction_shares(predictions, None, len(x))
    if labels is not None:
        columns = None if predictions is None else predictions.shape[1]
        labels = label_shares(labels, class_names(labels, columns), len(x))
    rows = _draw(x, labels, predictions, subjects, n_folds, n_seeds, np.random.default_rng(seed))
    template = ErrorAwareMixture() if mixture is None else mixture
    judged = Parallel(n_jobs=n_jobs)(
        delayed(_judge)(rows, clone(template).set_params(n_components=number), np.random.default_rng([seed, number]))
        for number in numbers
    )
    table = pd.DataFrame([found for found, _ in judged])
    table = _choose(table, np.stack([by_fold for _, by_fold in judged]), min_stability, max_valley_p)
    chosen = int(table.loc[table["reason"] == "", "n_components"].iloc[0])
    return Selection(chosen, table, len(x), len(np.unique(subjects)))


def _draw(
    x: FloatArray, y: Any, y_prob: Any, subjects: npt.NDArray[Any], n_folds: int, n_seeds: int, rng: np.random.Generator
) -> _Rows:
    """Share subjects out to folds, and draw them with replacement."""
    _, subject = np.unique(subjects, return_inverse=True)
    count = int(subject.max()) + 1
    fold = rng.permutation(np.arange(count) % n_folds)
    order = np.argsort(subject, kind="stable")
    starts = np.searchsorted(subject[order], np.arange(count + 1))
    resamples = tuple(
        np.concatenate([order[starts[one] : starts[one + 1]] for one in rng.integers(count, size=count)])
        for _ in range(n_seeds)
    )
    return _Rows(x, y, y_prob, fold[subject], resamples)


def _judge(rows: _Rows, mixture: ErrorAwareMixture, rng: np.random.Generator) -> tuple[dict[str, float], FloatArray]:
    """Return a row of the table for one number of components, and the held-out likelihood of each fold."""
    every = np.arange(len(rows.x))
    whole = _fit(rows, mixture, every, rng)
    line = np.linalg.svd(whole.means_ - whole.means_.mean(axis=0), full_matrices=False)[2][0]
    n_folds = int(rows.folds.max()) + 1
    by_fold, fits = np.empty(n_folds), [whole]
    counts = []
    for fold in range(n_folds):
        inside, outside = np.flatnonzero(rows.folds != fold), np.flatnonzero(rows.folds == fold)
        fitted = _fit(rows, mixture, inside, rng)
        by_fold[fold] = _plain(fitted).score(*rows.at(outside))
        counts.append(_window_counts(rows, fitted, line, inside, outside))
        fits.append(fitted)
    again = [_fit(rows, mixture, resample, rng) for resample in rows.resamples]
    labels = [fitted.predict(*rows.at(every)) for fitted in again]
    found = {
        "n_components": mixture.n_components,
        "held_out": by_fold.mean(),
        "held_out_se": by_fold.std(ddof=1) / np.sqrt(n_folds),
        "bic": _plain(whole).bic(*rows.at(every)),
        "stability": float(np.mean([adjusted_rand_score(*pair) for pair in combinations(labels, 2)])),
        "valley_p": valley_p(counts),
        "smallest": np.bincount(whole.predict(*rows.at(every)), minlength=mixture.n_components).min(),
        "not_converged": sum(not fitted.converged_ for fitted in fits + again),
        "fits": len(fits + again),
    }
    return found, by_fold


def _fit(rows: _Rows, mixture: ErrorAwareMixture, at: IntArray, rng: np.random.Generator) -> ErrorAwareMixture:
    with warnings.catch_warnings():
        # a fit that did not converge is counted in the table
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted: ErrorAwareMixture = clone(mixture).set_params(random_state=int(rng.integers(2**31)))
        return fitted.fit(*rows.at(at))


def _plain(fitted: ErrorAwareMixture) -> ErrorAwareMixture:
    """Take the exponents as 1: with others the likelihood of a pure component is no density."""
    plain = copy(fitted)
    used = {name: float(getattr(fitted, name) > 0) for name in ("label_weight", "prediction_weight")}
    plain.set_params(**used)
    return plain


def _window_counts(
    rows: _Rows, fitted: ErrorAwareMixture, line: FloatArray, inside: IntArray, outside: IntArray
) -> IntArray:
    """Embeddings alone say which component a row is in: a valley between labels would be no valley."""
    x, held_out = rows.x[inside], rows.x[outside]
    order = np.argsort(fitted.means_ @ line)  # left and right are the same in every fold
    labels = np.argsort(order)[fitted.predict(held_out)]
    return window_counts(x, fitted.predict_proba(x)[:, order], held_out, labels, fitted.covariances_[order])


def _choose(table: pd.DataFrame, by_fold: FloatArray, min_stability: float, max_valley_p: float | None) -> pd.DataFrame:
    """Say of every candidate but one why it is not chosen."""
    reasons = [
        _shortcoming(stability, p, min_stability, max_valley_p)
        for stability, p in zip(table["stability"], table["valley_p"], strict=True)
    ]
    may = np.array([not reason for reason in reasons])
    best = int(np.where(may, table["held_out"], -np.inf).argmax())
    below = by_fold[best] - by_fold
    table.insert(3, "below_best", below.mean(axis=1))
    table.insert(4, "below_best_se", below.std(axis=1, ddof=1) / np.sqrt(below.shape[1]))
    near = table["below_best"] <= table["below_best_se"]
    chosen = int(np.flatnonzero(may & near)[0])
    for row, reason in enumerate(reasons):
        if not reason and not near[row]:
            reasons[row] = "held-out likelihood is more than a standard error below the best"
        elif not reason and row != chosen:
            reasons[row] = "a smaller number is within a standard error of the best"
    return table.assign(reason=reasons)


def _shortcoming(stability: float, p: float, min_stability: float, max_valley_p: float | None) -> str:
    if np.isnan(p):  # a single component
        return ""
    found = []
    if stability < min_stability:
        found.append(f"stability {stability:.2f} is below {min_stability:g}")
    if max_valley_p is not None and p > max_valley_p:
        found.append(f"two components have no valley between them (p {p:.2g})")
    return "; ".join(found)


def _check(
    x: FloatArray, y: Any, y_prob: Any, subjects: npt.NDArray[Any], numbers: list[int], *, n_folds: int, n_seeds: int
) -> None:
    problems = [
        f"{name}: expected one entry for each of {len(x)} rows, got shape {values.shape}"
        for name, values in (("y", y), ("y_prob", y_prob), ("groups", subjects))
        if values is not None and (values.ndim == 0 or len(values) != len(x))
    ]
    if not numbers or numbers[0] != 1:
        problems.append(f"candidates: expected numbers from 1, with 1 among them, got {numbers}")
    problems += [
        f"{name}: expected at least 2, got {value}" for name, value in (("n_folds", n_folds), ("n_seeds", n_seeds))
        if value < 2
    ]  # fmt: skip
    if not problems:
        count = len(np.unique(subjects))
        outside = count - -(-count // n_folds)
        if count < n_folds or outside < numbers[-1]:
            problems.append(
                f"expected at least {max(2, numbers[-1])} subjects outside each of {n_folds} folds, "
                f"got {max(outside, 0)} of {count}; take fewer candidates or more subjects"
            )
    raise_problems(MonaiFairError, "select_components", problems)
