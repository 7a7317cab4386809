"""``predictions.csv``: the waist between any model and the audit.

Columns: ``subject_id``, ``image``, ``split`` (train, val or test), ``label`` (class index), ``score`` in
[0, 1] (several classes: ``score_0``, ``score_1``, ...), optionally ``image_id`` and ``threshold`` (a number);
every other column is an attribute. An empty attribute cell is a missing value. A label may be written as a whole
number, such as ``1.0``, and with two classes also as ``False`` or ``True``, as pandas and Parquet write booleans.

A file of another tool may have other names (``columns``) and lack ``split`` and, with one row per subject,
``image``: see :func:`read_predictions`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from monai_fair.data.splits import subjects_in_several_parts
from monai_fair.data.tables import describe_cells, read_table, write_table
from monai_fair.errors import PredictionsError, raise_problems

SPLITS = ("train", "val", "test")
_REQUIRED = ("subject_id", "image", "split", "label")
_RESERVED = (*_REQUIRED, "image_id", "threshold")
_SPLIT_WORDS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing"})
_NO_SPLIT = "no column 'split': every row is taken as a test row"
_NO_IMAGE = "no column 'image', and one row per subject: the subject_id is taken as the image"


@dataclass(frozen=True)
class Predictions:
    """Scores of one run, checked.

    Attributes:
        table: ``subject_id``, ``image``, ``split`` and attributes as text, ``label`` as int, score columns and
            ``threshold`` (when there is one) as float.
        score_columns: ``("score",)`` for a binary task, else ``("score_0", ..., "score_K-1")``.
        attributes: the attribute columns, in file order.
        source: the file they came from.
        notes: what was assumed where the file says nothing, one sentence each.
    """

    table: pd.DataFrame
    score_columns: tuple[str, ...]
    attributes: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes: 2 for a single score column."""
        return max(2, len(self.score_columns))


def score_names(num_scores: int) -> tuple[str, ...]:
    """Return the score columns of a model with ``num_scores`` outputs."""
    return ("score",) if num_scores == 1 else tuple(f"score_{index}" for index in range(num_scores))


def is_score_column(name: str) -> bool:
    """Say whether a column has the name of a score: ``score``, ``score_0``, ``score_1``, ..."""
    return re.fullmatch(r"score(_[0-9]+)?", name) is not None


def write_predictions(path: str | Path, table: pd.DataFrame, *, labelled: bool = True) -> Path:
    """Check ``table`` against the contract and write it.

    Args:
        path: the file to write.
        table: the columns of the contract; missing cells are empty or NaN.
        labelled: ask for labels and splits; without it the cells may be empty, and the file cannot be audited.

    Raises:
        PredictionsError: if the table breaks the contract; nothing is written then.
    """
    check_predictions(table.astype(str).where(table.notna(), ""), str(path), labelled=labelled)
    return write_table(path, table)


def read_predictions(path: str | Path, *, columns: Mapping[str, str] | None = None) -> Predictions:
    """Read and check a table of predictions, in CSV (also with gzip) or Parquet, from any tool.

    A file without ``split`` is taken as test rows. A file without ``image`` is taken as one image per subject, which
    is an error if a subject has several rows. ``notes`` of the result says so.

    Args:
        path: the file; see :func:`monai_fair.data.tables.read_table`.
        columns: the file's own name for a column of the contract, such as ``{"subject_id": "PatientID", "score":
            "prob"}``. Columns that are not named keep their names.

    Returns:
        The checked predictions.

    Raises:
        PredictionsError: with every problem of the names, else with every problem of the file.
    """
    table = read_table(path, PredictionsError)
    raise_problems(PredictionsError, path, _name_problems(table, columns or {}))
    named = table.rename(columns={there: ours for ours, there in (columns or {}).items()})
    raise_problems(PredictionsError, path, _hidden_splits(named))
    completed, notes = _completed(named)
    return replace(check_predictions(completed, str(path)), notes=notes)


def _name_problems(table: pd.DataFrame, columns: Mapping[str, str]) -> Iterator[str]:
    """Say what is wrong with the file's own names of columns; nothing may be lost or used for two things."""
    found = ", ".join(map(str, table.columns))
    uses = Counter(columns.values())
    for ours, there in columns.items():
        if ours not in _RESERVED and not is_score_column(ours):
            yield f"'{ours}={there}': expected one of {', '.join(_RESERVED)}, score or score_0, ... before the '='"
        if there not in table:
            yield f"'{ours}={there}': expected a column '{there}', found {found}; choose among these"
        elif ours in table and ours not in uses:
            yield f"'{ours}={there}': the file has a column '{ours}' too; rename or remove it, or use it as it is"
    for there, count in uses.items():
        if count > 1:
            names = ", ".join(ours for ours, other in columns.items() if other == there)
            yield f"column '{there}': expected one use, got {count} ({names}); keep one"


