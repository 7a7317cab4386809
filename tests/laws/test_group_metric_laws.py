from random import Random
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import auc_by_group, audit, confusion_counts, group_gap, placements, rate

LAWS = settings(max_examples=25, deadline=None)


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


def run(table: pd.DataFrame, **options: Any) -> dict[str, Any]:
    found = check_predictions(table.reset_index(drop=True), "p.csv")
    return audit({"erm": [found]}, ["sex", "site"], min_count=1, permutations=20, **options)


def numbers(results: dict[str, Any], *, names: dict[str, str] | None = None, holm: bool = True) -> dict[Any, str]:
    """Every number of the result by what it is about, with groups renamed back."""
    back = names or {}
    target = results["targets"][0]
    found = {("thresholds",): str(target["thresholds"]), ("overall",): str(target["overall"]["cells"])}
    for table in target["tables"]:
        for row in table["groups"]:
            key = tuple(back.get(level, level) for level in row["levels"])
            found[table["name"], key] = str((row["n"], row["n_positive"], row["cells"], row["roc"]))
        for quantity, gap in table["gaps"]["erm"].items():
            kept = ["value", "by_seed", "chance", "chance_high", "p", "groups_compared", "reason"] + ["p_holm"] * holm
            found[table["name"], quantity] = str({key: gap[key] for key in kept})
    return found


@LAWS
@given(tables(), st.randoms(use_true_random=False))
def test_row_order_changes_nothing(table: pd.DataFrame, random: Random) -> None:
    order = list(range(len(table)))
    random.shuffle(order)
    assert str(run(table)) == str(run(table.iloc[order]))


@LAWS
@given(tables(), st.permutations(["a", "b", "c"]), st.sampled_from(["drop", "group"]))
def test_group_names_change_nothing(table: pd.DataFrame, renamed: list[str], missing: str) -> None:
    forward = dict(zip("abc", renamed, strict=True))
    other = table.assign(**{name: table[name].map({**forward, "": ""}) for name in ("sex", "site")})
    back = {new: old for old, new in forward.items()}
    assert numbers(run(table, missing=missing)) == numbers(run(other, missing=missing), names=back)


@LAWS
@given(tables(), st.sampled_from(["0 first", "z last"]), st.integers(1, 5))
def test_a_group_of_negatives_changes_no_other_number(table: pd.DataFrame, name: str, count: int) -> None:
    # Negatives of a new site bring nothing to TPR and AUC gaps; they are a new group only for the FPR.
    extra = pd.DataFrame(
        {
            "subject_id": [f"new{i}" for i in range(count)],
            "image": "x.png",
            "split": "test",
            "label": "0",
            "score": "0.9",
            "sex": "",
            "site": name,
        }
    )
    results = run(table), run(pd.concat([table, extra]))
    before, after = (numbers(found) for found in results)
    # Holm's adjustment of every FPR gap knows of the site's FPR gap, which has one group more.
    raw_before, raw_after = (numbers(found, holm=False) for found in results)
    for key in before:
        if key == ("overall",) or key in (("site", "fpr@youden"), ("site", "fpr@0.5")):
            continue
        if str(key[-1]).startswith("fpr@"):
            assert raw_after[key] == raw_before[key], key
        else:
            assert after[key] == before[key], key


@LAWS
@given(st.data())
def test_flipping_scores_and_labels_mirrors_the_rates(data: st.DataObject) -> None:
    n = data.draw(st.integers(4, 60))
    y = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    score = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), dtype=float)
    group = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)))
    auc, error = auc_by_group(y, placements(y, score, group), group, 3)
    mirrored = auc_by_group(~y, placements(~y, -score, group), group, 3)
    np.testing.assert_allclose(mirrored[0], auc, atol=1e-12)
    np.testing.assert_allclose(mirrored[1], error, atol=1e-12)
    counts, other = confusion_counts(y, score > 2, group, 3), confusion_counts(~y, score <= 2, group, 3)
    np.testing.assert_array_equal(rate("tpr", counts), rate("tnr", other))


@LAWS
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.integers(0, 6))
def test_a_nan_group_never_changes_the_gap(values: list[float], position: int) -> None:
    array = np.array(values)
    with_nan = np.insert(array, min(position, len(array)), np.nan)
    assert group_gap(with_nan, ~np.isnan(with_nan)) == group_gap(array, np.ones(len(array), bool))
