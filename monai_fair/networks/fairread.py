"""FairREAD: a fair image encoder, and attributes put back where they help."""

import copy
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from monai_fair.data.attribute_coding import output_widths
from monai_fair.errors import MonaiFairError
from monai_fair.networks.attribute_encoder import AttributeEncoder
from monai_fair.networks.erasure import ErasedEncoder, LinearErasure
from monai_fair.networks.gradient_reversal import GradientReversal
from monai_fair.networks.refusion import AttributeAdversary, ConvLayout, RefusionBlock, pooled


class EmbeddingClassifier(nn.Module):
    """Stage 1 of FairREAD: a classifier over a normalised embedding.

    Feature map, ReLU, mean over places, ``Linear C -> d``, division by the L2 norm (the embedding z), ``Linear d ->
    K``. The model of the disease and that of the attributes have this shape, with weights of their own.

    Args:
        encoder: takes images to a feature map ``(B, C, *spatial)``, such as ``DenseNet121(...).features``.
        channels: C.
        out_channels: K.
        embedding: d.
        adversary: what guesses attributes from the map in ``train()``, behind a :class:`GradientReversal`, as in
            :class:`FairREAD`; ``None`` for none.
        erasure: changes z, of width d, which then has not length 1; ``None`` leaves it.

    References:
        Deng, Zhong, Dou, Li, IPMI 2023, arXiv:2301.01481.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        channels: int,
        out_channels: int = 1,
        embedding: int = 128,
        adversary: AttributeAdversary | None = None,
        erasure: LinearErasure | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.projection = nn.Linear(channels, embedding)
        self.erasure = erasure
        self.out = nn.Linear(embedding, out_channels)
        self.reversal = GradientReversal(0.0)
        self.adversary = adversary

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, shape ``(B, K)``; what enters ``out`` is the embedding of :meth:`embed`."""
        features = self.encoder(images)
        if self.adversary is not None and self.training:
            self.adversary(self.reversal(features))
        logits: torch.Tensor = self.out(self._embedding(features))
        return logits

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Return z, shape ``(B, d)``, rows of length 1 where nothing is erased."""
        return self._embedding(self.encoder(images))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return what enters ``projection``: the mean over places of the map behind its ReLU, shape ``(B, C)``."""
        return pooled(functional.relu(self.encoder(images)))

    def _embedding(self, features: torch.Tensor) -> torch.Tensor:
        z: torch.Tensor = functional.normalize(self.projection(pooled(functional.relu(features))), dim=1)
        return z if self.erasure is None else self.erasure(z)


def classifier_like(network: EmbeddingClassifier, out_channels: int) -> EmbeddingClassifier:
    """Return a copy with another number of outputs and weights of its own, such as the model of the attributes."""
    copied = copy.deepcopy(network)
    copied.out = nn.Linear(network.out.in_features, out_channels)
    return copied


def with_erasures(network: EmbeddingClassifier, rank: int) -> EmbeddingClassifier:
    """Put a linear erasure behind the encoder's map, and one behind the embedding; neither changes anything yet.

    Args:
        network: it is changed in place.
        rank: columns that the attributes take; see :class:`LinearErasure`.

    Returns:
        ``network``.
    """
    channels, width = network.projection.in_features, network.out.in_features
    network.encoder = ErasedEncoder(network.encoder, channels=channels, rank=rank)
    network.erasure = LinearErasure(width, rank)
    return network


class FairREAD(nn.Module):
    """Stage 2 of FairREAD: re-fuse attributes into the map of a fair encoder, and classify.

    Of the stage-1 classifier only the encoder is used. In ``train()`` an adversary, if there is one, guesses the
    attributes from the encoder's map behind a :class:`GradientReversal`; a hook on ``adversary`` sees its logits.

    Args:
        encoder: takes images to a feature map ``(B, C, *spatial)``.
        attributes: takes attributes to ``mu`` and ``sigma``.
        channels: C.
        out_channels: number of logits.
        spatial_dims: 2 or 3.
        latent: R, as in ``attributes``.
        blocks: N, number of :class:`RefusionBlock`.
        dropout: in the blocks and before the last layer.
        layout: of the blocks.
        reduction: of bottlenecks.
        end_channels: channels after the last block, for ``double``; the others lie evenly between.
        residual: see :class:`RefusionBlock`.
        adversary: whether there is one.
        freeze_encoder: train nothing of the encoder: its batch norms keep their statistics in ``train()`` too.

    Raises:
        MonaiFairError: if options do not fit together.

    References:
        Gao, Hao, Zhou, FairREAD: Re-fusing demographic attributes after disentanglement for fair medical image
        classification, arXiv:2412.16373.
    """

    def __init__(
        self,
        encoder: nn.Module,
        attributes: AttributeEncoder,
        *,
        channels: int,
        out_channels: int = 1,
        spatial_dims: int = 2,
        latent: int = 256,
        blocks: int = 2,
        dropout: float = 0.1,
        layout: ConvLayout = "bottleneck",
        reduction: int = 8,
        end_channels: int | None = None,
        residual: bool = False,
        adversary: bool = True,
        freeze_encoder: bool = False,
    ) -> None:
        super().__init__()
        if blocks < 1 or attributes.shift.out_features != latent:
            raise MonaiFairError(
                f"FairREAD: expected at least one block and attributes of the latent size {latent}, got {blocks} and "
                f"{attributes.shift.out_features}; correct 'blocks' or 'latent'"
            )
        self.encoder, self.attributes = encoder, attributes
        widths = np.linspace(channels, end_channels or channels, blocks + 1).round().astype(int).tolist()
        self.blocks = nn.ModuleList(
            RefusionBlock(spatial_dims, before, latent, dropout=dropout, layout=layout, reduction=reduction,
                          out_channels=after, residual=residual)
            for before, after in pairwise(widths)
        )  # fmt: skip
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], out_channels))
        guesses = sum(output_widths(attributes.columns.levels))
        self.reversal = GradientReversal(0.0)
        self.adversary = AttributeAdversary(spatial_dims, channels, guesses, reduction=reduction) if adversary else None
        self.out_channels, self.freeze_encoder = out_channels, freeze_encoder
        if freeze_encoder:
            encoder.requires_grad_(False)
            encoder.eval()

    def train(self, mode: bool = True) -> "FairREAD":
        """Set the mode of all but a frozen encoder."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        return self

    def forward(self, images: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        """Return logits, shape ``(B, out_channels)``.

        Args:
            images: what the encoder takes.
            attributes: see :meth:`~monai_fair.networks.AttributeColumns.forward`.
        """
        features = self.encoder(images)
        if self.adversary is not None and self.training:
            self.adversary(self.reversal(features))
        return self.fuse(features, attributes)

    def fuse(self, features: torch.Tensor, attributes: torch.Tensor) -> torch.Tensor:
        """Return logits of a feature map ``(B, C, *spatial)`` and its attributes."""
        shift, scale = self.attributes(attributes)
        for block in self.blocks:
            features = block(features, shift, scale)
        logits: torch.Tensor = self.out(pooled(features))
        return logits
