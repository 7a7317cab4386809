"""A trained bundle packed for serving: config, weights and records in one folder that stands alone."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_fair.data import read_manifest
from monai_fair.data.artifacts import atomic_path, read_json
from monai_fair.data.attribute_coding import CONTINUOUS
from monai_fair.data.templates import find_template
from monai_fair.errors import LabelError, MonaiFairError, raise_problems
from monai_fair.label.bundle_checks import bundle_problems, trained_settings
from monai_fair.label.config_merging import check_keys, fit_settings, merge_configs, override, write_config
from monai_fair.label.output_names import named_outputs
from monai_fair.label.served_bundle import ServedBundle
from monai_fair.metrics import read_thresholds

_DISCOVERY = ("discovery.json", "subgroups.csv")
_OPTIONAL_DISCOVERY = ("subgroup_model.safetensors",)
_MODELS = "$@bundle_root + '/models"
_TEMPLATE = "space#dataset_dir"  # labels are looked for beside it, and it goes before any other place


@dataclass
class _Plan:
    """What is to be packed: what is wrong, files by their name in ``models``, and by key where a config finds them."""

    problems: list[str]
    files: dict[str, Path] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)


def pack_bundle(
    bundle: str | Path,
    run: str | Path,
    out: str | Path,
    *,
    configs: Sequence[str] = (),
    train_configs: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    thresholds: str | Path | None = None,
    audit: str | Path | None = None,
    manifest: str | Path | None = None,
    subgroups: str | Path | None = None,
    template: str | Path | None = None,
    labels: Sequence[str] = (),
) -> ServedBundle:
    """Write a folder that MONAI Label, ours and the stock app, serves as it is.

    ``inference.yaml`` and ``train.yaml`` become single files: overlays, then options, then the settings that the model
    was trained with. What they say stays a program, which whoever packs it has chosen.

    Args:
        bundle: the bundle's folder, such as ``bundles/fair_image_classification``.
        run: folder of its training, with ``model.pt`` and ``model.json``; or another model.pt.
        out: folder to write, whole or not at all; its name is the model's in the server's addresses, and has to contain
            "classification" for a classifier.
        configs: overlays of the training that change its network or images, names in the bundle's ``configs`` or paths.
        train_configs: overlays of ``train.yaml``; by default the same.
        overrides: key to value; a key that stands in neither file is refused.
        thresholds: thresholds.json, for decisions by group.
        audit: metrics.json of an audit, for which group is served worst.
        manifest: the manifest of its training, for how often groups are in it; its rows of patients are copied.
        subgroups: folder of ``discover``.
        template: data root with the template that a registration was fitted to.
        labels: name of each class; of two, which are one output, also the positive one alone.

    Returns:
        The bundle that was written, already checked.

    Raises:
        LabelError: with everything that is wrong; nothing is written then.
    """
    source, target = Path(bundle), Path(out)
    overlays = [_config_file(source, name) for name in configs]
    train_overlays = overlays if train_configs is None else [_config_file(source, name) for name in train_configs]
    plan = _Plan(list(_source_problems(source, target, [*overlays, *train_overlays])))
    trained = _add_run(plan, Path(run))
    _add_records(plan, trained, thresholds=thresholds, audit=audit, manifest=manifest)
    _add_subgroups(plan, subgroups)
    _add_template(plan, template)
    raise_problems(LabelError, f"pack {out}", plan.problems)
    files = {"inference.yaml": overlays, "train.yaml": train_overlays}
    layers = {name: [source / "configs" / name, *laid] for name, laid in files.items()}
    merged = {name: merge_configs(paths) for name, paths in layers.items() if paths[0].is_file()}
    raise_problems(LabelError, f"pack {out}", _key_problems(merged, overrides or {}, plan.places))
    settings = _settings(merged, trained, overrides or {}, plan.places)
    for name, config in merged.items():
        override(config, settings[name])
    metadata = named_outputs(source / "configs" / "metadata.json", merged["inference.yaml"], labels, trained)
    with _staged(target) as folder:
        _copy(source, folder, plan.files)
        for name, config in merged.items():
            write_config(folder / "configs" / name, config, title=_title(layers[name], settings[name]))
        with atomic_path(folder / "configs" / "metadata.json") as temporary:
            temporary.write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        problems = [problem.replace(str(folder), str(target)) for problem in bundle_problems(folder)]
        raise_problems(LabelError, f"pack {out}", problems)
    return ServedBundle.of_checked(target.resolve())


def _config_file(source: Path, name: str) -> Path:
    own = source / "configs" / name
    return own if own.is_file() else Path(name)


def _copy(source: Path, folder: Path, files: Mapping[str, Path]) -> None:
    """Copy a bundle, and ``files`` into its ``models``; what its own has is there for trainings to start from."""
    hidden = shutil.ignore_patterns("__pycache__", ".*")

    def left_out(at: str, names: list[str]) -> set[str]:
        return hidden(at, names) | ({"models"} if Path(at) == source else set())

    shutil.copytree(source, folder, ignore=left_out)
    for name, path in files.items():
        (folder / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / "models" / name)


def _source_problems(source: Path, target: Path, overlays: Sequence[Path]) -> Iterator[str]:
    for name in ("inference.yaml", "metadata.json"):
        if not (source / "configs" / name).is_file():
            yield f"bundle: expected configs/{name} in {source}, found none; give a bundle's folder"
    for path in dict.fromkeys(overlays):
        if not path.is_file():
            yield f"configs: expected a file of {source}/configs or a path, got '{path}'; correct the name"
    if ("classification" in source.name.lower()) != ("classification" in target.name.lower()):
        yield (
            f"out: expected a name with classification in it for a classifier and no other, as in {source.name}, got "
            f"{target.name}: MONAI Label tells by the name; choose another"
        )
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        yield f"out: expected a new folder, found something at {target}; remove it, or choose another name"


def _add_run(plan: _Plan, run: Path) -> dict[str, Any]:
    """Add the weights and their record; return the settings that it holds."""
    model = run if run.suffix == ".pt" else run / "model.pt"
    record = model.with_suffix(".json")
    if not model.is_file():
        plan.problems.append(f"run: expected {model}, found none; give the output_dir of a training")
    plan.files["model.pt"] = model
    if record.is_file():
        plan.files["model.json"] = record
    return trained_settings(record)


def _add_records(plan: _Plan, trained: Mapping[str, Any], **given: str | Path | None) -> None:
    names = {"thresholds": "thresholds.json", "audit": "metrics.json", "manifest": "manifest.csv"}
    readers: dict[str, Callable[[str | Path], object]] = {
        "thresholds": read_thresholds,
        "audit": lambda path: read_json(path, "audit"),
        "manifest": lambda path: read_manifest(path, num_classes=trained.get("num_classes", 2), labelled=False),
    }
    for kind, path in given.items():
        if path:
            try:
                readers[kind](path)
            except MonaiFairError as error:
                plan.problems.append(f"{kind}: {error}")
            plan.files[names[kind]] = Path(path)
    if given["thresholds"]:
        plan.places["thresholds_path"] = f"{_MODELS}/thresholds.json'"


def _add_subgroups(plan: _Plan, folder: str | Path | None) -> None:
    if not folder:
        return
    for name in (*_DISCOVERY, *_OPTIONAL_DISCOVERY):
        path = Path(folder) / name
        if path.is_file():
            plan.files[f"subgroups/{name}"] = path
        elif name in _DISCOVERY:
            plan.problems.append(f"subgroups: expected {path}, found none; give a folder of the verb discover")


def _add_template(plan: _Plan, root: str | Path | None) -> None:
    if not root:
        return
    try:
        found = find_template(root)
    except MonaiFairError as error:
        plan.problems.append(f"template: {error}")
        return
    if not found.mask.is_file():
        plan.problems.append(f"template: expected its mask {found.mask}, found none; put it beside the template")
    plan.files |= {path.name: path for path in (found.image, found.mask, *found.labels.values())}
    plan.places[_TEMPLATE] = f"{_MODELS}'"


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """Yield a folder of the same name that takes the place of ``target`` when the block ends without an error."""
    parent = target.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{target.name}.") as temporary:
        folder = Path(temporary) / target.resolve().name
        yield folder
        folder.rename(target.resolve())


def _key_problems(merged: Mapping[str, Any], overrides: Mapping[str, Any], places: Mapping[str, str]) -> list[str]:
    problems = check_keys(merged, list(overrides))
    if _TEMPLATE in places and _TEMPLATE not in merged["inference.yaml"]:
        problems.append(f"template: expected a bundle that reads one ({_TEMPLATE}), got another; leave --template out")
    return problems


def _settings(
    merged: Mapping[str, Any], trained: Mapping[str, Any], overrides: Mapping[str, Any], places: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Return file to key to value: what was trained with, then where things lie, then what was told."""
    fitted = fit_settings(merged["inference.yaml"], trained, given=list(overrides))
    values = {**_trained_attributes(trained), **fitted, **places, **overrides}
    return {name: {key: value for key, value in values.items() if key in config} for name, config in merged.items()}


def _trained_attributes(trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return the option that gives a training the levels of attributes which the model knows."""
    codes = trained.get("attributes")
    if not isinstance(codes, dict) or "levels" not in codes:
        return {}
    return {"attributes": {name: list(levels) or CONTINUOUS for name, levels in codes["levels"].items()}}


def _title(files: Sequence[Path], settings: Mapping[str, Any]) -> str:
    """Return the comment that says what a config was made of."""
    lines = [f"  {key}: {json.dumps(value, default=str)}" for key, value in settings.items()]
    return "\n".join([f"Packed by python -m monai_fair pack from {', '.join(path.name for path in files)}", *lines])
