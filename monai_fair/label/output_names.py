"""What a bundle's metadata says of its outputs: MONAI Label takes the names of classes from there, or drops them."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fair.errors import LabelError, raise_problems, root_cause


def named_outputs(path: Path, config: Any, labels: Sequence[str], trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return a bundle's metadata with the classes that its network tells apart, and the size of its images.

    Args:
        path: of metadata.json.
        config: ``ConfigParser`` of the inference config; ``out_channels`` says how many outputs the network has.
        labels: name of each output; of two classes in one output both, or the positive one alone; empty leaves the
            names as they are, where there are as many as outputs.
        trained: settings of the training; ``image_size`` is one number, or one for each axis.

    Raises:
        LabelError: if the names do not fit the outputs, or coincide for MONAI Label, which writes them in lower case.
    """
    try:
        metadata: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        formats = metadata["network_data_format"]
        image, pred = next(iter(formats["inputs"].values())), next(iter(formats["outputs"].values()))
        present = dict(pred.get("channel_def", {}))
        shape = list(image.get("spatial_shape", []))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, StopIteration) as error:
        raise LabelError(
            f"{path}: expected metadata of a bundle, with inputs and outputs; {root_cause(error)}"
        ) from error
    outputs = _outputs(config, len(present))
    if labels:
        pred["channel_def"] = {str(index): name for index, name in enumerate(_channels(path, labels, present, outputs))}
        pred["num_channels"] = outputs
        # MONAI Label gives each channel of channel_def a score, so the other class cannot stand there
        pred["classes"] = {str(index): name for index, name in enumerate(labels)} if len(labels) > outputs else {}
    elif len(present) != outputs:
        raise LabelError(
            f"{path}: expected a name for each of {outputs} outputs, got {', '.join(present.values()) or 'none'}; give "
            "--labels"
        )
    if "image_size" in trained and shape:
        size = trained["image_size"]
        image["spatial_shape"] = list(size) if isinstance(size, list) else [size] * len(shape)
    return metadata


def _outputs(config: Any, otherwise: int) -> int:
    """Return the number of outputs that the config tells, without a change to it."""
    if "out_channels" not in config:
        return otherwise
    return int(type(config)(copy.deepcopy(config.get())).get_parsed_content("out_channels"))


def _channels(path: Path, labels: Sequence[str], present: Mapping[str, str], outputs: int) -> list[str]:
    names = list(labels)
    problems = []
    if len(names) != outputs and not (outputs == 1 and len(names) == 2):
        wanted = "the names of both classes, or of the positive one" if outputs == 1 else f"{outputs} names"
        problems.append(f"labels: expected {wanted}, got {', '.join(names)}; name every class once")
    if len({name.lower() for name in names}) < len(names) or "" in names:
        problems.append(f"labels: expected names that differ in more than case, got {', '.join(names)}; rename one")
    shown = names[-1:] if outputs == 1 else names
    hidden = {str(index) for index, name in enumerate(shown) if name.lower() == "background"}
    if hidden - {index for index, name in present.items() if name.lower() == "background"}:
        problems.append("labels: expected another name than background, which MONAI Label leaves out; rename it")
    raise_problems(LabelError, path, problems)
    return shown
