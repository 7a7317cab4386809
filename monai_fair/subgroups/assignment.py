"""How rows of numbers go to subgroups that were found before: what a fit leaves behind, as plain arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from monai_fair.subgroups.mixture_steps import Parameters, expect

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LocalAssignment:
    """Two normals with one variance, of the score of a discriminant in one place.

    Attributes:
        neighbours: columns of the discriminant, shape ``(d,)``.
        axis: its weights, one for each neighbour.
        offset: taken off the score.
        weights: share of the two, shape ``(2,)``.
        means: of the score, shape ``(2,)``.
        variance: of the score.
    """

    neighbours: BoolArray
    axis: FloatArray
    offset: float
    weights: FloatArray
    means: FloatArray
    variance: float

    @property
    def n_columns(self) -> int:
        """Columns that a row has."""
        return len(self.neighbours)

    def scores(self, x: FloatArray) -> FloatArray:
        """Return the score of each row, shape ``(n,)``."""
        return np.asarray(x[:, self.neighbours] @ self.axis - self.offset)

    def __call__(self, x: FloatArray) -> FloatArray:
        """Return the responsibility of both for each row, shape ``(n, 2)``."""
        return shares_of_normals(self.scores(x), self.weights, self.means, self.variance)

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return its numbers by name."""
        return {
            "neighbours": self.neighbours.astype(np.uint8),
            "axis": np.asarray(self.axis, np.float64),
            "offset": np.array(self.offset),
            "weights": self.weights,
            "means": self.means,
            "variance": np.array(self.variance),
        }

    @classmethod
    def of(cls, tensors: Mapping[str, npt.NDArray[np.generic]]) -> Self:
        """Return what :meth:`tensors` described."""
        axis, weights, means = (tensors[name].astype(np.float64) for name in ("axis", "weights", "means"))
        offset, variance = (float(tensors[name]) for name in ("offset", "variance"))
        return cls(tensors["neighbours"].astype(bool), axis, offset, weights, means, variance)


@dataclass(frozen=True, eq=False)
class MixtureAssignment:
    """Clouds in the leading principal components.

    Attributes:
        mean: of the fitted rows, shape ``(d,)``.
        components: directions, shape ``(C, d)``.
        unit: standard deviation along the first, which all scores are divided by.
        weights: share of each cloud, shape ``(K,)``.
        means: of the scores, shape ``(K, C)``.
        variances: as well.
    """

    mean: FloatArray
    components: FloatArray
    unit: float
    weights: FloatArray
    means: FloatArray
    variances: FloatArray

    @property
    def n_columns(self) -> int:
        """Columns that a row has."""
        return len(self.mean)

    def __call__(self, x: FloatArray) -> FloatArray:
        """Return the responsibility of every cloud for each row, shape ``(n, K)``."""
        # centred after the product, as scikit-learn does it
        scores = (x @ self.components.T - self.mean[None] @ self.components.T) / self.unit
        middle = self.weights @ self.means
        parameters = Parameters(self.weights, self.means - middle, self.variances, ())
        return expect(scores - middle, (), parameters)[0]

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return its numbers by name."""
        arrays = {"mean": self.mean, "components": self.components, "weights": self.weights}
        return {**arrays, "means": self.means, "variances": self.variances, "unit": np.array(self.unit)}

    @classmethod
    def of(cls, tensors: Mapping[str, npt.NDArray[np.generic]]) -> Self:
        """Return what :meth:`tensors` described."""
        names = ("mean", "components", "weights", "means", "variances")
        numbers = {name: tensors[name].astype(np.float64) for name in names}
        return cls(unit=float(tensors["unit"]), **numbers)


Assignment = LocalAssignment | MixtureAssignment
ASSIGNMENTS: dict[str, type[LocalAssignment] | type[MixtureAssignment]] = {
    "local": LocalAssignment,
    "mixture": MixtureAssignment,
}


@dataclass(frozen=True, eq=False)
class OrderedAssignment:
    """An assignment whose subgroups have an order: ``S1`` is the largest among the rows of the fit.

    Attributes:
        assign: the two normals, or the clouds.
        order: their places, ``S1`` first, shape ``(K,)``.
    """

    assign: Assignment
    order: IntArray

    @property
    def names(self) -> list[str]:
        """Names of the subgroups."""
        return subgroup_names(len(self.order))

    def __call__(self, x: FloatArray) -> FloatArray:
        """Return the responsibilities of the subgroups in their order, shape ``(n, K)``."""
        return self.assign(x)[:, self.order]


def subgroup_names(count: int) -> list[str]:
    """Return names of subgroups, ``S1`` for the largest."""
    return [f"S{number}" for number in range(1, count + 1)]


def sizes_of(membership: FloatArray) -> IntArray:
    """Return how many rows are most probably in each subgroup, shape ``(K,)``."""
    return np.bincount(membership.argmax(axis=1), minlength=membership.shape[1])


def shares_of_normals(scores: FloatArray, weights: FloatArray, means: FloatArray, variance: float) -> FloatArray:
    """Return the responsibility of normals with one variance for scores, shape ``(n, K)``."""
    with np.errstate(divide="ignore"):
        joint = np.log(weights) - np.square(scores[:, None] - means) / (2 * variance)
    joint = np.exp(joint - joint.max(axis=1, keepdims=True))
    return np.asarray(joint / joint.sum(axis=1, keepdims=True))
