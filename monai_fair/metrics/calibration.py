"""Metrics of scores taken as probabilities, from score counts and the scores they stand for.

Score counts have shape ``(..., 2, K)``, indexed ``[y, k]``; see :mod:`monai_fair.metrics.ranking`.
"""

import numpy as np
from scipy.special import expit, logit

from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray

ECE_BINS = 10
# Scores of exactly 0 or 1 have no logit; they count as this far inside.
_LOGIT_MARGIN = 1e-6
_STEPS, _TOLERANCE = 100, 1e-10


def brier_score(counts: FloatArray, scores: FloatArray) -> FloatArray:
    """Return the mean squared distance of score and truth: 0 is exact, 1 always exactly wrong; NaN without a case.

    A model that always says the prevalence p has p (1 - p), so groups of different prevalence differ in it.

    Args:
        counts: score counts, shape ``(..., 2, K)``.
        scores: shape ``(K,)``, in [0, 1].

    Returns:
        Values in [0, 1], shape ``(...)``.

    References:
        Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 1950.
    """
    loss = counts[..., 0, :] @ scores**2 + counts[..., 1, :] @ (1 - scores) ** 2
    with np.errstate(invalid="ignore"):
        return np.asarray(loss / counts.sum(axis=(-2, -1)))


def ece_bins(scores: FloatArray, num_bins: int = ECE_BINS) -> IntArray:
    """Return the bin of each score: equal widths over 0 to 1, a score on an edge in the lower bin.

    Args:
        scores: shape ``(K,)``, in [0, 1].
        num_bins: number of bins.

    Returns:
        Indices from 0 to ``num_bins - 1``, shape ``(K,)``.
    """
    return np.searchsorted(np.linspace(0, 1, num_bins + 1)[1:-1], scores, side="left")


def expected_calibration_error(counts: FloatArray, scores: FloatArray, *, num_bins: int = ECE_BINS) -> FloatArray:
    """Return the mean over cases of |share of positives - mean score| in the case's bin of scores.

    0 means that in every bin the scores are right on average, 1 that they are always exactly wrong; NaN without a
    case. It is above 0 for a calibrated model too, the more so the fewer cases: read it beside what chance gives.

    Args:
        counts: score counts, shape ``(..., 2, K)``.
        scores: shape ``(K,)``, in [0, 1], ascending.
        num_bins: number of bins of equal width between 0 and 1.

    Returns:
        Values in [0, 1], shape ``(...)``.

    References:
        Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015, with fixed bins.
    """
    # In a bin, cases times |share of positives - mean score| is |positives - sum of scores|.
    surplus = counts[..., 1, :] * (1 - scores) - counts[..., 0, :] * scores
    starts = np.flatnonzero(np.diff(ece_bins(scores, num_bins), prepend=-1))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(np.add.reduceat(surplus, starts, axis=-1)).sum(axis=-1) / counts.sum(axis=(-2, -1)))


def calibration_intercept(counts: FloatArray, scores: FloatArray) -> FloatArray:
    """Return a of ``logit P(y = 1) = a + logit(score)``: calibration in the large.

    0 means that the scores are right on average; above 0 that they are too low, below 0 too high, in units of the
    logit. NaN without both classes. Scores of 0 and 1 are moved inside by 1e-6.

    Args:
        counts: score counts, shape ``(..., 2, K)``.
        scores: shape ``(K,)``, in [0, 1].

    Returns:
        Values, shape ``(...)``.

    References:
        Cox, Two further applications of a model for binary regression, Biometrika 1958; Van Calster et al.,
        Calibration: the Achilles heel of predictive analytics, BMC Medicine 2019.
    """
    flat = counts.reshape(-1, *counts.shape[-2:])
    x = _logits(scores)
    result = np.full(len(flat), np.nan)
    active = np.flatnonzero((flat.sum(axis=-1) > 0).all(axis=-1))
    estimate = np.zeros(active.size)
    positives = flat[..., 1, :].sum(axis=-1)
    totals = flat.sum(axis=-2)
    for _ in range(_STEPS):
        p = expit(estimate[:, None] + x)
        weight = totals[active]
        step = (positives[active] - (weight * p).sum(axis=-1)) / (weight * p * (1 - p)).sum(axis=-1)
        estimate += np.clip(step, -2, 2)
        done = np.abs(step) < _TOLERANCE
        result[active[done]] = estimate[done]
        active, estimate = active[~done], estimate[~done]
        if not active.size:
            break
    return result.reshape(counts.shape[:-2])