def _hidden_splits(table: pd.DataFrame) -> Iterator[str]:
    """Name columns that hold a split under another name: training rows must not be taken for test rows in silence."""
    for column in table.columns if "split" not in table else ():
        values = {value.lower() for value in table[column].unique()} - {""}
        if values and values <= _SPLIT_WORDS and values != {"test"}:
            yield (
                f"expected a column 'split', found none, and '{column}' holds {', '.join(sorted(values))}; map it with "
                f"columns split={column} (values {', '.join(SPLITS)}), or remove it to take every row as a test row"
            )


def _completed(table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Add what another tool's file may lack, and say so."""
    notes = []
    if "split" not in table:
        table = table.assign(split="test")
        notes.append(_NO_SPLIT)
    if "image" not in table and "subject_id" in table and table["subject_id"].is_unique:
        table = table.assign(image=table["subject_id"])
        notes.append(_NO_IMAGE)
    return table, tuple(notes)


def check_predictions(table: pd.DataFrame, source: str, *, labelled: bool = True) -> Predictions:
    """Check a table of text against the contract of ``predictions.csv`` and convert it.

    Args:
        table: every column as text.
        source: the name to use in messages.
        labelled: ask for labels and splits; without it an empty label becomes -1.

    Raises:
        PredictionsError: with every problem found.
    """
    scores = _score_columns(table.columns)
    raise_problems(PredictionsError, source, _column_problems(table, scores))
    classes = max(2, len(scores))
    label = _label_numbers(table["label"], classes)
    decimals = [*scores, *(["threshold"] if "threshold" in table else [])]
    numbers = {name: _decimals(table[name]) for name in decimals}
    problems = []
    for column, expected, bad in _rules(table, label, numbers, classes, labelled=labelled):
        problems += describe_cells(table, column, bad, expected)
    leaks = subjects_in_several_parts(table[table["split"] != ""])
    problems += [f"subject '{who}' stands in {' and '.join(parts)}; put it in one" for who, parts in leaks.items()]
    raise_problems(PredictionsError, source, problems)

    attributes = tuple(str(name) for name in table.columns if name not in _RESERVED and name not in scores)
    converted = table.assign(label=label.fillna(-1).astype(np.int64), **numbers)
    return Predictions(converted, scores, attributes, source)


def _column_problems(table: pd.DataFrame, scores: Sequence[str]) -> Iterator[str]:
    advice = "add it, or map the file's own with columns"
    for column in _REQUIRED:
        if column not in table:
            # a file with one row per subject was given its images in reading
            several = column == "image" and "subject_id" in table and not table["subject_id"].is_unique
            why = ", and subjects with several rows" if several else ""
            yield f"expected a column '{column}', found none{why}; {advice} {column}=NAME"
    if not scores:
        yield f"expected a column 'score' (or 'score_0', 'score_1', ...), found none; {advice} score=NAME"
    for name in table.columns:
        if scores and name not in scores and is_score_column(str(name)):
            yield f"column '{name}': expected scores {', '.join(scores)} only; rename or remove it"
    if not len(table):
        yield "expected at least one row, got none; check the run that wrote it"


def _decimals(text: pd.Series) -> pd.Series:
    """Return the numbers of a column, NaN where there is none, each the float nearest to its text."""
    numbers = pd.to_numeric(text, errors="coerce").astype(np.float64)
    known = numbers.notna()
    # pandas before 3.1 is off by the last bit for one number in three
    numbers[known] = text[known].to_numpy(dtype=object).astype(np.float64)
    return numbers


def _label_numbers(label: pd.Series, classes: int) -> pd.Series:
    numbers = pd.to_numeric(label, errors="coerce")
    if classes == 2:
        for text, value in (("False", 0), ("True", 1)):
            numbers = numbers.mask(label == text, value)
    return numbers


def _rules(
    table: pd.DataFrame, label: pd.Series, numbers: Mapping[str, pd.Series], classes: int, *, labelled: bool
) -> Iterator[tuple[str, str, pd.Series]]:
    """Column, what is expected there, and which rows break it."""
    unlabelled = (table["label"] == "") & (not labelled)
    yield "label", f"a class index from 0 to {classes - 1}", ~label.isin(range(classes)) & ~unlabelled
    for name, values in numbers.items():
        if name != "threshold":
            yield name, "a number in [0, 1]", ~values.between(0, 1)
    if "threshold" in numbers:
        yield "threshold", "a finite number", ~np.isfinite(numbers["threshold"])
    unsplit = (table["split"] == "") & (not labelled)
    yield "split", f"one of {', '.join(SPLITS)}", ~table["split"].isin(SPLITS) & ~unsplit
    yield "subject_id", "an identifier", table["subject_id"] == ""
    yield "image", "one row per subject and image", table.duplicated(["subject_id", "image"], keep="first")


def _score_columns(columns: Sequence[str] | pd.Index) -> tuple[str, ...]:
    if "score" in columns:
        return ("score",)
    count = 0
    while f"score_{count}" in columns:
        count += 1
    return score_names(count) if count > 1 else ()
