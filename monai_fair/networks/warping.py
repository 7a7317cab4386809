"""A trained deformation network as one module that scripts and exports: image and code in, warped image out."""

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from monai_fair.networks.lattice_inr import LatticeINR


class TemplateWarp(nn.Module):
    """Warp images by codes, without the network that the codes belong to.

    The trunk's features at the control points are constants once the network is trained, so they are kept as a buffer,
    with the matrices that carry them to voxels. ``monai.networks.blocks.Warp`` does not script.

    Args:
        network: the trained network. Its present weights are copied.

    Example:
        >>> module = TemplateWarp(LatticeINR((8, 9, 10), width=4, hidden=4))
        >>> module(torch.rand(2, 1, 8, 9, 10), torch.zeros(2, 3, 4)).shape
        torch.Size([2, 1, 8, 9, 10])
    """

    basis: Tensor
    to_voxels_0: Tensor
    to_voxels_1: Tensor
    to_voxels_2: Tensor
    to_nodes_0: Tensor
    to_nodes_1: Tensor
    to_nodes_2: Tensor

    def __init__(self, network: LatticeINR) -> None:
        super().__init__()
        lattice = network.lattice
        self.lattice_shape = lattice.shape
        self.spacing = lattice.spacing
        self.integration_steps = network.integration_steps
        self.register_buffer("basis", network.basis().detach().clone())
        for axis, to_voxels in enumerate(lattice.sampling_grid().weights):
            to_nodes = lattice.node_weights(axis)
            # a velocity is integrated at the control points, and values there are read between them
            read = torch.linalg.solve(to_nodes, to_voxels, left=False) if self.integration_steps else to_voxels
            self.register_buffer(f"to_voxels_{axis}", read)
            self.register_buffer(f"to_nodes_{axis}", to_nodes)

    def forward(self, image: Tensor, codes: Tensor) -> Tensor:
        """Return ``image(x + u(x))``, shape ``(B, 1, D, H, W)``; outside the image its edge is repeated.

        Args:
            image: on the template's grid, shape ``(B, 1, D, H, W)``.
            codes: shape ``(B, 3, width)``.
        """
        return _warped(image, self.displacement(codes))

    def displacement(self, codes: Tensor) -> Tensor:
        """Return displacements in voxels, shape ``(B, 3, D, H, W)``, for codes of shape ``(B, 3, width)``."""
        first, second, third = self.lattice_shape
        field = torch.matmul(codes, self.basis.t()).reshape(-1, 3, first, second, third)
        if self.integration_steps > 0:
            field = _spread(field, self.to_nodes_0, self.to_nodes_1, self.to_nodes_2)
            field = field / (self.spacing * 2**self.integration_steps)
            for _ in range(self.integration_steps):
                field = field + _warped(field, field)
            field = field * self.spacing
        return _spread(field, self.to_voxels_0, self.to_voxels_1, self.to_voxels_2)


def _spread(values: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Apply one matrix to each of the last three axes; :meth:`ControlLattice.upsample`, as TorchScript takes it."""
    values = torch.matmul(second, torch.matmul(values, third.t()))
    flat = torch.matmul(first, values.flatten(-2))
    return flat.reshape(flat.shape[0], flat.shape[1], first.shape[0], second.shape[0], third.shape[0])


def _warped(image: Tensor, displacement: Tensor) -> Tensor:
    """:func:`monai_fair.geometry.warp`, as TorchScript takes it."""
    places = []
    for axis in range(3):
        size = image.shape[axis + 2]
        index = torch.arange(size, device=image.device, dtype=displacement.dtype)
        along = index.reshape([size if other == axis else 1 for other in range(3)])
        places.append((along + displacement[:, axis]) * (2.0 / (size - 1)) - 1.0)
    # grid_sample takes (x, y, z), the reverse of the array's axes
    cube = torch.stack([places[2], places[1], places[0]], dim=-1)
    return grid_sample(image, cube, mode="bilinear", padding_mode="border", align_corners=True)
