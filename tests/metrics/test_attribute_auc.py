"""Separability from an attribute model's own predictions: AUC and interval by subject, or a reason."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from monai_fair.errors import PredictionsError
from monai_fair.metrics import auc_interval, separability
from monai_fair.metrics.attribute_auc import scored_auc


def write(path: Path, n: int = 400, *, images: int = 1, logits: int = 1, seed: int = 0) -> pd.DataFrame:
    """Predictions of a model that tells a level with some noise; ``images`` equal rows of each subject."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    score = np.round(1 / (1 + np.exp(-(2 * label - 1 + rng.normal(0, 1.5, n)))), 6)
    table = pd.DataFrame({"subject_id": [f"s{row}" for row in range(n)], "label": label, "score": score})
    table.insert(1, "split", np.where(np.arange(n) % 2 == 0, "test", "train"))
    table = table.loc[table.index.repeat(images)].reset_index(drop=True)
    table.insert(1, "image", [f"{row}.png" for row in table.index])
    if logits == 2:
        table = table.assign(score_0=1 - table["score"], score_1=table["score"]).drop(columns="score")
    table.to_csv(path, index=False)
    return table


@pytest.mark.parametrize("logits", [1, 2])
def test_the_auc_of_its_test_rows(tmp_path: Path, logits: int) -> None:
    table = write(tmp_path / "p.csv", logits=logits)
    found = separability(tmp_path / "p.csv")
    test = table[table["split"] == "test"]
    score = test["score" if logits == 1 else "score_1"]
    assert found.auc == pytest.approx(roc_auc_score(test["label"], score), abs=1e-12)
    assert (found.n_negative, found.n_positive) == ((test["label"] == 0).sum(), (test["label"] == 1).sum())
    # with 200 cases Student's t is hardly wider than the normal distribution
    assert (found.low, found.high) == pytest.approx(auc_interval(test["label"], score)[1:], abs=2e-3)
    assert (found.reason, found.interval_reason) == ("", "")
    train = table[table["split"] == "train"]
    assert separability(tmp_path / "p.csv", split="train").auc == pytest.approx(
        roc_auc_score(train["label"], train["score" if logits == 1 else "score_1"]), abs=1e-12
    )


def test_two_eyes_of_a_subject_are_one_draw(tmp_path: Path) -> None:
    write(tmp_path / "one.csv")
    write(tmp_path / "two.csv", images=2)
    one, two = separability(tmp_path / "one.csv"), separability(tmp_path / "two.csv")
    assert (two.auc, two.low, two.high) == pytest.approx((one.auc, one.low, one.high), abs=1e-12)
    assert two.n_positive == 2 * one.n_positive


def test_undefined_has_a_reason() -> None:
    nobody = scored_auc(np.array([True, True]), np.array([0.1, 0.9]))
    assert np.isnan([nobody.auc, nobody.low, nobody.high]).all()
    assert nobody.reason == nobody.interval_reason == "no sample of one of the levels"
    # 2 of 3 pairs in order
    few = scored_auc(np.array([True, False, False, False]), np.array([0.5, 0.2, 0.9, 0.1]))
    assert few.auc == pytest.approx(2 / 3)
    assert np.isnan(few.low)
    assert few.interval_reason == "fewer than 10 subjects of one of the levels"
    # nine subjects with two images each are still nine
    y, who = np.repeat([True, False], 18), np.repeat(np.arange(18), 2).astype(str)
    assert "fewer than 10 subjects" in scored_auc(y, np.arange(36.0), who.tolist()).interval_reason
    perfect = scored_auc(np.repeat([False, True], 10), np.arange(20.0))
    assert (perfect.auc, perfect.interval_reason) == (1.0, "an AUC of exactly 0 or 1 has no DeLong interval")


def test_tables_that_do_not_tell_it(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    write(path)
    with pytest.raises(PredictionsError) as caught:
        separability(path, split="val")
    assert str(caught.value) == f"{path}: expected rows with split 'val', the splits there are test, train"
    table = pd.read_csv(path).drop(columns="score").assign(score_0=0.5, score_1=0.25, score_2=0.25)
    table.to_csv(path, index=False)
    with pytest.raises(PredictionsError) as caught:
        separability(path)
    assert str(caught.value) == f"{path}: expected an attribute of two levels, got 3 scores"
