"""Subgroups found without labels and without attributes: many ways of looking, and one claim or none.

Every pair of a representation and a method is a candidate with a p of its own. The p values are adjusted for all of
them (Holm), so that looking in more ways makes no false claim more likely. A claim also needs subgroups that come back
in resamples of the subjects. What is claimed is a hypothesis until it holds on subjects that the fit has not seen.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.multiplicity import holm
from monai_fair.subgroups.assignment import Assignment, OrderedAssignment, sizes_of, subgroup_names
from monai_fair.subgroups.candidate_fits import CandidateFit, fit_local, fit_mixture, nothing_to_fit
from monai_fair.subgroups.representations import Representation

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
METHODS = ("local", "mixture")
LEAST_ROWS = 20  # five folds of four
_FLAT = 1e-12  # range of a column over its size, below which it is rounding


@dataclass(frozen=True)
class Candidate:
    """One way of looking, and what came of it.

    Attributes:
        representation: kind of the rows.
        method: ``local`` or ``mixture``.
        n_components: subgroups it found.
        p: how surprising that would be in one population; NaN where it could not be tested.
        p_holm: adjusted for all candidates.
        valley_p: of the valley between the subgroups alone.
        stability: mean adjusted Rand index of pairs of fits to resamples, 1 for the same subgroups every time.
        sizes: fitted rows per subgroup, falling.
        reason: why it was not chosen; empty for the chosen one.
    """

    representation: str
    method: str
    n_components: int
    p: float
    p_holm: float
    valley_p: float
    stability: float
    sizes: tuple[int, ...]
    reason: str


@dataclass(frozen=True, eq=False)
class Discovery:
    """What was found.

    Attributes:
        subject_ids: of all n subjects.
        fitted: which of them the fit saw, shape ``(n,)``.
        membership: probability of every subgroup, shape ``(n, K)``, subgroups by falling size among fitted rows; one
            column of ones when nothing is claimed.
        candidates: all ways of looking.
        chosen: place of the claimed one in ``candidates``; ``None`` when nothing is claimed.
        column: the one around which its subgroups differ, for ``local``.
        place: where that is, in the unit of the positions, shape ``(3,)``.
        radius: of that place.
        assignment: from rows of the claimed representation to membership; ``None`` when nothing is claimed.
    """

    subject_ids: list[str]
    fitted: BoolArray
    membership: FloatArray
    candidates: tuple[Candidate, ...]
    chosen: int | None
    column: int | None
    place: FloatArray | None
    radius: float
    assignment: OrderedAssignment | None = None

    @property
    def names(self) -> list[str]:
        """Names of the subgroups, ``S1`` for the largest."""
        return subgroup_names(self.membership.shape[1])

    @property
    def subgroup(self) -> list[str]:
        """The most probable subgroup of each subject."""
        return [self.names[place] for place in self.membership.argmax(axis=1)]


def discover(
    representations: Sequence[Representation],
    fitted_on: Sequence[str],
    *,
    positions: Mapping[str, FloatArray] | None = None,
    methods: Sequence[str] = METHODS,
    alpha: float = 0.05,
    min_stability: float = 0.6,
    radius: float = 20.0,
    null_draws: int = 199,
    n_resamples: int = 10,
    max_components: int = 5,
    n_components_pca: int = 5,
    seed: int = 0,
) -> Discovery:
    """Look for subgroups in every representation with every method, and claim one finding or none.

    Claimed may be what has an adjusted p of at most ``alpha`` and a stability of at least ``min_stability``; of
    several, the one of smallest p (smaller than a scan can have counts for no less), then of highest stability, then
    the first. Fits see the rows of
    ``fitted_on`` only, in the order of their ids, so that neither other subjects nor the order of any change them.

    Args:
        representations: rows of the same subjects, each of another kind.
        fitted_on: subjects of training and validation, at least 20: never of the part that results are judged on.
        positions: kind of a representation to where its columns lie in mm, shape ``(d, 3)``. ``local`` needs them, and
            leaves out representations without.
        methods: ``local`` (two subgroups that differ in one place, see :class:`LocalMixture`), ``mixture`` (clouds in
            the leading principal components, their number chosen by :func:`select_components`).
        alpha: chance of a claim where there is one population.
        min_stability: in [-1, 1].
        radius: of a place, in mm.
        null_draws: populations behind the p of ``local``, which is at least ``1 / (null_draws + 1)``.
        n_resamples: of the subjects, behind the stability.
        max_components: most subgroups of a mixture.
        n_components_pca: most principal components of a mixture; at most one per ten fitted rows.
        seed: of everything drawn.

    Returns:
        The finding, with responsibilities for all subjects.

    Raises:
        MonaiFairError: with every problem of options and rows.
    """
    places = {} if positions is None else dict(positions)
    pairs = [
        (rows, method) for rows in representations for method in methods if method != "local" or rows.kind in places
    ]
    problems = _option_problems(methods, alpha=alpha, n_resamples=n_resamples, null_draws=null_draws)
    problems += _row_problems(representations, fitted_on, places)
    if not problems and not pairs:
        problems.append(
            "methods: 'local' needs positions, such as those of log_jacobian, got representations without; add "
            "'mixture' or another representation"
        )
    raise_problems(MonaiFairError, "discover", problems)
    order = sorted(fitted_on)
    looks = {
        "local": partial(fit_local, radius=radius, null_draws=null_draws, n_resamples=n_resamples, seed=seed),
        "mixture": partial(
            fit_mixture,
            n_components_pca=n_components_pca,
            max_components=max_components,
            n_resamples=n_resamples,
            min_stability=min_stability,
            max_valley_p=alpha,
            seed=seed,
        ),
    }
    # problems this small take several threads longer than one, many times longer beside other work
    with threadpool_limits(1):
        fits = [
            _fit(rows.of(order), looks[method], places[rows.kind] if method == "local" else None)
            for rows, method in pairs
        ]
        candidates, chosen = _judge(
            pairs, fits, order, alpha=alpha, min_stability=min_stability, floor=1 / (null_draws + 1)
        )
    subjects = representations[0].subject_ids
    fitted = np.isin(subjects, order)
    if chosen is None:
        return Discovery(subjects, fitted, np.ones((len(subjects), 1)), candidates, None, None, None, radius)
    rows, fit = pairs[chosen][0], fits[chosen]
    place = None if fit.column is None else np.asarray(places[rows.kind])[fit.column]
    membership, assignment = _membership(rows, fit, subjects, fitted)
    return Discovery(subjects, fitted, membership, candidates, chosen, fit.column, place, radius, assignment)


def _judge(
    pairs: Sequence[tuple[Representation, str]],
    fits: Sequence[CandidateFit],
    fitted_on: Sequence[str],
    *,
    alpha: float,
    min_stability: float,
    floor: float,
) -> tuple[tuple[Candidate, ...], int | None]:
    """Return what came of every way of looking, and which one is claimed."""
    adjusted = holm([fit.p for fit in fits])
    chosen, reasons = _choose(fits, adjusted, alpha, min_stability, floor=floor)
    candidates = tuple(
        Candidate(rows.kind, method, fit.n_components, fit.p, float(p), fit.valley_p, fit.stability,
                  tuple(sorted(sizes_of(fit.assign(rows.of(fitted_on))).tolist(), reverse=True)), reason)
        for (rows, method), fit, p, reason in zip(pairs, fits, adjusted, reasons, strict=True)
    )  # fmt: skip
    return candidates, chosen


def _fit(x: FloatArray, look: Callable[..., CandidateFit], positions: FloatArray | None) -> CandidateFit:
    if not (np.ptp(x, axis=0) > _FLAT * np.abs(x).max(axis=0)).any():
        return nothing_to_fit(f"all {len(x)} fitted rows are the same")
    return look(x) if positions is None else look(x, np.asarray(positions))


def _membership(
    rows: Representation, fit: CandidateFit, subjects: Sequence[str], fitted: BoolArray
) -> tuple[FloatArray, OrderedAssignment | None]:
    """Return responsibilities of all subjects, subgroups by falling size among the fitted rows, and what gives them."""
    membership = np.empty((len(subjects), fit.n_components))
    # apart, because a product of more rows may round the last bits of the fitted ones another way
    for part in (fitted, ~fitted):
        if part.any():
            membership[part] = fit.assign(rows.of(np.asarray(subjects)[part].tolist()))
    order = np.argsort(-sizes_of(membership[fitted]), kind="stable")
    assignment = OrderedAssignment(fit.assign, order) if isinstance(fit.assign, Assignment) else None
    return membership[:, order], assignment


def _choose(
    fits: Sequence[CandidateFit], adjusted: FloatArray, alpha: float, min_stability: float, *, floor: float
) -> tuple[int | None, list[str]]:
    """Return the claimed candidate, and why each other is not.

    A scan cannot have a p below ``floor``; in the ranking no other test can either, or the finer one would win.
    """
    reasons = [_shortcoming(fit, float(p), alpha, min_stability) for fit, p in zip(fits, adjusted, strict=True)]
    may = [place for place, reason in enumerate(reasons) if not reason]
    if not may:
        return None, reasons
    ranked = np.maximum([fit.p for fit in fits], floor)
    best = min(may, key=lambda place: (ranked[place], -fits[place].stability, place))
    for place in may:
        if ranked[place] != ranked[best]:
            reasons[place] = "another candidate has a smaller p"
        elif place != best:
            reasons[place] = f"another candidate is as stable, and its p no larger or below {floor:g} too"
    return best, reasons


def _shortcoming(fit: CandidateFit, p: float, alpha: float, min_stability: float) -> str:
    if fit.reason:
        return fit.reason
    found = []
    if not p <= alpha:
        found.append(f"p {p:.2g}, adjusted for all candidates, is above {alpha:g}")
    if not fit.stability >= min_stability:
        found.append(f"stability {fit.stability:.2f} is below {min_stability:g}")
    return "; ".join(found)


def _option_problems(methods: Sequence[str], *, alpha: float, n_resamples: int, null_draws: int) -> list[str]:
    known = ", ".join(METHODS)
    problems = [f"methods: expected names of {known}, got '{name}'" for name in methods if name not in METHODS]
    if not methods or len(set(methods)) < len(methods):
        problems.append(f"methods: expected at least one of {known}, each once, got '{','.join(methods)}'")
    if not 0 < alpha < 1:
        problems.append(f"alpha: expected a number between 0 and 1, got {alpha}")
    if n_resamples < 2:
        problems.append(f"n_resamples: expected at least 2, got {n_resamples}")
    if null_draws < 1:
        problems.append(f"null_draws: expected at least 1, got {null_draws}")
    return problems


def _row_problems(
    representations: Sequence[Representation], fitted_on: Sequence[str], places: Mapping[str, FloatArray]
) -> list[str]:
    if not representations:
        return ["expected at least one representation, got none"]
    first, problems = representations[0], []
    for rows in representations:
        if sorted(rows.subject_ids) != sorted(first.subject_ids):
            problems.append(
                f"{rows.kind}: expected the subjects of {first.kind}, once each, got others; leave them out"
            )
        broken = int((~np.isfinite(rows.values).all(axis=1)).sum()) if rows.values.size else 0
        if broken:
            problems.append(f"{rows.kind}: expected finite numbers, got {broken} rows with others")
        if rows.kind in places and len(places[rows.kind]) != rows.values.shape[-1]:
            problems.append(
                f"{rows.kind}: expected a position for each of {rows.values.shape[-1]} columns, "
                f"got {len(places[rows.kind])}"
            )
    if len({rows.kind for rows in representations}) < len(representations):
        problems.append(f"expected each representation once, got {', '.join(rows.kind for rows in representations)}")
    absent = sorted(set(fitted_on) - set(first.subject_ids))
    if absent:
        problems.append(f"fitted_on: expected subjects with rows, {len(absent)} have none, such as '{absent[0]}'")
    count = len(set(fitted_on))
    if count < max(LEAST_ROWS, len(fitted_on)):
        problems.append(
            f"fitted_on: expected at least {LEAST_ROWS} different subjects, got {count}; "
            "fewer show no shape to speak of"
        )
    return problems
