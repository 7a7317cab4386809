import tempfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from monai_fair.metrics.group_thresholds import ThresholdFitter, Thresholds, Towards
from monai_fair.metrics.threshold_files import read_thresholds, write_thresholds
from monai_fair.metrics.thresholds import TARGETED, THRESHOLD_METHODS, ThresholdMethod, find_threshold, shrink_threshold

LAWS = settings(max_examples=60, deadline=None)
METHODS = st.sampled_from(THRESHOLD_METHODS)
TARGETS = st.sampled_from([0.1, 0.25, 0.5, 0.7, 0.9, 1.0])
Rows = list[tuple[bool, int, str]]


def rows(max_size: int = 40) -> st.SearchStrategy[Rows]:
    """Cases with ties, small groups, one-class groups and missing attributes; the score is a tenth."""
    return st.lists(
        st.tuples(st.booleans(), st.integers(0, 10), st.sampled_from(["a", "b", "c", ""])), max_size=max_size
    )


def columns(cases: Rows) -> tuple[list[bool], list[float], pd.DataFrame]:
    return (
        [y for y, _, _ in cases],
        [score / 10 for _, score, _ in cases],
        pd.DataFrame({"g": [g for _, _, g in cases]}),
    )


def find(cases: Rows, method: ThresholdMethod, target: float) -> float:
    y, score, _ = columns(cases)
    return find_threshold(y, score, method, target=target if method in TARGETED else None)


def fit(
    cases: Rows,
    method: ThresholdMethod = "youden",
    *,
    min_count: int = 1,
    shrinkage: float = 3.0,
    towards: Towards = "pooled",
) -> Thresholds:
    y, score, groups = columns(cases)
    target = 0.5 if method in TARGETED else None
    options: dict[str, Any] = {"min_count": min_count, "shrinkage": shrinkage, "towards": towards}
    return ThresholdFitter(method, target=target, attributes=["g"], **options).fit(y, score, groups, split="val")


@LAWS
@given(rows(), METHODS, TARGETS, st.randoms(use_true_random=False))
def test_row_order_changes_no_threshold(cases: Rows, method: ThresholdMethod, target: float, random: Random) -> None:
    shuffled = list(cases)
    random.shuffle(shuffled)
    assert str(find(shuffled, method, target)) == str(find(cases, method, target))
    assert repr(fit(shuffled, method)) == repr(fit(cases, method))


@LAWS
@given(rows(), METHODS, TARGETS, st.lists(st.floats(-1e6, 1e6), min_size=11, max_size=11, unique=True))
def test_a_rising_transform_moves_the_threshold_with_the_scores(
    cases: Rows, method: ThresholdMethod, target: float, values: list[float]
) -> None:
    rising = np.sort(values)
    y, _, _ = columns(cases)
    before = find(cases, method, target)
    moved = rising[[score for _, score, _ in cases]] if cases else []
    after = find_threshold(y, moved, method, target=target if method in TARGETED else None)
    if np.isnan(before):
        assert np.isnan(after)
    else:
        assert after == rising[round(before * 10)]


@LAWS
@given(rows(), METHODS, TARGETS, st.integers(2, 4))
def test_every_case_several_times_changes_nothing(
    cases: Rows, method: ThresholdMethod, target: float, times: int
) -> None:
    assert str(find(cases * times, method, target)) == str(find(cases, method, target))


@LAWS
@given(rows(), TARGETS, TARGETS)
def test_a_higher_target_never_asks_less(cases: Rows, first: float, second: float) -> None:
    low, high = sorted((first, second))
    sensitive = find(cases, "sensitivity", low), find(cases, "sensitivity", high)
    specific = find(cases, "specificity", low), find(cases, "specificity", high)
    assert not sensitive[0] < sensitive[1]
    assert not specific[0] > specific[1]
    assert np.isnan(specific[1]) or not np.isnan(specific[0])


