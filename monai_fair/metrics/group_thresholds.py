"""One threshold per group, drawn towards the pooled one where a group has few cases.

A threshold of its own makes a group's errors what the method asks for, but needs the group's attributes when
the model is used, and is as uncertain as the group is small. Both are kept in sight: counts, weight and reason
stand beside every threshold, and a case without its attributes gets the pooled one.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.data.artifacts import fingerprint
from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.arrays import BoolArray, FloatArray
from monai_fair.metrics.group_shifts import shifted_thresholds
from monai_fair.metrics.groups import Grouping, attribute_levels, group_by
from monai_fair.metrics.thresholds import (
    GroupThreshold,
    ThresholdMethod,
    checked_scores,
    method_problems,
    refuse_test,
    search_threshold,
    shrink_threshold,
    threshold_of_part,
)

Towards = Literal["pooled", "shifted"]


@dataclass(frozen=True)
class Thresholds:
    """Thresholds by group, as :class:`ThresholdFitter` fits them.

    Attributes:
        method: how they were found; see :func:`find_threshold`.
        target: sensitivity or specificity asked for, or None.
        attributes: the columns that define the groups; empty for one threshold for everyone.
        split: the part they were fitted on.
        min_count: positives and negatives a group needs for a threshold of its own.
        shrinkage: positives or negatives at which a group's own threshold weighs one half.
        rows_sha256: hash of the labels, scores and groups they were fitted on, in any order.
        pooled: the threshold from all rows; NaN where there is none.
        pooled_counts: positives and negatives it was fitted on, rows with missing attributes among them.
        reason: why ``pooled`` is NaN; else empty.
        groups: the groups seen, in natural order of their levels.
        towards: what a group's own threshold is drawn towards; see :class:`ThresholdFitter`.
    """

    method: ThresholdMethod
    target: float | None
    attributes: tuple[str, ...]
    split: str
    min_count: int
    shrinkage: float
    rows_sha256: str
    pooled: float
    pooled_counts: tuple[int, int]
    reason: str
    groups: tuple[GroupThreshold, ...]
    towards: Towards = "pooled"

    def for_groups(self, groups: pd.DataFrame) -> FloatArray:
        """Return the threshold of each row: its group's, or the pooled one for a missing or unseen group.

        Args:
            groups: the attributes as text, ``N`` rows; other columns do not matter.

        Returns:
            Shape ``(N,)``; NaN where there is no threshold.

        Raises:
            MonaiFairError: if an attribute is not a column, or is not text.
        """
        known = {group.levels: group.threshold for group in self.groups}
        found = [known.get(levels, self.pooled) for levels in attribute_levels(groups, self.attributes)]
        return np.array(found, dtype=np.float64)

    def predict(self, score: npt.ArrayLike, groups: pd.DataFrame | None = None) -> BoolArray:
        """Say which cases are positive: ``score >= threshold`` of the case's group.

        Args:
            score: shape ``(N,)``, from the model the thresholds were fitted on.
            groups: the attributes as text, ``N`` rows; without them every case gets the pooled threshold.

        Raises:
            MonaiFairError: if a case has no threshold, or see :meth:`for_groups`.
            ValueError: if the lengths differ.
        """
        value = np.asarray(score, dtype=np.float64)
        threshold = np.full(value.shape, self.pooled) if groups is None else self.for_groups(groups)
        if threshold.shape != value.shape:
            raise ValueError(f"expected one row of groups per score, got {len(threshold)} for shape {value.shape}")
        undefined = int(np.isnan(threshold).sum())
        if undefined:
            by_group = [f"{group.name}: {group.reason}" for group in self.groups if math.isnan(group.threshold)]
            raise MonaiFairError(
                f"thresholds: expected a threshold for every case, got none for {undefined} of {value.size} "
                f"({'; '.join([self.reason, *by_group])}); fit them on more rows, or with another target"
            )
        return np.asarray(value >= threshold)

    def count_pooled(self, groups: pd.DataFrame) -> dict[str, int]:
        """Count the rows that get the pooled threshold because their group is not known.

        Args:
            groups: see :meth:`for_groups`.

        Returns:
            ``missing``: rows with an empty cell; ``unseen``: rows of a group that was not there at the fit.
        """
        known = {group.levels for group in self.groups}
        rows = attribute_levels(groups, self.attributes) if self.attributes else []
        unknown = [levels for levels in rows if levels not in known]
        missing = sum("" in levels for levels in unknown)
        return {"missing": missing, "unseen": len(unknown) - missing}


class ThresholdFitter:
    """Fit a threshold for each group, drawn towards one from more rows; see :func:`shrink_threshold`.

    Towards the pooled threshold a group's cases are treated more like all others the fewer they are. That is the
    wrong end where scores themselves differ by group, as those of a model that is told the attributes do: then the
    pooled threshold lies far from every group's own. ``shifted`` draws towards what the group would have if it
    differed from the others by a shift of its logits alone, which cases of both classes tell; see
    :func:`monai_fair.metrics.group_shifts.group_shifts`. The groups' attributes have to be known for either.

    Args:
        method: how a threshold is found; see :func:`find_threshold`.
        target: sensitivity or specificity to reach, for these two methods.
        attributes: columns that define the groups, taken together; none for one threshold for everyone.
        min_count: positives and negatives, of each at least, for a threshold of its own.
        shrinkage: positives or negatives, the fewer, at which the own threshold weighs one half; 0 for groups'
            own thresholds as they are.
        towards: ``pooled`` or ``shifted``.

    Raises:
        MonaiFairError: with every option that is wrong.
    """

    def __init__(
        self,
        method: ThresholdMethod = "youden",
        *,
        target: float | None = None,
        attributes: Sequence[str] = (),
        min_count: int = 10,
        shrinkage: float = 10.0,
        towards: Towards = "pooled",
    ) -> None:
        problems = [*method_problems(method, target), *_fitter_problems(attributes, min_count, shrinkage, towards)]
        raise_problems(MonaiFairError, "thresholds", problems)
        self.method = method
        self.target = target
        self.attributes = tuple(attributes)
        self.min_count = min_count
        self.shrinkage = shrinkage
        self.towards = towards

    def fit(
        self, y: npt.ArrayLike, score: npt.ArrayLike, groups: pd.DataFrame | None = None, *, split: str
    ) -> Thresholds:
        """Fit on held-out rows; nothing depends on their order.

        A row with a missing attribute counts for the pooled threshold and for no group.

        Args:
            y: 0 or 1 per sample, shape ``(N,)``.
            score: in [0, 1], from the model as it will be used (evaluation mode), shape ``(N,)``.
            groups: the attributes as text, ``N`` rows, an empty cell where missing; for fits without attributes
                not needed.
            split: the part the rows are from; the test part is refused.

        Raises:
            MonaiFairError: if asked to fit on the test part, a score is outside [0, 1], or an attribute is not a
                column of ``groups`` or is not text.
            ValueError: if the shapes differ, or ``y`` or ``score`` have impossible values.
        """
        refuse_test(split)
        positive, value = checked_scores(y, score)
        if not bool(np.all((value >= 0) & (value <= 1))):
            raise MonaiFairError(
                f"thresholds: expected scores in [0, 1], got {value.min():g} to {value.max():g}; give probabilities"
            )
        table = pd.DataFrame(index=range(len(value))) if groups is None else groups
        levels = attribute_levels(table, self.attributes)
        if len(levels) != len(value):
            raise ValueError(f"expected one row of groups per score, got {len(levels)} for {len(value)}")
        pooled, reason = threshold_of_part(positive, value, self.method, self.target, split=split)
        return Thresholds(
            method=self.method,
            target=self.target,
            attributes=self.attributes,
            split=split,
            min_count=self.min_count,
            shrinkage=self.shrinkage,
            rows_sha256=_rows_sha256(positive, value, levels),
            pooled=pooled,
            pooled_counts=_counts(positive),
            reason=reason,
            groups=tuple(self._fit_groups(positive, value, table, pooled)) if self.attributes else (),
            towards=self.towards,
        )

    def _fit_groups(
        self, positive: BoolArray, value: FloatArray, table: pd.DataFrame, pooled: float
    ) -> Iterator[GroupThreshold]:
        grouping = group_by(table, self.attributes)
        towards = self._towards(positive, value, grouping, pooled)
        for code, (name, levels) in enumerate(zip(grouping.names, grouping.levels, strict=True)):
            inside = grouping.codes == code
            counts = _counts(positive[inside])
            own, reason = search_threshold(positive[inside], value[inside], self.method, self.target)
            weight, threshold = shrink_threshold(
                own, towards[code], *counts, min_count=self.min_count, shrinkage=self.shrinkage
            )
            if reason:
                reason = f"its rows {reason}"
            elif not weight:
                reason = f"{counts[0]} positives and {counts[1]} negatives, expected at least {self.min_count} of each"
            elif math.isnan(threshold):
                reason = f"there is no {self.towards} threshold to draw its own one towards"
            yield GroupThreshold(name, levels, *counts, own, towards[code], weight, threshold, reason)

    def _towards(self, positive: BoolArray, value: FloatArray, grouping: Grouping, pooled: float) -> list[float]:
        if self.towards == "pooled":
            return [pooled] * len(grouping.names)
        found = shifted_thresholds(positive, value, grouping.codes, self.method, self.target)
        return [float(value) for value in found]


def fit_thresholds(
    table: pd.DataFrame,
    score_column: str = "score",
    *,
    positive_label: int = 1,
    split: str = "val",
    method: ThresholdMethod = "youden",
    target: float | None = None,
    attributes: Sequence[str] = (),
    min_count: int = 10,
    shrinkage: float = 10.0,
    towards: Towards = "pooled",
) -> Thresholds:
    """Fit thresholds by group on one part of a predictions table.

    Args:
        table: columns ``split``, ``label``, ``score_column`` and the attributes.
        score_column: the score of ``positive_label``.
        positive_label: the class that counts as positive.
        split: the part to fit on; the test part is refused.
        method: see :func:`find_threshold`.
        target: see :class:`ThresholdFitter`, as for the following.
        attributes: columns that define the groups, taken together.
        min_count: positives and negatives for a threshold of its own.
        shrinkage: positives or negatives at which the own threshold weighs one half.
        towards: what a group's own threshold is drawn towards.

    Returns:
        The thresholds; NaN with a reason where the part has no rows or one class only.

    Raises:
        MonaiFairError: see :class:`ThresholdFitter` and its ``fit``.
    """
    fitter = ThresholdFitter(
        method, target=target, attributes=attributes, min_count=min_count, shrinkage=shrinkage, towards=towards
    )
    part = table[table["split"] == split]
    return fitter.fit(part["label"] == positive_label, part[score_column], part, split=split)


def _fitter_problems(attributes: Sequence[str], min_count: int, shrinkage: float, towards: str) -> Iterator[str]:
    if isinstance(attributes, str) or len(set(attributes)) < len(attributes):
        yield f"option 'attributes': expected a list of columns, each once, got {attributes!r}"
    if min_count < 1:
        yield f"option 'min_count': expected at least 1, got {min_count}"
    if not 0 <= shrinkage < math.inf:
        yield f"option 'shrinkage': expected a number of cases, at least 0, got {shrinkage}"
    if towards not in get_args(Towards):
        yield f"option 'towards': expected {' or '.join(get_args(Towards))}, got '{towards}'"


def _rows_sha256(positive: BoolArray, value: FloatArray, levels: Sequence[tuple[str, ...]]) -> str:
    """Return the hash of the rows, brought into one order."""
    distinct = sorted(set(levels))
    index = {level: code for code, level in enumerate(distinct)}
    rows = np.array([[index[level] for level in levels], positive, value], dtype="<f8")
    return fingerprint([distinct, hashlib.sha256(rows[:, np.lexsort(rows)].tobytes()).hexdigest()])


def _counts(positive: BoolArray) -> tuple[int, int]:
    return int(positive.sum()), int((~positive).sum())
