"""Decisions: the audit's own rule, ``score >= threshold`` of the group, told with where the threshold is from."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fair.errors import LabelError
from monai_fair.label.decisions import decide
from monai_fair.label.demographics import Known
from monai_fair.metrics import ThresholdFitter, Thresholds

NAMES = ("no disease", "disease")


def fitted(attributes: tuple[str, ...] = ("sex",), **options: Any) -> Thresholds:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    table = pd.DataFrame({"sex": np.where(np.arange(200) < 100, "female", "male"), "site": rng.choice(["a", "b"], 200)})
    score = np.clip(0.4 * y + 0.3 * (table["sex"] == "male") + rng.uniform(0, 0.3, 200), 0, 1)
    return ThresholdFitter(attributes=attributes, **options).fit(y, score, table, split="val")


def known(**values: str) -> Known:
    return Known(values, dict.fromkeys(values, "request"))


@given(st.floats(0, 1), st.sampled_from(["female", "male", "", "diverse"]))
def test_the_decision_is_that_of_the_thresholds(score: float, sex: str) -> None:
    thresholds = fitted()
    found = decide([score], NAMES, thresholds, known(sex=sex) if sex else known())
    table = pd.DataFrame({"sex": [sex]})
    assert found["threshold"] == thresholds.for_groups(table)[0]
    assert found["label"] == int(thresholds.predict([score], table)[0])
    assert found["decision"] == NAMES[found["label"]]
    json.dumps(found, allow_nan=False)


def test_a_score_at_the_threshold_is_positive() -> None:
    thresholds = fitted()
    for group in thresholds.groups:
        who = known(sex=group.levels[0])
        assert decide([group.threshold], NAMES, thresholds, who)["label"] == 1
        assert decide([np.nextafter(group.threshold, 0)], NAMES, thresholds, who)["label"] == 0


def test_the_source_is_said() -> None:
    thresholds = fitted()
    found = decide([0.5], NAMES, thresholds, known(sex="female"))
    group = thresholds.groups[0]
    assert found["threshold_source"] == "group female"
    assert found["threshold_counts"] == (group.n_positive, group.n_negative)
    assert (found["attributes"], found["missing"]) == ({"sex": "female"}, [])
    found = decide([0.5], NAMES, thresholds, known(site="a"))
    assert found["threshold_source"] == "pooled: sex is not known"
    assert found["threshold_counts"] == thresholds.pooled_counts
    assert found["missing"] == ["sex"]
    found = decide([0.5], NAMES, thresholds, known(sex="f"))
    assert found["threshold_source"] == "pooled: no group f was there when thresholds were fitted"
    found = decide([0.5], NAMES, fitted(("sex", "site")), known())
    assert found["threshold_source"] == "pooled: sex and site are not known"
    found = decide([0.5], NAMES, fitted(("sex", "site")), known(sex="male", site="b"))
    assert found["threshold_source"] == "group male & b"
    assert decide([0.5], NAMES, fitted(()), known())["threshold_source"] == "pooled: one threshold for everyone"


@pytest.mark.parametrize(("score", "label"), [(0.5, 1), (0.49, 0)])
def test_without_thresholds_a_half_applies_and_it_is_said(score: float, label: int) -> None:
    found = decide([score], NAMES, None, known(sex="female"))
    assert (found["label"], found["threshold"]) == (label, 0.5)
    assert found["threshold_source"] == "0.5: no thresholds are stored"
    assert found["missing"] == []


def test_two_outputs_of_two_classes_are_judged_by_the_second() -> None:
    thresholds = fitted(())
    one, two = (decide(scores, NAMES, thresholds, known()) for scores in ([0.9], [0.1, 0.9]))
    assert one == two


def test_of_several_classes_the_likeliest_is_taken() -> None:
    found = decide([0.2, 0.5, 0.3], ("a", "b", "c"), fitted(), known())
    assert (found["label"], found["decision"], found["threshold"]) == (1, "b", None)
    assert found["threshold_source"] == "none: the highest score of 3 classes"


@pytest.mark.parametrize("scores", [[2.5], [-0.1], [0.5, 1.1], [math.nan], [0.1, -3.0, 0.9]])
def test_what_is_no_probability_is_refused(scores: list[float]) -> None:
    """A network without its sigmoid gives logits, of which a threshold says nothing."""
    names = NAMES if len(scores) < 3 else ("a", "b", "c")
    with pytest.raises(LabelError, match="scores: expected probabilities"):
        decide(scores, names, None, known())


def test_rounding_of_a_mean_is_no_fault() -> None:
    assert decide([float(np.nextafter(np.float32(1), np.float32(2)))], NAMES, None, known())["label"] == 1


def test_no_threshold_is_no_decision_and_has_its_reason() -> None:
    table = pd.DataFrame({"sex": ["female"] * 4})
    thresholds = ThresholdFitter(attributes=("sex",)).fit([1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4], table, split="val")
    assert math.isnan(thresholds.pooled)
    for who in (known(), known(sex="female")):
        found = decide([0.3], NAMES, thresholds, who)
        assert (found["label"], found["decision"], found["threshold"]) == (None, None, None)
        reason = thresholds.groups[0].reason if who.values else thresholds.reason
        assert reason
        assert reason in found["threshold_source"]
