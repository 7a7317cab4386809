"""Codes of subjects that do not exist, drawn from the codes of training subjects: what augmentation decodes to images.

A cell is the training subjects of one label in one subgroup. A drawn code belongs to the cell it was drawn for, and so
does its label: that is right where the disease shows in the shape the code stands for, or where the image that is
deformed comes from a subject of the same label.

No code leaves the training data. They are laid along the principal components that hold ``explained`` of their
variance, each scaled to variance 1; a drawn code counts if its squared length there is at most the ``level`` quantile
of chi-squared with as many degrees of freedom. Of normally distributed codes a share of ``level`` lies inside.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2
from sklearn.decomposition import PCA

from monai_fair.errors import MonaiFairError, raise_problems

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
SamplingRule = Literal["gaussian", "interpolation", "swap"]
_MIX = (0.2, 0.8)  # nearer to 0 or 1 an interpolation is one of its two members again
_DRAWS = 1000  # of one code: at a level of 0.95 it takes one or two


@dataclass(frozen=True, eq=False)
class SampledCode:
    """One code and where it comes from.

    Attributes:
        code: shape ``(d,)``.
        sources: rows of the training codes it was made of.
        mix: share of the first source in an interpolation; NaN for the other rules.
        distance: from the centre of the training codes, 1 on the surface of the ellipsoid.
        outside: draws that lay outside and were thrown away.
    """

    code: FloatArray
    sources: tuple[int, ...]
    mix: float
    distance: float
    outside: int


@dataclass(frozen=True, eq=False)
class SampledCodes:
    """Codes of several cells, in the order of what was asked for.

    Attributes:
        codes: shape ``(m, d)``.
        cell: of each code.
        sources: rows of the training codes each was made of.
        mix: share of the first source, ``(m,)``; NaN but for interpolations.
        distance: 1 on the surface of the ellipsoid, ``(m,)``.
        outside: draws that were thrown away for each, ``(m,)``.
    """

    codes: FloatArray
    cell: list[Hashable]
    sources: list[tuple[int, ...]]
    mix: FloatArray
    distance: FloatArray
    outside: IntArray


class CodeSampler:
    """Draws codes of a cell, one at a time, with a generator that the caller brings.

    ``gaussian`` adds to the cell's mean a draw from the covariance within cells, pooled over all cells, because each is
    small, and taken in the principal space; what lies outside it is the cell mean's. The covariance is not shrunk: it
    is drawn from and never inverted, so no direction needs filling up. Shrinking towards the identity would add rough
    fields, shrinking towards the covariance of all codes would blur what tells the cells apart.

    ``interpolation`` is ``a z_i + (1 - a) z_j`` of two members, ``a`` uniform from 0.2 to 0.8. Its variance within the
    cell is 0.56 times that of the members (the mean of ``a^2 + (1 - a)^2``).

    ``swap`` is the code of a member as it is, for the image of another subject.

    Args:
        codes: of training subjects only, shape ``(n, d)``.
        cells: of each row.
        rule: see above.
        explained: share of the variance that the principal space holds, between 0 and 1.
        level: of the ellipsoid, between 0 and 1.

    Attributes:
        codes: as given, in double precision.
        n_components: of the principal space.

    Raises:
        MonaiFairError: with every problem of the arguments.
    """

    def __init__(
        self,
        codes: npt.ArrayLike,
        cells: Sequence[Hashable],
        *,
        rule: SamplingRule,
        explained: float = 0.95,
        level: float = 0.95,
    ) -> None:
        self.codes = np.asarray(codes, dtype=np.float64)
        self.rule = rule
        self.level = level
        raise_problems(MonaiFairError, "codes", _problems(self.codes, cells, rule, explained, level))
        self.members = {
            cell: np.array([row for row, other in enumerate(cells) if other == cell], dtype=np.int64)
            for cell in dict.fromkeys(cells)
        }
        space = PCA(explained, svd_solver="full").fit(self.codes)
        self.n_components = int(space.n_components_)
        self._centre = np.asarray(space.mean_)
        self._to_scores = np.asarray(space.components_.T / np.sqrt(space.explained_variance_))
        self._radius = float(np.sqrt(chi2.ppf(level, self.n_components)))
        if rule == "gaussian":
            self._means = {cell: self.codes[rows].mean(axis=0) for cell, rows in self.members.items()}
            self._factor = self._within_cells(np.asarray(space.components_))

    def reason(self, cell: Hashable) -> str:
        """Say why the cell cannot be sampled; empty when it can."""
        size = len(self.members.get(cell, ()))
        if not size:
            return "it has no training subject, so nothing says what its codes look like"
        if self.rule == "interpolation" and size == 1:
            return "it has one training subject, and an interpolation needs two; take rule gaussian or swap"
        return ""

    def draw(self, cell: Hashable, rng: np.random.Generator, *, donor: int | None = None) -> SampledCode:
        """Draw a code of the cell.

        Args:
            cell: one of those given.
            rng: where chance comes from.
            donor: row of the subject whose image is to be deformed; a swap takes another one's code.

        Raises:
            MonaiFairError: if the cell cannot be sampled, or no draw lies inside the ellipsoid.
        """
        if reason := self.reason(cell):
            raise MonaiFairError(f"cell {cell!r}: {reason}")
        rows = self.members[cell]
        if self.rule == "swap" and donor is not None:
            rows = rows[rows != donor]
        if not len(rows):
            raise MonaiFairError(f"cell {cell!r}: expected a member other than the donor, got none; take another donor")
        for outside in range(_DRAWS):
            code, sources, mix = self._proposal(cell, rows, rng)
            distance = float(self.distance(code[None])[0])
            if distance <= 1:
                return SampledCode(code, sources, mix, distance, outside)
        raise MonaiFairError(
            f"cell {cell!r}: expected a code inside the {100 * self.level:g} % ellipsoid of the training codes, got "
            f"none in {_DRAWS} draws by {self.rule}; take another rule, or a higher level"
        )

    def distance(self, codes: FloatArray) -> FloatArray:
        """Return how far codes, shape ``(m, d)``, lie from the centre: 1 on the surface of the ellipsoid; ``(m,)``."""
        return np.asarray(np.linalg.norm((codes - self._centre) @ self._to_scores, axis=1) / self._radius)

    def _proposal(
        self, cell: Hashable, rows: IntArray, rng: np.random.Generator
    ) -> tuple[FloatArray, tuple[int, ...], float]:
        if self.rule == "gaussian":
            noise = rng.standard_normal(len(self._factor)) @ self._factor
            return self._means[cell] + noise, tuple(rows.tolist()), float("nan")
        if self.rule == "interpolation":
            first, second = rng.choice(rows, 2, replace=False).tolist()
            mix = float(rng.uniform(*_MIX))
            return mix * self.codes[first] + (1 - mix) * self.codes[second], (first, second), mix
        row = int(rng.choice(rows))
        return self.codes[row], (row,), float("nan")

    def _within_cells(self, components: FloatArray) -> FloatArray:
        """Return a matrix F with F'F the covariance within cells in the principal space, shape ``(k, d)``."""
        deviations = self.codes.copy()
        for cell, rows in self.members.items():
            deviations[rows] -= self._means[cell]
        root = np.linalg.qr(deviations @ components.T, mode="r") / np.sqrt(len(deviations) - len(self.members))
        return np.asarray(root @ components)


