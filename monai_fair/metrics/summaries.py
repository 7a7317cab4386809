"""A metric in every group of an attribute, and one number that sums it up."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.metrics.by_group import group_values
from monai_fair.metrics.definitions import METRICS
from monai_fair.metrics.gaps import group_gap
from monai_fair.metrics.groups import Grouping

Summary = Literal["overall", "worst", "gap", "mean"]
SUMMARIES: tuple[Summary, ...] = get_args(Summary)


@dataclass(frozen=True)
class GroupResults:
    """One metric over all samples and in every group.

    Attributes:
        names: one per group, in natural order.
        n: samples of each group, shape ``(G,)``.
        n_positive: positives of each group, shape ``(G,)``.
        values: shape ``(G,)``; NaN where undefined.
        left_out: why a group takes no part in a summary; empty where it does.
        overall: the value over all samples, those of no group included; NaN where undefined.
        n_total: all samples.
        n_missing: samples whose attribute is missing, so that they are in no group.
    """

    names: tuple[str, ...]
    n: IntArray
    n_positive: IntArray
    values: FloatArray
    left_out: tuple[str, ...]
    overall: float
    n_total: int
    n_missing: int

    @property
    def counted(self) -> BoolArray:
        """Groups that take part in a summary, shape ``(G,)``."""
        return np.array([not reason for reason in self.left_out], dtype=np.bool_)


def group_results(
    name: str, y: BoolArray, score: FloatArray, grouping: Grouping, *, threshold: float = 0.5, min_count: int = 10
) -> GroupResults:
    """Return a metric over all samples and in every group.

    A group takes part in summaries if it has ``min_count`` of the cases the metric is computed from, such as positives
    and negatives for the AUC, and a value.

    Args:
        name: a key of :data:`monai_fair.metrics.definitions.METRICS`.
        y: True for positive, shape ``(N,)``.
        score: in [0, 1], shape ``(N,)``.
        grouping: the group of each sample.
        threshold: ``score >= threshold`` is predicted positive.
        min_count: at least 1.

    Returns:
        The values, with the reason for each group that is left out.
    """
    codes, num_groups = grouping.codes, len(grouping.names)
    values = group_values(name, y, score, codes, num_groups, threshold=threshold)
    overall = group_values(name, y, score, np.zeros_like(codes), 1, threshold=threshold)[0]
    y_pred = score >= threshold
    chosen = {"cases": y | ~y, "positives": y, "negatives": ~y}
    chosen |= {"predicted positives": y_pred, "predicted negatives": ~y_pred}
    n = {what: np.bincount(codes[(codes >= 0) & mask], minlength=num_groups) for what, mask in chosen.items()}
    needs = METRICS[name].needs
    below = ["positives", "negatives"] if needs == "both" else [needs]
    left_out = []
    for group, value in enumerate(values):
        few = [f"fewer than {min_count} {what} in this group" for what in below if n[what][group] < min_count]
        undefined = [f"{METRICS[name].undefined} in this group"] if np.isnan(value) else []
        left_out.append([*few, *undefined, ""][0])
    return GroupResults(
        grouping.names,
        n["cases"],
        n["positives"],
        values,
        tuple(left_out),
        float(overall),
        y.size,
        grouping.num_missing,
    )


def summarize(results: GroupResults, summary: Summary, *, best: float | None) -> float:
    """Return one number: ``overall``, or ``worst``, ``mean`` or ``gap`` (largest minus smallest) of the groups counted.

    ``worst`` is the value furthest from ``best``: the smallest AUC, the largest FPR. NaN where undefined: no group
    counted, or fewer than two for ``gap``.

    Args:
        results: the groups.
        summary: which number.
        best: the metric's best value; needed for ``worst``.
    """
    if summary == "overall":
        return results.overall
    if summary == "gap":
        return float(group_gap(results.values, results.counted))
    values = results.values[results.counted]
    if not values.size:
        return float("nan")
    if summary == "mean":
        return float(values.mean())
    assert best is not None, "GroupMetric refuses 'worst' of a metric without a best value"
    return float(values[np.abs(values - best).argmax()])


def larger_is_better(name: str) -> bool:
    """Say whether of a metric a larger value is always better: not of the FPR, nor of a calibration slope."""
    return METRICS[name].best == 1 and METRICS[name].is_probability
