import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from monai_fair.data.predictions import Predictions
from monai_fair.metrics import METRICS, audit

Make = Callable[..., Predictions]
Tables = Callable[..., dict[str, Any]]
FAST: dict[str, Any] = {"permutations": 20, "resamples": 100, "min_count": 1}
OF_SCORES = {key for key, metric in METRICS.items() if metric.of_scores}


def undefined(cells: dict[str, Any]) -> set[str]:
    """Keys without a value; each must say why, and have no end of an interval."""
    gone = {key for key, cell in cells.items() if math.isnan(cell["value"])}
    for key, cell in cells.items():
        assert bool(cell["reason"]) == (key in gone), key
        if key in gone:
            assert math.isnan(cell["low"]), key
            assert math.isnan(cell["high"]), key
            assert cell["interval_reason"] == cell["seeds"]["reason"] == cell["reason"], key
    return gone


NO_POSITIVE = {"auc", "average_precision", "calibration_intercept", "calibration_slope"}
NO_POSITIVE |= {"tpr@0.5", "balanced_accuracy@0.5"}
NO_NEGATIVE = {"auc", "calibration_intercept", "calibration_slope", "fpr@0.5", "tnr@0.5", "balanced_accuracy@0.5"}


@pytest.mark.parametrize(("label", "gone"), [(0, NO_POSITIVE), (1, NO_NEGATIVE)])
def test_a_file_of_one_class_reports_what_is_defined(
    label: int, gone: set[str], simulated: Make, tables: Tables
) -> None:
    # No warning may be raised on the way; warnings are errors here.
    results = audit({"erm": [simulated(label=label)], "nir": [simulated(4, label=label)]}, ["sex", "site"], **FAST)
    thresholds = results["targets"][0]["thresholds"]["erm"]["youden"]
    assert thresholds["reason"] == "the rows with split 'val' have one class only"
    at_youden = {f"{key}@youden" for key, metric in METRICS.items() if metric.of_predictions}
    for table in tables(results).values():
        for row in table["groups"]:
            assert undefined(row["cells"]["erm"]) == gone | at_youden
            assert row["cells"]["erm"]["tpr@youden"]["reason"] == thresholds["reason"]
            assert row["curves"] in ({}, {"erm": None, "nir": None})
            assert (row["n_positive"], row["n_negative"]) == ((row["n"], 0) if label else (0, row["n"]))
        gaps = table["gaps"]["erm"]
        known = "tpr@0.5" if label else "fpr@0.5"
        assert not math.isnan(gaps[known]["value"])
        assert not math.isnan(gaps["selection_rate@0.5"]["p"])
        assert gaps["equalized_odds@0.5"]["reason"] == "fewer than two groups to compare"
        assert gaps["tpr@youden"]["reason"] == thresholds["reason"]
        assert {entry["reason"] for entry in gaps["auc"]["left_out"]} == {
            "no positive or no negative case in this group"
        }
        change = table["gap_differences"]["nir"]
        assert change["auc"]["reason"] == "undefined in one of the runs"
        assert not math.isnan(change[known]["value"])


@pytest.mark.parametrize("name", ["0 first", "z last"])
@pytest.mark.parametrize(("label", "gone"), [(0, NO_POSITIVE), (1, NO_NEGATIVE)])
def test_a_group_of_one_class_is_in_no_gap_it_does_not_define(
    label: int, gone: set[str], name: str, simulated: Make, tables: Tables
) -> None:
    found = simulated()
    special = (found.table["label"] == label) & (np.arange(600) % 5 == 1)
    planted = simulated(site=np.where(special, name, found.table["site"]))
    table = tables(audit({"erm": [planted]}, ["site"], thresholds=["0.5"], **FAST))["site"]
    row = next(row for row in table["groups"] if row["name"] == name)
    assert undefined(row["cells"]["erm"]) == gone
    for key, gap in table["gaps"]["erm"].items():
        left_out = {entry["group"] for entry in gap["left_out"]}
        parts = {"tpr@0.5", "fpr@0.5"} if key == "equalized_odds@0.5" else {key}
        few = {"f1@0.5", "brier", "ece", "average_precision"}  # they need both classes for an interval
        assert left_out == ({name} if parts & (gone | few) else set()), key
        assert not math.isnan(gap["value"]), key
        ends = [gap[part]["group"] for part in ("lowest", "highest", "worst") if gap[part]]
        assert name not in ends or not left_out, key


def test_nothing_predicted_positive(simulated: Make, tables: Tables) -> None:
    found = simulated()
    low = simulated(score=np.where(found.table["site"] == "a", 0.1, found.table["score"]))
    table = tables(audit({"erm": [low]}, ["site"], thresholds=["0.5"], **FAST))["site"]
    cells = table["groups"][0]["cells"]["erm"]
    assert undefined(cells) == {"ppv@0.5", "calibration_slope"}
    assert cells["ppv@0.5"]["reason"] == "no case predicted positive in this group"
    assert (cells["f1@0.5"]["value"], cells["tpr@0.5"]["value"], cells["npv@0.5"]["n"]) == (
        0.0,
        0.0,
        table["groups"][0]["n"],
    )
    assert table["gaps"]["erm"]["ppv@0.5"]["left_out"] == [
        {"group": "a", "reason": "no case predicted positive in this group"}
    ]


def test_a_value_that_one_seed_does_not_define_has_no_mean(simulated: Make, tables: Tables) -> None:
    found = simulated()
    low = simulated(1, score=np.where(found.table["site"] == "a", 0.1, found.table["score"]))
    results = audit({"erm": [found, low]}, ["site"], thresholds=["0.5"], **FAST)
    cell = tables(results)["site"]["groups"][0]["cells"]["erm"]["ppv@0.5"]
    assert cell["reason"] == "no case predicted positive in this group in 1 of 2 seeds"
    assert [math.isnan(part["value"]) for part in cell["by_seed"]] == [False, True]
    assert math.isnan(cell["value"])


def test_an_auc_of_one_has_no_delong_interval(simulated: Make, tables: Tables) -> None:
    found = simulated()
    perfect = simulated(score=np.where(found.table["label"] == 1, 0.9, 0.1))
    cell = tables(audit({"erm": [perfect]}, ["sex"], **FAST))["sex"]["groups"][0]["cells"]["erm"]["auc"]
    assert (cell["value"], cell["reason"]) == (1.0, None)
    assert cell["interval_reason"] == "an AUC of exactly 0 or 1 has no DeLong interval"


@pytest.mark.parametrize("columns", [{"site": ""}, {"site": ["", "a"] * 300, "sex": ["f", ""] * 300}])
def test_a_table_without_groups(columns: dict[str, Any], simulated: Make, tables: Tables) -> None:
    found = tables(audit({"erm": [simulated(**columns)]}, ["sex", "site"], **FAST))
    empty = [name for name, table in found.items() if not table["groups"]]
    assert empty == (["site", "sex & site"] if columns == {"site": ""} else ["sex & site"])
    for name in empty:
        assert found[name]["n_missing"] == 400
        assert {gap["reason"] for gap in found[name]["gaps"]["erm"].values()} == {"fewer than two groups to compare"}
