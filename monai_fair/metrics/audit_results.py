"""The audit: group values, gaps, chance and paired differences of one or more runs, as one JSON-like dict."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from monai_fair.data.predictions import SPLITS, Predictions
from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.arrays import BoolArray, FloatArray
from monai_fair.metrics.cases import Cases, RunScores, gather_cases
from monai_fair.metrics.groups import Grouping, Missing, groupings
from monai_fair.metrics.records import Record
from monai_fair.metrics.roc import ROC_GRID
from monai_fair.metrics.tables import RULES, AuditSettings, Rule, ScoredRun, adjust_gaps, audit_groups
from monai_fair.metrics.thresholds import fit_threshold


@dataclass(frozen=True)
class _Target:
    """One class against the rest."""

    name: str
    label: int
    score_column: str
    column: int


def audit(
    runs: Mapping[str, Sequence[Predictions]],
    attributes: Sequence[str],
    *,
    intersections: bool = True,
    missing: Missing = "drop",
    permutations: int = 2000,
    seed: int = 0,
    min_count: int = 10,
    split: str = "test",
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Measure how a task's runs differ between groups, and how sure that is.

    Each run has one predictions table per seed; all score the same cases. Values are means over seeds. Two
    intervals stand beside them: over cases (Wilson for rates, logit DeLong for AUC; other patients could have
    been tested) and over seeds (t; training could be repeated). A gap is the mean over seeds of max - min over
    the groups with at least ``min_count`` cases below the line; beside it stand the gap expected by chance and a
    p value, both from shuffling group membership within positives and within negatives, and Holm's
    adjustment over all attributes and intersections for the same run and quantity. Later runs are compared
    with the first one over the seeds they share.

    A case is positive when ``score >= threshold``: ``youden`` is chosen on the validation rows of each seed,
    ``0.5`` is fixed. Several classes are audited one against the rest; two score columns are a binary task
    with the score of class 1. Nothing depends on the order of rows, nor on names or order of groups.

    Args:
        runs: predictions of each seed, by name of run; the first run is the baseline.
        attributes: columns that define the groups.
        intersections: whether to add pairs of attributes, and all together.
        missing: ``drop`` leaves cases with an empty cell out of that attribute; ``group`` makes them a group.
        permutations: number of shuffles per gap.
        seed: seed of the shuffles.
        min_count: cases below the line that a group needs for an AUC interval and to take part in a gap.
        split: the part to audit.
        confidence: of all intervals.

    Returns:
        ``settings``, ``data``, ``runs``, ``notes``, ``roc_grid`` and ``targets``; each target has
        ``thresholds``, ``overall`` and ``tables``, one per attribute and intersection, with ``groups`` and
        ``gaps``. Quantities are named ``auc`` or ``<rate>@<rule>``, such as ``tpr@youden``. Undefined is NaN
        with a ``reason`` beside it.

    Raises:
        MonaiFairError: if an option is outside its range.
        PredictionsError: with all problems of the predictions; see :func:`gather_cases`.
    """
    settings = AuditSettings(
        tuple(attributes), split, intersections, missing, permutations, seed, min_count, confidence
    )
    raise_problems(MonaiFairError, "audit", _option_problems(settings))
    cases = gather_cases(runs, settings.attributes, split=split)
    grouped = groupings(cases.table, settings.attributes, intersections=intersections, missing=missing)
    targets = _targets(cases.score_columns)
    return {
        "settings": asdict(settings),
        "data": {"n": len(cases.table), "n_subjects": int(cases.table["subject_id"].nunique())},
        "runs": [{"name": run.name, "seeds": list(run.seeds)} for run in cases.runs],
        "baseline": cases.runs[0].name,
        "notes": _notes(cases, targets),
        "roc_grid": list(ROC_GRID),
        "targets": [_audit_target(target, cases, grouped, settings) for target in targets],
    }


def _option_problems(settings: AuditSettings) -> Iterator[str]:
    if settings.split not in SPLITS:
        yield f"option 'split': expected one of {', '.join(SPLITS)}, got '{settings.split}'"
    if settings.missing not in ("drop", "group"):
        yield f"option 'missing': expected drop or group, got '{settings.missing}'"
    if settings.permutations < 1:
        yield f"option 'permutations': expected at least 1, got {settings.permutations}"
    if settings.min_count < 1:
        yield f"option 'min_count': expected at least 1, got {settings.min_count}"
    if not 0 < settings.confidence < 1:
        yield f"option 'confidence': expected a number in (0, 1), got {settings.confidence}"


def _targets(score_columns: Sequence[str]) -> list[_Target]:
    if len(score_columns) <= 2:
        return [_Target("label 1", 1, score_columns[-1], len(score_columns) - 1)]
    return [
        _Target(f"class {label} versus the rest", label, column, label) for label, column in enumerate(score_columns)
    ]


def _notes(cases: Cases, targets: Sequence[_Target]) -> list[str]:
    notes = []
    n, subjects = len(cases.table), cases.table["subject_id"].nunique()
    if subjects < n:
        notes.append(
            f"several images per subject ({n} images of {subjects} subjects): intervals and p values by image may "
            "be too narrow"
        )
    if len(targets) > 1:
        notes.append(
            f"{len(targets)} classes: each class is audited against the rest, by its own score and thresholds; "
            "Holm's adjustment is made within each class"
        )
    return notes


def _audit_target(target: _Target, cases: Cases, grouped: Sequence[Grouping], settings: AuditSettings) -> Record:
    y = (cases.table["label"] == target.label).to_numpy()
    runs = [_target_run(run, target, y, settings) for run in cases.runs]
    everyone = Grouping((), ((),), ("everyone",), np.zeros(y.size, dtype=np.int64))
    overall = audit_groups(everyone, runs, settings)["groups"][0]
    tables = [audit_groups(grouping, runs, settings) for grouping in grouped]
    adjust_gaps(tables, [run.name for run in runs])
    return {
        "name": target.name,
        "positive_label": target.label,
        "score_column": target.score_column,
        "thresholds": {run.name: _threshold_records(run) for run in runs},
        "overall": overall,
        "tables": tables,
    }


def _target_run(run: RunScores, target: _Target, y: BoolArray, settings: AuditSettings) -> ScoredRun:
    if settings.split == "val":
        reason = "the validation rows are the ones audited here, so no threshold is chosen on them"
        fitted = [(float("nan"), reason) for _ in run.tables]
    else:
        fitted = [fit_threshold(table, target.score_column, positive_label=target.label) for table in run.tables]
    reasons = dict.fromkeys(reason for _, reason in fitted if reason)
    thresholds: dict[Rule, FloatArray] = {
        "youden": np.array([threshold for threshold, _ in fitted]),
        "0.5": np.full(len(fitted), 0.5),
    }
    said: dict[Rule, str] = {"youden": "; ".join(reasons), "0.5": ""}
    return ScoredRun(run.name, run.seeds, y, run.scores[:, :, target.column], thresholds, said)


def _threshold_records(run: ScoredRun) -> Record:
    return {
        rule: {"by_seed": run.thresholds[rule].tolist(), "reason": run.threshold_reasons[rule] or None}
        for rule in RULES
    }
