"""How far each group's scores are shifted against the others', within the classes."""

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from sklearn.linear_model import BayesianRidge

from monai_fair.metrics.arrays import BoolArray, FloatArray
from monai_fair.metrics.thresholds import ThresholdMethod, search_threshold

_FLOOR = 1e-7  # a score of exactly 0 or 1 has no logit; float32 has no probability between this and 1


def group_shifts(positive: BoolArray, value: FloatArray, codes: npt.NDArray[np.integer]) -> FloatArray:
    """Return the shift of each group's logits, from cases of both classes.

    The model is ``logit(score) = m_class + a_group + noise``, with ``a_group`` normal: a random intercept for each
    group. Its variance and that of the noise are those of largest evidence, so that a group of few cases is drawn to
    no shift, the more the less the groups differ.

    Args:
        positive: True for positive, shape ``(N,)``.
        value: scores in [0, 1], shape ``(N,)``.
        codes: group of each row, 0 to ``G - 1``; -1 where it is not known, shape ``(N,)``.

    Returns:
        Shape ``(G,)``, in logits.

    References:
        MacKay, Bayesian interpolation, Neural Computation 1992 (the evidence).
    """
    known = codes >= 0
    order = np.lexsort((value[known], positive[known], codes[known]))  # sums must not depend on the order of rows
    group, truth, score = codes[known][order], positive[known][order], value[known][order]
    count = int(codes.max(initial=-1)) + 1
    target = logit(np.clip(score, _FLOOR, 1 - _FLOOR))
    member = (group[:, None] == np.arange(count)).astype(np.float64)
    for label in (False, True):  # what the class explains is taken out of both sides
        rows = truth == label
        if rows.any():
            target[rows] -= target[rows].mean()
            member[rows] -= member[rows].mean(axis=0)
    if not np.any(member) or not np.any(target):
        return np.zeros(count)
    return np.asarray(BayesianRidge(fit_intercept=False).fit(member, target).coef_, dtype=np.float64)


def shifted_thresholds(
    positive: BoolArray,
    value: FloatArray,
    codes: npt.NDArray[np.integer],
    method: ThresholdMethod,
    target: float | None,
) -> FloatArray:
    """Return the threshold that each group would have if groups differed by a shift alone.

    All rows are brought together by taking the shifts off, one threshold is found, and each group's shift is put back.

    Args:
        positive: see :func:`group_shifts`, as for the next two.
        value: see there.
        codes: see there.
        method: see :func:`find_threshold`.
        target: see there.

    Returns:
        Shape ``(G,)``, in [0, 1]; NaN where the rows have no threshold.
    """
    shifts = group_shifts(positive, value, codes)
    known = codes >= 0
    together = logit(np.clip(value[known], _FLOOR, 1 - _FLOOR)) - shifts[codes[known]]
    common, _ = search_threshold(positive[known], together, method, target)
    return np.asarray(expit(common + shifts))
