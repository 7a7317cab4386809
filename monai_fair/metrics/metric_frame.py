"""The same metrics as a fairlearn ``MetricFrame``, for those who work with fairlearn."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from monai_fair.data.predictions import Predictions
from monai_fair.errors import MonaiFairError
from monai_fair.metrics.by_group import group_values
from monai_fair.metrics.cases import gather_cases
from monai_fair.metrics.definitions import METRICS
from monai_fair.metrics.groups import group_by

if TYPE_CHECKING:
    from fairlearn.metrics import MetricFrame


def to_metric_frame(
    predictions: Predictions,
    attributes: Sequence[str],
    *,
    metrics: Sequence[str] = tuple(METRICS),
    threshold: float = 0.5,
    split: str = "test",
) -> "MetricFrame":
    """Return a fairlearn ``MetricFrame`` of one binary run, with its plots, ``difference`` and ``ratio``.

    The functions inside are ours, so that a group in which a metric is undefined has NaN, where some of fairlearn's
    give 0. Be aware that ``difference`` and ``ratio`` leave NaN groups out without saying so. A case with a missing
    attribute is left out, because fairlearn refuses it.

    Args:
        predictions: of a binary task.
        attributes: columns that define the groups; with several, fairlearn takes their intersections.
        metrics: keys of ``METRICS``.
        threshold: ``score >= threshold`` is predicted positive.
        split: the part to measure.

    Returns:
        The frame; its columns are the keys.

    Raises:
        MonaiFairError: if a metric is unknown or the task has several classes.
        PredictionsError: with all problems of the predictions.

    References:
        Weerts et al., Fairlearn: Assessing and Improving Fairness of AI Systems, JMLR 2023.
    """
    from fairlearn.metrics import MetricFrame

    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise MonaiFairError(f"metrics: expected some of {', '.join(METRICS)}, got {', '.join(unknown)}")
    if predictions.num_classes != 2:
        raise MonaiFairError(
            f"{predictions.source}: expected a binary task, got {predictions.num_classes} classes; make a frame of "
            "one class against the rest"
        )
    cases = gather_cases({"run": [predictions]}, attributes, split=split)
    inside = group_by(cases.table, attributes).codes >= 0
    table, score = cases.table[inside], cases.runs[0].scores[0, :, -1][inside]
    functions = {name: _function(name, threshold) for name in metrics}
    return MetricFrame(
        metrics=functions, y_true=table["label"], y_pred=score, sensitive_features=table[list(attributes)]
    )


def _function(name: str, threshold: float) -> Callable[[npt.ArrayLike, npt.ArrayLike], float]:
    def measure(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> float:
        y = np.asarray(y_true) == 1
        score, everyone = np.asarray(y_pred, dtype=np.float64), np.zeros(y.size, dtype=np.int64)
        return float(group_values(name, y, score, everyone, 1, threshold=threshold)[0])

    return measure
