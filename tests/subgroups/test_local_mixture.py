"""A subgroup that differs in one place of many: found, measured, and not found where there is none."""

from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from monai_fair.errors import MonaiFairError
from monai_fair.subgroups import LocalMixture
from monai_fair.subgroups.pursuit import excess_kurtosis

COLUMNS = 150
POSITIONS = np.arange(COLUMNS, dtype=np.float64)[:, None] * 4.0  # a line of blocks, 4 mm apart
CENTRE = 100


def population(seed: int, *, n: int = 240, distance: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth variation everywhere, its own noise in each column, and a group that differs around one column."""
    rng = np.random.default_rng(seed)
    group = rng.random(n) < 0.5
    near = np.exp(-0.5 * ((POSITIONS - POSITIONS.T) / 60.0) ** 2) + 1e-8 * np.eye(COLUMNS)
    smooth = rng.standard_normal((n, COLUMNS)) @ np.linalg.cholesky(near).T
    effect = distance * np.exp(-0.5 * ((POSITIONS[:, 0] - POSITIONS[CENTRE, 0]) / 8.0) ** 2)
    return 0.8 * smooth + 0.6 * rng.standard_normal((n, COLUMNS)) + np.outer(group - 0.5, effect), group


@parametrize_with_checks([LocalMixture(null_draws=9)])
def test_scikit_learn_s_battery(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("distance", [0.5, 2.0, 4.0])
def test_the_kurtosis_of_two_equal_normals(distance: float) -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((400_000, 1)) + distance * (np.arange(400_000)[:, None] % 2)
    ratio = distance**2 / 4
    # standard error sqrt(24 / 400,000) = 0.008
    assert excess_kurtosis(values)[0] == pytest.approx(-2 * ratio**2 / (1 + ratio) ** 2, abs=0.03)


def test_a_column_without_variance_is_never_the_lowest() -> None:
    values = np.array([[0.0, 5.1, 1e9 + 0.1], [1.0, 5.1, 1e9 + 0.1]] * 4)
    np.testing.assert_array_equal(excess_kurtosis(values), [-2.0, np.inf, np.inf])  # two equal points: 1 / 1 - 3


def test_a_local_subgroup_is_found_where_components_do_not_show_it() -> None:
    x, group = population(0)
    found = LocalMixture(POSITIONS, random_state=0).fit(x)
    assert abs(found.place_ - CENTRE) <= 2
    assert found.p_ == 1 / 200
    assert found.valley_p(x) < 0.01
    assert adjusted_rand_score(group, found.labels_) > 0.9
    components = PCA(5, random_state=0).fit_transform(x)
    clusters = KMeans(2, n_init=10, random_state=0).fit_predict(components)
    assert adjusted_rand_score(group, clusters) < 0.2
    # rows the fit has not seen
    other, members = population(1)
    assert adjusted_rand_score(members, found.predict(other)) > 0.9


def test_neighbours_sharpen_what_one_place_shows() -> None:
    x, group = population(2, distance=3.2)
    alone = LocalMixture(POSITIONS, radius=0.0, null_draws=0, random_state=0).fit(x)
    together = LocalMixture(POSITIONS, null_draws=0, random_state=0).fit(x)
    assert alone.neighbours_.sum() == 1
    assert together.neighbours_.sum() == 11  # 20 mm to both sides, 4 mm apart
    scores = [adjusted_rand_score(group, each.labels_) for each in (alone, together)]
    assert scores[1] > scores[0]


def test_gain_and_offset_of_a_column_change_nothing() -> None:
    x, _ = population(3)
    rng = np.random.default_rng(0)
    gain, offset = rng.uniform(0.5, 2.0, COLUMNS), rng.normal(size=COLUMNS)
    first, second = (LocalMixture(POSITIONS, null_draws=0, random_state=0).fit(each) for each in (x, gain * x + offset))
    assert first.place_ == second.place_
    assert second.kurtosis_ == pytest.approx(first.kurtosis_, abs=1e-9)


def test_the_same_seed_gives_the_same_answer_and_shares_add_up() -> None:
    x, _ = population(4)
    first, second = (LocalMixture(POSITIONS, null_draws=19, random_state=5).fit(x) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(x), second.predict_proba(x))
    assert first.p_ == second.p_
    np.testing.assert_allclose(first.predict_proba(x).sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_array_equal(first.predict(x), first.labels_)
    assert first.means_[0] < first.means_[1]


@pytest.mark.parametrize("seed", [1345, 1823])  # after some rounds, and before the first
def test_one_side_may_end_without_rows(seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((12, 1))
    found = LocalMixture(null_draws=0, random_state=0).fit(x)
    assert len(set(found.labels_)) == 1
    np.testing.assert_array_equal(found.predict(x), found.labels_)


def test_one_side_may_end_with_a_single_row() -> None:
    """One row has no covariance: the discriminant would warn, and warnings are errors here."""
    x = np.random.default_rng(2).standard_normal((12, 1))
    found = LocalMixture(null_draws=0, random_state=0).fit(x)
    assert min(np.bincount(found.labels_, minlength=2)) == 1
    np.testing.assert_array_equal(found.predict(x), found.labels_)


@pytest.mark.slow
def test_one_population_rarely_has_a_place_so_low() -> None:
    """100 null populations: p of 0.05, the lowest of 20, in 5 of them, standard error 2.2."""
    p = []
    for seed in range(100):
        x, _ = population(100 + seed, distance=0.0, n=120)
        p.append(LocalMixture(POSITIONS, null_draws=19, random_state=seed).fit(x).p_)
    reached = int((np.array(p) <= 0.05).sum())
    assert reached <= 12, f"p <= 0.05 in {reached} of 100 null populations"


@pytest.mark.slow
def test_a_flat_population_has_no_valley() -> None:
    """Uniform columns have a kurtosis of -1.2, as low as two groups 3.6 sd apart, but one mode."""
    claimed = 0
    for seed in range(40):
        x = np.random.default_rng(seed).uniform(size=(240, 30))
        claimed += LocalMixture(None, null_draws=0, random_state=seed).valley_p(x) <= 0.05
    assert claimed <= 4, f"a valley in {claimed} of 40 flat populations"


def test_options_that_cannot_be_used_are_named_together() -> None:
    x, _ = population(5, n=20)
    with pytest.raises(MonaiFairError) as caught:
        LocalMixture(POSITIONS[:9], radius=-1, null_draws=-1, max_iter=0).fit(x)
    assert str(caught.value) == (
        "LocalMixture: 4 problems\n"
        "  1. radius: expected a number from 0, got -1\n"
        "  2. null_draws: expected a whole number from 0, got -1\n"
        "  3. max_iter: expected a whole number from 1, got 0\n"
        "  4. positions: expected one for each of 150 columns, got shape (9, 1)"
    )
    with pytest.raises(MonaiFairError, match="expected a column that varies, got none"):
        LocalMixture().fit(np.ones((20, 3)))
