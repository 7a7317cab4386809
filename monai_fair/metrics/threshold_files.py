"""Thresholds as a file beside the model: JSON that says what they were fitted on, checked on the way in and out."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from monai_fair.data.artifacts import read_json, write_json
from monai_fair.errors import ArtifactError, raise_problems
from monai_fair.metrics.group_thresholds import Thresholds, Towards
from monai_fair.metrics.thresholds import THRESHOLD_METHODS, GroupThreshold, method_problems, shrink_threshold

_KIND = "thresholds"


def write_thresholds(path: str | Path, thresholds: Thresholds, *, source: str | Path) -> Path:
    """Write thresholds as JSON, whole or not at all.

    An undefined threshold is ``null`` and has its reason beside it.

    Args:
        path: the file to write, such as ``thresholds.json`` beside the model.
        thresholds: as fitted.
        source: the table of predictions they were fitted on; its name is written, its folder is not.

    Returns:
        ``path`` as a ``Path``.

    Raises:
        ArtifactError: with every value that :func:`read_thresholds` would refuse; nothing is written then.
    """
    content = {"source": Path(source).name, **_plain(asdict(thresholds))}
    raise_problems(ArtifactError, path, _problems(content))
    return write_json(path, _KIND, content)


def read_thresholds(path: str | Path) -> Thresholds:
    """Read thresholds written by :func:`write_thresholds`.

    Args:
        path: the file.

    Returns:
        The thresholds, equal to those written.

    Raises:
        ArtifactError: if the file is missing, is not JSON or of another kind; or with everything in it that is
            missing, impossible, or does not follow from its counts.
    """
    content = read_json(path, _KIND)
    raise_problems(ArtifactError, path, _problems(content))
    return Thresholds(
        method=content["method"],
        target=content["target"],
        attributes=tuple(content["attributes"]),
        split=content["split"],
        min_count=content["min_count"],
        shrinkage=content["shrinkage"],
        rows_sha256=content["rows_sha256"],
        pooled=_number(content["pooled"]),
        pooled_counts=(content["pooled_counts"][0], content["pooled_counts"][1]),
        reason=content["reason"],
        groups=tuple(_group(record) for record in content["groups"]),
        towards=content["towards"],
    )


def _group(record: Mapping[str, Any]) -> GroupThreshold:
    return GroupThreshold(
        name=record["name"],
        levels=tuple(record["levels"]),
        n_positive=record["n_positive"],
        n_negative=record["n_negative"],
        own=_number(record["own"]),
        towards=_number(record["towards"]),
        weight=record["weight"],
        threshold=_number(record["threshold"]),
        reason=record["reason"],
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _plain(value: Any) -> Any:
    """Turn tuples into lists and NaN into ``None``, as JSON has them; infinity stays and is refused."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_threshold(value: Any) -> bool:
    return value is None or _is_share(value)


_Rule = tuple[Callable[[Any], bool], str]
_THRESHOLD: _Rule = (_is_threshold, "a threshold in [0, 1] or null")
_COUNT: _Rule = (_is_count, "a count, 0 or more")
_TEXT: _Rule = (_is_text, "text")
_FIELDS: dict[str, _Rule] = {
    "source": _TEXT,
    "method": (lambda value: value in THRESHOLD_METHODS, f"one of {', '.join(THRESHOLD_METHODS)}"),
    "target": (lambda value: value is None or _is_number(value), "a number or null"),
    "attributes": (lambda value: _is_texts(value) and len(set(value)) == len(value), "a list of columns, each once"),
    "split": (lambda value: _is_text(value) and value != "test", "the name of a split other than 'test'"),
    "min_count": (lambda value: _is_count(value) and value > 0, "a count, 1 or more"),
    "shrinkage": (lambda value: _is_number(value) and value >= 0, "a number, 0 or more"),
    "towards": (lambda value: value in get_args(Towards), " or ".join(get_args(Towards))),
    "rows_sha256": (lambda value: _is_text(value) and len(value) == 64, "a SHA-256 in hexadecimal"),
    "pooled": _THRESHOLD,
    "pooled_counts": (
        lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_count, value)),
        "the counts of positives and negatives",
    ),
    "reason": _TEXT,
    "groups": (lambda value: isinstance(value, list), "a list of groups"),
}
_GROUP_FIELDS: dict[str, _Rule] = {
    "name": _TEXT,
    "levels": (_is_texts, "a list of texts"),
    "n_positive": _COUNT,
    "n_negative": _COUNT,
    "own": _THRESHOLD,
    "towards": _THRESHOLD,
    "weight": (_is_share, "a number in [0, 1]"),
    "threshold": _THRESHOLD,
    "reason": _TEXT,
}


