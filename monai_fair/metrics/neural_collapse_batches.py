"""Batches of features with labels, groups and marks: checked, in float64, a bounded number of rows at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray

# Numbers of a part of a batch: 16 MiB in float64, of which a handful of copies are made at a time.
_PART = 2**21


@dataclass(frozen=True)
class FeatureRows:
    """Some rows of a batch.

    Attributes:
        features: finite rows, shape ``(B, d)``.
        labels: class of each row, shape ``(B,)``.
        names: groups that occur in the batch; the empty text is a missing value.
        codes: index into ``names`` of each row, shape ``(B,)``.
        mislabelled: True for rows whose label is known to be wrong, shape ``(B,)``; ``None`` if that is not known.
        n_not_finite: rows that were left out because a feature is NaN or infinite.
    """

    features: FloatArray
    labels: IntArray
    names: tuple[str, ...]
    codes: IntArray
    mislabelled: BoolArray | None
    n_not_finite: int

    def sums_by_cell(self, values: FloatArray, num_classes: int) -> dict[str, FloatArray]:
        """Return the sums of values over the rows of each group and class, by group.

        Args:
            values: shape ``(B, C)``.
            num_classes: ``K``.

        Returns:
            Group to an array of shape ``(K, C)``, 0 where there is no row.
        """
        cells = self.codes * num_classes + self.labels
        order = np.argsort(cells, kind="stable")
        found, first = np.unique(cells[order], return_index=True)
        sums = np.zeros((len(self.names) * num_classes, values.shape[1]))
        if len(found):
            sums[found] = np.add.reduceat(values[order], first, axis=0)
        return dict(zip(self.names, sums.reshape(len(self.names), num_classes, -1), strict=True))


def feature_rows(
    source: str,
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: Sequence[str] | None = None,
    mislabelled: npt.ArrayLike | None = None,
    *,
    num_classes: int,
    num_features: int,
) -> Iterator[FeatureRows]:
    """Yield a batch in parts of bounded memory.

    Args:
        source: what opens an error message.
        features: shape ``(n, d)``, of any floating type.
        labels: classes from 0, shape ``(n,)`` or ``(n, 1)``.
        groups: group of each row, length ``n``; the empty text is a missing value. ``None``: no row has a group.
        mislabelled: mask of shape ``(n,)``.
        num_classes: ``K``.
        num_features: ``d``.

    Yields:
        Rows in their order.

    Raises:
        MonaiFairError: if shapes do not fit or a label is no class; all problems in one message.
    """
    problems = batch_problems(features, labels, groups, mislabelled, num_classes=num_classes, num_features=num_features)
    raise_problems(MonaiFairError, source, problems)
    hidden, classes = np.asarray(features), np.asarray(labels).reshape(-1)
    mask = None if mislabelled is None else np.asarray(mislabelled)
    names, codes = np.unique(np.asarray([""] if groups is None else groups, dtype=str), return_inverse=True)
    codes = np.broadcast_to(codes.reshape(-1), classes.shape)
    step = max(1, _PART // num_features)
    for start in range(0, len(hidden), step):
        part = slice(start, start + step)
        rows = hidden[part].astype(np.float64)
        finite = np.isfinite(rows).all(axis=1)
        yield FeatureRows(
            rows if finite.all() else rows[finite],
            classes[part][finite].astype(np.int64),
            tuple(names.tolist()),
            codes[part][finite],
            None if mask is None else mask[part][finite],
            int((~finite).sum()),
        )


def batch_problems(
    features: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: Sequence[str] | None,
    mislabelled: npt.ArrayLike | None,
    *,
    num_classes: int,
    num_features: int,
) -> list[str]:
    """Return what does not fit in a batch; arguments as of :func:`feature_rows`."""
    hidden, classes, problems = np.asarray(features), np.asarray(labels), []
    classes = classes[:, 0] if classes.shape[1:] == (1,) else classes
    mask = None if mislabelled is None else np.asarray(mislabelled)
    if hidden.ndim != 2 or hidden.shape[1] != num_features:
        problems.append(
            f"features: expected shape (n, {num_features}), got {hidden.shape}; take the last layer's input"
        )
    n = len(hidden) if hidden.ndim else 0
    if classes.shape != (n,):
        problems.append(f"labels: expected shape ({n},), got {classes.shape}; give one per row of features")
    elif n:
        wrong = ~np.isin(classes, np.arange(num_classes))
        if wrong.any():
            got = f"{classes[wrong][0]} in row {int(wrong.argmax())}"
            more = f"; {int(wrong.sum()) - 1} more rows have others" if wrong.sum() > 1 else ""
            problems.append(f"labels: expected classes 0 to {num_classes - 1}, got {got}{more}; correct them")
    if groups is not None and len(groups) != n:
        problems.append(f"groups: expected {n} names, got {len(groups)}; give one per row, '' where it is missing")
    if mask is not None and (mask.shape != (n,) or mask.dtype != np.bool_):
        problems.append(f"mislabelled: expected {n} truth values, got {mask.dtype} of shape {mask.shape}; give a mask")
    return problems
