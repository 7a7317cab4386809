"""What became of the runs of a study, as one table."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.data.tables import read_table, write_table
from monai_fair.engines.bundle_runs import FINISHED, BundleRun, Trial
from monai_fair.errors import ArtifactError

_TYPES: dict[str, Any] = {
    "name": str, "arm": str, "fold": "Int64", "seed": "Int64", "state": str, "attempts": "Int64", "reason": str,
    "seconds": float,
}  # fmt: skip
SKIPPED, NOT_FINISHED = "skipped", "not finished"
_DONE = (FINISHED, SKIPPED)
_LEFT = "what it starts from failed, or the study was stopped; start it again to continue"
_UNKNOWN = "finished by a study that left no table"
_NAME = re.compile(r"(?:(?P<group>shared|external_[^/]+)/)?(?P<arm>[^/]+)/(?:fold_(?P<fold>\d+)/)?seed_(?P<seed>-?\d+)")


def write_trials(path: str | Path, runs: Sequence[BundleRun]) -> pd.DataFrame:
    """Write what became of every run, one row each.

    A study that had nothing to do, or refused to start, leaves the table as it is.

    Args:
        path: ``trials.csv`` in the folder of the study. What it says of runs that had been finished before is kept.
        runs: of the study, done or not.

    Returns:
        The table; see :func:`trial_table`.
    """
    found = trial_table(runs, before=path)
    untold = found["state"].eq(SKIPPED).all() and _done(_read(path)) != _done(found)
    if untold or any(run.trial for run in runs):
        write_table(path, found)
    return found


def trial_table(runs: Sequence[BundleRun], *, before: str | Path | None = None) -> pd.DataFrame:
    """Return what became of every run.

    The same study gives the same table, but for ``seconds``.

    Args:
        runs: done or not, in the order of the rows.
        before: the table of an earlier start, for attempts and seconds of what it finished. One that is not there or
            cannot be read counts as empty.

    Returns:
        Columns ``name``; ``arm``, ``fold`` and ``seed`` where the name has them (what several arms begin with has no
        arm); ``state``, which is

        - ``finished`` or ``failed``: by this start;
        - ``skipped``: by an earlier one, so that there was nothing to do;
        - ``not finished``: it did not come to its turn or its end;

        ``attempts`` of the start that ended it; ``reason``, why it failed at last, or why something is not known;
        ``seconds`` of all attempts.
    """
    earlier = _earlier(before)
    rows = [_row(run, earlier) for run in runs]
    return pd.DataFrame(rows, columns=list(_TYPES)).astype(_TYPES)


def _row(run: BundleRun, earlier: Mapping[str, Trial]) -> dict[str, object]:
    found = _NAME.fullmatch(run.name)
    parts: Mapping[str, str | None] = found.groupdict() if found else {}
    trial = run.trial or _not_run(run, earlier)
    return {
        "name": run.name,
        "arm": "" if parts.get("group") == "shared" else parts.get("arm", ""),
        **{key: pd.NA if (value := parts.get(key)) is None else int(value) for key in ("fold", "seed")},
        "state": trial.state,
        "attempts": pd.NA if trial.attempts is None else trial.attempts,
        # a row is one line
        "reason": " ".join(trial.reason.split()),
        "seconds": round(trial.seconds, 1),
    }


def _not_run(run: BundleRun, earlier: Mapping[str, Trial]) -> Trial:
    """Say what there is of a run that this start did not do."""
    try:
        finished = run.is_finished()
    except ArtifactError as error:
        return Trial(NOT_FINISHED, None, math.nan, str(error))
    if not finished:
        return Trial(NOT_FINISHED, None, math.nan, _LEFT)
    return earlier.get(run.name, Trial(SKIPPED, None, math.nan, _UNKNOWN))


def _earlier(path: str | Path | None) -> dict[str, Trial]:
    """Return attempts and seconds of the runs that a table says are finished."""
    table = _read(path)
    numbers = table[["attempts", "seconds"]].apply(pd.to_numeric, errors="coerce")
    done = table["state"].isin(_DONE) & numbers.notna().all(axis=1)
    known = zip(table.loc[done, "name"], numbers.loc[done, "attempts"], numbers.loc[done, "seconds"], strict=True)
    return {str(name): Trial(SKIPPED, int(attempts), float(seconds)) for name, attempts, seconds in known}


def _done(table: pd.DataFrame) -> dict[str, bool]:
    """Say of every run whether it is finished."""
    return dict(zip(table["name"], table["state"].isin(_DONE), strict=True))


def _read(path: str | Path | None) -> pd.DataFrame:
    nothing = pd.DataFrame(columns=list(_TYPES), dtype=str)
    if path is None or not Path(path).is_file():
        return nothing
    try:
        table = read_table(path, ArtifactError)
    except ArtifactError:
        return nothing
    return table if list(table) == list(_TYPES) else nothing
