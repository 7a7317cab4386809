"""A coordinate network of sines, shifted and scaled by a code."""

import itertools
import math

import torch
from torch import Tensor, nn

from monai_fair.errors import MonaiFairError


class ModulatedSIREN(nn.Module):
    """SIREN conditioned by a code: ``h_l = sin(omega ((1 + S_l z) (W_l h_(l-1) + b_l) + A_l z))``, then ``V h``.

    Args:
        code_size: numbers in a code ``z``.
        hidden: width of the layers.
        depth: number of layers of sines, 1 or more.
        omega: frequency of the sines.
        scaled: learn the scales ``S`` too, which start at zero; otherwise a code shifts phases alone, as in functa.

    Raises:
        MonaiFairError: if ``depth`` is below 1.

    References:
        Sitzmann et al., Implicit neural representations with periodic activation functions, NeurIPS 2020 (the sines
        and the initial weights). Dupont et al., From data to functa, ICML 2022 (the shifts).
    """

    def __init__(
        self, code_size: int, *, hidden: int = 128, depth: int = 3, omega: float = 30.0, scaled: bool = False
    ) -> None:
        super().__init__()
        if depth < 1:
            raise MonaiFairError(f"depth: expected 1 layer of sines or more, got {depth}")
        self.omega = omega
        sizes = [3, *[hidden] * depth]
        linear = [nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(sizes)]
        self.layers = nn.ModuleList(linear)
        self.shift = nn.Linear(code_size, depth * hidden, bias=False)
        self.scale = nn.Linear(code_size, depth * hidden, bias=False) if scaled else None
        self.last = nn.Linear(hidden, 3, bias=False)
        nn.init.uniform_(linear[0].weight, -1.0 / 3.0, 1.0 / 3.0)
        for layer in (*linear[1:], self.shift, self.last):
            bound = math.sqrt(6.0 / layer.in_features) / omega
            nn.init.uniform_(layer.weight, -bound, bound)
        if self.scale is not None:
            nn.init.zeros_(self.scale.weight)

    def forward(self, points: Tensor, codes: Tensor) -> Tensor:
        """Return values of shape ``(B, N, 3)``.

        Args:
            points: in [-1, 1], shape ``(N, 3)``.
            codes: shape ``(B, code_size)``.
        """
        values = points
        for layer, shift, scale in zip(self.layers, self._shifts(codes), self._scales(codes), strict=True):
            values = torch.sin(self.omega * (layer(values) * scale + shift))
        found: Tensor = self.last(values)
        return found

    def derivative(self, points: Tensor, codes: Tensor) -> Tensor:
        """Return the derivative of each value by the code of its row, shape ``(B, N, 3, code_size)``.

        It runs backwards from the three outputs, whose rows are carried together, and can itself be differentiated.
        """
        scales = self._scales(codes)
        plain, slopes = [], []
        values = points
        for layer, shift, scale in zip(self.layers, self._shifts(codes), scales, strict=True):
            plain.append(layer(values))
            phase = self.omega * (plain[-1] * scale + shift)
            slopes.append(self.omega * torch.cos(phase))
            values = torch.sin(phase)

        weights = [layer.weight for layer in self.layers if isinstance(layer, nn.Linear)]
        parts = len(weights)
        by_shift = self.shift.weight.chunk(parts)
        by_scale = None if self.scale is None else self.scale.weight.chunk(parts)
        rows = self.last.weight
        found = values.new_zeros(1)
        for number in reversed(range(parts)):
            rows = rows * slopes[number][..., None, :]
            found = found + rows @ by_shift[number]
            if by_scale is not None:
                found = found + (rows * plain[number][..., None, :]) @ by_scale[number]
            if number > 0:
                rows = (rows * scales[number][..., None, :]) @ weights[number]
        return found

    def _shifts(self, codes: Tensor) -> tuple[Tensor, ...]:
        shifts: tuple[Tensor, ...] = torch.chunk(self.shift(codes)[:, None], len(self.layers), dim=-1)
        return shifts

    def _scales(self, codes: Tensor) -> tuple[Tensor, ...]:
        if self.scale is None:
            return (codes.new_ones(1, 1, 1),) * len(self.layers)
        scales: tuple[Tensor, ...] = torch.chunk(1.0 + self.scale(codes)[:, None], len(self.layers), dim=-1)
        return scales
