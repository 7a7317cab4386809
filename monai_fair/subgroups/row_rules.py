"""From the numbers of a subject to its row: what is undefined is filled, what is known is taken out.

The rule is made in the fitted subjects, and is the same for every other one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from monai_fair.subgroups.nuisances import LinearEffects, linear_effects
from monai_fair.subgroups.representations import Representation

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
_NUMBERS = {"log_jacobian": "block means", "regional_volumes": "volumes"}


@dataclass(frozen=True, eq=False)
class RowRule:
    """How numbers become rows.

    Attributes:
        kind: of the representation.
        fill: what a number that is undefined takes, shape ``(c,)``; ``None`` where all are defined.
        keep_scale: leave the log of a subject's relative size in its volumes.
        effects: linear effects of size and nuisances that are taken out; ``None`` for none.
    """

    kind: str
    fill: FloatArray | None
    keep_scale: bool
    effects: LinearEffects | None

    def rows(self, values: FloatArray, recorded: FloatArray) -> FloatArray:
        """Return rows, shape ``(n, d)``.

        Args:
            values: numbers of the subjects, shape ``(n, c)``.
            recorded: their nuisances as numbers, shape ``(n, m)``.
        """
        filled = values if self.fill is None else np.where(np.isnan(values), self.fill, values)
        kept, size = apart(self.kind, filled)
        if self.effects is None:
            return kept
        return self.effects.taken_out(kept, recorded if self.keep_scale else np.hstack([size, recorded]))

    def tensors(self) -> dict[str, FloatArray]:
        """Return its numbers by name."""
        own = {} if self.fill is None else {"row_fill": self.fill}
        effects = {} if self.effects is None else self.effects.tensors()
        return own | {f"row_{name}": value for name, value in effects.items()}

    @classmethod
    def of(cls, kind: str, keep_scale: bool, tensors: Mapping[str, npt.NDArray[np.generic]]) -> Self:
        """Return what :meth:`tensors` described."""
        own = {name.removeprefix("row_"): tensors[name].astype(np.float64) for name in tensors if name[:4] == "row_"}
        fill = own.pop("fill", None)
        return cls(kind, fill, keep_scale, LinearEffects(**own) if own else None)


def fit_rule(
    found: Representation, recorded: FloatArray, fitted: BoolArray, *, keep_scale: bool
) -> tuple[RowRule, list[str]]:
    """Return the rule that the fitted subjects make, and what a reader should know of the numbers.

    Args:
        found: numbers of all subjects.
        recorded: their nuisances, shape ``(n, m)``.
        fitted: subjects that the rule is made in, shape ``(n,)``.
        keep_scale: see :class:`RowRule`.
    """
    fill, notes = _fill(found, fitted)
    bare = RowRule(found.kind, fill, keep_scale, None)
    values = found.values if fill is None else np.where(np.isnan(found.values), fill, found.values)
    size = apart(found.kind, values)[1]
    effects = recorded if keep_scale else np.hstack([size, recorded])
    if not effects.shape[1]:
        return bare, notes
    linear = linear_effects(bare.rows(found.values, recorded), effects, fitted)
    return RowRule(found.kind, fill, keep_scale, linear), notes


def apart(kind: str, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the rows, and apart from them the log of the relative size of each brain, if they tell it: one column."""
    if kind == "log_jacobian":
        return values, values.mean(axis=1, keepdims=True)
    if kind == "regional_volumes":
        return values[:, :-1], values[:, -1:]
    return values, np.empty((len(values), 0))


def _fill(rows: Representation, fitted: BoolArray) -> tuple[FloatArray | None, list[str]]:
    """Return the mean of the fitted subjects for what may be undefined, and say how much is."""
    if rows.kind not in _NUMBERS:
        return None, []
    values, undefined = rows.values, np.isnan(rows.values)
    fill = np.where(undefined, 0.0, values)[fitted].sum(axis=0) / np.maximum((~undefined[fitted]).sum(axis=0), 1)
    if not undefined.any():
        return fill, []
    note = (
        f"{rows.kind}: {int(undefined.sum())} of {undefined.size} {_NUMBERS[rows.kind]} are undefined, in "
        f"{int(undefined.any(axis=1).sum())} subjects, and took the mean of the fitted subjects"
    )
    note += ", or 0 where none of them has a value" if undefined[fitted].all(axis=0).any() else ""
    return fill, [note]
