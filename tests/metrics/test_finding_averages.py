"""Averages over findings: by hand, against other libraries on an audit, and where something is undefined."""

import copy
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, true_positive_rate
from scipy import stats
from sklearn.metrics import accuracy_score, roc_auc_score

from monai_fair.data.predictions import check_predictions
from monai_fair.errors import MonaiFairError
from monai_fair.metrics import audit
from monai_fair.metrics.finding_averages import (
    FIRST_ARM,
    QUANTITIES,
    average_findings,
    finding_table,
    finding_values,
)

EO, ACCURACY = "equalized_odds@given", "accuracy@given"


def audited(arms: dict[str, dict[str, list[float | None]]], *, fate: dict[str, list[float | None]]) -> dict[str, Any]:
    """What of an audit of two repeats is read: accuracy and delta EO as told, AUC 0.9 and its gap 0.1 everywhere."""
    seeds = ["0", "1"]

    def cell(values: list[float | None]) -> dict[str, Any]:
        return {"reason": None, "by_seed": [{"seed": s, "value": v} for s, v in zip(seeds, values, strict=True)]}

    def gap(values: list[float | None]) -> dict[str, Any]:
        reason = "fewer than two groups to compare" if None in values else None
        return {"reason": reason, "by_seed": values, "chance": 0.05, "groups_compared": 3}

    def against(values: list[float | None]) -> dict[str, Any]:
        return {"reason": "the baseline or its gap is 0 or undefined" if None in values else None, "by_seed": values}

    shared = {"shared_seeds": seeds}
    table = {
        "attributes": ["sex", "race"],
        "groups": [{}] * 4,
        "gaps": {arm: {EO: gap(own["eo"]), "auc": gap([0.1, 0.1])} for arm, own in arms.items()},
        "fate": {arm: {EO: against(own), "auc": against([0.0, 0.0])} for arm, own in fate.items()},
        "gap_differences": {arm: {EO: shared, "auc": shared} for arm in fate},
    }
    cells = {arm: {ACCURACY: cell(own["accuracy"]), "auc": cell([0.9, 0.9])} for arm, own in arms.items()}
    settings = {"attributes": ["sex", "race"], "split": "test", "missing": "drop", "min_count": 10, "confidence": 0.95}
    return {
        "settings": {**settings, "rules": ["0.5", "given"]},
        "runs": [{"name": arm, "seeds": seeds} for arm in arms],
        "targets": [{"overall": {"n": 100, "n_positive": 30, "cells": cells}, "tables": [table]}],
    }


# FATE of the second arm in each repeat is (P - P_b) / P_b - (U - U_b) / U_b:
#   one, repeat 0: (0.8 - 0.8) / 0.8 - (0.1 - 0.2) / 0.2 =  0.5
#   one, repeat 1: (0.6 - 0.8) / 0.8 - (0.4 - 0.4) / 0.4 = -0.25
#   two, repeat 0: (0.5 - 0.5) / 0.5 - (0.3 - 0.1) / 0.1 = -2
#   two, repeat 1: (0.9 - 0.6) / 0.6 - (0.1 - 0.4) / 0.4 =  1.25
ONE = {"erm": {"accuracy": [0.8, 0.8], "eo": [0.2, 0.4]}, "fairread": {"accuracy": [0.8, 0.6], "eo": [0.1, 0.4]}}
TWO = {"erm": {"accuracy": [0.5, 0.6], "eo": [0.1, 0.4]}, "fairread": {"accuracy": [0.5, 0.9], "eo": [0.3, 0.1]}}


@pytest.fixture
def audits() -> dict[str, dict[str, Any]]:
    return {
        "one": audited(ONE, fate={"fairread": [0.5, -0.25]}),
        "two": audited(TWO, fate={"fairread": [-2.0, 1.25]}),
    }


