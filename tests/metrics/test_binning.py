"""Continuous attributes become groups by a rule that the attribute's name tells."""

import numpy as np
import pandas as pd
import pytest

from monai_fair.data.predictions import Predictions, check_predictions
from monai_fair.errors import PredictionsError
from monai_fair.metrics import audit
from monai_fair.metrics.binning import with_bins


def predictions(ages: list[str], splits: list[str] | None = None, source: str = "p.csv") -> Predictions:
    n = len(ages)
    table = pd.DataFrame({"subject_id": [f"s{i}" for i in range(n)], "image": "x.png", "split": splits or ["test"] * n})
    return check_predictions(table.assign(label="1", score="0.5", age=ages), source)


def labels(found: Predictions, name: str) -> list[str]:
    return list(with_bins({"run": [found]}, [name], split="test")["run"][0].table[name])


def test_a_value_equal_to_a_cut_goes_above_it_and_a_missing_one_stays_missing() -> None:
    assert labels(predictions(["39", "40", "59.5", "60", "", "100"]), "age:40/60") == [
        "below 40", "40 to below 60", "40 to below 60", "60 and above", "", "60 and above",
    ]  # fmt: skip


def test_quantiles_are_those_of_the_audited_rows_of_the_first_run() -> None:
    # quartiles of 1..8 by the next higher value: 3, 5, 7; the validation row does not count
    first = predictions([str(age) for age in range(1, 9)] + ["90"], ["test"] * 8 + ["val"])
    later = predictions(["2", "6"], source="q.csv")
    runs = with_bins({"a": [first], "b": [later]}, ["age:quartiles"], split="test")
    assert list(runs["a"][0].table["age:quartiles"]) == [
        "below 3", "below 3", "3 to below 5", "3 to below 5", "5 to below 7", "5 to below 7", "7 and above",
        "7 and above", "7 and above",
    ]  # fmt: skip
    assert list(runs["b"][0].table["age:quartiles"]) == ["below 3", "5 to below 7"]


def test_every_problem_is_named() -> None:
    with pytest.raises(PredictionsError) as caught:
        with_bins({"run": [predictions(["40", "89+"])]}, ["age:thirds", "age:60/40", "bmi:halves"], split="test")
    text = str(caught.value)
    assert (
        "attribute 'age:thirds': expected a rule among halves, tertiles, quartiles, quintiles, deciles, or cuts" in text
    )
    assert "attribute 'age:60/40': expected ascending cuts, got '60/40'" in text
    assert "p.csv: expected a column 'bmi' to bin, found none" in text
    assert "p.csv: expected numbers in 'age' to bin, got '89+' and 0 more that are none" in text


def test_the_audit_compares_the_bins() -> None:
    rng = np.random.default_rng(0)
    n = 200
    table = pd.DataFrame(
        {"subject_id": [f"s{i}" for i in range(n)], "image": "x.png", "split": "test", "label": np.arange(n) % 2}
    )
    table = table.assign(score=rng.random(n), age=rng.uniform(20, 90, n).round(3)).astype(str)
    results = audit(
        {"run": [check_predictions(table, "p.csv")]},
        ["age:tertiles"],
        thresholds=["0.5"],
        resamples=100,
        permutations=10,
    )
    groups = results["targets"][0]["tables"][0]["groups"]
    assert [group["n"] for group in groups] == [66, 67, 67]
    assert results["settings"]["attributes"] == ("age:tertiles",)
