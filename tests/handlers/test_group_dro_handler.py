"""Group DRO in a MONAI trainer, and the handlers that check a sampler and keep the last model."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from torch import nn
from torch.utils.data import SequentialSampler

from monai_fair.data import group_counts
from monai_fair.data.artifacts import read_json
from monai_fair.errors import MonaiFairError
from monai_fair.handlers import GroupDROHandler, LastModelSaver, NIRHandler, SamplerCheck
from monai_fair.losses import ClassificationLoss, GroupDROLoss

SEX = ["male", "female", "male", "male", "female", "female", "male", "male"]
LABEL = [1, 0, 1, 0, 0, 1, 1, 1]


def rows() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"image": torch.randn(4, generator=generator), "label": label, "attributes": {"sex": sex}, "subject_id": "s"}
        for sex, label in zip(SEX, LABEL, strict=True)
    ]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Sequential(nn.Linear(4, 6), nn.ReLU()), nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x))


def trainer(loss: nn.Module, handlers: list[Any], **options: Any) -> SupervisedTrainer:
    torch.manual_seed(1)
    network = Net()
    return SupervisedTrainer(
        device="cpu",
        max_epochs=options.pop("max_epochs", 3),
        train_data_loader=DataLoader(rows(), batch_size=3),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=loss,
        train_handlers=handlers,
        **{"decollate": False, **options},
    )


def group_dro(step_size: float = 0.5) -> GroupDROLoss:
    return GroupDROLoss(group_counts(rows(), "sex"), step_size=step_size)


def weights(engine: SupervisedTrainer) -> torch.Tensor:
    return torch.cat([value.flatten() for value in engine.network.state_dict().values()])


@pytest.mark.parametrize("decollate", [False, True])
def test_training_equals_a_plain_loop(decollate: bool) -> None:
    loss = group_dro()
    engine = trainer(loss, [GroupDROHandler(loss, "sex")], decollate=decollate)
    engine.run()
    torch.manual_seed(1)
    network, own, data = Net(), group_dro(), rows()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        for start in range(0, 8, 3):
            batch = data[start : start + 3]
            optimizer.zero_grad()
            x, y = torch.stack([row["image"] for row in batch]), torch.tensor([row["label"] for row in batch])
            names = [f"{row['attributes']['sex']}, label {row['label']}" for row in batch]
            own(network(x), y, names).backward()
            optimizer.step()
    expected = torch.cat([value.flatten() for value in network.state_dict().values()])
    assert torch.equal(weights(engine), expected)
    assert loss.weights == own.weights
    erm = trainer(ClassificationLoss(), [])
    erm.run()
    assert not torch.allclose(weights(erm), expected, rtol=1e-3)


@pytest.mark.parametrize("first", ["nir", "dro"])
def test_nir_works_beside_it_in_any_order(first: str) -> None:
    seen = []
    loss = group_dro(step_size=0.0)
    handlers = [GroupDROHandler(loss, "sex"), NIRHandler("fc", 2.0)]
    engine = trainer(loss, handlers if first == "dro" else handlers[::-1], max_epochs=1)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output["loss"].item()))
    engine.run()
    plain_loss, plain = group_dro(step_size=0.0), []
    without = trainer(plain_loss, [GroupDROHandler(plain_loss, "sex")], max_epochs=1)
    without.add_event_handler(Events.ITERATION_COMPLETED, lambda e: plain.append(e.state.output["loss"].item()))
    without.run()
    # the first step starts from the same network
    assert seen[0] > plain[0] + 1e-3


def test_the_log_has_the_weight_of_every_group(caplog: pytest.LogCaptureFixture) -> None:
    loss = group_dro()
    handler = GroupDROHandler(loss, "sex")
    engine = trainer(loss, [handler], max_epochs=1)
    handler.attach(engine)  # a second call changes nothing
    with caplog.at_level(logging.INFO, "monai_fair"):
        engine.run()
    lines = [record.getMessage() for record in caplog.records if record.name == "monai_fair.handlers.group_dro"]
    shown = ", ".join(f"{name}: {weight:.4f}" for name, weight in loss.weights.items())
    assert lines == [f"epoch 1, weights of the groups: {shown}"]
    assert list(loss.weights) == ["female, label 0", "female, label 1", "male, label 0", "male, label 1"]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: trainer(ClassificationLoss(), [GroupDROHandler(group_dro(), "sex")]).run(),
            MonaiFairError,
            "GroupDROHandler: expected the trainer's loss_function to be its GroupDROLoss, got ClassificationLoss; lay "
            "group_dro.yaml over configs that set another loss",
        ),
        (
            lambda: (lambda loss: trainer(loss, [GroupDROHandler(loss, "site")]).run())(group_dro()),
            MonaiFairError,
            "expected the attribute 'site' in the batch, the ones there are sex; load the rows by load_datalist",
        ),
        (
            lambda: GroupDROHandler(group_dro(), "sex").attach(Engine(lambda *_: None)),
            TypeError,
            "GroupDROHandler: expected a monai.engines.SupervisedTrainer, got Engine; in other loops pass the groups "
            "to GroupDROLoss",
        ),
        (
            lambda: trainer(ClassificationLoss(), [SamplerCheck(SequentialSampler(rows()))]).run(),
            MonaiFairError,
            "training rows: expected to be drawn by SequentialSampler, got SequentialSampler; lay the overlay that "
            "draws rows by weight after the one for several processes",
        ),
    ],
)
def test_error_text(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == message


def test_the_sampler_of_the_loader_is_accepted() -> None:
    engine = trainer(ClassificationLoss(), [], max_epochs=1)
    SamplerCheck(engine.data_loader.sampler).attach(engine)
    engine.run()
    assert engine.state.epoch == 1


def test_the_last_model_is_kept_whatever_the_metric(tmp_path: Path) -> None:
    engine = trainer(ClassificationLoss(), [], max_epochs=2)
    LastModelSaver(engine.network, str(tmp_path / "model.pt"), settings={"image_size": [4]}).attach(engine)
    kept = []
    engine.add_event_handler(
        Events.EPOCH_COMPLETED, lambda e: kept.append(torch.load(tmp_path / "model.pt", weights_only=True))
    )
    engine.run()
    for name, value in engine.network.state_dict().items():
        assert torch.equal(kept[-1][name], value)
        assert not torch.equal(kept[0][name], value)
    assert read_json(tmp_path / "model.json", "model")["settings"] == {"image_size": [4]}
