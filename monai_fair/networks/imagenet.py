"""Start a MONAI ResNet from ImageNet weights in torchvision's format."""

import re
from pathlib import Path

import torch
from torch import nn

from monai_fair.errors import ArtifactError
from monai_fair.networks.stored_weights import read_weights

_FILES = {"DenseNet121": "densenet121-a639ec97.pth"}  # by class of the network; all others: the first ResNet
_RESNET = "resnet18-f37072fd.pth"
_SITE = "https://download.pytorch.org/models"
_LAYER = re.compile(r"^(.*denselayer\d+)\.(norm|conv)\.?(?=[12]\.)")
_HEADS = ("fc.", "classifier.")  # torchvision's last layers


def load_imagenet_weights(
    network: nn.Module,
    weights_file: str | None = None,
    *,
    pretrained: bool = True,
    download: bool = False,
    head: str = "fc",
) -> nn.Module:
    """Copy ImageNet weights into a 2D network, all but the last layer.

    MONAI's 2D ResNets built with ``bias_downsample=False`` have torchvision's parameter names; those of its DenseNets
    are translated. So the files that torchvision publishes fit as they are.

    Args:
        network: the network; it is changed in place.
        weights_file: a state dict in torchvision's format (``.pth``).
        pretrained: false leaves the network as it is.
        download: fetch torchvision's weights of ResNet-18, or of DenseNet-121 for MONAI's ``DenseNet121``, to
            ``weights_file`` when it is missing. Nothing is ever fetched without being asked for.
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
    path, published = Path(weights_file), _FILES.get(type(network).__name__, _RESNET)
    if not path.is_file() and download:
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = published.removesuffix(".pth").rpartition("-")[2]
        torch.hub.download_url_to_file(f"{_SITE}/{published}", str(path), hash_prefix=digest)
    if not path.is_file():
        raise ArtifactError(
            f"{path}: expected ImageNet weights in torchvision's format, found no file; put {published} there, or set "
            "download to true to fetch it, or pretrained to false to start from random weights"
        )
    network.load_state_dict(_fitting(network, path, head), strict=False)
    return network


def _fitting(network: nn.Module, path: Path, head: str) -> dict[str, torch.Tensor]:
    """Return the weights of a file by the network's names, without the last layer."""
    kept = {
        _LAYER.sub(r"\1.layers.\2", name): value
        for name, value in read_weights(path).items()
        if not name.startswith((f"{head}.", *_HEADS))
    }
    own = {name: value for name, value in network.state_dict().items() if not name.startswith(f"{head}.")}
    # files of old versions do not count batches, and nothing that is trained with a momentum needs the count
    needed = [name for name in own if name in kept or not name.endswith("num_batches_tracked")]
    wrong = [name for name in needed if name not in kept or kept[name].shape != own[name].shape]
    if wrong or set(kept) - set(own):
        names = ", ".join([*wrong, *sorted(set(kept) - set(own))][:5])
        raise ArtifactError(f"{path}: its weights do not fit the network (first differences: {names}); check the depth")
    return kept
