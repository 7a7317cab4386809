"""Neural collapse and the SPLIT test of one model, from the features that its evaluation kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from monai_fair.data import Predictions, read_manifest, read_predictions
from monai_fair.data.artifacts import sha256, write_json
from monai_fair.errors import ArtifactError, raise_problems
from monai_fair.metrics import neural_collapse, split_test
from monai_fair.metrics.arrays import BoolArray, FloatArray
from monai_fair.metrics.neural_collapse_results import NeuralCollapse
from monai_fair.report.last_layer import read_last_layer
from monai_fair.report.layers import FEATURES

KIND = "collapse"
_PARTS = ("train", "test")


def write_collapse_measures(
    predictions: str | Path, manifest: str | Path, attributes: Sequence[str], *, out: str | Path
) -> Path:
    """Measure neural collapse and run the SPLIT test on the features of a model, for each attribute.

    Features of train are measured around their own class means with the labels of ``predictions``, which are those that
    the model learned; features of test around the train means (``test_to_train``: what carries over of the trained
    configuration) and around their own (``test``). The SPLIT test reads each attribute off all of them.

    Args:
        predictions: ``predictions.csv`` with rows of train, val and test, and ``features.safetensors`` beside it.
        manifest: that the model was trained on, with the same labels; where ``clean_label`` differs from ``label`` a
            row counts as mislabelled.
        attributes: whose values are the groups; at least one.
        out: the JSON file to write.

    Returns:
        ``out``, with ``collapse`` and ``split_test`` by attribute; of ``collapse`` each part is a record of
        :class:`monai_fair.metrics.NeuralCollapse`.

    Raises:
        PredictionsError: if the table breaks its contract.
        ManifestError: if the manifest does.
        ArtifactError: if the features or the manifest belong to another table, there are not two classes, or parts or
            attributes are not there.
    """
    table = read_predictions(predictions)
    raise_problems(ArtifactError, predictions, _problems(table, attributes))
    layer = read_last_layer(Path(predictions).with_name(FEATURES), table)
    mislabelled = _mislabelled(table, manifest)
    found = {name: _collapse(table, name, layer, mislabelled) for name in attributes}
    rows = table.table
    split = {
        name: asdict(
            split_test(
                layer["features"], rows[name].tolist(), rows["split"].tolist(), subject=rows["subject_id"].tolist()
            )
        )
        for name in attributes
    }
    content = {
        "predictions_sha256": sha256(predictions),
        "manifest_sha256": sha256(manifest),
        "collapse": {name: {kind: own.record() for kind, own in by.items()} for name, by in found.items()},
        "split_test": split,
    }
    return write_json(out, KIND, content)


def _collapse(
    table: Predictions, attribute: str, layer: Mapping[str, FloatArray], mislabelled: BoolArray | None
) -> dict[str, NeuralCollapse]:
    rows = table.table
    found: dict[str, NeuralCollapse] = {}
    for part in _PARTS:
        inside = (rows["split"] == part).to_numpy(dtype=np.bool_)
        kinds = {part: None} if part == "train" else {part: None, "test_to_train": found["train"].means}
        for kind, means in kinds.items():
            found[kind] = neural_collapse(
                layer["features"][inside],
                rows.loc[inside, "label"].to_numpy(dtype=np.int64),
                weight=layer["weight"],
                bias=layer["bias"],
                groups=rows.loc[inside, attribute].tolist(),
                mislabelled=None if mislabelled is None else mislabelled[inside],
                means=means,
            )
    return found


def _problems(table: Predictions, attributes: Sequence[str]) -> list[str]:
    there = sorted(set(table.table["split"]))
    problems = [
        f"expected rows with split '{part}', found {', '.join(there)}; evaluate with --evaluate_splits "
        "\"['train', 'val', 'test']\""
        for part in ("train", "val", "test")
        if part not in there
    ]
    if table.num_classes != 2:
        problems.append(f"expected two classes, got {table.num_classes}; leave the measures out")
    if isinstance(attributes, str):  # each of its letters would be one
        return [*problems, f"attributes: expected a list such as ['{attributes}'], got '{attributes}'"]
    recorded = ", ".join(table.attributes) or "none"
    if not attributes:
        problems.append(f"attributes: expected at least one ({recorded}), got none; name one")
    return problems + [
        f"expected a recorded attribute ({recorded}), got '{name}'; correct the name"
        for name in attributes
        if name not in table.attributes
    ]


def _mislabelled(table: Predictions, manifest: str | Path) -> BoolArray | None:
    """Say which rows have another label than the clean one; ``None`` where the manifest has no clean labels."""
    own = read_manifest(manifest).table
    names = ["subject_id", "image"]
    found = own.set_index(names).reindex(pd.MultiIndex.from_frame(table.table[names]))
    label, learned = table.table["label"].to_numpy(), found["label"].to_numpy()
    absent = np.isnan(learned)
    counts = {"rows": absent.sum(), "labels": (~absent & (learned != label)).sum()}
    problems = [
        f"expected the {what} of {table.source}, {count} of {len(label)} are not there; give the manifest that was "
        "evaluated"
        for what, count in counts.items()
        if count
    ]
    raise_problems(ArtifactError, manifest, problems)
    return np.asarray(found["clean_label"].to_numpy() != label, dtype=np.bool_) if "clean_label" in found else None
