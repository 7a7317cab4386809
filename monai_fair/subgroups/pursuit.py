"""Projection pursuit around places: the direction of neighbouring columns in which a population has two modes.

Two modes have a low kurtosis. One column shows a local effect through its own noise and through all that varies
smoothly around it; a combination of neighbours shows it much better, and kurtosis finds that combination.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import kurtosis

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_FLAT = 1e-12  # range of a column over its size, below which it is rounding
_RANK = 1e-10  # variance of a component over the largest, below which it is rounding
_SETTLED = 1e-6


def excess_kurtosis(values: FloatArray) -> FloatArray:
    """Return the excess kurtosis of every column: 0 of a normal one, -2 of two equal points, its least.

    Two equal normal populations whose means are d standard deviations apart have ``-2 (d^2 / 4)^2 / (1 + d^2 / 4)^2``.

    Args:
        values: shape ``(n, d)``. A column without variance gets infinity, so that it is never the lowest.
    """
    found = np.full(values.shape[1], np.inf)
    varies = np.ptp(values, axis=0) > _FLAT * np.abs(values).max(axis=0)
    found[varies] = kurtosis(values[:, varies])
    return found


@dataclass(frozen=True, eq=False)
class Pursuit:
    """The direction of lowest kurtosis.

    Attributes:
        place: column it was started from.
        kurtosis: excess kurtosis of the projection; infinite when no column varies.
        axis: of all columns, zero outside the neighbourhood, shape ``(d,)``; projections have variance 1, and a
            column that does not vary counts for nothing.
    """

    place: int
    kurtosis: float
    axis: FloatArray


def pursue(
    values: FloatArray,
    neighbours: Callable[[int], IntArray],
    *,
    n_components: int,
    n_starts: int,
    max_iter: int = 30,
) -> Pursuit:
    """Return the direction of lowest kurtosis among those around the most promising places.

    The ``n_starts`` columns of lowest kurtosis are starts. Around each, the leading principal components of its
    neighbours, all scaled to variance 1, are whitened, and the fixed-point iteration of FastICA goes down from the
    column itself and from each component.

    Args:
        values: rows, shape ``(n, d)``.
        neighbours: from a column to those around it, itself among them.
        n_components: principal components of a neighbourhood. With more of them the kurtosis of one population falls
            too, because there is more to choose from. 0 looks at single columns only.
        n_starts: columns to start from.
        max_iter: most steps from each.

    References:
        Hyvarinen, Fast and robust fixed-point algorithms for independent component analysis, IEEE TNN 1999,
        doi:10.1109/72.761722 (with the cubic nonlinearity); Pena and Prieto, Cluster identification using
        projections, JASA 2001, doi:10.1198/016214501750333345 (low kurtosis as a sign of two clusters).
    """
    by_column = excess_kurtosis(values)
    varies = np.isfinite(by_column)
    scale = np.where(varies, 1 / np.where(varies, values.std(axis=0), 1.0), 0.0)
    scaled = (values - values.mean(axis=0)) * scale
    first = int(by_column.argmin())
    alone = Pursuit(first, float(by_column[first]), np.where(np.arange(len(scale)) == first, scale, 0.0))
    places = [place for place in np.argsort(by_column, kind="stable")[:n_starts].tolist() if varies[place]]
    if not (n_components and places):
        return alone
    around = [neighbours(place) for place in places]
    lowest, which, local = _descend(
        [_white(scaled[:, near], n_components) for near in around], scaled[:, places], max_iter
    )
    if lowest >= alone.kurtosis:
        return alone
    axis = np.zeros_like(scale)
    axis[around[which]] = local * scale[around[which]]
    return Pursuit(places[which], lowest, axis)


def pursuit_p(
    values: FloatArray, lowest: float, look: Callable[[FloatArray], Pursuit], *, draws: int, random: Any
) -> float:
    """Return how often one normal population of the same covariance has a direction with so low a kurtosis.

    The null rows are random mixtures of the observed ones, which have the observed covariance on average; so the
    number of places, the choice of a direction, and that neighbours tell nearly the same, are in the p.

    Args:
        values: the observed rows, shape ``(n, d)``.
        lowest: the kurtosis to compare with.
        look: :func:`pursue` with its options.
        draws: number of null populations.
        random: a ``numpy.random.RandomState``.

    Returns:
        A p value from ``1 / (draws + 1)`` to 1; NaN without draws.

    References:
        Phipson and Smyth, Permutation p-values should never be zero, SAGMB 2010, doi:10.2202/1544-6115.1585.
    """
    if not draws:
        return float("nan")
    centred = (values - values.mean(axis=0)) / np.sqrt(len(values))
    reached = sum(
        look(random.standard_normal((len(values), len(values))) @ centred).kurtosis <= lowest for _ in range(draws)
    )
    return (1 + reached) / (1 + draws)


def _white(near: FloatArray, n_components: int) -> tuple[FloatArray, FloatArray]:
    """Return the leading components of a neighbourhood in units of their spread, and how columns combine to them."""
    variances, vectors = np.linalg.eigh(near.T @ near / len(near))
    kept = np.flatnonzero(variances > _RANK * variances[-1])[-n_components:]
    whitening = vectors[:, kept] / np.sqrt(variances[kept])
    return near @ whitening, whitening


def _descend(
    neighbourhoods: list[tuple[FloatArray, FloatArray]], starts: FloatArray, max_iter: int
) -> tuple[float, int, FloatArray]:
    """Return the lowest kurtosis on all ways down, in which neighbourhood, and its direction in the columns there.

    The neighbourhoods go down together: one at a time, most of the time would be spent between small products.
    """
    count, most = len(starts), max(white.shape[1] for white, _ in neighbourhoods)
    white = np.zeros((len(neighbourhoods), count, most))
    ways = np.zeros((len(neighbourhoods), most, most + 1))
    for place, (own, _) in enumerate(neighbourhoods):
        width = own.shape[1]
        white[place, :, :width] = own
        # a way may end at another stationary point than the lowest, so each component is a start too
        ways[place, :width] = np.column_stack([own.T @ starts[:, place], np.eye(width, most)])
    ways = _unit(ways)
    absent = ~ways.any(axis=1)  # of neighbourhoods with fewer components
    lowest, which, found = np.inf, 0, ways[0, :, 0]
    for _ in range(max_iter):
        points = white @ ways
        squares = np.square(points)
        fourth = np.where(absent, np.inf, np.square(squares).sum(axis=1) / count - 3)
        place, way = divmod(int(fourth.argmin()), fourth.shape[1])
        if fourth[place, way] < lowest:
            lowest, which, found = float(fourth[place, way]), place, ways[place, :, way]
        following = _unit(3 * ways - white.transpose(0, 2, 1) @ (squares * points) / count)
        settled = np.abs((following * ways).sum(axis=1)) > 1 - _SETTLED
        if (settled | absent).all():
            break
        ways = following
    whitening = neighbourhoods[which][1]
    return lowest, which, whitening @ found[: whitening.shape[1]]


def _unit(directions: FloatArray) -> FloatArray:
    """Scale columns to length 1, and leave those of zeros."""
    lengths = np.sqrt(np.square(directions).sum(axis=-2, keepdims=True))
    return np.asarray(directions / np.maximum(lengths, np.finfo(np.float64).tiny))
