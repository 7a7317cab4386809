"""Deformations as implicit neural representations: one coordinate network for a cohort, one code for each subject.

All designs answer the same question, "where does each voxel of this subject lie in the template?", through
:class:`DeformationINR`. Codes are fitted by Gauss-Newton steps, for which a design offers its derivative.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from monai_fair.networks.control_lattice import ControlLattice, SamplingGrid

INVERSE_TOLERANCE_VOX = 1e-3  # far below what a voxel can show


@dataclass(frozen=True)
class Linearised:
    """The derivative of a deformation with respect to the codes, at the codes it was asked for.

    Attributes:
        push: takes a change of codes ``(B, *code_shape)`` to the change of displacement it makes.
        pull: the transpose: takes ``(B, 3, X, Y, Z)`` to ``(B, *code_shape)``.
    """

    push: Callable[[Tensor], Tensor]
    pull: Callable[[Tensor], Tensor]


class DeformationINR(nn.Module, ABC):
    """Base of the designs: codes in, displacement out, identity for a code of zeros.

    Args:
        lattice: where a subject's residual lives, and on some designs the field itself.
        code_shape: shape of one subject's code.
    """

    def __init__(self, lattice: ControlLattice, code_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.lattice = lattice
        self.code_shape = code_shape

    @abstractmethod
    def forward(self, codes: Tensor, grid: SamplingGrid, residual: Tensor | None = None) -> Tensor:
        """Return displacements in voxels.

        Args:
            codes: shape ``(B, *code_shape)``.
            grid: positions.
            residual: coefficients of a free part, shape ``(B, 3, *lattice.shape)``.

        Returns:
            Shape ``(B, 3, X, Y, Z)``.
        """

    @abstractmethod
    def inverse(self, codes: Tensor, grid: SamplingGrid, residual: Tensor | None = None) -> Tensor:
        """Return the displacements of the inverse map, as :meth:`forward`."""

    def linearise(self, codes: Tensor, grid: SamplingGrid, residual: Tensor | None = None) -> Linearised:
        """Return the derivative by the codes; here by automatic differentiation in both modes."""

        def deform(value: Tensor) -> Tensor:
            return self.forward(value, grid, residual)

        def push(change: Tensor) -> Tensor:
            moved: Tensor = torch.func.jvp(deform, (codes,), (change,))[1]
            return moved

        pull = torch.func.vjp(deform, codes)[1]
        return Linearised(push, lambda values: pull(values)[0])

    @contextmanager
    def held(self) -> Iterator[None]:
        """Mark a block in which the parameters do not change; a design may compute what is shared once there."""
        yield

    @abstractmethod
    def metric(self) -> tuple[Tensor, Tensor]:
        """Return two quadratic forms over the last axis of a code, both ``(K, K)``.

        The first is the squared length of the field a code makes, summed over control points; the second is its
        penalty: with the code as ``z``, the sum of ``z P z`` over the other axes is the negative log of its prior,
        times two, for a smoothness of 1.
        """

    def penalty(self, codes: Tensor) -> Tensor:
        """Return the penalty of codes, shape ``(B,)``; differentiable with respect to the network too."""
        form = self.metric()[1]
        return (codes * (codes @ form)).flatten(1).sum(dim=1)
