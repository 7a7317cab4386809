"""Which files belong to which run of an audit."""

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from monai_fair.errors import PredictionsError, raise_problems

_REPEAT_FOLDER = re.compile(r"(seed|fold)[_-]?[0-9]+")  # of a training that is repeated


@dataclass(frozen=True)
class _RunFile:
    run: str
    folder: Path | None  # of a run that was not named; None for a named one
    path: Path


def find_runs(patterns: Sequence[str]) -> dict[str, list[Path]]:
    """Return the files of each run, in the order of the patterns and in natural order within one.

    Args:
        patterns: paths, glob patterns, or ``name=`` followed by either; see
            :func:`~monai_fair.report.audit_files`.

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
    folder = path.parent
    while _REPEAT_FOLDER.fullmatch(folder.name):
        folder = folder.parent
    return folder.name or "run", folder
