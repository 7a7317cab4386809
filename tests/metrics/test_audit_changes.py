import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, ttest_rel

from monai_fair.data.predictions import Predictions
from monai_fair.metrics import audit, fate
from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.changes import _correlation, _may_be_top

Make = Callable[..., Predictions]
Tables = Callable[..., dict[str, Any]]
FAST: dict[str, Any] = {"permutations": 50, "resamples": 100, "thresholds": ["0.5"]}


def paired_delong(y: FloatArray, first: FloatArray, later: FloatArray) -> tuple[float, float]:
    """Difference and standard error from the matrix of all pairs."""
    change = [(np.sign(score[y == 1][:, None] - score[y == 0]) + 1) / 2 for score in (later, first)]
    matrix = change[0] - change[1]
    variance = matrix.mean(axis=1).var(ddof=1) / (y == 1).sum() + matrix.mean(axis=0).var(ddof=1) / (y == 0).sum()
    return float(matrix.mean()), math.sqrt(variance)


def test_change_of_an_auc_is_delongs_paired_comparison(simulated: Make, tables: Tables) -> None:
    first, later = simulated(), simulated(7, gap=0.5)
    row = tables(audit({"erm": [first], "nir": [later]}, ["sex"], **FAST))["sex"]["groups"][1]
    change = row["differences"]["nir"]["auc"]
    at = (first.table["split"] == "test") & (first.table["sex"] == "m")
    y, one, other = (table["score"][at].to_numpy() for table in (first.table, first.table, later.table))
    y = first.table["label"][at].to_numpy(float)
    value, error = paired_delong(y, one, other)
    half = norm.ppf(0.975) * error
    assert change["value"] == pytest.approx(value, abs=1e-12)
    assert (change["cases"]["low"], change["cases"]["high"]) == pytest.approx((value - half, value + half), abs=1e-12)
    assert change["p"] == pytest.approx(2 * norm.sf(abs(value) / error), abs=1e-12)
    assert change["test"] == "paired DeLong"


def test_a_run_does_not_change_from_itself(simulated: Make, tables: Tables) -> None:
    results = audit({"erm": [simulated()], "again": [simulated()]}, ["sex", "site"], **FAST)
    for table in tables(results).values():
        changes = dict(table["gap_differences"]["again"])
        for row in table["groups"]:
            changes |= {(row["name"], key): change for key, change in row["differences"]["again"].items()}
        for key, change in changes.items():
            if change["reason"] == "undefined in one of the runs":
                assert math.isnan(change["value"])
                continue
            assert change["value"] == 0, key
            # runs that agree on these cases may differ on others, so the interval has a length, around 0
            if not math.isnan(change["p"]):
                assert change["cases"]["low"] == pytest.approx(-change["cases"]["high"], abs=0.05), key
                assert change["cases"]["low"] <= 0 <= change["cases"]["high"], key
                assert change["p"] == 1.0, key
            assert math.isnan(change["p_seeds"])


def test_changes_of_values_and_gaps_over_seeds(simulated: Make, tables: Tables) -> None:
    runs = {"erm": [simulated(seed, gap=1.0) for seed in range(4)], "nir": [simulated(seed + 9) for seed in range(4)]}
    table = tables(audit(runs, ["sex"], **FAST))["sex"]
    row = table["groups"][0]
    for key in ("brier", "ppv@0.5"):
        first, later = ([part["value"] for part in row["cells"][run][key]["by_seed"]] for run in runs)
        change, paired = row["differences"]["nir"][key], ttest_rel(later, first)
        ends = paired.confidence_interval(0.95)
        assert (change["low"], change["high"]) == pytest.approx((ends.low, ends.high), abs=1e-12)
        assert change["p_seeds"] == pytest.approx(paired.pvalue, abs=1e-12)
        assert change["value"] == pytest.approx(np.subtract(later, first).mean(), abs=1e-12)
        assert change["test"] == "paired permutation of subjects"
        assert change["cases"]["low"] < change["value"] < change["cases"]["high"]
    # a gap of 1 on the logit scale was planted in the first run and is not in the later one
    change = table["gap_differences"]["nir"]["equalized_odds@0.5"]
    assert change["value"] < 0
    assert change["p"] == pytest.approx(1 / 51)
    assert change["cases"]["high"] < 0


