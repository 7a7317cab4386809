"""The run folders of a study of neural collapse as tables; a JSON file that several experiments share is read once.

A disease run's folder has ``neural_collapse.json`` and ``model.json`` of its training, ``predictions.csv`` and
``collapse.json`` of its checkpoint, and in the biased arm ``labels.csv`` and ``labels.json``. The folder of a model
that was trained to tell a group has ``predictions.csv``.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_json
from monai_fair.errors import ArtifactError, raise_problems
from monai_fair.metrics import f1_by_seed, separability
from monai_fair.metrics.collapse_comparisons import ARMS
from monai_fair.report import collapse_records as records
from monai_fair.report.collapse_measures import KIND
from monai_fair.report.layers import FEATURES
from monai_fair.report.quantities import Record

Experiment = Mapping[str, Any]
CHECKPOINTS = EARLY, FINAL = "early", "final"
PREDICTIONS, LABELS, LABELS_RECORD = "predictions.csv", "labels.csv", "labels.json"
_CURVES, _MODEL, _COLLAPSE = "neural_collapse.json", "model.json", "collapse.json"
_SEED = ["experiment", "arm", "seed"]
_RUN = [*_SEED, "checkpoint"]


@dataclass(frozen=True)
class StudyTables:
    """What the runs of a study left, one row per value; each with ``experiment`` and ``seed``.

    Attributes:
        epochs: measures of every epoch: ``arm``, ``epoch``, ``part``, ``measure``, ``group`` (empty for all samples),
            ``value``, ``reason`` (why it is NaN), ``n``, ``n_positive``.
        trainings: ``arm``, ``early``, the epoch that early stopping kept, and ``last``.
        measures: NC1, and of train what the mislabelled do, with ``checkpoint`` for the epoch.
        f1: F1 by group on test; columns as of ``measures``.
        configurations: ``arm``, ``checkpoint``, ``part``, ``label``, groups ``first`` and ``second``, ``value``,
            ``reason``.
        split: AUC of the SPLIT test: ``arm``, ``checkpoint``, ``value``, ``reason``.
        separability: AUC of models that were trained to tell the group: ``value``, ``reason``.
    """

    epochs: pd.DataFrame
    trainings: pd.DataFrame
    measures: pd.DataFrame
    f1: pd.DataFrame
    configurations: pd.DataFrame
    split: pd.DataFrame
    separability: pd.DataFrame


@dataclass(frozen=True)
class _Run:
    """A disease run at a checkpoint, as one experiment looks at it: the clean ones belong to several."""

    experiment: str
    attribute: str
    arm: str
    seed: str
    checkpoint: str
    folder: Path


def experiment_name(experiment: Experiment) -> str:
    """Return ``DATASET: ATTRIBUTE``."""
    return f"{experiment['dataset']}: {experiment['attribute']}"


def read_study(experiments: Sequence[Experiment], *, threshold: float = 0.5) -> StudyTables:
    """Read the runs of all experiments.

    Args:
        experiments: of :attr:`monai_fair.engines.CollapseStudies.experiments`.
        threshold: of F1; ``score >= threshold`` is predicted positive.

    Returns:
        The tables, experiments in the order given and the clean arm first.

    Raises:
        ArtifactError: with every run and file that is not there, or with what files lack.
        PredictionsError: if runs of an experiment do not have the same test cases.
    """
    check_experiments(experiments)
    runs = list(_runs(experiments))
    trainings = [run for run in runs if run.checkpoint == EARLY]  # of which both checkpoints are
    epochs = _table([*_SEED, "epoch", *records.MEASURE], _epoch_rows(trainings))
    last = epochs.groupby(_SEED, sort=False)["epoch"].max().rename("last")
    early = _table([*_SEED, "early"], _early_rows(trainings)).set_index(_SEED)
    measures, configurations, split = _checkpoint_rows(runs)
    return StudyTables(
        epochs,
        early.join(last).reset_index(),
        _table([*_RUN, *records.MEASURE], measures),
        pd.concat(
            [_f1(own, checkpoint, threshold) for own in experiments for checkpoint in CHECKPOINTS], ignore_index=True
        ),
        _table([*_RUN, *records.CONFIGURATION], configurations),
        _table([*_RUN, *records.SPLIT], split),
        _table(["experiment", "seed", *records.SPLIT], _separability_rows(experiments)),
    )


def check_experiments(experiments: Sequence[Experiment]) -> None:
    """Raise an :class:`ArtifactError` with every experiment that cannot be read and every file that is not there."""
    problems = [] if experiments else ["expected at least one experiment, got none; name one"]
    names = Counter(map(experiment_name, experiments))
    problems += [
        f"expected one experiment '{name}', got {count}; keep one" for name, count in names.items() if count > 1
    ]
    problems += [problem for own in experiments for problem in _length_problems(own)]
    raise_problems(ArtifactError, "neural collapse study", problems)
    needed = dict.fromkeys(path for own in experiments for path in _needed(own))
    missing = [f"expected the file {path}, found none; do the run again" for path in needed if not path.is_file()]
    raise_problems(ArtifactError, "neural collapse study", missing)


def _length_problems(experiment: Experiment) -> Iterator[str]:
    """Every list of folders has one for each seed."""
    lists = {f"{arm}, {checkpoint}": experiment["runs"][arm][checkpoint] for arm in ARMS for checkpoint in CHECKPOINTS}
    lists["attribute models"] = experiment["attribute_models"]
    seeds = len(experiment["seeds"])
    if not seeds:
        yield f"{experiment_name(experiment)}: expected at least one seed, got none"
    for what, folders in lists.items():
        if len(folders) != seeds:
            yield f"{experiment_name(experiment)}: {what}: expected a run for each of {seeds} seeds, got {len(folders)}"


def _needed(experiment: Experiment) -> Iterator[Path]:
    yield Path(experiment["manifest"])
    for arm in ARMS:
        of_training = [_CURVES, _MODEL, *([LABELS, LABELS_RECORD] if arm == "biased" else [])]
        for checkpoint in CHECKPOINTS:
            names = [PREDICTIONS, _COLLAPSE, *(of_training if checkpoint == EARLY else [])]
            yield from (Path(folder) / name for folder in experiment["runs"][arm][checkpoint] for name in names)
    yield from (Path(folder) / PREDICTIONS for folder in experiment["attribute_models"])
    yield from (Path(experiment["runs"]["biased"][checkpoint][0]) / FEATURES for checkpoint in CHECKPOINTS)


def _runs(experiments: Sequence[Experiment]) -> Iterator[_Run]:
    for own in experiments:
        for arm in ARMS:
            for checkpoint in CHECKPOINTS:
                for seed, folder in zip(own["seeds"], own["runs"][arm][checkpoint], strict=True):
                    yield _Run(experiment_name(own), own["attribute"], arm, str(seed), checkpoint, Path(folder))


def _records(
    runs: Sequence[_Run], name: str, kind: str, problems_of: Callable[[str, Record], list[str]]
) -> Iterator[tuple[_Run, Record]]:
    """Yield the file of each run, each read once and let go; at the end say what is wrong with those left out."""
    users: dict[Path, list[_Run]] = {}
    for run in runs:
        users.setdefault(run.folder / name, []).append(run)
    problems = []
    for path, sharing in users.items():
        record = read_json(path, kind)
        for run in sharing:
            found = problems_of(run.attribute, record)
            problems += [f"{path}: {problem}" for problem in found]
            if not found:
                yield run, record
    raise_problems(ArtifactError, "neural collapse study", list(dict.fromkeys(problems)))


def _epoch_rows(runs: Sequence[_Run]) -> list[records.Row]:
    found = _records(runs, _CURVES, "neural_collapse", records.epoch_problems)
    return [row for run, record in found for row in records.epoch_rows(_names(run)[:3], run.attribute, record)]


def _early_rows(runs: Sequence[_Run]) -> list[records.Row]:
    def problems_of(_: str, record: Record) -> list[str]:
        return [] if "epoch" in record else ["expected the 'epoch' of the model, found none; train again"]

    return [(*_names(run)[:3], record["epoch"]) for run, record in _records(runs, _MODEL, "model", problems_of)]


def _checkpoint_rows(runs: Sequence[_Run]) -> tuple[list[records.Row], list[records.Row], list[records.Row]]:
    measures: list[records.Row] = []
    configurations: list[records.Row] = []
    split: list[records.Row] = []
    for run, record in _records(runs, _COLLAPSE, KIND, records.checkpoint_problems):
        told = _names(run), run.attribute, record
        measures += records.measure_rows(*told)
        configurations += records.configuration_rows(*told)
        split.append(records.split_row(*told))
    return measures, configurations, split


def _names(run: _Run) -> records.Row:
    return run.experiment, run.arm, run.seed, run.checkpoint


def _f1(experiment: Experiment, checkpoint: str, threshold: float) -> pd.DataFrame:
    arms = {
        arm: [read_predictions(Path(folder) / PREDICTIONS) for folder in experiment["runs"][arm][checkpoint]]
        for arm in ARMS
    }
    found = f1_by_seed(arms, experiment["attribute"], threshold=threshold)
    return found.assign(experiment=experiment_name(experiment), checkpoint=checkpoint, part="test")


def _separability_rows(experiments: Sequence[Experiment]) -> Iterator[records.Row]:
    for own in experiments:
        for seed, folder in zip(own["seeds"], own["attribute_models"], strict=True):
            found = separability(Path(folder) / PREDICTIONS)
            yield experiment_name(own), str(seed), found.auc, found.reason


def _table(columns: Sequence[str], rows: Iterator[records.Row] | Sequence[records.Row]) -> pd.DataFrame:
    """Return rows as a table, those of each experiment together; within one they keep their order."""
    table = pd.DataFrame(list(rows), columns=list(columns))
    order = np.argsort(pd.factorize(table["experiment"])[0], kind="stable")
    table = table.iloc[order].reset_index(drop=True)
    return table.astype({"value": float}) if "value" in table else table
