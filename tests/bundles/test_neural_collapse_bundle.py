"""neural_collapse.yaml and what is laid over it: the models, the measures, and a run that is killed."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_json, read_tensors, write_json
from monai_fair.errors import ArtifactError
from monai_fair.handlers import NeuralCollapseHandler
from monai_fair.metrics import NeuralCollapse, neural_collapse

from .conftest import read_text_table, same

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = [pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"), pytest.mark.timeout(600)]

EPOCHS = 4
STEPS = 5  # 37 training rows in batches of 8
ATTRIBUTES = ["sex", "age_group"]
BIASED = ("neural_collapse", "label_bias")
STUDIED = ("neural_collapse", "sgd", "cosine", "no_augmentation")  # as studies of neural collapse train
EVALUATED = ("evaluate", "collapse_evaluate", "last")
SHORT = {"max_epochs": EPOCHS, "patience": 1, "batch_size": 8, "collapse_attributes": ATTRIBUTES}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)


class Trained(NamedTuple):
    """A finished training of biased labels and the evaluation of its last epoch, not to be written to."""

    folder: Path
    networks: dict[int, dict[str, torch.Tensor]]  # by epoch

    @property
    def measured(self) -> dict[str, Any]:
        return read_json(self.folder / "neural_collapse.json", "neural_collapse")


@pytest.fixture(scope="module")
def biased(bundle: Any, two_to_one: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder, networks = tmp_path_factory.mktemp("biased"), {}
    options = {"manifest": str(two_to_one), **SHORT}
    workflow = bundle.workflow("train", "small", *BIASED, output=folder, **options)
    trainer = workflow.parser.get_parsed_content("train#trainer")

    def keep() -> None:
        state = trainer.network.state_dict()
        networks[trainer.state.epoch] = {name: value.clone() for name, value in state.items()}

    trainer.add_event_handler(Events.EPOCH_COMPLETED, keep)
    workflow.run()
    bundle.run("train", "small", *BIASED, *EVALUATED, output=folder, **options)
    return Trained(folder, networks)


@pytest.mark.parametrize(
    "overlays",
    [
        ("neural_collapse",),
        STUDIED,
        (*STUDIED, "label_bias"),
        ("neural_collapse", "nir"),
        ("worst_group", "neural_collapse"),
        ("group_labels", "cosine"),
        ("no_augmentation", "sgd"),
        (*BIASED, *EVALUATED),
    ],
    ids="+".join,
)
def test_every_component_builds(bundle: Any, biased: Trained, tmp_path: Path, overlays: tuple[str, ...]) -> None:
    model = {"ckpt_path": str(biased.folder / "last.pt")} if "evaluate" in overlays else {}
    options = {"bias_group": {"sex": "male"}, "bias_rate": 0.5, **model}
    workflow = bundle.workflow("train", "small", *overlays, output=tmp_path, kind="train", **options)
    built = bundle.build_all(workflow)
    assert isinstance(built["train#trainer"], SupervisedTrainer)
    assert isinstance(built["validate#evaluator"], SupervisedEvaluator)
    assert workflow.check_properties() == []
    assert built["network"].fc.out_features == (2 if "neural_collapse" in overlays else 1)
    added = workflow.parser.get_parsed_content("train#more_handlers")
    measuring = [handler for handler in added if isinstance(handler, NeuralCollapseHandler)]
    assert len(measuring) == ("neural_collapse" in overlays)
    # labels are written by what asks for them, and nothing else is
    assert {path.stem for path in tmp_path.iterdir()} <= {"labels", "labels_changes"}
    assert (tmp_path / "labels.csv").is_file() == ({"label_bias", "group_labels"} & {*overlays} != set())


def test_without_augmentation_the_images_that_are_trained_on_are_measured(bundle: Any, tmp_path: Path) -> None:
    for overlays, alike in (((), False), (("no_augmentation",), True)):
        workflow = bundle.workflow("train", "small", "neural_collapse", *overlays, output=tmp_path)
        trained, measured = map(workflow.parser.get_parsed_content, ("train#dataset", "collapse_train_dataset"))
        assert (trained is measured) == alike
        assert torch.equal(trained[0]["image"], measured[0]["image"]) == alike
        assert torch.equal(measured[0]["image"], measured[0]["image"])


def test_one_training_writes_the_models_and_measures_of_every_epoch(biased: Trained) -> None:
    """It goes on where early stopping would have ended, which decides what model.pt has."""
    assert sorted(path.name for path in biased.folder.iterdir()) == [
        "collapse.json", "features.safetensors", "labels.csv", "labels.json", "labels_changes.csv", "last.json",
        "last.pt", "model.json", "model.pt", "neural_collapse.json", "predictions.csv", "training_state.pt",
    ]  # fmt: skip
    kept = read_json(biased.folder / "model.json", "model")["epoch"]
    stopped = weights(biased.folder / "training_state.pt")["objects"]["early_stopping"]["stopped_epoch"]
    assert 1 <= kept < stopped < EPOCHS
    assert list(biased.networks) == list(range(1, EPOCHS + 1))
    assert same(weights(biased.folder / "model.pt"), biased.networks[kept])
    assert read_json(biased.folder / "last.json", "model")["epoch"] == EPOCHS
    assert same(weights(biased.folder / "last.pt"), biased.networks[EPOCHS])
    assert not same(biased.networks[kept], biased.networks[EPOCHS])
    assert [row["epoch"] for row in biased.measured["epochs"]] == list(biased.networks)
    for row in biased.measured["epochs"]:
        assert set(row) == {"epoch", "train", "test", "test_to_train"}
        assert all(list(by) == ATTRIBUTES for part, by in row.items() if part != "epoch")


def values_by_place(record: Any, place: str = "") -> dict[str, Any]:
    if not isinstance(record, dict | list):
        return {place: record}
    items = record.items() if isinstance(record, dict) else enumerate(record)
    return {key: value for name, item in items for key, value in values_by_place(item, f"{place}/{name}").items()}


def assert_alike(found: Any, expected: Any) -> None:
    """Compare records to what float32 leaves of batches that are put together otherwise."""
    values = values_by_place(found)
    assert list(values) == list(values_by_place(expected))
    for place, value in values_by_place(expected).items():
        same_value = pytest.approx(value, rel=1e-4, abs=1e-5) if isinstance(value, float) else value
        assert values[place] == same_value, place


def by_hand(folder: Path, attribute: str) -> dict[str, NeuralCollapse]:
    """Measure the features of an evaluation."""
    tensors, _ = read_tensors(folder / "features.safetensors")
    rows = read_predictions(folder / "predictions.csv").table
    labels = read_text_table(folder / "labels.csv").set_index("image").loc[rows["image"]]
    found: dict[str, NeuralCollapse] = {}
    for part, split, around in (("train", "train", None), ("test", "test", None), ("test_to_train", "test", "train")):
        inside = (rows["split"] == split).to_numpy()
        found[part] = neural_collapse(
            tensors["features"][inside],
            labels["label"].to_numpy()[inside].astype(int),
            weight=tensors["weight"],
            bias=tensors["bias"],
            groups=labels[attribute].to_numpy()[inside].tolist(),
            mislabelled=(labels["label"] != labels["clean_label"]).to_numpy()[inside],
            means=found[around].means if around else None,
        )
    return found


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_the_measures_of_the_last_epoch_are_those_of_its_features(
    biased: Trained, tmp_path: Path, attribute: str
) -> None:
    records = {part: result.record() for part, result in by_hand(biased.folder, attribute).items()}
    expected = read_json(write_json(tmp_path / "x.json", "x", records), "x")  # what is undefined is null
    del expected["kind"], expected["monai_fair"]
    last = {part: by[attribute] for part, by in biased.measured["epochs"][-1].items() if part != "epoch"}
    assert_alike(last, expected)
    assert_alike(read_json(biased.folder / "collapse.json", "collapse")["collapse"][attribute], expected)


def test_the_mislabelled_are_the_changed_rows_of_train(biased: Trained) -> None:
    labels = read_text_table(biased.folder / "labels.csv").query("split == 'train'")
    changed = labels["image"].isin(read_text_table(biased.folder / "labels_changes.csv")["image"])
    n_without_sex = int((labels["sex"] == "").sum())
    assert changed.sum() >= 2
    assert n_without_sex
    for row in biased.measured["epochs"]:
        found = {part: row[part]["sex"]["values"]["mislabelled_ratio"] for part in ("train", "test")}
        assert (found["train"]["n"], found["train"]["reason"]) == (changed.sum(), None)
        assert found["test"]["reason"] == "no sample is mislabelled"
        assert row["train"]["sex"]["n_without_group"] == n_without_sex


def test_measuring_changes_no_weight(bundle: Any, biased: Trained, two_to_one: Path, tmp_path: Path) -> None:
    """With augmentation, shuffling and batch normalisation: the same without the handler, to the bit."""
    options = {"manifest": str(two_to_one), **SHORT, "train#more_handlers": ["@last_model"]}
    bundle.train(tmp_path, *BIASED, **options)
    assert not (tmp_path / "neural_collapse.json").exists()
    for name in ("last.pt", "model.pt", "training_state.pt"):
        assert same(weights(tmp_path / name), weights(biased.folder / name)), name


class KilledError(Exception):
    pass


def kill() -> None:
    raise KilledError


def root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@pytest.fixture(scope="module")
def uninterrupted(bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle.train(tmp_path_factory.mktemp("uninterrupted"), *STUDIED, **SHORT)


@pytest.mark.parametrize(
    ("event", "engine", "measured"),
    [
        (Events.ITERATION_COMPLETED(once=2 * STEPS + 3), "train#trainer", 2),
        (Events.ITERATION_COMPLETED(event_filter=lambda own, _: own.state.epoch == 3), "validate#evaluator", 3),
    ],
    ids=["within an epoch", "after its measurement"],
)
def test_killed_and_run_again_equals_uninterrupted(
    bundle: Any, uninterrupted: Path, tmp_path: Path, event: Any, engine: str, measured: int
) -> None:
    workflow = bundle.workflow("train", "small", *STUDIED, output=tmp_path, **SHORT)
    workflow.parser.get_parsed_content("train#trainer")  # the handlers stand before the one that kills
    workflow.parser.get_parsed_content(engine).add_event_handler(event, kill)
    with pytest.raises((KilledError, RuntimeError)) as caught:
        workflow.run()
    assert isinstance(root_cause(caught.value), KilledError)
    assert len(read_json(tmp_path / "neural_collapse.json", "neural_collapse")["epochs"]) == measured
    (own,) = weights(tmp_path / "training_state.pt")["optimizer"]["param_groups"]
    # half way of a half cosine: 0.05 (1 + cos(pi 2 / 4)) / 2
    assert own["lr"] == pytest.approx(0.025)
    assert (own["momentum"], own["weight_decay"]) == (0.9, 0.0005)
    bundle.train(tmp_path, *STUDIED, **SHORT)
    for name in ("last.pt", "model.pt", "training_state.pt"):
        assert same(weights(tmp_path / name), weights(uninterrupted / name)), name
    for name in ("neural_collapse.json", "last.json", "model.json"):
        assert (tmp_path / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    assert weights(tmp_path / "training_state.pt")["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"max_epochs": EPOCHS + 1}, "(max_epochs: 4 there, 5 now)"),
     ({"collapse_share": 0.5}, "(collapse_share: 1.0 there, 0.5 now)")],
)  # fmt: skip
def test_a_longer_schedule_or_other_rows_are_another_run(
    bundle: Any, uninterrupted: Path, option: dict[str, Any], message: str
) -> None:
    with pytest.raises((ArtifactError, RuntimeError)) as caught:
        bundle.train(uninterrupted, *STUDIED, **{**SHORT, **option})
    assert message in str(root_cause(caught.value))


def test_a_share_of_the_training_rows_is_measured_and_nothing_else_changes(
    bundle: Any, uninterrupted: Path, tmp_path: Path
) -> None:
    bundle.train(tmp_path, *STUDIED, **SHORT, collapse_share=0.3)
    found, whole = (read_json(folder / "neural_collapse.json", "neural_collapse")["epochs"]
                    for folder in (tmp_path, uninterrupted))  # fmt: skip
    assert [row["train"]["sex"]["n"] for row in found] == [11] * EPOCHS  # of 37
    assert [row["train"]["sex"]["n"] for row in whole] == [37] * EPOCHS
    assert [row["test"] for row in found] == [row["test"] for row in whole]
    for name in ("last.pt", "model.pt"):
        assert same(weights(tmp_path / name), weights(uninterrupted / name)), name


def test_a_single_logit_is_measured_as_the_half_of_two(bundle: Any, tmp_path: Path) -> None:
    bundle.train(tmp_path, "neural_collapse", out_channels=1)
    bundle.run("train", "small", "neural_collapse", *EVALUATED, output=tmp_path, out_channels=1)
    (row,) = read_json(tmp_path / "neural_collapse.json", "neural_collapse")["epochs"]
    tensors, _ = read_tensors(tmp_path / "features.safetensors")
    rows = read_predictions(tmp_path / "predictions.csv").table
    train = (rows["split"] == "train").to_numpy()
    features, label = tensors["features"][train].astype(float), rows["label"].to_numpy()[train]
    apart = features[label == 1].mean(axis=0) - features[label == 0].mean(axis=0)
    (weight,) = tensors["weight"].astype(float)
    cosine = weight @ apart / np.linalg.norm(weight) / np.linalg.norm(apart)
    assert row["train"]["sex"]["one_logit"] is True
    assert row["train"]["sex"]["values"]["nc3_cosine"]["value"] == pytest.approx(cosine, rel=1e-4)


def test_three_classes_have_a_logit_each(bundle: Any, tmp_path: Path) -> None:
    table = read_text_table(bundle.cohort / "manifest.csv")
    table["label"] = [str(index % 3) for index in range(len(table))]
    table.to_csv(tmp_path / "m.csv", index=False)
    bundle.train(tmp_path / "run", "neural_collapse", manifest=str(tmp_path / "m.csv"), num_classes=3)
    (row,) = read_json(tmp_path / "run" / "neural_collapse.json", "neural_collapse")["epochs"]
    assert len(row["train"]["sex"]["n_by_class"]) == 3
    assert row["train"]["sex"]["values"]["nc2_equinorm"]["value"] is not None  # with two classes it says nothing
