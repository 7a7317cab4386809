from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monai_fair.data.predictions import Predictions, check_predictions
from monai_fair.errors import PredictionsError
from monai_fair.metrics.cases import gather_cases, seed_names


def predictions(source: str = "a.csv", **changes: Any) -> Predictions:
    table = pd.DataFrame(
        {
            "subject_id": ["s1", "s2", "s3", "s4"],
            "image": ["1.png", "2.png", "3.png", "4.png"],
            "split": ["test", "test", "test", "val"],
            "label": ["0", "1", "1", "0"],
            "score": ["0.2", "0.9", "0.4", "0.1"],
            "sex": ["f", "m", "f", ""],
            "site": ["x", "x", "y", "y"],
        }
    ).assign(**changes)
    return check_predictions(table, source)


def shuffled(source: str = "b.csv") -> Predictions:
    found = predictions(source)
    return check_predictions(found.table.iloc[::-1].astype(str), source)


def test_rows_come_in_one_order() -> None:
    cases = gather_cases({"a": [predictions(), shuffled()]}, ["sex"])
    assert cases.table["subject_id"].tolist() == ["s1", "s2", "s3"]
    assert cases.runs[0].scores.tolist() == [[[0.2], [0.9], [0.4]]] * 2
    assert cases.runs[0].seeds == ("1", "2")


def test_rows_know_their_subject() -> None:
    images = predictions(subject_id=["s2", "s10", "s2", "s4"])
    cases = gather_cases({"a": [images]}, ["sex"])
    assert cases.table["subject_id"].tolist() == ["s10", "s2", "s2"]
    assert cases.subjects.tolist() == [0, 1, 1]
    assert cases.subjects.dtype == np.int64


def test_notes_are_said_once() -> None:
    first, second = replace(predictions(), notes=("one", "two")), replace(shuffled(), notes=("three", "one"))
    assert gather_cases({"a": [first], "b": [second]}, ["sex"]).notes == ("one", "two", "three")
    assert gather_cases({"a": [predictions()]}, ["sex"]).notes == ()


def test_given_thresholds_come_in_the_order_of_the_cases() -> None:
    one = predictions(threshold=["0.1", "0.2", "0.3", "0.4"])
    two = check_predictions(one.table.iloc[::-1].astype(str).assign(threshold=["9", "0.6", "0.5", "0.7"]), "b.csv")
    cases = gather_cases({"a": [one, two], "b": [one, shuffled()], "c": [two]}, ["sex"])
    assert [run.given is None for run in cases.runs] == [False, True, False]
    np.testing.assert_array_equal(cases.runs[0].given, [[0.1, 0.2, 0.3], [0.7, 0.5, 0.6]])
    np.testing.assert_array_equal(cases.runs[2].given, [[0.7, 0.5, 0.6]])
    assert "threshold" not in cases.table


def test_another_split_can_be_audited() -> None:
    assert gather_cases({"a": [predictions()]}, ["sex"], split="val").table["subject_id"].tolist() == ["s4"]


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["x/seed_0/p.csv", "x/seed_3/p.csv"], ["0", "3"]),
        (["seed_1/p.csv", "seed2/p.csv"], ["1", "2"]),
        ([r"x\seed-4\p.csv", r"x\seed-5\p.csv"], ["4", "5"]),
        (["seed_9/erm/seed_1/p.csv"], ["1"]),
        (["x/seed_0/p.csv", "y/seed_0/p.csv"], ["1", "2"]),
        (["x/seed_0/p.csv", "p.csv"], ["1", "2"]),
        (["linseed_0/p.csv"], ["1"]),
    ],
)
def test_seed_names(sources: list[str], names: Any) -> None:
    assert seed_names(sources) == names


