from collections.abc import Callable
from itertools import permutations as orders
from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score

from monai_fair.metrics import permutation_p, permuted_auc_gaps, permuted_rate_gaps


def all_gaps(value_of: Callable[[Any], float], group: list[int]) -> Any:
    """Gap under every order of the group names: the whole permutation distribution."""
    gaps = []
    for order in orders(group):
        values = [value_of(np.array(order) == code) for code in set(group)]
        gaps.append(max(values) - min(values))
    return np.array(gaps)


def test_rate_gaps_follow_the_whole_permutation_distribution() -> None:
    hits = np.array([[1, 1, 1, 0, 0, 0, 0]], bool)
    group = [0, 0, 0, 1, 1, 2, 2]
    exact = all_gaps(lambda inside: hits[0, inside].mean(), group)
    drawn = permuted_rate_gaps(hits, np.array(group), permutations=20_000, seed=1)
    for value in np.unique(exact.round(9)):
        share = (np.abs(exact - value) < 1e-9).mean()
        # 4 standard errors of a share over 20,000 draws
        assert (np.abs(drawn - value) < 1e-9).mean() == pytest.approx(share, abs=4 * np.sqrt(0.25 / 20_000))


def test_seeds_are_shuffled_together() -> None:
    # Two equal seeds: the mean gap of both is the gap of one, so its distribution is that of one seed.
    hits = np.array([[1, 1, 1, 0, 0, 0, 0, 1]], bool)
    group = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    one = permuted_rate_gaps(hits, group, permutations=500, seed=3)
    two = permuted_rate_gaps(np.vstack([hits, hits]), group, permutations=500, seed=3)
    np.testing.assert_allclose(one, two)


def test_auc_gaps_follow_the_permutation_distribution_within_classes() -> None:
    y = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    score = np.array([0.9, 0.8, 0.4, 0.3, 0.7, 0.4, 0.2, 0.1])
    exact = []
    for positives in orders([0, 0, 1, 1]):
        for negatives in orders([0, 0, 1, 1]):
            group = np.array([*positives, *negatives])
            aucs = [roc_auc_score(y[group == code], score[group == code]) for code in (0, 1)]
            exact.append(abs(aucs[0] - aucs[1]))
    exact = np.array(exact)
    drawn = permuted_auc_gaps(y, score[None], np.array([0, 0, 1, 1, 0, 0, 1, 1]), permutations=20_000, seed=2)
    for value in np.unique(exact.round(9)):
        share = (np.abs(exact - value) < 1e-9).mean()
        assert (np.abs(drawn - value) < 1e-9).mean() == pytest.approx(share, abs=4 * np.sqrt(0.25 / 20_000))


def test_results_are_seeded_and_free_of_group_order() -> None:
    rng = np.random.default_rng(0)
    y = rng.random(120) < 0.4
    scores = np.round(rng.random((2, 120)), 1)
    group = rng.integers(0, 3, 120)
    renamed = np.array([2, 0, 1])[group]
    options = {"permutations": 50, "seed": 7}
    auc = permuted_auc_gaps(y, scores, group, **options)
    np.testing.assert_array_equal(auc, permuted_auc_gaps(y, scores, renamed, **options))
    assert not np.array_equal(auc, permuted_auc_gaps(y, scores, group, permutations=50, seed=8))
    rates = permuted_rate_gaps(scores > 0.5, group, **options)
    np.testing.assert_array_equal(rates, permuted_rate_gaps(scores > 0.5, renamed, **options))
    order = rng.permutation(120)
    np.testing.assert_array_equal(rates, permuted_rate_gaps((scores > 0.5)[:, order], group[order], **options))


def test_chunks_cover_all_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_fair.metrics.permutation._ELEMENTS", 100)
    rng = np.random.default_rng(0)
    y, group = np.arange(40) % 2 == 0, np.arange(40) // 2 % 2
    assert permuted_auc_gaps(y, rng.random((1, 40)), group, permutations=33, seed=0).shape == (33,)
    assert permuted_rate_gaps(rng.random((1, 40)) < 0.5, group, permutations=33, seed=0).shape == (33,)


def test_a_planted_gap_has_a_small_p() -> None:
    rng = np.random.default_rng(1)
    group = np.repeat([0, 1], 100)
    hits = rng.random((1, 200)) < np.where(group == 0, 0.9, 0.5)
    observed = abs(hits[0, :100].mean() - hits[0, 100:].mean())
    assert permutation_p(observed, permuted_rate_gaps(hits, group, permutations=999, seed=0)) == 0.001


@pytest.mark.slow
@pytest.mark.parametrize("groups", [2, 4, 8])
def test_p_is_uniform_when_groups_do_not_differ(groups: int) -> None:
    # The p of a discrete gap is conservative by its ties; the AUC gap has few of them.
    rng = np.random.default_rng(groups)
    group = np.tile(np.arange(groups), 400 // groups)
    p_rate, p_auc = [], []
    for _ in range(400):
        y = np.repeat([False, True], 200)
        score = rng.normal(size=(1, 400)) + y
        codes = rng.permutation(group)
        aucs = [roc_auc_score(y[codes == code], score[0, codes == code]) for code in range(groups)]
        p_auc.append(permutation_p(np.ptp(aucs), permuted_auc_gaps(y, score, codes, permutations=199, seed=0)))
        hits, positive = score[:, y] > 1, codes[y]
        rates = [hits[0, positive == code].mean() for code in range(groups)]
        p_rate.append(permutation_p(np.ptp(rates), permuted_rate_gaps(hits, positive, permutations=199, seed=0)))
    assert np.mean(np.array(p_rate) <= 0.05) <= 0.07
    assert np.mean(np.array(p_auc) <= 0.05) <= 0.07
    # 0.0814 is the 1 % point of the Kolmogorov-Smirnov distance for 400 values.
    assert kstest(p_auc, "uniform").statistic < 0.0814
