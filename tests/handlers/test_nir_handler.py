"""NIR in a MONAI trainer: what is added to the loss, what stays as it was, what is logged."""

import gc
import logging
import math
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.engines import IterationEvents, SupervisedEvaluator, SupervisedTrainer
from monai.handlers import CheckpointLoader, CheckpointSaver, StatsHandler, ValidationHandler
from monai.inferers import Inferer
from monai.networks.nets import DenseNet121
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from monai_fair.errors import MonaiFairError
from monai_fair.handlers import NIRHandler
from monai_fair.losses import ClassificationLoss, NIRRegularizer, incidence_statistics

NAMES = {"nir", "nir_cv", "nir_top1_share", "nir_feature_scale"}
LR = 0.1


class Net(nn.Module):
    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(6, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x))


class TwoViews(Inferer):
    """Two forward passes per batch, as test-time augmentation does."""

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        return (network(inputs) + network(inputs.flip(-1))) / 2


def samples(n: int = 12, classes: int = 2) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {"image": torch.randn(1, 6, 6, generator=generator), "label": torch.tensor(index % classes)}
        for index in range(n)
    ]


def trainer(
    handlers: list[Any],
    *,
    network: nn.Module | None = None,
    epochs: int = 2,
    batch: int = 4,
    data: Any = None,
    **options: Any,
) -> SupervisedTrainer:
    torch.manual_seed(1)
    network = Net() if network is None else network
    return SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader(samples() if data is None else data, batch_size=batch),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9),
        loss_function=options.pop("loss_function", ClassificationLoss()),
        train_handlers=handlers,
        **options,
    )


def weights(engine: SupervisedTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in engine.network.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def by_hand(
    *, weight: float, epochs: int = 2, batch: int = 4, accumulation: int = 1, outputs: int = 1
) -> tuple[dict[str, torch.Tensor], list[list[float]]]:
    """The same training as a plain loop that spells the penalty out; returns weights and epoch values."""
    torch.manual_seed(1)
    network, data = Net(outputs), samples(classes=max(2, outputs))
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9)
    logged = []
    for _ in range(epochs):
        values = []
        for step, start in enumerate(range(0, len(data), batch)):
            x = torch.stack([item["image"] for item in data[start : start + batch]])
            y = torch.stack([item["label"] for item in data[start : start + batch]])
            if step % accumulation == 0:
                optimizer.zero_grad()
            h = network.body(x)
            s = network.fc(h)
            p = s.sigmoid() if outputs == 1 else s.softmax(1)
            m = p.T @ h / (p.sum(0).unsqueeze(1) + 1e-8)
            nir = ((m - m.mean(1, keepdim=True)) ** 2).mean()
            base = (
                functional.binary_cross_entropy_with_logits(s[:, 0], y.float())
                if outputs == 1
                else functional.cross_entropy(s, y)
            )
            ((base + weight * nir) / accumulation).backward()
            if (step + 1) % accumulation == 0 or start + batch >= len(data):
                optimizer.step()
            spread = m.std(1, correction=0) / m.mean(1)
            share = m.amax(1) / m.sum(1)
            values.append([value.mean().item() for value in (nir, spread, share, m)])
        logged.append([sum(column) / len(column) for column in zip(*values, strict=True)])
    return network.state_dict(), logged


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_training_equals_a_plain_loop(outputs: int, accumulation: int) -> None:
    torch.manual_seed(1)
    network = Net(outputs)
    data = samples(classes=max(2, outputs))
    engine = trainer([NIRHandler("fc", 3.0)], network=network, data=data, accumulation_steps=accumulation)
    before = weights(engine)
    engine.run()
    expected, logged = by_hand(weight=3.0, accumulation=accumulation, outputs=outputs)
    torch.testing.assert_close(engine.network.state_dict(), expected, rtol=1e-5, atol=1e-7)
    assert not equal(before, weights(engine))
    names = ("nir", "nir_cv", "nir_top1_share", "nir_feature_scale")
    assert [engine.state.metrics[name] for name in names] == pytest.approx(logged[-1], rel=1e-5)
    plain, _ = by_hand(weight=0.0, accumulation=accumulation, outputs=outputs)
    assert not torch.allclose(plain["fc.weight"], expected["fc.weight"], rtol=1e-3)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_weight_zero_is_bit_identical_to_no_handler(accumulation: int) -> None:
    without, with_handler = (
        trainer(handlers, accumulation_steps=accumulation, epochs=3) for handlers in ([], [NIRHandler("fc", 0.0)])
    )
    without.run(), with_handler.run()
    assert equal(weights(without), weights(with_handler))
    assert without.state.output[0]["loss"] == with_handler.state.output[0]["loss"]
    assert set(with_handler.state.metrics) == NAMES
    assert all(math.isfinite(value) for value in with_handler.state.metrics.values())


