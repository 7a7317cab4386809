"""From files to the report: what ``python -m monai_fair audit`` does."""

import glob
import os
import platform
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from monai_fair import __version__
from monai_fair.data.artifacts import sha256
from monai_fair.data.predictions import Predictions, read_predictions
from monai_fair.errors import PredictionsError, raise_problems
from monai_fair.metrics import audit
from monai_fair.metrics.audit_results import DEFAULT_RULES
from monai_fair.metrics.groups import Missing
from monai_fair.report.discovery_record import FILES, read_stages
from monai_fair.report.discovery_view import discovery_view, stage_rows
from monai_fair.report.incidence import combine_seeds, incidence_section
from monai_fair.report.page import write_report
from monai_fair.report.quantities import Record, primary_rule

_SEED_FOLDER = re.compile(r"seed[_-]?[0-9]+")
_FEATURES = "features.safetensors"


@dataclass(frozen=True)
class _RunFile:
    run: str
    folder: Path | None  # of a run that was not named; None for a named one
    path: Path


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
) -> Path:
    """Audit prediction files and write ``metrics.json``, ``model_card.md`` and ``report.html``.

    Each of ``predictions`` is a path, a glob pattern, or ``name=`` followed by either. Files of one name are the
    seeds of one run; the first run is the baseline. Without a name, ``.../erm/seed_0/predictions.csv`` and
    ``.../erm/seed_1/predictions.csv`` are seeds of the run ``erm``; another ``predictions.csv`` is a run named
    after its folder, and a file of another name is a run named after itself. A ``features.safetensors`` beside a
    table adds the neuron incidence of a binary task.

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

    Returns:
        Path of ``report.html``.

    Raises:
        MonaiFairError: if the folder of subgroups, the template or the stages cannot be used.
        PredictionsError: if a pattern matches nothing, a run's name is not clear, or the predictions have
            problems.
        ArtifactError: if features do not belong to their predictions.
    """
    patterns = [predictions] if isinstance(predictions, str) else [str(pattern) for pattern in predictions]
    names = attributes.split(",") if isinstance(attributes, str) else list(attributes)
    names = [name.strip() for name in names if name.strip()]
    files = find_runs(patterns)
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
    incidence = _incidence(runs, results)
    if incidence:
        results["incidence"] = incidence
    others = {"subgroups": subgroups, "registered": registered, "root": root, "stages": stages}
    results["provenance"] = _provenance(files, results, columns or {}, others, show_small=show_small)
    return write_report(results, out, show_small=show_small, discovery=discovery, stages=timed)


def find_runs(patterns: Sequence[str]) -> dict[str, list[Path]]:
    """Return the files of each run, in the order of the patterns and in natural order within one.

    Args:
        patterns: paths, glob patterns, or ``name=`` followed by either; see :func:`audit_files`.

    Returns:
        Files by name of run; a file that several patterns match is taken once per run.

    Raises:
        PredictionsError: naming each pattern that matches nothing, and each name that two folders share.
    """
    problems: list[str] = []
    found: list[_RunFile] = []
    for pattern in patterns:
        files = list(_match(pattern))
        if not files:
            problems.append(f"expected a file at '{pattern}', found none; check the path or pattern")
        found += files
    if not patterns:
        problems.append("expected at least one file of predictions, got none; name one")
    runs: dict[str, list[_RunFile]] = {}
    for file in found:
        known = runs.setdefault(file.run, [])
        if file.path not in [other.path for other in known]:
            known.append(file)
    for run, files in runs.items():
        folders = dict.fromkeys(file.folder for file in files)
        if len(folders) > 1:
            places = ", ".join("a named run" if folder is None else f"'{folder}'" for folder in folders)
            problems.append(f"expected one run '{run}', got {places}; give each a name, as in NAME=PATH")
    raise_problems(PredictionsError, "audit", problems)
    return {run: [file.path for file in files] for run, files in runs.items()}


