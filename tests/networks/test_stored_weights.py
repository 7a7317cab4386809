"""Weights of an earlier stage: into a part of a network, whole or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from monai_fair.errors import ArtifactError
from monai_fair.networks import EmbeddingClassifier, classifier_like, load_weights


def classifier(seed: int, outputs: int = 1) -> EmbeddingClassifier:
    torch.manual_seed(seed)
    return EmbeddingClassifier(nn.Conv2d(1, 4, 3), channels=4, out_channels=outputs, embedding=3)


def test_a_part_takes_its_weights(tmp_path: Path) -> None:
    source, target = classifier(0), classifier(1)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    before = target.out.weight.clone()
    assert load_weights(target.encoder, tmp_path / "w.pt", prefix="encoder.") is target.encoder
    assert torch.equal(target.encoder.weight, source.encoder.weight)  # type: ignore[arg-type]
    assert torch.equal(target.out.weight, before)
    load_weights(target, tmp_path / "w.pt")
    assert torch.equal(target.out.weight, source.out.weight)


def test_without_a_file_nothing_changes() -> None:
    network = classifier(0)
    before = network.out.weight.clone()
    assert load_weights(network, None) is network
    assert torch.equal(network.out.weight, before)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected the weights of an earlier stage, found no file; run that stage first"),
        (b"nothing", "expected a file of weights without code in it"),
        ([torch.zeros(1)], r"expected a state dict \(names to tensors\), got something else"),
        ({"encoder.weight": torch.zeros(4, 1, 3, 3)}, r"weights of encoder\. do not fit .*first differences: bias\)"),
        (
            {"encoder.weight": torch.zeros(5, 1, 3, 3), "encoder.bias": torch.zeros(4), "encoder.more": torch.zeros(1)},
            r"first differences: more, weight\); give both stages the same network",
        ),
    ],
)
def test_a_file_that_does_not_fit_leaves_the_network(tmp_path: Path, content: Any, message: str) -> None:
    path, network = tmp_path / "w.pt", classifier(0)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ArtifactError, match=message):
        load_weights(network.encoder, path, prefix="encoder.")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_like_classifier_shares_no_weight() -> None:
    network = classifier(0)
    other = classifier_like(network, 5)
    assert other(torch.zeros(2, 1, 4, 4)).shape == (2, 5)
    with torch.no_grad():
        other.encoder.bias.add_(1.0)  # type: ignore[operator,union-attr]
    assert not torch.equal(other.encoder.bias, network.encoder.bias)  # type: ignore[arg-type]
    assert other.embed(torch.zeros(2, 1, 4, 4)).shape == (2, 3)
