"""Gauss-Newton steps for many small problems at once, solved by preconditioned conjugate gradients."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Operator = Callable[[Tensor], Tensor]
_TINY = 1e-30


@dataclass(frozen=True)
class Quadratic:
    """The local model of an objective: ``g' p + p' A p / 2`` for a step ``p``, one problem per batch entry.

    Attributes:
        gradient: ``g``, shape ``(B, ...)``.
        apply: ``A``, symmetric and positive semi-definite, on tensors like ``gradient``.
        precondition: an easy approximation of the inverse of ``A``.
    """

    gradient: Tensor
    apply: Operator
    precondition: Operator


def newton_step(model: Quadratic, iterations: int) -> Tensor:
    """Return a step that lowers the model, by ``iterations`` of preconditioned conjugate gradients from zero.

    Every iterate lowers the model further, so stopping early gives a shorter step in a good direction (Steihaug,
    SIAM J Numer Anal 1983). All problems of the batch advance together; a problem that is solved stays where it is.
    Residuals are kept orthogonal to earlier ones: left alone, rounding grows over the iterations, and a subject's step
    depends on its neighbours in the batch.

    Args:
        model: the local model.
        iterations: of conjugate gradients.

    Returns:
        The step to add, shape as the gradient.
    """
    step = torch.zeros_like(model.gradient)
    residual = -model.gradient
    direction = preconditioned = model.precondition(residual)
    energy = _dot(residual, preconditioned)
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(iterations):
        kept.append((residual, preconditioned, energy))
        image = model.apply(direction)
        length = _over(energy, _dot(direction, image), direction)
        step = step + length * direction
        residual = residual - length * image
        for earlier, solved, size in kept:
            residual = residual - _over(_dot(residual, solved), size, residual) * earlier
        preconditioned = model.precondition(residual)
        renewed = _dot(residual, preconditioned)
        direction = preconditioned + _over(renewed, energy, direction) * direction
        energy = renewed
    return step


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).flatten(1).sum(dim=1)


def _over(above: Tensor, below: Tensor, like: Tensor) -> Tensor:
    """Return the ratio per problem, 0 where there is nothing left to do, shaped to multiply ``like``."""
    ratio = torch.where(below > _TINY, above / below.clamp_min(_TINY), torch.zeros_like(above))
    return ratio.reshape(-1, *[1] * (like.dim() - 1))
