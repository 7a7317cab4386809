from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from monai_fair.errors import MonaiFairError
from monai_fair.metrics.group_thresholds import ThresholdFitter, fit_thresholds
from monai_fair.metrics.thresholds import find_threshold

# Women: positives at 0.8, negatives at 0.2. Men: positives at 0.5, negatives at 0.1. One case without sex, and one
# other. Pooled: at 0.5 everyone is told apart (Youden 1), so it is the lowest positive score.
Y = [1, 1, 0, 0, 1, 1, 1, 0, 0, 1, 0]
SCORE = [0.8, 0.9, 0.2, 0.1, 0.5, 0.6, 0.7, 0.1, 0.2, 0.9, 0.3]
SEX = ["f"] * 4 + ["m"] * 5 + ["", "x"]


def groups(sex: list[str] = SEX) -> pd.DataFrame:
    return pd.DataFrame({"sex": sex})


def test_by_hand() -> None:
    found = ThresholdFitter(attributes=["sex"], min_count=2, shrinkage=6).fit(Y, SCORE, groups(), split="val")
    assert (found.pooled, found.pooled_counts, found.reason) == (0.5, (6, 5), "")
    women, men, other = found.groups
    # m = 2, weight 2 / (2 + 6): 0.5 + 0.25 * (0.8 - 0.5).
    assert (women.name, women.levels, women.n_positive, women.n_negative) == ("f", ("f",), 2, 2)
    assert (women.own, women.weight, women.threshold, women.reason) == (0.8, 0.25, pytest.approx(0.575), "")
    # The own threshold is the pooled one: m = min(3, 2), and drawing changes nothing.
    assert (men.n_positive, men.n_negative, men.own, men.weight, men.threshold) == (3, 2, 0.5, 0.25, 0.5)
    assert np.isnan(other.own)
    assert (other.weight, other.threshold, other.reason) == (0, 0.5, "its rows have one class only")


def test_missing_and_unseen_groups_get_the_pooled_threshold_and_are_counted() -> None:
    found = ThresholdFitter(attributes=["sex"], min_count=2, shrinkage=0).fit(Y, SCORE, groups(), split="val")
    later = groups(["f", "", "unknown", "m", "f", "?"])
    assert found.for_groups(later).tolist() == [0.8, 0.5, 0.5, 0.5, 0.8, 0.5]
    assert found.predict([0.79, 0.5, 0.49, 0.5, 0.8, 0.6], later).tolist() == [False, True, False, True, True, True]
    assert found.count_pooled(later) == {"missing": 1, "unseen": 2}


def test_without_attributes_everyone_gets_the_pooled_threshold() -> None:
    found = ThresholdFitter().fit(Y, SCORE, split="val")
    assert found.groups == ()
    assert found.for_groups(groups()).tolist() == [0.5] * len(Y)
    assert found.predict([0.5, 0.4]).tolist() == [True, False]
    assert found.count_pooled(groups()) == {"missing": 0, "unseen": 0}


def test_without_groups_at_hand_everyone_gets_the_pooled_threshold() -> None:
    found = ThresholdFitter(attributes=["sex"], min_count=2, shrinkage=0).fit(Y, SCORE, groups(), split="val")
    assert found.predict([0.5, 0.4]).tolist() == [True, False]


def test_several_attributes_make_joint_groups() -> None:
    table = groups().assign(site=["9", "10"] * 5 + [""])
    found = ThresholdFitter(attributes=["sex", "site"]).fit(Y, SCORE, table, split="val")
    assert [group.levels for group in found.groups] == [("f", "9"), ("f", "10"), ("m", "9"), ("m", "10")]
    assert [group.n_positive + group.n_negative for group in found.groups] == [2, 2, 3, 2]
    assert found.count_pooled(table) == {"missing": 2, "unseen": 0}
    assert found.count_pooled(table.assign(site="11")) == {"missing": 1, "unseen": 10}


def test_all_attributes_missing_leaves_the_pooled_threshold() -> None:
    found = ThresholdFitter(attributes=["sex"]).fit(Y, SCORE, groups([""] * len(Y)), split="val")
    assert found.groups == ()
    assert found.count_pooled(groups()) == {"missing": 1, "unseen": 10}


