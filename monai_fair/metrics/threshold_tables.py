"""Thresholds of tables of predictions: fitted on one part, stored beside the model, written into other tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from monai_fair.data import read_predictions, sha256, write_predictions
from monai_fair.data.artifacts import read_tensors, write_tensors
from monai_fair.data.tables import read_table
from monai_fair.errors import MonaiFairError, PredictionsError
from monai_fair.metrics.group_thresholds import Thresholds, Towards, fit_thresholds
from monai_fair.metrics.rules import fitted_rule
from monai_fair.metrics.threshold_files import read_thresholds, write_thresholds

_BOUND = "predictions_sha256"
_BESIDE = ("features.safetensors", "layers.safetensors")


def store_thresholds(
    predictions: str | Path,
    out: str | Path,
    *,
    rule: str = "youden",
    by: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    split: str = "val",
    min_count: int = 10,
    shrinkage: float = 10.0,
    towards: Towards = "pooled",
) -> Thresholds:
    """Choose thresholds on one part of a table of predictions and store them with their counts.

    Args:
        predictions: the table, of two classes.
        out: the JSON file to write.
        rule: how they are chosen, such as ``youden``, ``sensitivity=0.9``, or ``"min_gap by sex+age_group"``, one for
            each group.
        by: for a rule without ``by``: the attributes whose joint groups have one each.
        columns: the file's own names; see :func:`monai_fair.data.read_predictions`.
        split: the part to look at; the test part is refused. FairREAD's published protocol takes ``train``, with
            ``min_count`` 1 and ``shrinkage`` 0.
        min_count: positives and negatives a group needs for a threshold of its own.
        shrinkage: positives or negatives at which a group's own threshold weighs one half.
        towards: what it is drawn towards; see :class:`monai_fair.metrics.ThresholdFitter`.

    Returns:
        The thresholds.

    Raises:
        MonaiFairError: if the rule is none that is fitted, or the table has several classes.
    """
    chosen = fitted_rule(f"{rule} by {'+'.join(by)}" if by else rule)
    assert chosen.method is not None
    table = read_predictions(predictions, columns=columns)
    if table.num_classes != 2:
        raise MonaiFairError(f"{predictions}: expected a binary task, got {table.num_classes} classes")
    fitted = fit_thresholds(
        table.table,
        table.score_columns[-1],
        split=split,
        method=chosen.method,
        target=chosen.target,
        attributes=chosen.attributes,
        min_count=min_count,
        shrinkage=shrinkage,
        towards=towards,
    )
    write_thresholds(out, fitted, source=predictions)
    return fitted


def write_threshold_column(predictions: str | Path, thresholds: str | Path, *, labelled: bool = True) -> Path:
    """Write the threshold of every row into a table of predictions, as the column ``threshold``.

    An audit applies it by the rule ``given``; ``score >= threshold`` says which rows are positive. ``features`` and
    ``layers.safetensors`` beside the table stay those of the table.

    Args:
        predictions: the table, which is replaced.
        thresholds: file of :func:`store_thresholds`.
        labelled: see :func:`monai_fair.data.write_predictions`.

    Returns:
        ``predictions``.

    Raises:
        MonaiFairError: if a row has no threshold, or the table lacks an attribute.
    """
    stored, table = read_thresholds(thresholds), read_table(predictions, PredictionsError)
    values = stored.for_groups(table)
    if lacking := int(np.isnan(values).sum()):
        reasons = [stored.reason, *(f"{group.name}: {group.reason}" for group in stored.groups)]
        raise MonaiFairError(
            f"{predictions}: expected a threshold for every row, {thresholds} has none for {lacking} of {len(values)} "
            f"({'; '.join(reason for reason in reasons if reason)}); fit them on more rows"
        )
    before = sha256(predictions)
    path = write_predictions(predictions, table.assign(threshold=values), labelled=labelled)
    for beside in (path.with_name(name) for name in _BESIDE):
        if beside.is_file():
            tensors, metadata = read_tensors(beside)
            if metadata.get(_BOUND) == before:  # no row has moved
                write_tensors(beside, tensors, {**metadata, _BOUND: sha256(path)})
    return path