def of(averages: pd.DataFrame, finding: str, arm: str, quantity: str) -> dict[str, Any]:
    keys = averages[["finding", "arm", "quantity"]].eq([finding, arm, quantity]).all(axis=1)
    (found,) = averages[keys].to_dict("records")
    return {str(key): value for key, value in found.items()}


def test_two_findings_of_two_repeats_by_hand(audits: dict[str, Any]) -> None:
    averages = average_findings(finding_values(audits))
    assert len(averages) == (2 + 1) * 2 * len(QUANTITIES)
    # means of repeats 0.125 and -0.375, and their mean
    found = [of(averages, name, "fairread", "fate_eo")["value"] for name in ("one", "two", "")]
    assert found == pytest.approx([0.125, -0.375, -0.125])
    # FATE of averages is another number: P 0.7 and P_b 0.675, U 0.225 and U_b 0.275
    assert found[2] != pytest.approx((0.7 - 0.675) / 0.675 - (0.225 - 0.275) / 0.275)
    assert of(averages, "", "fairread", "accuracy")["value"] == pytest.approx((0.7 + 0.7) / 2)
    assert of(averages, "", "erm", "delta_eo")["value"] == pytest.approx((0.3 + 0.25) / 2)
    whole = of(averages, "", "fairread", "fate_eo")
    assert (whole["n"], whole["n_repeats"], whole["n_undefined"], whole["reason"]) == (2, 4, 0, "")
    assert of(averages, "one", "fairread", "fate_eo")["n"] == 2
    assert of(averages, "", "erm", "delta_eo")["chance"] == pytest.approx(0.05)
    assert np.isnan(of(averages, "", "erm", "auc")["chance"])


def test_the_interval_is_that_of_the_means_of_findings(audits: dict[str, Any]) -> None:
    """Two means 0.125 and -0.375: sd 0.5 / sqrt(2), standard error 0.25, t of one degree of freedom 12.706."""
    whole = of(average_findings(finding_values(audits)), "", "fairread", "fate_eo")
    assert (whole["low"], whole["high"]) == pytest.approx((-0.125 - 12.7062 * 0.25, -0.125 + 12.7062 * 0.25), abs=1e-4)
    narrower = of(average_findings(finding_values(audits), confidence=0.5), "", "fairread", "fate_eo")
    expected = stats.t.interval(0.5, 1, loc=-0.125, scale=0.25)
    assert (narrower["low"], narrower["high"]) == pytest.approx(expected)
    # the interval of a share ends at 0 and 1
    assert of(average_findings(finding_values(audits)), "", "erm", "delta_eo")["low"] == 0.0


def test_one_finding_has_no_interval_over_findings(audits: dict[str, Any]) -> None:
    whole = of(average_findings(finding_values({"one": audits["one"]})), "", "fairread", "fate_eo")
    assert np.isnan([whole["low"], whole["high"]]).all()
    assert whole["value"] == pytest.approx(0.125)
    assert whole["interval_reason"] == "one finding: the spread over findings is unknown"


def test_an_undefined_repeat_is_counted_and_keeps_its_reason(audits: dict[str, Any]) -> None:
    broken = {"erm": {**TWO["erm"], "eo": [0.1, None]}, "fairread": {**TWO["fairread"], "eo": [None, 0.1]}}
    audits["two"] = audited(broken, fate={"fairread": [None, None]})
    values = finding_values(audits)
    averages = average_findings(values)
    own, whole = (of(averages, name, "erm", "delta_eo") for name in ("two", ""))
    assert np.isnan([own["value"], whole["value"], whole["low"], whole["high"]]).all()
    assert (own["n"], own["n_undefined"]) == (2, 1)
    assert own["reason"] == "undefined in 1 of 2 repeats: fewer than two groups to compare"
    assert (whole["n"], whole["n_undefined"], whole["reason"]) == (2, 1, "undefined in 1 of 2 findings: two")
    fate = of(averages, "two", "fairread", "fate_eo")
    assert fate["reason"] == "undefined in 2 of 2 repeats: the baseline or its gap is 0 or undefined"
    assert of(averages, "one", "fairread", "fate_eo")["value"] == pytest.approx(0.125)
    table = finding_table(values).set_index(["finding", "arm", "repeat"])
    assert table.loc[("two", "fairread", "0"), "reason"] == (
        "delta_eo: fewer than two groups to compare; fate_eo: the baseline or its gap is 0 or undefined"
    )
    assert table.loc[("two", "fairread", "1"), "reason"] == "fate_eo: the baseline or its gap is 0 or undefined"
    assert table.loc[("one", "fairread", "1"), "reason"] == ""


