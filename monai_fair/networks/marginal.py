"""Predictions of FairREAD where an attribute is missing: the mean over what it could be."""

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn

from monai_fair.errors import MonaiFairError
from monai_fair.networks.attribute_encoder import CONTINUOUS
from monai_fair.networks.fairread import FairREAD
from monai_fair.networks.layer_input import unwrapped


@torch.no_grad()
def marginal_probabilities(
    network: FairREAD,
    images: torch.Tensor,
    attributes: torch.Tensor,
    combinations: torch.Tensor,
    weights: torch.Tensor,
    *,
    told: Sequence[bool] | None = None,
) -> torch.Tensor:
    """Return probabilities averaged over what is missing of the attributes.

    For each row, the combinations that agree with its known categorical attributes are put where it has none, and the
    probabilities are averaged by the weights of these combinations. A row without a missing attribute is predicted as
    it is. The encoder runs once.

    Args:
        network: in ``eval()``.
        images: what the encoder takes, B of them.
        attributes: shape ``(B, A)``; NaN where one is missing.
        combinations: values of all attributes, shape ``(J, A)``, such as the distinct rows of the training set.
        weights: how frequent each is, shape ``(J,)``, positive.
        told: of each attribute, whether the network has learned what its missing means: nothing is put in for these.
            ``None`` for none.

    Returns:
        Shape ``(B, K)``: one sigmoid, or a softmax over several outputs.

    Raises:
        MonaiFairError: if the network is in ``train()``, or no combination agrees with what is known of a row.
    """
    if network.training:
        raise MonaiFairError("marginal_probabilities: expected a network in eval(), got one in train(); call eval()")
    levels = torch.tensor(network.attributes.columns.levels, device=attributes.device)
    absent = attributes.isnan()
    unknown = absent if told is None else absent & ~torch.tensor(list(told), device=attributes.device)
    free = absent | (levels == CONTINUOUS)
    agree = (free[:, None] | (attributes[:, None] == combinations[None])).all(dim=2)  # (B, J)
    agree = agree | ~unknown.any(dim=1, keepdim=True)  # nothing to put in, whatever the combination
    if not bool(agree.any(dim=1).all()):
        row = int((~agree.any(dim=1)).nonzero()[0])
        raise MonaiFairError(
            f"marginal_probabilities: expected a combination with the attributes {attributes[row].tolist()} of row "
            f"{row}, got none; add the ones that can be met"
        )
    features = network.encoder(images)
    found = torch.zeros(len(features), network.out_channels, device=features.device, dtype=features.dtype)
    share = agree * weights
    share = share / share.sum(dim=1, keepdim=True)
    for place, combination in enumerate(combinations):
        rows = agree[:, place].nonzero()[:, 0]
        filled = torch.where(unknown[rows], combination[None], attributes[rows])
        logits = network.fuse(features[rows], filled)
        probabilities = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
        found[rows] += share[rows, place, None] * probabilities
    return found


class MarginalInferer(Inferer):
    """Probabilities of a FairREAD network, averaged over what is missing of the attributes.

    Args:
        combinations: see :func:`marginal_probabilities`.
        weights: as well.
        told: as well.
    """

    def __init__(
        self, combinations: Sequence[Sequence[float]], weights: Sequence[float], *, told: Sequence[bool] | None = None
    ) -> None:
        super().__init__()
        self.combinations, self.weights = torch.tensor(combinations), torch.tensor(weights, dtype=torch.float32)
        self.told = told

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return probabilities, shape ``(B, K)``.

        Args:
            inputs: images.
            network: a :class:`FairREAD` in ``eval()``, wrapped or not.
            args: the attributes, shape ``(B, A)``; nothing where none is known of anybody.
            kwargs: none are used.
        """
        bare: nn.Module = unwrapped(network)
        if not isinstance(bare, FairREAD):
            raise MonaiFairError(f"MarginalInferer: expected a FairREAD network, got {type(bare).__name__}")
        (attributes,) = args or (self.combinations.new_full((len(inputs), self.combinations.shape[1]), torch.nan),)
        attributes = attributes.to(inputs.device)
        combinations, weights = self.combinations.to(attributes), self.weights.to(attributes)
        return marginal_probabilities(bare, inputs, attributes, combinations, weights, told=self.told)
