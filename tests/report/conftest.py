from typing import Any

import numpy as np
import pandas as pd
import pytest

from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import audit


def simulate(seed: int = 0, n: int = 900, *, gap: float = 0.0, **columns: Any) -> pd.DataFrame:
    """Text table of predictions: planted gap between sexes, a small site, missing values."""
    cases, noise = np.random.default_rng(0), np.random.default_rng(seed + 1)
    label = (cases.random(n) < 0.4).astype(int)
    sex = cases.choice(["female", "male", ""], n, p=[0.48, 0.48, 0.04])
    table = pd.DataFrame({"subject_id": [f"s{i:04d}" for i in range(n)], "image": [f"{i}.png" for i in range(n)]})
    table["split"] = np.where(np.arange(n) % 3 == 0, "val", "test")
    table["label"] = label
    table["score"] = (1 / (1 + np.exp(-(2 * label - 1 + gap * (sex == "male") + noise.normal(size=n))))).round(6)
    table["sex"], table["site"] = sex, np.where(np.arange(n) < 9, "tiny", cases.choice(["north", "south"], n))
    return table.assign(**columns).astype(str)


@pytest.fixture(scope="session")
def simulated() -> Any:
    return simulate


@pytest.fixture(scope="session")
def results() -> dict[str, Any]:
    runs = {
        "ERM": [check_predictions(simulate(seed, gap=1.2), "p.csv") for seed in range(3)],
        "NIR": [check_predictions(simulate(seed + 10, gap=0.2), "p.csv") for seed in range(3)],
    }
    return audit(runs, ["sex", "site"], permutations=100, resamples=100)
