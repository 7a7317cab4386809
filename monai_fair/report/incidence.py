"""Neuron incidence of one seed, from the features its predictions were made of: which channels carry them.

Beside ``predictions.csv`` stands ``features.safetensors``: ``features`` (N, D) in the row order of the table,
``weight`` (C, D) and ``bias`` (C,) of the last linear layer, and the table's hash as ``predictions_sha256``.

References:
    Shoby, Palmer, Kurian, Neuron Incidence Redistribution, arXiv 2605.19393.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from monai_fair.data.predictions import Predictions
from monai_fair.errors import MonaiFairError
from monai_fair.metrics import (
    ablate_channel,
    channel_incidence,
    coactivation,
    concentration,
    confusion_counts,
    group_by,
    rate,
)
from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.report.last_layer import LAST_LAYER, positive_probability, read_last_layer
from monai_fair.report.quantities import Record

# The roles of channels: the plain argmax can name one channel that is always on twice, the contrast does not.
ROLES: dict[str, str] = {
    "positive": "hard_positive",
    "negative": "hard_negative",
    "contrast positive": "hard_contrast_positive",
    "contrast negative": "hard_contrast_negative",
}


def incidence_section(
    predictions: Predictions,
    features_path: str | Path,
    threshold: float,
    attributes: Sequence[str],
    *,
    split: str = "test",
) -> Record:
    """Return the neuron incidence of one seed of a binary task: concentration, channels, co-activation, ablation.

    Args:
        predictions: as read from the file that the features belong to.
        features_path: the safetensors file.
        threshold: a score at or above it is a positive prediction.
        attributes: columns whose groups are compared; cases with an empty cell are left out of that attribute.
        split: the part that is used.

    Returns:
        ``n``, ``threshold``, ``concentration`` (one row for positive and one for negative predictions),
        ``channels`` (one row per role), ``coactivation`` and ``ablation`` (rows per channel and group).

    Raises:
        ArtifactError: if the file is missing, damaged, belongs to another table, or does not give its scores.
        MonaiFairError: if the task is not binary.
    """
    if predictions.num_classes != 2:
        raise MonaiFairError(
            f"{predictions.source}: expected a binary task for neuron incidence, got {predictions.num_classes} "
            "classes; leave the features out"
        )
    tensors = read_last_layer(Path(features_path), predictions)
    score = predictions.table[predictions.score_columns[-1]].to_numpy(dtype=np.float64)
    inside = (predictions.table["split"] == split).to_numpy()
    table, features = predictions.table[inside], tensors["features"][inside]
    found = channel_incidence(features, score[inside], threshold=threshold)
    channels = {role: found.dominant[key] for role, key in ROLES.items()}
    return {
        "n": int(inside.sum()),
        "threshold": float(threshold),
        "concentration": [
            {"direction": side, **concentration(means).as_dict()}
            for side, means in (("positive", found.soft_positive), ("negative", found.soft_negative))
        ],
        "channels": [{"role": role, "channel": channel} for role, channel in channels.items()],
        "reasons": found.reasons,
        "coactivation": list(_coactivation(table, features, channels, attributes)),
        "ablation": list(_ablation(table, {**tensors, "features": features}, channels, threshold, attributes)),
    }


def combine_seeds(sections: Mapping[str, Record]) -> Record:
    """Return the sections of a run's seeds as one: every row carries its ``seed``."""
    keys = ("concentration", "channels", "coactivation", "ablation")
    combined: Record = {
        key: [{"seed": seed, **row} for seed, section in sections.items() for row in section[key]] for key in keys
    }
    heads = [
        {"seed": seed, **{key: part[key] for key in ("n", "threshold", "reasons")}} for seed, part in sections.items()
    ]
    return {"seeds": heads, **combined}


def _coactivation(
    table: pd.DataFrame, features: FloatArray, channels: Mapping[str, int | None], attributes: Sequence[str]
) -> Iterator[Record]:
    y = table["label"].to_numpy()
    values = {name: table[name].tolist() for name in attributes}
    for role, channel in channels.items():
        if channel is None:
            continue
        for cell in coactivation(features, channel, y, values).as_dict()["cells"]:
            yield {"role": role, "channel": channel, **cell}


def _ablation(
    table: pd.DataFrame,
    tensors: Mapping[str, FloatArray],
    channels: Mapping[str, int | None],
    threshold: float,
    attributes: Sequence[str],
) -> Iterator[Record]:
    features, weight, bias = (tensors[name] for name in LAST_LAYER)
    y = (table["label"] == 1).to_numpy()
    before = positive_probability(features @ weight.T + bias) >= threshold
    everyone = np.zeros(len(y), dtype=np.int64)
    grouped: list[tuple[str, tuple[str, ...], IntArray]] = [("", ("everyone",), everyone)]
    for name in attributes:
        grouping = group_by(table, [name])
        grouped.append((name, grouping.names, grouping.codes))
    for role, channel in channels.items():
        if channel is None:
            continue
        after = positive_probability(ablate_channel(features, weight, bias, channel, replace="zero")) >= threshold
        for attribute, names, codes in grouped:
            for row in _rates(y, before, after, codes, names):
                yield {"role": role, "channel": channel, "attribute": attribute, **row}


def _rates(
    y: BoolArray, before: BoolArray, after: BoolArray, codes: IntArray, names: Sequence[str]
) -> Iterator[Record]:
    counts = {
        when: confusion_counts(y, y_pred, codes, len(names)) for when, y_pred in (("before", before), ("after", after))
    }
    for index, name in enumerate(names):
        negative, positive = counts["before"][index].sum(axis=1).tolist()
        row: Record = {"group": name, "n": negative + positive, "n_positive": positive, "n_negative": negative}
        row["tpr_reason"] = None if positive else "no positive in this group"
        row["fpr_reason"] = None if negative else "no negative in this group"
        for when, count in counts.items():
            row[f"tpr_{when}"] = float(rate("tpr", count[index]))
            row[f"fpr_{when}"] = float(rate("fpr", count[index]))
        yield row
