import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fairlearn import metrics as fairlearn
from sklearn.metrics import roc_auc_score

from monai_fair.metrics import (
    auc_gap,
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    fate,
)

# Four positives and four negatives per group. a: TPR 3/4, FPR 1/4; b: TPR 1/4, FPR 2/4.
Y = np.tile([1, 1, 1, 1, 0, 0, 0, 0], 2)
Y_PRED = np.array([1, 1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0])
GROUPS = np.repeat(["a", "b"], 8)


def test_gaps_by_hand() -> None:
    assert equalized_odds_difference(Y, Y_PRED, GROUPS) == 0.5  # max(3/4 - 1/4, 2/4 - 1/4)
    assert equal_opportunity_difference(Y, Y_PRED, GROUPS) == 0.5
    assert equal_opportunity_difference(Y, Y_PRED, GROUPS, label=0) == 0.25  # TNR 3/4 and 2/4
    assert demographic_parity_difference(Y_PRED, GROUPS) == 1 / 8  # 4/8 and 3/8


@pytest.mark.parametrize("seed", range(5))
def test_equal_fairlearn_where_it_is_defined(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, y_pred, groups = rng.integers(0, 2, 300), rng.integers(0, 2, 300), rng.choice(["u", "v", "w"], 300)
    options: dict[str, Any] = {"sensitive_features": groups}
    assert equalized_odds_difference(y, y_pred, groups) == pytest.approx(
        fairlearn.equalized_odds_difference(y, y_pred, **options), abs=1e-12
    )
    assert equal_opportunity_difference(y, y_pred, groups) == pytest.approx(
        fairlearn.equal_opportunity_difference(y, y_pred, **options), abs=1e-12
    )
    assert equal_opportunity_difference(y, y_pred, groups, label=0) == pytest.approx(
        fairlearn.true_negative_rate_difference(y, y_pred, **options), abs=1e-12
    )
    assert demographic_parity_difference(y_pred, groups) == pytest.approx(
        fairlearn.demographic_parity_difference(y, y_pred, **options), abs=1e-12
    )


def test_auc_gap_is_that_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    y, score, groups = rng.integers(0, 2, 200), rng.integers(0, 9, 200) / 8, rng.integers(0, 3, 200)
    aucs = [roc_auc_score(y[groups == code], score[groups == code]) for code in range(3)]
    assert auc_gap(y, score, groups) == pytest.approx(max(aucs) - min(aucs), abs=1e-12)


@pytest.mark.parametrize("name", ["0 first", "z last"])
def test_a_group_without_positives_makes_the_gap_undefined_and_not_large(name: str) -> None:
    y, y_pred = np.append(Y, [0, 0]), np.append(Y_PRED, [0, 0])
    groups = np.append(GROUPS, [name, name])
    # fairlearn takes the TPR of the new group as 0, and finds 3/4 - 0.
    assert fairlearn.equalized_odds_difference(y, y_pred, sensitive_features=groups) == 0.75
    assert math.isnan(equalized_odds_difference(y, y_pred, groups))
    assert math.isnan(equal_opportunity_difference(y, y_pred, groups))
    assert math.isnan(auc_gap(y, y_pred, groups))
    assert equal_opportunity_difference(y, y_pred, groups, label=0) == 0.5  # TNR 1 and 2/4
    assert demographic_parity_difference(y_pred, groups) == 0.5  # 4/8 and 0/2


@pytest.mark.parametrize(
    "gap",
    [
        lambda y, y_pred, groups: equalized_odds_difference(y, y_pred, groups),
        lambda y, y_pred, groups: demographic_parity_difference(y_pred, groups),
    ],
)
def test_one_group_or_none_has_no_gap(gap: Callable[..., float]) -> None:
    assert math.isnan(gap(Y, Y_PRED, np.zeros(16)))
    assert math.isnan(gap([], [], []))


def test_equal_opportunity_of_another_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^expected label 0 or 1, got 2$"):
        equal_opportunity_difference(Y, Y_PRED, GROUPS, label=2)


def test_fate_by_hand() -> None:
    # Accuracy falls from 0.80 to 0.76, by 5 %; the gap falls from 0.20 to 0.15, by 25 %: -0.05 + 0.25.
    assert float(fate(0.76, 0.80, 0.15, 0.20)) == pytest.approx(0.20, abs=1e-12)
    assert float(fate(0.76, 0.80, 0.15, 0.20, weight=0.2)) == pytest.approx(0.0, abs=1e-12)
    assert float(fate(0.8, 0.8, 0.2, 0.2)) == 0.0


@pytest.mark.parametrize("undefined", [(0.7, 0.0, 0.1, 0.2), (0.7, 0.8, 0.1, 0.0), (0.7, 0.8, math.nan, 0.2)])
def test_fate_is_undefined_against_nothing(undefined: tuple[float, ...]) -> None:
    assert math.isnan(float(fate(*undefined)))
    # and only there
    both = [np.array([part, 0.5]) for part in undefined]
    assert np.isnan(fate(*both)).tolist() == [True, False]
