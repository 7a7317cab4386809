"""The error-aware mixture against scikit-learn, a plain loop over rows, and values derived by hand."""

import warnings
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.utils.estimator_checks import parametrize_with_checks

from monai_fair.errors import MonaiFairError
from monai_fair.subgroups import ErrorAwareMixture

THREE_MEANS = [[-2.0, 0.0], [0.5, 1.0], [2.0, -1.0]]


@parametrize_with_checks([ErrorAwareMixture(n_components=2), ErrorAwareMixture(n_components=1, init_params="random")])
def test_the_battery_of_scikit_learn_passes(estimator: Any, check: Any) -> None:
    with warnings.catch_warnings():
        # one check sets SCIPY_ARRAY_API aside and says so
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        check(estimator)


def cohort(seed: int, n: int = 60) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (n, 2)), rng.dirichlet([1, 1, 1], n), rng.dirichlet([2, 1, 1], n)


def loop_em(x: Any, shares: list[Any], exponents: list[float], means: Any, steps: int, reg: float) -> Any:
    """The formulas of Domino, one row and one component at a time; starts with each row in its nearest mean."""
    n, count = len(x), len(means)
    nearest = [min(range(count), key=lambda s: sum((x[i] - means[s]) ** 2)) for i in range(n)]
    r = [[float(nearest[i] == s) for s in range(count)] for i in range(n)]
    for step in range(steps + 1):
        size = [sum(r[i][s] for i in range(n)) for s in range(count)]
        weight = [value / n for value in size]
        mean = [sum(r[i][s] * x[i] for i in range(n)) / size[s] for s in range(count)]
        variance = [sum(r[i][s] * (x[i] - mean[s]) ** 2 for i in range(n)) / size[s] + reg for s in range(count)]
        table = [[sum(r[i][s] * f[i] for i in range(n)) / size[s] for s in range(count)] for f in shares]
        if step == steps:
            break
        r = []
        for i in range(n):
            joint = [weight[s] * np.prod(norm.pdf(x[i], mean[s], np.sqrt(variance[s]))) for s in range(count)]
            for f, p, exponent in zip(shares, table, exponents, strict=True):
                joint = [joint[s] * (f[i] @ p[s]) ** exponent for s in range(count)]
            r.append([value / sum(joint) for value in joint])
    return weight, mean, variance, table


@pytest.mark.parametrize(("label_weight", "prediction_weight"), [(1.0, 1.0), (2.0, 10.0)])
def test_steps_are_those_of_a_loop_over_rows(label_weight: float, prediction_weight: float) -> None:
    x, y, y_prob = cohort(0)
    mixture = ErrorAwareMixture(
        3, label_weight=label_weight, prediction_weight=prediction_weight, max_iter=4, tol=0, means_init=THREE_MEANS
    )
    with pytest.warns(ConvergenceWarning, match=r"the best of 1 starts did not converge in 4 steps"):
        mixture.fit(x, y, y_prob)
    weight, mean, variance, (p, q) = loop_em(
        x, [y, y_prob], [label_weight, prediction_weight], np.array(THREE_MEANS), 4, 1e-6
    )
    np.testing.assert_allclose(mixture.weights_, weight, atol=1e-9)
    np.testing.assert_allclose(mixture.means_, mean, atol=1e-9)
    np.testing.assert_allclose(mixture.covariances_, variance, atol=1e-9)
    np.testing.assert_allclose(mixture.label_probabilities_, p, atol=1e-9)
    np.testing.assert_allclose(mixture.prediction_probabilities_, q, atol=1e-9)
    joint = np.array(
        [
            [
                weight[s]
                * np.prod(norm.pdf(row, mean[s], np.sqrt(variance[s])))
                * (one @ p[s]) ** label_weight
                * (other @ q[s]) ** prediction_weight
                for s in range(3)
            ]
            for row, one, other in zip(x, y, y_prob, strict=True)
        ]
    )
    np.testing.assert_allclose(mixture.score_samples(x, y, y_prob), np.log(joint.sum(axis=1)), atol=1e-9)
    np.testing.assert_allclose(mixture.predict_proba(x, y, y_prob), joint / joint.sum(axis=1)[:, None], atol=1e-9)
    # without the label its factor is left out
    joint /= (y @ np.array(p).T) ** label_weight
    np.testing.assert_allclose(mixture.predict_proba(x, y_prob=y_prob), joint / joint.sum(axis=1)[:, None], atol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_without_labels_it_is_the_gaussian_mixture_of_scikit_learn(offset: float) -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(middle, 1, (200, 6)) for middle in (0, 1.5, 3)]) + offset
    options = {"random_state": 3, "tol": 1e-6, "max_iter": 500}
    ours = ErrorAwareMixture(4, **options).fit(x)
    theirs = GaussianMixture(4, covariance_type="diag", **options).fit(x)
    # scikit-learn loses digits of the squares at an offset of 1e4
    near = 1e-6 if offset else 1e-9
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.score_samples(x), theirs.score_samples(x), atol=near * 10)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=near * 10)
    assert ours.score(x) == pytest.approx(theirs.score(x), abs=near)
    assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, abs=near)
    assert ours.bic(x) == pytest.approx(theirs.bic(x), abs=near * 2000)
    assert ours.aic(x) == pytest.approx(theirs.aic(x), abs=near * 2000)


