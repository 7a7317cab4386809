"""The SPLIT test: what is there is read, val chooses the penalty, test is only judged, NaN has a reason."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import mannwhitneyu, norm, t

from monai_fair.errors import MonaiFairError
from monai_fair.metrics import SplitTest, split_test

N = 1800
SPLIT = np.array(["train", "val", "test"])[np.arange(N) % 3]
STRENGTHS = 10.0 ** np.arange(-4, 3)


def cohort(
    distance: float, *, seed: int = 0, levels: int = 2, columns: int = 4, n: int = N
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    level = rng.integers(levels, size=n)
    x = rng.standard_normal((n, columns))
    x[:, 0] += distance * level
    return x @ np.linalg.qr(rng.standard_normal((columns, columns)))[0] * 100 + 7, np.array(list("abc"))[level]


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0])
def test_two_normals_are_read_with_the_auc_they_have(distance: float) -> None:
    """The best that can be is Phi(distance / sqrt 2); 600 test rows have a standard error of at most 0.0236."""
    found = split_test(*cohort(distance), SPLIT)
    assert found.auc == pytest.approx(norm.cdf(distance / np.sqrt(2)), abs=4 * 0.0236)
    assert found.low < found.auc < found.high
    assert (found.n_train, found.n_val, found.n) == (600, 600, 600)
    assert (found.reason, found.interval_reason) == ("", "")


def by_hand(x: np.ndarray, y: np.ndarray, part: np.ndarray) -> list[tuple[float, float]]:
    """AUC on val and on test of every strength: the penalised likelihood minimised by SciPy, and the U statistic."""
    train = part == "train"
    z = (x - x[train].mean(0)) / x[train].std(0)
    sign = np.where(y, 1.0, -1.0)

    def auc(score: np.ndarray, name: str) -> float:
        inside = part == name
        u = mannwhitneyu(score[inside & y], score[inside & ~y], method="asymptotic").statistic
        return float(u / ((inside & y).sum() * (inside & ~y).sum()))

    found = []
    for strength in STRENGTHS:

        def loss(w: np.ndarray, strength: float = strength) -> float:
            margin = sign[train] * (z[train] @ w[:-1] + w[-1])
            return float(w[:-1] @ w[:-1] / 2 + strength * np.logaddexp(0, -margin).sum())

        best = minimize(loss, np.zeros(x.shape[1] + 1), method="BFGS", options={"gtol": 1e-6}).x
        found.append((auc(z @ best[:-1], "val"), auc(z @ best[:-1], "test")))
    return found


def test_it_is_the_penalised_regression_whose_strength_val_chooses() -> None:
    """Train is small and most columns are noise, so that strengths differ in what they read."""
    x, level = cohort(1.0, columns=12, n=300)
    part = np.where(np.arange(300) < 40, "train", np.where(np.arange(300) < 150, "val", "test"))
    found = split_test(x, level, part)
    reference = by_hand(x, level == "b", part)
    val = np.array([one for one, _ in reference])
    assert val.max() - val.min() > 0.02  # the choice matters
    assert found.strength == pytest.approx(STRENGTHS[val.argmax()])
    assert found.val_auc == pytest.approx(val.max(), abs=1e-3)
    assert found.auc == pytest.approx(reference[int(val.argmax())][1], abs=1e-3)


def test_the_strongest_penalty_of_equals_is_taken() -> None:
    level = np.where(np.arange(60) % 2 == 0, "f", "m")
    part = np.repeat(["train", "val", "test"], 20)
    found = split_test(np.where(level == "f", -1.0, 1.0)[:, None], level, part)
    assert (found.strength, found.val_auc, found.auc) == (1e-4, 1.0, 1.0)
    assert np.isnan(found.low)
    assert found.interval_reason == "an AUC of exactly 0 or 1 has no DeLong interval"


def test_test_rows_have_no_part_in_fit_and_choice() -> None:
    x, level = cohort(1.0)
    poisoned = np.where((SPLIT == "test")[:, None], x * 1e4 + 1e6, x)
    one, other = split_test(x, level, SPLIT), split_test(poisoned, level, SPLIT)
    assert (one.val_auc, one.strength) == (other.val_auc, other.strength)
    # a map of all test rows that keeps their order keeps the AUC, if nothing of them went into the mean and deviation
    assert other.auc == pytest.approx(one.auc, abs=1e-12)


def test_val_rows_choose_and_are_not_fitted() -> None:
    x, level = cohort(2.0)
    turned = np.where((SPLIT == "val") & (level == "a"), "b", np.where(SPLIT == "val", "a", level))
    found = split_test(x, turned, SPLIT)
    assert found.auc == pytest.approx(split_test(x, level, SPLIT).auc, abs=0.01)
    assert found.val_auc < 0.2


SETTINGS = settings(deadline=None, max_examples=8, derandomize=True)


@SETTINGS
@given(st.randoms(use_true_random=False), st.floats(0.01, 1000), st.floats(-100, 100))
def test_order_names_and_scale_do_not_matter(shuffle: Any, scale: float, shift: float) -> None:
    x, level = cohort(0.7, n=240)
    part, who = SPLIT[:240], np.arange(240) // 6
    order = list(range(240))
    shuffle.shuffle(order)
    plain = split_test(x, level, part, subject=who.astype(str))
    renamed = np.where(level == "a", "z", "y")  # the other level comes first now
    other = split_test((x * scale + shift)[order], renamed[order], part[order], subject=who[order].astype(str))
    assert other.auc == pytest.approx(plain.auc, abs=1e-3)
    assert (other.low, other.high) == pytest.approx((plain.low, plain.high), abs=3e-3)


def test_the_interval_is_delongs_on_the_logit() -> None:
    """Placements by comparing every pair; variance, Welch's degrees of freedom and the logit written out."""
    x, level = cohort(1.0, columns=1, n=240)
    found = split_test(x, level, SPLIT[:240])
    test = SPLIT[:240] == "test"
    sign = 1.0 if x[level == "b"].mean() > x[level == "a"].mean() else -1.0
    positive, negative = (sign * x[test & (level == name), 0] for name in "ba")
    wins = (positive[:, None] > negative[None, :]).astype(float)
    auc = wins.mean()
    parts = np.array([wins.mean(1).var(ddof=1) / len(positive), wins.mean(0).var(ddof=1) / len(negative)])
    degrees = parts.sum() ** 2 / (parts**2 / (np.array([len(positive), len(negative)]) - 1)).sum()
    half = t.ppf(0.975, degrees) * np.sqrt(parts.sum()) / (auc * (1 - auc))
    assert (found.auc, found.low, found.high) == pytest.approx(
        (auc, *expit(logit(auc) + np.array([-half, half]))), abs=1e-12
    )


