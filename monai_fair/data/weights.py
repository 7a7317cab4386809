"""Class weights from the training rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_fair.errors import ManifestError


def class_weights(
    datalist: Sequence[dict[str, Any]], scheme: str | Sequence[float] | None, *, num_classes: int = 2
) -> list[float] | None:
    """Return one weight per class for a loss.

    Args:
        datalist: training items with an integer ``label``.
        scheme: ``None`` (no weights), ``"balanced"`` (``n / (num_classes * n_c)``, scikit-learn's rule), or the
            weights themselves.
        num_classes: number of classes.

    Returns:
        The weights, or ``None``.

    Raises:
        ManifestError: if a class has no training row, or the number of weights is not ``num_classes``.
    """
    if scheme is None:
        return None
    if scheme == "balanced":
        counts = np.bincount([int(item["label"]) for item in datalist], minlength=num_classes)
        if (counts == 0).any():
            raise ManifestError(f"class_weights: expected training rows of every class, got counts {counts.tolist()}")
        return [float(weight) for weight in counts.sum() / (num_classes * counts)]
    weights = None if isinstance(scheme, str) else [float(weight) for weight in scheme]
    if weights is None or len(weights) != num_classes:
        raise ManifestError(f"class_weights: expected null, 'balanced' or {num_classes} weights, got {scheme!r}")
    return weights
