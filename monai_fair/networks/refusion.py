"""Re-fuse attributes into a feature map: channels are scaled by what image and attributes say together."""

from typing import Literal, get_args

import torch
from monai.networks.blocks import Convolution
from torch import nn

from monai_fair.errors import MonaiFairError

ConvLayout = Literal["bottleneck", "double"]


def pooled(features: torch.Tensor) -> torch.Tensor:
    """Return the mean over all places of a map, shape ``(B, C)``, also for a batch of one."""
    return features.flatten(2).mean(dim=2)


def bottleneck(spatial_dims: int, channels: int, reduction: int = 8) -> nn.Sequential:
    """Return ``1x1 C -> C/q, 3x3, 1x1 C/q -> C``, each with batch norm, and one ReLU at the end; no bias.

    Args:
        spatial_dims: 2 or 3.
        channels: C, at least ``reduction``.
        reduction: q.
    """
    inner = max(1, channels // reduction)
    plan = [(channels, inner, 1, None), (inner, inner, 3, None), (inner, channels, 1, "RELU")]
    return nn.Sequential(*(_convolution(spatial_dims, *layer) for layer in plan))


def double(spatial_dims: int, channels: int, out_channels: int) -> nn.Sequential:
    """Return two 3x3 convolutions with batch norm and ReLU, over ``(C + C') / 2`` channels; no bias."""
    inner = (channels + out_channels) // 2
    plan = [(channels, inner, 3, "RELU"), (inner, out_channels, 3, "RELU")]
    return nn.Sequential(*(_convolution(spatial_dims, *layer) for layer in plan))


class RefusionBlock(nn.Module):
    """One re-fusion of attributes into a feature map X (FairREAD).

    ``v = ReLU(Linear(Dropout(GAP(X))))``, ``s = ReLU(Linear(Dropout(v sigma + mu)))``, ``X <- Conv(X s)``.

    Args:
        spatial_dims: 2 or 3.
        channels: C of the map.
        latent: R, size of ``mu`` and ``sigma``.
        dropout: before both linear layers.
        layout: ``bottleneck`` (see :func:`bottleneck`) or ``double`` (see :func:`double`).
        reduction: of the bottleneck.
        out_channels: of the new map, for ``double``; ``None`` keeps C.
        residual: add X to the new map.

    Raises:
        MonaiFairError: if the layout is unknown, or channels change where they cannot.
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        latent: int = 256,
        *,
        dropout: float = 0.1,
        layout: ConvLayout = "bottleneck",
        reduction: int = 8,
        out_channels: int | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__()
        after = channels if out_channels is None else out_channels
        if layout not in get_args(ConvLayout):
            raise MonaiFairError(f"RefusionBlock: expected layout 'bottleneck' or 'double', got '{layout}'; choose one")
        if after != channels and (layout == "bottleneck" or residual):
            raise MonaiFairError(
                f"RefusionBlock: expected as many channels after a {'residual' if residual else layout} block as "
                f"before, {channels}, got {after}; take layout 'double' without residual"
            )
        self.to_latent = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, latent), nn.ReLU())
        self.to_channels = nn.Sequential(nn.Dropout(dropout), nn.Linear(latent, channels), nn.ReLU())
        narrow = layout == "bottleneck"
        self.conv = bottleneck(spatial_dims, channels, reduction) if narrow else double(spatial_dims, channels, after)
        self.residual = residual

    def forward(self, features: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Return the new map.

        Args:
            features: X, shape ``(B, C, *spatial)``.
            shift: mu, shape ``(B, R)``.
            scale: sigma, shape ``(B, R)``.

        Returns:
            Shape ``(B, C', *spatial)``.
        """
        strength = self.to_channels(self.to_latent(pooled(features)) * scale + shift)
        shape = list(strength.shape) + [1] * (features.ndim - 2)
        fused: torch.Tensor = self.conv(features * strength.reshape(shape))
        return features + fused if self.residual else fused


class AttributeAdversary(nn.Module):
    """Guess attributes from a feature map: a bottleneck, the mean over places, one linear layer.

    Args:
        spatial_dims: 2 or 3.
        channels: C of the map.
        outputs: number of logits, such as one for each attribute of two levels.
        reduction: of the bottleneck.
    """

    def __init__(self, spatial_dims: int, channels: int, outputs: int, *, reduction: int = 8) -> None:
        super().__init__()
        self.conv = bottleneck(spatial_dims, channels, reduction)
        self.out = nn.Linear(channels, outputs)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits, shape ``(B, outputs)``, of a map ``(B, C, *spatial)``."""
        logits: torch.Tensor = self.out(pooled(self.conv(features)))
        return logits


def _convolution(spatial_dims: int, before: int, after: int, kernel: int, act: str | None) -> nn.Module:
    layer: nn.Module = Convolution(spatial_dims, before, after, kernel_size=kernel, norm="BATCH", act=act, bias=False)
    return layer