def sample_codes(
    codes: npt.ArrayLike,
    cells: Sequence[Hashable],
    wanted: Mapping[Hashable, int],
    *,
    rule: SamplingRule,
    seed: int,
    explained: float = 0.95,
    level: float = 0.95,
) -> SampledCodes:
    """Draw codes of several cells; see :class:`CodeSampler`.

    Args:
        codes: of training subjects only, shape ``(n, d)``.
        cells: of each row.
        wanted: how many codes of which cell.
        rule: ``gaussian``, ``interpolation`` or ``swap``.
        seed: of the draws, 0 or above. Each code has a generator of its own, by its place.
        explained: share of the variance that the principal space holds.
        level: of the ellipsoid.

    Raises:
        MonaiFairError: naming every cell that cannot be sampled, or every problem of the arguments.
    """
    sampler = CodeSampler(codes, cells, rule=rule, explained=explained, level=level)
    reasons = {cell: sampler.reason(cell) for cell, count in wanted.items() if count}
    raise_problems(MonaiFairError, "codes", [f"cell {cell!r}: {reason}" for cell, reason in reasons.items() if reason])
    places = [cell for cell, count in wanted.items() for _ in range(count)]
    drawn = [sampler.draw(cell, np.random.default_rng([seed, place])) for place, cell in enumerate(places)]
    return SampledCodes(
        np.array([each.code for each in drawn]).reshape(len(drawn), sampler.codes.shape[1]),
        places,
        [each.sources for each in drawn],
        np.array([each.mix for each in drawn], dtype=np.float64),
        np.array([each.distance for each in drawn], dtype=np.float64),
        np.array([each.outside for each in drawn], dtype=np.int64),
    )


def _problems(codes: FloatArray, cells: Sequence[Hashable], rule: str, explained: float, level: float) -> list[str]:
    problems = []
    if rule not in get_args(SamplingRule):
        problems.append(f"rule: expected one of {', '.join(get_args(SamplingRule))}, got {rule!r}")
    for name, share in (("explained", explained), ("level", level)):
        if not 0 < share < 1:
            problems.append(f"{name}: expected a share between 0 and 1, got {share}")
    if codes.ndim != 2 or len(codes) != len(cells):
        return [*problems, f"expected codes (n, d) and a cell for each, got shape {codes.shape} and {len(cells)} cells"]
    if not np.isfinite(codes).all():
        rows = np.flatnonzero(~np.isfinite(codes).all(axis=1))
        problems.append(f"expected finite codes, got {len(rows)} rows that are not, first row {rows[0]}")
    elif len(codes) < 2 or not np.ptp(codes, axis=0).any():
        problems.append(f"expected at least two different codes, got {len(codes)} that do not differ")
    if rule == "gaussian" and len(set(cells)) == len(cells) > 1:
        problems.append("expected a cell of two members or more to see how members differ, got none; take rule swap")
    return problems
