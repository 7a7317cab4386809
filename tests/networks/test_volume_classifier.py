"""The small classifier of volumes: MONAI's Classifier with an activation where that has none."""

import pytest
import torch
from monai.networks.nets import Classifier

from monai_fair.errors import MonaiFairError
from monai_fair.networks import LayerInput, VolumeClassifier

SIZE = (12, 14, 12)


def images(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 1, *SIZE, generator=torch.Generator().manual_seed(0))


def test_it_is_monais_classifier_but_for_the_last_norm_and_activation() -> None:
    torch.manual_seed(0)
    ours = VolumeClassifier(SIZE, 2, channels=(4, 8), strides=(2, 2), norm=("group", {"num_groups": 4}))
    theirs = Classifier((1, *SIZE), 2, (4, 8), (2, 2), num_res_units=0, act="relu", norm=("group", {"num_groups": 4}))
    more = set(ours.state_dict()) - set(theirs.state_dict())
    assert more == {"net.layer_1.adn.N.weight", "net.layer_1.adn.N.bias"}
    theirs.load_state_dict({name: value for name, value in ours.state_dict().items() if name not in more})
    x = images()
    bare = theirs.net(x)
    # group norm by hand: 8 channels in 4 groups, each to mean 0 and variance 1
    grouped = bare.reshape(3, 4, -1)
    spread = grouped.var(2, correction=0, keepdim=True) + 1e-5
    normed = ((grouped - grouped.mean(2, keepdim=True)) / spread.sqrt()).reshape(bare.shape)
    torch.testing.assert_close(ours(x), theirs.final[1](normed.clamp(min=0).flatten(1)), rtol=1e-4, atol=1e-5)


def test_the_features_are_not_negative_and_keep_their_place() -> None:
    network = VolumeClassifier(SIZE)
    layer = LayerInput(network, "final.1")
    assert network(images()).shape == (3, 1)
    features = layer.take()
    assert features.shape == (3, 32)  # 12 x 14 x 12 halved four times is one voxel
    assert features.min() == 0
    assert VolumeClassifier((40, 48, 40)).final[1].in_features == 32 * 3 * 3 * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (12, 12)}, "expected image_size to be three positive numbers, got [12, 12]; correct it"),
        (
            {"image_size": SIZE, "strides": (2,)},
            "expected as many strides as channels, got [2] for [8, 16, 32, 32]; correct one",
        ),
    ],
)
def test_error_text(options: dict[str, object], message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        VolumeClassifier(**options)  # type: ignore[arg-type]
    assert str(caught.value) == f"VolumeClassifier: {message}"
