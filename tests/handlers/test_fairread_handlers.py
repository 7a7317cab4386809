"""FairREAD's two stages in a MONAI trainer: what is added to the loss, and what it moves."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import IterationEvents, PrepareBatchExtraInput, SupervisedTrainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from monai_fair.errors import MonaiFairError
from monai_fair.handlers import AdversaryHandler, OrthogonalityHandler
from monai_fair.handlers.orthogonality import FairFeature
from monai_fair.losses import (
    AttributeLoss,
    ClassificationLoss,
    ColumnOrthogonality,
    RowOrthogonality,
    sensitive_basis,
)
from monai_fair.networks import AttributeEncoder, EmbeddingClassifier, FairREAD

LEVELS = [2, 2]


def encoder() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8))


def samples(n: int = 12, *, classes: int = 2) -> list[dict[str, torch.Tensor]]:
    """Images whose mean tells the first attribute."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 2, (n, 2), generator=generator).float()
    return [
        {
            "image": torch.randn(1, 8, 8, generator=generator) + codes[place, 0],
            "label": torch.tensor(place % classes),
            "attribute_codes": codes[place],
        }
        for place in range(n)
    ]


def stage_2(handlers: list[Any], *, epochs: int = 2, network: nn.Module | None = None, **options: Any) -> Any:
    torch.manual_seed(0)
    if network is None:
        network = FairREAD(encoder(), AttributeEncoder(LEVELS, 4, dropout=0), channels=8, latent=4, dropout=0)
    return SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader(options.pop("data", samples()), batch_size=4),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=options.pop("lr", 0.1)),
        loss_function=ClassificationLoss(),
        prepare_batch=PrepareBatchExtraInput("attribute_codes"),
        train_handlers=handlers,
        **options,
    )


def adversary(strength: float, **options: Any) -> AdversaryHandler:
    return AdversaryHandler(AttributeLoss(LEVELS), strength, **options)


def moved(engine: Any) -> dict[str, torch.Tensor]:
    """Weights after a run."""
    engine.run()
    return {name: weight.detach().clone() for name, weight in engine.network.named_parameters()}


def test_the_adversary_learns_and_with_strength_0_nothing_else_changes() -> None:
    network = FairREAD(encoder(), AttributeEncoder(LEVELS, 4, dropout=0), channels=8, latent=4, dropout=0)
    torch.manual_seed(0)
    names = [name for name, _ in network.named_parameters() if not name.startswith("adversary")]
    silent, heard = moved(stage_2([adversary(0.0)])), moved(stage_2([]))
    assert all(torch.equal(silent[name], heard[name]) for name in names)
    assert not torch.equal(silent["adversary.out.weight"], heard["adversary.out.weight"])
    engine = stage_2([adversary(0.0)], epochs=30)
    seen: list[float] = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: seen.append(e.state.metrics["adversary"]))
    engine.run()
    assert seen[-1] < 0.7 * seen[0]


def test_an_encoder_with_strength_hides_the_attributes() -> None:
    """Against the same training without strength the adversary ends worse; nothing else is claimed."""
    losses = {}
    for strength in (0.0, 3.0):
        engine = stage_2([adversary(strength)], epochs=40, lr=0.03)
        engine.run()
        losses[strength] = engine.state.metrics["adversary"]
    assert losses[3.0] > losses[0.0] + 0.1


def test_the_strength_rises_in_the_warm_up_and_is_that_of_the_iteration() -> None:
    handler = adversary(0.8, warm_up_epochs=2)
    engine = stage_2([handler], epochs=3)
    seen: list[float] = []
    engine.add_event_handler(
        IterationEvents.FORWARD_COMPLETED, lambda e: seen.append(e.network.reversal.strength.item())
    )
    engine.run()
    assert seen == pytest.approx([0.8 * min(1, step / 6) for step in range(9)])
    assert engine.state.metrics["adversary_strength"] == pytest.approx(0.8)
    assert not engine.network.adversary._forward_hooks


def test_the_loss_in_the_output_has_the_adversary_s() -> None:
    engine = stage_2([adversary(0.5)], epochs=1, lr=0.0)
    found: list[torch.Tensor] = []

    def check(e: Engine) -> None:
        y_pred, y = e.state.output["pred"].detach(), e.state.output["label"]
        found.append(e.state.output["loss"].detach() - ClassificationLoss()(y_pred, y))

    engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, check)
    engine.run()
    assert engine.state.metrics["adversary"] == pytest.approx(torch.stack(found).mean().item(), abs=1e-6)


def stage_1(handlers: list[Any], *, epochs: int = 2, network: nn.Module | None = None, **options: Any) -> Any:
    torch.manual_seed(0)
    if network is None:
        network = EmbeddingClassifier(encoder(), channels=8, embedding=4)
    return SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader(samples(), batch_size=options.pop("batch", 4)),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=options.pop("lr", 0.1)),
        loss_function=ClassificationLoss(),
        train_handlers=handlers,
    )


def attribute_model() -> EmbeddingClassifier:
    torch.manual_seed(5)
    return EmbeddingClassifier(encoder(), channels=8, out_channels=2, embedding=4)


def images() -> Iterator[Any]:
    return iter(DataLoader(samples(), batch_size=5))


