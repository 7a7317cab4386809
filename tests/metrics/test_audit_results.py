import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, false_positive_rate, true_positive_rate
from scipy.special import expit, logit
from scipy.stats import binomtest, t, ttest_rel
from sklearn.metrics import precision_recall_curve, roc_auc_score

from monai_fair.data.predictions import Predictions, check_predictions
from monai_fair.errors import MonaiFairError
from monai_fair.metrics import audit, find_threshold

FAST: dict[str, Any] = {"permutations": 50, "resamples": 100}
Make = Callable[..., Predictions]
Tables = Callable[..., dict[str, Any]]


def welch_delong(y: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """DeLong's interval on the logit scale from the matrix of wins, with Welch's degrees of freedom."""
    wins = (score[y][:, None] > score[~y]) + (score[y][:, None] == score[~y]) / 2
    auc, parts = wins.mean(), [wins.mean(axis=axis).var(ddof=1) / wins.shape[1 - axis] for axis in (1, 0)]
    degrees = sum(parts) ** 2 / sum(part**2 / (size - 1) for part, size in zip(parts, wins.shape, strict=True))
    half = t.ppf(0.975, degrees) * math.sqrt(sum(parts)) / (auc * (1 - auc))
    return float(expit(logit(auc) - half)), float(expit(logit(auc) + half))


def test_one_run_one_seed_against_sklearn_fairlearn_and_scipy(simulated: Make, tables: Tables) -> None:
    found = simulated()
    results = audit({"erm": [found]}, ["sex", "site"], min_count=1, **FAST)
    test, val = (found.table[found.table["split"] == split] for split in ("test", "val"))
    threshold = find_threshold(val["label"], val["score"])
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
                expected = welch_delong(test["label"][inside].to_numpy() == 1, test["score"][inside].to_numpy())
                assert cells["auc"]["value"] == pytest.approx(
                    roc_auc_score(test["label"][inside], test["score"][inside]), abs=1e-12
                )
                assert (cells["auc"]["low"], cells["auc"]["high"]) == pytest.approx(expected, abs=1e-12)
            for metric in ("tpr", "fpr"):
                gap = tables(results)[name]["gaps"]["erm"][f"{metric}@{rule}"]
                assert gap["value"] == pytest.approx(frame.difference()[metric], abs=1e-12)
                assert gap["highest"]["group"] == frame.by_group[metric].idxmax()
                assert gap["lowest"]["group"] == frame.by_group[metric].idxmin()


def test_means_over_seeds_and_paired_differences_against_scipy(simulated: Make, tables: Tables) -> None:
    runs = {
        "erm": [simulated(seed, gap=1.0) for seed in range(3)],
        "nir": [simulated(seed + 10) for seed in range(3)],
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


def test_only_shared_seeds_are_paired(simulated: Make, tables: Tables) -> None:
    runs = {
        "erm": [simulated(seed, source=f"erm/seed_{seed}/p.csv") for seed in (0, 1, 2)],
        "nir": [simulated(seed + 10, source=f"nir/seed_{seed}/p.csv") for seed in (2, 4)],
    }
    table = tables(audit(runs, ["sex"], **FAST))["sex"]
    change = table["gap_differences"]["nir"]["auc"]
    assert (change["n"], change["shared_seeds"]) == (1, ["2"])
    expected = table["gaps"]["nir"]["auc"]["by_seed"][0] - table["gaps"]["erm"]["auc"]["by_seed"][2]
    assert change["value"] == pytest.approx(expected)
    assert change["reason"] == "one seed: the spread over seeds is unknown"


def test_runs_without_a_shared_seed(simulated: Make, tables: Tables) -> None:
    runs = {run: [simulated(source=f"{run}/seed_{seed}/p.csv")] for run, seed in (("erm", 0), ("nir", 1))}
    change = tables(audit(runs, ["sex"], **FAST))["sex"]["gap_differences"]["nir"]["auc"]
    assert math.isnan(change["value"])
    assert change["reason"] == "the runs share no seed"


def test_one_seed_has_no_interval_over_seeds_and_says_so(simulated: Make, tables: Tables) -> None:
    cell = tables(audit({"erm": [simulated()]}, ["sex"], **FAST))["sex"]["groups"][0]["cells"]["erm"]["auc"]
    assert math.isnan(cell["seeds"]["low"])
    assert cell["seeds"]["reason"] == "one seed: the spread over seeds is unknown"


# The three traps measured with fairlearn 0.15: undefined groups must be NaN with a reason, at any position.
@pytest.mark.parametrize("name", ["0 first", "z last"])
def test_group_of_negatives_only_is_undefined_and_listed(simulated: Make, tables: Tables, name: str) -> None:
    found = simulated()
    special = (found.table["label"] == 0) & (np.arange(600) % 7 == 0)
    planted = simulated(site=np.where(special, name, found.table["site"]))
    table = tables(audit({"erm": [planted]}, ["site"], **FAST))["site"]
    row = next(row for row in table["groups"] if row["name"] == name)
    assert row["n_positive"] == 0
    missed = "no positive case in this group"
    for quantity, reason in (
        ("auc", "no positive or no negative case in this group"),
        ("tpr@youden", missed),
        ("tpr@0.5", missed),
        ("average_precision", missed),
    ):
        cell = row["cells"]["erm"][quantity]
        assert math.isnan(cell["value"])
        assert (cell["reason"], cell["interval_reason"]) == (reason, reason)
        gap = table["gaps"]["erm"][quantity]
        assert not math.isnan(gap["value"])
        assert gap["left_out"] == [{"group": name, "reason": reason}]
    assert not math.isnan(row["cells"]["erm"]["fpr@0.5"]["value"])


def test_ten_cases_without_positives_raise_no_false_alarm(simulated: Make, tables: Tables) -> None:
    # fairlearn calls the TPR of such a group 0.0, which makes the difference as large as the best group's TPR.
    base = tables(audit({"erm": [simulated()]}, ["site"], **{**FAST, "permutations": 400}))["site"]["gaps"]["erm"][
        "tpr@0.5"
    ]
    found = simulated()
    ten = np.zeros(600, bool)
    ten[np.flatnonzero((found.table["label"] == 0) & (found.table["split"] == "test"))[:10]] = True
    planted = simulated(site=np.where(ten, "ten", found.table["site"]))
    gap = tables(audit({"erm": [planted]}, ["site"], **{**FAST, "permutations": 400}))["site"]["gaps"]["erm"]["tpr@0.5"]
    frame = MetricFrame(
        metrics=true_positive_rate,
        y_true=planted.table["label"],
        y_pred=planted.table["score"] >= 0.5,
        sensitive_features=planted.table["site"],
    )
    assert frame.difference() > 0.5
    for key in ("value", "by_seed", "lowest", "highest"):
        assert gap[key] == base[key]
    # Other shuffles: 4 standard errors of a share, and of a mean, over 400 of them.
    assert gap["p"] == pytest.approx(base["p"], abs=4 * math.sqrt(0.25 / 400))
    assert gap["chance"] == pytest.approx(base["chance"], rel=0.2)


@pytest.mark.parametrize("missing", ["drop", "group"])
def test_missing_values_are_a_choice_and_are_counted(simulated: Make, tables: Tables, missing: str) -> None:
    found = simulated()
    planted = simulated(sex=np.where(np.arange(600) % 5 == 0, "", found.table["sex"]))
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


def test_small_groups_have_a_value_but_no_interval_and_no_part_in_the_gap(simulated: Make, tables: Tables) -> None:
    found = simulated()
    positives = np.flatnonzero((found.table["label"] == 1) & (found.table["split"] == "test"))
    few = np.isin(np.arange(600), positives[:9]) | (np.arange(600) % 11 == 1) & (found.table["label"] == 0)
    table = tables(audit({"erm": [simulated(site=np.where(few, "few", "rest"))]}, ["site"], **FAST))["site"]
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


def test_no_validation_rows_leave_the_fixed_threshold(simulated: Make, tables: Tables) -> None:
    results = audit({"erm": [simulated(split="test")]}, ["sex"], **FAST)
    reason = "no rows with split 'val' to choose a threshold on"
    assert results["targets"][0]["thresholds"]["erm"]["youden"]["reason"] == reason
    row = tables(results)["sex"]["groups"][0]["cells"]["erm"]
    assert math.isnan(row["tpr@youden"]["value"])
    assert row["tpr@youden"]["reason"] == reason
    assert not math.isnan(row["tpr@0.5"]["value"])
    assert tables(results)["sex"]["gaps"]["erm"]["tpr@youden"]["reason"] == reason


def test_auditing_validation_chooses_no_threshold_there(simulated: Make) -> None:
    results = audit({"erm": [simulated()]}, ["sex"], split="val", **FAST)
    assert results["data"]["n"] == 200
    assert results["targets"][0]["thresholds"]["erm"]["youden"]["reason"] == (
        "the validation rows are the ones audited here, so no threshold is chosen on them"
    )


def test_several_images_per_subject_are_noted(simulated: Make) -> None:
    subjects = [f"s{i // 2}" if i % 3 else f"v{i}" for i in range(600)]
    results = audit({"erm": [simulated(subject_id=subjects)]}, ["sex"], **FAST)
    assert results["notes"] == [
        "several images per subject (400 images of 300 subjects): intervals and p values are by subject, "
        "images of one subject are never taken apart"
    ]


def test_several_classes_are_audited_one_against_the_rest(simulated: Make) -> None:
    found = simulated(classes=3)
    results = audit({"erm": [found]}, ["sex"], **FAST)
    assert [target["name"] for target in results["targets"]] == [f"class {k} versus the rest" for k in range(3)]
    assert results["notes"][0].startswith("3 classes: each class is audited against the rest")
    test = found.table[found.table["split"] == "test"]
    for label, target in enumerate(results["targets"]):
        expected = roc_auc_score(test["label"] == label, test[f"score_{label}"])
        assert target["overall"]["cells"]["erm"]["auc"]["value"] == pytest.approx(expected, abs=1e-12)


def test_two_score_columns_are_a_binary_task(simulated: Make) -> None:
    table = simulated().table.astype(str)
    two = table.drop(columns="score").assign(
        score_0=(1 - table["score"].astype(float)).astype(str), score_1=table["score"]
    )
    one, both = (audit({"erm": [found]}, ["sex"], **FAST) for found in (simulated(), check_predictions(two, "p.csv")))
    assert both["targets"][0]["score_column"] == "score_1"
    assert json.dumps(one["targets"][0]["tables"]) == json.dumps(both["targets"][0]["tables"])


def test_holm_goes_over_attributes_and_intersections(simulated: Make) -> None:
    results = audit({"erm": [simulated(gap=0.6)]}, ["sex", "site"], **FAST)
    gaps = [table["gaps"]["erm"]["fpr@0.5"] for table in results["targets"][0]["tables"]]
    raw = sorted(gap["p"] for gap in gaps)
    stepped = np.maximum.accumulate([min(1.0, p * (3 - i)) for i, p in enumerate(raw)])
    assert sorted(gap["p_holm"] for gap in gaps) == pytest.approx(stepped.tolist())
    assert {gap["holm_over"] for gap in gaps} == {3}


def test_curves_pass_through_the_rates_of_the_audit(simulated: Make, tables: Tables) -> None:
    found = simulated()
    results = audit({"erm": [found]}, ["sex"], **FAST)
    row = tables(results)["sex"]["groups"][0]
    cells, curves = row["cells"]["erm"], row["curves"]["erm"]
    assert len(results["curve_grid"]) == 101
    for name in ("roc", "pr"):
        value, low, high = (np.array(curves[name][part]) for part in ("value", "low", "high"))
        assert value.shape == low.shape == high.shape == (101,)
        assert ((low <= value) & (value <= high)).all()
    roc = np.array(curves["roc"]["value"])
    assert roc[-1] == 1.0
    assert (np.diff(roc) >= 0).all()
    # 101 points on a staircase of about 100 steps: the area agrees to two digits
    assert (roc[1:] + roc[:-1]).sum() / 200 == pytest.approx(cells["auc"]["value"], abs=0.01)
    at = results["curve_grid"].index(0.5)
    for name in ("tpr", "fpr"):
        point = {part: curves["sweep"][name][part][at] for part in ("value", "low", "high")}
        assert point == pytest.approx({part: cells[f"{name}@0.5"][part] for part in point}, abs=1e-12)
    rows = found.table[(found.table["split"] == "test") & (found.table["sex"] == row["name"])]
    precision, recall, _ = precision_recall_curve(rows["label"], rows["score"])
    assert curves["pr"]["value"][80] == pytest.approx(precision[:-1][recall[:-1] >= 0.8 - 1e-12][-1], abs=1e-12)
    tenths = curves["calibration"]
    assert sum(tenth["n"] for tenth in tenths) == row["n"]
    ece = sum(tenth["n"] / row["n"] * abs(tenth["observed"] - tenth["mean_score"]) for tenth in tenths)
    assert ece == pytest.approx(cells["ece"]["value"], abs=1e-12)


def test_intersections_have_no_curves(simulated: Make, tables: Tables) -> None:
    table = tables(audit({"erm": [simulated()]}, ["sex", "site"], **FAST))["sex & site"]
    assert all(row["curves"] == {} for row in table["groups"])


def test_options_are_checked_all_at_once(simulated: Make) -> None:
    with pytest.raises(MonaiFairError) as caught:
        audit({"erm": [simulated()]}, ["sex"], missing="own", permutations=0, resamples=9, thresholds=["given by sex"])
    assert str(caught.value).splitlines() == [
        "audit: 4 problems",
        "  1. option 'missing': expected drop or group, got 'own'",
        "  2. option 'permutations': expected at least 1, got 0",
        "  3. option 'resamples': expected at least 100, got 9",
        "  4. option 'thresholds': expected one of youden, min_gap, g_means, f1, sensitivity=0.9, specificity=0.9, "
        "each also followed by ' by ATTRIBUTE', a number or given, got 'given by sex'",
    ]


def test_input_is_not_changed(simulated: Make) -> None:
    found = simulated()
    before = found.table.copy(deep=True)
    audit({"erm": [found]}, ["sex"], **FAST)
    pd.testing.assert_frame_equal(found.table, before)
