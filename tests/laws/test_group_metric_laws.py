from typing import Any

import numpy as np
import pandas as pd
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st

from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import METRICS, auc_by_group, audit, confusion_counts, group_gap, group_values, placements, rate
from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.gaps import gaps_of_groupings

LAWS = settings(max_examples=25, deadline=None)
# Every example is two whole audits; shrinking them would take minutes and tell little.
AUDITS = settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
GROUPS = 3


@st.composite
def samples(draw: st.DrawFn) -> tuple[BoolArray, FloatArray, IntArray]:
    """A few samples with ties, groups of any size, and samples of no group."""
    n = draw(st.integers(1, 60))
    y = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    score = draw(st.lists(st.sampled_from([0.05, 0.15, 0.35, 0.65, 0.95]), min_size=n, max_size=n))
    group = draw(st.lists(st.integers(-1, GROUPS - 1), min_size=n, max_size=n))
    return np.array(y), np.array(score), np.array(group)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """A table of predictions with groups of any size, ties, one-class groups and missing values."""
    n = draw(st.integers(6, 40))
    column = st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=n, max_size=n)
    return pd.DataFrame(
        {
            "subject_id": [f"s{i:02d}" for i in range(n)],
            "image": "x.png",
            "split": [*draw(st.lists(st.sampled_from(["val", "test"]), min_size=n - 1, max_size=n - 1)), "test"],
            "label": draw(st.lists(st.sampled_from(["0", "1"]), min_size=n, max_size=n)),
            "score": draw(st.lists(st.sampled_from(["0.1", "0.5", "0.50001", "0.9"]), min_size=n, max_size=n)),
            "sex": draw(column),
            "site": draw(column),
        }
    )


def run(table: pd.DataFrame) -> dict[str, Any]:
    found = check_predictions(table.reset_index(drop=True), "p.csv")
    return audit({"erm": [found]}, ["sex", "site"], min_count=1, permutations=20, resamples=100)


@AUDITS
@given(tables(), st.sampled_from(["0 first", "z last"]), st.integers(1, 5))
def test_a_group_of_negatives_changes_no_value_it_has_no_part_in(table: pd.DataFrame, name: str, count: int) -> None:
    # The new site's cases have no sex; they bring a site to gaps of what negatives define, and nothing to others.
    extra = {"image": "x.png", "split": "test", "label": "0", "score": "0.9", "sex": "", "site": name}
    rows = pd.DataFrame([{"subject_id": f"new{i}", **extra} for i in range(count)])
    before, after = (run(part)["targets"][0]["tables"] for part in (table, pd.concat([table, rows])))
    for known, found in zip(before, after, strict=True):
        cells = {row["name"]: row["cells"]["erm"] for row in found["groups"]}
        for row in known["groups"]:
            for key, cell in row["cells"]["erm"].items():
                same = ["value", "n", "reason", "by_seed"]
                # subjects get other weights in resamples when there are more of them
                same += ["low", "high", "interval_reason"] if "resampling" not in cell["method"] else []
                assert str([cells[row["name"]][key][part] for part in same]) == str([cell[part] for part in same])
        for key, gap in known["gaps"]["erm"].items():
            out = [entry["group"] for entry in found["gaps"]["erm"][key]["left_out"]]
            # equalized odds take the FPR of the new site, and leave out its TPR
            if found["name"] == "site" and (name not in out or key.startswith("equalized_odds")):
                continue
            for part in ("value", "by_seed", "groups_compared"):
                assert str(found["gaps"]["erm"][key][part]) == str(gap[part]), (found["name"], key)


@LAWS
@given(samples())
def test_flipping_scores_and_labels_mirrors_the_metrics(drawn: tuple[BoolArray, FloatArray, IntArray]) -> None:
    y, score, group = drawn
    auc, error = auc_by_group(y, placements(y, score, group), group, GROUPS)
    mirrored = auc_by_group(~y, placements(~y, -score, group), group, GROUPS)
    np.testing.assert_allclose(mirrored, (auc, error), atol=1e-12)
    counts = confusion_counts(y, score > 0.5, group, GROUPS)
    other = confusion_counts(~y, score <= 0.5, group, GROUPS)
    np.testing.assert_array_equal(rate("tpr", counts), rate("tnr", other))
    pairs = {"auc": "auc", "tpr": "tnr", "tnr": "tpr", "ppv": "npv", "npv": "ppv", "accuracy": "accuracy"}
    pairs |= {"balanced_accuracy": "balanced_accuracy", "brier": "brier", "ece": "ece"}
    pairs |= {"calibration_slope": "calibration_slope"}
    for name, mirror in pairs.items():
        values = group_values(name, y, score, group, GROUPS)
        flipped = group_values(mirror, ~y, 1 - score, group, GROUPS)
        np.testing.assert_allclose(flipped, values, rtol=1e-6, atol=1e-9, err_msg=name)
    intercept = group_values("calibration_intercept", y, score, group, GROUPS)
    np.testing.assert_allclose(
        group_values("calibration_intercept", ~y, 1 - score, group, GROUPS), -intercept, rtol=1e-6, atol=1e-9
    )
    for name, mirror in (("selection_rate", "selection_rate"), ("fpr", "tpr")):
        values = group_values(name, y, score, group, GROUPS)
        np.testing.assert_allclose(group_values(mirror, ~y, 1 - score, group, GROUPS), 1 - values, atol=1e-12)


@LAWS
@given(samples(), st.data())
def test_weights_of_whole_numbers_are_repeated_rows(
    drawn: tuple[BoolArray, FloatArray, IntArray], data: st.DataObject
) -> None:
    y, score, group = drawn
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=y.size, max_size=y.size)))
    assume(times.sum() > 0)
    repeated = (np.repeat(part, times) for part in (y, score, group))
    many = tuple(repeated)
    for name in METRICS:
        weighted = group_values(name, y, score, group, GROUPS, sample_weight=times.astype(float))
        np.testing.assert_allclose(weighted, group_values(name, *many, GROUPS), rtol=1e-6, atol=1e-9, err_msg=name)


@LAWS
@given(samples(), st.permutations(range(GROUPS)), st.randoms(use_true_random=False))
def test_order_of_rows_and_codes_of_groups_change_no_metric(
    drawn: tuple[BoolArray, FloatArray, IntArray], codes: list[int], random: Any
) -> None:
    y, score, group = drawn
    order = list(range(y.size))
    random.shuffle(order)
    renamed = np.append(codes, -1)[group]
    for name in METRICS:
        values = group_values(name, y, score, group, GROUPS)
        other = group_values(name, y[order], score[order], renamed[order], GROUPS)
        np.testing.assert_allclose(other[codes], values, rtol=1e-9, atol=1e-12, err_msg=name)


@LAWS
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.integers(0, 6))
def test_a_nan_group_never_changes_the_gap(values: list[float], position: int) -> None:
    array = np.array(values)
    with_nan = np.insert(array, min(position, len(array)), np.nan)
    expected = group_gap(array, np.ones(len(array), bool))
    assert group_gap(with_nan, ~np.isnan(with_nan)) == expected
    found = gaps_of_groupings(with_nan[None], ~np.isnan(with_nan)[None], np.array([0]))
    assert found.tolist() == [[float(expected)]]
