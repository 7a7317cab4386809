"""The two ways of looking for subgroups in rows of numbers, each answering with the same facts.

``local`` asks whether the rows have two modes in one place of the brain, ``mixture`` whether they form clouds in their
leading principal components. Both see nothing but the rows they are given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

from monai_fair.subgroups.assignment import MixtureAssignment
from monai_fair.subgroups.local_mixture import LocalMixture
from monai_fair.subgroups.mixture import ErrorAwareMixture
from monai_fair.subgroups.selection import select_components

FloatArray = npt.NDArray[np.float64]
_ROWS_PER_COMPONENT = 10  # fewer say nothing of a principal component, or of a subgroup
_PART = 0.8  # of the rows in a subsample
_STARTS, _MOST_STEPS = 3, 1000  # of a mixture


@dataclass(frozen=True, eq=False)
class CandidateFit:
    """What one method found in the rows it was fitted on.

    Attributes:
        n_components: number of subgroups; 1 says none.
        p: how surprising the finding would be in one population; NaN where nothing could be tested.
        valley_p: that of the valley alone.
        stability: mean adjusted Rand index of pairs of fits to resamples of the rows; NaN for a single subgroup.
        assign: takes rows, shape ``(n, d)``, to responsibilities, shape ``(n, n_components)``;
            one of :data:`~monai_fair.subgroups.assignment.ASSIGNMENTS` where something was found.
        reason: why there is nothing to claim, whatever p and stability are.
        column: of the place, for ``local``.
    """

    n_components: int
    p: float
    valley_p: float
    stability: float
    assign: Callable[[FloatArray], FloatArray]
    reason: str = ""
    column: int | None = None


def fit_local(
    x: FloatArray, positions: FloatArray, *, radius: float, null_draws: int, n_resamples: int, seed: int
) -> CandidateFit:
    """Look for two subgroups that differ in one place.

    Both the scan over places and the valley must be surprising, so the larger of their p values counts. Stability is
    that of subsamples of 80 % of the rows: with replacement, repeated rows would be clumps that a scan finds.

    Args:
        x: shape ``(n, d)``; at least one column varies.
        positions: of the columns in mm, shape ``(d, 3)``.
        radius: of the neighbourhood in mm.
        null_draws: normal populations behind the p of the scan; it is at least ``1 / (null_draws + 1)``.
        n_resamples: subsamples, for the stability.
        seed: of everything drawn.

    References:
        Monti et al., Consensus clustering, Machine Learning 2003, doi:10.1023/A:1023949509487 (subsamples of 80 %).
    """
    model = LocalMixture(positions, radius=radius, null_draws=null_draws, random_state=seed).fit(x)
    valley = model.valley_p(x)
    random, labels, part = np.random.default_rng([seed, len(x)]), [], int(_PART * len(x))
    for _ in range(n_resamples):
        again = LocalMixture(positions, radius=radius, null_draws=0, random_state=int(random.integers(2**31)))
        labels.append(again.fit(x[random.choice(len(x), part, replace=False)]).predict(x))
    return CandidateFit(2, max(model.p_, valley), valley, _agreement(labels), model.assignment(), "", model.place_)


def fit_mixture(
    x: FloatArray,
    *,
    n_components_pca: int,
    max_components: int,
    n_resamples: int,
    min_stability: float,
    max_valley_p: float,
    seed: int,
) -> CandidateFit:
    """Look for clouds in the leading principal components.

    Components are in units of the first one's standard deviation, so that the unit of the rows does not count.

    Args:
        x: shape ``(n, d)``; at least one column varies.
        n_components_pca: most principal components; also at most one per ten rows.
        max_components: most clouds; also at most one per ten rows.
        n_resamples: of the rows, for the stability.
        min_stability: see :func:`~monai_fair.subgroups.select_components`.
        max_valley_p: as well.
        seed: of everything drawn.
    """
    most = max(1, len(x) // _ROWS_PER_COMPONENT)
    components = PCA(min(n_components_pca, most, *x.shape), random_state=seed).fit(x)
    unit = np.sqrt(components.explained_variance_[0])
    scores = components.transform(x) / unit
    mixture = ErrorAwareMixture(n_init=_STARTS, max_iter=_MOST_STEPS)
    selection = select_components(
        scores,
        mixture=mixture,
        candidates=range(1, min(max_components, most) + 1),
        n_seeds=n_resamples,
        min_stability=min_stability,
        max_valley_p=max_valley_p,
        seed=seed,
    )
    (found,) = selection.table[selection.table["reason"] == ""].to_dict("records")
    fitted = mixture.set_params(n_components=selection.chosen, random_state=seed).fit(scores)
    single = selection.chosen == 1
    return CandidateFit(
        selection.chosen,
        1.0 if single else float(found["valley_p"]),
        float(found["valley_p"]),
        float("nan") if single else float(found["stability"]),
        MixtureAssignment(
            components.mean_, components.components_, float(unit), fitted.weights_, fitted.means_, fitted.covariances_
        ),
        "no number of clouds above one is stable and has valleys between them" if single else "",
    )


def nothing_to_fit(reason: str) -> CandidateFit:
    """Return what stands for a method that had nothing to look at."""
    nan = float("nan")
    return CandidateFit(1, nan, nan, nan, lambda rows: np.ones((len(rows), 1)), reason)


def _agreement(labels: list[npt.NDArray[np.int64]]) -> float:
    return float(np.mean([adjusted_rand_score(*pair) for pair in combinations(labels, 2)]))
