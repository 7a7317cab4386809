"""Where the numbers of an audit come from: files with their hashes, the command, versions."""

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from monai_fair import __version__
from monai_fair.data.artifacts import sha256
from monai_fair.report.discovery_record import FILES
from monai_fair.report.layers import FEATURES
from monai_fair.report.quantities import Record


def provenance_of(
    files: Mapping[str, Sequence[Path]],
    results: Record,
    columns: Mapping[str, str],
    others: Mapping[str, str | Path | None],
    *,
    show_small: bool,
    embeddings: bool,
) -> Record:
    """Return where the numbers come from, without absolute paths: names are relative to the common folder.

    Args:
        files: tables of predictions of each run.
        results: of the audit, with the sections that were read from other files.
        columns: the files' own names for columns.
        others: files and folders of other options, None where one is not given.
        show_small: option of the audit, as the following.
        embeddings: whether features were looked for.

    Returns:
        ``files`` (run, seed, name and hash of each), ``command`` and ``versions``.
    """
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
        for name in _names_beside(results, entry["run"])
        if (beside := (root / entry["name"]).parent / name).is_file()
    ]
    given = {name: Path(path) for name, path in others.items() if path is not None}
    packages = ("numpy", "scipy", "pandas", "scikit-learn", "matplotlib", "jinja2")
    return {
        "files": [*read, *features, *_other_files(given)],
        "command": _command(read, results["settings"], columns, given, show_small=show_small, embeddings=embeddings),
        "versions": {
            "monai_fair": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


def _names_beside(results: Record, run: str) -> list[str]:
    """Names of the files of features that a run's numbers come from."""
    names = [FEATURES] if run in results.get("incidence", {}) else []
    # of the seeds of a run some may have layers and others features only
    found = results.get("features", {}).get("runs", {}).get(run, {}).get("files", [])
    return list(dict.fromkeys([*names, *found]))


def _other_files(given: Mapping[str, Path]) -> list[Record]:
    """Files of the discovery and the study, by the names of their folders: they may lie far from the predictions."""
    paths = [("subgroups", given["subgroups"] / name) for name in FILES] if "subgroups" in given else []
    paths += [(kind, given[kind]) for kind in ("stages", "sweep") if kind in given]
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
    embeddings: bool,
) -> str:
    arguments = [f"{file['run']}={file['name']}" for file in read]
    arguments += ["--attributes", ",".join(settings["attributes"]), "--out", "OUT"]
    arguments += ["--columns", ",".join(f"{ours}={there}" for ours, there in columns.items())] if columns else []
    arguments += ["--thresholds", ",".join(settings["rules"])]
    for key in ("missing", "resamples", "permutations", "seed", "min_count", "split", "intersections", "confidence"):
        arguments += [f"--{key}", str(settings[key])]
    arguments += ["--show_small", str(show_small), *([] if embeddings else ["--embeddings", "False"])]
    for key, path in given.items():
        arguments += [f"--{key}", path.resolve().name]
    return "python -m monai_fair audit " + shlex.join(arguments)
