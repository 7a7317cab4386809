"""Statistics of a study with other options, of one seed, and of runs in which something is undefined."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_fair.report import collapse_results as module
from monai_fair.report.collapse_results import collapse_results

Records = list[dict[str, Any]]
SEX = "skin: sex"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results without seconds for the toy."""
    toy = module.simulate_collapse_toy(n=40, epochs=1)
    monkeypatch.setattr(module, "simulate_collapse_toy", lambda: toy)


def chosen(rows: Records, **fields: Any) -> Records:
    return [row for row in rows if all(row[name] == value for name, value in fields.items())]


def the(rows: Records, **fields: Any) -> dict[str, Any]:
    (row,) = chosen(rows, **fields)
    return row


def test_options_reach_the_statistics(collapse_experiments: Records) -> None:
    results = collapse_results(collapse_experiments)
    found = collapse_results(collapse_experiments[:1], confidence=0.5, threshold=0.1)
    assert found["settings"] == {"confidence": 0.5, "threshold": 0.1, "alternative": "two-sided"}
    key = {"experiment": SEX, "checkpoint": "early", "group": "male"}
    narrow, wide = (the(each["comparisons"], measure="nc1_distance", part="test", **key) for each in (found, results))
    assert narrow["high"] - narrow["low"] < wide["high"] - wide["low"]
    assert (
        the(found["comparisons"], measure="f1", **key)["mean_first"]
        != the(results["comparisons"], measure="f1", **key)["mean_first"]
    )
    narrow, wide = (the(each["split"]["changes"], experiment=SEX, arm="clean") for each in (found, results))
    assert narrow["high"] - narrow["low"] < wide["high"] - wide["low"]
    narrow, wide = (the(each["window"], experiment=SEX, measure="mean_nc1_distance") for each in (found, results))
    assert narrow["high"] - narrow["low"] < wide["high"] - wide["low"]
    # what is not adjusted is that of the experiment alone
    assert found["curves"] == chosen(results["curves"], experiment=SEX)
    assert found["cohorts"] == results["cohorts"][:1]


def test_one_seed(collapse_copy: Records) -> None:
    for own in collapse_copy:
        own["seeds"] = own["seeds"][:1]
        own["attribute_models"] = own["attribute_models"][:1]
        own["runs"] = {arm: {name: runs[:1] for name, runs in of.items()} for arm, of in own["runs"].items()}
    found = collapse_results(collapse_copy)
    row = found["comparisons"][0]
    assert (row["n_first"], row["p"], row["p_smallest"]) == (1, 1, 1)
    assert row["interval_reason"] == "one seed in an arm: the spread over seeds is unknown"
    assert np.isnan(found["curves"][0]["sd"]).all()
    assert found["split"]["changes"][0]["interval_reason"] == "one seed: the spread over seeds is unknown"
    assert np.isnan(found["mislabelled"][0]["ratio_sd"])


def test_what_is_undefined_in_a_run_is_undefined_in_the_study(collapse_copy: Records) -> None:
    run = Path(collapse_copy[0]["runs"]["biased"]["final"][1])
    record = json.loads((run / "collapse.json").read_text())
    record["split_test"]["sex"] |= {"auc": None, "reason": "expected every level in test"}
    value = record["collapse"]["sex"]["test"]["groups"][0]["values"]["nc1_distance"]
    value |= {"value": None, "reason": "no sample"}
    (run / "collapse.json").write_text(json.dumps(record))
    found = collapse_results(collapse_copy)
    point = the(found["split"]["points"], experiment=SEX, arm="biased", checkpoint="final")
    assert np.isnan(point["split_mean"])
    assert point["reason"] == "SPLIT test undefined in 1 of 3 seeds: expected every level in test"
    change = the(found["split"]["changes"], experiment=SEX, arm="biased")
    assert change["reason"] == "final undefined in 1 of 3 seeds: expected every level in test"
    (broken,) = [row for row in found["comparisons"] if row["reason"]]
    assert (broken["measure"], broken["part"], broken["group"]) == ("nc1_distance", "test", "female")
    assert broken["reason"] == "undefined in 1 of 3 seeds of the later arm: no sample"
    agreement = the(found["split"]["agreement"], arm="biased", checkpoint="final")
    assert agreement["reason"] == "undefined in 1 of 2 experiments"
