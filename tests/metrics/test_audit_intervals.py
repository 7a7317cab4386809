import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, t
from sklearn.linear_model import LogisticRegression

from monai_fair.data.predictions import Predictions
from monai_fair.metrics import audit
from monai_fair.metrics.arrays import FloatArray

Make = Callable[..., Predictions]
Tables = Callable[..., dict[str, Any]]
FAST: dict[str, Any] = {"permutations": 20, "resamples": 100, "thresholds": ["0.5"]}


def first_row(results: dict[str, Any], tables: Tables) -> dict[str, Any]:
    row: dict[str, Any] = tables(results)["sex"]["groups"][0]
    return row


def of_women(found: Predictions) -> tuple[FloatArray, FloatArray]:
    rows = found.table[(found.table["split"] == "test") & (found.table["sex"] == "f")]
    return rows["label"].to_numpy(float), rows["score"].to_numpy(float)


def test_rates_and_prevalence_have_wilsons_interval(simulated: Make, tables: Tables) -> None:
    row = first_row(audit({"erm": [simulated()]}, ["sex"], confidence=0.9, **FAST), tables)
    y, score = of_women(simulated())
    hit = score >= 0.5
    expected = {
        "ppv": (y[hit].sum(), hit.sum()),
        "npv": ((1 - y)[~hit].sum(), (~hit).sum()),
        "tnr": ((1 - y)[~hit].sum(), (1 - y).sum()),
        "accuracy": ((hit == y).sum(), y.size),
        "selection_rate": (hit.sum(), y.size),
    }
    for name, (successes, trials) in expected.items():
        cell = row["cells"]["erm"][f"{name}@0.5"]
        wilson = binomtest(int(successes), int(trials)).proportion_ci(0.9, method="wilson")
        assert (cell["low"], cell["high"]) == pytest.approx((wilson.low, wilson.high), abs=1e-12)
        assert (cell["n"], cell["method"]) == (trials, "Wilson")
    wilson = binomtest(int(y.sum()), y.size).proportion_ci(0.9, method="wilson")
    assert (row["prevalence_low"], row["prevalence_high"]) == pytest.approx((wilson.low, wilson.high), abs=1e-12)


def test_balanced_accuracy_joins_the_intervals_of_tpr_and_tnr(simulated: Make, tables: Tables) -> None:
    # MOVER for (p + q) / 2: distances to the ends add up as squares, halved.
    cells = first_row(audit({"erm": [simulated()]}, ["sex"], **FAST), tables)["cells"]["erm"]
    tpr, tnr, both = (cells[f"{name}@0.5"] for name in ("tpr", "tnr", "balanced_accuracy"))
    below = math.sqrt((tpr["value"] - tpr["low"]) ** 2 + (tnr["value"] - tnr["low"]) ** 2) / 2
    above = math.sqrt((tpr["high"] - tpr["value"]) ** 2 + (tnr["high"] - tnr["value"]) ** 2) / 2
    assert both["value"] == pytest.approx((tpr["value"] + tnr["value"]) / 2, abs=1e-12)
    assert (both["low"], both["high"]) == pytest.approx((both["value"] - below, both["value"] + above), abs=1e-12)


@pytest.mark.parametrize("name", ["calibration_intercept", "calibration_slope"])
def test_calibration_has_the_sandwich_interval(name: str, simulated: Make, tables: Tables) -> None:
    cell = first_row(audit({"erm": [simulated()]}, ["sex"], **FAST), tables)["cells"]["erm"][name]
    y, score = of_women(simulated())
    x = np.log(score / (1 - score))
    design = np.stack([np.ones(y.size), x], axis=1)
    if name == "calibration_slope":
        model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(x[:, None], y)
        fitted, target = model.predict_proba(x[:, None])[:, 1], model.coef_[0, 0]
    else:
        design, target = design[:, :1], cell["value"]
        fitted = 1 / (1 + np.exp(-target - x))
        assert fitted.sum() == pytest.approx(y.sum(), abs=1e-8)
    bread = np.linalg.inv((design * (fitted * (1 - fitted))[:, None]).T @ design)
    meat = (design * (y - fitted)[:, None]).T @ (design * (y - fitted)[:, None])
    error = math.sqrt((bread @ meat @ bread)[-1, -1])
    half = t.ppf(0.975, min(y.sum(), (1 - y).sum()) - 1) * error
    assert (cell["value"], cell["low"], cell["high"]) == pytest.approx((target, target - half, target + half), abs=1e-5)
    assert cell["method"] == "sandwich"


