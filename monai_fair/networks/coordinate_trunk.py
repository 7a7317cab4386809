"""The coordinate network of a lattice design: positions in, features out, the same for all subjects."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class CoordinateTrunk(nn.Module):
    """Cosine features of low frequency, plus what a small network learns to change in them.

    ``h(x) = gamma(x) + W gelu(... gelu(V [gamma(x), x]))`` with ``gamma`` the products of cosines of lowest frequency
    over the image. ``W`` starts at zero, so that training starts from a plain cosine basis and departs from it where
    the cohort asks for it.

    Args:
        image_shape: voxels along the three array axes; a frequency is counted per voxel, so that long axes get more.
        width: number of features.
        hidden: width of the hidden layers.
        depth: number of hidden layers; 0 makes the change linear.
    """

    frequencies: Tensor
    extent: Tensor

    def __init__(self, image_shape: Sequence[int], *, width: int = 512, hidden: int = 128, depth: int = 2) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("extent", torch.tensor(image_shape, dtype=torch.float32), persistent=False)
        self.register_buffer("frequencies", _lowest_frequencies(image_shape, width), persistent=False)
        sizes = [width + 3, *[hidden] * depth]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.GELU()]
        last = nn.Linear(sizes[-1], width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.change = nn.Sequential(*layers, last)

    def forward(self, positions: Tensor) -> Tensor:
        """Return features of shape ``(N, width)`` at ``positions`` in voxels, shape ``(N, 3)``."""
        unit = (positions + 0.5) / self.extent
        cosines = torch.cos(math.pi * unit[:, None, :] * self.frequencies).prod(dim=-1)
        changed: Tensor = cosines + self.change(torch.cat([cosines, 2.0 * unit - 1.0], dim=-1))
        return changed


def _lowest_frequencies(image_shape: Sequence[int], count: int) -> Tensor:
    """Return the ``count`` triples of half waves over the image with the lowest frequency, shape ``(count, 3)``."""
    longest = max(image_shape)
    limit = 0
    inside: list[tuple[float, tuple[int, ...]]] = []
    while len(inside) < count:
        # all triples up to this radius lie in the box, so that none of the lowest is missed on a short axis
        limit += 1
        box = (range(math.ceil(limit * size / longest) + 1) for size in image_shape)
        squared = (
            (sum((wave / size) ** 2 for wave, size in zip(triple, image_shape, strict=True)), triple)
            for triple in itertools.product(*box)
        )
        inside = [pair for pair in squared if pair[0] <= (limit / longest) ** 2]
    return torch.tensor([triple for _, triple in sorted(inside)[:count]], dtype=torch.float32)
