"""The last linear layer of a classifier as one row of weights per class, whatever its number of logits."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.arrays import FloatArray


@dataclass(frozen=True)
class LinearHead:
    """Weights of a last layer by class.

    Attributes:
        weight: ``W``, rows ``w_k``, shape ``(K, d)``.
        bias: shape ``(K,)``.
        one_logit: whether they were made of a single logit, so that ``w_0 = -w_1``.
    """

    weight: FloatArray
    bias: FloatArray
    one_logit: bool

    @property
    def finite(self) -> bool:
        """Whether all weights are finite."""
        return bool(np.isfinite(self.weight).all() and np.isfinite(self.bias).all())

    def predicted(self, features: FloatArray) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the classes chosen with the bias and without it, each of shape ``(B,)``; the first of equal ones.

        ``argmax_k (w_k . h + b_k)`` and ``argmax_k w_k . h`` of each row ``h`` of the features.
        """
        logits = features @ self.weight.T
        return (logits + self.bias).argmax(axis=1), logits.argmax(axis=1)


def linear_head(weight: npt.ArrayLike, bias: npt.ArrayLike | None = None) -> LinearHead:
    """Return a last layer by class; a single logit ``w . h + b`` gives ``(-w / 2, w / 2)`` and ``(-b / 2, b / 2)``.

    The halves give the same decision, ``w . h + b > 0``, and their softmax is the sigmoid of the logit.

    Args:
        weight: shape ``(K, d)``, or ``(1, d)`` or ``(d,)`` for a single logit.
        bias: shape ``(K,)``, ``(1,)`` or a number; ``None`` is 0.

    Raises:
        MonaiFairError: if shapes do not fit.
    """
    rows = np.atleast_2d(np.asarray(weight, dtype=np.float64))
    offsets = np.zeros(len(rows)) if bias is None else np.atleast_1d(np.asarray(bias, dtype=np.float64))
    problems = []
    if rows.ndim != 2 or not rows.size:
        problems.append(f"weight: expected shape (K, d) or (1, d), got {rows.shape}; give the last layer's")
    elif offsets.shape != (len(rows),):
        problems.append(f"bias: expected shape ({len(rows)},), got {offsets.shape}; give the last layer's")
    raise_problems(MonaiFairError, "neural collapse", problems)
    if len(rows) > 1:
        return LinearHead(rows, offsets, one_logit=False)
    return LinearHead(np.vstack([-rows, rows]) / 2, np.array([-offsets[0], offsets[0]]) / 2, one_logit=True)
