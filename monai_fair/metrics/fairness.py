"""Fairness metrics over arrays: the gaps that are known by a name, and FATE."""

import numpy as np
import numpy.typing as npt

from monai_fair.metrics.arrays import FloatArray, IntArray
from monai_fair.metrics.by_group import group_values
from monai_fair.metrics.gaps import group_gap


def equalized_odds_difference(y: npt.ArrayLike, y_pred: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    """Return ``max(max TPR - min TPR, max FPR - min FPR)`` over groups.

    0 means that groups have the same TPR and the same FPR, 1 that one of the two could not differ more.

    Args:
        y: 0 or 1 per sample, shape ``(N,)``.
        y_pred: 0 or 1 per sample, shape ``(N,)``.
        groups: group of each sample, length ``N``.

    Returns:
        Value in [0, 1]; NaN where a group has no positive or no negative, because its rate is undefined then.

    References:
        Hardt, Price and Srebro, Equality of opportunity in supervised learning, NeurIPS 2016; the larger of the two
        gaps as in fairlearn's ``equalized_odds_difference``, and FairREAD's dEO.
    """
    return max_or_nan(_gap("tpr", y, y_pred, groups), _gap("fpr", y, y_pred, groups))


def equal_opportunity_difference(
    y: npt.ArrayLike, y_pred: npt.ArrayLike, groups: npt.ArrayLike, *, label: int = 1
) -> float:
    """Return ``max - min`` over groups of the share of class ``label`` that is predicted right.

    Args:
        y: 0 or 1 per sample, shape ``(N,)``.
        y_pred: 0 or 1 per sample, shape ``(N,)``.
        groups: group of each sample, length ``N``.
        label: 1 for the TPR gap (dEOpp1), 0 for the TNR gap (dEOpp0).

    Returns:
        Value in [0, 1]; NaN where a group has no sample of the class.

    Raises:
        ValueError: if ``label`` is not 0 or 1.
    """
    if label not in (0, 1):
        raise ValueError(f"expected label 0 or 1, got {label}")
    return _gap("tpr" if label else "tnr", y, y_pred, groups)


def demographic_parity_difference(y_pred: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    """Return ``max - min`` over groups of the share that is predicted positive.

    0 means that groups are called positive equally often, whatever their prevalence.

    Args:
        y_pred: 0 or 1 per sample, shape ``(N,)``.
        groups: group of each sample, length ``N``.

    Returns:
        Value in [0, 1].
    """
    return _gap("selection_rate", np.zeros(np.shape(y_pred), dtype=np.bool_), y_pred, groups)


def auc_gap(y: npt.ArrayLike, score: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    """Return ``max - min`` over groups of the AUC (dAUC); NaN where a group has one class only.

    Args:
        y: 0 or 1 per sample, shape ``(N,)``.
        score: higher means more positive, shape ``(N,)``.
        groups: group of each sample, length ``N``.
    """
    return _gap("auc", y, score, groups)


def max_or_nan(*gaps: float) -> float:
    """Return the largest gap; NaN if any is, wherever it stands."""
    return float(np.max(np.array(gaps)))


def _gap(name: str, y: npt.ArrayLike, score: npt.ArrayLike, groups: npt.ArrayLike) -> float:
    codes: IntArray
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    size = int(codes.max()) + 1 if codes.size else 0
    values = group_values(name, np.asarray(y).astype(np.bool_), np.asarray(score, dtype=np.float64), codes, size)
    # A NaN among the values makes the gap NaN: no group is left out in silence.
    return float(group_gap(values, np.ones(size, dtype=np.bool_)))


def fate(
    performance: npt.ArrayLike,
    baseline_performance: npt.ArrayLike,
    unfairness: npt.ArrayLike,
    baseline_unfairness: npt.ArrayLike,
    *,
    weight: float = 1.0,
) -> FloatArray:
    """Return FATE, ``(P - P_b) / P_b - weight (U - U_b) / U_b``, of a run against a baseline run.

    Above 0, what is gained in the gap outweighs, in relative terms, what is lost in performance; 0 is the baseline.
    Compute it per seed or fold and average then: averages of P and U first give other numbers.

    Args:
        performance: P, accuracy or AUC of the run, any shape.
        baseline_performance: P_b of the baseline.
        unfairness: U, a gap such as the equalized odds difference.
        baseline_unfairness: U_b of the baseline.
        weight: lambda.

    Returns:
        Values of the same shape; NaN where P_b or U_b is 0.

    References:
        Xu et al., FairAdaBN, MICCAI 2023 (Fairness-Accuracy Trade-off Efficiency).
    """
    p, p_b, u, u_b = (
        np.asarray(part, dtype=np.float64)
        for part in (performance, baseline_performance, unfairness, baseline_unfairness)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (p - p_b) / p_b - weight * (u - u_b) / u_b
    return np.where((p_b == 0) | (u_b == 0), np.nan, value)
