"""The base loss: derived values, torch as reference, exact error text."""

import math

import pytest
import torch
from monai.data import MetaTensor
from torch.nn import functional

from monai_fair.errors import MonaiFairError
from monai_fair.losses import ClassificationLoss

LOGITS = torch.tensor([0.3, -1.2, 2.0, 0.0], dtype=torch.float64)
LABELS = torch.tensor([1, 0, 0, 1])


def test_one_logit_value_derived_by_hand() -> None:
    # -log sigmoid(0) = log 2; -log(1 - sigmoid(log 3)) = -log(1/4) = log 4; mean = (log 2 + log 4) / 2 = 1.5 log 2
    loss = ClassificationLoss()(torch.tensor([0.0, math.log(3)], dtype=torch.float64), torch.tensor([1, 0]))
    assert loss.item() == pytest.approx(1.5 * math.log(2), rel=1e-14)


def test_weighted_mean_derived_by_hand() -> None:
    # losses log 2 (class 1, weight 3) and log 4 (class 0, weight 1): (3 log 2 + 2 log 2) / 4 = 1.25 log 2
    logits = torch.tensor([[0.0], [math.log(3)]], dtype=torch.float64)
    loss = ClassificationLoss([1, 3])(logits, torch.tensor([[1], [0]]))
    assert loss.item() == pytest.approx(1.25 * math.log(2), rel=1e-14)


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
@pytest.mark.parametrize("label_shape", [(4,), (4, 1)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int32, torch.float32, torch.float64, torch.bool])
def test_one_logit_equals_binary_cross_entropy(
    shape: tuple[int, ...], label_shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    logits = LOGITS.reshape(shape).requires_grad_()
    loss = ClassificationLoss()(logits, LABELS.to(dtype).reshape(label_shape))
    reference = functional.binary_cross_entropy_with_logits(LOGITS, LABELS.double())
    torch.testing.assert_close(loss, reference, rtol=1e-14, atol=0)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient.reshape(-1), (LOGITS.sigmoid() - LABELS) / 4, rtol=1e-13, atol=1e-16)


def test_one_logit_is_stable_for_large_logits() -> None:
    loss = ClassificationLoss()(torch.tensor([1000.0, -1000.0]), torch.tensor([0, 1]))
    assert loss.item() == 1000.0


@pytest.mark.parametrize("weight", [None, [0.2, 1.0, 5.0]])
def test_several_logits_equal_torch(weight: list[float] | None) -> None:
    logits = torch.linspace(-2, 3, 12, dtype=torch.float64).reshape(4, 3)
    labels = torch.tensor([[2], [0], [1], [1]])
    reference = torch.nn.CrossEntropyLoss(None if weight is None else torch.tensor(weight, dtype=torch.float64))
    torch.testing.assert_close(ClassificationLoss(weight)(logits, labels), reference(logits, labels[:, 0]))


def test_binary_weights_equal_those_of_two_logits() -> None:
    two = torch.stack([torch.zeros(4), LOGITS.float()], 1)
    reference = torch.nn.CrossEntropyLoss(torch.tensor([0.3, 2.0]))(two, LABELS)
    torch.testing.assert_close(ClassificationLoss([0.3, 2.0])(LOGITS.float(), LABELS), reference)


@pytest.mark.parametrize("outputs", [1, 3])
def test_batch_of_one(outputs: int) -> None:
    loss = ClassificationLoss()(torch.zeros(1, outputs), torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log(max(2, outputs)))


def test_meta_tensors_give_a_plain_tensor() -> None:
    loss = ClassificationLoss()(MetaTensor(LOGITS), MetaTensor(LABELS))
    assert type(loss) is torch.Tensor
    assert loss == ClassificationLoss()(LOGITS, LABELS)


def test_weight_is_no_state() -> None:
    assert ClassificationLoss([1, 2]).state_dict() == {}


@pytest.mark.parametrize(
    ("y_pred", "y", "message"),
    [
        (
            torch.zeros(2, 3, 4),
            torch.zeros(2),
            "ClassificationLoss: expected y_pred of shape (B,), (B, 1) or (B, K) with B >= 1, got (2, 3, 4); "
            "pool spatial dimensions first",
        ),
        (
            torch.zeros(0, 3),
            torch.zeros(0),
            "ClassificationLoss: expected y_pred of shape (B,), (B, 1) or (B, K) with B >= 1, got (0, 3); "
            "pool spatial dimensions first",
        ),
        (
            torch.zeros(2, 3),
            torch.zeros(2, 3),
            "ClassificationLoss: expected y of shape (2,) or (2, 1) for y_pred (2, 3), got (2, 3); "
            "give class indices, not one-hot rows",
        ),
        (
            torch.zeros(3),
            torch.tensor([0, 2, 3]),
            "ClassificationLoss: expected y to hold class indices from 0 to 1, got 2 (2 of 3 labels); "
            "correct the labels or the number of outputs",
        ),
        (
            torch.zeros(2, 3),
            torch.tensor([-100, 0]),
            "ClassificationLoss: expected y to hold class indices from 0 to 2, got -100 (1 of 2 labels); "
            "correct the labels or the number of outputs",
        ),
        (
            torch.zeros(2),
            torch.tensor([0.5, 1.0]),
            "ClassificationLoss: expected y to hold class indices from 0 to 1, got 0.5 (1 of 2 labels); "
            "correct the labels or the number of outputs",
        ),
        (
            torch.zeros(2),
            torch.tensor([torch.nan, 1.0]),
            "ClassificationLoss: expected y to hold class indices from 0 to 1, got nan (1 of 2 labels); "
            "correct the labels or the number of outputs",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(y_pred: torch.Tensor, y: torch.Tensor, message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        ClassificationLoss()(y_pred, y)
    assert str(caught.value) == message


def test_number_of_weights_must_be_that_of_classes() -> None:
    with pytest.raises(MonaiFairError) as caught:
        ClassificationLoss([1, 2, 3])(torch.zeros(2), torch.tensor([0, 1]))
    assert str(caught.value) == (
        "ClassificationLoss: expected one weight per class, 2 for y_pred (2,), got 3; correct 'weight'"
    )


def test_all_bad_weights_are_named_at_once() -> None:
    with pytest.raises(MonaiFairError) as caught:
        ClassificationLoss([0, float("nan"), 1])
    assert str(caught.value) == (
        "ClassificationLoss: 2 problems\n"
        "  1. expected weight[0] to be a positive finite number, got 0.0; correct 'weight'\n"
        "  2. expected weight[1] to be a positive finite number, got nan; correct 'weight'"
    )
    with pytest.raises(MonaiFairError, match="at least 2, got 1"):
        ClassificationLoss([1.0])
