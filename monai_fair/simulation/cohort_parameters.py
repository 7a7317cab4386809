"""What the parameters of the simulated cohorts have in common: their checks, and sex planted with a label."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

SEXES = ("male", "female")
SEED_RANGE = (0, 2**63 - 1)


def is_between(value: object, low: float, high: float) -> bool:
    """Say whether a value is a number, and not a truth value, in a range (the ends count)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def number_problems(values: Mapping[str, Any], ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return one sentence for each value that is not a number in its range."""
    return [
        f"{name}: expected a number from {low:g} to {high:g}, got {values[name]!r}; give one in that range"
        for name, (low, high) in ranges.items()
        if not is_between(values[name], low, high)
    ]


def whole_number_problems(
    values: Mapping[str, Any], ranges: Mapping[str, tuple[int, int]], *, optional: Collection[str] = ()
) -> list[str]:
    """Return one sentence for each value that is not a whole number in its range; None may stand for ``optional``."""
    return [
        f"{name}: expected a whole number from {low} to {high}, got {values[name]!r}; give one in that range"
        for name, (low, high) in ranges.items()
        if not (isinstance(values[name], int) and is_between(values[name], low, high))
        and not (name in optional and values[name] is None)
    ]


def cohort_values(cohort: type[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the ``options`` that are parameters of a cohort, by name."""
    return {field.name: options[field.name] for field in dataclasses.fields(cohort)}


def shares_by_sex(prevalence: float, male_share: float, correlation: float) -> dict[str, float]:
    """Return the share of positives among men and among women that has the prevalence and phi asked for.

    With phi the correlation, p the prevalence and q the share of men, men have
    ``p + phi * sqrt(p (1 - p) (1 - q) / q)`` and women ``p - phi * sqrt(p (1 - p) q / (1 - q))``, which leaves p
    unchanged over both. Where no share has them, one of the two is outside of [0, 1].
    """
    spread = correlation * math.sqrt(prevalence * (1.0 - prevalence))
    odds = math.sqrt((1.0 - male_share) / male_share)
    return {"male": prevalence + spread * odds, "female": prevalence - spread / odds}
