"""Curves, falls, early windows and families of comparisons: by hand, against SciPy, and where one is undefined."""

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import mannwhitneyu

from monai_fair.errors import MonaiFairError
from monai_fair.metrics.collapse_comparisons import (
    compare_families,
    epoch_curves,
    falls,
    undefined_curves,
    window_values,
)
from monai_fair.multiplicity import holm

NAN = float("nan")
FALL = {
    "clean": {"0": [8.0, 4.0, 2.0, 1.0], "1": [6.0, 6.0, 2.0, 2.0]},
    "biased": {"0": [8.0, 8.0, 8.0, 2.0], "1": [9.0, 9.0, 3.0, 3.0]},
}
CELL = ["experiment", "checkpoint", "measure", "group"]


def epochs(
    curves: dict[str, dict[str, list[float]]] = FALL,
    *,
    measure: str = "nc1_normalized",
    part: str = "train",
    group: str = "",
    experiment: str = "skin: sex",
    reason: str = "coincide",
) -> pd.DataFrame:
    """A row per arm, seed and epoch, epochs from 1."""
    rows = [
        {"experiment": experiment, "arm": arm, "seed": seed, "epoch": epoch, "part": part, "measure": measure,
         "group": group, "value": value, "reason": reason if np.isnan(value) else "", "n": 30, "n_positive": 12}
        for arm, runs in curves.items() for seed, values in runs.items() for epoch, value in enumerate(values, start=1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def trainings(early: dict[str, list[int]], experiment: str = "skin: sex") -> pd.DataFrame:
    rows = [
        {"experiment": experiment, "arm": arm, "seed": str(seed), "early": epoch}
        for arm, kept in early.items()
        for seed, epoch in enumerate(kept)
    ]
    return pd.DataFrame(rows)


def test_curves_by_hand() -> None:
    found = epoch_curves(epochs())
    assert list(found) == ["experiment", "arm", "part", "group", "measure", "epoch", "mean", "sd", "n"]
    assert found["arm"].tolist() == ["clean"] * 4 + ["biased"] * 4
    assert found["epoch"].tolist() == [1, 2, 3, 4] * 2
    # clean: (8, 6), (4, 6), (2, 2), (1, 2); of two values sd is their distance over sqrt 2
    assert found["mean"].tolist()[:4] == [7, 5, 2, 1.5]
    assert found["sd"].tolist()[:4] == pytest.approx([2 / np.sqrt(2), 2 / np.sqrt(2), 0, 1 / np.sqrt(2)])
    assert found["n"].tolist() == [2] * 8


def test_epochs_that_a_seed_lacks_are_no_part_of_its_arm() -> None:
    """The other arm keeps them; and values that are NaN count in n."""
    curves = {"clean": {"0": [8.0, 4.0, 2.0], "1": [6.0, NAN]}, "biased": {"0": [1.0, 2.0, NAN], "1": [3.0, 4.0, NAN]}}
    found = epoch_curves(epochs(curves))
    clean, biased = (found[found["arm"] == arm] for arm in ("clean", "biased"))
    assert clean["epoch"].tolist() == [1, 2]
    assert clean["mean"].tolist() == [7, 4]
    assert clean["n"].tolist() == [2, 1]
    assert np.isnan(clean["sd"].iloc[1])
    assert biased["n"].tolist() == [2, 2, 0]
    assert np.isnan(biased["mean"].iloc[2])


def test_curves_of_parts_groups_measures_and_experiments_are_apart() -> None:
    """Each is its own, in order of appearance, whatever the order of epochs."""
    keys = list(product(("skin: sex", "skin: age"), ("train", "test"), ("", "female"), ("nc1_pinv", "error")))
    tables = [
        epochs({"clean": {"0": [float(i), i + 0.5]}}, experiment=name, part=part, group=group, measure=measure)
        for i, (name, part, group, measure) in enumerate(keys)
    ]
    found = epoch_curves(pd.concat(tables).iloc[::-1])
    starts = {
        tuple(row): mean
        for *row, epoch, mean in found[["experiment", "part", "group", "measure", "epoch", "mean"]].itertuples(
            index=False
        )
        if epoch == 1
    }
    assert starts == {key: float(i) for i, key in enumerate(keys)}
    assert found["epoch"].tolist() == [1, 2] * len(keys)


def test_curves_without_any_value_are_counted_with_their_reason() -> None:
    table = pd.concat([
        epochs(),
        epochs({"clean": {"0": [NAN, NAN]}, "biased": {"0": [NAN, NAN]}}, measure="nc2_equinorm", reason="two classes"),
        epochs({"clean": {"0": [NAN, 1.0]}}, measure="nc3_cosine", reason="a mean is 0"),
        epochs({"clean": {"0": [NAN, NAN]}}, measure="nc2_cosine", part="test", reason="a mean is 0"),
    ])  # fmt: skip
    found = undefined_curves(table)
    assert found.to_dict("records") == [
        {"measure": "nc2_equinorm", "reason": "two classes", "n_curves": 2},
        {"measure": "nc2_cosine", "reason": "a mean is 0", "n_curves": 1},
    ]
    assert undefined_curves(epochs()).empty


def test_falls_by_hand() -> None:
    table = pd.concat([
        epochs({
            "clean": {"0": [4.0, 8.0, 2.0], "1": [3.0, 1.0, 0.0]},
            "biased": {"0": [NAN, 6.0, 1.5], "1": [6.0, 1.0, NAN]},
        }),
        epochs(part="test"), epochs(group="female"), epochs(measure="error"),
    ])  # fmt: skip
    found = falls(table.sample(frac=1, random_state=0)).sort_values(["arm", "seed"], ascending=[False, True])
    assert found[["experiment", "arm", "measure", "seed"]].to_numpy().tolist() == [
        ["skin: sex", arm, "nc1_normalized", seed] for arm in ("clean", "biased") for seed in ("0", "1")
    ]
    assert found["max"].tolist() == [8, 3, 6, 6]
    assert found["last"].tolist()[:3] == [2, 0, 1.5]
    assert found["ratio"].tolist()[::2] == [4, 4]
    assert np.isnan(found[["last", "ratio"]].iloc[3]).all()
    assert np.isnan(found["ratio"].iloc[1])
    assert found["reason"].tolist() == ["", "it is 0 in the last epoch", "", "coincide"]


def test_windows_by_hand() -> None:
    # early epochs 1, 2, 2 and 4: their median is 2. Means over epochs 1 and 2; half of the maxima is 4, 3, 4 and 4.5
    found = window_values(epochs(), trainings({"clean": [1, 2], "biased": [2, 4]}))
    means = found[found["measure"] == "mean_nc1_normalized"]
    assert means["value"].tolist() == [6, 6, 8, 9]
    half = found[found["measure"] == "epochs_to_half"]
    assert half["value"].tolist() == [2, 3, 4, 3]
    assert set(found["until"]) == {2.0}
    assert set(found["checkpoint"]) == {"window"}
    assert (set(found["part"]), set(found["group"]), set(found["reason"])) == ({"train"}, {""}, {""})
    assert found[["n", "n_positive"]].drop_duplicates().to_numpy().tolist() == [[30, 12]]
    distance = window_values(epochs(measure="nc1_distance"), trainings({"clean": [1, 1], "biased": [1, 2]}))
    assert distance["measure"].unique().tolist() == ["mean_nc1_distance"]
    assert distance["value"].tolist() == [8, 6, 8, 9]


def test_the_way_to_half_begins_at_the_maximum() -> None:
    """What is low before the rise, as from nearly equal features, has not fallen."""
    found = window_values(epochs({"clean": {"0": [1.0, 8.0, 5.0, 4.0]}}), trainings({"clean": [3]}))
    assert found.set_index("measure")["value"].to_dict() == {
        "mean_nc1_normalized": pytest.approx(14 / 3),
        "epochs_to_half": 4,
    }


@pytest.mark.parametrize(
    ("values", "early", "mean", "half"),
    [
        ([8.0, 7.0, 5.0], 2, "", "above half of its maximum up to epoch 3, the last"),
        ([8.0, NAN, 1.0], 1, "", "undefined in 1 of 3 epochs: coincide"),
        ([8.0, NAN, 1.0], 2, "undefined in 1 of 2 epochs: coincide", "undefined in 1 of 3 epochs: coincide"),
        ([8.0, 4.0], 0.5, "no epoch up to 0.5 was measured", ""),
    ],
)
def test_windows_that_are_undefined_say_why(values: list[float], early: int, mean: str, half: str) -> None:
    found = window_values(epochs({"clean": {"0": values}}), trainings({"clean": [early]})).set_index("measure")
    reasons = {"mean_nc1_normalized": mean, "epochs_to_half": half}
    assert found["reason"].to_dict() == reasons
    assert found["value"].isna().to_dict() == {name: bool(reason) for name, reason in reasons.items()}


def test_windows_of_experiments_have_their_own_end() -> None:
    both = pd.concat([epochs(), epochs(experiment="skin: age")])
    early = pd.concat([
        trainings({"clean": [1, 1], "biased": [1, 1]}), trainings({"clean": [4, 4], "biased": [4, 4]}, "skin: age"),
    ])  # fmt: skip
    found = window_values(both, early)
    means = found[found["measure"] == "mean_nc1_normalized"].groupby("experiment", sort=False)["value"].agg(list)
    assert means.to_dict() == {"skin: sex": [8, 6, 8, 9], "skin: age": [3.75, 4, 6.5, 6]}


def study(seeds: int = 5) -> pd.DataFrame:
    """Two checkpoints of two experiments; values of no order."""
    rng = np.random.default_rng(3)
    keys = product(("skin: sex", "skin: age"), ("early", "final"), ("f1", "nc1_distance"), ("", "a", "b"))
    return pd.DataFrame([
        {"experiment": experiment, "checkpoint": checkpoint, "part": "test", "measure": measure, "group": group,
         "arm": arm, "seed": str(seed), "value": rng.normal() + (arm == "biased"), "reason": "",
         "n": 40 if group else 80, "n_positive": 10 if arm == "clean" else 7}
        for experiment, checkpoint, measure, group in keys for arm in ("clean", "biased") for seed in range(seeds)
    ])  # fmt: skip


def test_families_are_compared_and_adjusted_by_checkpoint() -> None:
    table = study()
    found = compare_families(table)
    assert len(found) == 24
    assert found["checkpoint"].tolist() == ["early"] * 12 + ["final"] * 12
    for row in found.to_dict("records"):
        own = table[table[CELL].eq([row[name] for name in CELL]).all(axis=1)]
        clean, biased = (own.loc[own["arm"] == arm, "value"] for arm in ("clean", "biased"))
        assert row["difference"] == pytest.approx(biased.mean() - clean.mean())
        assert row["p"] == pytest.approx(mannwhitneyu(biased, clean, method="exact").pvalue)
        assert (row["group_n"], row["group_n_positive"]) == (40 if row["group"] else 80, 10)
    for _, family in found.groupby("checkpoint"):
        np.testing.assert_allclose(family["p_holm"], holm(family["p"]), rtol=1e-12)
    assert found["reason"].eq("").all()


def test_options_reach_every_comparison() -> None:
    found = compare_families(study(), alternative="greater", confidence=0.5)
    both = compare_families(study())
    assert (found["p_smallest"] * 2).tolist() == pytest.approx(both["p_smallest"].tolist())
    assert ((found["high"] - found["low"]) < (both["high"] - both["low"])).all()


def test_what_is_undefined_says_what_the_values_say() -> None:
    table = study()
    hit = (table["measure"] == "f1") & (table["group"] == "a") & (table["experiment"] == "skin: sex")
    lost = hit & (table["checkpoint"] == "early") & table["seed"].isin(["1", "3"]) & (table["arm"] == "biased")
    table.loc[lost, ["value", "reason"]] = [NAN, "no positive label or prediction in this group"]
    found = compare_families(table)
    broken = found[found["reason"] != ""]
    assert broken["reason"].tolist() == [
        "undefined in 2 of 5 seeds of the later arm: no positive label or prediction in this group"
    ]
    assert broken[["difference", "p", "p_holm"]].isna().all(axis=None)
    gone = table[~(hit & (table["arm"] == "clean") & (table["checkpoint"] == "final"))]
    rows = compare_families(gone)
    without = rows[rows["reason"].str.startswith("no seed")]
    assert without["reason"].tolist() == ["no seed in the first arm"]
    assert without["group_n"].isna().all()


def test_an_arm_that_is_not_there() -> None:
    with pytest.raises(MonaiFairError, match="expected rows of the arm 'biased', found clean"):
        compare_families(study().query("arm == 'clean'"))


def test_the_order_of_rows_changes_no_number() -> None:
    def numbers(table: pd.DataFrame) -> list[Any]:
        curves, window = epoch_curves(table), window_values(table, trainings({"clean": [1, 2], "biased": [2, 4]}))
        return [curves.sort_values(list(curves)), falls(table), window.sort_values(list(window))]

    table = epochs()
    for one, other in zip(numbers(table), numbers(table.sample(frac=1, random_state=5)), strict=True):
        keys = [name for name in one if name not in ("mean", "sd", "value")]
        left, right = (each.sort_values(keys, ignore_index=True) for each in (one, other))
        pd.testing.assert_frame_equal(left, right, rtol=1e-12)
