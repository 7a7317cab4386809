"""Metrics of the order of scores, from score counts: how many samples of each class have each score.

Score counts have shape ``(..., 2, K)``, indexed ``[y, k]`` with the K distinct scores in ascending order. They may be
sums of sample weights, so one definition serves values, weighted values, resamples and shuffles.
"""

import numpy as np

from monai_fair.metrics.arrays import FloatArray


def area_under_roc(counts: FloatArray) -> FloatArray:
    """Return the area under the ROC curve: how often a positive has a higher score than a negative.

    0.5 means that they are ranked like coins, 1 that every positive stands above every negative; a tie counts
    half. NaN without a positive or without a negative.

    Args:
        counts: score counts, shape ``(..., 2, K)``.

    Returns:
        Values in [0, 1], shape ``(...)``.

    References:
        Hanley and McNeil, The meaning and use of the area under a ROC curve, Radiology 1982.
    """
    negatives, positives = counts[..., 0, :], counts[..., 1, :]
    below = negatives.cumsum(axis=-1) - negatives / 2
    with np.errstate(invalid="ignore"):
        return np.asarray((positives * below).sum(axis=-1) / (positives.sum(axis=-1) * negatives.sum(axis=-1)))


def average_precision(counts: FloatArray) -> FloatArray:
    """Return ``sum_k (R_k - R_{k-1}) P_k`` over descending thresholds: the area under the precision-recall steps.

    Its value for scores without information is the prevalence, so groups of different prevalence differ in it even if
    they are ranked alike; 1 means that every positive stands above every negative. NaN without a positive.

    Args:
        counts: score counts, shape ``(..., 2, K)``.

    Returns:
        Values in [0, 1], shape ``(...)``.

    References:
        scikit-learn's ``average_precision_score``.
    """
    positives = counts[..., 1, ::-1]
    true_positives = positives.cumsum(axis=-1)
    predicted = counts.sum(axis=-2)[..., ::-1].cumsum(axis=-1)
    precision = true_positives / np.where(predicted > 0, predicted, 1)
    with np.errstate(invalid="ignore"):
        return np.asarray((positives * precision).sum(axis=-1) / positives.sum(axis=-1))
