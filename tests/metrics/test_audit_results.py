import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, true_positive_rate
from scipy.stats import binomtest, t, ttest_rel
from sklearn.metrics import roc_auc_score

from monai_fair.data.predictions import Predictions, check_predictions
from monai_fair.errors import MonaiFairError
from monai_fair.metrics import auc_interval, audit, youden_threshold

FAST = {"permutations": 50}


def make(
    seed: int = 0, n: int = 600, *, gap: float = 0.0, source: str = "p.csv", classes: int = 1, **columns: Any
) -> Predictions:
    """Simulated predictions; the same cases for every seed of the scores."""
    cases, noise = np.random.default_rng(0), np.random.default_rng(seed + 1)
    label = (cases.random(n) < 0.4).astype(int)
    sex = cases.choice(["f", "m"], n)
    table = pd.DataFrame({"subject_id": [f"s{i:04d}" for i in range(n)], "image": [f"{i}.png" for i in range(n)]})
    table["split"] = np.where(np.arange(n) % 3 == 0, "val", "test")
    table["sex"], table["site"] = sex, cases.choice(["a", "b", "c"], n)
    logit = 2 * label - 1 + gap * (sex == "m") + noise.normal(size=n)
    score = np.round(1 / (1 + np.exp(-logit)), 3)
    if classes == 1:
        table["score"] = score
    else:
        label = cases.integers(0, classes, n)
        raw = noise.random((n, classes)) + np.eye(classes)[label]
        for index, column in enumerate((raw / raw.sum(axis=1, keepdims=True)).T):
            table[f"score_{index}"] = column
    return check_predictions(table.assign(label=label, **columns).astype(str), source)


def tables(results: dict[str, Any], target: int = 0) -> dict[str, Any]:
    return {table["name"]: table for table in results["targets"][target]["tables"]}


def test_one_run_one_seed_against_sklearn_fairlearn_and_scipy() -> None:
    found = make()
    results = audit({"erm": [found]}, ["sex", "site"], min_count=1, **FAST)
    test, val = (found.table[found.table["split"] == split] for split in ("test", "val"))
    threshold = youden_threshold(val["label"], val["score"])
    assert results["targets"][0]["thresholds"]["erm"]["youden"]["by_seed"] == [threshold]
    for rule, cut in (("youden", threshold), ("0.5", 0.5)):
        y_pred = test["score"] >= cut
        for name in ("sex", "site"):
            frame = MetricFrame(
                metrics={"tpr": true_positive_rate, "fpr": false_positive_rate},
                y_true=test["label"],
                y_pred=y_pred,
                sensitive_features=test[name],
            )
            for row in tables(results)[name]["groups"]:
                inside = (test[name] == row["name"]).to_numpy()
                cells = row["cells"]["erm"]
                for metric, below in (("tpr", 1), ("fpr", 0)):
                    cell = cells[f"{metric}@{rule}"]
                    assert cell["value"] == pytest.approx(frame.by_group[metric][row["name"]], abs=1e-12)
                    trials = inside & (test["label"] == below).to_numpy()
                    wilson = binomtest(int(y_pred[trials].sum()), int(trials.sum())).proportion_ci(method="wilson")
                    assert (cell["low"], cell["high"]) == pytest.approx((wilson.low, wilson.high), abs=1e-12)
                expected = auc_interval(test["label"][inside], test["score"][inside])
                assert cells["auc"]["value"] == pytest.approx(
                    roc_auc_score(test["label"][inside], test["score"][inside]), abs=1e-12
                )
                assert (cells["auc"]["low"], cells["auc"]["high"]) == pytest.approx(expected[1:], abs=1e-12)
            for metric in ("tpr", "fpr"):
                gap = tables(results)[name]["gaps"]["erm"][f"{metric}@{rule}"]
                assert gap["value"] == pytest.approx(frame.difference()[metric], abs=1e-12)
                assert gap["highest"]["group"] == frame.by_group[metric].idxmax()
                assert gap["lowest"]["group"] == frame.by_group[metric].idxmin()


