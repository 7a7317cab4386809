"""Labels and predictions as rows of probabilities over the same classes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from monai_fair.errors import MonaiFairError

FloatArray = npt.NDArray[np.float64]
_TOLERANCE = 1e-3  # probabilities that were written with few digits add up to 1 no better


def class_names(y: Any, num_classes: int | None) -> npt.NDArray[Any]:
    """Return the classes of labels: the columns, the indices that predictions have columns for, or all values.

    Args:
        y: labels, shape ``(n,)``, or probabilities, shape ``(n, C)``.
        num_classes: number of columns of the predictions; ``None`` without predictions.

    Raises:
        MonaiFairError: if labels are numbers that are not whole, or have other columns than the predictions.
    """
    labels = np.asarray(y)
    if labels.ndim == 1:
        if labels.dtype.kind == "f" and not np.equal(labels, np.floor(labels)).all():
            raise MonaiFairError("y: expected labels of classes, got numbers that are missing or not whole")
        return np.unique(labels) if num_classes is None else np.arange(num_classes)
    columns = labels.shape[-1]
    if num_classes is not None and columns != num_classes:
        raise MonaiFairError(f"y_prob: expected {columns} columns as in y, got {num_classes}")
    return np.arange(columns)


def label_shares(y: Any, classes: npt.NDArray[Any], n: int) -> FloatArray:
    """Return one row of probabilities per label.

    Args:
        y: labels, shape ``(n,)``, or probabilities, shape ``(n, C)``.
        classes: shape ``(C,)``, ascending.
        n: number of rows there must be.

    Raises:
        MonaiFairError: if the length differs, a label is none of the classes, or a row does not add up to 1.
    """
    labels = np.asarray(y)
    if labels.ndim == 2:
        return _checked(labels, n, len(classes), "y")
    _check_length(labels, n, "y", "(n,) or (n, C)")
    strange = ~np.isin(labels, classes)
    if strange.any():
        row = int(np.flatnonzero(strange)[0])
        raise MonaiFairError(
            f"y: expected one of the classes {', '.join(map(str, classes))}, got {labels[row]} in row {row}; "
            f"{int(strange.sum())} of {n} rows have a label that is none of them"
        )
    return np.asarray(np.eye(len(classes))[np.searchsorted(classes, labels)])


def prediction_shares(y_prob: Any, num_classes: int | None, n: int) -> FloatArray:
    """Return one row of probabilities per prediction.

    Args:
        y_prob: score of the second of two classes, shape ``(n,)``, or probabilities, shape ``(n, C)``.
        num_classes: number of columns there must be; ``None`` for any.
        n: number of rows there must be.

    Raises:
        MonaiFairError: if the shape differs or a row does not add up to 1.
    """
    scores = np.asarray(y_prob)
    if scores.ndim == 1:
        scores = np.stack([1 - scores, scores], axis=1)
    return _checked(scores, n, num_classes, "y_prob")


def _checked(shares: npt.NDArray[Any], n: int, columns: int | None, name: str) -> FloatArray:
    if shares.ndim != 2 or (columns is not None and shares.shape[1] != columns):
        wanted = "C" if columns is None else columns
        raise MonaiFairError(f"{name}: expected shape (n,) or (n, {wanted}), got {shares.shape}")
    _check_length(shares, n, name, f"(n, {shares.shape[1]})")
    found = shares.astype(np.float64)
    wrong = ~((found >= 0).all(axis=1) & (np.abs(found.sum(axis=1) - 1) <= _TOLERANCE))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise MonaiFairError(
            f"{name}: expected probabilities in [0, 1] that add up to 1, got {found[row].tolist()} in row {row}; "
            f"{int(wrong.sum())} of {n} rows are not"
        )
    return found


def _check_length(values: npt.NDArray[Any], n: int, name: str, shape: str) -> None:
    if values.ndim == 0 or len(values) != n:
        raise MonaiFairError(f"{name}: expected shape {shape} with n = {n}, one row per row of X, got {values.shape}")
