"""Group DRO: derived values, laws, and one process against two."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from monai_fair.errors import MonaiFairError
from monai_fair.losses import ClassificationLoss, GroupDROLoss, group_dro_step

LAWS = settings(deadline=None, max_examples=60, derandomize=True)
COUNTS = {"a": 4, "b": 16, "c": 1}
LOG2, LOG3 = math.log(2), math.log(3)
# cross-entropies: logit 0 gives log 2; logit log 3 gives log 4 for label 0 and log(4/3) for label 1
LOGITS = torch.tensor([[0.0], [LOG3], [LOG3]], dtype=torch.float64)
LABELS = torch.tensor([1, 0, 1])


def test_two_steps_derived_by_hand() -> None:
    # Step 1, eta 1: l_a = log 2, l_b = log 4, c absent. q = (1/3, 1/3, 1/3) -> (2/3, 4/3, 1/3) -> (2, 4, 1) / 7.
    # loss = 2/7 log 2 + 4/7 * 2 log 2 = 10/7 log 2
    loss = GroupDROLoss(COUNTS, step_size=1.0)
    value = loss(LOGITS[:2], LABELS[:2], ["a", "b"])
    assert value.item() == pytest.approx(10 / 7 * LOG2, rel=1e-6)
    assert loss.weights == pytest.approx({"a": 2 / 7, "b": 4 / 7, "c": 1 / 7}, rel=1e-6)
    # Step 2: l_c = (log 2 + log 4) / 2 = 1.5 log 2. q -> (2, 4, 2 sqrt 2) / (6 + 2 sqrt 2); loss = q_c l_c
    total = 6 + 2 * math.sqrt(2)
    value = loss(LOGITS[:2], LABELS[:2], ["c", "c"])
    assert value.item() == pytest.approx(2 * math.sqrt(2) / total * 1.5 * LOG2, rel=1e-6)
    assert loss.weights == pytest.approx({"a": 2 / total, "b": 4 / total, "c": 2 * math.sqrt(2) / total}, rel=1e-6)


def test_the_adjustment_derived_by_hand() -> None:
    # C = 2 log 2: C / sqrt(n) = log 2 for a (n 4) and log 2 / 2 for b (n 16). Both losses are log 2, so that
    # q -> (2 * 2, 2 * sqrt 2, 1) / sum; the loss itself holds no C: (4 + 2 sqrt 2) / (5 + 2 sqrt 2) log 2
    loss = GroupDROLoss(COUNTS, step_size=1.0, adjustment=2 * LOG2)
    value = loss(torch.zeros(2, 1), torch.tensor([0, 1]), ["a", "b"])
    total = 5 + 2 * math.sqrt(2)
    assert loss.weights == pytest.approx({"a": 4 / total, "b": 2 * math.sqrt(2) / total, "c": 1 / total}, rel=1e-6)
    assert value.item() == pytest.approx((total - 1) / total * LOG2, rel=1e-6)


def test_the_gradient_goes_through_the_losses_and_not_through_the_weights() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = GroupDROLoss(COUNTS, step_size=1.0)
    loss(logits, LABELS, ["a", "b", "b"]).backward()
    weights = loss.weights
    # d/ds of log(1 + exp(-s)) is sigmoid(s) - 1, of log(1 + exp(s)) it is sigmoid(s); group b has two samples
    expected = [weights["a"] * (0.5 - 1), weights["b"] / 2 * 0.75, weights["b"] / 2 * (0.75 - 1)]
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad[:, 0], expected, rtol=1e-6)
    assert not loss.log_weights.requires_grad


def test_a_step_as_algorithm_1_has_it() -> None:
    """Against the product form, written in numpy."""
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.ones(5))
    log_q = torch.from_numpy(np.log(q))
    for _ in range(50):
        losses, present = rng.exponential(size=5), rng.random(5) < 0.6
        q = q * np.where(present, np.exp(0.3 * losses), 1)
        q = q / q.sum()
        log_q = group_dro_step(log_q, torch.from_numpy(losses), torch.from_numpy(present), 0.3)
    np.testing.assert_allclose(log_q.exp(), q, rtol=1e-10)


def test_a_weight_that_has_become_tiny_grows_again() -> None:
    loss = GroupDROLoss({"easy": 1, "hard": 1}, step_size=1.0)
    for _ in range(300):
        loss(torch.tensor([[-9.0], [9.0]]), torch.tensor([0, 0]), ["easy", "hard"])
    assert loss.weights["easy"] == 0.0  # below what a float32 can hold: exp(-2700)
    for _ in range(300):
        loss(torch.tensor([[9.0], [-9.0]]), torch.tensor([0, 0]), ["easy", "hard"])
    assert loss.weights["easy"] == pytest.approx(0.5, abs=0.01)


batches = st.tuples(
    arrays(np.float64, (6, 1), elements=st.floats(-4, 4)),
    arrays(np.int64, 6, elements=st.integers(0, 1)),
    st.lists(st.sampled_from(sorted(COUNTS)), min_size=6, max_size=6),
    st.floats(0, 2),
)


@given(batches)
@LAWS
def test_without_a_step_the_loss_is_the_mean_over_groups(batch: Any) -> None:
    y_pred, y, groups, adjustment = batch
    loss = GroupDROLoss(COUNTS, step_size=0.0, adjustment=adjustment)
    value = loss(torch.from_numpy(y_pred), torch.from_numpy(y), groups)
    each = functional.binary_cross_entropy_with_logits(
        torch.from_numpy(y_pred[:, 0]), torch.from_numpy(y).double(), reduction="none"
    ).numpy()
    means = [each[np.asarray(groups) == name].mean() for name in set(groups)]
    assert value.item() == pytest.approx(sum(means) / len(COUNTS), rel=1e-5, abs=1e-7)
    assert list(loss.weights.values()) == pytest.approx([1 / 3] * 3)


@given(batches, st.permutations(range(6)), st.permutations(sorted(COUNTS)))
@LAWS
def test_order_of_samples_and_order_and_names_of_groups_change_nothing(batch: Any, order: Any, names: Any) -> None:
    y_pred, y, groups, adjustment = batch
    renamed = dict(zip(sorted(COUNTS), names, strict=True))
    options = {"step_size": 0.7, "adjustment": adjustment}
    one = GroupDROLoss(COUNTS, **options)
    other = GroupDROLoss({renamed[name]: COUNTS[name] for name in reversed(COUNTS)}, **options)
    for _ in range(2):
        value = one(torch.from_numpy(y_pred), torch.from_numpy(y), groups)
        again = other(torch.from_numpy(y_pred[order]), torch.from_numpy(y[order]), [renamed[groups[i]] for i in order])
        assert again.item() == pytest.approx(value.item(), rel=1e-5, abs=1e-7)
    assert {renamed[name]: weight for name, weight in one.weights.items()} == pytest.approx(other.weights, rel=1e-5)


@given(batches)
@LAWS
def test_weights_sum_to_one_and_the_worse_group_gains_on_the_better(batch: Any) -> None:
    y_pred, y, groups, _ = batch
    loss = GroupDROLoss(COUNTS, step_size=0.5)
    loss(torch.from_numpy(y_pred), torch.from_numpy(y), groups)
    weights = loss.weights
    assert sum(weights.values()) == pytest.approx(1, rel=1e-6)
    base = ClassificationLoss()
    losses = {
        name: base(torch.from_numpy(y_pred)[mask], torch.from_numpy(y)[mask]).item()
        for name in set(groups)
        for mask in [torch.tensor([group == name for group in groups])]
    }
    ranked = sorted(losses, key=lambda name: losses[name])
    assert [weights[name] for name in ranked] == sorted(weights[name] for name in ranked)


def test_the_state_is_the_weights_and_goes_on() -> None:
    one, other = (GroupDROLoss(COUNTS, ClassificationLoss([1, 3]), step_size=0.5) for _ in range(2))
    one(LOGITS, LABELS, ["a", "b", "c"])
    assert list(one.state_dict()) == ["log_weights"]
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(LOGITS, LABELS, ["a", "a", "c"]), other(LOGITS, LABELS, ["a", "a", "c"]))
    assert torch.equal(one.log_weights, other.log_weights)


def test_groups_may_be_said_before_and_count_once() -> None:
    said, given_ = GroupDROLoss(COUNTS), GroupDROLoss(COUNTS)
    said.expect(["a", "b", "c"])
    assert torch.equal(said(LOGITS, LABELS), given_(LOGITS, LABELS, ["a", "b", "c"]))
    with pytest.raises(MonaiFairError, match="expected the groups of the batch, got none"):
        said(LOGITS, LABELS)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


SHARDS = ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9, 10, 11])
GROUPS = ["a", "b", "a", "b", "a", "c", "a", "b", "b", "c", "b", "b"]  # c is in the second process only


def train(network: nn.Module, rows: list[int]) -> dict[str, torch.Tensor]:
    """Three steps; returns value, weights and gradients of each."""
    torch.manual_seed(0)
    x, y = torch.randn(3, 12, 3), torch.randint(0, 2, (3, 12))
    bare = getattr(network, "module", network)
    loss, result = GroupDROLoss(COUNTS, step_size=0.5, adjustment=0.3), {}
    for step in range(3):
        network.zero_grad()
        value = loss(network(x[step][rows]), y[step][rows], [GROUPS[row] for row in rows])
        value.backward()
        result |= {f"value{step}": value.detach(), f"q{step}": loss.log_weights.exp()}
        result |= {f"{name}{step}": parameter.grad.clone() for name, parameter in bare.named_parameters()}
    return result


def make() -> Net:
    torch.manual_seed(1)
    return Net()


def work(rank: int, _: Path) -> tuple[dict[str, torch.Tensor], list[nn.Module]]:
    network = DistributedDataParallel(make())
    return train(network, SHARDS[rank]), [network]


def test_two_processes_have_the_weights_and_gradients_of_one(tmp_path: Path, two_processes: Callable[..., Any]) -> None:
    single, results = train(make(), list(range(12))), two_processes(work, tmp_path)
    for name, expected in single.items():
        if name.startswith("value"):
            # each process holds its own part of the groups' losses: the mean is the loss
            torch.testing.assert_close((results[0][name] + results[1][name]) / 2, expected)
        else:
            for result in results:
                torch.testing.assert_close(result[name], expected)
    assert all(torch.equal(results[0][f"q{step}"], results[1][f"q{step}"]) for step in range(3))


@pytest.mark.parametrize(
    ("make_error", "message"),
    [
        (
            lambda: GroupDROLoss({"a": 3}),
            "GroupDROLoss: expected at least two groups, got 1: a; train with ERM",
        ),
        (
            lambda: GroupDROLoss({"a": 3, "b": 0}, step_size=-1),
            "GroupDROLoss: 2 problems\n"
            "  1. expected rows in every group, got none in 'b'; leave it out\n"
            "  2. expected a finite step_size of at least 0, got -1; correct 'step_size'",
        ),
        (
            lambda: GroupDROLoss(COUNTS, adjustment=math.nan),
            "GroupDROLoss: expected a finite adjustment of at least 0, got nan; correct 'adjustment'",
        ),
        (
            lambda: GroupDROLoss(COUNTS)(LOGITS, LABELS, ["a", "z"]),
            "GroupDROLoss: 2 problems\n"
            "  1. expected the groups of 3 samples, got 2; give one per prediction\n"
            "  2. expected groups among 'a', 'b', 'c', got 'z'; count the groups of the rows that are trained on",
        ),
        (
            lambda: GroupDROLoss(COUNTS)(LOGITS, LABELS),
            "GroupDROLoss: expected the groups of the batch, got none; attach monai_fair.handlers.GroupDROHandler to "
            "the trainer, or pass 'groups'",
        ),
    ],
)
def test_error_text(make_error: Callable[[], Any], message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        make_error()
    assert str(caught.value) == message
