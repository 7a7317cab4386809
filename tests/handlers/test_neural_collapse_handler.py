"""Neural collapse while a network is trained: the numbers, and a training that does not notice."""

import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset, DistributedSampler
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import StatsHandler, ValidationHandler
from monai.transforms import Compose, RandFlipd, RandGaussianNoised, ScaleIntensityd
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_fair.data.artifacts import read_json
from monai_fair.errors import ArtifactError, MonaiFairError
from monai_fair.handlers import EarlyStopping, NeuralCollapseHandler, NIRHandler, TrainingStateSaver
from monai_fair.losses import ClassificationLoss
from monai_fair.metrics import NeuralCollapse, neural_collapse

N = 23
SEXES = ("female", "male", "")
SITES = ("A", "B")


class Net(nn.Module):
    """With batch normalisation, which is another function in train(), and a part that is frozen in eval()."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.frozen = nn.BatchNorm2d(1)
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3))
        self.fc = nn.Linear(6, outputs)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.frozen(x)).mean(dim=(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(x))


def items(n: int = N, *, seed: int = 0, biased: bool = True) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for row in range(n):
        clean = row % 2
        label = 0 if biased and row % 7 == 3 else clean
        image = torch.randn(1, 6, 6, generator=generator) + clean
        attributes = {"sex": SEXES[row % 5 % 3], "site": SITES[row % 3 % 2]}
        found.append({"image": image, "label": label, "clean_label": clean, "row": row, "attributes": attributes})
    return found


def loader(data: list[dict[str, Any]], batch: int = 5, **options: Any) -> DataLoader:
    return DataLoader(Dataset(data), batch_size=batch, **options)  # type: ignore[no-untyped-call]


def network(outputs: int = 2) -> Net:
    torch.manual_seed(1)
    made = Net(outputs)
    made.train()
    made.frozen.eval()
    return made


def trainer(handlers: list[Any], *, epochs: int = 3, net: nn.Module | None = None, **options: Any) -> SupervisedTrainer:
    net = network() if net is None else net
    torch.manual_seed(2)
    return SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader(items(), shuffle=True),
        network=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        loss_function=ClassificationLoss(),
        train_handlers=handlers,
        decollate=False,
        **options,
    )


def parts() -> dict[str, DataLoader]:
    return {"train": loader(items(), 6), "test": loader(items(17, seed=5, biased=False), 4)}


def handler(folder: Path, **options: Any) -> NeuralCollapseHandler:
    return NeuralCollapseHandler(
        str(folder / "nc.json"), "fc", options.pop("parts", None) or parts(), **{"attributes": ["sex"], **options}
    )


def measured(net: Net, data: list[dict[str, Any]], means: Any = None) -> NeuralCollapse:
    """The same by hand, all images at once."""
    modes = [module.training for module in net.modules()]
    net.eval()
    with torch.no_grad():
        features = net.features(torch.stack([item["image"] for item in data])).numpy()
    for module, mode in zip(net.modules(), modes, strict=True):
        module.training = mode
    return neural_collapse(
        features,
        [item["label"] for item in data],
        weight=net.fc.weight.detach().numpy(),
        bias=net.fc.bias.detach().numpy(),
        groups=[item["attributes"]["sex"] for item in data],
        mislabelled=np.array([item["label"] != item["clean_label"] for item in data]),
        means=means,
    )


def alike(found: NeuralCollapse, expected: NeuralCollapse) -> None:
    """To what float32 leaves of batches of other sizes."""
    assert found.n_by_class == expected.n_by_class
    pairs = [(found.values, expected.values)]
    pairs += [(one.values, other.values) for one, other in zip(found.groups, expected.groups, strict=True)]
    for one, other in pairs:
        assert {name: (value.n, value.reason) for name, value in one.items()} == {
            name: (value.n, value.reason) for name, value in other.items()
        }
        for name, value in one.items():
            assert value.value == pytest.approx(other[name].value, rel=1e-4, abs=1e-5, nan_ok=True), name


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("keep_mib", [1024, 0, 0.0003])  # all features are kept, none, or too few
def test_it_measures_every_epoch_as_by_hand(tmp_path: Path, outputs: int, keep_mib: float) -> None:
    own, net = handler(tmp_path, keep_mib=keep_mib), network(outputs)
    engine = trainer([own], net=net)
    expected = []

    def by_hand() -> None:
        train = measured(net, items())
        test = items(17, seed=5, biased=False)
        moved = measured(net, test, train.means)
        expected.append({"train": train, "test": measured(net, test), "test_to_train": moved})
        for name, result in expected[-1].items():
            assert own.results is not None
            assert list(own.results[name]) == ["sex"]
            alike(own.results[name]["sex"], result)

    engine.add_event_handler(Events.EPOCH_COMPLETED, by_hand)
    engine.run()
    stored = read_json(tmp_path / "nc.json", "neural_collapse")
    assert (stored["layer"], stored["parts"], stored["attributes"]) == ("fc", ["train", "test"], ["sex"])
    assert [row["epoch"] for row in stored["epochs"]] == [1, 2, 3]
    for row, results in zip(stored["epochs"], expected, strict=True):
        assert set(row) == {"epoch", "train", "test", "test_to_train"}
        for name, result in results.items():
            value = row[name]["sex"]["values"]["nc1_distance"]["value"]
            assert value == pytest.approx(result.values["nc1_distance"].value, rel=1e-4)
    last = {part: by["sex"] for part, by in stored["epochs"][-1].items() if part != "epoch"}
    assert last["train"]["values"]["nc2_equinorm"]["reason"] == "with two classes it is 0 for any features"
    n_mislabelled = sum(item["label"] != item["clean_label"] for item in items())
    assert last["train"]["values"]["mislabelled_ratio"]["n"] == n_mislabelled == 2
    assert last["test"]["values"]["mislabelled_ratio"]["reason"] == "no sample is mislabelled"
    assert last["train"]["n_without_group"] == sum(not item["attributes"]["sex"] for item in items()) > 0


def weights(engine: SupervisedTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in engine.network.state_dict().items()}


class Draws:
    """An augmentation of the training that draws from every generator there is."""

    def __call__(self, engine: Any) -> None:
        engine.state.batch["image"] += 0.1 * (torch.rand(1) + float(np.random.rand()) + random.random())  # noqa: NPY002


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_training_is_the_same_to_the_last_bit(tmp_path: Path, shuffled: bool) -> None:
    """Also with a loader that draws its order, and with another handler that looks at the same layer."""
    runs = []
    for measuring in (True, False):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        data = {"train": loader(items(), 4, shuffle=shuffled, num_workers=0)}
        own = handler(tmp_path, parts=data, keep_mib=0)
        engine = trainer([NIRHandler("fc", 0.3), *([own] if measuring else [])])
        engine.add_event_handler(Events.ITERATION_STARTED, Draws())
        modes = [module.training for module in engine.network.modules()]
        engine.run()
        # MONAI's trainer calls train() of the whole network in every iteration
        assert all(module.training for module in engine.network.modules())
        assert not all(modes)
        draws = (torch.rand(1).item(), float(np.random.rand()), random.random())  # noqa: NPY002
        runs.append((weights(engine), engine.state.metrics["nir"], draws))
        assert engine.network.fc._forward_pre_hooks == {}
    (one, penalty, draws), (other, same_penalty, same_draws) = runs
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert penalty == same_penalty
    assert draws == same_draws


def test_a_part_that_is_frozen_in_eval_stays_so(tmp_path: Path) -> None:
    engine = trainer([])
    engine.state.epoch = 1
    before, state = [module.training for module in engine.network.modules()], torch.get_rng_state()
    own = handler(tmp_path)
    own.measure(engine)
    assert [module.training for module in engine.network.modules()] == before
    assert {True, False} <= set(before)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_logged_reaches_handlers_that_stand_before_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[dict[str, float]] = []

    def note(engine: Any) -> None:
        lines.append(dict(engine.state.metrics))

    engine = trainer([StatsHandler(iteration_log=False, name="stats")], epochs=4)
    engine.add_event_handler(Events.EPOCH_COMPLETED, note)
    own = handler(tmp_path, interval=2, logged=["nc1_distance", "nc2_equinorm", "mislabelled_ratio"])
    own.attach(engine)
    with caplog.at_level(logging.INFO):
        engine.run()
    odd, even = lines[0], lines[1]
    assert set(odd) == set(lines[2]) == set()  # values of another epoch are not logged again
    assert set(even) == {
        "train_nc1_distance", "train_nc1_distance_sex_female", "train_nc1_distance_sex_male", "train_mislabelled_ratio",
        "test_nc1_distance", "test_nc1_distance_sex_female", "test_nc1_distance_sex_male",
        "test_to_train_nc1_distance", "test_to_train_nc1_distance_sex_female", "test_to_train_nc1_distance_sex_male",
    }  # fmt: skip
    assert own.results is not None
    assert lines[3]["train_nc1_distance_sex_male"] == own.results["train"]["sex"].groups[1].values["nc1_distance"].value
    mine = [record.getMessage() for record in caplog.records if record.name == "monai_fair.handlers.neural_collapse"]
    assert [line.split(":")[0] for line in mine] == [
        f"epoch {epoch}, {part}, n {n}, layer 'fc'"
        for epoch in (2, 4)
        for part, n in (("train", 23), ("test", 17), ("test_to_train", 17))
    ]
    shown = [line for line in capsys.readouterr().out.splitlines() if "train_nc1_distance:" in line]
    assert [line.split("INFO - ")[1].split(" ")[0] for line in shown] == ["Epoch[2]", "Epoch[4]"]


def test_names_of_groups_become_names_that_trackers_take(tmp_path: Path) -> None:
    data = items()
    for item in data:
        item["attributes"] = {"age": ("<60", ">60", "≥ 75")[item["row"] % 3]}
    own = handler(tmp_path, parts={"train": loader(data)}, attributes=["age"], logged=["nc1_distance"])
    engine = trainer([own], epochs=1)
    engine.run()
    assert set(engine.state.metrics) == {
        "train_nc1_distance", "train_nc1_distance_age__60", "train_nc1_distance_age__60_",
        "train_nc1_distance_age__ 75",
    }  # fmt: skip


def test_a_loader_of_unknown_length_is_measured_too(tmp_path: Path) -> None:
    engine = trainer([handler(tmp_path)], epochs=2)
    engine.data_loader = iter_of_unknown_length()
    engine.state.epoch_length = None
    engine.run()
    assert [row["epoch"] for row in read_json(tmp_path / "nc.json", "neural_collapse")["epochs"]] == [1, 2]


class iter_of_unknown_length:  # noqa: N801
    def __iter__(self) -> Any:
        return iter(loader(items()))


def epochs(folder: Path) -> list[int]:
    return [row["epoch"] for row in json.loads((folder / "nc.json").read_text())["epochs"]]


class Score:
    """A validation metric that never improves."""

    def __init__(self) -> None:
        self.state = type("State", (), {"metrics": {"auc": 0.5}, "key_metric_name": "auc"})()


def test_the_last_epoch_is_measured_whatever_the_interval(tmp_path: Path) -> None:
    trainer([handler(tmp_path, interval=2)], epochs=5).run()
    assert epochs(tmp_path) == [2, 4, 5]
    stopped = trainer([handler(tmp_path, interval=10), EarlyStopping(2, Score())], epochs=9)  # type: ignore[arg-type]
    stopped.run()
    assert stopped.state.epoch == 3
    assert epochs(tmp_path) == [3]  # and a run that starts anew forgets the other


def saver(folder: Path, engine_parts: Any) -> TrainingStateSaver:
    net, optimizer = engine_parts
    return TrainingStateSaver(str(folder / "state.pt"), net, optimizer, None, settings={})


def resumable(folder: Path, *, until: int, stop_in: int | None = None, **options: Any) -> SupervisedTrainer:
    net = network()
    engine = trainer([], epochs=until, net=net)
    own = handler(folder, **options)
    own.attach(engine)
    if stop_in is not None:  # after the measurement of this epoch, before its state is saved

        def stop(found: Any) -> None:
            if found.state.epoch == stop_in:
                raise KeyboardInterrupt

        engine.add_event_handler(Events.EPOCH_COMPLETED, stop)
    saver(folder, (net, engine.optimizer)).attach(engine)
    engine.add_event_handler(Events.EPOCH_STARTED, lambda: torch.manual_seed(engine.state.epoch))
    return engine


def test_a_resumed_training_repeats_no_row_and_gives_those_of_a_whole_one(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    resumable(whole, until=5).run()
    with pytest.raises(KeyboardInterrupt):
        resumable(killed, until=5, stop_in=3).run()
    assert epochs(killed) == [1, 2, 3]  # the third was measured, and is trained again
    resumable(killed, until=5).run()
    assert (killed / "nc.json").read_text() == (whole / "nc.json").read_text()
    before = (killed / "nc.json").stat().st_mtime_ns
    resumable(killed, until=5).run()  # finished: nothing is trained and nothing measured
    assert (killed / "nc.json").stat().st_mtime_ns == before
    resumable(killed, until=6).run()
    assert epochs(killed) == [1, 2, 3, 4, 5, 6]


def test_rows_of_other_options_are_not_continued(tmp_path: Path) -> None:
    resumable(tmp_path, until=1).run()
    with pytest.raises(ArtifactError) as caught:
        resumable(tmp_path, until=2, attributes=[], parts={"train": loader(items())}).run()
    assert str(caught.value) == (
        f"{tmp_path}/nc.json: measured with other options before this run goes on (parts: ['train', 'test'] there, "
        "['train'] now; attributes: ['sex'] there, [] now); choose another path, or delete the file"
    )


def test_an_evaluator_measures_at_the_epochs_of_its_trainer(tmp_path: Path) -> None:
    net = network()
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader(items(17, seed=5)),
        network=net,
        val_handlers=[handler(tmp_path, interval=2, logged=["nc1_distance"], attributes=[])],
        decollate=False,
    )
    trainer([ValidationHandler(1, evaluator)], epochs=5, net=net).run()
    assert epochs(tmp_path) == [2, 4]
    assert set(evaluator.state.metrics) == set()  # those of epoch 5, which is not measured


def test_features_that_are_not_finite_leave_a_row_with_the_reason(tmp_path: Path) -> None:
    data = items()
    data[3]["image"] = torch.full((1, 6, 6), torch.nan)
    engine = trainer([handler(tmp_path, parts={"train": loader(data)})], epochs=1)
    engine.run()
    (row,) = read_json(tmp_path / "nc.json", "neural_collapse")["epochs"]
    value = row["train"]["sex"]["values"]["nc1_distance"]
    assert value == {"value": None, "n": 22, "reason": "1 of 23 rows of features are not finite"}
    assert set(engine.state.metrics) == set()


def fails(engine: SupervisedTrainer, kind: type[Exception] = MonaiFairError) -> str:
    with pytest.raises(kind) as caught:
        engine.run()
    return str(caught.value)


def test_what_cannot_be_measured_is_named(tmp_path: Path) -> None:
    noise = Compose([ScaleIntensityd("image"), Compose([RandFlipd("image"), RandGaussianNoised("image")])])
    drawn = {"train": DataLoader(Dataset(items(), noise), batch_size=4)}  # type: ignore[no-untyped-call]
    assert fails(trainer([handler(tmp_path, parts=drawn)])) == (
        "NeuralCollapseHandler: part 'train': expected a loader without random transforms, got RandFlipd, "
        "RandGaussianNoised; give it a dataset of its own with the transforms of the evaluation"
    )
    assert fails(trainer([handler(tmp_path, attributes=["sex", "race"])])) == (
        "NeuralCollapseHandler: expected the attribute 'race' in the batch, the ones there are sex, site; name one, "
        "or load the rows by load_datalist"
    )
    bare = [{name: value for name, value in item.items() if name != "attributes"} for item in items()]
    assert fails(trainer([handler(tmp_path, parts={"train": loader(bare)}, attributes=["sex", "site"])])) == (
        "NeuralCollapseHandler: 2 problems\n"
        "  1. expected the attribute 'sex' in the batch, the ones there are none; name one, "
        "or load the rows by load_datalist\n"
        "  2. expected the attribute 'site' in the batch, the ones there are none; name one, "
        "or load the rows by load_datalist"
    )
    weighted = loader(items(), sampler=torch.utils.data.WeightedRandomSampler([1.0] * 4, 9))
    with pytest.raises(MonaiFairError, match=r"part 'train': expected each row once, got [5-8] of 9 again; take no s"):
        trainer([handler(tmp_path, parts={"train": weighted})]).run()
    named = NeuralCollapseHandler(str(tmp_path / "x.json"), "head", parts())
    assert fails(trainer([named])) == (
        "layer 'head': expected an nn.Linear in Net, got no layer of that name; its linear layers are: 'fc'"
    )


def test_a_failed_measurement_leaves_the_network_as_it_was(tmp_path: Path) -> None:
    engine = trainer([])
    before = [module.training for module in engine.network.modules()]
    with pytest.raises(MonaiFairError, match="expected the attribute 'race'"):
        handler(tmp_path, attributes=["race"]).measure(engine)
    assert [module.training for module in engine.network.modules()] == before
    assert engine.network.fc._forward_pre_hooks == {}
    assert torch.is_grad_enabled()


def test_options_are_checked_at_once(tmp_path: Path) -> None:
    with pytest.raises(MonaiFairError) as caught:
        NeuralCollapseHandler(str(tmp_path / "x.json"), "fc", {}, interval=0, logged=["nc9"])
    message = str(caught.value)
    assert message.startswith("NeuralCollapseHandler: 3 problems\n  1. logged: expected one of nc1_distance, ")
    assert message.endswith(
        "got 'nc9'; correct it\n"
        "  2. parts: expected at least one, got none; give the loader of the training data\n"
        "  3. interval: expected at least 1 epoch, got 0; correct it"
    )


def test_a_text_is_no_list_of_attributes(tmp_path: Path) -> None:
    with pytest.raises(MonaiFairError) as caught:
        handler(tmp_path, attributes="sex")
    assert str(caught.value) == "NeuralCollapseHandler: attributes: expected a list such as ['sex'], got 'sex'"


def share(data: list[dict[str, Any]], rank: int | None, *, padded: bool = False) -> DataLoader:
    """What one of two processes sees, or all."""
    sampler = DistributedSampler(
        Dataset(data), num_replicas=2, rank=rank, even_divisible=padded, shuffle=False
    ) if rank is not None else None  # fmt: skip
    return DataLoader(Dataset(data), batch_size=4, sampler=sampler)  # type: ignore[no-untyped-call]


def measure(rank: int | None, folder: Path, *, keep_mib: float = 1024) -> tuple[dict[str, Any], nn.Module]:
    """Measure once; the second process comes with other running means, as batch normalisation leaves them."""
    net = network()
    if rank == 1:
        net.body[1].running_mean += 3.0
    buffers = [buffer.clone() for buffer in net.buffers()]
    shown = net if rank is None else DistributedDataParallel(net)
    engine = trainer([], net=shown)
    engine.state.epoch = 1
    own = handler(
        folder,
        parts={"train": share(items(), rank), "test": share(items(17, seed=5), rank)},
        keep_mib=keep_mib,
        attributes=["sex", "site"],
    )
    if rank == 1:  # DistributedDataParallel has made the buffers those of the first process
        net.body[1].running_mean += 3.0
        buffers = [buffer.clone() for buffer in net.buffers()]
    results = own.measure(engine)
    assert all(torch.equal(one, other) for one, other in zip(buffers, net.buffers(), strict=True))
    return {
        f"{name} {attribute}": result.record() for name, by in results.items() for attribute, result in by.items()
    }, shown


def work(rank: int, folder: Path) -> tuple[dict[str, Any], list[nn.Module]]:
    kept, first = measure(rank, folder)
    again, second = measure(rank, folder, keep_mib=0)
    engine = trainer([], net=second)
    own = handler(folder, parts={"train": share(items(), rank, padded=True)})
    with pytest.raises(MonaiFairError) as caught:
        own.measure(engine)
    return {"kept": kept, "again": again, "message": str(caught.value)}, [first, second]


@pytest.mark.slow
def test_two_processes_measure_what_one_measures(
    two_processes: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "alone").mkdir()
    alone, _ = measure(None, tmp_path / "alone")
    ranks = two_processes(work, tmp_path)
    assert repr(ranks[0]) == repr(ranks[1])
    for found in (ranks[0]["kept"], ranks[0]["again"]):
        for part, record in alone.items():
            assert found[part]["n_by_class"] == record["n_by_class"]
            names = ["female", "male"] if part.endswith("sex") else ["A", "B"]
            assert [group["name"] for group in found[part]["groups"]] == names
            for name, value in record["values"].items():
                other = found[part]["values"][name]
                assert (other["n"], other["reason"]) == (value["n"], value["reason"])
                assert other["value"] == pytest.approx(value["value"], rel=1e-4, abs=1e-5, nan_ok=True), name
    assert read_json(tmp_path / "nc.json", "neural_collapse")["epochs"][0]["train"]["site"]["n"] == N
    assert ranks[0]["message"] == (
        "NeuralCollapseHandler: part 'train': expected each row once, got 1 of 24 again; take no sampler that draws by "
        "weight, and in several processes a DistributedSampler with even_divisible: false"
    )


@pytest.mark.parametrize(("keep_mib", "times"), [(1024, 1), (0, 2)])
@pytest.mark.parametrize("attributes", [[], ["sex"], ["sex", "site"]])
def test_the_network_runs_once_over_features_that_fit_and_twice_over_others(
    tmp_path: Path, keep_mib: float, times: int, attributes: list[str]
) -> None:
    engine = trainer([])
    sizes: list[int] = []
    engine.network.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    handler(tmp_path, keep_mib=keep_mib, attributes=attributes).measure(engine)
    assert sizes == [6, 6, 6, 5] * times + [4, 4, 4, 4, 1] * times


@pytest.mark.parametrize("keep_mib", [1024, 0])
def test_two_attributes_are_what_two_handlers_of_one_give(tmp_path: Path, keep_mib: float) -> None:
    logged = ["nc1_distance", "nc1_within_configuration", "error"]
    results, rows, metrics = [], [], []
    for number, attributes in enumerate((["sex", "site"], ["sex"], ["site"])):
        engine = trainer([])
        engine.state.epoch = 1
        (tmp_path / str(number)).mkdir()
        own = handler(tmp_path / str(number), attributes=attributes, keep_mib=keep_mib, logged=logged)
        found = own.measure(engine)
        results.append({part: {name: result.record() for name, result in by.items()} for part, by in found.items()})
        rows.append(read_json(tmp_path / str(number) / "nc.json", "neural_collapse")["epochs"])
        metrics.append(engine.state.metrics)
    both, sex, site = results
    assert list(both) == ["train", "test", "test_to_train"]
    # repr, because NaN is not equal to itself
    assert repr(both) == repr({part: {**sex[part], **site[part]} for part in both})
    ((row,), (one,), (other,)) = rows
    assert row == {"epoch": 1, **{part: {**one[part], **other[part]} for part in both}}
    assert metrics[0] == {**metrics[2], **metrics[1]}  # what does not rest on groups is that of the first attribute
    assert len(metrics[0]) == 3 * (2 + 2 * (1 + 2 * 3))  # parts; for each attribute one of all and three of two groups


def test_what_rests_on_groups_is_logged_for_each_attribute(tmp_path: Path) -> None:
    engine = trainer([])
    own = handler(
        tmp_path, attributes=["sex", "site"], logged=["nc1_within_configuration"], parts={"train": loader(items())}
    )
    found = own.measure(engine)["train"]
    by = {name: found[name].values["nc1_within_configuration"].value for name in ("sex", "site")}
    assert by["sex"] != by["site"]
    assert engine.state.metrics["train_nc1_within_configuration_sex"] == by["sex"]
    assert engine.state.metrics["train_nc1_within_configuration_site"] == by["site"]
    assert "train_nc1_within_configuration" not in engine.state.metrics


def test_groups_whose_names_meet_are_both_logged(tmp_path: Path) -> None:
    """Attribute ``site`` with the group ``A_1`` and attribute ``site_A`` with the group ``1``."""
    data = items()
    for item in data:
        item["attributes"] = {"site": ("A_1", "B")[item["row"] % 2], "site_A": "1"}
    engine = trainer([])
    own = handler(tmp_path, parts={"train": loader(data)}, attributes=["site", "site_A"], logged=["nc1_distance"])
    found = own.measure(engine)["train"]
    assert engine.state.metrics == {
        "train_nc1_distance": found["site"].values["nc1_distance"].value,
        "train_nc1_distance_site_A_1": found["site"].groups[0].values["nc1_distance"].value,
        "train_nc1_distance_site_B": found["site"].groups[1].values["nc1_distance"].value,
        "train_nc1_distance_site_A_1_": found["site_A"].groups[0].values["nc1_distance"].value,
    }


def test_without_attributes_the_file_has_all_samples_alone(tmp_path: Path) -> None:
    found = handler(tmp_path, attributes=[]).measure(trainer([]))
    assert [(part, list(by)) for part, by in found.items()] == [
        ("train", ["all"]), ("test", ["all"]), ("test_to_train", ["all"]),
    ]  # fmt: skip
    stored = read_json(tmp_path / "nc.json", "neural_collapse")
    assert stored["attributes"] == []
    assert (stored["epochs"][0]["test"]["all"]["n"], stored["epochs"][0]["test"]["all"]["groups"]) == (17, [])
