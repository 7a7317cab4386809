import numpy as np
import pytest

from monai_fair.metrics import auc_by_group, paired_auc_difference, placements
from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.clusters import clusters_of


def kernel(positives: FloatArray, negatives: FloatArray) -> FloatArray:
    """1 where a positive is above a negative, a half for a tie: all pairs, shape (m, n)."""
    return (np.sign(positives[:, None] - negatives[None, :]) + 1) / 2


def delong_covariance(y: BoolArray, scores: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """AUCs and their covariance from matrices of all pairs: cov of row means / m + cov of column means / n."""
    matrices = [kernel(score[y], score[~y]) for score in scores]
    rows, columns = (np.atleast_2d([matrix.mean(axis=axis) for matrix in matrices]) for axis in (1, 0))
    covariance = np.cov(rows) / y.sum() + np.cov(columns) / (~y).sum()
    return np.array([matrix.mean() for matrix in matrices]), np.atleast_2d(covariance)


def obuchowski(y: BoolArray, score: FloatArray, subject: IntArray) -> tuple[float, float]:
    """AUC and its standard error after Obuchowski 1997, sec. 2, as loops over clusters and their images."""
    m, n = int(y.sum()), int((~y).sum())
    matrix = kernel(score[y], score[~y])
    theta = float(matrix.mean())
    v10, v01 = iter(matrix.mean(axis=1)), iter(matrix.mean(axis=0))
    placement = [next(v10) if positive else next(v01) for positive in y]
    clusters = sorted(set(subject.tolist()))
    of_positives, of_negatives = [], []
    for cluster in clusters:
        mine = [i for i in range(y.size) if subject[i] == cluster]
        of_positives.append([placement[i] for i in mine if y[i]])
        of_negatives.append([placement[i] for i in mine if not y[i]])
    with_positive = sum(bool(values) for values in of_positives)
    with_negative = sum(bool(values) for values in of_negatives)
    s10 = s01 = s11 = 0.0
    for one, other in zip(of_positives, of_negatives, strict=True):
        a, b = sum(one) - len(one) * theta, sum(other) - len(other) * theta
        s10, s01, s11 = s10 + a * a, s01 + b * b, s11 + a * b
    s10 *= with_positive / ((with_positive - 1) * m)
    s01 *= with_negative / ((with_negative - 1) * n)
    s11 *= len(clusters) / (len(clusters) - 1)
    return theta, (s10 / m + s01 / n + 2 * s11 / (m * n)) ** 0.5


def draw(seed: int, subjects: int = 60) -> tuple[BoolArray, FloatArray, FloatArray, IntArray, IntArray]:
    """Images of subjects who may have both classes and lie in one group, in another or in none; scores with ties."""
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, subjects, 3 * subjects)
    group = rng.integers(-1, 2, subjects)[subject]
    y = rng.random(subject.size) < 0.25 + 0.5 * (subject % 2)
    own = rng.normal(size=subjects)[subject]
    scores = [np.round(own + y + rng.normal(size=y.size), 1) for _ in range(2)]
    return y, scores[0], scores[1], group, subject


@pytest.mark.parametrize("seed", range(4))
def test_subjects_as_clusters_equal_obuchowskis_formula(seed: int) -> None:
    y, score, _, group, subject = draw(seed)
    clusters = clusters_of(group, 2, subject)
    auc, error = auc_by_group(y, placements(y, score, group), group, 2, clusters)
    for code in (0, 1):
        at = group == code
        assert (auc[code], error[code]) == pytest.approx(obuchowski(y[at], score[at], subject[at]), abs=1e-12)


def test_one_image_per_subject_is_plain_delong() -> None:
    y, score, _, group, _ = draw(0)
    alone = clusters_of(group, 2, np.random.default_rng(1).permutation(y.size))
    placed = placements(y, score, group)
    np.testing.assert_array_equal(auc_by_group(y, placed, group, 2, alone), auc_by_group(y, placed, group, 2))


@pytest.mark.parametrize("copies", [2, 3])
def test_copies_of_images_change_neither_auc_nor_error(copies: int) -> None:
    y, score, later, group, subject = draw(2)
    once = paired_auc_difference(y, score[None], later[None], group, 2, clusters_of(group, 2, subject))
    more = [np.tile(array, copies) for array in (y, score, later, group, subject)]
    often = paired_auc_difference(more[0], more[1][None], more[2][None], more[3], 2, clusters_of(more[3], 2, more[4]))
    np.testing.assert_allclose(often, once, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_paired_difference_equals_the_matrix_of_all_pairs(seed: int) -> None:
    y, score, later, group, _ = draw(seed)
    difference, error = paired_auc_difference(y, score[None], later[None], group, 2, clusters_of(group, 2, None))
    for code in (0, 1):
        at = group == code
        auc, covariance = delong_covariance(y[at], [later[at], score[at]])
        variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
        assert difference[code] == pytest.approx(auc[0] - auc[1], abs=1e-12)
        assert error[code] == pytest.approx(variance**0.5, abs=1e-12)


def test_paired_difference_of_mean_aucs_over_seeds() -> None:
    # Contrast (1/2, 1/2, -1/2, -1/2) of the AUCs of two seeds of either run.
    y, first, later, group, _ = draw(7)
    rng = np.random.default_rng(0)
    runs = [np.stack([score, score + rng.normal(size=y.size)]) for score in (first, later)]
    difference, error = paired_auc_difference(y, *runs, group, 2, clusters_of(group, 2, None))
    at = group == 1
    auc, covariance = delong_covariance(y[at], [score[at] for score in (*runs[1], *runs[0])])
    contrast = np.array([0.5, 0.5, -0.5, -0.5])
    assert difference[1] == pytest.approx(contrast @ auc, abs=1e-12)
    assert error[1] == pytest.approx((contrast @ covariance @ contrast) ** 0.5, abs=1e-12)


def test_a_run_does_not_differ_from_itself() -> None:
    y, score, _, group, subject = draw(3)
    found = paired_auc_difference(y, score[None], score[None], group, 2, clusters_of(group, 2, subject))
    np.testing.assert_array_equal(found, np.zeros((2, 2)))


def test_one_subject_with_positives_has_a_value_but_no_error() -> None:
    y = np.array([True, True, False, False])
    group, subject = np.zeros(4, int), np.array([0, 0, 1, 2])
    score = np.array([0.9, 0.4, 0.5, 0.1])
    auc, error = auc_by_group(y, placements(y, score, group), group, 1, clusters_of(group, 1, subject))
    assert auc[0] == 0.75  # three of four pairs
    assert np.isnan(error[0])