def test_a_repeat_that_the_first_arm_lacks_has_no_fate(audits: dict[str, Any]) -> None:
    table = audits["one"]["targets"][0]["tables"][0]
    for key in (EO, "auc"):
        table["fate"]["fairread"][key]["by_seed"] = [0.5]
        table["gap_differences"]["fairread"][key]["shared_seeds"] = ["1"]
    rows = finding_values(audits).set_index(["finding", "arm", "repeat", "quantity"])
    assert rows.loc[("one", "fairread", "1", "fate_eo"), "value"] == 0.5
    assert np.isnan(rows.loc[("one", "fairread", "0", "fate_eo"), "value"])
    assert rows.loc[("one", "fairread", "0", "fate_eo"), "reason"] == "the first arm has no such repeat"


def test_the_table_has_a_row_for_each_finding_arm_and_repeat(audits: dict[str, Any]) -> None:
    table = finding_table(finding_values(audits))
    assert list(table) == [
        "finding", "arm", "repeat", "n", "n_positive", "groups", "groups_eo", "groups_auc", *QUANTITIES, "reason",
    ]  # fmt: skip
    assert table[["finding", "arm", "repeat"]].to_numpy().tolist() == [
        [finding, arm, repeat] for finding in ("one", "two") for arm in ("erm", "fairread") for repeat in ("0", "1")
    ]
    last = table.iloc[-1]
    assert last[["n", "n_positive", "groups", "groups_eo"]].tolist() == [100, 30, 4, 3]
    assert last[list(QUANTITIES)].tolist() == [0.9, 0.9, 0.1, 0.1, 1.25, 0.0]
    first = table.iloc[0]
    assert first[["fate_eo", "fate_auc"]].isna().all()
    assert first["reason"] == f"fate_eo: {FIRST_ARM}; fate_auc: {FIRST_ARM}"


def test_repeats_are_named_by_their_folders_where_these_tell_them_apart(audits: dict[str, Any]) -> None:
    def files(*names: str) -> dict[str, Any]:
        return {"files": [{"run": "erm", "seed": str(i), "name": name} for i, name in enumerate(names)]}

    def names() -> list[str]:
        rows = finding_values(audits)
        return list(dict.fromkeys(rows.loc[(rows["finding"] == "one") & (rows["arm"] == "erm"), "repeat"]))

    audits["one"]["provenance"] = files("erm/fold_0/seed_0/predictions.csv", "erm/fold_1/seed_0/predictions.csv")
    assert names() == ["fold_0/seed_0", "fold_1/seed_0"]
    audits["one"]["provenance"] = files("a/seed_0/predictions.csv", "b/seed_0/predictions.csv")
    assert names() == ["0", "1"]
    audits["one"]["provenance"] = files("seed_0/predictions.csv", "predictions.csv")
    assert names() == ["0", "1"]


def test_audits_that_cannot_be_averaged_are_named_together(audits: dict[str, Any]) -> None:
    with pytest.raises(MonaiFairError, match=r"^findings: expected the audit of at least one finding, got none"):
        finding_values({})
    other = copy.deepcopy(audits["two"])
    other["runs"].reverse()
    other["settings"] |= {"rules": ["0.5"], "min_count": 5}
    other["targets"][0]["tables"][0]["attributes"] = ["sex"]
    several = copy.deepcopy(audits["two"])
    several["targets"] *= 3
    with pytest.raises(MonaiFairError) as caught:
        finding_values({"one": audits["one"], "two": other, "three": several})
    assert str(caught.value).splitlines() == [
        "findings: 5 problems",
        "  1. two: expected thresholds by 'given', the audit has 0.5; choose among these",
        "  2. two: expected a table of all attributes together, found none; audit with intersections",
        "  3. two: expected arms erm, fairread as in one, got fairread, erm; audit all findings alike",
        "  4. two: expected min_count 10 as in one, got 5; audit all findings alike",
        "  5. three: expected two classes, got 3; audit one class against the rest",
    ]


