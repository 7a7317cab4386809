"""The config files of a fine-tuning: what is laid over a bundle's own, as files that name no folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from monai_fair.data.artifacts import atomic_path
from monai_fair.label.bundle_checks import inference_file
from monai_fair.label.fine_tuning_options import FineTuning
from monai_fair.label.served_bundle import ServedBundle

_NEEDED = ("num_classes", "max_epochs", "train", "train#more_handlers", "train#training_state", "validate#evaluator")


def training_problems(bundle: ServedBundle) -> list[str]:
    """Say why a bundle cannot be fine-tuned; nothing, if it can."""
    path, _ = config_files(bundle)
    if bundle.kind != "classification":
        return [f"{bundle.path}: expected a classification bundle, got '{bundle.kind}'; labels train no other"]
    if not path.is_file():
        return [f"{path}: expected a file, found none; pack the bundle with its train.yaml"]
    parser = ConfigParser(ConfigParser.load_config_file(path))
    return [f"{path}: expected key '{key}', found none; add it" for key in _NEEDED if key not in parser]


def train_config(bundle: ServedBundle) -> dict[str, Any]:
    """Return the bundle's ``train.yaml`` as it stands."""
    return dict(ConfigParser.load_config_file(config_files(bundle)[0]))


def config_files(bundle: ServedBundle) -> tuple[Path, Path]:
    """Return the bundle's configs to train and to score with."""
    return bundle.path / "configs" / "train.yaml", inference_file(bundle.path)


def stages(
    bundle: ServedBundle, options: FineTuning, folder: Path, *, start_sha256: str, rows: int
) -> list[list[Path]]:
    """Write what is laid over the bundle's configs, and return the stages of the run.

    The present model is measured on the validation rows, trained, the new one measured on the same rows, and scored
    with ``inference.yaml`` as the server will score.

    Args:
        bundle: what is trained.
        options: of the training.
        folder: of the run, which has ``start.pt``, ``manifest.csv`` and ``val.csv``.
        start_sha256: of ``start.pt``; a training that goes on must have the same.
        rows: to train on.
    """
    config = train_config(bundle)
    train, inference = config_files(bundle)
    score = _known(ConfigParser.load_config_file(inference), {"progress": False, "thresholds_path": None})
    files = {
        "fine_tune": _training(config, options, start_sha256, rows),
        "measure_before": _measurement("start.pt", "before"),
        "measure_after": _measurement("model.pt", "after"),
        "score": {**_in_run("manifest", "val.csv"), **_in_run("ckpt_path", "model.pt"), **score},
    }
    paths = {name: folder / f"{name}.yaml" for name in files}
    for name, content in files.items():
        with atomic_path(paths[name]) as temporary:
            temporary.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    base = [train, paths["fine_tune"]]
    return [[*base, paths["measure_before"]], base, [*base, paths["measure_after"]], [inference, paths["score"]]]


def _training(config: Mapping[str, Any], options: FineTuning, start_sha256: str, rows: int) -> dict[str, Any]:
    settings = "train#training_state#settings#"
    content: dict[str, Any] = {
        **_in_run("manifest", "manifest.csv"),
        **_in_run("ckpt_path", "model.pt"),
        "max_epochs": options.max_epochs,
        "+train#more_handlers": [
            _loader("start.pt"),
            {"_target_": "monai_fair.label.epoch_log.EpochLog", "evaluator": "@validate#evaluator"},
        ],
        f"{settings}start_sha256": start_sha256,
        **_known(config, {"label_manifest": "@manifest", "pretrained": False, "encoder_path": None, "progress": False}),
        **_known(config, {"seed": options.seed}),
    }
    if options.learning_rate is not None:
        content["learning_rate"] = options.learning_rate
    if "codes" in config:  # a network that is told attributes has an input for each level it was trained with
        content["codes"] = {"_target_": "monai_fair.data.read_attribute_codes", **_in_run("path", "start.pt")}
    if options.rebalance and options.attributes:
        content |= {
            "weighted_sampler": {"_target_": "monai_fair.data.weighted_sampler", "datalist": "@train#dataset#data"},
            "train#dataloader#sampler": "@weighted_sampler",
            "train#dataloader#shuffle": False,
            f"{settings}rows_drawn": "by weight",
        }
        content["+train#more_handlers"].append(
            {"_target_": "monai_fair.handlers.SamplerCheck", "sampler": "@weighted_sampler"}
        )
    size = config.get("batch_size")
    if type(size) is int and 1 < size < rows and rows % size == 1:
        content["train#dataloader#drop_last"] = True  # a batch of one has no variance to normalise by
    return content


def _measurement(model: str, name: str) -> dict[str, Any]:
    """Measure a model by the bundle's own key metric, and train nothing."""
    metric = {
        "_target_": "monai_fair.label.epoch_log.write_key_metric",
        "evaluator": "@validate#evaluator",
        **_in_run("path", f"{name}.json"),
    }
    return {"validate#handlers": [_loader(model)], "run": ["$@validate#evaluator.run()", metric]}


def _loader(model: str) -> dict[str, Any]:
    return {
        "_target_": "CheckpointLoader",
        **_in_run("load_path", model),
        "load_dict": {"model": "@network"},
        "map_location": "@device",
    }


def _in_run(key: str, name: str) -> dict[str, str]:
    return {key: f"$@output_dir + '/{name}'"}


def _known(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that the config has a key for: another one would be added, and do nothing."""
    return {key: value for key, value in values.items() if key in config}
