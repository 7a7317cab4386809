"""Options of a command line as python-fire hands them over, read as names and pairs."""

from collections.abc import Sequence

from monai_fair.errors import MonaiFairError, raise_problems


def option_names(value: str | Sequence[object]) -> list[str]:
    """Return the names in ``a,b``, of which fire has already made a tuple, or in ``5``, of which it made a number."""
    listed = value if isinstance(value, list | tuple) else str(value).split(",")
    return [str(name).strip() for name in listed]


def option_pairs(name: str, options: str | Sequence[str] | dict[str, str]) -> dict[str, str]:
    """Return the pairs in ``a=b,c=d``.

    Args:
        name: of the option, for the message.
        options: what fire made of it: a text, a tuple of texts, or a dictionary.

    Raises:
        MonaiFairError: if a part is no pair.
    """
    if isinstance(options, dict):
        return {str(left): str(right) for left, right in options.items()}
    pairs = [part.split("=", 1) for part in option_names(options) if part]
    if any(len(pair) != 2 for pair in pairs):
        raise MonaiFairError(f"{name}: expected name=value,name=value, got '{','.join(option_names(options))}'")
    return {left.strip(): right.strip() for left, right in pairs}


def option_gaps(name: str, value: object) -> dict[str, dict[str, float]]:
    """Return attribute to group to gap, from ``sex:female=0.16,age_group:>=60=0.12`` or a dictionary of dictionaries.

    A group's name may have any sign but a comma in the text; a dictionary may have that too.

    Args:
        name: of the option, for the message.
        value: what fire made of it: a text, a tuple of texts, or a dictionary.

    Raises:
        MonaiFairError: with every part that is no gap of a group, or is there twice.
    """
    triples: list[tuple[str, str, object, str]] = []
    if isinstance(value, dict):
        for attribute, named in value.items():
            inner = named if isinstance(named, dict) else {"": named}
            triples += [(str(attribute), str(group), gap, f"{attribute}: {named}") for group, gap in inner.items()]
    else:
        for part in option_names(value):  # type: ignore[arg-type]
            place, _, number = part.rpartition("=")
            attribute, _, group = place.partition(":")
            triples.append((attribute.strip(), group.strip(), number, part))
    gaps: dict[str, dict[str, float]] = {}
    problems = []
    for attribute, group, gap, shown in triples:
        wanted = _number(gap)
        if not attribute or not group or wanted is None:
            problems.append(f"expected attribute:group=gap, such as sex:female=0.16, got '{shown}'")
        elif group in gaps.setdefault(attribute, {}):
            problems.append(f"expected one gap for {attribute}:{group}, got several; keep one")
        else:
            gaps[attribute][group] = wanted
    raise_problems(MonaiFairError, name, problems)
    return gaps


def _number(value: object) -> float | None:
    try:
        return float(str(value))
    except ValueError:
        return None
