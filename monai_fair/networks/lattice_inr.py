"""A shared trunk evaluated on a control lattice; a subject's code is its last layer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

import torch
from torch import Tensor, nn

from monai_fair.errors import GeometryError
from monai_fair.geometry import invert
from monai_fair.networks.control_lattice import ControlLattice, SamplingGrid
from monai_fair.networks.coordinate_trunk import CoordinateTrunk
from monai_fair.networks.deformation import INVERSE_TOLERANCE_VOX, DeformationINR, Linearised


class LatticeINR(DeformationINR):
    """Deformations ``B(x) h(X) z``: trunk features ``h`` at the control points ``X``, one code ``z`` for each axis.

    The trunk is evaluated once for all subjects (DeepONet's idea, Lu et al., Nat Mach Intell 2021), the field of a
    subject is one matrix product, and cubic B-splines carry it to any voxel.

    Args:
        image_shape: voxels along the three array axes.
        spacing: of the control points in voxels.
        order: of the roughness penalty, see :class:`ControlLattice`.
        width: features of the trunk; a code has shape ``(3, width)``.
        hidden: width of the trunk's hidden layers.
        depth: number of hidden layers.
        integration_steps: 0 reads the field as a displacement; above 0 as a stationary velocity, integrated with so
            many squarings, whose inverse is the flow of its negative.
        amp: compute the trunk in bfloat16.

    Raises:
        GeometryError: if the image or the lattice cannot be used, or ``integration_steps`` is below 0.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        spacing: float = 4.0,
        order: int = 4,
        width: int = 512,
        hidden: int = 128,
        depth: int = 2,
        integration_steps: int = 0,
        amp: bool = False,
    ) -> None:
        if integration_steps < 0:
            raise GeometryError(f"integration_steps: expected 0 (a displacement) or more, got {integration_steps}")
        super().__init__(ControlLattice(image_shape, spacing, order=order), (3, width))
        self.trunk = CoordinateTrunk(self.lattice.image_shape, width=width, hidden=hidden, depth=depth)
        self.integration_steps = integration_steps
        self.amp = amp
        self._kept: Tensor | None = None
        self._holding = False
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def basis(self) -> Tensor:
        """Return the trunk's features at the control points, shape ``(P, width)``; kept in evaluation mode."""
        if self._kept is not None:
            return self._kept
        if self.training and not self._holding:
            return self._features()
        # what is kept serves later calls too, whichever mode of differentiation this one is in
        with torch.inference_mode(False), torch.set_grad_enabled(self.training):
            self._kept = self._features()
        return self._kept

    def _features(self) -> Tensor:
        points = self.lattice.control_points()
        with torch.autocast(points.device.type, torch.bfloat16, enabled=self.amp):
            features: Tensor = self.trunk(points)
        return features.to(points.dtype)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Evaluate the trunk at most once within the block; its parameters must not change there."""
        self._kept, self._holding = None, True
        try:
            yield
        finally:
            self._kept, self._holding = None, False

    def train(self, mode: bool = True) -> Self:
        """Switch the mode and forget the kept features."""
        self._kept = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # every change of device or type comes through here
        self._kept = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def coefficients(self, codes: Tensor) -> Tensor:
        """Return the lattice coefficients of ``codes``, shape ``(B, 3, *lattice.shape)``."""
        return self._fields(codes, self.basis())

    def forward(self, codes: Tensor, grid: SamplingGrid, residual: Tensor | None = None) -> Tensor:
        """Return displacements in voxels, shape ``(B, 3, X, Y, Z)``; see :class:`DeformationINR`."""
        return self.lattice.upsample(self._displacing(codes, residual), grid.weights)

    def inverse(self, codes: Tensor, grid: SamplingGrid, residual: Tensor | None = None) -> Tensor:
        """Return the displacements of the inverse map: the flow of the negative velocity, or a fixed point."""
        if self.integration_steps:
            negative = None if residual is None else -residual
            return self.forward(-codes, grid, negative)
        dense = self.lattice.sampling_grid()
        inverted = invert(self.forward(codes, dense, residual), tolerance_vox=INVERSE_TOLERANCE_VOX)
        return inverted[(..., *grid.slices)]

    def linearise(self, codes: Tensor, grid: SamplingGrid, residual: Tensor | None = None) -> Linearised:
        """Return the derivative by the codes.

        A displacement is linear in its code, so the derivative is exact. For a velocity the change of the flow is
        taken as the change of the velocity, as in log-domain demons (Vercauteren et al., MICCAI 2008).
        """
        basis = self.basis()

        def push(change: Tensor) -> Tensor:
            return self.lattice.upsample(self._fields(change, basis), grid.weights)

        def pull(values: Tensor) -> Tensor:
            return torch.matmul(self.lattice.downsample(values, grid.weights).flatten(2), basis)

        return Linearised(push, pull)

    def metric(self) -> tuple[Tensor, Tensor]:
        """Return ``h^T h`` and ``h^T R h`` with ``R`` the lattice's roughness, both ``(width, width)``."""
        basis = self.basis()
        fields = basis.T.reshape(1, -1, *self.lattice.shape)
        rough = self.lattice.spectral(fields, self.lattice.roughness)[0].flatten(1)
        return basis.T @ basis, rough @ basis

    def penalty(self, codes: Tensor) -> Tensor:
        """Return the roughness of the field, without forming the metric."""
        return self.lattice.penalty(self.coefficients(codes))

    def _fields(self, codes: Tensor, basis: Tensor) -> Tensor:
        return torch.matmul(codes, basis.T).reshape(*codes.shape[:-1], *self.lattice.shape)

    def _displacing(self, codes: Tensor, residual: Tensor | None) -> Tensor:
        field = self.coefficients(codes)
        if residual is not None:
            field = field + residual
        return self.lattice.integrate(field, self.integration_steps) if self.integration_steps else field


def _forget(network: nn.Module, _: object) -> None:
    assert isinstance(network, LatticeINR)
    network._kept = None
