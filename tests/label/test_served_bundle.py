"""A bundle is checked whole before it is served: every reason that would show later, or never, in one message."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from monai_fair.data.artifacts import write_json
from monai_fair.errors import LabelError
from monai_fair.label.served_bundle import ServedBundle

CONFIG: dict[str, Any] = {
    "bundle_root": ".",
    "device": "$int('a server without this device')",  # nothing may look at it
    "size": 3,
    "network_def": {"_target_": "torch.nn.Linear", "in_features": "@size", "out_features": 2,
                    "bias": "$@device.type == 'cpu'"},
    "network": "$@network_def.to(@device)",
    "input_settings": {"size": "@size"},
    "inferer": {"_target_": "SimpleInferer"},
}  # fmt: skip
METADATA = {"network_data_format": {"inputs": {"image": {}}, "outputs": {"pred": {"channel_def": {"0": "a"}}}}}


def write_config(folder: Path, **changed: Any) -> None:
    (folder / "configs" / "inference.yaml").write_text(yaml.safe_dump({**CONFIG, **changed}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The smallest bundle that can be served: a linear map of three numbers to two."""
    path = tmp_path / "lesion_classification"
    (path / "configs").mkdir(parents=True)
    (path / "models").mkdir()
    write_config(path)
    (path / "configs" / "metadata.json").write_text(json.dumps(METADATA))
    torch.save(torch.nn.Linear(3, 2).state_dict(), path / "models" / "model.pt")
    return path


def message(folder: Path) -> str:
    with pytest.raises(LabelError) as caught:
        ServedBundle.read(folder)
    return str(caught.value)