def test_a_small_group_says_why_it_has_no_weight() -> None:
    found = ThresholdFitter(attributes=["sex"], min_count=3).fit(Y, SCORE, groups(), split="val")
    assert found.groups[1].reason == "3 positives and 2 negatives, expected at least 3 of each"
    assert (found.groups[1].weight, found.groups[1].threshold) == (0, 0.5)


def test_an_undefined_pooled_threshold_is_not_hidden() -> None:
    # Everyone together: a negative has the highest score, so no score reaches a TNR of 1. Women alone: 0.8 does.
    y, score, table = [1, 0, 1, 0], [0.8, 0.1, 0.5, 0.9], groups(["f", "f", "m", "m"])
    fit = {"target": 1.0, "attributes": ["sex"], "min_count": 1}
    found = ThresholdFitter("specificity", **fit).fit(y, score, table, split="val")  # type: ignore[arg-type]
    assert np.isnan(found.pooled)
    assert found.reason == "the rows with split 'val' reach a specificity of 1.0 only by predicting nothing"
    women, men = found.groups
    assert np.isnan([women.threshold, men.threshold]).all()
    assert (women.own, women.reason) == (0.8, "there is no pooled threshold to draw its own one towards")
    assert men.reason == "its rows reach a specificity of 1.0 only by predicting nothing"
    with pytest.raises(MonaiFairError) as caught:
        found.predict(score, table)
    assert str(caught.value) == (
        "thresholds: expected a threshold for every case, got none for 4 of 4 (the rows with split 'val' reach a "
        "specificity of 1.0 only by predicting nothing; f: there is no pooled threshold to draw its own one towards; "
        "m: its rows reach a specificity of 1.0 only by predicting nothing); fit them on more rows, or with another "
        "target"
    )
    # Without shrinkage women need no pooled threshold.
    alone = ThresholdFitter("specificity", shrinkage=0, **fit).fit(y, score, table, split="val")  # type: ignore[arg-type]
    assert alone.predict([0.8, 0.7], groups(["f", "f"])).tolist() == [True, False]