def test_given_means_it_starts_where_scikit_learn_does() -> None:
    x, _, _ = cohort(2, 300)
    nearest = ((x[:, None] - np.array(THREE_MEANS)) ** 2).sum(axis=2).argmin(axis=1)
    start = {
        "weights_init": np.bincount(nearest) / len(x),
        "means_init": np.array([x[nearest == s].mean(axis=0) for s in range(3)]),
        "precisions_init": np.array([1 / (x[nearest == s].var(axis=0) + 1e-6) for s in range(3)]),
    }
    theirs = GaussianMixture(3, covariance_type="diag", tol=1e-5, max_iter=500, **start).fit(x)
    ours = ErrorAwareMixture(3, tol=1e-5, max_iter=500, means_init=THREE_MEANS).fit(x)
    assert ours.score(x) == pytest.approx(theirs.score(x), abs=1e-6)
    np.testing.assert_allclose(ours.lower_bounds_, theirs.lower_bounds_, atol=1e-6)


def test_information_criteria_count_the_free_parameters() -> None:
    # One component, 2 columns, 2 classes: 4 for the normals, 0 for the weights, 1 for p, 1 for q.
    x, y, score = np.array([[0.0, 1.0], [2.0, 3.0]]), [0, 1], [0.25, 0.75]
    mixture = ErrorAwareMixture(1, reg_covar=0).fit(x, y, score)
    # Means 1 and 2, variances 1; p = q = (1/2, 1/2), so each row is N(1)^2 / 4.
    log_likelihood = 2 * (2 * norm.logpdf(1) - np.log(4))
    assert mixture.bic(x, y, score) == pytest.approx(6 * np.log(2) - 2 * log_likelihood, abs=1e-12)
    assert mixture.aic(x, y, score) == pytest.approx(12 - 2 * log_likelihood, abs=1e-12)
    assert mixture.aic(x) == pytest.approx(8 - 2 * 2 * 2 * norm.logpdf(1), abs=1e-12)