def table_of(cases: int, noise: int, gap: float) -> pd.DataFrame:
    """900 test cases of four joint groups; ``cases`` sets who they are, ``noise`` their scores."""
    who, drawn = np.random.default_rng(cases), np.random.default_rng(noise)
    label, sex, race = who.integers(0, 2, 900), who.choice(["f", "m"], 900), who.choice(["a", "b"], 900)
    logit = 2 * label - 1 + gap * (sex == "m") + drawn.normal(size=900)
    columns = {"subject_id": [f"s{i}" for i in range(900)], "image": [f"{i}.png" for i in range(900)], "split": "test"}
    scores = {"label": label, "score": (1 / (1 + np.exp(-logit))).round(6), "threshold": 0.4}
    return pd.DataFrame({**columns, **scores, "sex": sex, "race": race}).astype(str)


def by_other_libraries(table: pd.DataFrame) -> dict[str, float]:
    y, score = table["label"].astype(int), table["score"].astype(float)
    called = (score >= 0.4).astype(int)
    groups = table[["sex", "race"]]
    frame = MetricFrame(
        metrics={"tpr": true_positive_rate, "fpr": false_positive_rate}, y_true=y, y_pred=called,
        sensitive_features=groups,
    )  # fmt: skip
    auc = MetricFrame(metrics=roc_auc_score, y_true=y, y_pred=score, sensitive_features=groups).by_group
    return {
        "accuracy": accuracy_score(y, called),
        "auc": roc_auc_score(y, score),
        "delta_eo": frame.difference().max(),
        "delta_auc": auc.max() - auc.min(),
    }


def test_a_real_audit_gives_what_other_libraries_give() -> None:
    gaps = {"erm": 1.0, "fairread": 0.3}
    audits, expected = {}, {}
    for number, finding in enumerate(("one", "two")):
        tables = {
            arm: [table_of(number, 10 * number + 3 * place + repeat, gap) for repeat in range(2)]
            for place, (arm, gap) in enumerate(gaps.items())
        }
        runs = {arm: [check_predictions(table, "p.csv") for table in own] for arm, own in tables.items()}
        results = audit(runs, ["sex", "race"], thresholds=["given"], resamples=100, permutations=20)
        audits[finding] = json.loads(json.dumps(results).replace("NaN", "null"))
        expected |= {(finding, arm): [by_other_libraries(table) for table in own] for arm, own in tables.items()}
    table = finding_table(finding_values(audits))
    for (finding, arm), repeats in expected.items():
        own = table[(table["finding"] == finding) & (table["arm"] == arm)]
        for name in ("accuracy", "auc", "delta_eo", "delta_auc"):
            np.testing.assert_allclose(own[name], [repeat[name] for repeat in repeats], rtol=0, atol=1e-12)
    averages = average_findings(finding_values(audits))
    for fate, performance, gap in (("fate_eo", "accuracy", "delta_eo"), ("fate_auc", "auc", "delta_auc")):
        means = [
            np.mean(
                [
                    later[performance] / first[performance] - 1 - (later[gap] / first[gap] - 1)
                    for first, later in zip(expected[finding, "erm"], expected[finding, "fairread"], strict=True)
                ]
            )
            for finding in audits
        ]
        found = [of(averages, name, "fairread", fate)["value"] for name in (*audits, "")]
        assert found == pytest.approx([*means, np.mean(means)], abs=1e-12)