def test_all_problems_at_once() -> None:
    other_rows = predictions("rows.csv", subject_id=["s1", "s2", "s9", "s4"])
    other_label = predictions("label.csv", label=["0", "0", "1", "0"])
    other_sex = predictions("sex.csv", sex=["f", "f", "f", ""])
    no_test = predictions("val.csv", split=["val"] * 4)
    with pytest.raises(PredictionsError) as caught:
        gather_cases({"a": [predictions(), other_rows, other_label], "b": [other_sex, no_test]}, ["sex", "race"])
    unknown = "expected the attribute 'race', the attributes there are sex, site; choose among these"
    first = "run 'a', seed 1 (a.csv)"
    assert str(caught.value).splitlines() == [
        "audit: 9 problems",
        f"  1. {first}: {unknown}",
        f"  2. run 'a', seed 2 (rows.csv): {unknown}",
        f"  3. run 'a', seed 3 (label.csv): {unknown}",
        f"  4. run 'b', seed 1 (sex.csv): {unknown}",
        f"  5. run 'b', seed 2 (val.csv): {unknown}",
        "  6. run 'b', seed 2 (val.csv): expected rows with split 'test', the splits there are val; add predictions",
        f"  7. run 'a', seed 2 (rows.csv): expected the same rows as {first}, got 1 of them missing and 1 others; "
        "predict the same test part with every run and seed",
        f"  8. run 'a', seed 3 (label.csv): expected the same 'label' as in {first}, 1 rows differ, first subject "
        "'s2', image '2.png' with '0' instead of '1'; use one manifest for every run and seed",
        f"  9. run 'b', seed 1 (sex.csv): expected the same 'sex' as in {first}, 1 rows differ, first subject 's2', "
        "image '2.png' with 'f' instead of 'm'; use one manifest for every run and seed",
    ]


def test_nothing_to_audit() -> None:
    with pytest.raises(PredictionsError) as caught:
        gather_cases({"a": []}, [])
    assert str(caught.value).splitlines() == [
        "audit: 2 problems",
        "  1. expected at least one attribute, got none; name one",
        "  2. expected at least one table of predictions for run 'a', got none; name one",
    ]
    with pytest.raises(PredictionsError, match=r"^audit: expected at least one run, got none; name one$"):
        gather_cases({}, ["sex"])


def test_an_attribute_named_twice() -> None:
    message = r"^audit: expected each attribute once, got 'sex' 2 times; remove the others$"
    with pytest.raises(PredictionsError, match=message):
        gather_cases({"a": [predictions()]}, ["sex", "sex"])


def numeric(levels: int) -> Predictions:
    table = pd.DataFrame(
        {"subject_id": [f"s{i}" for i in range(levels)], "split": "test", "label": "0", "score": "0.5"}
    )
    return check_predictions(
        table.assign(image=table["subject_id"], age=[f"{30 + i}.5" for i in range(levels)]), "n.csv"
    )


def test_a_numeric_attribute_must_be_binned() -> None:
    gather_cases({"a": [numeric(20)]}, ["age"])
    with pytest.raises(PredictionsError) as caught:
        gather_cases({"a": [numeric(21)]}, ["age"])
    assert str(caught.value) == (
        "audit: run 'a', seed 1 (n.csv): expected groups in the attribute 'age', got 21 different numbers; audit "
        "age:quartiles, or bins of your own such as age:40/60/80"
    )


def coded(levels: int, *, missing: int = 0) -> Predictions:
    codes = [f"zip{i}" for i in range(levels)] + [""] * missing
    table = pd.DataFrame({"subject_id": [f"s{i}" for i in range(len(codes))], "zip": codes, "image": "x.png"})
    return check_predictions(table.assign(split="test", label="0", score="0.5", sex="f"), "z.csv")


def test_an_attribute_of_many_values_must_be_grouped() -> None:
    gather_cases({"a": [coded(50, missing=3)]}, ["zip"])
    gather_cases({"a": [coded(500)]}, ["sex"])  # only attributes that define groups are asked
    with pytest.raises(PredictionsError) as caught:
        gather_cases({"a": [coded(500, missing=3)]}, ["zip", "sex"])
    assert str(caught.value) == (
        "audit: run 'a', seed 1 (z.csv): expected at most 50 groups in the attribute 'zip', got 500 different values; "
        "bin or group them in a column of its own, such as zip_group, and audit that"
    )
    with pytest.raises(PredictionsError, match="got 51 different values"):
        gather_cases({"a": [coded(51)]}, ["zip"])


def test_one_task_at_a_time() -> None:
    table = predictions().table.astype(str).rename(columns={"score": "score_0"})
    several = check_predictions(table.assign(score_1=table["score_0"]), "k.csv")
    with pytest.raises(PredictionsError) as caught:
        gather_cases({"a": [predictions(), several]}, ["sex"])
    assert str(caught.value) == (
        "audit: run 'a', seed 2 (k.csv): expected the score columns score as in run 'a', seed 1 (a.csv), got score_0, "
        "score_1; audit one task at a time"
    )
