"""The features of a model and its last linear layer, beside the scores that they give."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy.special import expit, softmax

from monai_fair.data.artifacts import read_tensors
from monai_fair.data.predictions import Predictions
from monai_fair.errors import ArtifactError, raise_problems
from monai_fair.metrics.arrays import FloatArray
from monai_fair.report.layers import check_owner

LAST_LAYER = ("features", "weight", "bias")
# Scores may have been computed in half precision; more than this is another layer or another table.
_TOLERANCE = 0.02


def read_last_layer(path: Path, predictions: Predictions) -> dict[str, FloatArray]:
    """Read and check the tensors; afterwards features and last layer are known to give the table's scores.

    Args:
        path: ``features.safetensors``.
        predictions: of the table that it belongs to, of two classes.

    Returns:
        ``features`` of shape ``(N, D)``, ``weight`` ``(C, D)`` and ``bias`` ``(C,)``, with one or two logits C.

    Raises:
        ArtifactError: if the file is damaged, belongs to another table, or does not give its scores.
    """
    tensors, metadata = read_tensors(path)
    absent = [f"expected a tensor '{name}', found none; write it" for name in LAST_LAYER if name not in tensors]
    raise_problems(ArtifactError, path, absent)
    check_owner(path, metadata, predictions)
    read = {name: np.asarray(tensors[name], dtype=np.float64) for name in LAST_LAYER}
    raise_problems(ArtifactError, path, _shape_problems(read, len(predictions.table)))
    score = predictions.table[predictions.score_columns[-1]].to_numpy(dtype=np.float64)
    with np.errstate(invalid="ignore"):  # a NaN is refused below
        again = positive_probability(read["features"] @ read["weight"].T + read["bias"])
    worst = float(np.abs(again - score).max())
    if not worst <= _TOLERANCE:
        raise ArtifactError(
            f"{path}: expected features, weight and bias to give the scores of {predictions.source} within "
            f"{_TOLERANCE}, got a difference of {worst:.3f}; write the features that enter the last linear layer"
        )
    return read


def _shape_problems(tensors: Mapping[str, FloatArray], rows: int) -> Iterator[str]:
    features, weight, bias = (tensors[name] for name in LAST_LAYER)
    if features.ndim != 2 or len(features) != rows:
        yield f"expected features of shape ({rows}, D), one row per prediction, got {features.shape}; predict again"
        return
    if weight.ndim != 2 or weight.shape[0] not in (1, 2) or weight.shape[1] != features.shape[1]:
        yield f"expected weight of shape (1 or 2, {features.shape[1]}), got {weight.shape}; write the last layer's"
    elif bias.shape != weight.shape[:1]:
        yield f"expected bias of shape ({weight.shape[0]},), got {bias.shape}; write the last layer's"


def positive_probability(logits: FloatArray) -> FloatArray:
    """Return the probability of class 1 from logits of shape ``(N,)``, ``(N, 1)`` or ``(N, 2)``."""
    columns = logits.reshape(len(logits), -1)
    return np.asarray(softmax(columns, axis=1)[:, 1] if columns.shape[1] == 2 else expit(columns[:, 0]))
