"""Options of a bundle that are on or off."""

from collections.abc import Mapping

from monai_fair.errors import MonaiFairError, raise_problems


def check_switches(switches: Mapping[str, object]) -> None:
    """Refuse a switch that is not a truth value: MONAI reads ``--report false`` as a text, which counts as true.

    Args:
        switches: name to value; ``None`` is left to whoever reads it.

    Raises:
        MonaiFairError: with every switch that is something else.
    """
    wrong = [(name, value) for name, value in switches.items() if not isinstance(value, bool | None)]
    problems = [f"expected --{name} True or --{name} False, got {value!r}; spell it so" for name, value in wrong]
    raise_problems(MonaiFairError, "options", problems)
