"""Shifts of groups' scores within the classes, and thresholds that rest on them."""

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import multivariate_normal, norm

from monai_fair.errors import MonaiFairError
from monai_fair.metrics import ThresholdFitter
from monai_fair.metrics.group_shifts import group_shifts, shifted_thresholds

Rows = tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64], npt.NDArray[np.int64]]


def drawn(shifts: tuple[float, ...], counts: tuple[tuple[int, int], ...], seed: int = 0) -> Rows:
    """Positives and negatives of each group, two logits apart, with noise of standard deviation 1."""
    rng = np.random.default_rng(seed)
    positive = np.concatenate([np.repeat([True, False], pair) for pair in counts])
    codes = np.repeat(np.arange(len(counts)), [sum(pair) for pair in counts])
    return positive, expit(np.array(shifts)[codes] + 2.0 * positive + rng.standard_normal(len(codes))), codes


def test_large_groups_have_the_planted_shifts() -> None:
    # the share of positives differs by group, which is no shift
    found = group_shifts(*drawn((-0.8, 0.3, 1.1), ((4000, 16000), (16000, 4000), (10000, 10000))))
    np.testing.assert_allclose(found - found[0], [0.0, 1.1, 1.9], atol=0.04)


def test_it_is_the_mean_of_the_random_intercepts_of_largest_likelihood() -> None:
    positive, value, codes = drawn((-1.0, 0.0, 0.5, 0.9), ((9, 31), (12, 40), (3, 7), (25, 20)))
    target, member = logit(value), np.eye(4)[codes]
    classes = np.column_stack([positive, ~positive]).astype(float)
    apart = np.eye(len(target)) - classes @ np.linalg.inv(classes.T @ classes) @ classes.T
    target, member = apart @ target, apart @ member

    def loss(logs: npt.NDArray[np.float64]) -> float:
        noise, spread = np.exp(logs)
        return -float(multivariate_normal(cov=noise * np.eye(len(target)) + spread * member @ member.T).logpdf(target))

    noise, spread = np.exp(minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-8}).x)
    wanted = np.linalg.solve(member.T @ member + noise / spread * np.eye(4), member.T @ target)
    np.testing.assert_allclose(group_shifts(positive, value, codes), wanted, atol=1e-3)


def test_a_small_group_is_drawn_to_no_shift_and_more_when_groups_are_alike() -> None:
    counts = ((2, 2), (500, 500), (500, 500), (500, 500))
    far, near = (group_shifts(*drawn((1.0, *others), counts)) for others in ((-1.0, 0.0, 1.0), (0.0, 0.01, -0.01)))
    assert abs(near[0]) < 0.5 * abs(far[0])


def test_neither_order_nor_a_common_change_matters() -> None:
    positive, value, codes = drawn((-0.5, 0.5), ((20, 30), (10, 40)))
    found = group_shifts(positive, value, codes)
    order = np.random.default_rng(1).permutation(len(value))
    assert (group_shifts(positive[order], value[order], codes[order]) == found).all()
    np.testing.assert_allclose(group_shifts(positive, expit(logit(value) + 0.7), codes), found, atol=1e-9)


def test_rows_of_no_known_group_do_not_count() -> None:
    positive, value, codes = drawn((-0.5, 0.5, 3.0), ((20, 30), (10, 40), (5, 5)))
    known = codes < 2
    codes[~known] = -1
    assert (group_shifts(positive, value, codes) == group_shifts(positive[known], value[known], codes[known])).all()


@pytest.mark.parametrize("value", [[0.5, 0.5, 0.5, 0.5], [0.0, 1.0, 0.0, 1.0]])
def test_scores_that_tell_no_shift_have_none(value: list[float]) -> None:
    positive, codes = np.array([False, True, False, True]), np.array([0, 0, 1, 1])
    np.testing.assert_allclose(group_shifts(positive, np.array(value), codes), 0.0, atol=1e-12)


def test_a_threshold_moves_with_its_group() -> None:
    rows = drawn((-1.0, 1.0), ((20000, 20000), (20000, 20000)))
    # midway between the means of the classes, 0 and 2, as many positives are missed as negatives taken
    np.testing.assert_allclose(logit(shifted_thresholds(*rows, "min_gap", None)), [0.0, 2.0], atol=0.05)


def test_few_cases_are_judged_better_by_a_shifted_threshold_than_by_the_pooled_one() -> None:
    """A group of 5 positives whose scores lie two logits above the others'."""
    counts = ((5, 40), (300, 700), (300, 700))
    misses: dict[str, list[float]] = {"pooled": [], "shifted": []}
    for seed in range(20):
        positive, value, codes = drawn((2.0, -0.2, 0.2), counts, seed)
        table = pd.DataFrame({"group": [str(code) for code in codes]})
        for towards, found in misses.items():
            fitter = ThresholdFitter("min_gap", attributes=["group"], towards=towards)  # type: ignore[arg-type]
            fitted = fitter.fit(positive, value, table, split="val")
            assert fitted.towards == towards
            assert fitted.groups[0].weight == 0  # fewer than min_count
            cut = logit(fitted.groups[0].threshold) - 2.0
            found.append(abs(norm.sf(cut - 2.0) - norm.cdf(cut)))  # |TPR - TNR| of the planted distributions
    assert np.mean(misses["shifted"]) < 0.5 * np.mean(misses["pooled"])


def test_towards_is_one_of_two() -> None:
    with pytest.raises(MonaiFairError, match="option 'towards': expected pooled or shifted, got 'mean'"):
        ThresholdFitter(towards="mean")  # type: ignore[arg-type]


def test_classes_that_are_missing_leave_no_threshold() -> None:
    rows = drawn((0.0, 0.0), ((0, 5), (0, 5)))
    assert np.isnan(shifted_thresholds(*rows, "min_gap", None)).all()
    table = pd.DataFrame({"group": [str(code) for code in rows[2]]})
    fitted = ThresholdFitter(attributes=["group"], towards="shifted").fit(rows[0], rows[1], table, split="val")
    assert [group.reason for group in fitted.groups] == ["its rows have one class only"] * 2