def calibration_slope(counts: FloatArray, scores: FloatArray) -> FloatArray:
    """Return b of ``logit P(y = 1) = a + b logit(score)``.

    1 means that scores are as spread as they should be; below 1 that they are too extreme, above 1 too timid, 0 that
    they say nothing. NaN without both classes, where all scores are equal, and where they separate the classes (b is
    infinite then). Scores of 0 and 1 are moved inside by 1e-6.

    Args:
        counts: score counts, shape ``(..., 2, K)``.
        scores: shape ``(K,)``, in [0, 1], ascending.

    Returns:
        Values, shape ``(...)``.

    References:
        See :func:`calibration_intercept`.
    """
    flat = counts.reshape(-1, *counts.shape[-2:])
    x = _logits(scores)
    result = np.full(len(flat), np.nan)
    active = np.flatnonzero(_overlap(flat, x))
    totals, positive = flat.sum(axis=-2), flat[:, 1, :]
    # a and b; from a slope of 1, saturated scores would have no curvature and the fit would not converge.
    estimate = np.zeros((2, active.size))
    for _ in range(_STEPS):
        weight, hits = totals[active], positive[active]
        p = expit(estimate[0][:, None] + estimate[1][:, None] * x)
        score0, score1 = (hits - weight * p).sum(axis=-1), (hits - weight * p) @ x
        curve = weight * p * (1 - p)
        i00, i01, i11 = curve.sum(axis=-1), curve @ x, curve @ x**2
        determinant = i00 * i11 - i01**2
        step = np.stack([i11 * score0 - i01 * score1, i00 * score1 - i01 * score0]) / determinant
        # Far from the optimum a full step may overshoot; near it the cap does nothing.
        estimate += step / np.maximum(1.0, np.abs(step).max(axis=0) / 2)
        done = (np.abs(step) < _TOLERANCE * (1 + np.abs(estimate))).all(axis=0)
        result[active[done]] = estimate[1][done]
        active, estimate = active[~done], estimate[:, ~done]
        if not active.size:
            break
    return result.reshape(counts.shape[:-2])


def calibration_influence(name: str, y: BoolArray, score: FloatArray, group: IntArray, value: FloatArray) -> FloatArray:
    """Return how much each sample moves the calibration intercept or slope of its group.

    Sums of squares of it, or of its sums over subjects, are the sandwich variance.

    Args:
        name: ``calibration_intercept`` or ``calibration_slope``.
        y: True for positive, shape ``(N,)``.
        score: in [0, 1], shape ``(N,)``.
        group: index of each sample's group or -1, shape ``(N,)``.
        value: the quantity in every group, shape ``(G,)``.

    Returns:
        Influence, shape ``(N,)``; NaN where the quantity is undefined, 0 for a sample of no group.

    References:
        Huber, The behavior of maximum likelihood estimates under nonstandard conditions, 1967.
    """
    x, inside = _logits(score)[group >= 0], group >= 0
    codes, hit = group[inside], y[inside].astype(np.float64)
    influence = np.zeros(y.size)
    if name == "calibration_intercept":
        p = expit(value[codes] + x)
        influence[inside] = (hit - p) / _sum(codes, p * (1 - p), value.size)[codes]
        return influence
    p = expit(_intercepts(codes, hit, x, value)[codes] + value[codes] * x)
    curve = p * (1 - p)
    i00, i01, i11 = (_sum(codes, curve * x**power, value.size) for power in (0, 1, 2))
    slope = (i00[codes] * x - i01[codes]) / (i00 * i11 - i01**2)[codes]
    influence[inside] = slope * (hit - p)
    return influence


def _sum(codes: IntArray, value: FloatArray, size: int) -> FloatArray:
    return np.asarray(np.bincount(codes, value, minlength=size), dtype=np.float64)


def _intercepts(codes: IntArray, hit: FloatArray, x: FloatArray, slope: FloatArray) -> FloatArray:
    """Intercept of every group beside its slope."""
    intercept = np.where(np.isnan(slope), np.nan, 0.0)
    positives, offset = _sum(codes, hit, slope.size), slope[codes] * x
    for _ in range(_STEPS):
        p = expit(intercept[codes] + offset)
        with np.errstate(invalid="ignore", divide="ignore"):  # where all p have come to 0 or 1
            step = (positives - _sum(codes, p, slope.size)) / _sum(codes, p * (1 - p), slope.size)
        intercept = intercept + np.clip(step, -2, 2)
        if not (np.abs(step) > _TOLERANCE).any():
            break
    return intercept


def error_of_calibrated_scores(counts: FloatArray, scores: FloatArray, *, num_bins: int = ECE_BINS) -> FloatArray:
    """Return what the expected calibration error is on average where the scores are exactly right.

    Each case is then positive with the probability of its score; the surplus of a bin is normal by the central
    limit theorem, and the mean of its absolute value is sqrt(2 variance / pi).

    Args:
        counts: score counts, shape ``(..., 2, K)``.
        scores: shape ``(K,)``, in [0, 1], ascending.
        num_bins: as in :func:`expected_calibration_error`.

    Returns:
        Values in [0, 1], shape ``(...)``.

    References:
        Bröcker and Smith, Increasing the reliability of reliability diagrams, Weather and Forecasting 2007.
    """
    total = counts.sum(axis=-2)
    starts = np.flatnonzero(np.diff(ece_bins(scores, num_bins), prepend=-1))
    variance = np.add.reduceat(total * scores * (1 - scores), starts, axis=-1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(2 / np.pi * variance).sum(axis=-1) / total.sum(axis=-1))


def _logits(scores: FloatArray) -> FloatArray:
    return np.asarray(logit(np.clip(scores, _LOGIT_MARGIN, 1 - _LOGIT_MARGIN)))


def _overlap(counts: FloatArray, x: FloatArray) -> BoolArray:
    """Rows in which each class has a logit strictly above one of the other class: the fit is finite then."""
    ends = []
    for label in (0, 1):
        there = counts[:, label, :] > 0
        ends.append((np.where(there, x, np.inf).min(axis=-1), np.where(there, x, -np.inf).max(axis=-1)))
    (low0, high0), (low1, high1) = ends
    return np.asarray((low1 < high0) & (low0 < high1))
