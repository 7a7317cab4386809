"""A linear erasure is fitted to what enters it in an evaluator."""

from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from torch import nn

from monai_fair.errors import MonaiFairError
from monai_fair.handlers import ErasureFitter
from monai_fair.networks import EmbeddingClassifier, least_squares_erasure, with_erasures

NAN = float("nan")


def rows(n: int = 24, *, missing: int = 0) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 2, (n, 1), generator=generator).float()
    images = torch.randn(n, 1, 8, 8, generator=generator) + codes[:, :, None, None]
    codes[:missing] = NAN
    return [{"image": image, "label": place % 2, "attribute_codes": code}
            for place, (image, code) in enumerate(zip(images, codes, strict=True))]  # fmt: skip


def network() -> EmbeddingClassifier:
    torch.manual_seed(1)
    return with_erasures(EmbeddingClassifier(nn.Conv2d(1, 5, 3), channels=5, embedding=4), rank=1)


def run(own: EmbeddingClassifier, name: str, data: list[dict[str, Any]], **options: Any) -> None:
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(data), batch_size=7),  # type: ignore[no-untyped-call]
        network=own,
        val_handlers=[ErasureFitter(own, name, levels=[2], **options)],
        decollate=False,
    ).run()


@pytest.mark.parametrize("by_class", [True, False])
def test_it_is_fitted_to_every_row_that_has_its_attributes(by_class: bool) -> None:
    own, data = network(), rows(missing=3)
    images, labels = torch.stack([row["image"] for row in data]), torch.arange(24) % 2
    codes = torch.stack([row["attribute_codes"] for row in data])
    with torch.no_grad():
        entered = own.encoder(images).mean(dim=(2, 3))
    read, write, mean = least_squares_erasure(entered[3:], codes[3:], labels[3:] if by_class else None)
    run(own, "encoder.erasure", data, by_class=by_class)
    erasure = own.encoder.erasure
    for found, wanted in zip((erasure.read, erasure.write, erasure.mean), (read, write, mean), strict=True):
        torch.testing.assert_close(found, wanted.float())
    with torch.no_grad():
        entered = nn.functional.normalize(own.projection(own.encoder(images).relu().mean(dim=(2, 3))), dim=1)
    run(own, "erasure", data, by_class=by_class)  # the second place sees what the first one leaves
    assert own.erasure is not None
    torch.testing.assert_close(own.erasure.mean, entered[3:].mean(dim=0))


def test_a_place_that_is_not_there_and_rows_without_attributes_are_told() -> None:
    with pytest.raises(MonaiFairError, match="expected a LinearErasure 'out' in the network, got Linear"):
        run(network(), "out", rows())
    with pytest.raises(MonaiFairError, match="with every attribute, got 1 of 24"):
        run(network(), "erasure", rows(missing=23))