def test_resampled_intervals_lie_where_a_case_bootstrap_lies(simulated: Make, tables: Tables) -> None:
    cells = first_row(audit({"erm": [simulated()]}, ["sex"], **{**FAST, "resamples": 2000}), tables)["cells"]["erm"]
    y, score = of_women(simulated())
    rng, drawn = np.random.default_rng(0), []
    for _ in range(4000):
        pick = rng.integers(0, y.size, y.size)
        drawn.append(((score[pick] - y[pick]) ** 2).mean())
    ends = np.quantile(drawn, [0.025, 0.975])
    width = ends[1] - ends[0]
    # 2 % of the width is Monte Carlo error, 3 % the widening and the shift for 77 positives
    assert (cells["brier"]["low"], cells["brier"]["high"]) == pytest.approx(tuple(ends), abs=0.06 * width)
    methods = {"brier": "", "average_precision": ", on the logit scale", "f1@0.5": ", on the logit scale"}
    for name, scale in methods.items():
        cell = cells[name]
        assert cell["method"] == f"resampling of subjects{scale}"
        assert cell["low"] < cell["value"] < cell["high"]


def test_calibration_error_stands_beside_what_chance_gives(simulated: Make, tables: Tables) -> None:
    cell = first_row(audit({"erm": [simulated()]}, ["sex"], **FAST), tables)["cells"]["erm"]["ece"]
    _, score = of_women(simulated())
    drawn, rng = [], np.random.default_rng(0)
    bins = np.clip(np.ceil(score * 10 - 1e-9), 1, 10)
    for _ in range(4000):
        surplus = (rng.random(score.size) < score) - score
        drawn.append(sum(abs(surplus[bins == one].sum()) for one in range(1, 11)) / score.size)
    assert cell["by_chance"] == pytest.approx(np.mean(drawn), rel=0.05)
    assert math.isnan(cell["low"])
    assert cell["interval_reason"].startswith("it is above its true value")


def test_binned_scores_give_nearly_the_intervals_and_p_of_all_scores(
    simulated: Make, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 5,000 distinct scores, in bins and one by one, with the same weights and shuffles.
    rng = np.random.default_rng(5)
    base = simulated(n=5000, gap=0.3)
    score = np.clip(base.table["score"].to_numpy(float) + rng.uniform(-5e-4, 5e-4, 5000), 1e-4, 1 - 1e-4)
    found = simulated(n=5000, gap=0.3, score=score, split="test")
    assert np.unique(score).size == 5000
    options = {"permutations": 100, "resamples": 200, "thresholds": ["0.5"]}
    binned = audit({"erm": [found]}, ["sex"], **options)
    monkeypatch.setattr("monai_fair.metrics.kinds.kinds_of.__kwdefaults__", {"max_bins": 10**9})
    exact = audit({"erm": [found]}, ["sex"], **options)
    for one, other in zip(tables(binned)["sex"]["groups"], tables(exact)["sex"]["groups"], strict=True):
        for key in ("average_precision", "brier", "f1@0.5"):
            a, b = one["cells"]["erm"][key], other["cells"]["erm"][key]
            assert a["value"] == b["value"]
            width = b["high"] - b["low"]
            assert (a["low"], a["high"]) == pytest.approx((b["low"], b["high"]), abs=0.02 * width), key
    for key, gap in tables(binned)["sex"]["gaps"]["erm"].items():
        known = tables(exact)["sex"]["gaps"]["erm"][key]
        assert gap["value"] == known["value"]
        loose = key.startswith("calibration_")
        width = known["high"] - known["low"]
        assert (gap["low"], gap["high"]) == pytest.approx(
            (known["low"], known["high"]), abs=(0.15 if loose else 0.02) * width
        ), key
        assert gap["chance"] == pytest.approx(known["chance"], rel=0.05 if loose else 0.03), key
        assert gap["p"] == pytest.approx(known["p"], abs=0.1 if loose else 0.031), key