def test_loss_in_the_output_contains_the_penalty() -> None:
    seen = []
    engine = trainer([NIRHandler("fc", 2.0)], epochs=1, batch=12)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda e: seen.append(e.state.output[0]["loss"]))
    before = weights(engine)
    engine.run()
    network = Net()
    network.load_state_dict(before)
    x, y = (torch.stack([item[key] for item in samples()]) for key in ("image", "label"))
    base = ClassificationLoss()(network(x), y)
    penalty = NIRRegularizer()(network(x), network.body(x))
    assert seen == [pytest.approx((base + 2 * penalty).item(), rel=1e-6)]


@pytest.mark.parametrize("first", ["stats", "nir"])
def test_monai_logs_the_numbers_in_any_order_of_handlers(first: str, caplog: pytest.LogCaptureFixture) -> None:
    lines = []
    stats = StatsHandler(
        name="stats", iteration_log=False, epoch_print_logger=lambda engine: lines.append(dict(engine.state.metrics))
    )
    logging.getLogger("stats").setLevel(logging.INFO)
    handlers = [stats, NIRHandler("fc")] if first == "stats" else [NIRHandler("fc"), stats]
    with caplog.at_level(logging.INFO, "monai_fair"):
        trainer(handlers).run()
    assert [set(line) for line in lines] == [NAMES, NAMES]
    assert lines[0] != lines[1]
    assert all(isinstance(value, float) for value in lines[0].values())
    records = [record.getMessage() for record in caplog.records if record.name == "monai_fair.handlers.nir"]
    assert len(records) == 2
    assert records[0].startswith(f"epoch 1, layer 'fc': nir {lines[0]['nir']:.4g}, nir_cv ")


def test_loader_of_unknown_length_is_logged() -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
            return iter(samples())

    engine = trainer([NIRHandler("fc")], data=Stream())
    engine.run()
    reference = trainer([NIRHandler("fc")])
    reference.run()
    assert engine.state.metrics == reference.state.metrics


def test_validation_between_epochs_is_no_step_of_training() -> None:
    def run(handlers: list[Any]) -> SupervisedTrainer:
        engine = trainer([])
        evaluator = SupervisedEvaluator(
            device="cpu",
            val_data_loader=DataLoader(samples(), batch_size=3),
            network=engine.network,
            inferer=TwoViews(),
        )
        validation = ValidationHandler(interval=1, epoch_level=True, validator=evaluator)
        for handler in [*handlers, NIRHandler("fc"), validation] if handlers else [NIRHandler("fc")]:
            handler.attach(engine)
        engine.run()
        return engine

    with_validation, alone = run([StatsHandler(iteration_log=False, epoch_log=False)]), run([])
    assert equal(weights(with_validation), weights(alone))
    assert with_validation.state.metrics == alone.state.metrics


class BFloat16Inferer(Inferer):
    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return network(inputs)


def test_mixed_precision_computes_the_penalty_in_float32() -> None:
    values = []
    handler = NIRHandler("fc")
    engine = trainer([handler], inferer=BFloat16Inferer(), epochs=1)

    def record(e: SupervisedTrainer) -> None:
        assert e.state.output["pred"].dtype == torch.bfloat16
        values.append((e.state.output["loss"].dtype, handler._totals["nir"].dtype))

    engine.add_event_handler(IterationEvents.LOSS_COMPLETED, record)
    engine.run()
    assert values == [(torch.float32, torch.float32)] * 3
    exact = trainer([NIRHandler("fc")], epochs=1)
    exact.run()
    assert engine.state.metrics == pytest.approx(exact.state.metrics, rel=0.03)


def test_autocast_around_the_event_does_not_lower_precision() -> None:
    """MONAI's AMP fires the event inside ``torch.autocast``; on the CPU the same is done by hand."""

    class AutocastTrainer(SupervisedTrainer):
        def _iteration(self, engine: SupervisedTrainer, batchdata: dict[str, Any]) -> dict[str, Any]:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super()._iteration(engine, batchdata)

    torch.manual_seed(1)
    network = Net()
    handler = NIRHandler("fc")
    seen = []
    engine = AutocastTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=DataLoader(samples(), batch_size=12),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=ClassificationLoss(),
        train_handlers=[handler],
    )
    network.body[-1].register_forward_hook(lambda _m, _a, output: seen.append(output.detach()))
    engine.add_event_handler(IterationEvents.LOSS_COMPLETED, lambda e: seen.append(e.state.output["pred"].detach()))
    engine.run()
    features, logits = seen
    assert logits.dtype == torch.bfloat16
    expected = NIRRegularizer()(logits.float(), features.float()).item()
    assert engine.state.metrics["nir"] == pytest.approx(expected, rel=1e-6)


