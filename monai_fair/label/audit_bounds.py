"""What an audit measured of groups, for the rule that asks which of them is served worst."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fair.data.artifacts import read_json
from monai_fair.errors import LabelError, raise_problems

_MORE_IS_BETTER = "auc, average_precision, tpr, tnr, ppv, npv, accuracy, balanced_accuracy, f1"


@dataclass(frozen=True)
class Bound:
    """What an audit measured of a group.

    Attributes:
        value: of the metric; NaN where it is undefined.
        low: lower bound of its interval; NaN where there is none.
        n: cases.
        reason: why a number is NaN; else empty.
        target: the class it was measured for; empty where there is one.
    """

    value: float
    low: float
    n: int
    reason: str = ""
    target: str = ""


@dataclass(frozen=True)
class AuditBounds:
    """Lower bounds of groups by one run of an audit.

    Attributes:
        metric: what was measured, with the run where the audit has several.
        groups: way to divide the cases, such as ``sex`` or ``sex+age``, to group to what was measured.
    """

    metric: str
    groups: Mapping[str, Mapping[str, Bound]]


def read_bounds(path: str | Path, *, metric: str = "auc", run: str = "", preferred: str = "") -> AuditBounds:
    """Read what an audit measured of groups.

    Of several classes, each audited against the rest, a group has the smallest lower bound.

    Args:
        path: metrics.json of the verb ``audit``.
        metric: one of which more is better, such as ``auc`` or ``tpr@youden``.
        run: of the audit; by default ``preferred`` if there is one of this name, else the first.
        preferred: see ``run``.

    Raises:
        ArtifactError: if the file cannot be read.
        LabelError: if it has no such run or metric, or less of the metric is better.
    """
    content = read_json(path, "audit")
    runs = [each["name"] for each in content["runs"]]
    chosen = run or (preferred if preferred in runs else runs[0])
    problems = [] if chosen in runs else [f"run: expected one of {', '.join(runs)}, got '{chosen}'; correct it"]
    if metric.partition("@")[0] not in _MORE_IS_BETTER.split(", "):
        problems.append(f"metric: expected one of {_MORE_IS_BETTER}, with a rule where it needs one, got '{metric}'")
    raise_problems(LabelError, path, problems)
    bounds: dict[str, dict[str, Bound]] = {}
    for target in content["targets"]:
        for table in target["tables"]:
            groups = bounds.setdefault("+".join(table["attributes"]), {})
            for group in table["groups"]:
                cell = group["cells"].get(chosen, {}).get(metric)
                if cell is None:
                    known = ", ".join(group["cells"].get(chosen, {}))
                    raise LabelError(f"{path}: metric: expected one of {known}, got '{metric}'; correct it")
                found = _bound(cell, target["name"] if len(content["targets"]) > 1 else "")
                groups[group["name"]] = _smaller(groups.get(group["name"]), found)
    return AuditBounds(metric if len(runs) == 1 else f"{metric} (run {chosen})", bounds)


def _bound(cell: Mapping[str, Any], target: str) -> Bound:
    value, low = (math.nan if cell[name] is None else float(cell[name]) for name in ("value", "low"))
    return Bound(value, low, int(cell["n"]), cell["reason"] or cell["interval_reason"] or "", target)


def _smaller(one: Bound | None, other: Bound) -> Bound:
    if one is None or math.isnan(one.low):
        return other
    return other if other.low < one.low else one
