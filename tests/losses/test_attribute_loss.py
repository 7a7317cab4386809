"""The loss of guessing attributes: torch's own losses of each, over what is known."""

import pytest
import torch
from torch.nn import functional

from monai_fair.errors import MonaiFairError
from monai_fair.losses import AttributeLoss

LEVELS = [2, 3, 0]  # sex, race, age
NAN = float("nan")
A = torch.tensor([[1.0, 2.0, 0.5], [0.0, 0.0, -1.0], [1.0, 1.0, 2.0], [0.0, 1.0, 0.0]], dtype=torch.float64)


def guesses() -> torch.Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_it_is_the_mean_of_the_losses_of_the_attributes() -> None:
    y_pred = guesses()
    sex = functional.binary_cross_entropy_with_logits(y_pred[:, 0], A[:, 0])
    race = functional.cross_entropy(y_pred[:, 1:4], A[:, 1].long())
    age = functional.mse_loss(y_pred[:, 4], A[:, 2])
    torch.testing.assert_close(AttributeLoss(LEVELS)(y_pred, A), (sex + race + age) / 3)


def test_what_is_missing_does_not_count() -> None:
    y_pred, some = guesses(), A.clone()
    some[0, 0] = some[2, 1] = NAN
    some[:, 2] = NAN
    sex = functional.binary_cross_entropy_with_logits(y_pred[1:, 0], A[1:, 0])
    rows = [0, 1, 3]
    race = functional.cross_entropy(y_pred[rows, 1:4], A[rows, 1].long())
    torch.testing.assert_close(AttributeLoss(LEVELS)(y_pred, some), (sex + race) / 2)


def test_nothing_known_costs_nothing_and_moves_nothing() -> None:
    y_pred = guesses().requires_grad_()
    loss = AttributeLoss(LEVELS)(y_pred, torch.full_like(A, NAN))
    loss.backward()
    assert loss == 0
    assert (y_pred.grad == 0).all()  # type: ignore[union-attr]


def test_gradients_are_those_of_central_differences() -> None:
    some = A.clone()
    some[1, 1] = NAN
    assert torch.autograd.gradcheck(lambda y_pred: AttributeLoss(LEVELS)(y_pred, some), guesses().requires_grad_())


def test_half_precision_is_computed_in_float32() -> None:
    y_pred = guesses().half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = AttributeLoss(LEVELS)(y_pred, A.float())
    torch.testing.assert_close(found, AttributeLoss(LEVELS)(y_pred.float(), A.float()))


def test_bad_input() -> None:
    with pytest.raises(MonaiFairError, match="expected at least one attribute, got none"):
        AttributeLoss([])
    with pytest.raises(
        MonaiFairError, match=r"y_pred of shape \(B, 5\) and attributes of shape \(B, 3\), got \(4, 4\)"
    ):
        AttributeLoss(LEVELS)(guesses()[:, :4], A)
