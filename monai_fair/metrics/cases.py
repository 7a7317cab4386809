"""The cases an audit is about: the same test rows for every run and seed, checked and in one order."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from monai_fair.data.predictions import Predictions
from monai_fair.errors import PredictionsError, raise_problems
from monai_fair.metrics.arrays import FloatArray, IntArray

MAX_NUMERIC_LEVELS = 20
MAX_LEVELS = 50
_KEYS = ["subject_id", "image"]


@dataclass(frozen=True)
class RunScores:
    """One run's scores of the audited cases.

    Attributes:
        name: the run.
        seeds: one name per seed.
        scores: shape ``(S, N, K)``, K score columns, rows in the order of :attr:`Cases.table`.
        tables: each seed's whole predictions, for fitting thresholds.
        given: the thresholds that came with the predictions, shape ``(S, N)``; ``None`` unless every seed has a
            column ``threshold``.
    """

    name: str
    seeds: tuple[str, ...]
    scores: FloatArray
    tables: tuple[pd.DataFrame, ...]
    given: FloatArray | None


@dataclass(frozen=True)
class Cases:
    """The audited rows, and each run's scores of them.

    Attributes:
        table: ``subject_id``, ``image``, ``label`` and the attributes, N rows sorted by subject and image.
        score_columns: names of the K scores.
        runs: scores of each run.
        subjects: index of each row's subject, shape ``(N,)``; 0, 1, ... in the order of ``table``.
        notes: what was assumed in reading the predictions, one sentence each.
    """

    table: pd.DataFrame
    score_columns: tuple[str, ...]
    runs: tuple[RunScores, ...]
    subjects: IntArray
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Seed:
    run: str
    name: str
    predictions: Predictions
    rows: pd.DataFrame

    def __str__(self) -> str:
        return f"run '{self.run}', seed {self.name} ({self.predictions.source})"


def gather_cases(runs: Mapping[str, Sequence[Predictions]], attributes: Sequence[str], *, split: str = "test") -> Cases:
    """Check that all runs and seeds score the same cases, and bring them into one order.

    Seeds are named by a ``seed_<number>`` in the folder of their file if every seed of the run has one of its
    own, else by position from 1; runs are paired by these names.

    Args:
        runs: predictions of each seed, by run.
        attributes: columns that define the groups.
        split: the part that is audited.

    Returns:
        The cases, sorted by subject and image.

    Raises:
        PredictionsError: with all problems found: no run, unknown or repeated attributes, no rows in
            ``split``, other rows, labels or attribute values than the first seed of the first run, or an
            attribute with more than 20 different numbers or 50 different values.
    """
    problems = [f"expected at least one {what}, got none; name one" for what in _absent(runs, attributes)]
    problems += [
        f"expected each attribute once, got '{name}' {attributes.count(name)} times; remove the others"
        for name in dict.fromkeys(attributes)
        if attributes.count(name) > 1
    ]
    seeds = list(_seeds(runs, attributes, split))
    for seed in seeds:
        problems += _seed_problems(seed, attributes, split)
    usable = [seed for seed in seeds if len(seed.rows)]
    if usable:
        problems += _level_problems(usable[0], attributes)
        for seed in usable[1:]:
            problems += _difference_problems(seed, usable[0], attributes)
    raise_problems(PredictionsError, "audit", problems)

    columns = seeds[0].predictions.score_columns
    gathered = tuple(_gather(name, [seed for seed in seeds if seed.run == name], columns) for name in runs)
    table = seeds[0].rows[[*_KEYS, "label", *attributes]]
    subjects = pd.factorize(table["subject_id"])[0].astype(np.int64)
    notes = dict.fromkeys(note for seed in seeds for note in seed.predictions.notes)
    return Cases(table, columns, gathered, subjects, tuple(notes))


def _absent(runs: Mapping[str, Sequence[Predictions]], attributes: Sequence[str]) -> Iterator[str]:
    if not runs:
        yield "run"
    if not attributes:
        yield "attribute"
    for name, predictions in runs.items():
        if not predictions:
            yield f"table of predictions for run '{name}'"


def _seeds(runs: Mapping[str, Sequence[Predictions]], attributes: Sequence[str], split: str) -> Iterator[_Seed]:
    for run, all_predictions in runs.items():
        names = seed_names([predictions.source for predictions in all_predictions])
        for name, predictions in zip(names, all_predictions, strict=True):
            table = predictions.table
            wanted = {*_KEYS, "label", "threshold", *predictions.score_columns, *attributes}
            rows = table.loc[table["split"] == split, [column for column in table if column in wanted]]
            yield _Seed(run, name, predictions, rows.sort_values(_KEYS, ignore_index=True))


def seed_names(sources: Sequence[str]) -> list[str]:
    """Return a name for each seed of a run.

    Args:
        sources: the files of the seeds.

    Returns:
        The number of each file's last ``seed_<number>`` folder if all have one and no two are equal, else the
        positions from 1.
    """
    found = [re.findall(r"(?:^|[/\\])seed[_-]?([0-9]+)[/\\]", source) for source in sources]
    numbers = [matches[-1] for matches in found if matches]
    if len(set(numbers)) == len(sources):
        return numbers
    return [str(position) for position in range(1, len(sources) + 1)]


def _seed_problems(seed: _Seed, attributes: Sequence[str], split: str) -> list[str]:
    there = ", ".join(seed.predictions.attributes) or "none"
    problems = [
        f"{seed}: expected the attribute '{name}', the attributes there are {there}; choose among these"
        for name in dict.fromkeys(attributes)
        if name not in seed.predictions.attributes
    ]
    if not len(seed.rows):
        splits = ", ".join(sorted(set(seed.predictions.table["split"])))
        problems.append(f"{seed}: expected rows with split '{split}', the splits there are {splits}; add predictions")
    return problems


def _level_problems(seed: _Seed, attributes: Sequence[str]) -> list[str]:
    problems = []
    for name in dict.fromkeys(attributes):
        if name not in seed.rows:
            continue
        values = seed.rows[name][seed.rows[name] != ""].drop_duplicates()
        numeric = pd.to_numeric(values, errors="coerce").notna().all()
        if numeric and len(values) > MAX_NUMERIC_LEVELS:
            problems.append(
                f"{seed}: expected groups in the attribute '{name}', got {len(values)} different numbers; "
                f"audit {name}:quartiles, or bins of your own such as {name}:40/60/80"
            )
        elif len(values) > MAX_LEVELS:
            problems.append(
                f"{seed}: expected at most {MAX_LEVELS} groups in the attribute '{name}', got {len(values)} different "
                f"values; bin or group them in a column of its own, such as {name}_group, and audit that"
            )
    return problems


def _difference_problems(seed: _Seed, reference: _Seed, attributes: Sequence[str]) -> list[str]:
    problems = []
    expected, found = reference.predictions.score_columns, seed.predictions.score_columns
    if expected != found:
        problems.append(
            f"{seed}: expected the score columns {', '.join(expected)} as in {reference}, got "
            f"{', '.join(found)}; audit one task at a time"
        )
    absent, added = _absent_and_added(seed.rows[_KEYS], reference.rows[_KEYS])
    if absent or added:
        problems.append(
            f"{seed}: expected the same rows as {reference}, got {absent} of them missing and {added} others; "
            "predict the same test part with every run and seed"
        )
        return problems
    shared = [name for name in dict.fromkeys(attributes) if name in seed.rows and name in reference.rows]
    for column in ["label", *shared]:
        other = np.flatnonzero((seed.rows[column] != reference.rows[column]).to_numpy())
        if len(other):
            row = seed.rows.iloc[other[0]]
            problems.append(
                f"{seed}: expected the same '{column}' as in {reference}, {len(other)} rows differ, first "
                f"subject '{row['subject_id']}', image '{row['image']}' with '{row[column]}' instead of "
                f"'{reference.rows[column].iloc[other[0]]}'; use one manifest for every run and seed"
            )
    return problems


def _absent_and_added(rows: pd.DataFrame, reference: pd.DataFrame) -> tuple[int, int]:
    if rows.equals(reference):  # both are sorted; a set of a million pairs takes seconds
        return 0, 0
    keys, known = (pd.MultiIndex.from_frame(table) for table in (rows, reference))
    return len(known.difference(keys)), len(keys.difference(known))


def _gather(name: str, seeds: Sequence[_Seed], columns: Sequence[str]) -> RunScores:
    scores = np.stack([seed.rows[list(columns)].to_numpy(dtype=np.float64) for seed in seeds])
    given = None
    if all("threshold" in seed.rows for seed in seeds):
        given = np.stack([seed.rows["threshold"].to_numpy(dtype=np.float64) for seed in seeds])
    tables = tuple(seed.predictions.table for seed in seeds)
    return RunScores(name, tuple(seed.name for seed in seeds), scores, tables, given)
