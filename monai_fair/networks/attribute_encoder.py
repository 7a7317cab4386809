"""Attributes of a subject as numbers that a network can take."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from monai_fair.data.attribute_coding import output_widths
from monai_fair.errors import MonaiFairError, raise_problems

CONTINUOUS = 0  # instead of a number of levels


class AttributeColumns(nn.Module):
    """Attributes as columns: one of 0 and 1 for two levels, one-hot for more, the number itself if continuous.

    Args:
        levels: number of levels of every attribute, or 0 for a continuous one.
        missing: give every attribute a further column that is 1 where it is missing (NaN); its others are then 0.
            Without it a missing attribute makes the columns NaN.

    Attributes:
        width: number of columns.

    Raises:
        MonaiFairError: if there is no attribute, or one has a single level.
    """

    def __init__(self, levels: Sequence[int], *, missing: bool = False) -> None:
        super().__init__()
        problems = [] if levels else ["expected at least one attribute, got none"]
        problems += [
            f"expected levels[{place}] to be 0 (continuous) or at least 2, got {count}; leave the attribute out"
            for place, count in enumerate(levels)
            if count < 0 or count == 1
        ]
        raise_problems(MonaiFairError, "AttributeColumns", problems)
        self.levels = [int(count) for count in levels]
        self.missing = missing
        self.width = sum(output_widths(self.levels)) + int(missing) * len(self.levels)

    def forward(self, attributes: torch.Tensor) -> torch.Tensor:
        """Return the columns.

        Args:
            attributes: indices of levels, or numbers, shape ``(B, A)``; NaN where one is missing.

        Returns:
            Shape ``(B, width)``.
        """
        columns: list[torch.Tensor] = []
        for place, count in enumerate(self.levels):
            value = attributes[:, place]
            unknown = value.isnan()
            if self.missing:
                value = torch.where(unknown, torch.zeros_like(value), value)
                columns.append(unknown.to(value.dtype)[:, None])
            if count > 2:
                index = torch.arange(count, device=value.device, dtype=value.dtype)
                own = (value[:, None] == index[None]).to(value.dtype)
                columns.append(torch.where(unknown[:, None], self._of_missing(own), own))
            else:
                columns.append(value[:, None])
        return torch.cat(columns, dim=1)

    def _of_missing(self, columns: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(columns) if self.missing else torch.full_like(columns, float("nan"))


class AttributeEncoder(nn.Module):
    """From attributes to the shift ``mu`` and the scale ``sigma`` of a latent space (FairREAD).

    ``h = ReLU(Linear(Dropout(a)))``, ``mu = Linear(Dropout(h))``, ``sigma = Linear(Dropout(h))``.

    Args:
        levels: see :class:`AttributeColumns`.
        latent: size R of the latent space; h has R / 2.
        dropout: before ``mu`` and ``sigma``, and between hidden layers.
        attribute_dropout: before the first layer. The paper's code has it: it turns members of group 1 into members of
            group 0 at random, so the default is 0.
        hidden: sizes of the hidden layers; ``None`` is ``(R / 2,)``, the paper's "multi-layer" is
            ``(R / 8, R / 4, R / 2)``.
        missing: see :class:`AttributeColumns`.
        positive_scale: make ``sigma`` positive by a softplus; the paper leaves its sign free.

    Raises:
        MonaiFairError: if sizes are not positive.

    References:
        Gao, Hao, Zhou, FairREAD: Re-fusing demographic attributes after disentanglement for fair medical image
        classification, arXiv:2412.16373.
    """

    def __init__(
        self,
        levels: Sequence[int],
        latent: int = 256,
        *,
        dropout: float = 0.1,
        attribute_dropout: float = 0.0,
        hidden: Sequence[int] | None = None,
        missing: bool = False,
        positive_scale: bool = False,
    ) -> None:
        super().__init__()
        self.columns = AttributeColumns(levels, missing=missing)
        sizes = [latent // 2] if hidden is None else list(hidden)
        if not sizes or min(*sizes, latent) < 1:
            raise MonaiFairError(
                f"AttributeEncoder: expected positive sizes, got latent {latent} and hidden {sizes}; correct them"
            )
        layers: list[nn.Module] = []
        for place, (before, after) in enumerate(zip([self.columns.width, *sizes], sizes, strict=False)):
            layers += [nn.Dropout(dropout if place else attribute_dropout), nn.Linear(before, after), nn.ReLU()]
        self.hidden = nn.Sequential(*layers, nn.Dropout(dropout))
        self.shift, self.scale = nn.Linear(sizes[-1], latent), nn.Linear(sizes[-1], latent)
        self.positive_scale = positive_scale

    def forward(self, attributes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``mu`` and ``sigma``, each of shape ``(B, R)``.

        Args:
            attributes: see :meth:`AttributeColumns.forward`.
        """
        hidden = self.hidden(self.columns(attributes).to(self.shift.weight.dtype))
        scale = self.scale(hidden)
        return self.shift(hidden), functional.softplus(scale) if self.positive_scale else scale
