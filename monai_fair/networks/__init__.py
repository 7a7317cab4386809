"""Networks and what is done to them: initial weights, and reading the features a layer receives."""

from monai_fair.networks.imagenet import load_imagenet_weights
from monai_fair.networks.layer_input import LayerInput, unwrapped

__all__ = ["LayerInput", "load_imagenet_weights", "unwrapped"]
