"""Options of a recipe: named choices that lay a patch over it, and values that stand in for ``${name}``."""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monai_fair.errors import RecipeError, raise_problems

VALUE_KINDS = ("text", "list", "number")
_PLACE = re.compile(r"\$\{(\w+)\}")


def apply_options(
    content: Mapping[str, Any], chosen: Mapping[str, Any], path: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """Lay the patch of each choice over a recipe, then put each value where its name stands.

    An option with ``choices`` names patches. One with ``value`` is given freely: ``text``; ``list``, several texts
    with ``|`` between them; or ``number``. A choice may be ``by`` another option: ``of``, from its choice or value to
    the patch, and ``otherwise``. An attribute whose column is empty text afterwards is left out.

    Args:
        content: the recipe as read.
        chosen: option name to choice or value; an option that is not named keeps its default.
        path: the recipe's file, for messages.

    Returns:
        The recipe with its options applied, and the choice or value of each option as text.

    Raises:
        RecipeError: with every unknown option or choice, value that is missing or no number, and place without option.
    """
    available: dict[str, Any] = content.get("options") or {}
    raise_problems(RecipeError, path, _option_problems(available))
    problems = [
        f"expected an option of {', '.join(available) or 'none'}, got '{name}'"
        for name in chosen
        if name not in available
    ]
    choices = {name: _choice(chosen.get(name, option.get("default"))) for name, option in available.items()}
    values: dict[str, str | list[str] | float] = {}
    patched = {key: value for key, value in content.items() if key != "options"}
    for name, option in available.items():
        try:
            if "value" in option:
                values[name] = _value(name, option["value"], choices[name])
            else:
                patched = _merge(patched, _patch(name, option["choices"], choices))
        except ValueError as error:
            problems.append(str(error))
    places = {place for text in _texts(patched) for place in _PLACE.findall(text)}
    problems += [
        f"'${{{place}}}' stands for no option with 'value' of this recipe"
        for place in sorted(places)
        if "value" not in available.get(place, {})
    ]
    raise_problems(RecipeError, path, problems)
    filled = _without_empty(_fill(patched, values))
    return {**filled, **({"options": available} if "options" in content else {})}, {
        name: str(choice) for name, choice in choices.items()
    }


def _choice(choice: Any) -> str | None:
    return None if choice is None else str(choice)


def _patch(name: str, choices: Mapping[Any, Any], chosen: Mapping[str, str | None]) -> Mapping[str, Any]:
    patches, choice = {str(key): patch for key, patch in choices.items()}, chosen[name]
    if choice not in patches:
        raise ValueError(f"option '{name}': expected one of {', '.join(patches)}, got '{choice}'")
    patch = patches[choice] or {}
    if "by" in patch:
        patch = patch["of"].get(chosen[patch["by"]], patch["otherwise"]) or {}
    return dict(patch)


def _value(name: str, kind: str, text: str | None) -> str | list[str] | float:
    if text is None:
        raise ValueError(f"option '{name}': expected a value, got none; give one with --options {name}=...")
    if kind == "list":
        return [part.strip() for part in text.split("|") if part.strip()]
    if kind == "text":
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"option '{name}': expected a number, got '{text}'")
    return int(number) if number.is_integer() else number


def _merge(base: Any, patch: Any) -> Any:
    """Lay ``patch`` over ``base``: mappings are merged key by key, null takes a key away, anything else replaces."""
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    merged = {**base, **{key: _merge(base.get(key), value) for key, value in patch.items()}}
    return {key: value for key, value in merged.items() if value is not None or key not in patch}


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict | list):
        for item in content.values() if isinstance(content, dict) else content:
            yield from _texts(item)


def _fill(content: Any, values: Mapping[str, str | list[str] | float]) -> Any:
    """Put the values in place; a list within a list is laid out flat, so that lists can be put together of others."""
    if isinstance(content, dict):
        return {key: _fill(value, values) for key, value in content.items()}
    if isinstance(content, list):
        items = [_fill(item, values) for item in content]
        return [part for item in items for part in (item if isinstance(item, list) else [item])]
    if not isinstance(content, str):
        return content
    whole = _PLACE.fullmatch(content)
    return values[whole[1]] if whole else _PLACE.sub(lambda place: str(values[place[1]]), content)


def _without_empty(content: dict[str, Any]) -> dict[str, Any]:
    """Leave out the attributes whose column an option has emptied."""
    attributes = content.get("attributes")
    if not isinstance(attributes, dict):
        return content
    gone = {name for name, rule in attributes.items() if isinstance(rule, dict) and rule.get("column") == ""}
    kept = {"attributes": {name: rule for name, rule in attributes.items() if name not in gone}}
    stratify = {"stratify": [name for name in content.get("stratify") or [] if name not in gone]} if gone else {}
    return {**content, **kept, **stratify}


def _option_problems(options: Any) -> list[str]:
    if not isinstance(options, dict):
        return [f"options: expected a mapping from name to option, got {type(options).__name__}"]
    problems = [
        f"option '{name}': expected a mapping with 'default' and 'choices' (choice to its changes), "
        f"or with 'value' ({', '.join(VALUE_KINDS)})"
        for name, option in options.items()
        if not isinstance(option, dict) or not _is_option(option)
    ]
    return problems or [
        f"option '{name}': {choice}: expected 'by' (another option), 'of' (its choice to changes) and 'otherwise'"
        for name, option in options.items()
        for choice, patch in option.get("choices", {}).items()
        if isinstance(patch, dict) and "by" in patch and not _is_conditional(patch, name, options)
    ]


def _is_conditional(patch: Mapping[str, Any], name: str, options: Mapping[str, Any]) -> bool:
    keyed = set(patch) == {"by", "of", "otherwise"} and isinstance(patch["of"], dict)
    return keyed and patch["by"] in options and patch["by"] != name


def _is_option(option: Mapping[str, Any]) -> bool:
    if "value" in option:
        return option["value"] in VALUE_KINDS and "choices" not in option
    return "default" in option and isinstance(option.get("choices"), dict)
