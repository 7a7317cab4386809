"""Intervals for rates over cases, and for means over seeds."""

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

from monai_fair.metrics.arrays import FloatArray


def wilson_interval(
    successes: npt.ArrayLike, trials: npt.ArrayLike, *, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Return the Wilson score interval of each rate ``successes / trials``.

    Covers 94 to 96 % at a nominal 95 % already with 20 trials, where a percentile bootstrap does not.
    Undefined (NaN) where there is no trial.

    Args:
        successes: counts in ``[0, trials]``, any shape; the mean of counts over seeds may be fractional.
        trials: number of trials, broadcast against ``successes``.
        confidence: probability in (0, 1).

    Returns:
        Lower and upper ends, in [0, 1].

    Raises:
        ValueError: if a count is outside ``[0, trials]``.

    References:
        Wilson, Probable inference, the law of succession, and statistical inference, JASA 1927,
        doi:10.1080/01621459.1927.10502953, in the form of Brown, Cai and DasGupta, Statistical Science 2001,
        doi:10.1214/ss/1009213286, eq. (4).
    """
    hits = np.asarray(successes, dtype=np.float64)
    n = np.asarray(trials, dtype=np.float64)
    if np.any((hits < 0) | (hits > n)):
        raise ValueError(f"expected successes from 0 to the number of trials, got {hits} of {n}; check the counts")
    z = norm.ppf(0.5 + confidence / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = hits / n
        centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    # At a rate of 0 or 1 the end is exact on paper; rounding must not move it.
    low = np.where(hits == 0, np.where(n > 0, 0.0, np.nan), centre - half)
    high = np.where((hits == n) & (n > 0), 1.0, centre + half)
    return low, high


def mean_of_rates_interval(
    first: tuple[FloatArray, FloatArray, FloatArray], second: tuple[FloatArray, FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Return the interval of the mean of two independent rates from their values and intervals.

    For balanced accuracy: TPR and TNR come from different cases.

    Args:
        first: value, lower and upper end of one rate, each of any shape.
        second: of the other.

    Returns:
        Lower and upper ends.

    References:
        Zou and Donner, Construction of confidence limits about effect measures: a general approach, Statistics in
        Medicine 2008 (MOVER).
    """
    (p, p_low, p_high), (q, q_low, q_high) = first, second
    mean = (p + q) / 2
    return (
        np.asarray(mean - np.hypot(p - p_low, q - q_low) / 2),
        np.asarray(mean + np.hypot(p_high - p, q_high - q) / 2),
    )


def paired_difference_interval(
    first: tuple[FloatArray, FloatArray, FloatArray],
    later: tuple[FloatArray, FloatArray, FloatArray],
    correlation: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return the interval of ``later - first`` from the values and intervals of two correlated estimates.

    For two runs on the same cases. It keeps what the intervals of the two know of small groups and of rates near 0 and
    1, where resampled differences are too narrow: without a case on which the runs differ they are all 0.

    Args:
        first: value, lower and upper end of one estimate, each of any shape.
        later: of the other.
        correlation: of the two estimates, in [-1, 1], same shape.

    Returns:
        Lower and upper ends.

    References:
        Zou and Donner, Construction of confidence limits about effect measures: a general approach, Statistics in
        Medicine 2008 (MOVER), eq. 3 and 4 with correlation.
    """
    (a, a_low, a_high), (b, b_low, b_high) = first, later
    down, up = _length(b - b_low, a_high - a, correlation), _length(b_high - b, a - a_low, correlation)
    return np.asarray(b - a - down), np.asarray(b - a + up)


def _length(one: FloatArray, other: FloatArray, correlation: FloatArray) -> FloatArray:
    # Rounding may make the square of a zero length negative.
    return np.asarray(np.sqrt(np.maximum(one**2 + other**2 - 2 * correlation * one * other, 0.0)))


def t_interval(
    values: npt.ArrayLike, *, confidence: float = 0.95, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the mean over the first axis (seeds) and its Student t interval.

    The interval says how much the mean would move if training were repeated with other seeds; it knows
    nothing of the cases. With one seed its ends are NaN; a NaN seed makes mean and ends NaN.

    Args:
        values: shape ``(S,)`` or ``(S, ...)``.
        confidence: probability in (0, 1).
        bounds: ends of the quantity's range, such as (0, 1) for a rate; the interval is cut there.

    Returns:
        Mean, lower and upper ends, of shape ``values.shape[1:]``.
    """
    array = np.asarray(values, dtype=np.float64)
    count = array.shape[0]
    mean = array.mean(axis=0)
    if count < 2:
        undefined = np.full(mean.shape, np.nan)
        return mean, undefined, undefined.copy()
    half = t.ppf(0.5 + confidence / 2, count - 1) * array.std(axis=0, ddof=1) / np.sqrt(count)
    return mean, np.clip(mean - half, *bounds), np.clip(mean + half, *bounds)


def student_interval(
    value: FloatArray, standard_error: FloatArray, degrees: npt.ArrayLike, *, confidence: float
) -> tuple[FloatArray, FloatArray]:
    """Return ``value`` plus and minus Student's t times ``standard_error``.

    Args:
        value: any shape.
        standard_error: same shape.
        degrees: of freedom, same shape; below 1 the interval is undefined (NaN).
        confidence: probability in (0, 1).

    Returns:
        Lower and upper ends.
    """
    freedom = np.asarray(degrees, dtype=np.float64)
    half = t.ppf(0.5 + confidence / 2, np.where(freedom >= 1, freedom, np.nan)) * standard_error
    return value - half, value + half