def _problems(content: Mapping[str, Any]) -> list[str]:
    """Say what is wrong: first what is missing or impossible by itself, then what does not fit together."""
    found = list(_field_problems(content, _FIELDS, ""))
    groups = content.get("groups")
    for index, group in enumerate(groups if isinstance(groups, list) else [], start=1):
        found += _field_problems(group, _GROUP_FIELDS, f"group {index}, ")
    return found or list(_relation_problems(content))


def _field_problems(record: Any, rules: Mapping[str, _Rule], where: str) -> Iterator[str]:
    there = record if isinstance(record, Mapping) else {}
    for key, (holds, expected) in rules.items():
        if key not in there:
            yield f"{where}key '{key}': expected {expected}, found none; fit and write the thresholds again"
        elif not holds(there[key]):
            yield f"{where}key '{key}': expected {expected}, got {there[key]!r}; fit and write the thresholds again"


def _relation_problems(content: Mapping[str, Any]) -> Iterator[str]:
    yield from method_problems(content["method"], content["target"])
    if content["pooled"] is None and not content["reason"]:
        yield "key 'reason': expected why 'pooled' is null, got none; say it"
    seen: set[tuple[str, ...]] = set()
    for index, group in enumerate(content["groups"], start=1):
        levels = tuple(group["levels"])
        if len(levels) != len(content["attributes"]) or "" in levels or levels in seen:
            yield (
                f"group {index}, key 'levels': expected a value of each of {content['attributes']} that no other "
                f"group has, got {group['levels']}; keep one group per level"
            )
        seen.add(levels)
        yield from _group_problems(group, content, f"group {index}")
    for side, label in enumerate(("n_positive", "n_negative")):
        total = sum(group[label] for group in content["groups"])
        if total > content["pooled_counts"][side]:
            yield (
                f"key 'pooled_counts': expected at least the {total} of all groups' {label}, got "
                f"{content['pooled_counts'][side]}; fit and write the thresholds again"
            )


def _group_problems(group: Mapping[str, Any], content: Mapping[str, Any], where: str) -> Iterator[str]:
    if not group["reason"] and (group["own"] is None or group["threshold"] is None or not group["weight"]):
        yield f"{where}, key 'reason': expected why a threshold is null or has no weight, got none; say it"
    if content["towards"] == "pooled" and group["towards"] != content["pooled"]:
        yield f"{where}, key 'towards': expected 'pooled', {content['pooled']}, got {group['towards']}; fit them again"
    weight, threshold = shrink_threshold(
        _number(group["own"]),
        _number(group["towards"]),
        group["n_positive"],
        group["n_negative"],
        min_count=content["min_count"],
        shrinkage=content["shrinkage"],
    )
    got = _number(group["threshold"])
    same = math.isnan(got) if math.isnan(threshold) else math.isclose(got, threshold, abs_tol=1e-9)
    if not same or not math.isclose(group["weight"], weight, abs_tol=1e-9):
        yield (
            f"{where}: expected weight {weight:g} and threshold {threshold:g}, which follow from its counts and "
            f"thresholds, got {group['weight']:g} and {got:g}; fit and write the thresholds again"
        )
