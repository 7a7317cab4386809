"""The audit: group values, gaps, chance and paired differences of one or more runs, as one JSON-like dict."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from monai_fair.data.predictions import Predictions
from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.binning import with_bins
from monai_fair.metrics.cases import Cases, RunScores, gather_cases
from monai_fair.metrics.curves import CURVE_GRID
from monai_fair.metrics.definitions import METRICS
from monai_fair.metrics.groups import Grouping, Missing, groupings
from monai_fair.metrics.macro import macro_averages
from monai_fair.metrics.records import Record
from monai_fair.metrics.rules import FittedRule, fit_rule, read_rule
from monai_fair.metrics.settings import AuditSettings, setting_problems
from monai_fair.metrics.tables import adjust_gaps, group_records, table_record
from monai_fair.metrics.target_audit import measure_target
from monai_fair.metrics.target_table import TargetTable

DEFAULT_RULES = ("youden", "0.5")
# A table of more groups than this says little about any of them.
MAX_GROUPS = 200


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
    thresholds: Sequence[str] = DEFAULT_RULES,
    resamples: int = 2000,
    permutations: int = 2000,
    seed: int = 0,
    min_count: int = 10,
    split: str = "test",
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Measure how a task's runs differ between groups, and how sure that is.

    Each run has one predictions table per seed; all score the same cases. Values are means over seeds. Two
    intervals stand beside them: over cases (other patients could have been tested) and over seeds (t; training could
    be repeated). Over cases it is Wilson's for rates, DeLong's on the logit scale for AUC, both with subjects as
    clusters where a subject has several images, and resampling of subjects for the rest.

    A gap is the mean over seeds of max - min over the groups with at least ``min_count`` subjects below the line;
    beside it stand the gap expected by chance and a p value, both from shuffling group membership within positives and
    within negatives, and Holm's adjustment over all attributes and intersections for the same run and quantity. Later
    runs are compared with the first one over the seeds they share: paired over cases (DeLong for AUC, swapping the
    runs within subjects for the rest) and over seeds (t).

    A case is positive when ``score >= threshold``. Several classes are audited one against the rest; two score columns
    are a binary task with the score of class 1. Nothing depends on the order of rows, nor on names or order of groups,
    subjects and images.

    Args:
        runs: predictions of each seed, by name of run; the first run is the baseline.
        attributes: columns that define the groups; a continuous one with a rule, such as ``age:quartiles`` or
            ``age:40/60/80``, see :func:`monai_fair.metrics.binning.with_bins`.
        intersections: whether to add pairs of attributes, and all together.
        missing: ``drop`` leaves cases with an empty cell out of that attribute; ``group`` makes them a group.
        thresholds: rules, such as ``youden``, ``0.5``, ``sensitivity=0.9``, ``min_gap by sex``; see
            :mod:`monai_fair.metrics.rules`. They are chosen on validation rows, never on those that are audited.
        resamples: number of resamples of subjects.
        permutations: number of shuffles per gap.
        seed: seed of resamples and shuffles.
        min_count: subjects below the line that a group needs for an interval of AUC and the like, and to take part in
            a gap.
        split: the part to audit.
        confidence: of all intervals.

    Returns:
        ``settings``, ``data``, ``runs``, ``notes``, ``curve_grid``, ``metrics``, ``targets`` and, for several classes,
        ``macro`` (means over classes); each target has
        ``thresholds``, ``overall`` and ``tables``, one per attribute and intersection, with ``groups`` and
        ``gaps``. Quantities are named ``auc`` or ``<metric>@<rule>``, such as ``tpr@youden``. Undefined is NaN
        with a ``reason`` beside it.

    Raises:
        MonaiFairError: if an option is outside its range.
        PredictionsError: with all problems of the predictions; see :func:`gather_cases`.
    """
    settings = AuditSettings(
        tuple(attributes),
        split,
        intersections,
        missing,
        tuple(str(rule).strip() for rule in thresholds),
        resamples,
        permutations,
        seed,
        min_count,
        confidence,
    )
    raise_problems(MonaiFairError, "audit", setting_problems(settings))
    cases = gather_cases(with_bins(runs, settings.attributes, split=split), settings.attributes, split=split)
    grouped = groupings(cases.table, settings.attributes, intersections=intersections, missing=missing)
    large = [grouping for grouping in grouped if len(grouping.names) > MAX_GROUPS]
    grouped = [grouping for grouping in grouped if len(grouping.names) <= MAX_GROUPS]
    targets = _targets(cases.score_columns)
    audited = [_audit_target(target, cases, grouped, settings) for target in targets]
    return {
        "settings": asdict(settings),
        "data": {"n": len(cases.table), "n_subjects": int(cases.subjects.max()) + 1},
        "runs": [{"name": run.name, "seeds": list(run.seeds)} for run in cases.runs],
        "baseline": cases.runs[0].name,
        "notes": _notes(cases, targets, large),
        "curve_grid": CURVE_GRID.tolist(),
        "metrics": {key: _definition(key) for key in METRICS},
        "targets": audited,
        "macro": macro_averages(audited, [run.name for run in cases.runs]) if len(targets) > 1 else None,
    }


