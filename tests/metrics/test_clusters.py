import numpy as np
import pytest

from monai_fair.metrics.arrays import BoolArray
from monai_fair.metrics.clusters import clusters_of, effective_trials


def worth(hits: list[int], subject: list[int], trials: list[int] | None = None) -> float:
    group = np.zeros(len(hits), int)
    below = np.ones(len(hits)) if trials is None else np.array(trials, float)
    clusters = clusters_of(group, 1, np.array(subject))
    return float(effective_trials(np.array(hits, float), below, group, clusters)[0])


def test_subjects_by_hand() -> None:
    # Subject 0 has images in both groups, subject 1 two in group 1, subject 2 one in no group.
    group, subject = np.array([0, 1, 1, 1, -1]), np.array([0, 0, 1, 1, 2])
    clusters = clusters_of(group, 2, subject)
    assert not clusters.single
    assert clusters.count(np.ones(5, bool)).tolist() == [1, 2]
    assert clusters.count(np.array([1, 0, 0, 1, 1], bool)).tolist() == [1, 1]
    assert clusters.total(clusters.sums(np.array([1.0, 2.0, 4.0, 8.0, 16.0]))).tolist() == [1.0, 14.0]


@pytest.mark.parametrize("subject", [None, np.array([2, 0, 1])])
def test_one_image_each(subject: BoolArray | None) -> None:
    clusters = clusters_of(np.array([0, -1, 1]), 2, subject)
    assert clusters.single
    assert clusters.count(np.array([True, True, False])).tolist() == [1, 0]
    assert clusters.total(np.array([1.0, 2.0, 4.0])).tolist() == [1.0, 4.0]


def test_images_of_one_subject_each_are_worth_themselves() -> None:
    assert worth([1, 0, 1, 0], [0, 1, 2, 3]) == 4.0


def test_twice_the_same_images_are_worth_what_they_are_once() -> None:
    # Residuals of each subject are 2 (1 - 1/2) or 2 (0 - 1/2): squares add up to 4; 4 / (8 x 1/4) is an effect of 2.
    assert worth([1, 0, 1, 0] * 2, [0, 1, 2, 3] * 2) == 4.0


def test_the_design_effect_by_hand() -> None:
    # Subject 0: 1, 1; subject 1: 1, 0; subject 2: 0, 0. Rate 1/2, residuals 1, 0, -1; effect 2 / (6 / 4) = 4/3.
    assert worth([1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 2, 2]) == pytest.approx(6 / (4 / 3), abs=1e-12)


def test_unlike_images_of_a_subject_are_worth_no_more_than_themselves() -> None:
    # Each subject has one hit and one miss: no residual, and an effect of 0, taken as 1.
    assert worth([1, 0, 1, 0], [0, 0, 1, 1]) == 4.0


@pytest.mark.parametrize("hit", [0, 1])
def test_a_rate_of_zero_or_one_is_worth_its_subjects(hit: int) -> None:
    assert worth([hit] * 5, [0, 0, 0, 1, 1]) == 2.0


def test_only_trials_count() -> None:
    # The two images that are no trials belong to subject 2, who has no other.
    assert worth([1, 0, 1, 0, 0, 0], [0, 0, 1, 1, 2, 2], [1, 1, 1, 1, 0, 0]) == 4.0
    assert np.isnan(worth([0, 0], [0, 0], [0, 0]))
