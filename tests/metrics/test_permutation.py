from collections import Counter
from itertools import permutations as orders

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.groups import Grouping
from monai_fair.metrics.kinds import Kinds, kinds_of, values_of
from monai_fair.metrics.permutation import permute_groups, unit_strata
from monai_fair.metrics.samples import Samples, canonical_samples


def grouping(name: str, codes: IntArray) -> Grouping:
    names = tuple("abcdef"[: codes.max() + 1])
    return Grouping((name,), tuple((level,) for level in names), names, codes)


def prepared(y: BoolArray, score: FloatArray, subject: IntArray, *codes: IntArray) -> tuple[Samples, Kinds]:
    samples = canonical_samples(y, [score], subject, [grouping(f"g{i}", code) for i, code in enumerate(codes)])
    ordered = score[samples.rows]
    return samples, kinds_of(samples.y, ordered, ordered[None] >= 0.5)


def shuffled_counts(samples: Samples, kinds: Kinds, permutations: int) -> FloatArray:
    return permute_groups(samples, [kinds], lambda counts: [counts[0]], permutations=permutations, seed=0)[0]


def test_auc_gaps_follow_the_whole_permutation_distribution() -> None:
    # 4! x 4! assignments of two groups within positives and within negatives.
    y = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)
    score = np.array([0.9, 0.8, 0.4, 0.3, 0.7, 0.4, 0.2, 0.1])
    exact: Counter[float] = Counter()
    for positives in orders([0, 0, 1, 1]):
        for negatives in orders([0, 0, 1, 1]):
            group = np.array([*positives, *negatives])
            aucs = [roc_auc_score(y[group == code], score[group == code]) for code in (0, 1)]
            exact[round(abs(aucs[0] - aucs[1]), 9)] += 1
    samples, kinds = prepared(y, score, np.arange(8), np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    aucs = values_of_all(kinds, shuffled_counts(samples, kinds, 20_000))
    drawn = Counter(np.abs(aucs[:, 0] - aucs[:, 1]).round(9).tolist())
    assert set(drawn) == set(exact)
    total = sum(exact.values())
    for value, count in exact.items():
        # 4 standard errors of a share over 20,000 draws
        assert drawn[value] / 20_000 == pytest.approx(count / total, abs=4 * np.sqrt(0.25 / 20_000))


def values_of_all(kinds: Kinds, counts: FloatArray) -> FloatArray:
    """AUC of every shuffle and group; shuffles are taken as further groups."""
    flat = counts.reshape(-1, *counts.shape[2:])
    return values_of(kinds, flat, [("auc", None)])[0].reshape(counts.shape[:2])


def test_margins_are_kept() -> None:
    rng = np.random.default_rng(0)
    y, score = rng.random(90) < 0.4, rng.random(90)
    first, second = rng.integers(0, 3, 90), rng.integers(-1, 2, 90)
    samples, kinds = prepared(y, score, np.arange(90), first, second)
    counts = shuffled_counts(samples, kinds, 30)
    expected = [
        [int((codes == code)[y == truth].sum()) for truth in (False, True)]
        for codes in (first, second)
        for code in range(codes.max() + 1)
    ]
    # Every group keeps its negatives and positives; every kind keeps its samples, over the groups of one attribute.
    np.testing.assert_array_equal(counts.sum(axis=-1), np.broadcast_to(expected, (30, 5, 2)))
    of_kinds = np.stack([np.bincount(kinds.index[samples.y == truth], minlength=kinds.count) for truth in (0, 1)])
    np.testing.assert_array_equal(counts[:, :3].sum(axis=1), np.broadcast_to(of_kinds, (30, *of_kinds.shape)))
    assert len({count.tobytes() for count in counts}) == 30


def test_attributes_move_together() -> None:
    # The second attribute is the first with its groups merged, so it must stay that in every shuffle.
    rng = np.random.default_rng(1)
    y, score, fine = rng.random(60) < 0.5, rng.random(60), rng.integers(0, 3, 60)
    samples, kinds = prepared(y, score, np.arange(60), fine, np.minimum(fine, 1))
    counts = shuffled_counts(samples, kinds, 20)
    np.testing.assert_array_equal(counts[:, 0], counts[:, 3])
    np.testing.assert_array_equal(counts[:, 1] + counts[:, 2], counts[:, 4])


def test_images_of_a_subject_move_together() -> None:
    # Ten subjects with two negative images each, told apart by the score; a group never gets one image alone.
    subject = np.repeat(np.arange(10), 2)
    score, group = (subject + 1) / 20, subject % 2
    samples, kinds = prepared(np.zeros(20, bool), score, subject, group)
    counts = shuffled_counts(samples, kinds, 40)[:, :, 0]
    assert set(np.unique(counts)) == {0.0, 2.0}
    assert len({count.tobytes() for count in counts}) > 30


def test_units_are_sorted_by_truth_and_size() -> None:
    # Units: one negative; two negatives; a positive and a negative; three positives; four positives; one positive.
    unit = np.repeat(np.arange(6), [1, 2, 2, 3, 4, 1])
    y = np.array([0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1], bool)
    strata = unit_strata(unit, y)
    # sizes 2 and 3 are near, 4 is not; truth is never mixed
    assert len(set(strata.tolist())) == 6
    three_negatives = unit_strata(np.array([0, 0, 1, 1, 1]), np.zeros(5, bool))
    assert three_negatives[0] == three_negatives[1]


def test_mixed_subjects_are_shuffled_among_themselves() -> None:
    rng = np.random.default_rng(2)
    subject = np.repeat(np.arange(30), 2)
    y = np.concatenate([np.tile([0, 1], 10), np.zeros(20), np.ones(20)]).astype(bool)
    group = rng.integers(0, 2, 30)[subject]
    samples, kinds = prepared(y, rng.random(60), subject, group)
    counts = shuffled_counts(samples, kinds, 20).sum(axis=-1)
    expected = [[(group == code)[y == truth].sum() for truth in (False, True)] for code in (0, 1)]
    np.testing.assert_array_equal(counts, np.broadcast_to(expected, counts.shape))


def test_seeds_of_runs_are_shuffled_together_and_streams_are_seeded() -> None:
    rng = np.random.default_rng(0)
    samples, kinds = prepared(rng.random(50) < 0.5, rng.random(50), np.arange(50), rng.integers(0, 2, 50))

    def shuffles(seed: int) -> list[FloatArray]:
        return permute_groups(samples, [kinds, kinds], lambda counts: list(counts), permutations=50, seed=seed)

    first, second = shuffles(3)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, shuffles(3)[0])
    assert not np.array_equal(first, shuffles(4)[0])
