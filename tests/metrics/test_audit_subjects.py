"""Promise M6: images of one subject are one draw, so that copies of images make nothing surer."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monai_fair.data.predictions import Predictions, check_predictions
from monai_fair.metrics import audit

Make = Callable[..., Predictions]
FAST: dict[str, Any] = {"permutations": 30, "resamples": 100, "min_count": 8, "thresholds": ["youden", "0.5"]}
COUNTS = {"n", "n_positive", "n_negative", "by_chance"}


def copied(found: Predictions, copies: int) -> Predictions:
    """Every image of every subject several times; validation, where thresholds are chosen, too."""
    parts = [found.table.assign(image=found.table["image"] + f" copy {k}") for k in range(copies)]
    return check_predictions(pd.concat(parts, ignore_index=True).astype(str), "p.csv")


def compare(once: Any, often: Any, path: tuple[Any, ...] = ()) -> int:
    """Assert that all but counts is the same; return how many numbers were compared."""
    if isinstance(once, dict):
        assert once.keys() == often.keys()
        return sum(compare(once[key], often[key], (*path, key)) for key in once if key not in COUNTS)
    if isinstance(once, list):
        assert len(once) == len(often), path
        return sum(compare(a, b, (*path, i)) for i, (a, b) in enumerate(zip(once, often, strict=True)))
    if isinstance(once, float) and not math.isnan(once):
        # weights of resamples are float32; rates get more length once images repeat, the more the fewer the subjects
        outwards = {"low": once - often, "high": often - once}.get(str(path[-1]), 0.0)
        assert outwards > 0 or often == pytest.approx(once, rel=1e-5, abs=1e-5), path
        return 1
    if isinstance(once, str) or once is None:
        # "fewer than 8 positives" becomes "fewer than 8 subjects with a positive"
        assert (once is None) == (often is None), path
    return 0


@pytest.mark.parametrize("copies", [2, 3])
def test_copies_of_images_shorten_no_interval_and_change_no_p(copies: int, simulated: Make) -> None:
    runs = {"erm": [simulated(n=300, gap=0.5)], "nir": [simulated(3, n=300)]}
    often = {name: [copied(found[0], copies)] for name, found in runs.items()}
    one, many = (audit(part, ["sex", "site"], **FAST)["targets"][0] for part in (runs, often))
    assert compare(one["tables"], many["tables"]) > 5000
    assert compare(one["overall"], many["overall"]) > 500


def several(images: int, seed: int = 0, *, spread: float = 0.02) -> pd.DataFrame:
    """Subjects with that many images, all of one truth, and scores that differ a little."""
    rng = np.random.default_rng(seed)
    label = np.tile([0, 1], 60)
    score = 1 / (1 + np.exp(1 - 2 * label - 1.5 * rng.normal(size=120)))
    table = pd.DataFrame(
        {"subject_id": [f"s{i}" for i in range(120)], "label": label, "sex": rng.choice(["f", "m"], 120)}
    )
    parts = [
        table.assign(image=f"{k}.png", score=np.clip(score + spread * k * rng.normal(size=120), 0.001, 0.999))
        for k in range(images)
    ]
    return pd.concat(parts, ignore_index=True).assign(split="test").astype(str)


def cells(table: pd.DataFrame, group: int = 0) -> dict[str, Any]:
    results = audit({"erm": [check_predictions(table, "p.csv")]}, ["sex"], **{**FAST, "thresholds": ["0.5"]})
    found: dict[str, Any] = results["targets"][0]["tables"][0]["groups"][group]["cells"]["erm"]
    return found


def test_like_images_of_a_subject_shrink_no_interval_by_much() -> None:
    alone, like = cells(several(1)), cells(several(6))
    for key, cell in alone.items():
        if math.isnan(cell["low"]):
            continue
        width, other = cell["high"] - cell["low"], like[key]["high"] - like[key]["low"]
        # independent images would divide it by sqrt(6)
        assert other > 0.8 * width, key


def test_groups_are_counted_by_subject() -> None:
    # Five women with a positive image each have four copies of it: they stay five.
    table = several(4, spread=0.0)
    few = (table["sex"] == "f") & (table["label"] == "1")
    keep = sorted(set(table.loc[few, "subject_id"]))[:5]
    results = audit(
        {"erm": [check_predictions(table[~few | table["subject_id"].isin(keep)].reset_index(drop=True), "p.csv")]},
        ["sex"],
        **FAST,
    )
    table_of_sex = results["targets"][0]["tables"][0]
    row = table_of_sex["groups"][0]
    assert (row["n_positive"], row["n_subjects"]) == (20, 5 + row["n_negative"] // 4)
    reason = "fewer than 8 subjects with a positive in this group"
    assert row["cells"]["erm"]["auc"]["interval_reason"] == reason
    assert table_of_sex["gaps"]["erm"]["tpr@0.5"]["left_out"] == [{"group": "f", "reason": reason}]


def test_p_of_groups_that_hold_the_same_is_one(simulated: Make) -> None:
    base = simulated(n=150, sex="f", split="test").table
    other = base.assign(sex="m", subject_id="m" + base["subject_id"])
    both = check_predictions(pd.concat([base, other], ignore_index=True).astype(str), "p.csv")
    table = audit({"erm": [both]}, ["sex"], **{**FAST, "thresholds": ["0.5"]})["targets"][0]["tables"][0]
    for key, gap in table["gaps"]["erm"].items():
        assert gap["value"] == pytest.approx(0, abs=1e-12), key
        assert gap["p"] == gap["p_holm"] == 1.0, key