def test_components_are_ranked_by_the_gap_of_prediction_and_label() -> None:
    # Three clumps of 10 rows: label 1 in all; mean scores 0.9, 0.1, 0.6, so gaps 0.1, 0.9, 0.4.
    x = np.repeat([[0.0], [50.0], [100.0]], 10, axis=0) + np.tile(np.linspace(-1, 1, 10), 3)[:, None]
    score = np.repeat([0.9, 0.1, 0.6], 10)
    mixture = ErrorAwareMixture(3, means_init=[[0.0], [50.0], [100.0]]).fit(x, np.ones(30, dtype=int), score)
    np.testing.assert_allclose(mixture.error_gap_, [0.1, 0.9, 0.4], atol=1e-12)
    assert mixture.ranking_.tolist() == [1, 2, 0]
    assert mixture.classes_.tolist() == [0, 1]
    without = ErrorAwareMixture(3, means_init=[[0.0], [50.0], [100.0]]).fit(x, ["a"] * 15 + ["b"] * 15)
    assert without.classes_.tolist() == ["a", "b"]
    assert np.isnan(without.error_gap_).all()
    assert without.ranking_.tolist() == [0, 1, 2]
    assert not hasattr(without.fit(x), "label_probabilities_")


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_a_component_without_rows_keeps_its_place(weight: float) -> None:
    x, y, y_prob = cohort(3)
    means = [*THREE_MEANS, [1e6, 1e6]]
    mixture = ErrorAwareMixture(4, means_init=means, max_iter=300, prediction_weight=weight, tol=1e-2)
    mixture.fit(x, y, y_prob)
    assert mixture.weights_[3] < 1e-12
    for name in ("weights_", "means_", "covariances_", "label_probabilities_", "prediction_probabilities_"):
        assert np.isfinite(getattr(mixture, name)).all()
    assert np.isnan(mixture.error_gap_).tolist() == [False, False, False, True]
    assert mixture.ranking_[-1] == 3
    assert set(mixture.predict(x, y, y_prob)) <= {0, 1, 2}
    smaller = ErrorAwareMixture(3, means_init=THREE_MEANS, max_iter=300, prediction_weight=weight, tol=1e-2)
    np.testing.assert_allclose(mixture.means_[:3], smaller.fit(x, y, y_prob).means_, atol=1e-9)


def test_a_narrow_component_far_from_the_middle_keeps_its_digits() -> None:
    # A mean of squares less the square of a mean would lose the variance of 1e-6 beside 1e10 altogether.
    rng = np.random.default_rng(4)
    wide, narrow = rng.normal(0, 1, (500, 3)), rng.normal(1e5, 1e-3, (20, 3))
    x = np.concatenate([wide, narrow])
    mixture = ErrorAwareMixture(2, reg_covar=0, means_init=[[0.0] * 3, [1e5] * 3]).fit(x)
    np.testing.assert_allclose(mixture.covariances_, [wide.var(axis=0), narrow.var(axis=0)], rtol=1e-6)
    expected = norm.logpdf(narrow, narrow.mean(axis=0), narrow.std(axis=0)).sum(axis=1) + np.log(20 / 520)
    np.testing.assert_allclose(mixture.score_samples(narrow), expected, atol=1e-5)


def test_a_constant_column_changes_no_component() -> None:
    x, y, y_prob = cohort(5)
    plain = ErrorAwareMixture(3, random_state=0).fit(x, y, y_prob)
    more = ErrorAwareMixture(3, random_state=0).fit(np.column_stack([x, np.full(len(x), 0.1)]), y, y_prob)
    np.testing.assert_allclose(more.means_[:, :2], plain.means_, atol=1e-8)
    np.testing.assert_allclose(more.covariances_[:, 2], 1e-6)
    with pytest.raises(MonaiFairError) as caught:
        ErrorAwareMixture(1, reg_covar=0).fit([[1.0, 2.0], [1.0, 3.0]])
    assert str(caught.value) == "a component has a column without variance; raise reg_covar or drop the column"


def test_a_class_that_a_component_never_saw_is_improbable_and_not_undefined() -> None:
    x = np.array([[-1.0], [1.0], [9.0], [11.0]])
    mixture = ErrorAwareMixture(2, means_init=[[0.0], [10.0]]).fit(x, [0, 0, 0, 0], [0.0, 0.0, 0.0, 0.0])
    found = mixture.predict_proba(x, [1, 1, 1, 1])
    np.testing.assert_allclose(found, [[1, 0], [1, 0], [0, 1], [0, 1]], atol=1e-9)