def test_means_over_seeds_and_paired_differences_against_scipy() -> None:
    runs = {
        "erm": [make(seed, gap=1.0) for seed in range(3)],
        "nir": [make(seed + 10) for seed in range(3)],
    }
    results = audit(runs, ["sex"], **FAST)
    table = tables(results)["sex"]
    gaps = {run: np.array(table["gaps"][run]["tpr@0.5"]["by_seed"]) for run in runs}
    gap = table["gaps"]["erm"]["tpr@0.5"]
    assert gap["value"] == pytest.approx(gaps["erm"].mean(), abs=1e-15)
    half = t.ppf(0.975, 2) * gaps["erm"].std(ddof=1) / math.sqrt(3)
    assert gap["seeds"]["low"] == pytest.approx(max(0.0, gaps["erm"].mean() - half), abs=1e-12)
    assert (gap["seeds"]["n"], gap["seeds"]["reason"]) == (3, None)
    change = table["gap_differences"]["nir"]["tpr@0.5"]
    paired = ttest_rel(gaps["nir"], gaps["erm"]).confidence_interval(0.95)
    assert change["n"] == 3
    assert change["value"] == pytest.approx((gaps["nir"] - gaps["erm"]).mean(), abs=1e-12)
    assert (change["low"], change["high"]) == pytest.approx((paired.low, paired.high), abs=1e-12)
    assert gap["p"] == pytest.approx(1 / 51)


def test_only_shared_seeds_are_paired() -> None:
    runs = {
        "erm": [make(seed, source=f"erm/seed_{seed}/p.csv") for seed in (0, 1, 2)],
        "nir": [make(seed + 10, source=f"nir/seed_{seed}/p.csv") for seed in (2, 4)],
    }
    table = tables(audit(runs, ["sex"], **FAST))["sex"]
    change = table["gap_differences"]["nir"]["auc"]
    assert (change["n"], change["shared_seeds"]) == (1, ["2"])
    expected = table["gaps"]["nir"]["auc"]["by_seed"][0] - table["gaps"]["erm"]["auc"]["by_seed"][2]
    assert change["value"] == pytest.approx(expected)
    assert change["reason"] == "one seed: the spread over seeds is unknown"


def test_runs_without_a_shared_seed() -> None:
    runs = {run: [make(source=f"{run}/seed_{seed}/p.csv")] for run, seed in (("erm", 0), ("nir", 1))}
    change = tables(audit(runs, ["sex"], **FAST))["sex"]["gap_differences"]["nir"]["auc"]
    assert math.isnan(change["value"])
    assert change["reason"] == "the runs share no seed"


def test_one_seed_has_no_interval_over_seeds_and_says_so() -> None:
    cell = tables(audit({"erm": [make()]}, ["sex"], **FAST))["sex"]["groups"][0]["cells"]["erm"]["auc"]
    assert math.isnan(cell["seeds"]["low"])
    assert cell["seeds"]["reason"] == "one seed: the spread over seeds is unknown"


# The three traps measured with fairlearn 0.15: undefined groups must be NaN with a reason, at any position.
@pytest.mark.parametrize("name", ["0 first", "z last"])
def test_group_of_negatives_only_is_undefined_and_listed(name: str) -> None:
    found = make()
    special = (found.table["label"] == 0) & (np.arange(600) % 7 == 0)
    planted = make(site=np.where(special, name, found.table["site"]))
    table = tables(audit({"erm": [planted]}, ["site"], **FAST))["site"]
    row = next(row for row in table["groups"] if row["name"] == name)
    assert row["n_positive"] == 0
    for quantity in ("auc", "tpr@youden", "tpr@0.5"):
        cell = row["cells"]["erm"][quantity]
        assert math.isnan(cell["value"])
        assert cell["reason"] == "no positive in this group"
        gap = table["gaps"]["erm"][quantity]
        assert not math.isnan(gap["value"])
        assert gap["left_out"] == [{"group": name, "reason": "no positive in this group"}]
    assert not math.isnan(row["cells"]["erm"]["fpr@0.5"]["value"])


