"""Channel diagnostics: derived values, independent references, undefined values with reasons, error text."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit

from monai_fair.data.artifacts import read_json, write_json
from monai_fair.errors import MonaiFairError
from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.channels import Coactivation, CoactivationCell, coactivation
from monai_fair.metrics.incidence import ablate_channel, channel_incidence, concentration

# rows: two predicted positive (p = 0.8, 0.6), two negative (0.4, 0.2)
FEATURES = np.array([[4.0, 9.0, 0.0], [2.0, 9.0, 0.0], [1.0, 8.0, 3.0], [1.0, 8.0, 5.0]])
PROB = np.array([0.8, 0.6, 0.4, 0.2])


def test_incidence_derived_by_hand() -> None:
    result = channel_incidence(FEATURES, PROB)
    assert (result.n, result.n_predicted_positive) == (4, 2)
    assert result.hard_positive == (3, 9, 0)
    assert result.hard_negative == (1, 8, 4)
    # soft: sum p = 2: ((3.2 + 1.2 + 0.4 + 0.2) / 2, ...), sum (1 - p) = 2: ((0.8 + 0.8 + 0.6 + 0.8) / 2, ...)
    assert result.soft_positive == pytest.approx((2.5, (7.2 + 5.4 + 3.2 + 1.6) / 2, (1.2 + 1.0) / 2))
    assert result.soft_negative == pytest.approx((1.5, (1.8 + 3.6 + 4.8 + 6.4) / 2, (1.8 + 4.0) / 2))
    # channel 1 is always on and wins everywhere; the contrast (2, 1, -4) tells channels 0 and 2 apart
    assert result.dominant == {
        "hard_positive": 1,
        "hard_negative": 1,
        "soft_positive": 1,
        "soft_negative": 1,
        "hard_contrast_positive": 0,
        "hard_contrast_negative": 2,
        "soft_contrast_positive": 0,
        "soft_contrast_negative": 2,
    }
    assert result.reasons == {}


def test_a_probability_at_the_threshold_counts_as_positive() -> None:
    assert channel_incidence(FEATURES, PROB, threshold=0.4).n_predicted_positive == 3


def test_incidence_without_positive_predictions_is_nan_with_a_reason(tmp_path: Path) -> None:
    result = channel_incidence(FEATURES, np.zeros(4), threshold=0.9)
    assert np.isnan(result.hard_positive).all()
    assert np.isnan(result.soft_positive).all()
    assert result.hard_negative == (2, 8.5, 2)
    assert result.dominant["hard_positive"] is None
    assert result.dominant["hard_contrast_positive"] is None
    assert result.dominant["hard_negative"] == 1
    assert result.reasons == {
        "hard_positive": "no sample is predicted positive at threshold 0.9",
        "soft_positive": "every sample has a positive probability of 0",
    }
    write_json(tmp_path / "incidence.json", "incidence", result.as_dict())
    assert read_json(tmp_path / "incidence.json", "incidence")["hard_positive"] == [None] * 3


def test_concentration_derived_by_hand() -> None:
    # m = (3, 1, 2, 0, 0): sum 6, mean 1.2, squares 14, variance 14/5 - 1.44 = 1.36
    # sorted (0, 0, 1, 2, 3), weights 2j - 6 = (-4, -2, 0, 2, 4): 0 + 4 + 12 = 16; gini = 16 / (5 * 6)
    result = concentration([3, 1, 2, 0, 0])
    assert result.cv == pytest.approx(math.sqrt(1.36) / 1.2)
    assert result.top1_share == pytest.approx(0.5)
    assert result.top10_share == pytest.approx(1)
    entropy = -(0.5 * math.log(0.5) + math.log(1 / 6) / 6 + math.log(1 / 3) / 3)
    assert result.normalized_entropy == pytest.approx(entropy / math.log(5))
    assert result.gini == pytest.approx(16 / 30)
    assert result.participation_ratio == pytest.approx(36 / (5 * 14))
    assert result.reasons == {}
    assert json.loads(json.dumps(result.as_dict()))["num_channels"] == 5


def test_concentration_at_its_limits() -> None:
    even, single = concentration(np.full(20, 0.3)), concentration([0] * 19 + [7])
    assert (even.cv, even.gini) == (0, pytest.approx(0, abs=1e-12))
    assert (even.top1_share, even.top10_share, even.normalized_entropy, even.participation_ratio) == pytest.approx(
        (0.05, 0.5, 1, 1)
    )
    assert (single.cv, single.gini) == pytest.approx((math.sqrt(19), 19 / 20))
    assert (single.top1_share, single.top10_share) == (1, 1)
    assert (single.normalized_entropy, single.participation_ratio) == pytest.approx((0, 0.05))


@pytest.mark.parametrize(
    ("means", "reason"),
    [
        ([0, 0], "all channel means are 0"),
        ([1, float("nan")], "a channel mean is not finite"),
        ([2, -1, -1], "2 of 3 channel means are negative; take features after ReLU"),
    ],
)
def test_concentration_undefined(means: list[float], reason: str) -> None:
    result = concentration(means)
    assert set(result.reasons.values()) == {reason}
    assert all(math.isnan(getattr(result, name)) for name in result.reasons)
    assert len(result.reasons) == 6


def test_entropy_of_one_channel_is_undefined() -> None:
    result = concentration([2.0])
    assert result.reasons == {"normalized_entropy": "there is one channel only"}
    assert math.isnan(result.normalized_entropy)
    assert (result.cv, result.gini, result.top1_share, result.participation_ratio) == (0, 0, 1, 1)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(arrays(np.float64, st.integers(2, 30), elements=st.floats(0, 10)), st.floats(1e-6, 1e6))
def test_concentration_laws(m: FloatArray, factor: float) -> None:
    m = m + (m.max() == 0)
    result = concentration(m)
    size = m.size
    assert 0 <= result.cv <= math.sqrt(size - 1) * (1 + 1e-9)
    assert 1 / size - 1e-9 <= result.top1_share <= result.top10_share <= 1 + 1e-9
    assert -1e-9 <= result.gini <= (size - 1) / size + 1e-9
    # participation ratio and cv are one number: PR = 1 / (1 + cv^2)
    assert result.participation_ratio == pytest.approx(1 / (1 + result.cv**2), rel=1e-9)
    # gini equals the mean absolute difference of all pairs over twice the mean
    assert result.gini == pytest.approx(np.abs(m[:, None] - m).mean() / (2 * m.mean()), abs=1e-9)
    scaled = concentration(m * factor)
    for name in ("cv", "top1_share", "top10_share", "normalized_entropy", "gini", "participation_ratio"):
        assert getattr(scaled, name) == pytest.approx(getattr(result, name), rel=1e-9, abs=1e-9)


def cells(result: Coactivation) -> dict[tuple[str, str, str], CoactivationCell]:
    return {(cell.attribute, cell.group, cell.stratum): cell for cell in result.cells}


def test_coactivation_derived_by_hand() -> None:
    h = np.array([[5.0], [4.0], [3.0], [2.0], [1.0], [0.0]])
    y = np.array([1, 1, 0, 1, 0, 0])
    sex = ["M", "F", "M", "", "F", "F"]
    result = coactivation(h, 0, y, {"sex": sex}, quantile=0.5)
    table = cells(result)
    assert result.quantile_value == 2.5
    assert result.n_missing == {"sex": 1}
    # disease: positives 5, 4, 2 against 3, 1, 0: 8 of 9 pairs in order; active (> 2.5): 5, 4, 3
    label = table["label", "1", "all"]
    assert label.auroc == pytest.approx(8 / 9)
    assert (label.n, label.n_group, label.activation_rate) == (6, 3, pytest.approx(2 / 3))
    assert table["label", "0", "all"].activation_rate == pytest.approx(1 / 3)
    # sex: M 5, 3 against F 4, 1, 0: 5 of 6 pairs; within y=0 M 3 against F 1, 0: all; within y=1 M 5 against F 4
    overall = table["sex", "M", "all"]
    assert (overall.auroc, overall.n, overall.n_group) == (pytest.approx(5 / 6), 5, 2)
    assert table["sex", "F", "all"].auroc == pytest.approx(1 / 6)
    assert (table["sex", "M", "y=0"].auroc, table["sex", "M", "y=0"].n) == (1, 3)
    assert (table["sex", "M", "y=1"].auroc, table["sex", "M", "y=1"].n) == (1, 2)
    assert table["sex", "F", "all"].activation_rate == pytest.approx(1 / 3)
    assert len(result.cells) == 2 + 2 * 3
    json.dumps(result.as_dict(), allow_nan=False)


def test_coactivation_ties_count_half() -> None:
    result = coactivation(np.ones((4, 1)), 0, [0, 1, 0, 1], {})
    assert cells(result)["label", "1", "all"].auroc == 0.5
    assert cells(result)["label", "1", "all"].activation_rate == 0


def test_coactivation_undefined_is_nan_with_a_reason() -> None:
    h = np.arange(4.0)[:, None]
    table = cells(coactivation(h, 0, [1, 1, 0, 0], {"sex": ["M", "M", "F", "F"], "site": ["a"] * 4}))
    cell = table["sex", "M", "y=0"]
    assert math.isnan(cell.auroc)
    assert math.isnan(cell.activation_rate)
    assert (cell.n, cell.n_group, cell.reason) == (2, 0, "no sample of the group")
    cell = table["site", "a", "all"]
    assert math.isnan(cell.auroc)
    assert (cell.n, cell.n_group, cell.reason) == (4, 4, "no sample outside the group")
    assert cell.activation_rate == 0.25
    assert math.isnan(cells(coactivation(h, 0, [1] * 4, {}))["label", "1", "all"].auroc)


def test_coactivation_counts_add_up() -> None:
    generator = np.random.default_rng(0)
    h, y = generator.random((60, 3)), generator.integers(0, 2, 60)
    race = generator.choice(["", "A", "B", "C"], 60).tolist()
    result = coactivation(h, 1, y, {"race": race})
    for stratum, members in (("all", np.ones(60)), ("y=0", y == 0), ("y=1", y == 1)):
        rows = [cell for cell in result.cells if cell.attribute == "race" and cell.stratum == stratum]
        missing = sum(1 for value, inside in zip(race, members, strict=True) if inside and value == "")
        assert sum(cell.n_group for cell in rows) + missing == members.sum()
    rank = (h[y == 1, 1][:, None] > h[y == 0, 1]).mean()
    assert cells(result)["label", "1", "all"].auroc == pytest.approx(rank)


@pytest.mark.parametrize("replace", ["zero", "mean"])
def test_ablation_equals_logits_minus_the_channels_contribution(replace: Literal["zero", "mean"]) -> None:
    generator = np.random.default_rng(1)
    h, w, b = generator.random((20, 6)), generator.normal(size=(3, 6)), generator.normal(size=3)
    value = 0 if replace == "zero" else h[:, 4].mean()
    expected = np.einsum("nd,kd->nk", h, w) + b - np.outer(h[:, 4] - value, w[:, 4])
    np.testing.assert_allclose(ablate_channel(h, w, b, 4, replace=replace), expected, rtol=1e-12)


def test_ablation_of_one_output() -> None:
    h = np.array([[1.0, 2.0], [3.0, 4.0]])
    # logits 1*10 + 2*1 + 0.5; without channel 0: 2.5 and 4.5; with its mean 2: 22.5 and 24.5
    for weight in ([10.0, 1.0], [[10.0, 1.0]]):
        assert ablate_channel(h, weight, 0.5, 0).tolist() == [2.5, 4.5]
        assert ablate_channel(h, weight, [0.5], 0, replace="mean").tolist() == [22.5, 24.5]
    assert h.tolist() == [[1, 2], [3, 4]]
    assert expit(ablate_channel(h, [10.0, 1.0], -2.0, 0))[0] == 0.5


ERRORS = [
    (
        lambda: channel_incidence(FEATURES, [0.1, 0.2, 1.5, 0.2]),
        "channel_incidence: expected 4 probabilities in [0, 1], got shape (4,) from 0.1 to 1.5; "
        "give one score per row of features",
    ),
    (
        lambda: channel_incidence(np.zeros(3), PROB),
        "channel_incidence: expected finite features of shape (N, D), N and D at least 1, got shape (3,) "
        "from 0.0 to 0.0; check the run that wrote them",
    ),
    (
        lambda: concentration(np.zeros((2, 3))),
        "concentration: expected means of shape (D,), D >= 1, got (2, 3); give one class",
    ),
    (
        lambda: ablate_channel(FEATURES, np.zeros(4), [0, 0], 3, replace="noise"),
        "ablate_channel: 4 problems\n"
        "  1. expected weight of shape (K, 3), got (1, 4); give the last layer's\n"
        "  2. expected bias of shape (1,), got (2,); give the last layer's\n"
        "  3. expected channel from 0 to 2, got 3; correct it\n"
        "  4. expected replace 'zero' or 'mean', got 'noise'; choose one",
    ),
    (
        lambda: coactivation(FEATURES, -1, [0, 1, 2, 0], {"sex": ["M"], "label": [""] * 4}, quantile=1),
        "coactivation: 5 problems\n"
        "  1. expected channel from 0 to 2, got -1; correct it\n"
        "  2. expected 4 labels 0 or 1, got shape (4,); give one per row\n"
        "  3. expected quantile between 0 and 1, got 1; correct it\n"
        "  4. attribute 'sex': expected 4 values, got 1; give one per row of features\n"
        "  5. expected attributes other than 'label', which is the disease here; rename it",
    ),
    (
        lambda: coactivation(np.full((2, 2), np.nan), 0, [0, 1], {}),
        "coactivation: expected finite features of shape (N, D), got shape (2, 2); check the run that wrote them",
    ),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_error_text(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        call()
    assert str(caught.value) == message