@pytest.mark.parametrize(("num_classes", "feature"), [(2, "projection"), (None, "projection"), (2, "map")])
def test_both_losses_are_added_with_their_weights(num_classes: int | None, feature: FairFeature) -> None:
    model = attribute_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    handler = OrthogonalityHandler(
        model, list(images()), column_weight=3, row_weight=7, num_classes=num_classes, energy=0.9, center=True,
        fair_feature=feature, per_sample=feature == "map",
    )  # fmt: skip
    engine = stage_1([handler], epochs=1, lr=0.0, batch=12)
    found: list[torch.Tensor] = []
    engine.add_event_handler(
        IterationEvents.BACKWARD_COMPLETED, lambda e: found.append(e.state.output["loss"].detach())
    )
    network = engine.network
    torch.manual_seed(0)
    engine.run()
    model.eval()
    x, y = (torch.stack([item[name] for item in samples()]) for name in ("image", "label"))
    network.train()
    if feature == "projection":
        sensitive, z = model.embed(x), network.embed(x)
    else:
        sensitive, z = (own.encoder(x).relu().mean(dim=(2, 3)) for own in (model, network))
    parts = [sensitive] if num_classes is None else [sensitive[y == 0], sensitive[y == 1]]
    column = ColumnOrthogonality([sensitive_basis(own, energy=0.9, center=True) for own in parts])(z, y)
    row = RowOrthogonality(num_classes=num_classes, per_sample=feature == "map")(z, sensitive, y)
    expected = ClassificationLoss()(network(x), y) + 3 * column + 7 * row
    torch.testing.assert_close(found[0], expected.detach())
    assert engine.state.metrics["column"] == pytest.approx(column.item())
    assert engine.state.metrics["row"] == pytest.approx(row.item())
    # the attribute model is as it was, its statistics too
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert not engine.network.out._forward_pre_hooks
    assert not engine.network.projection._forward_pre_hooks


def test_the_embedding_leaves_the_sensitive_space() -> None:
    """Against the same training without weights both losses end lower; nothing else is claimed."""
    ends = {}
    for weight in (0.0, 1.0):
        handler = OrthogonalityHandler(
            attribute_model(), list(images()), column_weight=5 * weight, row_weight=5 * weight, rank=1
        )
        engine = stage_1([handler], epochs=30, lr=0.05)
        engine.run()
        ends[weight] = engine.state.metrics
    assert ends[1.0]["column"] < 0.5 * ends[0.0]["column"]
    assert ends[1.0]["row"] < 0.5 * ends[0.0]["row"]


def work(rank: int, _: Path) -> tuple[dict[str, Any], list[nn.Module]]:
    found, networks = {}, []
    for name, make, handlers in (
        ("stage 1", stage_1, [OrthogonalityHandler(attribute_model(), list(images()), rank=1, row_weight=50)]),
        ("stage 2", stage_2, [adversary(0.5)]),
    ):
        torch.manual_seed(0)
        bare = (
            EmbeddingClassifier(encoder(), channels=8, embedding=4)
            if name == "stage 1"
            else FairREAD(encoder(), AttributeEncoder(LEVELS, 4, dropout=0), channels=8, latent=4, dropout=0)
        )
        for module in bare.modules():  # of statistics of half a batch no equal results come
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.0
        bare.eval()
        ddp = DistributedDataParallel(bare)
        networks.append(ddp)
        engine = make(handlers, network=ddp)
        engine.run()
        found[name] = {key: weight.detach().clone() for key, weight in bare.named_parameters()}
    return found, networks


def test_two_processes_stay_together(two_processes: Callable[..., Any], tmp_path: Path) -> None:
    first, second = two_processes(work, tmp_path)
    for name, weights in first.items():
        torch.testing.assert_close(weights, second[name], rtol=0, atol=0)
        assert all(weight.isfinite().all() for weight in weights.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: stage_2([adversary(1)], network=nn.Linear(1, 1)).run(),
            "expected modules 'adversary' and 'reversal' .* in Linear, got none",
        ),
        (
            lambda: stage_2([adversary(1, key="sexes")]).run(),
            "one pass of 'adversary' and 'sexes' in the batch, got 1 passes",
        ),
        (lambda: adversary(-1), "expected a finite weight of at least 0, got -1"),
        (lambda: OrthogonalityHandler(attribute_model(), [], row_weight=float("nan")), "at least 0, got nan"),
        (
            lambda: stage_1([OrthogonalityHandler(attribute_model(), list(DataLoader(samples(6, classes=1))))]).run(),
            "expected training images of every class, got none of 1",
        ),
        (lambda: OrthogonalityHandler(attribute_model(), [], fair_feature="fc"), "projection or map, got 'fc'"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_bad_input(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(MonaiFairError, match=message):
        make()


@pytest.mark.parametrize(
    ("handler", "elsewhere"),
    [
        (adversary(1.0), "monai_fair.losses.AttributeLoss behind"),
        (OrthogonalityHandler(attribute_model(), []), "monai_fair.losses.ColumnOrthogonality and RowOrthogonality"),
    ],
)
def test_another_engine_is_refused_with_what_to_use(handler: Any, elsewhere: str) -> None:
    with pytest.raises(TypeError, match=f"expected a monai.engines.SupervisedTrainer, got Engine; .* {elsewhere}"):
        handler.attach(Engine(lambda *_: None))
