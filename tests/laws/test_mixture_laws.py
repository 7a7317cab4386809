"""Laws of the error-aware mixture."""

import warnings
from typing import Any

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from monai_fair.subgroups import ErrorAwareMixture

LAWS = settings(max_examples=40, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10_000)
WEIGHTS = st.sampled_from([0.0, 0.5, 1.0, 10.0])


def cohort(seed: int) -> tuple[Any, Any, Any, Any]:
    """Rows, labels, hard predictions and starting means; overlapping clouds, unlike columns."""
    rng = np.random.default_rng(seed)
    n, d, classes, components = rng.integers(20, 80), rng.integers(1, 5), rng.integers(2, 4), rng.integers(1, 5)
    middle = rng.normal(0, 2, (3, d))
    x = rng.normal(size=(n, d)) + middle[rng.integers(3, size=n)]
    y, predicted = rng.integers(classes, size=(2, n))
    return x, y, np.eye(classes)[predicted], rng.permutation(x)[:components]


def fit(x: Any, y: Any, y_prob: Any, means: Any, **options: Any) -> ErrorAwareMixture:
    mixture = ErrorAwareMixture(len(means), means_init=means, **{"tol": 0, "max_iter": 15, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return mixture.fit(x, y, y_prob)


@LAWS
@given(SEEDS, WEIGHTS, WEIGHTS)
def test_with_labels_of_one_class_the_likelihood_never_falls(seed: int, label: float, prediction: float) -> None:
    x, y, y_prob, means = cohort(seed)
    found = fit(x, y, y_prob, means, label_weight=label, prediction_weight=prediction, max_iter=40)
    # what reg_covar adds to a variance is no longer small where a component has shrunk to a point
    assume(found.covariances_.min() > 1e-2)
    assert np.diff(found.lower_bounds_).min() > -1e-9


@LAWS
@given(SEEDS, WEIGHTS)
def test_the_order_of_rows_and_the_place_of_zero_change_nothing(seed: int, weight: float) -> None:
    x, y, y_prob, means = cohort(seed)
    rng = np.random.default_rng(seed)
    order, shift = rng.permutation(len(x)), rng.normal(0, 100, x.shape[1])
    before = fit(x, y, y_prob, means, label_weight=weight)
    after = fit(x[order] + shift, y[order], y_prob[order], means + shift, label_weight=weight)
    np.testing.assert_allclose(after.predict_proba(x + shift, y, y_prob), before.predict_proba(x, y, y_prob), atol=1e-6)
    np.testing.assert_allclose(after.error_gap_, before.error_gap_, atol=1e-6)


@LAWS
@given(SEEDS)
def test_every_row_twice_changes_nothing(seed: int) -> None:
    x, y, y_prob, means = cohort(seed)
    once = fit(x, y, y_prob, means)
    twice = fit(np.repeat(x, 2, axis=0), np.repeat(y, 2), np.repeat(y_prob, 2, axis=0), means)
    np.testing.assert_allclose(twice.means_, once.means_, atol=1e-6)
    np.testing.assert_allclose(twice.lower_bounds_, once.lower_bounds_, atol=1e-6)


@LAWS
@given(SEEDS)
def test_a_weight_of_zero_describes_and_does_not_decide(seed: int) -> None:
    x, y, y_prob, means = cohort(seed)
    zero = fit(x, y, y_prob, means, label_weight=0.0, prediction_weight=0.0)
    without = fit(x, None, None, means)
    np.testing.assert_array_equal(zero.means_, without.means_)
    np.testing.assert_array_equal(zero.predict_proba(x, y, y_prob), without.predict_proba(x))
    assert np.isfinite(zero.error_gap_).any()


@LAWS
@given(SEEDS, WEIGHTS)
def test_names_of_classes_change_only_the_columns(seed: int, weight: float) -> None:
    x, y, y_prob, means = cohort(seed)
    classes = y_prob.shape[1]
    renamed = np.random.default_rng(seed).permutation(classes)
    before = fit(x, y, y_prob, means, prediction_weight=weight)
    after = fit(x, renamed[y], y_prob[:, np.argsort(renamed)], means, prediction_weight=weight)
    np.testing.assert_allclose(after.label_probabilities_[:, renamed], before.label_probabilities_, atol=1e-9)
    np.testing.assert_allclose(after.means_, before.means_, atol=1e-9)


@LAWS
@given(SEEDS, WEIGHTS)
def test_responsibilities_are_shares_of_a_row(seed: int, weight: float) -> None:
    x, y, y_prob, means = cohort(seed)
    found = fit(x, y, y_prob, means, label_weight=weight)
    far = np.concatenate([x, x * 1e6])
    shares = found.predict_proba(far)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-12)
    assert abs(found.weights_.sum() - 1) < 1e-12
