"""From a dataset's own codes to labels and attributes, by named rules that leave a record.

A rule reads one column of text. It never guesses: a code the rule does not list is a problem, and a
missing value stays missing (the empty string) unless the recipe says that its rows are dropped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

RULES = ("groups", "bins", "number", "text")
_CAPPED = r"[0-9]+(?:\.[0-9]+)?\+"


@dataclass(frozen=True)
class Derived:
    """What a rule made of a column.

    Attributes:
        values: text per row; the empty string is a missing value.
        drop_reason: text per row; a non-empty one says why the row leaves the manifest.
        record: the rule as applied, with counts, ready for JSON.
        problems: what does not fit the rule, one sentence each.
    """

    values: pd.Series
    drop_reason: pd.Series
    record: dict[str, Any]
    problems: list[str] = field(default_factory=list)


def derive(column: pd.Series, name: str, rule: Mapping[str, Any]) -> Derived:
    """Apply one rule of a recipe to one column.

    Args:
        column: text per row.
        name: the name of the label or attribute to make.
        rule: exactly one of ``groups`` (name to list of codes), ``bins`` (``edges``, ``equal`` and optionally
            ``names``), ``number`` (``min``, ``max``) and ``text`` (true); optionally ``missing`` (codes that
            mean missing, by default the empty cell), ``drop`` (codes whose rows leave the manifest),
            ``if_missing`` (``keep`` or ``drop``) and ``capped`` (true: ``89+`` counts as 89; in bins it has to lie
            above every edge).

    Returns:
        Values, dropped rows, the record, and problems (unknown codes, numbers out of range).
    """
    codes = column.str.strip()
    is_missing = codes.isin([str(code) for code in rule.get("missing", [""])])
    is_dropped = codes.isin([str(code) for code in rule.get("drop", [])])
    kind = next(kind for kind in RULES if kind in rule)
    known = codes[~is_missing & ~is_dropped]
    capped = known.str.fullmatch(_CAPPED) & bool(rule.get("capped", False))
    plain = known.mask(capped, known.str.rstrip("+"))
    values, problems = _APPLY[kind](plain, rule[kind])
    problems += _unplaced(known[capped], rule.get("bins"))
    full = values.reindex(column.index, fill_value="")
    reason = pd.Series("", index=column.index)
    if rule.get("if_missing", "keep") == "drop":
        reason = reason.mask(is_missing, f"{name} is missing")
    reason = reason.mask(is_dropped, f"{name} code is dropped by the recipe: " + codes)
    record = {
        "column": column.name,
        "rule": {kind: rule[kind]},
        "missing_codes": list(rule.get("missing", [""])),
        "if_missing": rule.get("if_missing", "keep"),
        "missing": int(is_missing.sum()),
        "dropped": int((reason != "").sum()),
        **({"capped": int(capped.sum())} if rule.get("capped") else {}),
    }
    where = f"{name} (column '{column.name}')"
    return Derived(full, reason, record, [f"{where}: {problem}" for problem in problems])


def _unplaced(capped: pd.Series, bins: Mapping[str, Any] | None) -> list[str]:
    """Say which values such as ``89+`` may lie on either side of an edge."""
    if bins is None:
        return []
    top, lowest = float(bins["edges"][-1]), pd.to_numeric(capped.str.rstrip("+"))
    below = capped[lowest <= top if bins.get("equal") == "below" else lowest < top].value_counts()
    return [
        f"{code!r} in {count} rows may lie on either side of {top:g}; choose lower edges"
        for code, count in below.items()
    ]


def _groups(codes: pd.Series, groups: Mapping[str, Sequence[Any]]) -> tuple[pd.Series, list[str]]:
    table = {str(code): str(group) for group, listed in groups.items() for code in listed}
    unknown = codes[~codes.isin(list(table))].value_counts()
    problems = [
        f"expected one of {', '.join(map(repr, table))}, got {code!r} in {count} rows; "
        "name the code in the recipe (under a group, 'missing' or 'drop')"
        for code, count in unknown.items()
    ]
    return codes.map(table).fillna(""), problems


def _bins(codes: pd.Series, bins: Mapping[str, Any]) -> tuple[pd.Series, list[str]]:
    numbers, problems = _numbers(codes, {})
    edges = [float(edge) for edge in bins["edges"]]
    equal = str(bins.get("equal", "above"))
    names = np.asarray(bins.get("names") or bin_names(edges, equal), dtype=object)
    # right=True leaves a value equal to an edge in the bin below it
    index = np.digitize(numbers.fillna(edges[0]).to_numpy(dtype=np.float64), edges, right=equal == "below")
    return pd.Series(names[index], index=codes.index, dtype=object), problems


def bin_names(edges: Sequence[float], equal: str) -> list[str]:
    """Return the default names of bins, saying on which side of each edge equality falls.

    Example:
        >>> bin_names([60], "above"), bin_names([20, 40], "below")
        (['<60', '>=60'], ['<=20', '>20 to 40', '>40'])
    """
    shown = [f"{edge:g}" for edge in edges]
    pairs = pairwise(shown)
    if equal == "above":
        return [f"<{shown[0]}", *(f"{low} to <{high}" for low, high in pairs), f">={shown[-1]}"]
    return [f"<={shown[0]}", *(f">{low} to {high}" for low, high in pairs), f">{shown[-1]}"]


def _number(codes: pd.Series, limits: Mapping[str, float]) -> tuple[pd.Series, list[str]]:
    _, problems = _numbers(codes, limits)
    return codes, problems


def _numbers(codes: pd.Series, limits: Mapping[str, float]) -> tuple[pd.Series, list[str]]:
    low, high = float(limits.get("min", -np.inf)), float(limits.get("max", np.inf))
    numbers = pd.to_numeric(codes, errors="coerce")
    bad = codes[~numbers.between(low, high) | ~np.isfinite(numbers)].value_counts()
    wanted = f"a number from {low:g} to {high:g}" if limits else "a number"
    return numbers, [f"expected {wanted}, got {code!r} in {count} rows" for code, count in bad.items()]


def _text(codes: pd.Series, _: bool) -> tuple[pd.Series, list[str]]:
    return codes, []


_Apply = Callable[[pd.Series, Any], tuple[pd.Series, list[str]]]
_APPLY: dict[str, _Apply] = {"groups": _groups, "bins": _bins, "number": _number, "text": _text}
