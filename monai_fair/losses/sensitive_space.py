"""The few directions of an embedding space in which sensitive attributes live.

References:
    Deng, Zhong, Dou, Li, On fairness of medical image classification with multiple sensitive attributes via learning
    orthogonal representations, IPMI 2023, arXiv:2301.01481.
"""

from typing import Literal, get_args

import torch

from monai_fair.errors import MonaiFairError, raise_problems

RankRule = Literal["least", "reference"]


def sensitive_basis(
    embeddings: torch.Tensor,
    *,
    rank: int | None = None,
    energy: float = 0.99,
    rule: RankRule = "least",
    center: bool = False,
) -> torch.Tensor:
    """Return the leading left singular vectors of the transposed embeddings: a basis of the sensitive space.

    With ``Z^T = U S V^T`` and ``e_k = S_k^2 / sum S^2``, the columns are the first r of U. For ``rule="least"`` r is
    the smallest number with ``e_1 + ... + e_r >= energy``, so at least 1. ``"reference"`` counts the k with
    ``e_1 + ... + e_k <= energy``, as published code does; that is 0 where the first direction alone has more, and then
    nothing is penalised.

    Args:
        embeddings: Z of the attribute model over the training set, shape ``(n, d)``.
        rank: r itself, at most ``min(n, d)``; the paper takes 3. ``None`` takes the rule.
        energy: tau in (0, 1].
        rule: see above.
        center: subtract the mean of every column first. The paper does not: then the first direction is mostly the
            mean, which all subjects share.

    Returns:
        Orthonormal columns, shape ``(d, r)``, in the dtype of the embeddings (float32 at least); their signs are not
        determined.

    Raises:
        MonaiFairError: if options are out of range, or the embeddings are no finite table of numbers.
    """
    _check("sensitive_basis", embeddings, rank=rank, energy=energy, rule=rule)
    values = embeddings.detach().to(torch.float64)
    if center:
        values = values - values.mean(dim=0)
    _, singular, directions = torch.linalg.svd(values, full_matrices=False)
    kept = _count(singular.square(), singular.square().sum(), rank=rank, energy=energy, rule=rule)
    basis: torch.Tensor = directions[:kept].T.to(_dtype(embeddings)).contiguous()
    return basis


def updated_basis(
    basis: torch.Tensor, embeddings: torch.Tensor, *, energy: float = 0.99, rule: RankRule = "least"
) -> torch.Tensor:
    """Return a basis that follows embeddings which move, from the one before and a batch of new ones.

    The energy of the old directions in the batch is the diagonal of ``U^T Z^T Z U``; new directions are the singular
    vectors of what the old ones leave, ``(I - U U^T) Z^T``. Of all together the ones of most energy are kept, as many
    as the rule takes of ``||Z||_F^2``, and at most d.

    Args:
        basis: orthonormal columns U, shape ``(d, r)``; of no column, the answer is :func:`sensitive_basis`.
        embeddings: Z, shape ``(n, d)``.
        energy: tau in (0, 1].
        rule: see :func:`sensitive_basis`.

    Returns:
        Orthonormal columns by falling energy, shape ``(d, r')``.

    Raises:
        MonaiFairError: if shapes do not fit or options are out of range.
    """
    _check("updated_basis", embeddings, rank=None, energy=energy, rule=rule)
    if basis.ndim != 2 or len(basis) != embeddings.shape[1]:
        raise MonaiFairError(
            f"updated_basis: expected a basis of shape ({embeddings.shape[1]}, r), got {tuple(basis.shape)}; "
            "take that of the same embedding"
        )
    values, old = embeddings.detach().to(torch.float64), basis.detach().to(torch.float64)
    on_old = values @ old
    _, singular, directions = torch.linalg.svd(values - on_old @ old.T, full_matrices=False)
    left = len(old) - old.shape[1]  # more cannot be orthogonal to the old ones
    energies = torch.cat([on_old.square().sum(dim=0), singular[:left].square()])
    candidates = torch.cat([old, directions[:left].T], dim=1)
    order = energies.argsort(descending=True, stable=True)
    kept = _count(energies[order], values.square().sum(), rank=None, energy=energy, rule=rule)
    return candidates[:, order[:kept]].to(_dtype(embeddings)).contiguous()


def _count(energies: torch.Tensor, total: torch.Tensor, *, rank: int | None, energy: float, rule: RankRule) -> int:
    """Return how many directions are kept, of energies that fall."""
    if rank is not None:
        return rank
    reached = energies.cumsum(dim=0)
    if rule == "reference":
        return int((reached <= energy * total).sum())
    # a sum that should reach all may miss it by rounding, and then all are kept
    return min(int((reached < energy * total).sum()) + 1, len(energies))


def _dtype(embeddings: torch.Tensor) -> torch.dtype:
    return torch.promote_types(embeddings.dtype, torch.float32)


def _check(source: str, embeddings: torch.Tensor, *, rank: int | None, energy: float, rule: str) -> None:
    if embeddings.ndim != 2 or 0 in embeddings.shape or not bool(embeddings.isfinite().all()):
        raise MonaiFairError(
            f"{source}: expected finite embeddings of shape (n, d), got {tuple(embeddings.shape)}"
            f"{'' if embeddings.ndim != 2 or 0 in embeddings.shape else ' with values that are not'}; "
            "check the model they come from"
        )
    problems = []
    if rank is not None and not 1 <= rank <= min(embeddings.shape):
        problems.append(f"expected rank from 1 to {min(embeddings.shape)}, got {rank}; correct 'rank'")
    if not 0 < energy <= 1:
        problems.append(f"expected energy in (0, 1], got {energy}; correct 'energy'")
    if rule not in get_args(RankRule):
        problems.append(f"expected rule {' or '.join(map(repr, get_args(RankRule)))}, got '{rule}'; choose one")
    raise_problems(MonaiFairError, source, problems)
