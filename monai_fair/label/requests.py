"""What a request may say: names that are no paths, and options that a model has; everything else is refused by name."""

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from monai_fair.errors import LabelError, raise_problems
from monai_fair.label.demographics import attribute_values

_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_ENDING = re.compile(r"(\.[A-Za-z0-9]{1,10}){1,2}")
_DEVICE = re.compile(r"[A-Za-z0-9_ .:()-]{1,100}")  # cuda:0, or the name of a card as the server tells it
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".seg.nrrd")
_DTYPES = ("uint8", "uint16", "int16", "int32", "float32")
_PROGRAM = ("$", "@", "%")  # beginnings of texts that MONAI runs, or takes for parts of a config, where it parses them
_ANNOTATED = "final"  # tag of what annotators submit
_OWN_INFO = ("group", "id", "name", "path", "reason", "ts")  # keys of answers, which what is noted would replace
_SLACK_S = 60  # of clocks

Rule = Callable[[str, Any], Iterator[str]]  # name and value of an option to its problems

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


def check_options(
    what: str, given: Any, allowed: Collection[str], *, rules: Mapping[str, Rule] | None = None
) -> dict[str, Any]:
    """Return a request's options.

    No text in them begins with ``$``, ``@`` or ``%``: MONAI Label writes some into a bundle's config, a program.

    Args:
        what: the model or method they are for; opens the error.
        given: name to value; ``None`` for no options.
        allowed: the names.
        rules: of single options, beside those that hold for all requests; such as :func:`infer_rules`.

    Raises:
        LabelError: with every option that has another name, or an impossible value.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise LabelError(f"{what}: expected options by name, as a JSON object, got {type(given).__name__}")
    raise_problems(LabelError, what, _option_problems(given, allowed, {**_RULES, **(rules or {})}))
    return dict(given)


def infer_rules(shown: Mapping[str, Any]) -> dict[str, Rule]:
    """Return the rules of an inference's options.

    Args:
        shown: options of the model's config that a request may change (``displayable_configs``), with their defaults.
    """

    def like_default(name: str, value: Any) -> Iterator[str]:
        default = shown[name]
        kinds = (int, float) if type(default) is float else (type(default),)
        listed = isinstance(default, list) and value in default  # a choice, of which viewers send one
        if value != default and not listed and not (type(value) in kinds and isinstance(value, str | int | float)):
            yield (
                f"option '{name}': expected a value such as {default!r}, got {str(value)[:100]!r}; a text, number or "
                "truth value of the same kind"
            )

    return {**dict.fromkeys(shown, like_default), "label_tag": _answer_tag}


def check_image_info(info: Any) -> dict[str, Any]:
    """Return what is to be noted of an image.

    MONAI Label puts it over the answers of strategies, and notes by the same way whom an image was given to.

    Args:
        info: name to value; ``None`` for nothing.

    Raises:
        LabelError: with what would replace parts of an answer, is no attribute, or is no such record.
    """
    given = {} if info is None else info
    if not isinstance(given, Mapping):
        raise LabelError(f"image info: expected names and values, as a JSON object, got {type(info).__name__}")
    attribute_values(given.get("attributes"), "image info")
    problems = [f"'{name}': expected another name, the server's answers have this one" for name in _OWN_INFO
                if name in given]  # fmt: skip
    raise_problems(LabelError, "image info", [*problems, *_strategy_problems(given.get("strategy", {}))])
    return dict(given)


def truth(value: Any) -> bool:
    """Return what a switch of a request says: MONAI Label's clients send ``true`` as text, too."""
    return value if isinstance(value, bool) else str(value).strip().lower() in ("true", "1", "yes", "on")


def _strategy_problems(strategy: Any) -> Iterator[str]:
    """Say what is wrong with the record of who was given an image: strategies calculate with its times."""
    if not isinstance(strategy, Mapping):
        yield f"'strategy': expected records by name, got {str(strategy)[:100]!r}; leave it out"
        return
    for name, record in strategy.items():
        at = record.get("ts") if isinstance(record, Mapping) else None
        if type(at) is not int or not 0 <= at <= time.time() + _SLACK_S:
            yield (
                f"'strategy', {str(name)[:100]!r}: expected a time ts in whole seconds that is not in the future, got "
                f"{str(record)[:100]!r}; leave it out"
            )


def _option_problems(given: Mapping[str, Any], allowed: Collection[str], rules: Mapping[str, Rule]) -> Iterator[str]:
    for name, value in given.items():
        if name not in allowed:
            yield f"option '{str(name)[:100]}': expected one of {', '.join(sorted(allowed))}; leave it out"
            continue
        program = next((text for text in _texts(value) if text.lstrip().startswith(_PROGRAM)), None)
        if program is not None:
            yield (
                f"option '{name}': expected no text that begins with {', '.join(_PROGRAM)}, got {program[:100]!r}; "
                "no program is taken from a request"
            )
        elif name in rules and value is not None:
            yield from rules[name](name, value)


def _texts(value: Any) -> Iterator[str]:
    """Return every text in a value of JSON, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from (*_texts(name), *_texts(each))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _one_of(name: str, value: Any, choices: Collection[str]) -> Iterator[str]:
    if str(value) not in choices:
        yield f"option '{name}': expected one of {', '.join(choices)}, got {str(value)[:100]!r}; correct it"


def _tag(name: str, value: Any) -> Iterator[str]:
    if not is_id(value):
        yield f"option '{name}': expected a name such as final or original, got {str(value)[:100]!r}; correct it"


def _answer_tag(name: str, value: Any) -> Iterator[str]:
    yield from _tag(name, value)
    if str(value).lower() == _ANNOTATED:
        yield f"option '{name}': expected another name than {value}, under which are annotators' labels; take original"


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


_RULES: dict[str, Rule] = {
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
