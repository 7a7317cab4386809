import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_curve

from monai_fair.errors import MonaiFairError
from monai_fair.metrics import fit_threshold, youden_threshold


def test_by_hand() -> None:
    # At 0.7: TPR 2/3, FPR 0. At 0.4: TPR 1, FPR 1/2. Index 2/3 against 1/2.
    assert youden_threshold([1, 1, 1, 0, 0], [0.9, 0.7, 0.4, 0.5, 0.1]) == 0.7


def test_a_score_at_the_threshold_is_positive() -> None:
    scores = np.array([0.2, 0.8])
    threshold = youden_threshold([0, 1], scores)
    assert (scores >= threshold).tolist() == [False, True]


def test_equals_take_the_smallest_threshold() -> None:
    # At 0.9: TPR 1/2, FPR 0. At 0.6: TPR 1, FPR 1/2. Both 1/2.
    assert youden_threshold([1, 0, 1, 0], [0.9, 0.8, 0.6, 0.1]) == 0.6


def test_equals_are_compared_exactly() -> None:
    # 1/3 - 0 and 2/3 - 1/3 and 3/3 - 2/3 differ in floating point; here they are equal and the smallest wins.
    y = [1, 0, 1, 0, 1, 0]
    assert youden_threshold(y, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_reaches_the_best_index_of_sklearns_curve(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.random(200) < 0.3
    score = np.round(rng.random(200) * 0.7 + 0.3 * y, 2)
    threshold = youden_threshold(y, score)
    fpr, tpr, _ = roc_curve(y, score, drop_intermediate=False)
    reached = (score[y] >= threshold).mean() - (score[~y] >= threshold).mean()
    assert reached == pytest.approx((tpr - fpr).max(), abs=1e-12)
    assert threshold in score


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_threshold(label: int) -> None:
    assert np.isnan(youden_threshold([label] * 3, [0.1, 0.2, 0.3]))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"^expected y and score of one shape, got \(2,\) and \(1,\)$"):
        youden_threshold([0, 1], [0.5])


def _table(splits: list[str], labels: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"split": splits, "label": labels, "score": np.linspace(0.1, 0.9, len(labels))})


def test_fit_uses_validation_rows_only() -> None:
    table = _table(["val", "val", "test", "test"], [0, 1, 1, 0])
    assert fit_threshold(table) == (pytest.approx(0.1 + 0.8 / 3), "")


def test_fit_on_test_is_an_error() -> None:
    with pytest.raises(MonaiFairError, match=r"^threshold: expected a split other than 'test' to fit on, got 'test'; "):
        fit_threshold(_table(["test"] * 2, [0, 1]), split="test")


def test_fit_without_validation_rows_says_so() -> None:
    threshold, reason = fit_threshold(_table(["test"] * 2, [0, 1]))
    assert np.isnan(threshold)
    assert reason == "no rows with split 'val' to choose a threshold on"


def test_fit_on_one_class_says_so() -> None:
    threshold, reason = fit_threshold(_table(["val"] * 2, [1, 1]))
    assert np.isnan(threshold)
    assert reason == "the rows with split 'val' have one class only"


def test_fit_for_one_of_several_classes() -> None:
    table = pd.DataFrame({"split": "val", "label": [0, 1, 2, 2], "score_2": [0.1, 0.2, 0.6, 0.7]})
    assert fit_threshold(table, "score_2", positive_label=2) == (0.6, "")
