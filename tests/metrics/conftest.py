from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from monai_fair.data.predictions import Predictions, check_predictions


def make(
    seed: int = 0, n: int = 600, *, gap: float = 0.0, source: str = "p.csv", classes: int = 1, **columns: Any
) -> Predictions:
    """Simulated predictions; the same cases for every seed of the scores.

    A third of the rows is for validation; ``gap`` is added to the logits of men; ``columns`` replace columns.
    """
    cases, noise = np.random.default_rng(0), np.random.default_rng(seed + 1)
    label = (cases.random(n) < 0.4).astype(int)
    sex = cases.choice(["f", "m"], n)
    table = pd.DataFrame({"subject_id": [f"s{i:04d}" for i in range(n)], "image": [f"{i}.png" for i in range(n)]})
    table["split"] = np.where(np.arange(n) % 3 == 0, "val", "test")
    table["sex"], table["site"] = sex, cases.choice(["a", "b", "c"], n)
    logit = 2 * label - 1 + gap * (sex == "m") + noise.normal(size=n)
    score = np.round(1 / (1 + np.exp(-logit)), 3)
    if classes == 1:
        table["score"] = score
    else:
        label = cases.integers(0, classes, n)
        raw = noise.random((n, classes)) + np.eye(classes)[label]
        for index, column in enumerate((raw / raw.sum(axis=1, keepdims=True)).T):
            table[f"score_{index}"] = column
    return check_predictions(table.assign(**{"label": label, **columns}).astype(str), source)


def tables_of(results: dict[str, Any], target: int = 0) -> dict[str, Any]:
    return {table["name"]: table for table in results["targets"][target]["tables"]}


@pytest.fixture(scope="session")
def simulated() -> Callable[..., Predictions]:
    return make


@pytest.fixture(scope="session")
def tables() -> Callable[..., dict[str, Any]]:
    return tables_of