def test_a_sound_bundle_is_read_without_its_device(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    bundle = ServedBundle.read("lesion_classification")
    assert bundle == ServedBundle("lesion_classification", folder, "classification")
    assert bundle.model == folder / "models" / "model.pt"
    assert [bundle.thresholds, bundle.audit, bundle.manifest, bundle.subgroups] == [None] * 4
    config = bundle.config()
    assert config["bundle_root"] == str(folder)
    config["size"] = 9
    assert bundle.config()["size"] == 3


def test_what_lies_beside_the_weights_is_found(folder: Path) -> None:
    models = folder / "models"
    write_json(models / "metrics.json", "audit", {})
    (models / "manifest.csv").write_text("subject_id,image\n")
    (models / "subgroups").mkdir()
    bundle = ServedBundle.read(folder)
    found = [bundle.thresholds, bundle.audit, bundle.manifest, bundle.subgroups]
    assert found == [None, models / "metrics.json", models / "manifest.csv", models / "subgroups"]


@pytest.mark.parametrize(
    ("name", "inferer", "kind"),
    [
        ("lesion_classification", {"_target_": "SimpleInferer"}, "classification"),
        ("Classification2", "@size", "classification"),
        ("spleen", {"_target_": "SimpleInferer"}, "other"),
        ("spleen", None, "other"),
        ("brain_registration", {"_target_": "SimpleInferer"}, "other"),
        ("brain", {"_target_": "monai_fair.engines.LabelPropagation", "fit": "@fit"}, "registration"),
        ("classification_atlas", {"_target_": "monai_fair.engines.LabelPropagation"}, "registration"),
    ],
)
def test_the_kind_is_what_the_inferer_does_or_the_name_says(folder: Path, name: str, inferer: Any, kind: str) -> None:
    write_config(folder, inferer=inferer)
    assert ServedBundle.read(folder.rename(folder.parent / name)).kind == kind


def rename_weights(folder: Path) -> None:
    (folder / "models" / "model.pt").rename(folder / "models" / "best.pt")


def second_weights(folder: Path) -> None:
    torch.save({}, folder / "models" / "a.pt")


def torchscript_alone(folder: Path) -> None:
    (folder / "models" / "model.pt").rename(folder / "models" / "model.ts")


def store(content: Any) -> Callable[[Path], None]:
    return lambda folder: torch.save(content, folder / "models" / "model.pt")


def weights(**shapes: tuple[int, ...]) -> Callable[[Path], None]:
    return store({name: torch.zeros(shape) for name, shape in shapes.items()})


def config(**changed: Any) -> Callable[[Path], None]:
    return lambda folder: write_config(folder, **changed)


def both_configs(folder: Path) -> None:
    (folder / "configs" / "inference.json").write_text(json.dumps({**CONFIG}))


def ignored_config(folder: Path) -> None:
    (folder / "configs" / "inference.yaml").rename(folder / "configs" / "inference.yml")


def metadata(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "configs" / "metadata.json").write_text(text)


def settings(**trained: Any) -> Callable[[Path], object]:
    return lambda folder: write_json(folder / "models" / "model.json", "model", {"settings": trained})


BREAKAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights by another name": (rename_weights, "models: expected model.pt, found best.pt; put the trained weights"),
    "TorchScript": (torchscript_alone, "models: expected model.pt, found none; put the trained weights there"),
    "two weights": (
        second_weights,
        "models: expected model.pt as the only .pt file, found also a.pt, and MONAI Label takes",
    ),
    "a training's state": (
        store({"model": {"weight": torch.zeros(2, 3)}, "epoch": 3}),
        "models/model.pt: expected a plain state dict, name to tensor, got a dictionary of model, epoch; store",
    ),
    "nothing in it": (
        store({}),
        "models/model.pt: expected a plain state dict, name to tensor, got a dictionary of nothing; store",
    ),
    "a tensor": (store(torch.zeros(2)), "model.pt: expected a plain state dict, name to tensor, got Tensor; store"),
    "a whole network": (
        store(torch.nn.Linear(3, 2)),
        "models/model.pt: expected a state dict of tensors alone; UnpicklingError: Weights only load failed",
    ),
    "no torch file": (
        lambda folder: (folder / "models" / "model.pt").write_text("hello"),
        "models/model.pt: expected a state dict of tensors alone; ",
    ),
    "other names": (
        weights(weight=(2, 3), offset=(2,)),
        "model.pt: expected the 2 weights of the config's network, got 2; 1 it lacks: bias; 1 it has more: offset;",
    ),
    "one less": (weights(weight=(2, 3)), "the 2 weights of the config's network, got 1; 1 it lacks: bias; give"),
    "one more": (
        weights(weight=(2, 3), bias=(2,), more=(1,)),
        "expected the 2 weights of the config's network, got 3; 1 it has more: more; give the overlays",
    ),
    "another shape": (
        weights(weight=(2, 4), bias=(2,)),
        "got 2; 1 it has of another shape: weight (2, 4) for (2, 3); give the overlays and options of its training",
    ),
    "many others": (
        weights(weight=(2, 3), bias=(2,), **{f"b{number}": (1,) for number in range(7)}),
        "7 it has more: b0, b1, b2, b3, b4 and 2 more; give",
    ),
    "both configs": (both_configs, "expected one of inference.yaml and inference.json, found both; remove one"),
    "config that is not YAML": (
        lambda folder: (folder / "configs" / "inference.yaml").write_text("a: [1"),
        "configs/inference.yaml, network_def: expected a network that can be built; ParserError: while parsing a flow",
    ),
    "unknown network": (
        config(network_def={"_target_": "torch.nn.Nothing"}),
        "configs/inference.yaml, network_def: expected a network that can be built; ",
    ),
    "no network": (config(network_def=3), "a network that can be built; TypeError: expected a network, got int"),
    "no metadata": (
        lambda folder: (folder / "configs" / "metadata.json").unlink(),
        "configs/metadata.json: expected a readable JSON file; [Errno 2] No such file",
    ),
    "metadata that is a list": (
        metadata("[]"),
        "2 problems\n  1. configs/metadata.json, network_data_format, inputs: expected at least one name with its",
    ),
    "metadata without outputs": (
        metadata(json.dumps({"network_data_format": {"inputs": {"image": {}}, "outputs": {}}})),
        "metadata.json, network_data_format, outputs: expected at least one name with its format, got {}; describe",
    ),
    "other settings": (
        settings(size=4, other=5),
        "inference.yaml, input_settings, size: expected 4, as in training, got 3; give the value of the training",
    ),
    "settings that cannot be known": (
        lambda folder: (settings(size=3)(folder), write_config(folder, input_settings={"size": "@nowhere"})),
        "configs/inference.yaml, input_settings, size: expected 3, as in training; ",
    ),
    "record of another kind": (
        lambda folder: write_json(folder / "models" / "model.json", "split", {}),
        "models/model.json: expected a file of kind 'model', got 'split'; give the right file",
    ),
    "thresholds without counts": (
        lambda folder: write_json(folder / "models" / "thresholds.json", "thresholds", {}),
        "models/thresholds.json: 13 problems",
    ),
    "an audit that is none": (
        lambda folder: write_json(folder / "models" / "metrics.json", "thresholds", {}),
        "models/metrics.json: expected a file of kind 'audit', got 'thresholds'; give the right file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_each_fault_is_named(folder: Path, breakage: str) -> None:
    do, expected = BREAKAGES[breakage]
    do(folder)
    text = message(folder)
    assert text.startswith(f"{folder}: ")
    assert expected in text


def test_all_faults_are_in_one_message(folder: Path) -> None:
    ignored_config(folder)
    rename_weights(folder)
    metadata("{")(folder)
    settings()(folder).write_text("no JSON")  # type: ignore[attr-defined]
    path = folder.rename(folder.parent / "a folder")
    lines = message(path).splitlines()
    assert lines[0] == f"{path}: 6 problems"
    found = [re.sub(r"^ +\d+\. ", "", line).partition(":")[0] for line in lines[1:]]
    assert found == ["name", "configs", "configs", "models", "configs/metadata.json", "models/model.json"]


def test_a_folder_that_is_not_there_is_one_fault(tmp_path: Path) -> None:
    assert message(tmp_path / "none") == f"{tmp_path / 'none'}: expected a bundle's folder, found none; check the path"


def test_a_checkpoint_cannot_run_code(folder: Path) -> None:
    trace = folder / "trace"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (trace,)

    torch.save({"weight": Hostile()}, folder / "models" / "model.pt")
    assert "expected a state dict of tensors alone" in message(folder)
    assert not trace.exists()
