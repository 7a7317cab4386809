"""What a request may say: names that are no paths, and options that a model has; everything else is refused by name."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from monai_fair.errors import LabelError, raise_problems

_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_ENDING = re.compile(r"(\.[A-Za-z0-9]{1,10}){1,2}")
_DEVICE = re.compile(r"[A-Za-z0-9_ .:()-]{1,100}")  # cuda:0, or the name of a card as the server tells it
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd")
_DTYPES = ("uint8", "uint16", "int16", "int32", "float32")

# what MONAI Label's clients and viewers send with any request
COMMON = frozenset({"client_id", "device", "logging"})
INFER = COMMON | {"attributes", "save_label", "label_tag", "result_extension", "result_dtype", "result_compress"}
BATCH = COMMON | {"images", "save_label", "label_tag", "max_batch_size", "max_workers", "multi_gpu", "gpus"}


def is_id(text: Any) -> bool:
    """Say whether a text is an id: letters, digits, ``_``, ``.``, ``-``, and not dots alone, so that it is no path."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None and text.strip(".") != ""


def is_ending(text: Any) -> bool:
    """Say whether a text is the ending of a file name, such as ``.nii.gz`` or ``.json``."""
    return isinstance(text, str) and _ENDING.fullmatch(text) is not None


def check_id(what: str, text: Any) -> str:
    """Return the text.

    Args:
        what: of what it is the id; opens the error.
        text: the id.

    Raises:
        LabelError: if it is none; see :func:`is_id`.
    """
    if not is_id(text):
        raise LabelError(
            f"{what}: expected letters, digits, '_', '.' or '-' and not dots alone, got {str(text)[:100]!r}; "
            "a path is never taken from a request"
        )
    return "".join(text)  # MONAI Label's tags are members of an Enum, too, which str() would write as such


def check_options(what: str, given: Any, allowed: Collection[str]) -> dict[str, Any]:
    """Return a request's options.

    Args:
        what: the model or method they are for; opens the error.
        given: name to value; ``None`` for no options.
        allowed: the names.

    Raises:
        LabelError: with every option that has another name, or an impossible value.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise LabelError(f"{what}: expected options by name, as a JSON object, got {type(given).__name__}")
    raise_problems(LabelError, what, _option_problems(given, allowed))
    return dict(given)


def truth(value: Any) -> bool:
    """Return what a switch of a request says: MONAI Label's clients send ``true`` as text, too."""
    return value if isinstance(value, bool) else str(value).strip().lower() in ("true", "1", "yes", "on")


def _option_problems(given: Mapping[str, Any], allowed: Collection[str]) -> Iterator[str]:
    for name, value in given.items():
        if name not in allowed:
            yield f"option '{str(name)[:100]}': expected one of {', '.join(sorted(allowed))}; leave it out"
        elif name in _RULES and value is not None:
            yield from _RULES[name](name, value)


def _one_of(name: str, value: Any, choices: Collection[str]) -> Iterator[str]:
    if str(value) not in choices:
        yield f"option '{name}': expected one of {', '.join(choices)}, got {str(value)[:100]!r}; correct it"


def _tag(name: str, value: Any) -> Iterator[str]:
    if not is_id(value):
        yield f"option '{name}': expected a name such as final or original, got {str(value)[:100]!r}; correct it"


def _device(name: str, value: Any) -> Iterator[str]:
    # viewers send the list of choices back when nobody has chosen
    for device in value if isinstance(value, list) else [value]:
        if not isinstance(device, str) or _DEVICE.fullmatch(device) is None:
            yield f"option '{name}': expected a device such as cpu or cuda:0, got {str(device)[:100]!r}; correct it"


def _images(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, list):
        yield from (
            f"option '{name}': expected ids of images, got {str(one)[:100]!r}" for one in value if not is_id(one)
        )
    else:
        yield from _one_of(name, value, ("all", "labeled", "unlabeled"))


def _count(name: str, value: Any) -> Iterator[str]:
    if type(value) is not int or value < 0:
        yield f"option '{name}': expected a count, got {str(value)[:100]!r}; give a whole number, 0 for no limit"


def _gpus(name: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str) or re.fullmatch(r"all|\d+(,\d+)*", value) is None:
        yield f"option '{name}': expected 'all' or numbers with commas between, got {str(value)[:100]!r}; correct it"


_RULES: dict[str, Callable[[str, Any], Iterator[str]]] = {
    "device": _device,
    "gpus": _gpus,
    "images": _images,
    "label_tag": _tag,
    "logging": lambda name, value: _one_of(name, str(value).upper(), _LEVELS),
    "max_batch_size": _count,
    "max_workers": _count,
    "result_dtype": lambda name, value: _one_of(name, value, _DTYPES),
    "result_extension": lambda name, value: _one_of(name, value, _EXTENSIONS),
}
