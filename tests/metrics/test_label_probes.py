"""Probes within each label leave out what the label itself tells; the label alone tells what its rates do."""

import numpy as np
import pytest
from scipy.stats import norm

from monai_fair.errors import MonaiFairError
from monai_fair.metrics import attribute_probe
from monai_fair.metrics.label_probes import label_alone_probe, within_label_probe

N = 4000
SPLIT = np.where(np.arange(N) % 2 == 0, "val", "test")


def cohort(distance: float, *, agree: float, classes: int = 2) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Features that tell the label wholly and, in one column, a sex that agrees with the label in a share of cases."""
    rng = np.random.default_rng(0)
    label = rng.integers(classes, size=N)
    male = np.where(rng.random(N) < agree, label == 0, label != 0)
    x = rng.standard_normal((N, 4))
    x[:, 0] += 8 * label
    x[:, 1] += distance * male
    return x, np.where(male, "m", "f").tolist(), label


def test_what_only_the_label_tells_is_not_told_within_it() -> None:
    x, sex, label = cohort(0.0, agree=0.8)
    assert attribute_probe(x, sex, SPLIT).auc == pytest.approx(0.8, abs=0.04)
    # 1000 test rows of a class, 200 of them of the rarer sex: a standard error of at most 0.023, of the mean 0.017
    found = within_label_probe(x, sex, label, SPLIT)
    assert found.auc == pytest.approx(0.5, abs=4 * 0.017)
    assert (found.n_fitted, found.n, found.reason) == (2000, 2000, "")


def test_what_is_told_beside_the_label_is_told_within_it() -> None:
    """Two normals at a distance of 1 have an AUC of Phi(1 / sqrt 2) = 0.760 in each class."""
    x, sex, label = cohort(1.0, agree=0.8)
    assert within_label_probe(x, sex, label, SPLIT).auc == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=4 * 0.017)


def test_it_is_the_mean_of_probes_of_the_classes() -> None:
    x, sex, label = cohort(0.7, agree=0.6, classes=3)
    own = []
    for number in range(3):
        rows = np.flatnonzero(label == number)
        own.append(attribute_probe(x[rows], [sex[row] for row in rows], SPLIT[rows], seed=3).auc)
    assert within_label_probe(x, sex, label, SPLIT, seed=3).auc == pytest.approx(sum(own) / 3, abs=1e-15)


def test_the_label_alone_tells_the_mean_of_two_rates() -> None:
    """Of two classes a probe can only say one sex for each: its AUC is (TPR + TNR) / 2."""
    _, sex, label = cohort(0.0, agree=0.7)
    test = SPLIT == "test"
    male, negative = np.array(sex)[test] == "m", label[test] == 0
    expected = (negative[male].mean() + (~negative)[~male].mean()) / 2
    assert label_alone_probe(sex, label, SPLIT).auc == pytest.approx(expected, abs=1e-12)
    shifted = label_alone_probe(sex, 7 - label, SPLIT)
    assert shifted.auc == pytest.approx(expected, abs=1e-12)


def test_a_class_without_a_probe_leaves_the_mean_undefined() -> None:
    x, _, label = cohort(0.0, agree=0.5)
    sex = np.where((label == 1) | (np.arange(N) % 4 < 2), "f", "m")
    found = within_label_probe(x, sex.tolist(), label, SPLIT)
    assert np.isnan(found.auc)
    n = int(((label == 1) & (SPLIT == "val")).sum())
    assert found.reason == f"class 1: expected two levels with 5 rows in val, got f {n}"
    nothing = within_label_probe(x[:0], [], label[:0], [])
    assert (np.isnan(nothing.auc), nothing.n, nothing.reason) == (True, 0, "there are no rows")


def test_lengths_have_to_agree() -> None:
    x, sex, label = cohort(0.0, agree=0.5)
    with pytest.raises(MonaiFairError, match=r"^within_label_probe: .* got 4000, 4000, 3999 and 4000$"):
        within_label_probe(x, sex, label[1:], SPLIT)
    with pytest.raises(MonaiFairError, match="expected finite features"):
        label_alone_probe(sex, label[1:], SPLIT)
