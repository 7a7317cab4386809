"""Runs of bundles, each in a process of its own: several at a time, skipped when finished."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from monai_fair.data.artifacts import fingerprint, read_json, sha256, write_json
from monai_fair.errors import ArtifactError, MonaiFairError, raise_problems, root_cause

# imported once by the server that jobs are forked from, instead of once per job
_PRELOAD = ["monai.bundle", "monai.engines", "monai.handlers", "monai_fair.handlers", "monai_fair.losses"]
# where things lie does not change a result; what they are is among the inputs
_PLACES = ("_dir", "_path", "manifest", "registered", "subgroups")


class BundleRun:
    """One run of a bundle: configs, one after the other, that write to one folder.

    When all have ended, ``run.json`` in the folder says what they depended on; ``log.txt`` has what they printed.

    Args:
        output_dir: folder that the run writes to.
        stages: per stage the config files laid over each other.
        overrides: values for the bundle's keys.
        inputs: files that the result depends on, such as the manifest; the run is bound to their content.
        name: for messages and the progress bar; by default that of the folder.

    Raises:
        ArtifactError: naming every config and input that is not there.
    """

    def __init__(
        self,
        output_dir: str | Path,
        stages: Sequence[Sequence[str | Path]],
        *,
        overrides: Mapping[str, Any] | None = None,
        inputs: Sequence[str | Path] = (),
        name: str = "",
    ) -> None:
        self.folder = Path(output_dir)
        self.stages = tuple(tuple(map(str, stage)) for stage in stages)
        self.overrides = {**(overrides or {}), "output_dir": str(output_dir)}
        self.inputs = tuple(Path(path) for path in inputs)
        self.name = name or self.folder.name
        check_files(f"run {self.folder}", self.files)

    @property
    def files(self) -> list[Path]:
        """Inputs and configs, each once."""
        return list(dict.fromkeys([*self.inputs, *(Path(path) for stage in self.stages for path in stage)]))

    @cached_property
    def key(self) -> str:
        """Fingerprint of all that the result depends on."""
        # a list: two inputs of one name are two inputs
        contents = sorted([path.name, sha256(path)] for path in self.files)
        settings = {key: value for key, value in self.overrides.items() if not key.endswith(_PLACES)}
        return fingerprint([contents, settings])

    def is_finished(self) -> bool:
        """Say whether this very run is done.

        Raises:
            ArtifactError: if the folder holds a finished run of other settings.
        """
        record = self.folder / "run.json"
        if not record.is_file():
            return False
        if read_json(record, "study_run")["key"] != self.key:
            raise ArtifactError(
                f"{self.folder}: holds a run of other settings, configs or manifest; choose another output_dir"
            )
        return True

    def run(self) -> None:
        """Do the run, unless it is finished; its progress bars show."""
        run_bundles([self], source=f"run {self.folder}", show_progress=True)


def check_files(source: str, needed: Sequence[Path]) -> None:
    """Raise an :class:`ArtifactError` that names every file that is not there."""
    missing = [f"expected the file {path}, found none" for path in needed if not path.is_file()]
    raise_problems(ArtifactError, source, missing)


def run_bundles(runs: Sequence[BundleRun], *, source: str, jobs: int = 1, show_progress: bool = False) -> None:
    """Do all runs that are not finished.

    Args:
        runs: what is to be done.
        source: what an error is about.
        jobs: runs at a time.
        show_progress: let the runs' own progress bars through, instead of a bar over runs.

    Raises:
        MonaiFairError: at the end, if runs failed; with the reason of each. The others are complete.
    """
    waiting = [run for run in runs if not run.is_finished()]
    failures = _run_all(waiting, len(runs), jobs, show_progress=show_progress) if waiting else {}
    problems = [f"{run.name}: {reason}; see {run.folder / 'log.txt'}" for run, reason in failures.items()]
    raise_problems(MonaiFairError, source, problems)


def _run_all(runs: Sequence[BundleRun], total: int, jobs: int, *, show_progress: bool) -> dict[BundleRun, str]:
    jobs = min(jobs, len(runs))
    # as many as this process has, which OMP_NUM_THREADS may have lowered
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    failures = {}
    bar = tqdm(
        total=total, initial=total - len(runs), desc="training and evaluating", unit="run", disable=show_progress
    )
    with bar, ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        futures = {pool.submit(_execute, run, threads, show_progress): run for run in runs}
        for future in as_completed(futures):
            run = futures[future]
            reason = _outcome(future)
            if reason:
                failures[run] = reason
            bar.set_postfix_str(f"{'failed' if reason else 'finished'} {run.name}")
            bar.update()
    return failures


def _outcome(future: Future[str]) -> str:
    """Return why a run failed, or nothing."""
    error = future.exception()
    if error is None:
        return future.result()
    return f"its process, or one beside it, was killed ({error}); start the study again to continue"


def _execute(run: BundleRun, threads: int, show_progress: bool) -> str:
    """Do one run in this process; return the reason when it fails."""
    from monai.bundle import run as run_bundle

    run.folder.mkdir(parents=True, exist_ok=True)
    _redirect_output(run.folder / "log.txt", [sys.stdout] if show_progress else [sys.stdout, sys.stderr])
    torch.set_num_threads(threads)
    # as in a run of its own: this process would pass its own start on to loader workers, which then import all anew
    multiprocessing.set_start_method(None, force=True)
    try:
        for stage in run.stages:
            run_bundle(config_file=list(stage), **run.overrides)
    except Exception as error:
        # a failed run must not stop the others: its reason is reported when they are done
        with (run.folder / "log.txt").open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        return root_cause(error)
    write_json(run.folder / "run.json", "study_run", {"key": run.key, "name": run.name})
    return ""


def _redirect_output(log: Path, streams: Sequence[Any]) -> None:
    with log.open("a", encoding="utf-8") as file:
        for stream in streams:
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
