"""Column- and row-space orthogonality: by hand, by numpy's covariance, by central differences, over two processes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_fair.errors import MonaiFairError
from monai_fair.losses import ColumnOrthogonality, RowOrthogonality

E1, E2 = torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([[0.0], [1.0], [0.0]])
Z = torch.tensor([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0], [5.0, 6.0, 9.0]])
Y = torch.tensor([0, 1, 1])


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def test_the_column_loss_by_hand() -> None:
    assert ColumnOrthogonality(E1)(Z).item() == pytest.approx((1 + 9 + 25) / 3)
    assert ColumnOrthogonality(torch.cat([E1, E2], 1))(Z).item() == pytest.approx((1 + 9 + 25 + 4 + 16 + 36) / 3)
    assert ColumnOrthogonality(E1, margin=5)(Z).item() == pytest.approx(30 / 3)
    assert ColumnOrthogonality(E1, margin=36)(Z) == 0
    assert ColumnOrthogonality(E1)(Z[:1]).item() == 1  # a batch of one


def test_every_class_has_its_own_basis() -> None:
    loss = ColumnOrthogonality([E1, torch.cat([E1, E2], 1)])
    assert loss(Z, Y).item() == pytest.approx((1 + (9 + 25 + 16 + 36) / 2) / 2)
    assert loss(Z, Y[:, None].double()).item() == pytest.approx((1 + (9 + 25 + 16 + 36) / 2) / 2)
    assert loss(Z[1:], Y[1:]).item() == pytest.approx((9 + 25 + 16 + 36) / 2)  # class 0 is absent
    assert ColumnOrthogonality([E1, E2], margin=2)(Z, Y).item() == pytest.approx((0 + (16 + 36 - 2) / 2) / 2)


def test_the_row_loss_by_hand() -> None:
    z, a = torch.tensor([[0.0], [2.0], [4.0]]), torch.tensor([[1.0, 0.0], [1.0, 3.0], [4.0, 0.0]])
    # centred: z -2, 0, 2; a -1, -1, 2 and -1, 2, -1: C = (2 + 4, 2 - 2)
    assert RowOrthogonality()(z, a).item() == pytest.approx(36 / 2)
    assert RowOrthogonality(margin=6)(z, a).item() == pytest.approx(30 / 2)
    assert RowOrthogonality(margin=37)(z, a) == 0
    assert RowOrthogonality(per_sample=True)(z, a).item() == pytest.approx(4 / 2)


def test_the_row_loss_is_numpy_s_covariance() -> None:
    z, a = normal(0, 20, 4), normal(1, 20, 4)
    cross = 20 * np.cov(z.T, a.T, bias=True)[:4, 4:]
    assert RowOrthogonality()(z, a).item() == pytest.approx((cross**2).sum() / 16, rel=1e-12)
    assert RowOrthogonality(per_sample=True)(z, a).item() == pytest.approx((cross**2).sum() / 16 / 400, rel=1e-12)


def test_the_row_loss_by_class_is_the_mean_of_the_classes() -> None:
    z, a, y = normal(0, 12, 3), normal(1, 12, 5), torch.tensor([0, 1, 1] * 4)
    loss, plain = RowOrthogonality(num_classes=2), RowOrthogonality()
    own = [plain(z[y == label], a[y == label]) for label in (0, 1)]
    torch.testing.assert_close(loss(z, a, y), (own[0] + own[1]) / 2)
    torch.testing.assert_close(loss(z[y == 1], a[y == 1], y[y == 1]), own[1])  # class 0 is absent
    torch.testing.assert_close(RowOrthogonality(num_classes=3)(z, a, y), (own[0] + own[1]) / 2)
    assert loss(z, a, torch.arange(12) // 11).isfinite()  # class 1 has one sample


def test_the_row_loss_grows_with_the_square_of_the_batch_unless_per_sample() -> None:
    z, a = normal(2, 8, 3), normal(3, 8, 3)
    thrice = (z.repeat(3, 1), a.repeat(3, 1))
    assert (RowOrthogonality()(*thrice) / RowOrthogonality()(z, a)).item() == pytest.approx(9)
    per_sample = RowOrthogonality(per_sample=True)
    assert (per_sample(*thrice) / per_sample(z, a)).item() == pytest.approx(1)


def test_a_batch_of_one_costs_nothing_and_moves_nothing() -> None:
    z = torch.ones(1, 3, requires_grad=True)
    loss = RowOrthogonality()(z, torch.ones(1, 3))
    loss.backward()
    assert loss == 0
    assert (z.grad == 0).all()  # type: ignore[union-attr]


def test_a_large_mean_hides_no_small_covariance() -> None:
    z, a = normal(4, 64, 4).float(), normal(5, 64, 4).float()
    expected = RowOrthogonality()(z, a)
    # float32 has 7 digits, of which the mean takes 4
    assert RowOrthogonality()(z + 1e3, a - 1e3).item() == pytest.approx(expected.item(), rel=5e-3)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_gradients_are_those_of_central_differences(margin: float) -> None:
    z, a, y = normal(6, 7, 3).requires_grad_(), normal(7, 7, 3).requires_grad_(), torch.tensor([0, 1, 0, 1, 1, 0, 1])
    bases = [torch.linalg.qr(normal(seed, 3, 2))[0] for seed in (8, 9)]
    column = ColumnOrthogonality(bases, margin=margin)
    assert torch.autograd.gradcheck(lambda z: column(z, y), z)
    for row in (RowOrthogonality(margin=margin, detach=False), RowOrthogonality(num_classes=2, detach=False)):
        assert torch.autograd.gradcheck(lambda z, a, row=row: row(z, a, y), (z, a))


def test_the_finished_model_is_not_moved() -> None:
    z, a = normal(10, 6, 3).requires_grad_(), normal(11, 6, 3).requires_grad_()
    RowOrthogonality()(z, a).backward()
    assert a.grad is None
    assert z.grad is not None


def test_descent_takes_embeddings_out_of_the_space() -> None:
    z = normal(12, 30, 3).float().requires_grad_()
    loss = ColumnOrthogonality(E1)
    optimiser = torch.optim.SGD([z], lr=3.0)
    before = z.detach().clone()
    for _ in range(30):
        optimiser.zero_grad()
        loss(z).backward()
        optimiser.step()
    assert loss(z) < 1e-4
    torch.testing.assert_close(z[:, 1:], before[:, 1:])  # what is orthogonal stays


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    z, a = (200 * normal(13, 40, 8)).to(dtype), normal(14, 40, 8).to(dtype)
    row, column = RowOrthogonality(), ColumnOrthogonality(torch.eye(8)[:, :2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = row(z, a), column(z)
    expected = row(z.float(), a.float()), column(z.float())
    assert all(value.dtype == torch.float32 for value in found)
    assert all(value.isfinite() for value in found)  # 200^2 * 40 is beyond float16
    torch.testing.assert_close(found, expected)


def test_a_checkpoint_keeps_the_bases() -> None:
    loss, other = ColumnOrthogonality([E1, E2]), ColumnOrthogonality([E2, E1])
    other.load_state_dict(loss.state_dict())
    assert other(Z, Y) == loss(Z, Y)
    assert repr(loss) == "ColumnOrthogonality(classes=2, d=3, rank=1, margin=0.0)"
    assert repr(RowOrthogonality()) == "RowOrthogonality(num_classes=None, margin=0.0, per_sample=False)"


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: ColumnOrthogonality([]), "expected at least one basis, got none"),
        (lambda: ColumnOrthogonality([E1, E1[:2]]), r"bases of shape \(d, r\) with one d, got \(3, 1\), \(2, 1\)"),
        (lambda: ColumnOrthogonality(E1, margin=-1), "expected a margin of at least 0, got -1"),
        (lambda: ColumnOrthogonality(E1)(Z[:, :2]), r"expected embeddings of shape \(n, 3\), got \(3, 2\)"),
        (lambda: ColumnOrthogonality([E1, E2])(Z), "expected a label for each of 3 samples, got none"),
        (lambda: ColumnOrthogonality([E1, E2])(Z, Y + 1), "class indices from 0 to 1, got 2; correct the labels"),
        (lambda: RowOrthogonality(num_classes=0), "expected num_classes of at least 1, or None, got 0"),
        (lambda: RowOrthogonality()(Z, Z[:2]), r"got \(3, 3\) and \(2, 3\); give both of the same samples"),
        (lambda: RowOrthogonality(num_classes=2)(Z, Z, Y[:2]), r"for each of 3 samples, got shape \(2,\)"),
        (lambda: RowOrthogonality(num_classes=2)(Z, Z, Y * torch.nan), "from 0 to 1, got nan"),
    ],
)  # fmt: skip
def test_bad_input(use: Callable[[], Any], message: str) -> None:
    with pytest.raises(MonaiFairError, match=message):
        use()


SHARDS = (range(5), range(5, 12))  # unequal, and class 1 is in the second alone
LABELS = torch.tensor([0] * 5 + [0, 1, 1, 0, 1, 1, 1])
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "by class": {"num_classes": 2},
    "per sample": {"num_classes": 2, "per_sample": True, "margin": 0.01},
}


def losses(network: nn.Module, rows: list[int]) -> dict[str, torch.Tensor]:
    """Value and gradient of every loss."""
    images, a = normal(20, 12, 3), normal(21, 12, 4)
    bases = [torch.linalg.qr(normal(seed, 4, 2))[0] for seed in (22, 23)]
    column = ColumnOrthogonality(bases, margin=0.01)
    found = {}
    for name in [*OPTIONS, "column"]:
        network.zero_grad()
        z, y = network(images[rows]), LABELS[rows]
        value = column(z, y) if name == "column" else RowOrthogonality(**OPTIONS[name])(z, a[rows], y)
        value.backward()
        found[name] = value.detach()
        bare = getattr(network, "module", network)
        found |= {f"{name} {key}": parameter.grad.clone() for key, parameter in bare.named_parameters()}
    return found


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 4).double()


def work(rank: int, _: Path) -> tuple[dict[str, torch.Tensor], list[nn.Module]]:
    network = DistributedDataParallel(encoder())
    return losses(network, list(SHARDS[rank])), [network]


def test_two_processes_are_one(two_processes: Callable[..., Any], tmp_path: Path) -> None:
    single = losses(encoder(), list(range(12)))
    # there is something to compare; a bias moves no covariance
    assert min(value.abs().max() for name, value in single.items() if not name.endswith("bias")) > 1e-4
    for found in two_processes(work, tmp_path):
        torch.testing.assert_close(found, single, rtol=1e-10, atol=1e-12)