def _match(pattern: str) -> Iterator[_RunFile]:
    name, equals, rest = pattern.partition("=")
    named = bool(equals and name) and not re.search(r"[/\\]", name) and not Path(pattern).exists()
    where = rest if named else pattern
    matches = [where] if Path(where).is_file() else glob.glob(where, recursive=True)  # noqa: PTH207 patterns may be absolute
    for path in sorted((Path(match).resolve() for match in matches if Path(match).is_file()), key=_natural):
        run, folder = (name, None) if named else _run_of(path)
        yield _RunFile(run, folder, path)


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", str(path))]


def _run_of(path: Path) -> tuple[str, Path]:
    """Name and place of a run that was not named."""
    if path.stem != "predictions":
        return path.stem, path
    folder = path.parent.parent if _SEED_FOLDER.fullmatch(path.parent.name) else path.parent
    return folder.name or "run", folder


def _incidence(runs: Mapping[str, Sequence[Predictions]], results: Record) -> Record:
    """Incidence of each run that has features; a note in the results says what was left out."""
    combined: Record = {}
    target = results["targets"][0]
    for run, entry in zip(runs, results["runs"], strict=True):
        sections = {}
        for index, predictions in enumerate(runs[run]):
            features = Path(predictions.source).parent / _FEATURES
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


def _provenance(
    files: Mapping[str, Sequence[Path]],
    results: Record,
    columns: Mapping[str, str],
    others: Mapping[str, str | Path | None],
    *,
    show_small: bool,
) -> Record:
    """Where the numbers come from, without absolute paths: names are relative to the common folder."""
    root = Path(os.path.commonpath([path.parent for paths in files.values() for path in paths]))
    seeds = {run["name"]: run["seeds"] for run in results["runs"]}
    read = [
        {"run": run, "seed": seed, "name": path.relative_to(root).as_posix(), "sha256": sha256(path)}
        for run, paths in files.items()
        for seed, path in zip(seeds[run], paths, strict=True)
    ]
    features = [
        {**entry, "name": beside.relative_to(root).as_posix(), "sha256": sha256(beside)}
        for entry in read
        if entry["run"] in results.get("incidence", {})
        and (beside := (root / entry["name"]).parent / _FEATURES).is_file()
    ]
    given = {name: Path(path) for name, path in others.items() if path is not None}
    packages = ("numpy", "scipy", "pandas", "scikit-learn", "matplotlib", "jinja2")
    return {
        "files": [*read, *features, *_other_files(given)],
        "command": _command(read, results["settings"], columns, given, show_small=show_small),
        "versions": {
            "monai_fair": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


def _other_files(given: Mapping[str, Path]) -> list[Record]:
    """Files of the discovery and the study, by the names of their folders: they may lie far from the predictions."""
    paths = [("subgroups", given["subgroups"] / name) for name in FILES] if "subgroups" in given else []
    paths += [("stages", given["stages"])] if "stages" in given else []
    return [
        {"run": kind, "seed": "", "name": f"{path.resolve().parent.name}/{path.name}", "sha256": sha256(path)}
        for kind, path in paths
    ]


def _command(
    read: Sequence[Record],
    settings: Record,
    columns: Mapping[str, str],
    given: Mapping[str, Path],
    *,
    show_small: bool,
) -> str:
    arguments = [f"{file['run']}={file['name']}" for file in read]
    arguments += ["--attributes", ",".join(settings["attributes"]), "--out", "OUT"]
    arguments += ["--columns", ",".join(f"{ours}={there}" for ours, there in columns.items())] if columns else []
    arguments += ["--thresholds", ",".join(settings["rules"])]
    for key in ("missing", "resamples", "permutations", "seed", "min_count", "split", "intersections", "confidence"):
        arguments += [f"--{key}", str(settings[key])]
    arguments += ["--show_small", str(show_small)]
    for key, path in given.items():
        arguments += [f"--{key}", path.resolve().name]
    return "python -m monai_fair audit " + shlex.join(arguments)
