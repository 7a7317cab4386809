"""Rows left out so that groups differ in their positive rate by a wanted gap: cohorts for methods that must bear it.

Published comparisons of methods enlarge the gaps of a dataset first (FCRO to about 0.12 for each of three attributes,
FairREAD to about 0.16), because a network can only use an attribute as a shortcut where the label goes along with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.errors import MonaiFairError, raise_problems

Gaps = Mapping[str, Mapping[str, float]]
_SOLVED = 1e-7  # largest error of a solved rate: a hundredth of a row in a hundred thousand
_PRECISION = 1e-3  # of the largest gap that can be reached, as a share of the way to the wanted one
NEAR = 0.005  # how near to the wanted rates whole rows are to come
_SLACK = 0.001  # and what is near enough to stop looking: nearer would be a long search for nothing
_NODES = 2000  # of that search
_ROW = 1e-6  # what a row more is worth in it, beside rates
_WHOLE = 1e-9  # a count this near to a whole number is one
_SHOWN = 5


def enlarge_gaps(
    label: npt.ArrayLike,
    attributes: pd.DataFrame,
    gaps: Gaps,
    *,
    ids: Sequence[str] | pd.Series,
    prevalence: float | None = None,
    seed: int = 0,
) -> npt.NDArray[np.bool_]:
    """Choose rows to keep in which the positive rates of groups differ by wanted gaps.

    For every attribute a group is named, and its gap is its positive rate minus that of all others with a known value.
    A joint group g is a combination of sides ``x_j``: 1/2 in the named group of attribute j, -1/2 among the others, 0
    where the value is missing. The log-odds of its positive rate are moved by ``t_g = a + sum_j b_j x_j``, so that
    attributes interact only as they do in the data; a and b_j solve the J gaps and the positive rate of all rows.
    In every joint group rows of one label only are left out, so that it keeps as many as its new rate allows: a share
    ``exp(-t_g)`` of the negatives if t_g > 0, ``exp(t_g)`` of the positives if t_g < 0, and at least one row wherever
    there is one. A linear program finds the most rows that any choice with the same rates could keep; that is a few
    per cent more, but it empties joint groups of a label. Group shares are free: a group that is moved far becomes
    smaller.

    Counts are rounded together, so that the rates are near the wanted ones; with a few hundred rows they are within
    half a point. Chance decides which rows of a label and joint group stay; it depends on the seed and the ids, not on
    the order of rows, and rows that stay where few do also stay where more do.

    Args:
        label: 0 or 1, shape ``(n,)``.
        attributes: a column of text for each attribute of ``gaps``, empty where it is missing; n rows.
        gaps: attribute to its named group to the wanted gap, between -1 and 1, such as ``{"sex": {"female": 0.16}}``.
            Several groups of one attribute may be named, each against all others, if one stays unnamed.
        ids: name of every row, each once, such as its image.
        prevalence: positive rate wanted of all rows, between 0 and 1; by default it stays as it is.
        seed: of the draw.

    Returns:
        True for a row that is kept, shape ``(n,)``.

    Raises:
        MonaiFairError: with every problem of what was given; or, if the gaps cannot be reached, with those that can,
            on the way from the data's gaps to the wanted ones.

    References:
        Deng, Zhong, Dou, Li, On Fairness of Medical Image Classification with Multiple Sensitive Attributes via
        Learning Orthogonal Representations, IPMI 2023, arXiv:2301.01481 (subsampling of each joint group); Gao, Hao,
        Zhou, FairREAD, arXiv:2412.16373.
    """
    raise_problems(MonaiFairError, "gaps", gap_problems(label, attributes, gaps, ids=ids, prevalence=prevalence))
    positive = np.asarray(label).astype(np.int64)
    groups = _joint_groups(positive, attributes, gaps)
    wanted = [gap for named in gaps.values() for gap in named.values()]
    before = groups.rates(groups.counts)
    exact = _solve(groups, np.array([before[0] if prevalence is None else prevalence, *wanted]), gaps)
    counts = _whole(exact, groups)
    return _draw(groups.of_row, counts.ravel(), np.asarray(ids, dtype=str), seed)


def gap_problems(
    label: npt.ArrayLike,
    attributes: pd.DataFrame,
    gaps: Gaps,
    *,
    ids: Sequence[str] | pd.Series,
    prevalence: float | None = None,
) -> list[str]:
    """Say everything that is wrong with the input of :func:`enlarge_gaps`, which has the arguments."""
    values = np.asarray(label)
    if values.ndim != 1 or not (len(values) == len(attributes) == len(ids)):
        return [
            "expected a label, attributes and an id for every row, got "
            f"{values.shape} labels, {len(attributes)} rows of attributes and {len(ids)} ids"
        ]
    problems = [] if gaps else ["expected at least one wanted gap, got none"]
    if prevalence is not None and not (isinstance(prevalence, int | float) and 0 < prevalence < 1):
        problems.append(f"expected a prevalence between 0 and 1, got {prevalence!r}")
    if not np.isin(values, (0, 1)).all():
        problems.append("expected labels 0 and 1 only; make a manifest of two classes first")
    elif lacking := [str(kind) for kind in (0, 1) if not (values == kind).any()]:
        problems.append(f"expected rows of both labels, got none of label {' or '.join(lacking)}")
    if repeated := len(ids) - len(set(ids)):
        problems.append(f"expected an id of its own for every row, {repeated} are repeated")
    for name, named in gaps.items():
        problems += _attribute_problems(name, named, attributes)
    return problems


def _attribute_problems(name: str, named: Mapping[str, float], attributes: pd.DataFrame) -> list[str]:
    if name not in attributes:
        recorded = ", ".join(map(str, attributes.columns)) or "none"
        return [f"{name}: expected a recorded attribute ({recorded}); correct the name"]
    found = sorted(set(_text(attributes[name])) - {""})
    shown = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    problems = [
        f"{name}:{group}: expected a group that occurs ({shown or 'none does'}), got no row of it"
        for group in named
        if str(group) not in found
    ]
    problems += [
        f"{name}:{group}: expected a gap between -1 and 1, got {gap!r}"
        for group, gap in named.items()
        if not isinstance(gap, int | float) or not -1 < gap < 1
    ]
    if not named:
        problems.append(f"{name}: expected a group and its gap, got none")
    elif found and set(found) <= set(map(str, named)):
        problems.append(f"{name}: expected rows of another group to compare with, got only {shown}")
    return problems


def _text(column: pd.Series) -> npt.NDArray[np.str_]:
    """Return a column as text, in which a null is a missing value too."""
    return column.astype(object).where(column.notna(), "").to_numpy().astype(str)


@dataclass(frozen=True)
class _JointGroups:
    """Sides ``x_j`` of every joint group ``(G, J)``, its negatives and positives ``(G, 2)``, and the cell of each row.

    A cell is a label in a joint group; its number is that in the flat counts.
    """

    sides: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    of_row: npt.NDArray[np.int64]

    def rates(self, kept: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return positive rate and gaps, shape ``(1 + J,)``, of so many negatives and positives, shape ``(G, 2)``."""
        total, positive = kept.sum(axis=1), kept[:, 1]
        named, others = self.sides.T > 0, self.sides.T < 0
        gap = named @ positive / (named @ total) - others @ positive / (others @ total)
        return np.array([positive.sum() / total.sum(), *gap])

    def slopes(self, kept: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return how much one row more in a cell changes :meth:`rates`, shape ``(1 + J, G, 2)``."""
        everywhere = np.ones((1, len(kept)), dtype=bool)
        sides = [(np.concatenate([everywhere, self.sides.T > 0]), 1.0), (self.sides.T < 0, -1.0)]
        slope = np.zeros((1 + self.sides.shape[1], *kept.shape))
        for members, sign in sides:
            size = members @ kept.sum(axis=1)
            rate = (members @ kept[:, 1] / size)[:, None]
            change = members[:, :, None] * (np.array([0.0, 1.0]) - rate)[:, None, :] / size[:, None, None]
            slope[-len(members) :] += sign * change
        return slope

    def kept(self, move: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the negatives and positives that stay, not yet whole, for ``a, b_1 .. b_J``."""
        shift = move[0] + self.sides @ move[1:]
        share = np.exp(-np.stack([shift, -shift], axis=1).clip(min=0))
        return np.asarray(np.maximum(self.counts * share, np.minimum(self.counts, 1)))


def _joint_groups(positive: npt.NDArray[np.int64], attributes: pd.DataFrame, gaps: Gaps) -> _JointGroups:
    columns = []
    for name, named in gaps.items():
        text = _text(attributes[name])
        columns += [np.where(text == "", 0.0, np.where(text == str(group), 0.5, -0.5)) for group in named]
    sides, group = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    of_row = 2 * group.ravel() + positive
    return _JointGroups(sides, np.bincount(of_row, minlength=2 * len(sides)).reshape(-1, 2), of_row)


def _solve(groups: _JointGroups, wanted: npt.NDArray[np.float64], gaps: Gaps) -> npt.NDArray[np.float64]:
    """Return the negatives and positives to keep, not yet whole; go there in steps where one does not do."""
    from scipy.optimize import least_squares  # a quarter of a second, for what few commands call

    def error(move: npt.NDArray[np.float64], goal: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return groups.rates(groups.kept(move)) - goal

    start = groups.rates(groups.counts)
    move, reached, step = np.zeros(len(start)), 0.0, 1.0
    while reached < 1 and step > _PRECISION:
        step = min(step, 1 - reached)
        goal = start + (reached + step) * (wanted - start)
        found = least_squares(error, move, args=(goal,), xtol=1e-14, ftol=1e-14, gtol=1e-14)
        if np.abs(found.fun).max() < _SOLVED:
            move, reached = found.x, reached + step
        else:
            step /= 2
    if reached < 1:
        raise MonaiFairError(_unreachable(start, wanted, reached, gaps))
    return groups.kept(move)


def _unreachable(start: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64], reached: float, gaps: Gaps) -> str:
    names = [f"{name}:{group}" for name, named in gaps.items() for group in named]

    def shown(rates: npt.NDArray[np.float64]) -> str:
        listed = ", ".join(f"{name} {gap:.3f}" for name, gap in zip(names, rates[1:], strict=True))
        return f"{listed} at a positive rate of {rates[0]:.3f}"

    return (
        f"expected gaps that can be reached, got {shown(wanted)}; from the data's own ({shown(start)}) the largest on "
        f"the way there are {shown(start + reached * (wanted - start))}; ask for smaller or fewer gaps or a prevalence "
        "nearer to 0.5, or take more rows"
    )


def _whole(exact: npt.NDArray[np.float64], groups: _JointGroups) -> npt.NDArray[np.int64]:
    """Round to the nearest counts, or together where a rate is off by it; if need be, look one row further."""
    wanted = groups.rates(exact)

    def off(counts: npt.NDArray[np.int64]) -> float:
        return float(np.abs(groups.rates(counts) - wanted).max())

    best = np.rint(exact).astype(np.int64)
    for further, near, slack in ((0, _SLACK, _SLACK), (1, NEAR, NEAR - _SLACK)):
        if off(best) > near:
            best = min(best, _rounded(exact, groups, further, slack), key=off)
    return best


def _rounded(exact: npt.NDArray[np.float64], groups: _JointGroups, further: int, slack: float) -> npt.NDArray[np.int64]:
    """Choose whole counts so that the rates are off by least beyond ``slack``, added up over rates."""
    from scipy.optimize import LinearConstraint, milp

    lowest = np.maximum(np.floor(exact + _WHOLE) - further, np.minimum(groups.counts, 1))
    room = (np.minimum(np.ceil(exact - _WHOLE) + further, groups.counts) - lowest).ravel()
    slopes = groups.slopes(exact).reshape(-1, room.size)
    # unknowns: rows of every cell beyond the lowest count, and how far each rate is off; rows count a little
    off, excess = slopes @ (exact - lowest).ravel(), np.eye(len(slopes))
    found = milp(
        np.concatenate([np.full(room.size, -_ROW * further), np.ones(len(slopes))]),
        constraints=LinearConstraint(
            np.block([[slopes, -excess], [-slopes, -excess]]), ub=np.concatenate([off, -off]) + slack
        ),
        integrality=np.concatenate([np.ones(room.size), np.zeros(len(slopes))]),
        bounds=(0, np.concatenate([room, np.full(len(slopes), np.inf)])),
        options={"node_limit": _NODES},
    )
    # a search that is cut off before it found anything leaves the nearest whole numbers
    counts = np.rint(exact) if found.x is None else lowest + np.rint(found.x[: room.size]).reshape(lowest.shape)
    return np.asarray(counts.astype(np.int64))


def _draw(
    of_row: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], ids: npt.NDArray[np.str_], seed: int
) -> npt.NDArray[np.bool_]:
    """Keep so many rows of every cell: those with the lowest numbers that chance gives to the ids."""
    number = np.empty(len(ids))
    number[np.argsort(ids)] = np.random.default_rng(seed).random(len(ids))
    order = np.lexsort((number, of_row))
    sizes = np.bincount(of_row, minlength=len(counts))
    rank = np.arange(len(ids)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = np.empty(len(ids), dtype=bool)
    kept[order] = rank < np.repeat(counts, sizes)
    return kept
