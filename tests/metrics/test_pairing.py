from itertools import product

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.changes import two_sided_p
from monai_fair.metrics.groups import Grouping
from monai_fair.metrics.kinds import kinds_of, values_of
from monai_fair.metrics.pairing import PairedKinds, swap_runs
from monai_fair.metrics.samples import canonical_samples

QUANTITIES: list[tuple[str, int | None]] = [
    ("auc", None),
    ("average_precision", None),
    ("brier", None),
    ("tpr", 0),
]
RANKED = (True, True, False, False)
Counts = list[tuple[FloatArray, FloatArray]]


def mid_ranks(score: FloatArray) -> FloatArray:
    """Middle rank among the samples of the run."""
    return np.array([(score < value).sum() + (score == value).sum() / 2 for value in score])


def swapped(y: FloatArray, first: FloatArray, later: FloatArray, subject: FloatArray, count: int) -> FloatArray:
    """Differences, later minus first, of all samples under ``count`` random swaps, shape ``(count, Q)``."""
    everyone = Grouping((), ((),), ("everyone",), np.zeros(y.size, dtype=np.int64))
    samples = canonical_samples(y, [first, later], subject, [everyone])
    one, other = (kinds_of(samples.y, run[samples.rows], run[samples.rows][None] >= 0.5) for run in (first, later))
    pair = PairedKinds(one, other)

    def values(counts: Counts) -> FloatArray:
        by_score, by_rank = counts[0]
        ranked, scored = values_of(pair.by_rank, by_rank, QUANTITIES), values_of(pair.by_score, by_score, QUANTITIES)
        return np.where(np.array(RANKED)[:, None], ranked, scored)[..., 0]

    return swap_runs(
        samples, [pair], lambda before, after: values(list(after)) - values(list(before)), permutations=count, seed=0
    )


def test_swaps_follow_all_assignments_of_eight_subjects() -> None:
    rng = np.random.default_rng(0)
    y = np.array([1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 0], bool)
    subject = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2])  # three of them have two images
    first, later = np.round(rng.random((2, 11)), 1)
    ranks = mid_ranks(first), mid_ranks(later)
    exact = []
    for coins in product([False, True], repeat=8):
        away = np.array(coins)[subject]
        called = [[np.where(away, b, a), np.where(away, a, b)] for a, b in ((first, later), ranks)]
        rows = []
        for score, rank in zip(*called, strict=True):
            tpr = (score[y] >= 0.5).mean()
            brier = ((score - y) ** 2).mean()
            rows.append([roc_auc_score(y, rank), average_precision_score(y, rank), brier, tpr])
        exact.append(np.subtract(rows[1], rows[0]))
    expected, found = np.array(exact), swapped(y, first, later, subject, 8000)
    for column in range(len(QUANTITIES)):
        values, counts = np.unique(expected[:, column].round(9), return_counts=True)
        assert set(found[:, column].round(9)) == set(values)
        for value, count in zip(values, counts, strict=True):
            # 4 standard errors of a share over 8,000 draws
            share = (found[:, column].round(9) == value).mean()
            assert share == pytest.approx(count / 256, abs=4 * np.sqrt(0.25 / 8000))


def test_a_run_swapped_with_itself_stays_itself() -> None:
    rng = np.random.default_rng(1)
    y, score = rng.random(40) < 0.5, np.round(rng.random(40), 2)
    found = swapped(y, score, score, np.arange(40) // 2, 50)
    np.testing.assert_array_equal(found, 0)
    assert two_sided_p(np.zeros(len(QUANTITIES)), found).tolist() == [1.0] * len(QUANTITIES)


def test_runs_on_other_scales_are_swapped_by_rank() -> None:
    # The later run ranks alike on another scale: swapping never moves an AUC, whereas mixed raw scores would.
    rng = np.random.default_rng(2)
    y = rng.random(60) < 0.5
    score = np.round(np.clip(rng.random(60) + 0.3 * y, 0, 1), 2)
    found = swapped(y, score, score / 20, np.arange(60), 50)
    np.testing.assert_allclose(found[:, :2], 0, atol=1e-12)
    assert np.abs(found[:, 2]).min() > 0


def test_two_sided_p_by_hand() -> None:
    # 2 of 4 swaps are at least 0.3 in size, one by rounding: (1 + 2) / (4 + 1); undefined swaps do not count.
    swaps = np.array([[-(0.1 + 0.2), 0.1], [0.5, np.nan], [0.0, np.nan], [-0.1, 0.2]])
    assert two_sided_p(np.array([0.3, 0.2]), swaps).tolist() == [3 / 5, 2 / 3]
    assert np.isnan(two_sided_p(np.array([np.nan]), np.zeros((3, 1)))).tolist() == [True]