def test_targets_reach_every_group() -> None:
    found = ThresholdFitter("sensitivity", target=0.6, attributes=["sex"], min_count=1, shrinkage=0).fit(
        Y, SCORE, groups(), split="val"
    )
    # Women need both of two, men two of three.
    assert [group.threshold for group in found.groups[:2]] == [0.8, 0.6]


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        ({"method": "best"}, ["option 'method': expected one of youden, "]),
        ({"target": 0.5}, ["option 'target': expected none with the method 'youden', got 0.5"]),
        ({"attributes": "sex"}, ["option 'attributes': expected a list of columns, each once, got 'sex'"]),
        ({"attributes": ["sex", "sex"]}, ["option 'attributes': expected a list of columns, each once, got ['sex', '"]),
        (
            {"min_count": 0, "shrinkage": -1},
            ["option 'min_count': expected at least 1, got 0", "option 'shrinkage': expected a number of cases, at le"],
        ),
        ({"shrinkage": float("inf")}, ["option 'shrinkage': expected a number of cases, at least 0, got inf"]),
    ],
)
def test_wrong_options_are_all_named(options: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(MonaiFairError, match=r"^thresholds: ") as caught:
        ThresholdFitter(**options)
    assert all(problem in str(caught.value) for problem in problems)


def test_test_rows_are_refused() -> None:
    with pytest.raises(MonaiFairError, match=r"^threshold: expected a split other than 'test' to fit on, got 'test'; "):
        ThresholdFitter().fit(Y, SCORE, split="test")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "thresholds: expected the attribute 'sex', the columns there are none; add it"),
        (
            pd.DataFrame({"age": ["1"] * 11}),
            "thresholds: expected the attribute 'sex', the columns there are age; add it",
        ),
        (
            pd.DataFrame({"sex": ["f", None] + ["m"] * 9}, dtype=object),
            "thresholds: attribute 'sex': expected text, empty where missing, got None; read it as text",
        ),
        (
            pd.DataFrame({"sex": [0, 1] * 5 + [1]}),
            "thresholds: attribute 'sex': expected text, empty where missing, got 0; read it as text",
        ),
    ],
)
def test_groups_must_be_text_columns(table: pd.DataFrame | None, message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        ThresholdFitter(attributes=["sex"]).fit(Y, SCORE, table, split="val")
    assert str(caught.value) == message


def test_lengths_and_range_are_checked() -> None:
    fitter = ThresholdFitter(attributes=["sex"])
    with pytest.raises(ValueError, match=r"^expected one row of groups per score, got 2 for 11$"):
        fitter.fit(Y, SCORE, groups(["f", "m"]), split="val")
    with pytest.raises(MonaiFairError, match=r"^thresholds: expected scores in \[0, 1\], got -1 to 3; give probabilit"):
        fitter.fit([0, 1], [-1, 3], groups(["f", "m"]), split="val")
    with pytest.raises(ValueError, match=r"^expected one row of groups per score, got 2 for shape \(1,\)$"):
        fitter.fit(Y, SCORE, groups(), split="val").predict([0.5], groups(["f", "m"]))


def test_a_table_of_predictions() -> None:
    table = groups().assign(split="val", label=Y, score=SCORE)
    # Test rows with other labels, and the rows of the table in another order: nothing may change.
    poisoned = pd.concat([table, table.assign(split="test", label=1 - table["label"])]).sample(frac=1, random_state=0)
    options: dict[str, Any] = {"attributes": ["sex"], "min_count": 2, "shrinkage": 6}
    direct = ThresholdFitter(**options).fit(Y, SCORE, groups(), split="val")
    assert repr(fit_thresholds(poisoned, **options)) == repr(direct)
    assert repr(fit_thresholds(poisoned, split="train", **options).reason) == (
        "\"no rows with split 'train' to choose a threshold on\""
    )
    one_class = fit_thresholds(table[table["label"] == 1], **options)
    assert np.isnan(one_class.pooled)
    assert one_class.reason == "the rows with split 'val' have one class only"
    with pytest.raises(MonaiFairError, match=r"^threshold: expected a split other than 'test'"):
        fit_thresholds(table, split="test")


def test_one_of_several_classes() -> None:
    table = pd.DataFrame({"split": "val", "label": [0, 1, 2, 2], "score_2": [0.1, 0.2, 0.6, 0.7]})
    assert fit_thresholds(table, "score_2", positive_label=2).pooled == 0.6


def test_the_hash_knows_rows_and_groups() -> None:
    fitter = ThresholdFitter(attributes=["sex"])
    fits = [
        fitter.fit(Y, SCORE, groups(), split="val"),
        fitter.fit([1 - label for label in Y], SCORE, groups(), split="val"),
        fitter.fit(Y, [*SCORE[:-1], 0.31], groups(), split="val"),
        fitter.fit(Y, SCORE, groups([*SEX[:-1], "y"]), split="val"),
        fitter.fit(Y[1:], SCORE[1:], groups(SEX[1:]), split="val"),
        ThresholdFitter().fit(Y, SCORE, split="val"),
    ]
    assert len({fit.rows_sha256 for fit in fits}) == len(fits)


@pytest.mark.slow
def test_drawn_thresholds_lose_less_in_small_groups_than_own_or_pooled_ones() -> None:
    # Probit scores: positives 1.5 above negatives, the small group 0.3 above the large one. Its TPR and TNR at a
    # threshold t are Phi(0.75 - z) and Phi(0.75 + z) with z = Phi^-1(t) - 0.3; they are equal at z = 0.
    rng = np.random.default_rng(0)
    losses: dict[str, list[float]] = {"own": [], "drawn": [], "pooled": []}
    table = groups(["large"] * 1000 + ["small"] * 100)
    for _ in range(200):
        y = rng.random(1100) < 0.3
        score = norm.cdf(rng.normal(size=1100) + 1.5 * y - 0.75 + 0.3 * (table["sex"] == "small"))
        found = ThresholdFitter("min_gap", attributes=["sex"]).fit(y, score, table, split="val")
        small = found.groups[1]
        for name, threshold in (("own", small.own), ("drawn", small.threshold), ("pooled", found.pooled)):
            z = norm.ppf(threshold) - 0.3
            losses[name].append(abs(norm.cdf(0.75 - z) - norm.cdf(0.75 + z)))
        assert small.own == find_threshold(y[1000:], score[1000:], "min_gap")
    mean = {name: float(np.mean(values)) for name, values in losses.items()}
    assert mean["drawn"] < mean["own"] - 0.005
    assert mean["own"] < mean["pooled"]
