"""Geometry of class means and of a classifier's rows: how near they are to a frame, and to each other (NC2 and NC3).

Functions of arrays with one row per class; a row of length 0 has no direction and makes the value NaN.

References:
    Papyan, Han, Donoho, PNAS 2020, arXiv:2008.08186. Kothapalli, TMLR 2023, arXiv:2206.04041 (review).
    Sukenik, Mondelli, Lampert, NeurIPS 2023, arXiv:2305.13165.
"""

import numpy as np

from monai_fair.metrics.arrays import FloatArray


def equinorm(rows: FloatArray) -> float:
    """Return ``std_k |v_k| / mean_k |v_k|`` with the population's standard deviation; 0 for rows of one length."""
    norms = np.linalg.norm(rows, axis=1)
    return _ratio(float(norms.std()), float(norms.mean()))


def equiangularity(rows: FloatArray) -> float:
    """Return the mean over pairs of ``|cos(v_k, v_k') + 1 / (K - 1)|``; 0 at the widest equal angles."""
    return float(np.abs(_pair_cosines(rows) + 1 / (len(rows) - 1)).mean())


def mean_cosine(rows: FloatArray) -> float:
    """Return the mean cosine over pairs; 0 for an orthogonal frame, ``-1 / (K - 1)`` for a simplex frame."""
    return float(_pair_cosines(rows).mean())


def frame_error(first: FloatArray, second: FloatArray) -> float:
    """Return ``| A B^T / |A B^T|_F - (I - 1 1^T / K) / sqrt(K - 1) |_F``; 0 for a simplex frame and its multiple.

    Args:
        first: ``A``, shape ``(K, d)``.
        second: ``B``, shape ``(K, d)``: the same for a frame (NC2), a classifier for self-duality (NC3).
    """
    size = len(first)
    products = first @ second.T
    length = float(np.linalg.norm(products))
    if length == 0:
        return float("nan")
    simplex = (np.eye(size) - 1 / size) / np.sqrt(size - 1)
    return float(np.linalg.norm(products / length - simplex))


def singular_value_ratio(rows: FloatArray) -> float:
    """Return the largest over the smallest of the ``K`` singular values; 1 for an orthogonal frame of one length.

    NaN where the smallest is 0 or rounding, as with fewer features than classes.
    """
    singular = np.linalg.svd(rows, compute_uv=False)
    if len(singular) < len(rows) or singular[-1] <= singular[0] * np.finfo(np.float64).eps * max(rows.shape):
        return float("nan")
    return float(singular[0] / singular[-1])


def balance(rows: FloatArray) -> float:
    """Return ``|sum_k v_k| / sum_k |v_k|``; 0 for rows that cancel each other, 1 for rows of one direction."""
    return _ratio(float(np.linalg.norm(rows.sum(axis=0))), float(np.linalg.norm(rows, axis=1).sum()))


def direction_distance(first: FloatArray, second: FloatArray) -> float:
    """Return the mean over classes of ``| a_k / |a_k| - b_k / |b_k| |``; 0 for equal directions, 2 for opposed ones."""
    return float(np.linalg.norm(_directions(first) - _directions(second), axis=1).mean())


def direction_cosine(first: FloatArray, second: FloatArray) -> float:
    """Return the mean over classes of ``cos(a_k, b_k)``; 1 for equal directions."""
    return float((_directions(first) * _directions(second)).sum(axis=1).mean())


def matrix_distance(first: FloatArray, second: FloatArray) -> float:
    """Return ``| A / |A|_F - B / |B|_F |_F^2``; 0 for multiples of each other, at most 4."""
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    if 0 in lengths:
        return float("nan")
    return float(((first / lengths[0] - second / lengths[1]) ** 2).sum())


def weighted_sine(weights: FloatArray, rows: FloatArray) -> float:
    """Return the mean over classes of ``sin angle(w_k, v_k)`` weighted by ``|w_k|``; 0 for equal or opposed ones."""
    lengths = np.linalg.norm(weights, axis=1)
    along, other = _directions(weights), _directions(rows)
    # the length of what is left beside the direction: exact for small angles, where 1 - cos^2 is rounding
    sines = np.linalg.norm(along - (along * other).sum(axis=1, keepdims=True) * other, axis=1)
    return _ratio(float((lengths * sines).sum()), float(lengths.sum()))


def _pair_cosines(rows: FloatArray) -> FloatArray:
    directions = _directions(rows)
    first, second = np.triu_indices(len(rows), 1)
    cosines: FloatArray = (directions[first] * directions[second]).sum(axis=1)
    return cosines


def _directions(rows: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=np.full(rows.shape, np.nan), where=lengths > 0))


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else float("nan")
