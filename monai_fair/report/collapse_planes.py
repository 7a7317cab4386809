"""Train features of a biased run in the plane: what the mislabelled do, early and in the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_fair.data import read_manifest, read_predictions
from monai_fair.errors import ArtifactError
from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.report.collapse_tables import CHECKPOINTS, EARLY, LABELS, PREDICTIONS, experiment_name
from monai_fair.report.last_layer import read_last_layer
from monai_fair.report.layers import FEATURES
from monai_fair.report.quantities import Record

_MOST = 400  # points of a picture
_ROW = ["subject_id", "image"]


def read_planes(experiment: Mapping[str, Any]) -> list[Record]:
    """Return the picture of the first seed of the biased arm, at both checkpoints.

    Args:
        experiment: of :attr:`monai_fair.engines.CollapseStudies.experiments`.

    Returns:
        ``experiment``, ``seed``, ``checkpoint``; ``points`` of :func:`project_features`, at most 400, drawn with a
        fixed seed: all mislabelled samples, but no more than half of the places, and others for the rest; their
        ``label``, ``clean_label``, and ``in_group``, whether they are of the under-diagnosed group; ``means`` of the
        two classes; ``n`` and ``n_mislabelled`` of all samples; ``reason``, why there is no point, else empty.

    Raises:
        ArtifactError: if features belong to another table, or the labels to another one.
    """
    runs = experiment["runs"]["biased"]
    clean = read_manifest(Path(runs[EARLY][0]) / LABELS).table.set_index(_ROW)["clean_label"]
    return [_plane(experiment, checkpoint, Path(runs[checkpoint][0]), clean) for checkpoint in CHECKPOINTS]


def _plane(experiment: Mapping[str, Any], checkpoint: str, folder: Path, clean: pd.Series) -> Record:
    predictions = read_predictions(folder / PREDICTIONS)
    train = (predictions.table["split"] == "train").to_numpy(dtype=np.bool_)
    rows = predictions.table[train]
    truth = clean.reindex(pd.MultiIndex.from_frame(rows[_ROW]))
    if truth.isna().any():
        raise ArtifactError(
            f"{folder / PREDICTIONS}: expected the rows of {LABELS}, {int(truth.isna().sum())} others are there; "
            "evaluate again"
        )
    label, clean_label = rows["label"].to_numpy(dtype=np.int64), truth.to_numpy(dtype=np.int64)
    wrong = label != clean_label
    features = read_last_layer(folder / FEATURES, predictions)["features"][train]
    points, reason = project_features(features, label)
    chosen = _drawn(wrong) if not reason else np.zeros(0, dtype=np.int64)
    return {
        "experiment": experiment_name(experiment),
        "seed": experiment["seeds"][0],
        "checkpoint": checkpoint,
        "points": points[chosen].tolist(),
        "label": label[chosen].tolist(),
        "clean_label": clean_label[chosen].tolist(),
        "in_group": (rows[experiment["attribute"]] == str(experiment["group"])).to_numpy()[chosen].tolist(),
        "means": [] if reason else [[0.0, 0.0], [1.0, 0.0]],
        "n": len(label),
        "n_mislabelled": int(wrong.sum()),
        "reason": reason,
    }


def project_features(features: FloatArray, label: IntArray) -> tuple[FloatArray, str]:
    """Return features in the plane of their two class means and of the widest spread beside them.

    The first axis leads from ``mu_0`` at 0 to ``mu_1`` at 1. The second, in the same unit, is the first principal
    direction of what is left of ``h_i - mu_{y_i}`` beside the first axis; its sign makes its largest entry positive.

    Args:
        features: shape ``(n, d)``.
        label: 0 or 1, shape ``(n,)``.

    Returns:
        Points, shape ``(n, 2)``, all on the first axis where nothing is left; and why there is no such plane, else
        empty.
    """
    nowhere = np.full((len(features), 2), np.nan)
    if set(np.unique(label)) != {0, 1}:
        return nowhere, "train has samples of one label only"
    means = np.stack([features[label == number].mean(axis=0) for number in (0, 1)])
    unit = float(np.linalg.norm(means[1] - means[0]))
    if unit <= np.finfo(np.float64).eps * float(np.abs(means).max()):
        return nowhere, "the class means coincide"
    along = (means[1] - means[0]) / unit
    beside = features - means[label]
    beside = beside - np.outer(beside @ along, along)
    # of d x d entries, however many samples there are; eigenvalues ascend
    across = np.linalg.eigh(beside.T @ beside)[1][:, -1]
    across = across - (across @ along) * along  # where nothing is left it is any direction, also the first one
    length = float(np.linalg.norm(across))
    across = across * (np.sign(across[np.abs(across).argmax()]) / length) if length > 0.5 else np.zeros_like(along)
    return (features - means[0]) @ np.stack([along, across], axis=1) / unit, ""


def _drawn(wrong: BoolArray) -> IntArray:
    """Draw the samples that are shown, in their order."""
    generator = np.random.default_rng(0)
    marked, others = (generator.permutation(np.flatnonzero(rows)) for rows in (wrong, ~wrong))
    marked = marked[: _MOST // 2]
    return np.sort(np.concatenate([marked, others[: _MOST - len(marked)]]))