def test_the_best_of_several_starts_is_kept() -> None:
    x, _, _ = cohort(6, 200)
    single = [ErrorAwareMixture(6, random_state=np.random.RandomState(8)).fit(x).lower_bound_]
    several = ErrorAwareMixture(6, random_state=np.random.RandomState(8), n_init=8).fit(x)
    assert several.lower_bound_ > single[0]
    assert several.lower_bound_ == several.lower_bounds_[-1]
    assert several.n_iter_ == len(several.lower_bounds_)


def test_new_rows_change_nothing_in_a_fitted_mixture() -> None:
    x, y, y_prob = cohort(7)
    mixture = ErrorAwareMixture(3, random_state=0).fit(x, y, y_prob)
    before = {name: np.array(value) for name, value in vars(mixture).items() if name.endswith("_")}
    mixture.predict_proba(x * 1e6, y[::-1], y_prob[::-1])
    mixture.score(x + 1e9)
    after = {name: np.array(value) for name, value in vars(mixture).items() if name.endswith("_")}
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name], equal_nan=name == "error_gap_") for name in before)


def said(call: Any) -> str:
    with pytest.raises(MonaiFairError) as caught:
        call()
    return str(caught.value)


def test_parameters_are_checked_all_at_once() -> None:
    wrong = ErrorAwareMixture(0, label_weight=-1, max_iter=2.5, init_params="confusion", means_init=[[1.0]])
    assert said(lambda: wrong.fit([[0.0, 1.0], [1.0, 0.0]])) == (
        "ErrorAwareMixture: 5 problems\n"
        "  1. n_components: expected a whole number from 1, got 0\n"
        "  2. max_iter: expected a whole number from 1, got 2.5\n"
        "  3. label_weight: expected a number from 0, got -1\n"
        "  4. init_params: expected kmeans or random, got 'confusion'\n"
        "  5. means_init: expected shape (0, 2), got (1, 1)"
    )
    assert said(lambda: ErrorAwareMixture().fit([[0.0], [1.0]])) == (
        "ErrorAwareMixture: expected at least n_components = 25 rows, got n_samples = 2"
    )


X = [[0.0], [1.0], [2.0]]


@pytest.mark.parametrize(
    ("y", "y_prob", "message"),
    [
        ([0, 1], None, "y: expected shape (n,) or (n, C) with n = 3, one row per row of X, got (2,)"),
        ([0.5, 1, 0], None, "y: expected labels of classes, got numbers that are missing or not whole"),
        ([0, 1, np.nan], None, "y: expected labels of classes, got numbers that are missing or not whole"),
        (
            [0, 2, 3],
            [0.1, 0.2, 0.3],
            "y: expected one of the classes 0, 1, got 2 in row 1; 2 of 3 rows have a label that is none of them",
        ),
        (np.eye(3), [0.1, 0.2, 0.3], "y_prob: expected 3 columns as in y, got 2"),
        (
            None,
            [0.1, 1.5, np.nan],
            "y_prob: expected probabilities in [0, 1] that add up to 1, got [-0.5, 1.5] in row 1; 2 of 3 rows are not",
        ),
        (None, np.zeros((3, 1, 1)), "y_prob: expected shape (n,) or (n, C), got (3, 1, 1)"),
        (None, [0.5], "y_prob: expected shape (n, 2) with n = 3, one row per row of X, got (1, 2)"),
    ],
)
def test_labels_and_predictions_are_checked(y: Any, y_prob: Any, message: str) -> None:
    assert said(lambda: ErrorAwareMixture(1).fit(X, y, y_prob)) == message


def test_what_was_not_fitted_cannot_be_given_later() -> None:
    mixture = ErrorAwareMixture(1).fit(X, [0, 1, 1])
    assert said(lambda: mixture.predict(X, y_prob=[0.1, 0.2, 0.3])) == (
        "y_prob: expected none, because the mixture was fitted without; leave it out"
    )
    assert said(lambda: mixture.predict(X, [0, 1, 7])).startswith("y: expected one of the classes 0, 1, got 7 in row 2")
    with pytest.raises(ValueError, match="contains NaN"):
        mixture.predict([[np.nan]])