def _definition(key: str) -> Record:
    metric = METRICS[key]
    return {name: getattr(metric, name) for name in ("short", "title", "words", "formula", "ends", "undefined", "best")}


def _targets(score_columns: Sequence[str]) -> list[_Target]:
    if len(score_columns) <= 2:
        return [_Target("label 1", 1, score_columns[-1], len(score_columns) - 1)]
    return [
        _Target(f"class {label} versus the rest", label, column, label) for label, column in enumerate(score_columns)
    ]


def _notes(cases: Cases, targets: Sequence[_Target], large: Sequence[Grouping]) -> list[str]:
    notes = list(cases.notes)
    n, subjects = len(cases.table), int(cases.subjects.max()) + 1
    if subjects < n:
        notes.append(
            f"several images per subject ({n} images of {subjects} subjects): intervals and p values are by subject, "
            "images of one subject are never taken apart"
        )
    if len(targets) > 1:
        notes.append(
            f"{len(targets)} classes: each class is audited against the rest, by its own score and thresholds; "
            "Holm's adjustment is made within each class; means over classes (macro) are in metrics.json"
        )
    for grouping in large:
        notes.append(
            f"{grouping.name}: {len(grouping.names)} groups, more than {MAX_GROUPS}, so there is no table of them"
        )
    return notes


def _audit_target(target: _Target, cases: Cases, grouped: Sequence[Grouping], settings: AuditSettings) -> Record:
    y = (cases.table["label"] == target.label).to_numpy()
    rules = [_fit_rules(run, target, cases, settings) for run in cases.runs]
    scored = [
        (run.name, run.seeds, run.scores[:, :, target.column], fitted)
        for run, fitted in zip(cases.runs, rules, strict=True)
    ]
    measured = measure_target(y, scored, cases.subjects, grouped, settings)
    tables = [table_record(TargetTable(measured, index, settings)) for index in range(1, len(grouped) + 1)]
    adjust_gaps(tables, [run.name for run in cases.runs])
    return {
        "name": target.name,
        "positive_label": target.label,
        "score_column": target.score_column,
        "thresholds": {
            run.name: {name: rule.record() for name, rule in fitted.items()}
            for run, fitted in zip(cases.runs, rules, strict=True)
        },
        "overall": group_records(TargetTable(measured, 0, settings))[0],
        "tables": tables,
    }


def _fit_rules(run: RunScores, target: _Target, cases: Cases, settings: AuditSettings) -> dict[str, FittedRule]:
    return {
        name: fit_rule(
            read_rule(name),
            run.tables,
            cases.table,
            run.given,
            score_column=target.score_column,
            positive_label=target.label,
            split=settings.split,
            min_count=settings.min_count,
        )
        for name in settings.rules
    }
