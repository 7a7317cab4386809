"""Start a MONAI ResNet from ImageNet weights in torchvision's format."""

from pathlib import Path

import torch
from torch import nn

from monai_fair.errors import ArtifactError

_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"


def load_imagenet_weights(
    network: nn.Module,
    weights_file: str | None = None,
    *,
    pretrained: bool = True,
    download: bool = False,
    head: str = "fc",
) -> nn.Module:
    """Copy ImageNet weights into a 2D network, all but the last layer.

    MONAI's 2D ResNets built with ``bias_downsample=False`` have torchvision's parameter names, so the files that
    torchvision publishes fit as they are.

    Args:
        network: the network; it is changed in place.
        weights_file: a state dict in torchvision's format (``.pth``).
        pretrained: false leaves the network as it is.
        download: fetch torchvision's ResNet-18 weights to ``weights_file`` when it is missing. Nothing is ever
            fetched without being asked for.
        head: name of the last layer, which has another number of classes and keeps its own initial values.

    Returns:
        ``network``.

    Raises:
        ArtifactError: if the file is missing or damaged, or its weights do not fit the network.
    """
    if not isinstance(pretrained, bool) or not isinstance(download, bool):
        # a command line passes "false" as text, which would count as true
        raise ArtifactError(f"expected True or False for pretrained and download, got {pretrained!r} and {download!r}")
    if not pretrained:
        return network
    if weights_file is None:
        raise ArtifactError(
            "pretrained: expected weights_file, the path of ImageNet weights in torchvision's format, got none; "
            "give the file, or set pretrained to false to start from random weights"
        )
    path = Path(weights_file)
    if not path.is_file() and download:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(_URL, str(path), hash_prefix="f37072fd")
    if not path.is_file():
        raise ArtifactError(
            f"{path}: expected ImageNet weights in torchvision's format, found no file; put {Path(_URL).name} "
            "there, or set download to true to fetch it, or pretrained to false to start from random weights"
        )
    stored = _read(path)
    kept = {name: value for name, value in stored.items() if not name.startswith(f"{head}.")}
    own = {name: value for name, value in network.state_dict().items() if not name.startswith(f"{head}.")}
    wrong = [name for name in own if name not in kept or kept[name].shape != own[name].shape]
    if wrong or set(kept) - set(own):
        names = ", ".join([*wrong, *sorted(set(kept) - set(own))][:5])
        raise ArtifactError(f"{path}: its weights do not fit the network (first differences: {names}); check the depth")
    network.load_state_dict(kept, strict=False)
    return network


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        stored: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors for a file that is not weights
        raise ArtifactError(f"{path}: expected a file of weights without code in it; {error}") from error
    if not isinstance(stored, dict) or not all(isinstance(value, torch.Tensor) for value in stored.values()):
        raise ArtifactError(
            f"{path}: expected a state dict (names to tensors), got something else; give the right file"
        )
    return stored