def test_ten_cases_without_positives_raise_no_false_alarm() -> None:
    # fairlearn calls the TPR of such a group 0.0, which makes the difference as large as the best group's TPR.
    base = tables(audit({"erm": [make()]}, ["site"], **FAST))["site"]["gaps"]["erm"]["tpr@0.5"]
    found = make()
    ten = np.zeros(600, bool)
    ten[np.flatnonzero((found.table["label"] == 0) & (found.table["split"] == "test"))[:10]] = True
    planted = make(site=np.where(ten, "ten", found.table["site"]))
    gap = tables(audit({"erm": [planted]}, ["site"], **FAST))["site"]["gaps"]["erm"]["tpr@0.5"]
    frame = MetricFrame(
        metrics=true_positive_rate,
        y_true=planted.table["label"],
        y_pred=planted.table["score"] >= 0.5,
        sensitive_features=planted.table["site"],
    )
    assert frame.difference() > 0.5
    for key in ("value", "by_seed", "lowest", "highest", "chance", "chance_high", "p"):
        assert gap[key] == base[key]


@pytest.mark.parametrize("missing", ["drop", "group"])
def test_missing_values_are_a_choice_and_are_counted(missing: str) -> None:
    found = make()
    planted = make(sex=np.where(np.arange(600) % 5 == 0, "", found.table["sex"]))
    results = audit({"erm": [planted]}, ["sex", "site"], missing=missing, **FAST)
    for table in results["targets"][0]["tables"]:
        n = sum(row["n"] for row in table["groups"])
        if missing == "drop":
            assert n + table["n_missing"] == results["data"]["n"]
        else:
            assert n == results["data"]["n"]
        assert table["n_missing"] == (0 if table["name"] == "site" else 80)
        for row in table["groups"]:
            assert row["n_positive"] + row["n_negative"] == row["n"]
    names = [row["name"] for row in tables(results)["sex"]["groups"]]
    assert names == ["f", "m"] + (["missing"] if missing == "group" else [])


def test_small_groups_have_a_value_but_no_interval_and_no_part_in_the_gap() -> None:
    found = make()
    positives = np.flatnonzero((found.table["label"] == 1) & (found.table["split"] == "test"))
    few = np.isin(np.arange(600), positives[:9]) | (np.arange(600) % 11 == 1) & (found.table["label"] == 0)
    table = tables(audit({"erm": [make(site=np.where(few, "few", "rest"))]}, ["site"], **FAST))["site"]
    row = next(row for row in table["groups"] if row["name"] == "few")
    assert row["n_positive"] == 9
    reason = "fewer than 10 positives in this group"
    auc = row["cells"]["erm"]["auc"]
    assert not math.isnan(auc["value"])
    assert math.isnan(auc["low"])
    assert (auc["reason"], auc["interval_reason"]) == (None, reason)
    assert not math.isnan(row["cells"]["erm"]["tpr@0.5"]["low"])
    gap = table["gaps"]["erm"]["tpr@0.5"]
    assert gap["left_out"] == [{"group": "few", "reason": reason}]
    assert math.isnan(gap["value"])
    assert gap["reason"] == "fewer than two groups to compare"


def test_no_validation_rows_leave_the_fixed_threshold() -> None:
    results = audit({"erm": [make(split="test")]}, ["sex"], **FAST)
    reason = "no rows with split 'val' to choose a threshold on"
    assert results["targets"][0]["thresholds"]["erm"]["youden"]["reason"] == reason
    row = tables(results)["sex"]["groups"][0]["cells"]["erm"]
    assert math.isnan(row["tpr@youden"]["value"])
    assert row["tpr@youden"]["reason"] == reason
    assert not math.isnan(row["tpr@0.5"]["value"])
    assert tables(results)["sex"]["gaps"]["erm"]["tpr@youden"]["reason"] == reason


