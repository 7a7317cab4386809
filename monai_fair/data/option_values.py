"""Options of a command line as python-fire hands them over, read as names and pairs."""

from collections.abc import Sequence

from monai_fair.errors import MonaiFairError


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
