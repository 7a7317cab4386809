"""Neuron incidence redistribution: derived values and gradients, options, dtypes, exact error text."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from monai_fair.errors import MonaiFairError
from monai_fair.losses import (
    ClassificationLoss,
    NIRLoss,
    NIRRegularizer,
    incidence_statistics,
    neuron_incidence_redistribution,
    probability_weighted_means,
    sample_weights,
)

FloatArray = npt.NDArray[np.float64]

# Two samples with p = 3/4 and 1/4 (logits log 3 and -log 3), three channels.
LOGITS = torch.tensor([math.log(3), -math.log(3)], dtype=torch.float64)
FEATURES = torch.tensor([[4.0, 0.0, 2.0], [0.0, 4.0, 2.0]], dtype=torch.float64)
PROB = torch.tensor([0.75, 0.25], dtype=torch.float64)


def random_batch(
    batch: int = 6, outputs: int = 1, channels: int = 5, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, outputs, generator=generator, dtype=torch.float64)
    return logits, torch.rand(batch, channels, generator=generator, dtype=torch.float64)


def reference(
    p: FloatArray,
    h: FloatArray,
    *,
    normalizer: str = "weights",
    correction: int = 0,
    scale_free: bool = False,
    row: FloatArray | None = None,
) -> float:
    """The formulas once more, in numpy, sample by sample."""
    values = []
    for c in range(p.shape[1]):
        m = np.zeros(h.shape[1])
        for i in range(len(h)):
            m += p[i, c] * h[i]
        m /= p[:, c].sum() + 1e-8 if normalizer == "weights" else len(h)
        m = m if row is None else m * row[c]
        variance = ((m - m.mean()) ** 2).sum() / (m.size - correction)
        values.append(variance / (m.mean() ** 2 + 1e-8) if scale_free else variance)
    return float(np.mean(values))


def test_means_derived_by_hand() -> None:
    # weights sum to 1: m = 0.75 (4, 0, 2) + 0.25 (0, 4, 2) = (3, 1, 2); per sample of the batch: half of it
    means = probability_weighted_means(FEATURES, PROB, eps=0)
    assert means.tolist() == [[3.0, 1.0, 2.0]]
    assert probability_weighted_means(FEATURES, PROB, normalizer="batch").tolist() == [[1.5, 0.5, 1.0]]


def test_value_derived_by_hand() -> None:
    # m = (3, 1, 2), mean 2, variance (1 + 1 + 0) / 3 = 2/3; sample variance 1; batch reading m/2: variance 1/6;
    # scale-free (2/3) / 2^2 = 1/6
    m = torch.tensor([[3.0, 1.0, 2.0]], dtype=torch.float64)
    assert neuron_incidence_redistribution(m).item() == pytest.approx(2 / 3)
    assert neuron_incidence_redistribution(m, correction=1).item() == pytest.approx(1)
    assert neuron_incidence_redistribution(m / 2).item() == pytest.approx(1 / 6)
    assert neuron_incidence_redistribution(m, scale_free=True).item() == pytest.approx(1 / 6, rel=1e-7)


def test_regularizer_value_derived_by_hand() -> None:
    assert NIRRegularizer()(LOGITS, FEATURES).item() == pytest.approx(2 / 3, rel=1e-7)
    assert NIRRegularizer(normalizer="batch")(LOGITS, FEATURES).item() == pytest.approx(1 / 6, rel=1e-7)


def test_gradient_derived_by_hand() -> None:
    # L = (1/D) sum_j (m_j - mean)^2, so dL/dm_j = (2/D)(m_j - mean) = (2/3)(1, -1, 0).
    # dm_j/dh_ij = p_i (weights sum to 1), so dL/dh_i = p_i (2/3)(1, -1, 0).
    # dm_j/dp_i = h_ij - m_j; dL/dp_1 = (2/3)((4-3) - (0-1)) = 4/3; dL/dp_2 = (2/3)((0-3) - (4-1)) = -4;
    # dp/ds = p (1 - p) = 3/16 for both: dL/ds = (1/4, -3/4).
    logits, features = LOGITS.clone().requires_grad_(), FEATURES.clone().requires_grad_()
    NIRRegularizer()(logits, features).backward()
    expected = torch.tensor([[0.5, -0.5, 0.0], [1 / 6, -1 / 6, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(features.grad, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(logits.grad, torch.tensor([0.25, -0.75], dtype=torch.float64), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalizer": "batch"},
        {"correction": 1, "scale_free": True},
        {"sample_weight": "prob_label"},
        {"multi_label": True},
        {"classes": [2, 0]},
        {"activation": "abs"},
        {"use_contribution": True},
    ],
    ids=str,
)
def test_gradient_equals_central_differences(options: dict[str, Any]) -> None:
    logits, features = random_batch(outputs=3)
    labels = (logits > 0).long() if options.get("multi_label") else torch.tensor([0, 1, 2, 2, 1, 0])
    weight = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(3, 5)
    regularizer = NIRRegularizer(**options)
    assert torch.autograd.gradcheck(
        lambda s, h, w: regularizer(s, h, labels, w),
        (logits.requires_grad_(), features.requires_grad_(), weight.requires_grad_()),
    )


@pytest.mark.parametrize("outputs", [1, 2, 4])
@pytest.mark.parametrize("normalizer", ["weights", "batch"])
@pytest.mark.parametrize("correction", [0, 1])
@pytest.mark.parametrize("scale_free", [False, True])
def test_equals_numpy(outputs: int, normalizer: str, correction: int, scale_free: bool) -> None:
    logits, features = random_batch(outputs=outputs)
    s = logits.numpy()
    exp = np.exp(s)
    p = 1 / (1 + np.exp(-s)) if outputs == 1 else exp / exp.sum(1, keepdims=True)
    expected = reference(p, features.numpy(), normalizer=normalizer, correction=correction, scale_free=scale_free)
    regularizer = NIRRegularizer(normalizer=normalizer, correction=correction, scale_free=scale_free)
    assert regularizer(logits, features).item() == pytest.approx(expected, rel=1e-12)


def test_contribution_equals_numpy() -> None:
    logits, features = random_batch(outputs=3)
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    p = logits.softmax(1).numpy()
    got = NIRRegularizer(use_contribution=True)(logits, features, classifier_weight=weight)
    assert got.item() == pytest.approx(reference(p, features.numpy(), row=weight.numpy()), rel=1e-12)
    got = NIRRegularizer(use_contribution=True, classes=[2])(logits, features, classifier_weight=weight)
    assert got.item() == pytest.approx(reference(p[:, 2:], features.numpy(), row=weight.numpy()[2:]), rel=1e-12)


def test_binary_softmax_restricted_to_disease_equals_one_output() -> None:
    logits, features = random_batch()
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    one = NIRRegularizer()(logits, features)
    torch.testing.assert_close(NIRRegularizer(classes=[1])(two, features), one, rtol=1e-12, atol=0)
    torch.testing.assert_close(NIRRegularizer(classes=[1])(logits, features), one, rtol=0, atol=0)
    assert NIRRegularizer()(two, features) != one


def test_sample_weights_of_each_kind() -> None:
    # sigmoid(0) = 0.5, sigmoid(log 3) = 0.75, sigmoid(-log 3) = 0.25
    logits, labels = torch.tensor([0.0, math.log(3), -math.log(3)]), torch.tensor([0, 1, 1])
    assert sample_weights(logits)[:, 0].tolist() == pytest.approx([0.5, 0.75, 0.25])
    assert sample_weights(logits, labels, kind="prob_label")[:, 0].tolist() == pytest.approx([0, 0.75, 0.25])
    assert sample_weights(logits, kind="prediction")[:, 0].tolist() == [1, 1, 0]
    # softmax(0, log 3) = (0.25, 0.75); a tie counts once, for the first class
    logits, labels = torch.tensor([[0.0, math.log(3)], [1.0, 1.0]]), torch.tensor([[0], [1]])
    weights = sample_weights(logits, labels, kind="prob_label")
    torch.testing.assert_close(weights, torch.tensor([[0.25, 0.0], [0.0, 0.5]]))
    assert sample_weights(logits, kind="prediction").tolist() == [[0, 1], [1, 0]]
    # one sigmoid per label; labels are 0/1 in each column
    weights = sample_weights(logits, torch.tensor([[1, 0], [0, 1]]), kind="prob_label", multi_label=True)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.0], [0.0, torch.tensor(1.0).sigmoid().item()]]))
    assert sample_weights(logits - 0.5, kind="prediction", multi_label=True).tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize("option", [{"detach_prob": True}, {"sample_weight": "prediction"}], ids=str)
def test_gradient_stays_off_the_logits_when_asked(option: dict[str, Any]) -> None:
    logits, features = random_batch()
    logits.requires_grad_(), features.requires_grad_()
    NIRRegularizer(**option)(logits, features).backward()
    assert logits.grad is None
    assert features.grad.abs().sum() > 0


def test_activation_of_signed_features() -> None:
    signed = torch.tensor([[1.0, -2.0], [3.0, -4.0]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)  # p = 1/2 everywhere: plain means
    # relu: m = (2, 0), variance 1; abs: m = (2, 3), variance 1/4; as it is: m = (2, -3), variance 25/4
    values = [NIRRegularizer(activation=name)(zero, signed).item() for name in ("relu", "abs", None)]
    assert values == pytest.approx([1, 0.25, 6.25], rel=1e-7)


def test_momentum_averages_sums() -> None:
    # Sums (p h, p, B) of batch 1: ((4, 0), 1, 2), of batch 2: ((0, 1), 1, 2). With momentum 1/4 the second call
    # sees ((1, 0.75), 1, 2): m = (1, 0.75), variance (1/8)^2. Gradient reaches only the 3/4 of batch 2.
    zero = torch.zeros(2, dtype=torch.float64)
    first = torch.tensor([[8.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    second = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64).requires_grad_()
    regularizer = NIRRegularizer(momentum=0.25)
    assert regularizer(zero, first).item() == pytest.approx(4, rel=1e-7)  # m = (4, 0)
    value = regularizer(zero, second)
    assert value.item() == pytest.approx(1 / 64, rel=1e-6)
    # dL/dm = (2/2)(m_j - mean) = (1/8, -1/8); dm/dh_i = 0.75 * p_i / 1 = 3/8
    (gradient,) = torch.autograd.grad(value, second)
    torch.testing.assert_close(gradient, torch.tensor([[3 / 64, -3 / 64]] * 2).double(), rtol=1e-6, atol=0)
    # eval() uses the batch alone and leaves the running sums as they are
    state = regularizer.state_dict()["_extra_state"]["running"].clone()
    assert regularizer.eval()(zero, first).item() == pytest.approx(4, rel=1e-7)
    assert torch.equal(regularizer.state_dict()["_extra_state"]["running"], state)


def test_momentum_survives_a_checkpoint(tmp_path: Path) -> None:
    batches = [random_batch(seed=seed) for seed in range(4)]
    whole = NIRRegularizer(momentum=0.9)
    values = [whole(*batch).item() for batch in batches]
    first = NIRRegularizer(momentum=0.9)
    _ = [first(*batch) for batch in batches[:2]]
    torch.save(first.state_dict(), tmp_path / "state.pt")
    resumed = NIRRegularizer(momentum=0.9)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [resumed(*batch).item() for batch in batches[2:]] == values[2:]
    with pytest.raises(MonaiFairError, match=r"expected running sums of shape \(1, 9\).* got \(1, 7\)"):
        resumed(*random_batch(channels=7))


def test_underflow_stays_finite() -> None:
    logits = torch.full((4, 1), -1000.0, requires_grad=True)
    features = torch.rand(4, 5).requires_grad_()
    for options in ({}, {"normalizer": "batch"}, {"scale_free": True}):
        value = NIRRegularizer(**options)(logits, features)
        gradients = torch.autograd.grad(value, (logits, features))
        assert value.item() == 0
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_batch_of_one_is_the_variance_of_its_features() -> None:
    features = torch.tensor([[1.0, 2.0, 6.0]], dtype=torch.float64)  # mean 3, variance (4 + 1 + 9) / 3
    for logits in (torch.tensor([0.3]).double(), torch.tensor([[0.3]]).double()):
        assert NIRRegularizer()(logits, features).item() == pytest.approx(14 / 3, rel=1e-7)


@pytest.mark.parametrize(("given", "computed"), [("bfloat16", "float32"), ("float16", "float32"), ("float64",) * 2])
def test_dtype(given: str, computed: str) -> None:
    logits, features = (value.to(getattr(torch, given)) for value in random_batch())
    assert NIRRegularizer()(logits, features).dtype == getattr(torch, computed)


def test_autocast_does_not_lower_precision() -> None:
    logits, features = (value.float() for value in random_batch(batch=64, channels=128))
    expected = NIRRegularizer()(logits, features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(NIRRegularizer()(logits, features), expected)


def test_meta_tensors_give_plain_tensors() -> None:
    value = NIRRegularizer(sample_weight="prob_label")(MetaTensor(LOGITS), MetaTensor(FEATURES), MetaTensor([1, 0]))
    assert type(value) is torch.Tensor


def test_statistics_derived_by_hand() -> None:
    # class 0: m = (3, 1, 2): std sqrt(2/3), mean 2, top 3/6; class 1: (1, 1, 1): 0, 1, 1/3
    m = torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    values = {name: value.item() for name, value in incidence_statistics(m).items()}
    assert values == pytest.approx({"cv": math.sqrt(2 / 3) / 4, "top1_share": 5 / 12, "feature_scale": 1.5})


def test_statistics_of_silent_channels_are_nan() -> None:
    values = {name: value.item() for name, value in incidence_statistics(torch.zeros(1, 3)).items()}
    assert math.isnan(values["cv"])
    assert math.isnan(values["top1_share"])
    assert values["feature_scale"] == 0
    # a spread around a mean of 0 has no coefficient of variation either
    assert math.isnan(incidence_statistics(torch.tensor([[1.0, -1.0]]))["cv"].item())


def test_one_step_lowers_the_coefficient_of_variation_at_fixed_scale() -> None:
    generator = torch.Generator().manual_seed(1)
    raw = torch.rand(32, 16, generator=generator, dtype=torch.float64).pow(4).requires_grad_()
    prob = torch.rand(32, generator=generator, dtype=torch.float64)

    def means() -> torch.Tensor:
        return probability_weighted_means(raw / raw.mean(), prob)  # normalised: the scale cannot pay

    before = means()
    neuron_incidence_redistribution(before).backward()
    with torch.no_grad():
        raw -= 0.1 * raw.grad
    before, after = incidence_statistics(before), incidence_statistics(means())
    assert after["cv"] < before["cv"] - 1e-4


def test_training_redistributes_on_its_own_scale() -> None:
    """With the scale-free form the spread falls by more than half; no gain in fairness is claimed or tested."""
    spread = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        encoder, head = nn.Sequential(nn.Linear(8, 32), nn.ReLU()), nn.Linear(32, 1)
        x = torch.randn(256, 8)
        y = (x[:, 0] + 0.5 * torch.randn(256) > 0).long()
        loss_function = NIRLoss(weight, regularizer=NIRRegularizer(scale_free=True))
        optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-2)
        for _ in range(60):
            features = encoder(x)
            optimizer.zero_grad()
            loss_function(head(features), y, features).backward()
            optimizer.step()
        means = NIRRegularizer().channel_means(head(features), features)
        spread[weight] = incidence_statistics(means)["cv"].item()
    assert spread[1.0] < 0.5 * spread[0.0]


def test_loss_is_base_plus_weighted_penalty() -> None:
    labels = torch.tensor([1, 0])
    # cross-entropy -log 0.75 for both samples; penalty 2/3
    loss = NIRLoss(0.3)(LOGITS, labels, FEATURES)
    assert loss.item() == pytest.approx(math.log(4 / 3) + 0.3 * 2 / 3, rel=1e-7)
    other = NIRLoss(0.3, nn.BCEWithLogitsLoss())(LOGITS, labels.double(), FEATURES)
    torch.testing.assert_close(loss, other)
    assert torch.equal(NIRLoss(0)(LOGITS, labels, FEATURES), ClassificationLoss()(LOGITS, labels))


def test_loss_with_contributions_reaches_the_classifier() -> None:
    layer = nn.Linear(3, 1).double()
    loss = NIRLoss(regularizer=NIRRegularizer(use_contribution=True, detach_prob=True))
    base = ClassificationLoss()
    features, labels = FEATURES, torch.tensor([1, 0])
    (with_penalty,) = torch.autograd.grad(loss(layer(features), labels, features, layer.weight), layer.weight)
    (alone,) = torch.autograd.grad(base(layer(features), labels), layer.weight)
    assert not torch.allclose(with_penalty, alone)


ERRORS = [
    (
        lambda: NIRRegularizer()(torch.zeros(3), torch.zeros(2, 4)),
        "expected features of shape (B, D) with B = 3 as the predictions have and D >= 1, got (2, 4); "
        "take the input of the last layer from the same forward pass",
    ),
    (
        lambda: NIRRegularizer()(torch.zeros(2), torch.zeros(2, 4, 1)),
        "expected features of shape (B, D) with B = 2 as the predictions have and D >= 1, got (2, 4, 1); "
        "take the input of the last layer from the same forward pass",
    ),
    (
        lambda: NIRRegularizer()(torch.zeros(2, 1, 5), torch.zeros(2, 4)),
        "sample_weights: expected y_pred of shape (B,), (B, 1) or (B, K), got (2, 1, 5); pool it",
    ),
    (
        lambda: NIRRegularizer(sample_weight="prob_label")(torch.zeros(2), torch.zeros(2, 4)),
        "sample_weights: expected y of shape (2, 1) for 'prob_label', got none; pass the labels",
    ),
    (
        lambda: NIRRegularizer(classes=[3])(torch.zeros(2, 3), torch.zeros(2, 4)),
        "sample_weights: expected classes among [0, 1, 2] for 3 outputs, got [3]; "
        "correct 'classes' or the network's outputs",
    ),
    (
        lambda: NIRRegularizer(classes=[0])(torch.zeros(2, 1), torch.zeros(2, 4)),
        "sample_weights: expected classes among [1] for 1 outputs, got [0]; correct 'classes' or the network's outputs",
    ),
    (
        lambda: NIRRegularizer(use_contribution=True)(torch.zeros(2), torch.zeros(2, 4)),
        "NIRRegularizer: expected classifier_weight of shape (K, 4) for use_contribution, got none; "
        "pass the weight of the last linear layer",
    ),
    (
        lambda: NIRRegularizer(correction=1)(torch.zeros(2), torch.zeros(2, 1)),
        "expected means of shape (C, D) with D > 1, got (1, 1); choose a layer with more channels or correction=0",
    ),
    (
        lambda: NIRRegularizer(normalizer="sum", correction=2, momentum=1.0, classes=[1, 1]),
        "NIRRegularizer: 4 problems\n"
        "  1. expected normalizer to be 'weights' or 'batch', got 'sum'; choose one\n"
        "  2. expected correction to be 0 or 1, got 2; choose one\n"
        "  3. expected momentum to be None or in [0, 1), got 1.0; correct it\n"
        "  4. expected classes to be None or distinct indices, got [1, 1]; correct it",
    ),
    (
        lambda: probability_weighted_means(FEATURES, PROB, normalizer="sum"),
        "expected normalizer 'weights' or 'batch', got 'sum'; choose one",
    ),
    (
        lambda: NIRLoss(-0.1),
        "NIRLoss: expected a finite weight of at least 0, got -0.1; correct 'weight'",
    ),
    (
        lambda: NIRLoss(regularizer=NIRRegularizer(multi_label=True)),
        "NIRLoss: expected a loss_function for a multi-label penalty, got none; "
        "give one, such as torch.nn.BCEWithLogitsLoss()",
    ),
]


@pytest.mark.parametrize(("call", "message"), ERRORS)
def test_error_text(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        call()
    assert str(caught.value) == message