def test_equalized_odds_is_the_larger_of_two_gaps_in_every_seed(simulated: Make, tables: Tables) -> None:
    runs = {"erm": [simulated(seed, gap=0.4) for seed in range(3)]}
    gaps = tables(audit(runs, ["sex"], **FAST))["sex"]["gaps"]["erm"]
    parts = [gaps[f"{name}@0.5"]["by_seed"] for name in ("tpr", "fpr")]
    assert gaps["equalized_odds@0.5"]["by_seed"] == [max(pair) for pair in zip(*parts, strict=True)]
    assert gaps["equalized_odds@0.5"]["worst"] is None


def test_fate_is_taken_per_seed_against_the_first_run(simulated: Make, tables: Tables) -> None:
    runs = {"erm": [simulated(seed, gap=1.0) for seed in range(3)], "nir": [simulated(seed + 9) for seed in range(3)]}
    results = audit(runs, ["sex"], **FAST)
    table = tables(results)["sex"]
    overall = results["targets"][0]["overall"]["cells"]
    for gap, performance in (("equalized_odds@0.5", "accuracy@0.5"), ("auc", "auc")):
        accuracy = {run: np.array([part["value"] for part in overall[run][performance]["by_seed"]]) for run in runs}
        unfair = {run: np.array(table["gaps"][run][gap]["by_seed"]) for run in runs}
        expected = fate(accuracy["nir"], accuracy["erm"], unfair["nir"], unfair["erm"])
        found = table["fate"]["nir"][gap]
        assert found["by_seed"] == pytest.approx(expected.tolist(), abs=1e-12)
        assert found["value"] == pytest.approx(expected.mean(), abs=1e-12)
        assert (found["n"], found["reason"]) == (3, None)


def test_fate_against_no_gap_is_undefined(simulated: Make, tables: Tables) -> None:
    # Every case has score 0.9 in the first run: all are called positive, and there is no gap to reduce.
    constant = simulated(score=0.9)
    found = tables(audit({"erm": [constant], "nir": [simulated()]}, ["sex"], **FAST))["sex"]["fate"]["nir"]
    assert math.isnan(found["equalized_odds@0.5"]["value"])
    assert found["equalized_odds@0.5"]["reason"] == "the baseline or its gap is 0 or undefined"


def test_groups_too_small_for_an_interval_are_not_tested(simulated: Make, tables: Tables) -> None:
    runs = {"erm": [simulated()], "nir": [simulated(3)]}
    table = tables(audit(runs, ["sex"], min_count=300, **FAST))["sex"]
    for change in table["groups"][0]["differences"]["nir"].values():
        assert math.isnan(change["p"])
        assert math.isnan(change["cases"]["low"])
        assert change["test"] == ""
    assert not math.isnan(table["groups"][0]["differences"]["nir"]["auc"]["value"])
    gap = table["gap_differences"]["nir"]["auc"]
    assert math.isnan(gap["value"])
    assert gap["reason"] == "undefined in one of the runs"


@pytest.mark.parametrize("constant", [0.1, 0.3, 0.7, 2 / 3, 0.9])
def test_what_does_not_vary_correlates_with_nothing(constant: float) -> None:
    """The mean of 100 equal numbers may be a bit off, and that bit used to correlate with the other run by 1 or -1."""
    varying = np.random.default_rng(0).random((100, 1))
    same = np.full((100, 1), constant)
    assert _correlation(same, varying) == _correlation(varying, same) == 0
    assert _correlation(varying, 1 - varying) == pytest.approx(-1)


def test_of_equal_groups_none_comes_first() -> None:
    """Accuracies of 1 in two groups are common; the interval used to depend on which of them was named first."""
    # the third group varies with the first, and is within a standard error of the second alone
    noise = np.random.default_rng(0).standard_normal((500, 2))
    value, error = (
        np.array([1.0, 1.0, 0.8, 0.2]),
        np.stack([noise[:, 0], noise[:, 1], noise[:, 0], noise[:, 0]], axis=1),
    )
    error *= 0.2
    assert _may_be_top(value, error).tolist() == [True, True, True, False]
    for order in map(list, permutations(range(4))):
        np.testing.assert_array_equal(_may_be_top(value[order], error[:, order]), _may_be_top(value, error)[order])
