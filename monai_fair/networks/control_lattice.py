"""A lattice of cubic B-spline coefficients: smooth fields from few numbers, read by one matrix product per axis."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from monai_fair.errors import GeometryError
from monai_fair.geometry import compose


@dataclass(frozen=True)
class SamplingGrid:
    """Voxel positions at which a lattice is read: all combinations of three lists.

    Attributes:
        positions: three tensors of voxel coordinates, one for each array axis.
        weights: three B-spline matrices, positions by control points.
        slices: what picks these voxels from a volume ``(..., D, H, W)``.
        stride: distance of neighbouring positions in voxels.
    """

    positions: tuple[Tensor, Tensor, Tensor]
    weights: tuple[Tensor, Tensor, Tensor]
    slices: tuple[slice, slice, slice]
    stride: int

    def points(self) -> Tensor:
        """Return the positions as a grid, shape ``(3, X, Y, Z)``."""
        return torch.stack(torch.meshgrid(*self.positions, indexing="ij"))


class ControlLattice(nn.Module):
    """Cubic B-spline control points every ``spacing`` voxels, one before and two behind the image on each axis.

    A field of ``C`` channels is ``sum_k c_k B(x / spacing - k)`` with coefficients ``(B, C, *lattice.shape)``.

    Args:
        image_shape: voxels along the three array axes.
        spacing: of the control points, in voxels.
        order: of the roughness penalty, as a power of the Laplacian: 2 is the bending energy, 4 asks for smoother
            fields.

    Attributes:
        roughness: the penalty of each cosine mode of the lattice, shape ``self.shape``.

    Raises:
        GeometryError: if the shape has not three axes of 2 voxels or more, or spacing or order are below 1.
    """

    roughness: Tensor
    _modes_0: Tensor
    _modes_1: Tensor
    _modes_2: Tensor

    def __init__(self, image_shape: Sequence[int], spacing: float = 4.0, *, order: int = 4) -> None:
        super().__init__()
        if len(image_shape) != 3 or min(image_shape) < 2 or not 1 <= spacing < math.inf or order < 1:
            raise GeometryError(
                f"control lattice: expected three axes of at least 2 voxels, a spacing of at least 1 voxel and an "
                f"order of at least 1, got {tuple(image_shape)}, {spacing} and {order}"
            )
        self.image_shape = (int(image_shape[0]), int(image_shape[1]), int(image_shape[2]))
        self.spacing = float(spacing)
        self.order = order
        first, second, third = (math.ceil((size - 1) / self.spacing) + 3 for size in self.image_shape)
        self.shape = (first, second, third)
        values = []
        for axis, size in enumerate(self.shape):
            value, modes = torch.linalg.eigh(_difference_gram(size))
            values.append(value.clamp_min(0.0))
            self.register_buffer(f"_modes_{axis}", modes.float(), persistent=False)
        laplacian = values[0][:, None, None] + values[1][None, :, None] + values[2][None, None, :]
        self.register_buffer("roughness", (laplacian**order).float(), persistent=False)

    def extra_repr(self) -> str:
        """Name the sizes."""
        return f"image_shape={self.image_shape}, spacing={self.spacing:g}, shape={self.shape}, order={self.order}"

    @property
    def size(self) -> int:
        """Number of control points."""
        return math.prod(self.shape)

    def control_points(self) -> Tensor:
        """Return the positions of the control points in voxels, shape ``(P, 3)``."""
        axes = [self._nodes(axis) for axis in range(3)]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)

    def sampling_grid(self, stride: int = 1, offsets: Sequence[int] = (0, 0, 0)) -> SamplingGrid:
        """Return every ``stride``-th voxel, from ``offsets`` on.

        Args:
            stride: in voxels.
            offsets: first voxel along each axis, from 0 to ``stride - 1``.
        """
        like = self.roughness
        parts = [
            torch.arange(offset, size, stride, dtype=like.dtype, device=like.device)
            for offset, size in zip(offsets, self.image_shape, strict=True)
        ]
        weights = [self.spline_weights(position, axis) for axis, position in enumerate(parts)]
        first, second, third = (slice(offset, None, stride) for offset in offsets)
        return SamplingGrid(
            (parts[0], parts[1], parts[2]), (weights[0], weights[1], weights[2]), (first, second, third), stride
        )

    def spline_weights(self, positions: Tensor, axis: int) -> Tensor:
        """Return the control points' splines at ``positions`` in voxels, shape ``(N, self.shape[axis])``."""
        nodes = torch.arange(self.shape[axis], dtype=positions.dtype, device=positions.device) - 1.0
        distance = (positions[:, None] / self.spacing - nodes).abs()
        near = (4.0 - 6.0 * distance**2 + 3.0 * distance**3) / 6.0
        far = (2.0 - distance).clamp_min(0.0) ** 3 / 6.0
        return torch.where(distance < 1.0, near, far)

    def node_weights(self, axis: int) -> Tensor:
        """Return the splines at the control points, shape ``(self.shape[axis], self.shape[axis])``, invertible.

        At the outermost ones a spline from beyond the lattice is missing. Its coefficient counts as the next one on a
        line, so that constant and linear fields are read right there too: the value is the coefficient.
        """
        weights = self.spline_weights(self._nodes(axis), axis)
        weights[[0, -1]] = torch.eye(len(weights), dtype=weights.dtype, device=weights.device)[[0, -1]]
        return weights

    @staticmethod
    def upsample(coefficients: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Return the field at a sampling grid's positions.

        Args:
            coefficients: shape ``(B, C, *self.shape)``.
            weights: of a :class:`SamplingGrid`.

        Returns:
            Shape ``(B, C, X, Y, Z)``.
        """
        values = torch.matmul(coefficients, weights[2].T)
        values = torch.matmul(weights[1], values)
        flat = torch.matmul(weights[0], values.flatten(-2))
        return flat.reshape(*flat.shape[:-1], *values.shape[-2:])

    @staticmethod
    def downsample(values: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Apply the transpose of :meth:`upsample`: gradients of positions become gradients of coefficients."""
        return ControlLattice.upsample(values, [matrix.T for matrix in weights])

    def spectral(self, coefficients: Tensor, factors: Tensor) -> Tensor:
        """Multiply the lattice's cosine modes by ``factors``.

        The modes are the eigenvectors of the first differences, so a quadratic form in differences, such as
        ``roughness``, is diagonal in them.

        Args:
            coefficients: shape ``(B, C, *self.shape)``.
            factors: one for each mode, of a shape that broadcasts to it.
        """
        modes = (self._modes_0, self._modes_1, self._modes_2)
        spectrum = self.downsample(coefficients, modes)
        return self.upsample(spectrum * factors, modes)

    def penalty(self, coefficients: Tensor) -> Tensor:
        """Return the roughness of fields, summed over control points and channels, shape ``(B,)``.

        With ``order`` 2 it is the bending energy, mixed terms with their factor 2 included, in differences over one
        control spacing. Across its faces the lattice counts as mirrored, so only constant fields cost nothing.
        """
        return (coefficients * self.spectral(coefficients, self.roughness)).flatten(1).sum(dim=1)

    def integrate(self, velocity: Tensor, steps: int) -> Tensor:
        """Return coefficients of the flow of a stationary velocity.

        Velocity and displacement are read at the control points, where scaling and squaring takes place
        (:func:`monai_fair.geometry.exponential`).

        Args:
            velocity: coefficients in voxels, shape ``(B, 3, *self.shape)``.
            steps: squarings.
        """
        nodes = [self.node_weights(axis) for axis in range(3)]
        field = self.upsample(velocity, nodes) / self.spacing / 2**steps
        for _ in range(steps):
            field = compose(field, field)
        inverse = [torch.linalg.inv(matrix) for matrix in nodes]
        return self.upsample(field * self.spacing, inverse)

    def _nodes(self, axis: int) -> Tensor:
        like = self.roughness
        return (torch.arange(self.shape[axis], dtype=like.dtype, device=like.device) - 1.0) * self.spacing


def _difference_gram(size: int) -> Tensor:
    """Return ``D^T D`` of first differences, in double precision."""
    difference = torch.diff(torch.eye(size, dtype=torch.float64), dim=0)
    return difference.T @ difference
