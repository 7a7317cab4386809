"""Laws of neuron incidence redistribution that hold for every valid batch."""

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from monai_fair.losses import (
    NIRRegularizer,
    incidence_statistics,
    neuron_incidence_redistribution,
    probability_weighted_means,
)

Batch = tuple[torch.Tensor, torch.Tensor]
SETTINGS = settings(deadline=None, max_examples=60, derandomize=True)


@st.composite
def batches(draw: st.DrawFn, max_outputs: int = 3) -> Batch:
    batch, channels = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    outputs = draw(st.integers(1, max_outputs))
    logits = draw(arrays(np.float64, (batch, outputs), elements=st.floats(-4, 4)))
    features = draw(arrays(np.float64, (batch, channels), elements=st.floats(0, 8)))
    return torch.from_numpy(logits), torch.from_numpy(features)


@st.composite
def options(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "normalizer": draw(st.sampled_from(["weights", "batch"])),
        "scale_free": draw(st.booleans()),
        "sample_weight": draw(st.sampled_from(["prob", "prediction"])),
        "multi_label": draw(st.booleans()),
    }


@SETTINGS
@given(batches(), options())
def test_never_negative(batch: Batch, option: dict[str, Any]) -> None:
    assert NIRRegularizer(**option)(*batch) >= 0


@SETTINGS
@given(batches(), st.floats(0, 8))
def test_zero_when_all_channels_are_alike(batch: Batch, value: float) -> None:
    # (i) each sample may have its own level, as long as its channels agree
    logits, features = batch
    alike = (features[:, :1] + value).expand(-1, 5)
    assert NIRRegularizer()(logits, alike).item() == pytest.approx(0, abs=1e-20)


@SETTINGS
@given(batches())
def test_positive_when_the_means_differ(batch: Batch) -> None:
    # (i), the other direction
    logits, features = batch
    features = features + torch.arange(features.shape[1]) * 10.0
    value = NIRRegularizer()(logits, features).item()
    assert value > 0 if features.shape[1] > 1 else value == 0


@SETTINGS
@given(batches(), st.floats(0.01, 1))
def test_scaling_all_probabilities_changes_nothing(batch: Batch, factor: float) -> None:
    # (ii) up to eps / sum p, and sum p is at least 0.018 for logits above -4
    logits, features = batch
    prob = logits.sigmoid()
    value, scaled = (
        neuron_incidence_redistribution(probability_weighted_means(features, p)).item() for p in (prob, prob * factor)
    )
    assert scaled == pytest.approx(value, rel=1e-3, abs=1e-12)
    exact = probability_weighted_means(features, prob * factor, eps=0)
    torch.testing.assert_close(exact, probability_weighted_means(features, prob, eps=0), rtol=1e-12, atol=1e-12)


@SETTINGS
@given(batches(), options(), st.randoms(use_true_random=False))
def test_order_of_samples_and_channels_changes_nothing(batch: Batch, option: dict[str, Any], random: Random) -> None:
    # (iii)
    logits, features = batch
    rows = random.sample(range(len(logits)), len(logits))
    columns = random.sample(range(features.shape[1]), features.shape[1])
    regularizer = NIRRegularizer(**option)
    shuffled = regularizer(logits[rows], features[rows][:, columns])
    torch.testing.assert_close(shuffled, regularizer(logits, features), rtol=1e-9, atol=1e-12)


@SETTINGS
@given(batches(max_outputs=1), st.booleans())
def test_gradient_reaches_encoder_and_classifier(batch: Batch, detach: bool) -> None:
    # (iv) features that differ between samples and channels by construction, so that no gradient is 0 by chance
    logits, features = batch
    logits = torch.cat([logits, logits + 1]).requires_grad_()
    levels = torch.tensor([[0.0, 9.0], [20.0, 1.0]], dtype=torch.float64).repeat_interleave(len(features), 0)
    levels.requires_grad_()
    NIRRegularizer(detach_prob=detach)(logits, levels).backward()
    assert levels.grad.abs().sum() > 0
    assert logits.grad is None if detach else logits.grad.abs().sum() > 0


@SETTINGS
@given(batches(), options(), st.floats(-2000, -100))
def test_finite_when_probabilities_underflow(batch: Batch, option: dict[str, Any], shift: float) -> None:
    # (v) in float32, where sigmoid(-104) is 0
    logits, features = (value.float() for value in batch)
    logits = (logits + shift).requires_grad_()
    features.requires_grad_()
    value = NIRRegularizer(**option)(logits, features)
    assert value.isfinite()
    (gradient,) = torch.autograd.grad(value, features)
    assert gradient.isfinite().all()


@SETTINGS
@given(batches(), st.data())
def test_batch_of_one_is_the_variance_of_its_features(batch: Batch, data: Any) -> None:
    # (vi)
    logits, features = batch
    row = data.draw(st.integers(0, len(logits) - 1))
    value = NIRRegularizer()(logits[row : row + 1], features[row : row + 1]).item()
    assert value == pytest.approx(np.var(features[row].numpy()), rel=1e-4, abs=1e-12)


@SETTINGS
@given(batches(max_outputs=1), st.integers(2, 4))
def test_repeating_the_batch_changes_nothing(batch: Batch, times: int) -> None:
    # (vii) for one process: the sum over equal shards is the statistic of one shard
    logits, features = batch
    for normalizer in ("weights", "batch"):
        regularizer = NIRRegularizer(normalizer=normalizer)
        repeated = regularizer(logits.repeat(times, 1), features.repeat(times, 1))
        torch.testing.assert_close(repeated, regularizer(logits, features), rtol=1e-5, atol=1e-12)


@SETTINGS
@given(batches(), st.floats(0.1, 100))
def test_scale_free_form_and_statistics_ignore_the_scale(batch: Batch, factor: float) -> None:
    logits, features = batch
    features = features + 0.5
    regularizer = NIRRegularizer(scale_free=True)
    value, scaled = regularizer(logits, features).item(), regularizer(logits, features * factor).item()
    assert scaled == pytest.approx(value, rel=1e-4, abs=1e-12)
    before = incidence_statistics(regularizer.channel_means(logits, features))
    after = incidence_statistics(regularizer.channel_means(logits, features * factor))
    for name in ("cv", "top1_share"):
        torch.testing.assert_close(after[name], before[name], rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(after["feature_scale"], before["feature_scale"] * factor, rtol=1e-9, atol=1e-12)