def test_images_of_one_subject_are_one_draw() -> None:
    """Every test row twice says no more than once."""
    x, level = cohort(1.0, n=240)
    part, who = SPLIT[:240], np.arange(240).astype(str)
    twice = np.concatenate([np.arange(240), np.flatnonzero(part == "test")])
    once = split_test(x, level, part, subject=who.tolist())
    again = split_test(x[twice], level[twice], part[twice], subject=who[twice].tolist())
    assert (again.auc, again.low, again.high) == pytest.approx((once.auc, once.low, once.high), abs=1e-12)
    without = split_test(x[twice], level[twice], part[twice])
    assert without.high - without.low < 0.8 * (once.high - once.low)


def test_three_levels_are_each_read_against_the_others() -> None:
    found = split_test(*cohort(6.0, levels=3), SPLIT)
    assert found.auc > 0.9
    assert np.isnan(found.low)
    assert found.interval_reason == "more than two levels: the mean of their AUCs has no interval"


def test_collapsed_features_tell_the_label_only() -> None:
    """Two points of class means, and attribute and label independent by design: the AUC is 0.5 exactly."""
    corner = np.repeat([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], 60, axis=0)  # label, attribute
    part = np.tile(["train", "val", "test"], 80)
    means = np.array([[1.0, 2.0, 5.0], [3.0, -2.0, 5.0]])  # the third feature is the same for all
    found = split_test(means[corner[:, 0].astype(int)], np.where(corner[:, 1] > 0, "f", "m"), part)
    assert found.auc == 0.5


def test_rows_without_the_attribute_and_of_other_parts_do_not_count() -> None:
    x, level = cohort(1.0)
    level[:90] = ""
    part = SPLIT.copy().astype(object)
    part[90:120] = "left_out"
    known = (level != "") & (part != "left_out")
    found = split_test(x, level, part.tolist())
    assert found == split_test(x[known], level[known], part[known].tolist())
    assert (found.n_train, found.n_val, found.n) == (560, 560, 560)


def test_undefined_has_a_reason() -> None:
    x, level = cohort(1.0)
    one = split_test(x, np.full(N, "f"), SPLIT)
    assert np.isnan([one.auc, one.low, one.high, one.val_auc, one.strength]).all()
    assert one.reason == one.interval_reason == "expected two levels with 5 rows in train, got f 600"
    few = np.where(np.arange(N) < 12, "m", "f")
    assert split_test(x, few, SPLIT).reason == "expected two levels with 5 rows in train, got f 596, m 4"
    for name in ("val", "test"):
        late = np.where((name == SPLIT) & (level == "b"), "a", level)
        assert split_test(x, late, SPLIT).reason == f"expected every level in {name}, got no row of b"
    nobody = split_test(x, np.full(N, ""), SPLIT)
    assert isinstance(nobody, SplitTest)
    assert (nobody.reason, nobody.n) == ("expected two levels with 5 rows in train, got none", 0)
    rare = np.where((SPLIT == "test") & (np.cumsum(SPLIT == "test") > 9), "a", level)
    found = split_test(x, rare, SPLIT)
    assert found.auc > 0
    assert np.isnan(found.low)
    assert found.interval_reason == "fewer than 10 subjects of one of the levels"


def test_bad_input() -> None:
    x, level = cohort(1.0)
    broken = x.copy()
    broken[3:5] = np.nan
    with pytest.raises(MonaiFairError) as caught:
        split_test(broken, level[1:], SPLIT, subject=["s"])
    assert str(caught.value) == (
        "split_test: 3 problems\n"
        "  1. expected an attribute for each of 1800 rows of features, got 1799\n"
        "  2. expected a subject for each of 1800 rows of features, got 1\n"
        "  3. expected finite features, 2 of 1800 rows are not; leave them out or find out why"
    )
    with pytest.raises(MonaiFairError, match=r"split_test: expected features of shape \(n, d\), got \(1800,\)$"):
        split_test(x[:, 0], level, SPLIT)
