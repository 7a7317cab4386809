"""Features in two dimensions, to be looked at: principal components and t-SNE."""

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from monai_fair.errors import MonaiFairError
from monai_fair.metrics.arrays import FloatArray

LEAST_ROWS = 10  # fewer make no picture
_COMPONENTS = 50  # that t-SNE looks at; distances of more dimensions are mostly noise
_PERPLEXITY = 30.0


def pca_plane(features: npt.ArrayLike) -> tuple[FloatArray, tuple[float, float]]:
    """Return features along their first two principal components.

    Args:
        features: shape ``(n, d)``; at least 10 rows, which are not all the same.

    Returns:
        Coordinates, shape ``(n, 2)``, and the share of the variance along each of the two, in [0, 1]. With one column
        the second is 0.

    Raises:
        MonaiFairError: if the shape is another, or features are not finite or all the same.
    """
    x = _checked("pca_plane", features)
    found = PCA(min(2, x.shape[1]), svd_solver="full").fit(x)
    plane = np.zeros((len(x), 2))
    plane[:, : x.shape[1]] = found.transform(x)
    first, *second = (float(share) for share in found.explained_variance_ratio_)
    return plane, (first, second[0] if second else 0.0)


def tsne_plane(features: npt.ArrayLike, *, seed: int = 0) -> FloatArray:
    """Return features in the plane so that rows that are near each other stay so (t-SNE, Barnes-Hut).

    Distances between clouds and their sizes mean little. It starts from the principal components, with perplexity 30
    or, with fewer than 91 rows, a third of the rows. One thread: the sum over several is not the same each time.

    Args:
        features: shape ``(n, d)``; at least 10 rows, which are not all the same. Of more than 50 columns the first 50
            principal components are taken.
        seed: of what t-SNE draws.

    Returns:
        Coordinates, shape ``(n, 2)``.

    Raises:
        MonaiFairError: as :func:`pca_plane`.

    References:
        van der Maaten, Accelerating t-SNE using Tree-Based Algorithms, JMLR 2014.
    """
    x = _checked("tsne_plane", features)
    start, _ = pca_plane(x)
    if x.shape[1] > _COMPONENTS:
        x = PCA(min(_COMPONENTS, len(x)), svd_solver="full").fit_transform(x)
    method = TSNE(
        perplexity=min(_PERPLEXITY, (len(x) - 1) / 3),
        init=(1e-4 * start / start[:, 0].std()).astype(np.float32),  # the scale of scikit-learn's own start
        random_state=seed,
        n_jobs=1,
    )
    with threadpool_limits(limits=1):
        return np.asarray(method.fit_transform(x.astype(np.float32)), dtype=np.float64)


def _checked(source: str, features: npt.ArrayLike) -> FloatArray:
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) < LEAST_ROWS or not x.shape[1] or not bool(np.isfinite(x).all()):
        raise MonaiFairError(
            f"{source}: expected finite features of shape (n, d), at least {LEAST_ROWS} rows and a column, got shape "
            f"{x.shape}; give more rows"
        )
    if not bool((x != x[0]).any()):
        raise MonaiFairError(f"{source}: expected rows that differ, got {len(x)} that are the same")
    return x
