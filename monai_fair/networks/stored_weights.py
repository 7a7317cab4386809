"""Weights of a training that came before, for a network or a part of it."""

from pathlib import Path

import torch
from torch import nn

from monai_fair.errors import ArtifactError


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Return a state dict, names to tensors.

    Raises:
        ArtifactError: if the file holds anything but weights.
    """
    try:
        stored: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors for a file that is not weights
        raise ArtifactError(f"{path}: expected a file of weights without code in it; {error}") from error
    if not isinstance(stored, dict) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise ArtifactError(
            f"{path}: expected a state dict (names to tensors), got something else; give the right file"
        )
    return stored


def load_weights(network: nn.Module, weights_file: str | Path | None, *, prefix: str = "") -> nn.Module:
    """Copy the weights of an earlier training into a network.

    Args:
        network: it is changed in place.
        weights_file: state dict that a training of this project wrote; ``None`` leaves the network as it is.
        prefix: of the names in the file that belong to ``network``, such as ``encoder.``; the others are not read.

    Returns:
        ``network``.

    Raises:
        ArtifactError: if the file is missing or holds anything but weights, or its weights do not fit the network.
    """
    if weights_file is None:
        return network
    path = Path(weights_file)
    if not path.is_file():
        raise ArtifactError(f"{path}: expected the weights of an earlier stage, found no file; run that stage first")
    stored = read_weights(path)
    kept = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
    own = network.state_dict()
    wrong = sorted({*own, *kept} - {name for name in own if name in kept and own[name].shape == kept[name].shape})
    if wrong:
        raise ArtifactError(
            f"{path}: its weights{f' of {prefix}' if prefix else ''} do not fit the network (first differences: "
            f"{', '.join(wrong[:5])}); give both stages the same network"
        )
    network.load_state_dict(kept)
    return network
