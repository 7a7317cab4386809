"""``predictions.csv``: the waist between any model and the audit.

Columns: ``subject_id``, ``image``, ``split`` (train, val or test), ``label`` (class index), ``score`` in
[0, 1] (several classes: ``score_0``, ``score_1``, ...), optionally ``image_id`` and ``threshold``; every
other column is an attribute. An empty attribute cell is a missing value.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from monai_fair.data.splits import subjects_in_several_parts
from monai_fair.data.tables import describe_cells, read_table, write_table
from monai_fair.errors import PredictionsError, raise_problems

SPLITS = ("train", "val", "test")
_REQUIRED = ("subject_id", "image", "split", "label")
_RESERVED = frozenset({*_REQUIRED, "image_id", "threshold"})


@dataclass(frozen=True)
class Predictions:
    """Scores of one run, checked.

    Attributes:
        table: ``subject_id``, ``image``, ``split`` and attributes as text, ``label`` as int, score columns as
            float.
        score_columns: ``("score",)`` for a binary task, else ``("score_0", ..., "score_K-1")``.
        attributes: the attribute columns, in file order.
        source: the file they came from.
    """

    table: pd.DataFrame
    score_columns: tuple[str, ...]
    attributes: tuple[str, ...]
    source: str

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


def read_predictions(path: str | Path) -> Predictions:
    """Read and check a ``predictions.csv``.

    Args:
        path: the file.

    Returns:
        The checked predictions.

    Raises:
        PredictionsError: with every problem of the file, if it breaks the contract.
    """
    return check_predictions(read_table(path, PredictionsError), str(path))


def check_predictions(table: pd.DataFrame, source: str, *, labelled: bool = True) -> Predictions:
    """Check a table of text against the contract of ``predictions.csv`` and convert it.

    Args:
        table: every column as text.
        source: the name to use in messages.
        labelled: ask for labels and splits; without it an empty label becomes -1.

    Raises:
        PredictionsError: with every problem found.
    """
    missing = [column for column in _REQUIRED if column not in table]
    scores = _score_columns(table.columns)
    problems = [f"expected a column '{column}', found none; add it" for column in missing]
    if not scores:
        problems.append("expected a column 'score' (or 'score_0', 'score_1', ...), found none; add it")
    extra = [name for name in table.columns if is_score_column(str(name)) and name not in scores] if scores else []
    problems += [f"column '{name}': expected scores {', '.join(scores)} only; rename or remove it" for name in extra]
    if not len(table):
        problems.append("expected at least one row, got none; check the run that wrote it")
    raise_problems(PredictionsError, source, problems)

    label = pd.to_numeric(table["label"], errors="coerce")
    numbers = table[list(scores)].apply(pd.to_numeric, errors="coerce")
    classes = max(2, len(scores))
    unlabelled = (table["label"] == "") & (not labelled)
    bad_label = ~label.isin(range(classes)) & ~unlabelled
    bad_split = ~table["split"].isin(SPLITS) & ~((table["split"] == "") & (not labelled))
    bad_score = ~((numbers >= 0) & (numbers <= 1))
    problems += describe_cells(table, "label", bad_label, f"a class index from 0 to {classes - 1}")
    for column in scores:
        problems += describe_cells(table, column, bad_score[column], "a number in [0, 1]")
    problems += describe_cells(table, "split", bad_split, f"one of {', '.join(SPLITS)}")
    problems += describe_cells(table, "subject_id", table["subject_id"] == "", "an identifier")
    repeated = table.duplicated(["subject_id", "image"], keep="first")
    problems += describe_cells(table, "image", repeated, "one row per subject and image")
    leaks = subjects_in_several_parts(table[table["split"] != ""])
    problems += [f"subject '{who}' stands in {' and '.join(parts)}; put it in one" for who, parts in leaks.items()]
    raise_problems(PredictionsError, source, problems)

    attributes = tuple(str(name) for name in table.columns if name not in _RESERVED and name not in scores)
    converted = table.assign(label=label.fillna(-1).astype(np.int64), **{name: numbers[name] for name in scores})
    return Predictions(converted, scores, attributes, source)


def _score_columns(columns: Sequence[str] | pd.Index) -> tuple[str, ...]:
    if "score" in columns:
        return ("score",)
    count = 0
    while f"score_{count}" in columns:
        count += 1
    return score_names(count) if count > 1 else ()
