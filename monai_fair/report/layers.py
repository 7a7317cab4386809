"""Features of a model's layers beside its predictions: which file there is, and whether it belongs to them.

``layers.safetensors`` has one tensor ``(N, d)`` per layer, rows in the order of ``predictions.csv``;
``features.safetensors`` has the input of the last linear layer as ``features``. Both carry the table's hash as
``predictions_sha256``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_fair.data.artifacts import read_tensors, sha256
from monai_fair.data.predictions import Predictions
from monai_fair.errors import ArtifactError, raise_problems
from monai_fair.metrics.groups import natural_order

LAYERS = "layers.safetensors"
FEATURES = "features.safetensors"
Layers = dict[str, npt.NDArray[Any]]


def layer_file(predictions: Predictions) -> Path | None:
    """Return the file of layers beside a table; else that of the features; else None."""
    folder = Path(predictions.source).parent
    return next((path for path in (folder / LAYERS, folder / FEATURES) if path.is_file()), None)


def read_layers(path: str | Path, predictions: Predictions) -> Layers:
    """Read and check the features of every layer.

    Args:
        path: ``layers.safetensors``, or ``features.safetensors``, of which only ``features`` is a layer.
        predictions: of the table that they belong to.

    Returns:
        Tensors of shape ``(N, d)`` by name of the layer, in natural order.

    Raises:
        ArtifactError: if the file is damaged, belongs to another table, or has a tensor of another shape or with values
            that are not finite; all of these at once.
    """
    file = Path(path)
    tensors, metadata = read_tensors(file)
    check_owner(file, metadata, predictions)
    if file.name == FEATURES:
        tensors = {name: tensor for name, tensor in tensors.items() if name == "features"}
    raise_problems(ArtifactError, file, _problems(tensors, len(predictions.table)))
    return {name: tensors[name] for name in sorted(tensors, key=natural_order)}


def check_owner(path: Path, metadata: Mapping[str, str], predictions: Predictions) -> None:
    """Refuse tensors that were written with another table of predictions.

    Args:
        path: the file of the tensors.
        metadata: of its header.
        predictions: the table.

    Raises:
        ArtifactError: naming both files.
    """
    expected = sha256(predictions.source)
    if metadata.get("predictions_sha256") != expected:
        raise ArtifactError(
            f"{path}: expected predictions_sha256 {expected} of {predictions.source}, got "
            f"{metadata.get('predictions_sha256', 'none')}; predict again, so that both files are of one run"
        )


def _problems(tensors: Mapping[str, npt.NDArray[Any]], rows: int) -> Iterator[str]:
    if not tensors:
        yield "expected the tensor of a layer, found none; predict again"
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or len(tensor) != rows or not tensor.shape[1]:
            yield (
                f"layer '{name}': expected shape ({rows}, d), one row per prediction, got {tensor.shape}; predict again"
            )
        elif not np.issubdtype(tensor.dtype, np.floating) or not bool(np.isfinite(tensor).all()):
            yield f"layer '{name}': expected finite numbers, got others; check the run that wrote them"
