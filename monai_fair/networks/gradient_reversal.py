"""A layer that passes features on and turns their gradient round."""

import torch
from torch import nn

from monai_fair.errors import MonaiFairError


class GradientReversal(nn.Module):
    """Identity whose gradient is multiplied by ``-strength``.

    Between an encoder and an adversary with its own loss L, the adversary descends L while the encoder descends
    ``-strength L``: both from one backward pass and with one optimiser.

    Args:
        strength: at least 0; with 0 the encoder does not feel the adversary. It may be set between steps, and is no
            part of the state.

    Raises:
        MonaiFairError: if the strength is negative.

    References:
        Ganin et al., Domain-adversarial training of neural networks, JMLR 2016, arXiv:1505.07818.
    """

    strength: torch.Tensor

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        if not strength >= 0:
            raise MonaiFairError(f"GradientReversal: expected a strength of at least 0, got {strength}; correct it")
        # a tensor, so that a scripted or compiled network takes a new value
        self.register_buffer("strength", torch.tensor(float(strength)), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return ``features``, any shape, as they are."""
        kept = features.detach()
        # of what is added, the value is 0 and the gradient -strength
        return kept - self.strength.to(features.dtype) * (features - kept)
