"""One step of expectation and one of maximisation of a mixture of diagonal normals with categorical factors.

Everything is a product of matrices over chunks of rows. A product loses digits where a component is narrow and far
from the middle of all rows (the square of a mean less a square of nearly the same size), so such components, which are
few, are centred on their own mean instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
_CHUNK = 1 << 20  # numbers of a chunk: 8 MB
_FAR = 1e4  # squared distance from the middle, in variances, at which a product of matrices loses four of 16 digits
_EMPTY = 1e-8  # rows: a component that holds less has nothing to estimate from
_SMALLEST = 1e-300  # a class never seen in a component has a probability of 0, whose logarithm must stay finite
_EPSILON = 10 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class Factor:
    """Classes of the rows, or probabilities of classes, and how much they count.

    Attributes:
        shares: one row of probabilities per sample, shape ``(n, C)``.
        weight: exponent of the factor in the likelihood; 0 leaves it out there.
    """

    shares: FloatArray
    weight: float


@dataclass(frozen=True)
class Parameters:
    """Of a mixture of K components over d columns.

    Attributes:
        weights: shape ``(K,)``, sum 1.
        means: shape ``(K, d)``.
        variances: shape ``(K, d)``, positive.
        probabilities: one array ``(K, C)`` per factor.
    """

    weights: FloatArray
    means: FloatArray
    variances: FloatArray
    probabilities: tuple[FloatArray, ...]


def expect(x: FloatArray, factors: Sequence[Factor], parameters: Parameters) -> tuple[FloatArray, FloatArray]:
    """Return what each component has to do with each row.

    The likelihood of a row is ``sum_s pi_s N(x; mu_s, diag v_s) prod_f (shares_f . p_fs)^weight_f``.

    Args:
        x: rows, centred so that their mean is about 0, shape ``(n, d)``.
        factors: as many as ``parameters.probabilities``.
        parameters: means centred like the rows.

    Returns:
        Responsibilities, shape ``(n, K)``, each row with sum 1; and the log likelihood of each row, shape ``(n,)``.
    """
    responsibilities = np.empty((len(x), len(parameters.weights)))
    log_likelihood = np.empty(len(x))
    for rows in _chunks(x):
        joint = _log_normal(x[rows], parameters) + np.log(parameters.weights)
        for factor, probability in zip(factors, parameters.probabilities, strict=True):
            if factor.weight > 0:
                joint += factor.weight * np.log(np.maximum(factor.shares[rows] @ probability.T, _SMALLEST))
        peak = joint.max(axis=1, keepdims=True)
        np.exp(joint - peak, out=joint)
        total = joint.sum(axis=1, keepdims=True)
        np.divide(joint, total, out=responsibilities[rows])
        log_likelihood[rows] = (np.log(total) + peak)[:, 0]
    return responsibilities, log_likelihood


def maximise(
    x: FloatArray,
    factors: Sequence[Factor],
    responsibilities: FloatArray,
    *,
    reg_covar: float,
    previous: Parameters | None = None,
) -> Parameters:
    """Return weighted means, variances and probabilities of each component.

    Args:
        x: rows, centred, shape ``(n, d)``.
        factors: of the rows.
        responsibilities: shape ``(n, K)``.
        reg_covar: added to every variance.
        previous: what a component without rows keeps; without it such a component gets the values of all rows.
    """
    counts = responsibilities.sum(axis=0)
    share = responsibilities.T / (counts + _EPSILON)[:, None]
    means = share @ x
    squares = np.zeros_like(means)
    for rows in _chunks(x):
        squares += share[:, rows] @ np.square(x[rows])
    variances = np.maximum(squares - np.square(means), 0) + reg_covar
    for component in _far(means, variances):
        centred = (share[component, rows] @ np.square(x[rows] - means[component]) for rows in _chunks(x))
        variances[component] = sum(centred) + reg_covar
    probabilities = [share @ factor.shares for factor in factors]
    empty = counts < _EMPTY
    if empty.any():
        kept = previous or _of_all_rows(x, factors, len(counts), reg_covar)
        means[empty], variances[empty] = kept.means[empty], kept.variances[empty]
        for probability, old in zip(probabilities, kept.probabilities, strict=True):
            probability[empty] = old[empty]
    weights = (counts + _EPSILON) / (counts + _EPSILON).sum()
    return Parameters(weights, means, variances, tuple(probabilities))


def _of_all_rows(x: FloatArray, factors: Sequence[Factor], count: int, reg_covar: float) -> Parameters:
    same = maximise(x, factors, np.full((len(x), 1), 1.0), reg_covar=reg_covar)
    return Parameters(
        np.full(count, 1 / count),
        np.repeat(same.means, count, axis=0),
        np.repeat(same.variances, count, axis=0),
        tuple(np.repeat(probability, count, axis=0) for probability in same.probabilities),
    )


def _log_normal(x: FloatArray, parameters: Parameters) -> FloatArray:
    """Log density of each row in each component, shape ``(n, K)``."""
    means, variances = parameters.means, parameters.variances
    constant = -0.5 * (means.shape[1] * np.log(2 * np.pi) + np.log(variances).sum(axis=1))
    found: FloatArray = np.square(x) @ (-0.5 / variances).T
    found += x @ (means / variances).T
    found += constant - 0.5 * (np.square(means) / variances).sum(axis=1)
    for component in _far(means, variances):
        squares = np.square(x - means[component])
        found[:, component] = constant[component] - 0.5 * squares @ (1 / variances[component])
    return found


def _far(means: FloatArray, variances: FloatArray) -> npt.NDArray[np.int64]:
    return np.flatnonzero((np.square(means) > _FAR * variances).any(axis=1))


def _chunks(x: FloatArray) -> Iterator[slice]:
    step = max(1, _CHUNK // max(1, x.shape[1]))
    return (slice(start, start + step) for start in range(0, len(x), step))
