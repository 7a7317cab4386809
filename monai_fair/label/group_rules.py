"""Rules by group: the least represented, and the one that the model serves worst."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monai_fair.errors import LabelError
from monai_fair.label.audit_bounds import AuditBounds, Bound
from monai_fair.label.image_groups import BoolArray, FloatArray, Groups
from monai_fair.label.image_table import ImageTable
from monai_fair.label.selection import Order


def least_represented(table: ImageTable) -> Order:
    """Order images by how few labelled ones their group has.

    Labelled images of a group are counted with their probability of being in it, and with those the model was trained
    on. Where there are several ways to divide the images, a count is compared with an equal share of all groups, or the
    attribute with the most levels would always come first; an image counts by its least represented group, then by its
    next one. Of the images of a group the one that is most surely in it comes first.

    Raises:
        LabelError: if there is no way to divide the images.
    """
    _need_groups(table, "least_represented")
    counts = [_labelled_counts(groups, table.labelled) for groups in table.groups]
    shares = [count * len(count) / max(float(count.sum()), 1.0) for count in counts]
    keys, where = _keys_of_groups(table, shares)

    def explain(row: int, candidates: BoolArray) -> tuple[str, str]:
        place = int(where[row])
        if place < 0:
            return _unknown(table, candidates), ""
        groups, count = table.groups[place], counts[place]
        own = int(groups.best[row])
        fewer = [other for other in range(len(count)) if count[other] < count[own]]
        extent = "the fewest" if not fewer else "the fewest with images to label"
        sentence = f"{groups.name}={groups.names[own]} has {_images(count[own])}, {extent} of {_groups(len(count))}"
        if groups.earlier[own] > 0:
            sentence += f" ({_number(groups.earlier[own])} of them in the training manifest)"
        if len(table.groups) > 1:
            names = ", ".join(each.name for each in table.groups)
            sentence += f", and the furthest below an equal share among {names}"
        if fewer:
            gone = ", ".join(f"{groups.names[other]} ({_number(count[other])})" for other in fewer)
            sentence += f"; of {gone} no image is free"
        return sentence + _surely(groups, row) + _not_known(table, candidates), _group(groups, own)

    return Order(keys, explain)


def worst_subgroup(table: ImageTable, audit: AuditBounds) -> Order:
    """Order images by the smallest lower bound of a metric of the groups they are in.

    A group of which the audit has too few cases for a bound may be served as badly as can be: its bound counts as 0,
    or labels that would tell were never asked for.

    Args:
        table: the images.
        audit: what was measured of the groups, from 0 to 1.

    Raises:
        LabelError: if the audit knows no group of the table.
    """
    _need_groups(table, "worst_subgroup")
    metric, found = audit.metric, [audit.groups.get(groups.name, {}) for groups in table.groups]
    lows = [
        np.array([_bound(measured[name]) if name in measured else math.nan for name in groups.names], np.float64)
        for groups, measured in zip(table.groups, found, strict=True)
    ]
    if not any(np.isfinite(low).any() for low in lows):
        raise LabelError(
            f"worst_subgroup: expected {metric} of at least one group of "
            f"{', '.join(groups.name for groups in table.groups)}, the audit has none; audit the model by these "
            "attributes"
        )
    keys, where = _keys_of_groups(table, [np.where(np.isnan(low), np.inf, low) for low in lows])

    def explain(row: int, candidates: BoolArray) -> tuple[str, str]:
        place = int(where[row])
        if place < 0:
            return _unknown(table, candidates, "no image is left in a group that the audit measures"), ""
        groups, measured = table.groups[place], found[place]
        own = int(groups.best[row])
        bound, name = measured[groups.names[own]], f"{groups.name}={groups.names[own]}"
        every = np.concatenate(lows)
        lower, count = int((every < _bound(bound)).sum()), int(np.isfinite(every).sum())
        extent = "the smallest" if not lower else "the smallest with images to label"
        sentence = f"{_measured(metric, name, bound)} {extent} of {_groups(count)}"
        sentence += f"; of {lower} lower {'one' if lower == 1 else 'ones'} no image is free" if lower else ""
        return sentence + _surely(groups, row) + _not_known(table, candidates), name

    return Order(keys, explain)


def _need_groups(table: ImageTable, name: str) -> None:
    if not any(groups.names for groups in table.groups):
        raise LabelError(
            f"{name}: expected images with attributes or discovered subgroups, no image has any; give the server "
            "--conf demographics, put attributes to the images' info, or score a registration bundle with subgroups"
        )


def _labelled_counts(groups: Groups, labelled: BoolArray) -> FloatArray:
    inside = groups.shares[labelled & groups.known]
    # sums of the same numbers in another order differ in their last bits, and equal counts would not be
    return np.round(inside.sum(axis=0) + groups.earlier, 9) if len(groups.names) else np.zeros(0)


def _keys_of_groups(table: ImageTable, values: Sequence[FloatArray]) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """Return keys of the images, and by which way to divide them each came to its first one; -1 where by none.

    Keys are the values of an image's groups, rising, then how unsure its group is.
    """
    n, ways = len(table.ids), len(table.groups)
    found = np.full((n, ways), np.inf)
    for way, (groups, value) in enumerate(zip(table.groups, values, strict=True)):
        if len(value):
            own = groups.best
            found[:, way] = np.where(own >= 0, np.asarray(value)[own], np.inf)
    first = found.argmin(axis=1)
    where = np.where(np.isfinite(found.min(axis=1)), first, -1)
    doubt = np.zeros(n)
    for way, groups in enumerate(table.groups):
        rows = where == way
        doubt[rows] = np.round(1 - groups.shares[rows].max(axis=1), 12)
    return np.column_stack([np.sort(found, axis=1), doubt]), where


def _unknown(table: ImageTable, candidates: BoolArray, found: str = "no image of a known group is left") -> str:
    return found + _not_known(table, candidates)


def _not_known(table: ImageTable, candidates: BoolArray) -> str:
    """Say how many images have no group, by every way to divide them."""
    total = int(candidates.sum())
    told = []
    for groups in table.groups:
        count = int((candidates & ~groups.known).sum())
        if count:
            told.append(f"{groups.name} of {count} of {total} images without a label is {groups.unknown}")
    return "".join(f"; {text}" for text in told)


def _bound(bound: Bound) -> float:
    return 0.0 if math.isnan(bound.low) else bound.low


def _measured(metric: str, name: str, bound: Bound) -> str:
    measure = f"{metric} ({bound.target})" if bound.target else metric
    if math.isnan(bound.low):
        why = bound.reason or "no interval"
        return f"{measure} of {name} has no lower bound (n = {bound.n}; {why}), which counts as 0,"
    return f"{measure} of {name} is {bound.value:.3f}, its lower bound {bound.low:.3f} (n = {bound.n})"


def _surely(groups: Groups, row: int) -> str:
    share = float(groups.shares[row].max())
    return "" if share == 1 else f"; this image is in it with probability {share:.2f}"


def _group(groups: Groups, own: int) -> str:
    return f"{groups.name}={groups.names[own]}"


def _number(value: float) -> str:
    return f"{value:g}" if float(value).is_integer() else f"about {value:.1f}"


def _images(count: float) -> str:
    return f"{_number(count)} labelled {'image' if count == 1 else 'images'}"


def _groups(count: int) -> str:
    return f"{count} {'group' if count == 1 else 'groups'}"
