"""Decision thresholds, chosen on validation data only."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.errors import MonaiFairError


def youden_threshold(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Return the threshold that makes Youden's index ``TPR - FPR`` largest.

    ``score >= threshold`` is positive. Candidates are the observed scores; among equals the smallest one is
    taken, which is the one with the highest TPR. The index is compared in whole numbers, so equals are equal.

    Args:
        y: 0 or 1 per sample, shape ``(N,)``.
        score: shape ``(N,)``.

    Returns:
        One of the scores; NaN when there is no positive or no negative.

    Raises:
        ValueError: if the shapes differ.

    References:
        Youden, Index for rating diagnostic tests, Cancer 1950.
    """
    positive, value = np.asarray(y).astype(np.bool_), np.asarray(score, dtype=np.float64)
    if positive.shape != value.shape:
        raise ValueError(f"expected y and score of one shape, got {positive.shape} and {value.shape}")
    n_positive = int(positive.sum())
    n_negative = positive.size - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    candidates, inverse = np.unique(value, return_inverse=True)
    positives_at = np.bincount(inverse, positive, minlength=candidates.size).astype(np.int64)
    all_at = np.bincount(inverse, minlength=candidates.size)
    true_positives = positives_at[::-1].cumsum()[::-1]
    false_positives = (all_at - positives_at)[::-1].cumsum()[::-1]
    index = true_positives * n_negative - false_positives * n_positive
    return float(candidates[np.argmax(index)])


def fit_threshold(
    table: pd.DataFrame, score_column: str = "score", *, positive_label: int = 1, split: str = "val"
) -> tuple[float, str]:
    """Choose the Youden threshold on one part of a predictions table.

    Args:
        table: columns ``split``, ``label`` and ``score_column``.
        score_column: the score of ``positive_label``.
        positive_label: the class that counts as positive.
        split: the part to fit on; the test part is refused.

    Returns:
        The threshold and an empty reason, or NaN and the reason why there is none.

    Raises:
        MonaiFairError: if asked to fit on the test part.
    """
    if split == "test":
        raise MonaiFairError(
            "threshold: expected a split other than 'test' to fit on, got 'test'; a threshold fitted on the "
            "cases it is judged on looks better than it is, use 'val'"
        )
    part = table[table["split"] == split]
    if not len(part):
        return float("nan"), f"no rows with split '{split}' to choose a threshold on"
    threshold = youden_threshold(part["label"] == positive_label, part[score_column])
    if np.isnan(threshold):
        return threshold, f"the rows with split '{split}' have one class only"
    return threshold, ""
