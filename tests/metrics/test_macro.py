"""Several classes: the macro average is the mean over classes of each against the rest."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import audit


def test_macro_auc_is_that_of_scikit_learn_and_its_gap_names_who_is_left_out() -> None:
    rng = np.random.default_rng(0)
    n = 300
    label = rng.integers(0, 3, n)
    scores = rng.random((n, 3)) + np.eye(3)[label]
    scores /= scores.sum(axis=1, keepdims=True)
    site = np.where(np.arange(n) < 140, "a", np.where(np.arange(n) < 280, "b", "c"))
    label[site == "c"] = 0  # two classes are undefined there
    table = pd.DataFrame({"subject_id": [f"s{i}" for i in range(n)], "image": "x.png", "split": "test", "site": site})
    table = table.assign(label=label, **{f"score_{k}": scores[:, k] for k in range(3)}).astype(str)
    options = {"thresholds": ["0.5"], "resamples": 100, "permutations": 10}
    macro = audit({"run": [check_predictions(table, "p.csv")]}, ["site"], **options)["macro"]
    groups = macro["tables"][0]["groups"]
    expected = {}
    for group in ("a", "b"):
        inside = site == group
        expected[group] = roc_auc_score(label[inside], scores[inside], multi_class="ovr", average="macro")
    values = {group["name"]: group["cells"]["run"]["auc"] for group in groups}
    assert {name: values[name]["value"] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert math.isnan(values["c"]["value"])
    assert values["c"]["reason"].startswith("class 0: no positive or no negative case in this group; class 1: ")
    gap = macro["tables"][0]["gaps"]["run"]["auc"]
    assert gap["value"] == pytest.approx(abs(expected["a"] - expected["b"]), abs=1e-12)
    assert [entry["group"] for entry in gap["left_out"]] == ["c"]
    assert gap["groups_compared"] == 2