def test_multi_class_densenet_and_options() -> None:
    network = DenseNet121(
        spatial_dims=2, in_channels=1, out_channels=3, init_features=8, growth_rate=4, block_config=(2, 2)
    )
    data = [{"image": torch.rand(1, 32, 32), "label": torch.tensor(index % 3)} for index in range(6)]
    regularizer = NIRRegularizer(
        classes=[1, 2], scale_free=True, use_contribution=True, activation="abs", sample_weight="prob_label"
    )
    engine = trainer([NIRHandler("class_layers.out", regularizer=regularizer)], network=network, data=data, batch=3)
    engine.run()
    assert set(engine.state.metrics) == NAMES
    assert engine.state.metrics["nir"] > 0


def test_redistribution_happens_in_training() -> None:
    """The spread of the channel means falls against the same training without weight; nothing else is claimed."""
    spread = {}
    for weight in (0.0, 1.0):
        engine = trainer([NIRHandler("fc", weight, regularizer=NIRRegularizer(scale_free=True))], epochs=20)
        engine.run()
        spread[weight] = engine.state.metrics["nir_cv"]
    assert spread[1.0] < 0.7 * spread[0.0]


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    def run(epochs: int, load: Path | None = None, save: Path | None = None) -> SupervisedTrainer:
        handler = NIRHandler("fc", 1.0, regularizer=NIRRegularizer(momentum=0.9))
        engine = trainer([handler], epochs=epochs)
        state = {"net": engine.network, "opt": engine.optimizer, "trainer": engine, "nir": handler}
        if load:
            CheckpointLoader(load_path=str(load), load_dict=state, map_location="cpu").attach(engine)
        if save:
            CheckpointSaver(save_dir=str(save), save_dict=state, save_final=True).attach(engine)
        engine.state.max_epochs = epochs
        engine.run()
        return engine

    whole = run(4)
    run(2, save=tmp_path)
    resumed = run(4, load=tmp_path / "checkpoint_final_iteration=6.pt")
    assert resumed.state.iteration == 12
    assert equal(weights(whole), weights(resumed))
    assert whole.state.metrics == resumed.state.metrics


def test_attach_twice_counts_once_and_detach_undoes_it() -> None:
    handler, plain = NIRHandler("fc", 3.0), trainer([])
    twice = trainer([handler, handler])
    once = trainer([NIRHandler("fc", 3.0)])
    twice.run(), once.run()
    assert equal(weights(twice), weights(once))
    detached = trainer([handler])
    handler.detach(detached)
    detached.run(), plain.run()
    assert equal(weights(detached), weights(plain))
    assert not detached.state.metrics


def test_network_is_left_without_hook_and_without_graph() -> None:
    references = []
    engine = trainer([NIRHandler("fc")])
    engine.network.fc.register_forward_pre_hook(lambda _, args: references.append(weakref.ref(args[0])))
    engine.run()
    assert len(engine.network.fc._forward_pre_hooks) == 1  # the test's own
    gc.collect()
    assert [reference() for reference in references] == [None] * 6


def test_several_passes_per_step_are_refused_and_leave_the_handler_usable() -> None:
    handler = NIRHandler("fc", 1.0)
    engine = trainer([handler], inferer=TwoViews())
    with pytest.raises(MonaiFairError, match="expected one forward pass since its input was last taken, got several"):
        engine.run()
    again, fresh = trainer([handler]), trainer([NIRHandler("fc", 1.0)])
    again.run(), fresh.run()
    assert equal(weights(again), weights(fresh))
    assert again.state.metrics == fresh.state.metrics
    assert not engine.network.fc._forward_pre_hooks


def test_compiled_trainer() -> None:
    plain = trainer([NIRHandler("fc", 1.0)])
    plain.run()
    compiled = trainer([NIRHandler("fc", 1.0)], compile=True, compile_kwargs={"backend": "eager"})
    compiled.run()
    torch._dynamo.reset()
    torch.testing.assert_close(
        {name.removeprefix("_orig_mod."): value for name, value in weights(compiled).items()}, weights(plain)
    )
    assert compiled.state.metrics == pytest.approx(plain.state.metrics, rel=1e-5)


