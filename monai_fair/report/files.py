"""From files to the report: what ``python -m monai_fair audit`` does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_fair.data.predictions import Predictions, read_predictions
from monai_fair.metrics import audit
from monai_fair.metrics.audit_results import DEFAULT_RULES
from monai_fair.metrics.binning import with_bins
from monai_fair.metrics.groups import Missing
from monai_fair.report.discovery_record import read_stages
from monai_fair.report.discovery_view import discovery_view, stage_rows
from monai_fair.report.feature_section import feature_section
from monai_fair.report.incidence import combine_seeds, incidence_section
from monai_fair.report.layers import FEATURES
from monai_fair.report.page import write_report
from monai_fair.report.provenance import provenance_of
from monai_fair.report.quantities import Record, primary_rule
from monai_fair.report.run_files import find_runs
from monai_fair.report.sweep import read_sweep


def audit_files(
    predictions: str | Sequence[str],
    *,
    attributes: str | Sequence[str],
    out: str | Path,
    columns: Mapping[str, str] | None = None,
    missing: Missing = "drop",
    thresholds: Sequence[str] = DEFAULT_RULES,
    resamples: int = 2000,
    permutations: int = 2000,
    seed: int = 0,
    min_count: int = 10,
    split: str = "test",
    intersections: bool = True,
    confidence: float = 0.95,
    show_small: bool = False,
    subgroups: str | Path | None = None,
    registered: str | Path | None = None,
    root: str | Path | None = None,
    stages: str | Path | None = None,
    sweep: Mapping[str, Any] | str | Path | None = None,
    embeddings: bool = True,
) -> Path:
    """Audit prediction files and write ``metrics.json``, ``model_card.md`` and ``report.html``.

    Each of ``predictions`` is a path, a glob pattern, or ``name=`` followed by either. Files of one name are the
    seeds of one run; the first run is the baseline. Without a name, ``.../erm/seed_0/predictions.csv`` and
    ``.../erm/seed_1/predictions.csv`` are seeds of the run ``erm``; another ``predictions.csv`` is a run named
    after its folder, and a file of another name is a run named after itself. Folders ``fold_0``, ``fold_1``, ... count
    like those of seeds. A ``features.safetensors`` beside a table adds the neuron incidence of a binary task; it, or
    ``layers.safetensors``, adds what the features tell of attributes.

    Args:
        predictions: which files.
        attributes: columns that define the groups, as a list or as text with commas.
        out: folder of the results.
        columns: the files' own names for columns of the contract; see
            :func:`monai_fair.data.predictions.read_predictions`.
        missing: see :func:`monai_fair.metrics.audit`, as the following.
        thresholds: rules that turn scores into predictions.
        resamples: number of resamples of subjects.
        permutations: number of shuffles per gap.
        seed: seed of resamples and shuffles.
        min_count: least count of a group.
        split: the part to audit.
        intersections: whether to look at intersections of attributes.
        confidence: of all intervals.
        show_small: show cells below ``min_count`` on the page instead of masking them.
        subgroups: folder of discovered subgroups; what was found stands on the page before the summary of gaps.
        registered: folder of the registration they were found in, for pictures of typical members.
        root: data root, whose template the subgroups are drawn on; without it they have no pictures.
        stages: ``stages.json`` of the study, whose times stand on the page.
        sweep: ``parameter``, and ``runs``, the value of it in each of several runs, such as ``{"parameter":
            "adversary_strength", "runs": {"fairread_0": 0.0, "fairread_0.1": 0.1}}``, or a JSON file of this; adds
            figures against the values.
        embeddings: whether to look for features and to add what they tell of attributes. With many layers and seeds
            this takes minutes.

    Returns:
        Path of ``report.html``.

    Raises:
        MonaiFairError: if the folder of subgroups, the template, the stages or the sweep cannot be used.
        PredictionsError: if a pattern matches nothing, a run's name is not clear, or the predictions have
            problems.
        ArtifactError: if features do not belong to their predictions.
    """
    patterns = [predictions] if isinstance(predictions, str) else [str(pattern) for pattern in predictions]
    names = attributes.split(",") if isinstance(attributes, str) else list(attributes)
    names = [name.strip() for name in names if name.strip()]
    files = find_runs(patterns)
    swept = None if sweep is None else read_sweep(sweep, list(files))
    discovery = None
    if subgroups is not None:
        discovery = discovery_view(
            subgroups, root=root, registered=registered, min_count=min_count, show_small=show_small
        )
    timed = [] if stages is None else stage_rows(read_stages(stages))
    runs = {run: [read_predictions(path, columns=columns) for path in paths] for run, paths in files.items()}
    results = audit(
        runs,
        names,
        intersections=intersections,
        missing=missing,
        thresholds=thresholds,
        resamples=resamples,
        permutations=permutations,
        seed=seed,
        min_count=min_count,
        split=split,
        confidence=confidence,
    )
    results |= _sections(with_bins(runs, names, split=split), results, swept, embeddings=embeddings)
    others = {"subgroups": subgroups, "registered": registered, "root": root, "stages": stages}
    others["sweep"] = None if isinstance(sweep, Mapping) else sweep
    results["provenance"] = provenance_of(
        files, results, columns or {}, others, show_small=show_small, embeddings=embeddings
    )
    return write_report(results, out, show_small=show_small, discovery=discovery, stages=timed)


def _sections(
    runs: Mapping[str, Sequence[Predictions]], results: Record, swept: Record | None, *, embeddings: bool
) -> Record:
    """What stands beside the audit, each only where its input is there."""
    sections = {
        "features": feature_section(runs, results) if embeddings else None,
        "incidence": _incidence(runs, results),
        "sweep": swept,
    }
    return {name: found for name, found in sections.items() if found}


def _incidence(runs: Mapping[str, Sequence[Predictions]], results: Record) -> Record:
    """Incidence of each run that has features; a note in the results says what was left out."""
    combined: Record = {}
    target = results["targets"][0]
    for run, entry in zip(runs, results["runs"], strict=True):
        sections = {}
        for index, predictions in enumerate(runs[run]):
            features = Path(predictions.source).parent / FEATURES
            if not features.is_file():
                continue
            if predictions.num_classes != 2:
                results["notes"].append(f"{run}: features are there, but neuron incidence is for binary tasks only")
                break
            threshold = target["thresholds"][run][primary_rule(results, target)]["by_seed"][index]
            sections[entry["seeds"][index]] = incidence_section(
                predictions,
                features,
                0.5 if np.isnan(threshold) else threshold,
                results["settings"]["attributes"],
                split=results["settings"]["split"],
            )
        if sections:
            combined[run] = combine_seeds(sections)
        if 0 < len(sections) < len(runs[run]):
            results["notes"].append(
                f"{run}: neuron incidence is of {len(sections)} of {len(runs[run])} seeds, the others have no features"
            )
    return combined
