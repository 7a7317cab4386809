"""What a fit leaves behind as arrays: the same responsibilities, before and after a file, in any numbers."""

import numpy as np
import pytest
from hypothesis import given, strategies
from hypothesis.extra.numpy import arrays
from scipy.stats import multivariate_normal, norm
from sklearn.decomposition import PCA

from monai_fair.subgroups import ErrorAwareMixture, LocalMixture
from monai_fair.subgroups.assignment import (
    ASSIGNMENTS,
    Assignment,
    LocalAssignment,
    MixtureAssignment,
    OrderedAssignment,
    shares_of_normals,
)


def local() -> LocalAssignment:
    return LocalAssignment(
        neighbours=np.array([True, False, True]),
        axis=np.array([2.0, -1.0]),
        offset=0.5,
        weights=np.array([0.25, 0.75]),
        means=np.array([-1.0, 2.0]),
        variance=0.81,
    )


def mixture() -> MixtureAssignment:
    return MixtureAssignment(
        mean=np.array([1.0, -2.0, 0.0]),
        components=np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]),
        unit=2.0,
        weights=np.array([0.5, 0.3, 0.2]),
        means=np.array([[0.0, 1.0], [2.0, -1.0], [-3.0, 0.0]]),
        variances=np.array([[1.0, 0.5], [0.25, 2.0], [1.5, 1.0]]),
    )


ROWS = np.random.default_rng(0).normal(0, 2, (40, 3))


def test_local_is_the_rule_of_bayes_for_two_normals() -> None:
    scores = 2 * ROWS[:, 0] - ROWS[:, 2] - 0.5
    joint = np.stack([0.25 * norm.pdf(scores, -1, 0.9), 0.75 * norm.pdf(scores, 2, 0.9)], axis=1)
    np.testing.assert_allclose(local()(ROWS), joint / joint.sum(axis=1, keepdims=True), rtol=1e-10, atol=1e-13)


def test_mixture_is_the_rule_of_bayes_in_components() -> None:
    own = mixture()
    scores = (ROWS - own.mean) @ own.components.T / own.unit
    joint = np.stack(
        [
            weight * multivariate_normal(mean, np.diag(variance)).pdf(scores)
            for weight, mean, variance in zip(own.weights, own.means, own.variances, strict=True)
        ],
        axis=1,
    )
    np.testing.assert_allclose(own(ROWS), joint / joint.sum(axis=1, keepdims=True), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("assign", [local(), mixture()], ids=["local", "mixture"])
def test_tensors_hold_all_of_it(assign: Assignment) -> None:
    kind = next(kind for kind in ASSIGNMENTS.values() if isinstance(assign, kind))
    again = kind.of(assign.tensors())
    np.testing.assert_array_equal(again(ROWS), assign(ROWS))
    assert again.n_columns == assign.n_columns == 3


def test_what_is_fitted_is_what_is_left_behind() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 6))
    x[:25, 2] += 6.0
    fitted = LocalMixture(null_draws=0, random_state=0).fit(x)
    np.testing.assert_array_equal(fitted.assignment()(x), fitted.predict_proba(x))
    components = PCA(2, random_state=0).fit(x)
    clouds = ErrorAwareMixture(2, random_state=0).fit(components.transform(x) / 3.0)
    left = MixtureAssignment(
        components.mean_, components.components_, 3.0, clouds.weights_, clouds.means_, clouds.covariances_
    )
    expected = clouds.predict_proba(components.transform(x) / 3.0)
    np.testing.assert_allclose(left(x), expected, rtol=0, atol=1e-12)


def test_subgroups_come_in_their_order() -> None:
    ordered = OrderedAssignment(mixture(), np.array([2, 0, 1]))
    np.testing.assert_array_equal(ordered(ROWS), mixture()(ROWS)[:, [2, 0, 1]])
    assert ordered.names == ["S1", "S2", "S3"]


def test_a_component_without_rows_has_no_share() -> None:
    shares = shares_of_normals(np.array([0.0, 9.0]), np.array([0.0, 1.0]), np.array([0.0, 1.0]), 1.0)
    np.testing.assert_array_equal(shares, [[0, 1], [0, 1]])


@given(x=arrays(np.float64, (4, 3), elements=strategies.floats(-1e6, 1e6)), which=strategies.sampled_from([0, 1]))
def test_responsibilities_are_shares_of_one_however_far_a_row_lies(x: np.ndarray, which: int) -> None:
    shares = (local(), mixture())[which](x)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-12)
