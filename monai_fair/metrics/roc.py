"""ROC curves on a common grid, so that curves of several seeds can be averaged and drawn."""

import numpy as np
from sklearn.metrics import roc_curve

from monai_fair.metrics.arrays import BoolArray, FloatArray

ROC_GRID: tuple[float, ...] = tuple(step / 100 for step in range(101))


def mean_roc(y: BoolArray, scores: FloatArray) -> FloatArray:
    """Return the true positive rate at each false positive rate of ``ROC_GRID``, averaged over seeds.

    Between two thresholds the curve is a straight line; where it rises at one false positive rate, the top
    counts.

    Args:
        y: True for positive, shape ``(N,)``, with both classes.
        scores: shape ``(S, N)``.

    Returns:
        TPR in [0, 1], shape ``(101,)``.
    """
    curves = []
    for score in scores:
        fpr, tpr, _ = roc_curve(y, score, drop_intermediate=False)
        last = np.append(fpr[1:] != fpr[:-1], True)
        curves.append(np.interp(ROC_GRID, fpr[last], tpr[last]))
    return np.asarray(np.mean(curves, axis=0))
