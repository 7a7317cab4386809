"""Whether two components have a valley between them in rows that did not place them.

A skewed or heavy-tailed cloud is fitted better by several normals than by one, and held-out likelihood alone would
call its core and its tail two subgroups. What tells two clouds from one is a valley. On the line that tells the two
components apart, windows of one width are laid around each mean and around the lowest point between. If the density
on the line has one peak, the middle window holds at least as much as the poorer of the outer two, whatever its shape.
Held-out rows are counted in the windows, and binomial tests say how surprising so few in the middle would be.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_PLACES = np.linspace(0.2, 0.8, 61)  # where the valley may be, as a share of the way between the means


def window_counts(
    x: FloatArray, responsibilities: FloatArray, held_out: FloatArray, labels: IntArray, variances: FloatArray
) -> IntArray:
    """Count held-out rows between the components of a mixture.

    Args:
        x: rows the mixture was fitted on, shape ``(n, d)``.
        responsibilities: of the components for them, shape ``(n, K)``.
        held_out: other rows, shape ``(m, d)``.
        labels: component of each of the other rows, shape ``(m,)``.
        variances: of the components, shape ``(K, d)``; they weigh the columns.

    Returns:
        Rows around the mean of the first component, in the valley, and around the mean of the second, one line per
        pair of components, ``(K (K - 1) / 2, 3)``; only rows of the two components count.
    """
    count = responsibilities.shape[1]
    sizes = responsibilities.sum(axis=0)
    means = responsibilities.T @ x / np.maximum(sizes, 1e-8)[:, None]
    found = []
    for first, second in combinations(range(count), 2):
        axis = (means[second] - means[first]) / (variances[first] + variances[second])
        pair = [first, second]
        centres, half = _windows(x @ axis, responsibilities[:, pair])
        points = held_out[np.isin(labels, pair)] @ axis
        # a row on the edge of two windows is in the left one
        inside = (points[:, None] > centres - half) & (points[:, None] <= centres + half)
        found.append(inside.sum(axis=0))
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def valley_p(counts: Sequence[IntArray]) -> float:
    """Return how surprising the middle would be if two components were one cloud.

    In each fold the pair counts whose valley is the least of one; the counts are added up over folds. A valley is
    lower than both its sides, so the larger of two p counts. To take the weakest pair and the larger p errs to the
    side of one cloud, so that nothing has to be corrected.

    Args:
        counts: of :func:`window_counts`, one array per fold; components in an order that folds share.

    Returns:
        One-sided p of binomial tests; NaN for a single component.
    """
    if not counts[0].size:
        return float("nan")
    weakest = [max(fold.tolist(), key=lambda pair: (pair[1] - min(pair[0], pair[2]), pair[1])) for fold in counts]
    left, middle, right = np.sum(weakest, axis=0)
    return float(max(binom.cdf(middle, middle + side, 0.5) for side in (left, right)))


def _windows(points: FloatArray, shares: FloatArray) -> tuple[FloatArray, float]:
    """Centres of the three windows on the line and half their width, from two weighted normals."""
    sizes = np.maximum(shares.sum(axis=0), 1e-8)
    means = points @ shares / sizes
    spread = np.sqrt(np.maximum(((points[:, None] - means) ** 2 * shares).sum(axis=0) / sizes, 1e-12))
    places = means[0] + _PLACES * (means[1] - means[0])
    height = (sizes / spread * np.exp(-0.5 * ((places[:, None] - means) / spread) ** 2)).sum(axis=1)
    lowest = places[height.argmin()]
    centres = np.array([means[0], lowest, means[1]])
    return centres, float(np.diff(centres).min() / 2)
