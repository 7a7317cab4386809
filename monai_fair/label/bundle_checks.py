"""What keeps a bundle from being served: all that MONAI Label would find out later, or never."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_fair.data.artifacts import read_json
from monai_fair.errors import MonaiFairError, root_cause
from monai_fair.metrics import read_thresholds

INFERENCE = ("inference.yaml", "inference.json")
_NAME = re.compile(r"[A-Za-z0-9_.-]*[A-Za-z0-9_-]")
_SHOWN = 5


def inference_file(folder: Path) -> Path:
    """Return the config that MONAI Label reads; the first of :data:`INFERENCE` where there is none or are several."""
    found = [folder / "configs" / name for name in INFERENCE if (folder / "configs" / name).is_file()]
    return found[0] if found else folder / "configs" / INFERENCE[0]


def read_inference(folder: Path) -> Any:
    """Return MONAI's ``ConfigParser`` of the inference config, with ``bundle_root`` set to ``folder``."""
    parser = ConfigParser()
    parser.read_config(str(inference_file(folder)))
    parser["bundle_root"] = str(folder)
    return parser


def bundle_problems(folder: Path) -> list[str]:
    """Say all that is wrong with a bundle that is to be served; paths begin at ``folder``.

    The network is built on the CPU, so this runs the program that the bundle is.

    Args:
        folder: with ``configs`` and ``models``.
    """
    if not folder.is_dir():
        return ["expected a bundle's folder, found none; check the path"]
    problems = [*_name_problems(folder), *_file_problems(folder), *_metadata_problems(folder)]
    weights, reasons = _read_weights(folder)
    problems += [*reasons, *_record_problems(folder)]
    if inference_file(folder).is_file():
        problems += _network_problems(folder, weights)
    return problems


def _name_problems(folder: Path) -> Iterator[str]:
    if not _NAME.fullmatch(folder.name):
        yield (
            f"name: expected letters, digits and . _ - in '{folder.name}', because it stands in addresses of the "
            "server; rename the folder"
        )


def _file_problems(folder: Path) -> Iterator[str]:
    found = [name for name in INFERENCE if (folder / "configs" / name).is_file()]
    ignored = sorted(path.name for path in (folder / "configs").glob("*.yml"))
    if not found:
        yield f"configs: expected {' or '.join(INFERENCE)}, found none; a bundle's inference config lies there"
    if len(found) > 1:
        yield f"configs: expected one of {' and '.join(INFERENCE)}, found both; remove one"
    if ignored:
        yield f"configs: expected files that end in .yaml, found {', '.join(ignored)}, which are not read; rename them"
    stored = sorted(path.name for path in (folder / "models").glob("*.pt"))
    others = ", ".join(name for name in stored if name != "model.pt")
    if "model.pt" not in stored:
        yield f"models: expected model.pt, found {others or 'none'}; put the trained weights there under this name"
    elif others:
        yield (
            f"models: expected model.pt as the only .pt file, found also {others}, and MONAI Label takes the shortest "
            "name; move them to another folder"
        )


def _metadata_problems(folder: Path) -> Iterator[str]:
    try:
        metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield f"configs/metadata.json: expected a readable JSON file; {error}"
        return
    formats = metadata.get("network_data_format") if isinstance(metadata, dict) else None
    for side in ("inputs", "outputs"):
        named = formats.get(side) if isinstance(formats, dict) else None
        if not isinstance(named, dict) or not named or not all(isinstance(value, dict) for value in named.values()):
            yield (
                f"configs/metadata.json, network_data_format, {side}: expected at least one name with its format, got "
                f"{named}; describe what the network takes and gives"
            )


def _record_problems(folder: Path) -> Iterator[str]:
    models = folder / "models"
    readers: dict[str, Callable[[Path], object]] = {
        "model.json": lambda path: read_json(path, "model"),
        "thresholds.json": read_thresholds,
        "metrics.json": lambda path: read_json(path, "audit"),
        "subgroups/discovery.json": lambda path: read_json(path, "discovery"),
    }
    for name, read in readers.items():
        if (models / name).exists():
            try:
                read(models / name)
            except MonaiFairError as error:
                yield str(error).replace(f"{folder}/", "")


def _read_weights(folder: Path) -> tuple[Mapping[str, torch.Tensor] | None, list[str]]:
    """Return the plain state dict, or why there is none."""
    path = folder / "models" / "model.pt"
    if not path.is_file():
        return None, []  # said already
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and pickle raise their own
        reason = str(error).strip().partition("\n")[0]
        return None, [f"models/model.pt: expected a state dict of tensors alone; {type(error).__name__}: {reason}"]
    if isinstance(stored, dict) and stored and all(isinstance(value, torch.Tensor) for value in stored.values()):
        return stored, []
    got = f"a dictionary of {_names(map(str, stored))}" if isinstance(stored, dict) else type(stored).__name__
    return None, [f"models/model.pt: expected a plain state dict, name to tensor, got {got}; store the network's alone"]


def _network_problems(folder: Path, weights: Mapping[str, torch.Tensor] | None) -> Iterator[str]:
    """Compare network and settings of the config with what was trained."""
    name = inference_file(folder).name
    try:
        config = read_inference(folder)
        if "device" in config:  # a server may ask for another one later; weights need none
            config["device"] = "$torch.device('cpu')"
        network = config.get_parsed_content("network_def")
        if not isinstance(network, torch.nn.Module):
            raise TypeError(f"expected a network, got {type(network).__name__}")
    except Exception as error:  # whatever a bundle's components raise
        yield f"configs/{name}, network_def: expected a network that can be built; {root_cause(error)}"
        return
    if weights is not None:
        yield from _weight_problems(network, weights)
    yield from (f"configs/{name}, {problem}" for problem in _setting_problems(config, folder))


def _weight_problems(network: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> Iterator[str]:
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        own = network.state_dict()
        lacking = [key for key in own if key not in weights]
        more = [key for key in weights if key not in own]
        shapes = [
            f"{key} {tuple(weights[key].shape)} for {tuple(own[key].shape)}"
            for key in own
            if key in weights and weights[key].shape != own[key].shape
        ]
        differences = {"lacks": lacking, "has more": more, "has of another shape": shapes}
        found = [f"{len(keys)} it {kind}: {_names(keys)}" for kind, keys in differences.items() if keys]
        yield (
            f"models/model.pt: expected the {len(own)} weights of the config's network, got {len(weights)}; "
            f"{'; '.join(found) or error}; give the overlays and options of its training"
        )


def _setting_problems(config: Any, folder: Path) -> Iterator[str]:
    """Say which settings of the training the config does not share, as ``ModelSettingsCheck`` would in a run."""
    own = config.get("input_settings")
    for name, value in trained_settings(folder / "models" / "model.json").items() if isinstance(own, dict) else ():
        if name not in own:
            continue
        try:
            now = config.get_parsed_content(f"input_settings#{name}")
        except Exception as error:  # whatever a bundle's components raise
            yield f"input_settings, {name}: expected {value}, as in training; {root_cause(error)}"
            continue
        if value != now:
            yield f"input_settings, {name}: expected {value}, as in training, got {now}; give the value of the training"


def trained_settings(record: Path) -> dict[str, Any]:
    """Return what a ``model.json`` says of the training; nothing where it is missing or cannot be read."""
    try:
        settings = read_json(record, "model").get("settings") if record.is_file() else None
    except MonaiFairError:
        return {}  # said by its own check
    return dict(settings) if isinstance(settings, dict) else {}


def _names(names: Any) -> str:
    listed = list(names)
    rest = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + rest or "nothing"