def test_no_number_is_read_from_the_device_inside_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host sync on an accelerator is a call to ``item`` or its relatives; count them between loss and logging."""
    handler = NIRHandler("fc")
    engine = trainer([handler], epochs=1)
    original, calls, inside = handler._add_penalty, [], []

    for name in ("item", "tolist", "__float__", "__bool__", "cpu", "numpy"):
        function = getattr(torch.Tensor, name)

        def spy(
            self: torch.Tensor, *args: Any, _function: Callable[..., Any] = function, _name: str = name, **kwargs: Any
        ) -> Any:
            if inside:
                calls.append(_name)
            return _function(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, spy)

    handler.detach(engine)

    def watched(e: SupervisedTrainer) -> None:
        inside.append(True)
        original(e)
        inside.clear()

    monkeypatch.setattr(handler, "_add_penalty", watched)
    handler.attach(engine)
    engine.run()
    assert calls == []


class Pair(nn.Module):
    """Logits of two views from features of both, one row for each pair."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(36, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x.flatten(1)).reshape(-1, 2).mean(1)


class TwoHeads(Net):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:  # type: ignore[override]
        y_pred = super().forward(x)
        return [y_pred, y_pred]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: trainer([NIRHandler("head")]).run(),
            MonaiFairError,
            "layer 'head': expected an nn.Linear in Net, got no layer of that name; its linear layers are: 'fc'",
        ),
        (
            lambda: trainer([NIRHandler("fc")], network=Pair(), loss_function=lambda p, y: p.mean()).run(),
            MonaiFairError,
            "NIRHandler: expected 'pred' to be logits of the 4 samples that entered layer 'fc', got shape (2,); "
            "name the layer that makes the logits",
        ),
        (
            lambda: trainer([NIRHandler("fc")], network=TwoHeads(), loss_function=lambda p, y: p[0].mean()).run(),
            MonaiFairError,
            "NIRHandler: expected 'pred' to be logits of the 4 samples that entered layer 'fc', got list; "
            "name the layer that makes the logits",
        ),
        (
            lambda: trainer([NIRHandler("fc")], iteration_update=lambda engine, batch: {}).run(),
            MonaiFairError,
            "NIRHandler: expected the event LOSS_COMPLETED in every iteration, got none in this epoch; "
            "fire it in the trainer's iteration_update before the backward pass",
        ),
        (
            lambda: NIRHandler("fc").attach(Engine(lambda engine, batch: None)),
            TypeError,
            "NIRHandler: expected a monai.engines.SupervisedTrainer, got Engine; "
            "in other loops use monai_fair.losses.NIRLoss",
        ),
        (
            lambda: NIRHandler("fc", float("nan")),
            MonaiFairError,
            "NIRHandler: expected a finite weight of at least 0, got nan; correct 'weight'",
        ),
    ],
)
def test_error_text(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert str(caught.value) == message


def distributed_work(rank: int, _: Path) -> tuple[dict[str, Any], list[nn.Module]]:
    torch.manual_seed(1)
    network = DistributedDataParallel(Net())
    rows = [item for index, item in enumerate(samples()) if index % 2 == rank]
    engine = trainer([NIRHandler("fc", 3.0)], network=network, data=rows, batch=2)
    engine.run()
    return {"net": network.module.state_dict(), "metrics": engine.state.metrics}, [network]


def test_two_processes_train_like_one(tmp_path: Path, two_processes: Callable[..., Any]) -> None:
    single = trainer([NIRHandler("fc", 3.0)])
    single.run()
    for result in two_processes(distributed_work, tmp_path):
        torch.testing.assert_close(result["net"], weights(single), rtol=1e-5, atol=1e-7)
        assert result["metrics"] == pytest.approx(single.state.metrics, rel=1e-5)


def test_config_of_a_bundle() -> None:
    config = {
        "_target_": "monai_fair.handlers.NIRHandler",
        "layer": "fc",
        "weight": 0.2,
        "regularizer": {"_target_": "monai_fair.losses.NIRRegularizer", "scale_free": True, "classes": [1]},
    }
    handler = ConfigParser({"nir": config}).get_parsed_content("nir")
    assert isinstance(handler, NIRHandler)
    assert handler.weight == 0.2
    assert (handler.regularizer.scale_free, handler.regularizer.classes) == (True, (1,))


def test_statistics_use_the_prefix_of_the_handler() -> None:
    assert {"nir"} | {f"nir_{name}" for name in incidence_statistics(torch.ones(1, 2))} == NAMES
