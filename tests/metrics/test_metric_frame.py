"""The metrics as fairlearn's MetricFrame: the audit's values, and NaN where fairlearn's own functions give 0."""

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, true_positive_rate

from monai_fair.data.predictions import check_predictions
from monai_fair.errors import MonaiFairError
from monai_fair.metrics import METRICS, audit, to_metric_frame


def table(**columns: object) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 120
    y = np.arange(n) % 3 == 0
    made = {
        "subject_id": [f"s{index}" for index in range(n)],
        "image": "x.png",
        "split": "test",
        "label": y.astype(int),
        "score": np.round((y / 2 + rng.random(n)) / 1.5, 2),
        "sex": np.where(np.arange(n) % 2, "female", "male"),
        "site": np.where(np.arange(n) < 70, "north", "south"),
    }
    return pd.DataFrame({**made, **columns}).astype(str)


def test_values_are_those_of_the_audit() -> None:
    predictions = check_predictions(table(), "p.csv")
    frame = to_metric_frame(predictions, ["sex"], threshold=0.4)
    assert isinstance(frame, MetricFrame)
    assert list(frame.by_group) == list(METRICS)
    results = audit({"run": [predictions]}, ["sex"], thresholds=["0.4"], resamples=100, permutations=10)
    target = results["targets"][0]
    for row in [target["overall"], *target["tables"][0]["groups"]]:
        values = frame.overall if row["name"] == "everyone" else frame.by_group.loc[row["name"]]
        for key, metric in METRICS.items():
            cell = row["cells"]["run"][key if metric.of_scores else f"{key}@0.4"]
            assert values[key] == pytest.approx(cell["value"], rel=1e-12), key


def test_a_group_without_positives_is_undefined_not_zero() -> None:
    y = (np.arange(120) % 3 == 0) & (np.arange(120) < 70)
    predictions = check_predictions(table(label=y.astype(int)), "p.csv")
    frame = to_metric_frame(predictions, ["site"], metrics=["tpr", "fpr"])
    assert np.isnan(frame.by_group.loc["south", "tpr"])
    assert frame.by_group.loc["south", "fpr"] > 0
    rows = predictions.table
    theirs = MetricFrame(
        metrics=true_positive_rate, y_true=rows["label"], y_pred=rows["score"] >= 0.5, sensitive_features=rows["site"]
    )
    assert theirs.by_group["south"] == 0  # the trap


def test_several_attributes_are_intersected_and_missing_ones_left_out() -> None:
    sex = np.where(np.arange(120) < 20, "", np.where(np.arange(120) % 2, "female", "male"))
    frame = to_metric_frame(check_predictions(table(sex=sex), "p.csv"), ["sex", "site"], metrics=["accuracy"])
    expected = [("female", "north"), ("female", "south"), ("male", "north"), ("male", "south")]
    assert list(frame.by_group.index) == expected


def test_unknown_metrics_and_several_classes_are_refused() -> None:
    with pytest.raises(MonaiFairError, match=r"^metrics: expected some of auc, .*, got sensitivity$"):
        to_metric_frame(check_predictions(table(), "p.csv"), ["sex"], metrics=["tpr", "sensitivity"])
    three = table(score_0="0.2", score_1="0.3", score_2="0.5").drop(columns="score")
    with pytest.raises(MonaiFairError, match=r"^p.csv: expected a binary task, got 3 classes"):
        to_metric_frame(check_predictions(three, "p.csv"), ["sex"])
