"""Mixtures within labels: each is what scikit-learn fits to the label's rows, and together they are one density."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.utils.estimator_checks import parametrize_with_checks

from monai_fair.errors import MonaiFairError
from monai_fair.subgroups import LabelwiseMixture


@parametrize_with_checks([LabelwiseMixture(GaussianMixture(1))])
def test_scikit_learn_s_battery(estimator: Any, check: Any) -> None:
    check(estimator)


def population(seed: int, n: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Controls of one kind, patients of two kinds that lie 8 standard deviations apart."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], n)
    kind = y * rng.integers(2, size=2 * n)
    return rng.standard_normal((2 * n, 2)) + 8.0 * np.outer(kind, [1, 0]), y, kind


def test_each_label_has_the_mixture_of_its_rows() -> None:
    x, y, _ = population(0)
    found = LabelwiseMixture(GaussianMixture(2, covariance_type="diag"), random_state=0).fit(x, y)
    memberships = found.predict_proba(x, y)
    for label in (0, 1):
        seed = found.mixtures_[label].random_state
        alone = GaussianMixture(2, covariance_type="diag", random_state=seed).fit(x[y == label])
        own = found.component_classes_ == label
        np.testing.assert_allclose(memberships[np.ix_(y == label, own)], alone.predict_proba(x[y == label]))
        assert (memberships[np.ix_(y == label, ~own)] == 0).all()


def test_without_labels_it_is_bayes_rule_over_all_components() -> None:
    x, y = np.array([[0.0], [2.0], [10.0], [11.0], [15.0], [18.0]]), np.array([0, 0, 1, 1, 1, 1])
    found = LabelwiseMixture(GaussianMixture(1, reg_covar=0)).fit(x, y)
    np.testing.assert_array_equal(found.class_prior_, [1 / 3, 2 / 3])
    new = np.array([[5.0], [6.0]])
    joint = np.hstack([1 / 3 * norm.pdf(new, 1.0, 1.0), 2 / 3 * norm.pdf(new, 13.5, np.sqrt(10.25))])
    np.testing.assert_allclose(found.predict_proba(new), joint / joint.sum(axis=1, keepdims=True), rtol=1e-9)


def test_far_from_everything_a_row_still_has_shares_that_add_up_to_one() -> None:
    x, y, _ = population(1)
    found = LabelwiseMixture(GaussianMixture(2), random_state=0).fit(x, y)
    np.testing.assert_allclose(found.predict_proba(np.full((1, 2), 1e4)).sum(), 1.0)


def test_the_number_is_chosen_in_each_label_apart() -> None:
    x, y, kind = population(2)
    found = LabelwiseMixture(random_state=0).fit(x, y)
    assert found.component_classes_.tolist() == [0, 1, 1]
    assert [selection.chosen for selection in found.selections_] == [1, 2]
    patients = y == 1
    assert adjusted_rand_score(kind[patients], found.predict(x, y)[patients]) == 1.0
    assert adjusted_rand_score(kind[patients], found.predict(x[patients], y[patients])) == 1.0


def test_a_bayesian_mixture_keeps_the_place_of_components_it_does_not_need() -> None:
    x, y, kind = population(3)
    template = BayesianGaussianMixture(n_components=4, weight_concentration_prior=1e-3, max_iter=500)
    found = LabelwiseMixture(template, random_state=0).fit(x, y)
    assert found.component_classes_.tolist() == [0] * 4 + [1] * 4
    patients = y == 1
    used = set(found.predict(x, y)[patients])
    assert len(used) == 2
    assert adjusted_rand_score(kind[patients], found.predict(x, y)[patients]) == 1.0


def test_the_seed_alone_decides() -> None:
    x, y, _ = population(4)
    template = GaussianMixture(3, init_params="random")
    first, again = (LabelwiseMixture(template, random_state=7).fit(x, y).predict_proba(x, y) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not hasattr(template, "weights_")


def test_errors_name_the_label() -> None:
    x, y, _ = population(5)
    with pytest.raises(MonaiFairError, match=r"^label 1: select_components: expected at least 5 subjects outside"):
        LabelwiseMixture(random_state=0).fit(x[:124], y[:124])
    found = LabelwiseMixture(GaussianMixture(1)).fit(x, y)
    with pytest.raises(MonaiFairError, match="expected one of the classes 0, 1, got 2 in row 0"):
        found.predict_proba(x[:1], [2])
