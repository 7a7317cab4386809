"""Runs of bundles, each in a process of its own: several at a time, here or on a cluster, skipped when finished."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import joblib
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from monai_fair.data.artifacts import fingerprint, read_json, sha256, write_json
from monai_fair.errors import ArtifactError, MonaiFairError, raise_problems
from monai_fair.parallel import read_cluster, run_each

# imported once by the server that jobs are forked from, instead of once per job
_PRELOAD = ["monai.bundle", "monai.engines", "monai.handlers", "monai_fair.handlers", "monai_fair.losses"]
# where things lie does not change a result; what they are is among the inputs
_PLACES = ("_dir", "_path", "manifest", "registered", "subgroups")

FINISHED, FAILED = "finished", "failed"


@dataclass(frozen=True)
class Trial:
    """What became of a run.

    Attributes:
        state: :data:`FINISHED` or :data:`FAILED`, or what :mod:`monai_fair.engines.trials` adds to them.
        attempts: how often it was tried.
        seconds: of all attempts, with the time to start a process; on a cluster also that until it had room.
        reason: of the last failure; else empty.
    """

    state: str
    attempts: int | None
    seconds: float
    reason: str = ""


class BundleRun:
    """One run of a bundle: configs, one after the other, that write to one folder.

    When all have ended, ``run.json`` in the folder says what they depended on; ``log.txt`` has what they printed.

    Args:
        output_dir: folder that the run writes to.
        stages: per stage the config files laid over each other.
        overrides: values for the bundle's keys.
        inputs: files that the result depends on, such as the manifest; the run is bound to their content.
        name: for messages and the progress bar; by default that of the folder.

    Attributes:
        trial: what became of it when it was last run from here; ``None`` if it was not.

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
        self.trial: Trial | None = None
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
        run_bundles([self], source=f"run {self.folder}", show_progress=True, retries=0)


def check_files(source: str, needed: Sequence[Path]) -> None:
    """Raise an :class:`ArtifactError` that names every file that is not there."""
    missing = [f"expected the file {path}, found none" for path in needed if not path.is_file()]
    raise_problems(ArtifactError, source, missing)


def run_bundles(
    runs: Sequence[BundleRun],
    *,
    source: str,
    jobs: int | None = None,
    show_progress: bool = False,
    cluster: Mapping[str, Any] | None = None,
    retries: int = 1,
) -> None:
    """Do all runs that are not finished; one that fails is tried again behind the others, and stops none of them.

    What became of a run is its ``trial`` then; :func:`monai_fair.engines.trials.write_trials` makes a table of them.

    Args:
        runs: what is to be done.
        source: what an error is about.
        jobs: runs at a time; by default one on a GPU, else one per core. On a cluster by default what it has room for;
            more than that asks one that grows for machines.
        show_progress: let the runs' own progress bars through, instead of a bar over runs; not on a cluster.
        cluster: ``address``, ``num_cpus`` and ``num_gpus`` of Ray, see :class:`monai_fair.parallel.Cluster`. A run gets
            so many cores and GPUs, and has as many threads as cores. ``None``, or without an address: processes of
            this machine.
        retries: how often a run that failed, or whose process died, is tried again; its bundle goes on where it was.

    Raises:
        MonaiFairError: before anything is run, if Ray is asked for and cannot be had; at the end, if runs failed, with
            the reason of each. The others are complete.
    """
    place = read_cluster(cluster)
    waiting = [run for run in runs if not run.is_finished()]
    if not waiting:
        return
    shown = show_progress and place is None
    workers = jobs if place else min(jobs or _jobs_here(), len(waiting))
    # as many as this process has, which OMP_NUM_THREADS may have lowered
    threads = int(place.num_cpus) if place else torch.get_num_threads() // (workers or 1)
    execute = partial(_execute, threads=max(1, threads), show_progress=shown, start=str(Path.cwd()))
    ended = run_each(execute, waiting, workers=workers, cluster=place, retries=retries, apart=True, preload=_PRELOAD)
    title, done = "training and evaluating", len(runs) - len(waiting)
    with tqdm(total=len(runs), initial=done, desc=title, unit="run", disable=shown) as bar, closing(ended):
        for index, outcome in ended:
            run, state = waiting[index], FAILED if outcome.error else FINISHED
            run.trial = Trial(state, outcome.attempts, outcome.seconds, outcome.error)
            bar.set_postfix_str(f"{state} {run.name}")
            bar.update()
    failed = [(run, run.trial) for run in waiting if run.trial and run.trial.state == FAILED]
    problems = [f"{run.name}: {trial.reason}; see {run.folder / 'log.txt'}" for run, trial in failed]
    raise_problems(MonaiFairError, source, problems)


def _jobs_here() -> int:
    return 1 if torch.cuda.is_available() else int(joblib.cpu_count())


def _execute(run: BundleRun, *, threads: int, show_progress: bool, start: str) -> None:
    """Do one run in this process, whose relative paths begin at ``start``."""
    from monai.bundle import run as run_bundle

    os.chdir(start)
    run.folder.mkdir(parents=True, exist_ok=True)
    _redirect_output(run.folder / "log.txt", [sys.stdout] if show_progress else [sys.stdout, sys.stderr])
    torch.set_num_threads(threads)
    threadpool_limits(limits=threads)  # those of NumPy and SciPy: runs side by side would wait for each other
    # as in a run of its own: this process would pass its own start on to loader workers, which then import all anew
    multiprocessing.set_start_method(None, force=True)
    try:
        for stage in run.stages:
            run_bundle(config_file=list(stage), **run.overrides)
    except Exception:
        with (run.folder / "log.txt").open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        raise
    write_json(run.folder / "run.json", "study_run", {"key": run.key, "name": run.name})


def _redirect_output(log: Path, streams: Sequence[Any]) -> None:
    with log.open("a", encoding="utf-8") as file:
        for stream in streams:
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
