"""The sensitive space of embeddings: its rank by hand, and how it follows embeddings that move."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fair.errors import MonaiFairError
from monai_fair.losses import ColumnOrthogonality, sensitive_basis, updated_basis

# energies 9, 4 and 1 of 14: shares 0.643, 0.286, 0.071
AXES = torch.diag(torch.tensor([3.0, 2.0, 1.0]))


@pytest.mark.parametrize(
    ("options", "rank"),
    [
        ({"energy": 0.64}, 1),
        ({"energy": 0.65}, 2),
        ({"energy": 0.92}, 2),
        ({"energy": 0.93}, 3),
        ({"energy": 1.0}, 3),
        ({"energy": 0.64, "rule": "reference"}, 0),
        ({"energy": 0.65, "rule": "reference"}, 1),
        ({"energy": 0.93, "rule": "reference"}, 2),
        ({"rank": 2, "energy": 0.01}, 2),
    ],
)
def test_the_rank_by_hand(options: dict[str, Any], rank: int) -> None:
    basis = sensitive_basis(AXES, **options)
    assert basis.shape == (3, rank)
    torch.testing.assert_close(basis.abs(), torch.eye(3)[:, :rank])


def test_the_space_is_that_of_numpy_s_singular_vectors() -> None:
    z = np.random.default_rng(0).standard_normal((50, 6)) * [5, 4, 3, 2, 1, 0.5]
    u = np.linalg.svd(z.T)[0][:, :3]
    basis = sensitive_basis(torch.from_numpy(z), rank=3).numpy()
    np.testing.assert_allclose(basis @ basis.T, u @ u.T, atol=1e-12)  # signs are free


def test_without_centring_the_mean_is_the_first_direction() -> None:
    z = torch.tensor([[10.0, 1.0], [10.0, -1.0], [10.0, 1.0], [10.0, -1.0]])
    torch.testing.assert_close(sensitive_basis(z, rank=1).abs(), torch.tensor([[1.0], [0.0]]))
    torch.testing.assert_close(sensitive_basis(z, rank=1, center=True).abs(), torch.tensor([[0.0], [1.0]]))
    # the first direction has 99.01 % of the energy: the published rule takes none, and its loss is silently 0
    nothing = sensitive_basis(z, energy=0.99, rule="reference")
    assert nothing.shape == (2, 0)
    assert ColumnOrthogonality(nothing)(z) == 0
    assert sensitive_basis(z, energy=0.99).shape == (2, 1)


def test_half_precision_gives_a_basis_of_float32() -> None:
    assert sensitive_basis(AXES.half(), rank=2).dtype == torch.float32
    assert sensitive_basis(AXES.double(), rank=2).dtype == torch.float64


def test_a_batch_in_the_old_space_keeps_it() -> None:
    old = torch.eye(4, dtype=torch.float64)[:, :2]
    batch = torch.tensor([[1.0, 2.0, 0, 0], [2.0, -1.0, 0, 0]], dtype=torch.float64)
    found = updated_basis(old, batch, energy=0.99)
    torch.testing.assert_close(found @ found.T, old @ old.T)


def test_directions_are_exchanged_by_their_energy() -> None:
    old = torch.eye(3)[:, :2]
    batch = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 0.1, 0.0]])  # energies 4, 0.01 (old), 9 (new)
    found = updated_basis(old, batch, energy=0.99)
    torch.testing.assert_close(found.abs(), torch.eye(3)[:, [2, 0]])
    assert updated_basis(old, batch, energy=0.5).shape == (3, 1)
    assert updated_basis(old, batch, energy=0.5, rule="reference").shape == (3, 0)
    assert updated_basis(old, batch, energy=1.0).shape == (3, 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(0, 5), st.floats(0.05, 1.0))
def test_an_updated_basis_is_orthonormal_and_keeps_the_energy(seed: int, n: int, rank: int, energy: float) -> None:
    rng = np.random.default_rng(seed)
    old = torch.from_numpy(np.linalg.qr(rng.standard_normal((5, 5)))[0][:, :rank])
    batch = torch.from_numpy(rng.standard_normal((n, 5)))
    found = updated_basis(old, batch, energy=energy)
    torch.testing.assert_close(found.T @ found, torch.eye(found.shape[1], dtype=torch.float64))
    kept = (batch @ found).square().sum() / batch.square().sum()
    assert kept >= min(energy, 1 - 1e-9) - 1e-9
    if rank == 0:  # the same as from nothing
        fresh = sensitive_basis(batch, energy=energy)
        torch.testing.assert_close(found @ found.T, fresh @ fresh.T)


@pytest.mark.parametrize(
    ("embeddings", "options", "message"),
    [
        (
            AXES,
            {"rank": 4, "energy": 0.0, "rule": "most"},
            "sensitive_basis: 3 problems\n"
            "  1. expected rank from 1 to 3, got 4; correct 'rank'\n"
            "  2. expected energy in (0, 1], got 0.0; correct 'energy'\n"
            "  3. expected rule 'least' or 'reference', got 'most'; choose one",
        ),
        (
            torch.zeros(0, 3),
            {},
            "sensitive_basis: expected finite embeddings of shape (n, d), got (0, 3); check the model they come from",
        ),
        (
            AXES.log(),
            {},
            "sensitive_basis: expected finite embeddings of shape (n, d), got (3, 3) with values that are not; check "
            "the model they come from",
        ),
    ],
)
def test_bad_input_is_one_message(embeddings: torch.Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        sensitive_basis(embeddings, **options)
    assert str(caught.value) == message


def test_a_basis_of_another_embedding_is_refused() -> None:
    with pytest.raises(MonaiFairError, match=r"expected a basis of shape \(3, r\), got \(4, 2\)"):
        updated_basis(torch.eye(4)[:, :2], AXES)
