"""Which image to label next: pure rules over a table of images, each with its reason as a sentence.

A rule gives every image a key; the smallest is next, and of equal ones the first id. Groups have names for people
alone: no rule looks at them. Rules by group are in :mod:`monai_fair.label.group_rules`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from monai_fair.errors import LabelError, raise_problems
from monai_fair.label.image_groups import BoolArray, FloatArray
from monai_fair.label.image_table import ImageTable

SERVED_SECONDS = 600.0  # an image that somebody was given so recently is left to them


@dataclass(frozen=True)
class Choice:
    """The image to label next.

    Attributes:
        image_id: its id.
        reason: a sentence.
        group: it is chosen for, such as ``sex=female``; empty where it is for no group.
    """

    image_id: str
    reason: str
    group: str = ""


@dataclass(frozen=True, eq=False)
class Order:
    """An order of images by one rule.

    Attributes:
        keys: of each image, shape ``(n, k)``, compared column by column; smaller comes first, infinite says nothing.
        explain: from a row, and the rows it was chosen from, to reason and group.
    """

    keys: FloatArray
    explain: Callable[[int, BoolArray], tuple[str, str]]


Rule = Callable[[ImageTable], Order]


def choose(table: ImageTable, rule: Rule, *, now: float, served_seconds: float = SERVED_SECONDS) -> Choice | None:
    """Return the image to label next, or ``None`` where all are labelled.

    What somebody was given within ``served_seconds`` is left to them while there are other images; after that, the one
    that was given out longest ago comes first.

    Args:
        table: the images.
        rule: one of this module.
        now: in seconds, on the clock of ``served_at``.
        served_seconds: see above.

    Raises:
        LabelError: if the rule cannot be used on the table.
    """
    order = rule(table)
    open_images = ~np.asarray(table.labelled, dtype=bool)
    if not open_images.any():
        return None
    recent = open_images & (now - table.served_at < served_seconds)
    free = open_images & ~recent
    waited = open_images & (table.served_at == table.served_at[open_images].min())
    candidates = free if free.any() else waited
    best = min(np.flatnonzero(candidates).tolist(), key=lambda row: (*order.keys[row].tolist(), table.ids[row]))
    reason, group = order.explain(best, candidates)
    if not free.any():
        reason += (
            f"; all {int(open_images.sum())} images without a label were given out within the last "
            f"{served_seconds / 60:g} minutes, this one longest ago"
        )
    return Choice(table.ids[best], reason, group)


def uncertain(table: ImageTable) -> Order:
    """Order images by how near their score is to the threshold of their group.

    Of more than two classes the distance is that between the two highest scores. Images that are not scored come last.

    Raises:
        LabelError: if no image has a score.
    """
    distance = _distances(table)

    def explain(row: int, candidates: BoolArray) -> tuple[str, str]:
        rest = _without_score(table, candidates)
        if math.isnan(distance[row]):
            return "no image that is scored is left without a label" + rest, ""
        count = int((candidates & ~np.isnan(distance)).sum())
        nearest = f"the nearest of {count} scored {'image' if count == 1 else 'images'}"
        assert table.scores is not None
        if table.scores.ndim > 1:
            first, second = np.argsort(-table.scores[row], kind="stable")[:2]
            told = f"the scores of class {first} and class {second} are {distance[row]:.3f} apart"
            return f"{told}, {nearest}{rest}", ""
        assert table.thresholds is not None
        told = (
            f"the score {table.scores[row]:.3f} is {distance[row]:.3f} from the threshold {table.thresholds[row]:.3f} "
            f"({table.threshold_sources[row]})"
        )
        return f"{told}, {nearest}{rest}", ""

    return Order(np.where(np.isnan(distance), np.inf, distance)[:, None], explain)


def mix(table: ImageTable, rules: Mapping[str, tuple[Rule, float]]) -> Order:
    """Order images by the weighted mean of their ranks by several rules; equal ones share their mean rank.

    Args:
        table: the images; ranks are among those without a label.
        rules: name to rule and weight, at least 0; the sum is above 0.

    Raises:
        LabelError: if weights are no such numbers, or a rule cannot be used.
    """
    problems = [
        f"mix: expected weights from 0, got {name}={weight}"
        for name, (_, weight) in rules.items()
        if not 0 <= weight < math.inf
    ]
    total = sum(weight for _, weight in rules.values())
    if not problems and not total > 0:
        problems.append("mix: expected a weight above 0, such as uncertain=0.5,least_represented=0.5, got none")
    raise_problems(LabelError, "strategy", problems)
    used = {name: (rule(table), weight / total) for name, (rule, weight) in rules.items() if weight > 0}
    rows = np.flatnonzero(~table.labelled)
    ranks = {name: _ranks(order.keys, rows, len(table.ids)) for name, (order, _) in used.items()}
    mean = sum((weight * ranks[name] for name, (_, weight) in used.items()), np.zeros(len(table.ids)))

    def explain(row: int, candidates: BoolArray) -> tuple[str, str]:
        parts, group = [], ""
        for name, (order, weight) in used.items():
            reason, own = order.explain(row, candidates)
            # what is said of the first in an order is not true of every other one
            shown = reason if ranks[name][row] == ranks[name][candidates].min() else _bare(reason, own)
            parts.append(f"{name} (weight {weight:g}): rank {ranks[name][row]:g} of {len(rows)}, {shown}")
            group = group or own
        return "; ".join(parts), group

    # sums of the same ranks in another order of rules differ in their last bits
    return Order(np.round(mean, 9)[:, None], explain)


def _bare(reason: str, group: str) -> str:
    """Say what of an image's reason holds wherever it stands in the order."""
    return f"group {group}" if group else reason.partition(", the nearest")[0]


def _ranks(keys: FloatArray, rows: npt.NDArray[np.int64], n: int) -> FloatArray:
    """Return the mean rank of each row among some, from 1, shape ``(n,)``; 0 for the others."""
    distinct = sorted({tuple(key) for key in keys[rows].tolist()})
    place = {key: rank for rank, key in enumerate(distinct)}
    found = np.zeros(n)
    found[rows] = rankdata([place[tuple(key)] for key in keys[rows].tolist()]) if len(rows) else []
    return found


def _without_score(table: ImageTable, candidates: BoolArray) -> str:
    """Say how many images are not scored yet, and how many have no score because their scoring failed."""
    missing, failed = candidates & np.isnan(_distances(table)), _failed(table)
    total, waiting, lost = (int(rows.sum()) for rows in (candidates, missing & ~failed, missing & failed))
    told = f"; {waiting} of {total} images without a label are not scored yet" if waiting else ""
    return told + (f"; of {lost} of {total} images without a label the scoring failed" if lost else "")


def _failed(table: ImageTable) -> BoolArray:
    return np.zeros(len(table.ids), dtype=bool) if table.failed is None else table.failed


def _distances(table: ImageTable) -> FloatArray:
    scores = table.scores
    if scores is None or not np.isfinite(scores).any():
        failed = int(_failed(table).sum())
        told = f" (of {failed} the scoring failed; its answer says why, ask it with retry)" if failed else ""
        raise LabelError(
            f"uncertain: expected images that are scored, got none{told}; run the bundle's scoring first "
            "(POST /scoring/NAME)"
        )
    if scores.ndim > 1:
        ordered = np.sort(scores, axis=1)
        return np.asarray(ordered[:, -1] - ordered[:, -2])
    assert table.thresholds is not None
    return np.abs(scores - table.thresholds)