def test_auditing_validation_chooses_no_threshold_there() -> None:
    results = audit({"erm": [make()]}, ["sex"], split="val", **FAST)
    assert results["data"]["n"] == 200
    assert results["targets"][0]["thresholds"]["erm"]["youden"]["reason"] == (
        "the validation rows are the ones audited here, so no threshold is chosen on them"
    )


def test_several_images_per_subject_are_noted() -> None:
    subjects = [f"s{i // 2}" if i % 3 else f"v{i}" for i in range(600)]
    results = audit({"erm": [make(subject_id=subjects)]}, ["sex"], **FAST)
    assert results["notes"] == [
        "several images per subject (400 images of 300 subjects): intervals and p values by image may be too narrow"
    ]


def test_several_classes_are_audited_one_against_the_rest() -> None:
    found = make(classes=3)
    results = audit({"erm": [found]}, ["sex"], **FAST)
    assert [target["name"] for target in results["targets"]] == [f"class {k} versus the rest" for k in range(3)]
    assert results["notes"][0].startswith("3 classes: each class is audited against the rest")
    test = found.table[found.table["split"] == "test"]
    for label, target in enumerate(results["targets"]):
        expected = roc_auc_score(test["label"] == label, test[f"score_{label}"])
        assert target["overall"]["cells"]["erm"]["auc"]["value"] == pytest.approx(expected, abs=1e-12)


def test_two_score_columns_are_a_binary_task() -> None:
    table = make().table.astype(str)
    two = table.drop(columns="score").assign(
        score_0=(1 - table["score"].astype(float)).astype(str), score_1=table["score"]
    )
    one, both = (audit({"erm": [found]}, ["sex"], **FAST) for found in (make(), check_predictions(two, "p.csv")))
    assert both["targets"][0]["score_column"] == "score_1"
    assert json.dumps(one["targets"][0]["tables"]) == json.dumps(both["targets"][0]["tables"])


def test_holm_goes_over_attributes_and_intersections() -> None:
    results = audit({"erm": [make(gap=0.6)]}, ["sex", "site"], **FAST)
    gaps = [table["gaps"]["erm"]["fpr@0.5"] for table in results["targets"][0]["tables"]]
    raw = sorted(gap["p"] for gap in gaps)
    stepped = np.maximum.accumulate([min(1.0, p * (3 - i)) for i, p in enumerate(raw)])
    assert sorted(gap["p_holm"] for gap in gaps) == pytest.approx(stepped.tolist())
    assert {gap["holm_over"] for gap in gaps} == {3}


def test_roc_passes_through_the_rates_of_the_audit() -> None:
    found = make()
    results = audit({"erm": [found]}, ["sex"], **FAST)
    row = tables(results)["sex"]["groups"][0]
    curve = np.array(row["roc"]["erm"])
    assert len(curve) == len(results["roc_grid"]) == 101
    assert curve[-1] == 1.0
    assert (np.diff(curve) >= 0).all()
    area = (curve[1:] + curve[:-1]).sum() / 200
    # 101 points on a staircase of about 100 steps: the area agrees to two digits
    assert area == pytest.approx(row["cells"]["erm"]["auc"]["value"], abs=0.01)


def test_options_are_checked_all_at_once() -> None:
    with pytest.raises(MonaiFairError) as caught:
        audit({"erm": [make()]}, ["sex"], missing="own", permutations=0, min_count=0, split="dev", confidence=1.0)
    assert str(caught.value).splitlines() == [
        "audit: 5 problems",
        "  1. option 'split': expected one of train, val, test, got 'dev'",
        "  2. option 'missing': expected drop or group, got 'own'",
        "  3. option 'permutations': expected at least 1, got 0",
        "  4. option 'min_count': expected at least 1, got 0",
        "  5. option 'confidence': expected a number in (0, 1), got 1.0",
    ]


def test_input_is_not_changed() -> None:
    found = make()
    before = found.table.copy(deep=True)
    audit({"erm": [found]}, ["sex"], **FAST)
    pd.testing.assert_frame_equal(found.table, before)
