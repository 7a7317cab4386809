"""Means over seeds, the SPLIT test beside separability and its changes: by hand, against SciPy, and undefined."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, wilcoxon

from monai_fair.metrics.seed_summaries import (
    seed_means,
    split_agreements,
    split_changes,
    split_points,
    why_undefined,
)
from monai_fair.multiplicity import holm

NAN = float("nan")


def values(cells: dict[str, list[float]], reason: str = "no such level") -> pd.DataFrame:
    return pd.DataFrame([
        {"cell": cell, "seed": str(seed), "value": value, "reason": reason if np.isnan(value) else ""}
        for cell, numbers in cells.items() for seed, value in enumerate(numbers)
    ])  # fmt: skip


def test_means_by_hand() -> None:
    found = seed_means(values({"b": [1.0, 2.0, 6.0], "a": [4.0], "c": [1.0, NAN, NAN]}), ["cell"])
    assert found["cell"].tolist() == ["b", "a", "c"]
    # squares around 3: 4 + 1 + 9 = 14, over 2
    assert found.loc[0, ["mean", "sd", "n"]].tolist() == [3, pytest.approx(np.sqrt(7)), 3]
    assert (found.loc[1, "mean"], found.loc[1, "n"]) == (4, 1)
    assert found["sd_reason"].tolist() == [
        "", "one seed: the spread over seeds is unknown", "undefined in 2 of 3 seeds: no such level"
    ]  # fmt: skip
    assert found["reason"].tolist() == ["", "", "undefined in 2 of 3 seeds: no such level"]
    assert np.isnan(found.loc[2, ["mean", "sd"]].tolist()).all()
    assert np.isnan(found.loc[1, "sd"])


def test_no_row_gives_an_empty_table() -> None:
    found = seed_means(values({"a": [1.0]}).iloc[:0], ["cell"])
    assert (len(found), list(found)) == (0, ["cell", "mean", "sd", "n", "reason", "sd_reason"])


def test_reasons_are_told_once_and_may_be_absent() -> None:
    lost = pd.Series([NAN, NAN, 1.0, NAN])
    assert why_undefined(lost, pd.Series(["x", "y", "", "x"])) == "undefined in 3 of 4 seeds: x; y"
    assert why_undefined(lost, pd.Series(["", "", "", ""]), "epochs") == "undefined in 3 of 4 epochs"
    assert why_undefined(pd.Series([1.0]), pd.Series([""])) == ""


def study(seeds: int = 6, experiments: int = 4) -> tuple[pd.DataFrame, pd.DataFrame]:
    """AUC of the SPLIT test falls in the biased arm; separability differs between experiments."""
    rng = np.random.default_rng(1)
    split = pd.DataFrame([
        {"experiment": f"e{e}", "arm": arm, "seed": str(seed), "checkpoint": checkpoint, "reason": "",
         "value": 0.6 + 0.05 * e + 0.02 * rng.normal() - 0.1 * (arm == "biased") * (checkpoint == "final")}
        for e in range(experiments) for arm in ("clean", "biased") for checkpoint in ("early", "final")
        for seed in range(seeds)
    ])  # fmt: skip
    told = pd.DataFrame([
        {"experiment": f"e{e}", "seed": str(seed), "value": 0.9 - 0.05 * e + 0.01 * rng.normal(), "reason": ""}
        for e in range(experiments) for seed in range(seeds)
    ])  # fmt: skip
    return split, told


def test_points_and_agreement() -> None:
    split, told = study()
    points = split_points(split, told)
    assert len(points) == 16
    row = points.set_index(["experiment", "arm", "checkpoint"]).loc[("e2", "biased", "final")]
    own = split.query("experiment == 'e2' and arm == 'biased' and checkpoint == 'final'")["value"]
    other = told.query("experiment == 'e2'")["value"]
    assert row[["split_mean", "split_sd"]].tolist() == pytest.approx([own.mean(), own.std()])
    assert row[["separability_mean", "separability_sd"]].tolist() == pytest.approx([other.mean(), other.std()])
    assert row[["n", "separability_n", "reason"]].tolist() == [6, 6, ""]
    agreements = split_agreements(points)
    assert agreements[["arm", "checkpoint"]].to_numpy().tolist() == [
        [arm, checkpoint] for arm in ("clean", "biased") for checkpoint in ("early", "final")
    ]
    for row in agreements.to_dict("records"):
        own = points[(points["arm"] == row["arm"]) & (points["checkpoint"] == row["checkpoint"])]
        wanted = kendalltau(own["separability_mean"], own["split_mean"], method="exact")
        assert (row["tau"], row["p"], row["n"]) == pytest.approx((wanted.statistic, wanted.pvalue, 4))
    assert agreements["tau"].iloc[0] == -1  # the orders are opposed, and so are the means of six seeds


def test_points_that_are_undefined_say_of_which() -> None:
    split, told = study(seeds=2, experiments=2)
    split.loc[0, ["value", "reason"]] = [NAN, "no row of male"]
    told.loc[1, ["value", "reason"]] = [NAN, "no sample of one of the levels"]
    points = split_points(split, told)
    assert points["reason"].iloc[0] == (
        "SPLIT test undefined in 1 of 2 seeds: no row of male; "
        "separability undefined in 1 of 2 seeds: no sample of one of the levels"
    )
    assert points["reason"].iloc[1] == "separability undefined in 1 of 2 seeds: no sample of one of the levels"
    assert points["reason"].iloc[-1] == ""
    assert split_agreements(points)["reason"].tolist() == ["undefined in 1 of 2 experiments"] * 4


def test_changes_are_paired_by_seed() -> None:
    split, _ = study()
    found = split_changes(split, confidence=0.9)
    shuffled = split_changes(split.sample(frac=1, random_state=2), confidence=0.9)
    again = found[["experiment", "arm"]].merge(shuffled)
    pd.testing.assert_frame_equal(again, found, rtol=1e-12)
    for row in found.to_dict("records"):
        own = split[(split["experiment"] == row["experiment"]) & (split["arm"] == row["arm"])]
        early, final = (own.loc[own["checkpoint"] == name, "value"].to_numpy() for name in ("early", "final"))
        assert (row["mean_early"], row["mean_final"]) == pytest.approx((early.mean(), final.mean()))
        assert row["difference"] == pytest.approx((final - early).mean())
        assert row["p"] == pytest.approx(wilcoxon(final - early, method="exact").pvalue)
        assert (row["n"], row["p_smallest"]) == (6, 2 / 64)
    np.testing.assert_allclose(found["p_holm"], holm(found["p"]))
    assert found["p"].tolist()[1::2] == [2 / 64] * 4  # all seeds of the biased arm fall


def test_changes_that_are_undefined_say_why() -> None:
    split, _ = study(seeds=3, experiments=1)
    split.loc[(split["seed"] == "1") & (split["arm"] == "clean"), ["value", "reason"]] = [NAN, "no row of male"]
    clean, biased = split_changes(split).to_dict("records")
    assert clean["reason"] == (
        "early undefined in 1 of 3 seeds: no row of male; final undefined in 1 of 3 seeds: no row of male"
    )
    assert np.isnan([clean["difference"], clean["p"], clean["p_holm"]]).all()
    assert (biased["reason"], biased["p_holm"]) == ("", biased["p"])
