"""The second design: a SIREN evaluated at the sampled points of every subject, conditioned by the subject's code."""

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from monai_fair.errors import MonaiFairError
from monai_fair.geometry import invert
from monai_fair.networks.control_lattice import ControlLattice, SamplingGrid
from monai_fair.networks.deformation import INVERSE_TOLERANCE_VOX, DeformationINR, Linearised
from monai_fair.networks.modulated_siren import ModulatedSIREN

_BYTES = 4


class ConditionedSIREN(DeformationINR):
    """Deformations ``u(x) = f(x; z) - f(x; 0)`` with a :class:`ModulatedSIREN` ``f``, in voxels.

    Every point of every subject passes through the whole network, so this design costs far more than
    :class:`LatticeINR`, whose trunk all subjects share; in return a code acts on the field in any way the network
    learns, and the field has exact derivatives at any point.

    The difference makes a code of zeros the identity, at the start and after training. A last layer of zeros would do
    so at the start only, and from codes of zeros nothing could be learned: each of the two factors would wait for the
    other.

    Args:
        image_shape: voxels along the three array axes. Points are centred and divided by half the longest axis.
        spacing: control points of the residual and of the penalty, in voxels.
        order: of the roughness penalty, see :class:`ControlLattice`.
        width: numbers in a code.
        hidden: width of the network's layers.
        depth: number of layers of sines.
        omega: frequency of the sines; 30 in the papers, whose signals are images. Deformations vary less: on coarse
            simulated brains 10 came to smaller errors in the same time.
        scaled: a code scales the layers too, beside shifting them.
        chunk: points, counted for each subject, that pass through the network at once. It bounds the memory, also of
            training, where what a chunk computes is computed again for its gradient.
        kept_mb: megabytes that :meth:`linearise` may keep; above it a derivative is computed again for each product.

    Raises:
        GeometryError: if the image or the lattice cannot be used.
        MonaiFairError: if ``depth`` or ``chunk`` are below 1.
    """

    centre: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        spacing: float = 4.0,
        order: int = 4,
        width: int = 64,
        hidden: int = 128,
        depth: int = 3,
        omega: float = 30.0,
        scaled: bool = False,
        chunk: int = 65_536,
        kept_mb: float = 1024.0,
    ) -> None:
        if chunk < 1:
            raise MonaiFairError(f"chunk: expected 1 point or more, got {chunk}")
        super().__init__(ControlLattice(image_shape, spacing, order=order), (width,))
        self.siren = ModulatedSIREN(width, hidden=hidden, depth=depth, omega=omega, scaled=scaled)
        self.chunk = chunk
        self.kept_mb = kept_mb
        centre = (torch.tensor(self.lattice.image_shape, dtype=torch.float32) - 1.0) / 2.0
        self.register_buffer("centre", centre, persistent=False)

    def at(self, codes: Tensor, points: Tensor) -> Tensor:
        """Return displacements in voxels at any points.

        Args:
            codes: shape ``(B, width)``.
            points: in voxels, shape ``(N, 3)``.

        Returns:
            Shape ``(B, N, 3)``.
        """
        values = self.siren(self._unit(points), torch.cat([torch.zeros_like(codes[:1]), codes]))
        found: Tensor = (values[1:] - values[:1]) * self.centre.max()
        return found

    def forward(self, codes: Tensor, grid: SamplingGrid, residual: Tensor | None = None) -> Tensor:
        """Return displacements in voxels, shape ``(B, 3, X, Y, Z)``; see :class:`DeformationINR`."""
        field = _as_field(self._displaced(codes, self._split(_flat(grid), len(codes))), grid)
        return field if residual is None else field + self.lattice.upsample(residual, grid.weights)

    def inverse(self, codes: Tensor, grid: SamplingGrid, residual: Tensor | None = None) -> Tensor:
        """Return the displacements of the inverse map, by a fixed point on all voxels."""
        inverted = invert(
            self.forward(codes, self.lattice.sampling_grid(), residual), tolerance_vox=INVERSE_TOLERANCE_VOX
        )
        return inverted[(..., *grid.slices)]

    def linearise(self, codes: Tensor, grid: SamplingGrid, residual: Tensor | None = None) -> Linearised:
        """Return the derivative by the codes, which is kept as a matrix where there is room for it."""
        # the rows of the three outputs are carried together
        parts = self._split(_flat(grid), 3 * len(codes))
        size_mb = _BYTES * codes.numel() * 3 * sum(map(len, parts)) / 1e6
        kept = [self._derivative(codes, points) for points in parts] if size_mb <= self.kept_mb else None

        def derivatives() -> Iterator[Tensor]:
            return iter(kept) if kept is not None else (self._derivative(codes, points) for points in parts)

        def push(change: Tensor) -> Tensor:
            moved = [torch.matmul(rows, change[:, None, :, None])[..., 0] for rows in derivatives()]
            return _as_field(torch.cat(moved, dim=1), grid)

        def pull(values: Tensor) -> Tensor:
            pieces = torch.split(values.flatten(2).transpose(1, 2), [len(points) for points in parts], dim=1)
            found = torch.zeros_like(codes)
            for rows, piece in zip(derivatives(), pieces, strict=True):
                found = found + torch.einsum("bnak,bna->bk", rows, piece)
            return found

        return Linearised(push, pull)

    def metric(self) -> tuple[Tensor, Tensor]:
        """Return ``J^T J`` and ``J^T R J + I``, both ``(width, width)``.

        ``J`` is the derivative of the field at the control points by a code of zeros, and ``R`` the roughness of
        values there: the second is the quadratic part of :meth:`penalty` at the identity. ``I`` keeps it regular.
        """
        zero = self.siren.last.weight.new_zeros(1, *self.code_shape)
        rows = [self._derivative(zero, points)[0] for points in self._split(self.lattice.control_points(), 3)]
        columns = torch.cat(rows).permute(2, 1, 0)
        fields = columns.reshape(*columns.shape[:2], *self.lattice.shape)
        rough = self.lattice.spectral(fields, self.lattice.roughness).flatten(1)
        flat = columns.flatten(1)
        return flat @ flat.T, rough @ flat.T + torch.eye(len(flat), device=flat.device, dtype=flat.dtype)

    def penalty(self, codes: Tensor) -> Tensor:
        """Return the roughness of the field at the control points, plus ``|z|^2``, the prior of auto-decoders."""
        points = self.lattice.control_points()
        field = self._displaced(codes, self._split(points, len(codes))).transpose(1, 2)
        rough = self.lattice.penalty(field.reshape(*field.shape[:2], *self.lattice.shape))
        return rough + codes.square().sum(dim=1)

    def _displaced(self, codes: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Return displacements at the points of all parts, shape ``(B, N, 3)``."""
        if torch.is_grad_enabled() and len(parts) > 1:
            again = functools.partial(checkpoint, self.at, codes, use_reentrant=False, preserve_rng_state=False)
            return torch.cat([again(points) for points in parts], dim=1)
        return torch.cat([self.at(codes, points) for points in parts], dim=1)

    def _derivative(self, codes: Tensor, points: Tensor) -> Tensor:
        found: Tensor = self.siren.derivative(self._unit(points), codes) * self.centre.max()
        return found

    def _unit(self, points: Tensor) -> Tensor:
        return (points - self.centre) / self.centre.max()

    def _split(self, points: Tensor, rows: int) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = torch.split(points, max(1, self.chunk // (rows + 1)))
        return parts


def _flat(grid: SamplingGrid) -> Tensor:
    return grid.points().flatten(1).T


def _as_field(values: Tensor, grid: SamplingGrid) -> Tensor:
    """Lay values ``(B, N, 3)`` of all points out as a field ``(B, 3, X, Y, Z)``."""
    return values.transpose(1, 2).reshape(len(values), 3, *map(len, grid.positions))
