"""A small convolutional classifier of volumes that trains on a few cores."""

from collections.abc import Sequence
from typing import Any

from monai.networks.nets import Classifier

from monai_fair.errors import MonaiFairError, raise_problems


class VolumeClassifier(Classifier):
    """MONAI's ``Classifier`` (strided convolutions, then one linear layer) with non-negative features.

    ``Classifier`` leaves its last convolution bare, so that two linear maps follow each other. Here a norm and
    ReLU follow that one too: what enters the linear layer ``final.1`` is the activation of units, as neuron incidence
    redistribution and the diagnostics of features expect. The features keep their place in the image, which is
    what an effect in one place of the brain needs; networks with global pooling lose it.

    Args:
        image_size: voxels along the three axes; other sizes do not fit the linear layer.
        out_channels: outputs; 1 for two classes.
        in_channels: channels of the image.
        channels: outputs of each convolution.
        strides: their strides, as many.
        norm: MONAI's name of the norm, or name and options, such as ``("group", {"num_groups": 4})``.

    Raises:
        MonaiFairError: if the options do not fit each other.
    """

    def __init__(
        self,
        image_size: Sequence[int],
        out_channels: int = 1,
        *,
        in_channels: int = 1,
        channels: Sequence[int] = (8, 16, 32, 32),
        strides: Sequence[int] = (2, 2, 2, 2),
        norm: str | tuple[str, dict[str, Any]] = "batch",
    ) -> None:
        raise_problems(MonaiFairError, "VolumeClassifier", _problems(image_size, channels, strides))
        super().__init__(
            in_shape=(in_channels, *image_size),
            classes=out_channels,
            channels=channels,
            strides=strides,
            num_res_units=0,
            act="relu",
            norm=norm,
        )

    def _get_layer(self, in_channels: int, out_channels: int, strides: int, is_last: bool) -> Any:
        return super()._get_layer(in_channels, out_channels, strides, False)


def _problems(image_size: Sequence[int], channels: Sequence[int], strides: Sequence[int]) -> list[str]:
    problems = []
    if len(image_size) != 3 or min(image_size) < 1:
        problems.append(f"expected image_size to be three positive numbers, got {list(image_size)}; correct it")
    if not channels or len(channels) != len(strides):
        problems.append(f"expected as many strides as channels, got {list(strides)} for {list(channels)}; correct one")
    return problems
