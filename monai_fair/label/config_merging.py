"""A bundle's config, overlays and options in one file: MONAI Label reads one, and takes no options for it."""

import copy
import difflib
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from monai_fair.data.artifacts import atomic_path
from monai_fair.errors import LabelError, root_cause

_REFERENCE = re.compile(r"@[A-Za-z0-9_:#]+")


def merge_configs(files: Sequence[Path]) -> Any:
    """Return MONAI's ``ConfigParser`` of files laid over each other as ``python -m monai.bundle run`` does.

    Raises:
        LabelError: if a file cannot be read, or overlays a key that is not there.
    """
    names = ", ".join(path.name for path in files)
    try:
        with warnings.catch_warnings():
            # a key that is twice in a file, or a +key that adds to nothing
            warnings.simplefilter("error", UserWarning)
            return ConfigParser(ConfigParser.load_config_files([str(path) for path in files]))
    except Exception as error:  # yaml, json and MONAI raise their own
        raise LabelError(f"{names}: expected configs that can be laid over each other; {root_cause(error)}") from error


def check_keys(configs: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Say which keys are in none of the configs: MONAI would add them, and nothing would read them.

    Args:
        configs: name of the file to ``ConfigParser``.
        keys: such as ``image_size`` or ``network_def#layers``.
    """
    known = [key for config in configs.values() for key in _keys(config.get())]
    problems = []
    for key in keys:
        if not any(key in config for config in configs.values()):
            near = difflib.get_close_matches(key.replace("::", "#"), known, n=1)
            hint = f"did you mean {near[0]}?" if near else "a new key needs an overlay (--configs)"
            problems.append(f"{key}: expected a key of {' or '.join(configs)}, found none; {hint}")
    return problems


def _keys(content: Any, where: str = "") -> list[str]:
    found = []
    for name, value in content.items() if isinstance(content, dict) else ():
        found += [f"{where}{name}", *_keys(value, f"{where}{name}#")]
    return found


def override(config: Any, values: Mapping[str, Any]) -> None:
    """Set the keys that the config has; the others belong to another config."""
    for key, value in values.items():
        if key in config:
            config[key] = copy.deepcopy(value)


def fit_settings(config: Any, trained: Mapping[str, Any], *, given: Sequence[str]) -> dict[str, Any]:
    """Give a config the settings that its model was trained with, such as the size of images.

    Only what ``input_settings`` takes from a key that stands there (``image_size: '@image_size'``) is set; a value that
    is computed, such as a grid read from a file, is what it is.

    Args:
        config: a ``ConfigParser``, changed in place.
        trained: name to value, of model.json.
        given: keys whose value an operator told, which stay.

    Returns:
        Key to value, of what was changed.
    """
    changed: dict[str, Any] = {}
    for name, value in trained.items():
        reference = config.get(f"input_settings#{name}")
        if not isinstance(reference, str) or not _REFERENCE.fullmatch(reference):
            continue
        key = reference[1:].replace("::", "#")
        now = config.get(key)
        computed = isinstance(now, str) and now[:1] in ("$", "@", "%")
        if computed or key in given or key not in config or now == value:
            continue
        config[key] = changed[key] = value
    return changed


def write_config(path: Path, config: Any, *, title: str) -> Path:
    """Write a ``ConfigParser`` as YAML that reads back equal.

    Args:
        path: the file.
        config: its ``_meta_`` is left out.
        title: comment on top, a line or more.

    Raises:
        LabelError: if it holds what YAML cannot.
    """
    content = {key: value for key, value in config.get().items() if key != ConfigParser.meta_key}
    try:
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120)
    except yaml.YAMLError as error:
        raise LabelError(f"{path.name}: expected values that YAML can hold; {error}") from error
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"# {line}\n" for line in title.splitlines()) + text, encoding="utf-8")
    return path


class _Dumper(yaml.SafeDumper):
    """Writes a value that stands in two places twice, and a list of numbers in one line, as a person would."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        flat = not any(isinstance(value, dict | list | tuple) for value in sequence)
        return super().represent_sequence(tag, sequence, flow_style=flat)
