"""Records of neural collapse and the SPLIT test as rows of tables.

A row begins with ``names``, what tells the run from others. ``n`` are the samples behind a value, ``n_positive`` the
positives of all samples or of the group.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from monai_fair.metrics import COLLAPSE_MEASURES
from monai_fair.report.quantities import Record

Row = tuple[Any, ...]
MEASURE = ["part", "measure", "group", "value", "reason", "n", "n_positive"]
CONFIGURATION = ["part", "label", "first", "second", "value", "reason"]
SPLIT = ["value", "reason"]
_NC1 = ("nc1_distance", "nc1_normalized", "nc1_pinv")
_COMPARED = ("nc1_distance", "nc1_normalized")
_FRAMES = tuple(name for name in COLLAPSE_MEASURES if name.startswith(("nc2_", "nc3_")))
_DECISIONS = (*(name for name in COLLAPSE_MEASURES if name.startswith("nc4_")), "error")
# By part: measures of all samples, and of each group. Around the train means NC2 and NC3 are those of train.
_CURVES = {
    "train": ((*_NC1, *_FRAMES, *_DECISIONS), _NC1),
    "test": ((*_NC1, *_FRAMES, *_DECISIONS), ()),
    "test_to_train": ((*_NC1, *_DECISIONS), _NC1),
}
_MISLABELLED = ("mislabelled_to_label", "mislabelled_to_other", "mislabelled_ratio")
_AT_CHECKPOINTS = {
    "train": ((*_COMPARED, *_MISLABELLED), ()),
    "test": (_COMPARED, _COMPARED),
    "test_to_train": (_COMPARED, _COMPARED),
}
_OWN_MEANS = ("train", "test")  # parts with means of their own, and so with distances between these


def epoch_rows(names: Row, attribute: str, record: Record) -> Iterator[Row]:
    """Yield the measures of every epoch, behind ``names`` and the epoch; columns :data:`MEASURE`.

    Args:
        names: of the run.
        attribute: whose values are the groups.
        record: of ``neural_collapse.json``.
    """
    for epoch in record["epochs"]:
        for part, wanted in _CURVES.items():
            yield from _rows((*names, epoch["epoch"], part), epoch[part][attribute], *wanted)


def measure_rows(names: Row, attribute: str, record: Record) -> Iterator[Row]:
    """Yield the measures at a checkpoint; columns :data:`MEASURE`.

    Args:
        names: of the run.
        attribute: whose values are the groups.
        record: of ``collapse.json``, as for the following.
    """
    for part, wanted in _AT_CHECKPOINTS.items():
        yield from _rows((*names, part), record["collapse"][attribute][part], *wanted)


def _rows(names: Row, collapse: Record, measures: Sequence[str], by_group: Sequence[str]) -> Iterator[Row]:
    for wanted, own in ((measures, {"name": "", **collapse}), *((by_group, group) for group in collapse["groups"])):
        positives = own["n_by_class"][1]
        for measure in wanted:
            found = own["values"][measure]
            yield (*names, measure, own["name"], found["value"], found["reason"] or "", found["n"], positives)


def configuration_rows(names: Row, attribute: str, record: Record) -> Iterator[Row]:
    """Yield the distances between the means of one class in two groups; columns :data:`CONFIGURATION`."""
    for part in _OWN_MEANS:
        for own in record["collapse"][attribute][part]["configurations"]:
            yield (*names, part, own["label"], *own["groups"], own["value"], own["reason"] or "")


def split_row(names: Row, attribute: str, record: Record) -> Row:
    """Return the AUC of the SPLIT test; columns :data:`SPLIT`."""
    found = record["split_test"][attribute]
    return *names, found["auc"], found["reason"]


def epoch_problems(attribute: str, record: Record) -> list[str]:
    """Say what :func:`epoch_rows` would not find."""
    if not record.get("epochs"):
        return ["expected measures of epochs, found none; train again"]
    return [
        f"epoch {epoch['epoch']}: expected the attribute '{attribute}' in '{part}', found "
        f"{', '.join(epoch.get(part, {})) or 'none'}; train with it among collapse_attributes"
        for epoch in record["epochs"]
        for part in _CURVES
        if attribute not in epoch.get(part, {})
    ][:1]


def checkpoint_problems(attribute: str, record: Record) -> list[str]:
    """Say what the rows of ``collapse.json`` would not find."""
    return [
        f"expected the attribute '{attribute}' in '{kind}', found {', '.join(record.get(kind, {})) or 'none'}; "
        "evaluate with it among collapse_attributes"
        for kind in ("collapse", "split_test")
        if attribute not in record.get(kind, {})
    ]