@LAWS
@given(rows(), TARGETS)
def test_targets_are_reached_and_no_neighbour_does_better(cases: Rows, target: float) -> None:
    y, score, _ = columns(cases)
    assume(0 < sum(y) < len(y))
    truth, value = np.array(y), np.array(score)
    sensitive = find(cases, "sensitivity", target)
    assert np.mean(value[truth] >= sensitive) >= target
    assert np.mean(value[truth] > sensitive) < target
    specific = find(cases, "specificity", target)
    if np.isnan(specific):
        assert np.mean(value[~truth] < value.max()) < target
    else:
        assert np.mean(value[~truth] < specific) >= target
        below = value[value < specific]
        assert not below.size or np.mean(value[~truth] < below.max()) < target


@LAWS
@given(st.lists(st.integers(0, 4), min_size=1), st.lists(st.integers(5, 9), min_size=1))
def test_separated_classes_have_one_answer(negatives: list[int], positives: list[int]) -> None:
    # At the lowest positive TPR = TNR = 1; higher ones lose TPR at TNR 1, lower ones TNR at TPR 1.
    cases = [(False, score, "") for score in negatives] + [(True, score, "") for score in positives]
    for method in THRESHOLD_METHODS:
        assert find(cases, method, 1.0) == min(positives) / 10


@LAWS
@given(rows(), METHODS, st.permutations(["a", "b", "c"]))
def test_group_names_change_no_threshold(cases: Rows, method: ThresholdMethod, renamed: list[str]) -> None:
    names = {**dict(zip("abc", renamed, strict=True)), "": ""}
    before = fit(cases, method).for_groups(columns(cases)[2])
    other = [(y, score, names[g]) for y, score, g in cases]
    np.testing.assert_array_equal(fit(other, method).for_groups(columns(other)[2]), before)


@LAWS
@given(rows(), METHODS, st.integers(1, 4), st.sampled_from([0, 0.3, 3, 100]))
def test_every_threshold_lies_between_own_and_pooled(
    cases: Rows, method: ThresholdMethod, min_count: int, shrinkage: float
) -> None:
    found = fit(cases, method, min_count=min_count, shrinkage=shrinkage)
    y, _, groups = columns(cases)
    for group in found.groups:
        inside = [label for label, name in zip(y, groups["g"], strict=True) if name == group.levels[0]]
        assert (group.n_positive, group.n_negative) == (sum(inside), len(inside) - sum(inside))
        assert bool(group.reason) == (group.weight == 0 or bool(np.isnan(group.threshold)))
        if group.weight == 0:
            assert str(group.threshold) == str(found.pooled)
        elif not np.isnan(group.threshold):
            ends = [group.own] if group.weight == 1 else [group.own, found.pooled]
            assert min(ends) <= group.threshold <= max(ends)


@LAWS
@given(rows(), METHODS)
def test_one_group_alone_has_the_pooled_threshold(cases: Rows, method: ThresholdMethod) -> None:
    found = fit([(y, score, "a") for y, score, _ in cases], method, shrinkage=0.7)
    for group in found.groups:
        assert str(group.threshold) == str(found.pooled)


@LAWS
@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 300), st.integers(1, 300), st.floats(0, 100))
def test_more_cases_never_weigh_less(own: float, pooled: float, count: int, more: int, shrinkage: float) -> None:
    few, many = (
        shrink_threshold(own, pooled, n, 10_000, min_count=5, shrinkage=shrinkage) for n in (count, count + more)
    )
    assert 0 <= few[0] <= many[0] <= 1
    assert abs(few[1] - own) >= abs(many[1] - own) - 1e-15
    assert shrink_threshold(own, pooled, 10_000, count, min_count=5, shrinkage=shrinkage) == few


@LAWS
@given(rows(), METHODS, st.sampled_from([0, 0.3, 3]), st.sampled_from(["pooled", "shifted"]))
def test_a_file_gives_back_what_was_fitted(
    cases: Rows, method: ThresholdMethod, shrinkage: float, towards: Towards
) -> None:
    found = fit(cases, method, shrinkage=shrinkage, towards=towards)
    with tempfile.TemporaryDirectory() as folder:
        path = write_thresholds(Path(folder) / "thresholds.json", found, source="predictions.csv")
        assert repr(read_thresholds(path)) == repr(found)
