"""Arms of a comparison over seeds: every run a bundle run of its own, several at a time, finished ones skipped."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from monai_fair.data.artifacts import fingerprint, read_json, sha256, write_json
from monai_fair.errors import ArtifactError, MonaiFairError, raise_problems, root_cause

# imported once by the server that jobs are forked from, instead of once per job
_PRELOAD = ["monai.bundle", "monai.engines", "monai.handlers", "monai_fair.handlers", "monai_fair.losses"]


@dataclass(frozen=True)
class StudyRun:
    """One run: an arm with a seed.

    Attributes:
        name: such as ``nir/seed_3``; also its folder under the study's ``output_dir``.
        folder: where the run writes.
        stages: per stage the config files laid over each other.
        overrides: values for the bundle's keys.
        key: fingerprint of all that the result depends on.
    """

    name: str
    folder: Path
    stages: tuple[tuple[str, ...], ...]
    overrides: Mapping[str, Any]
    key: str

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


class BundleStudy:
    """Train and evaluate every arm with every seed, as ``python -m monai.bundle run`` would.

    Each run has a folder ``output_dir/ARM/seed_SEED`` with the model, ``predictions.csv`` and ``log.txt``. A study
    that is started again skips finished runs and continues interrupted ones.

    Args:
        config_dir: the bundle's ``configs`` folder.
        arms: arm name to the config files laid over ``base`` in it, such as ``{"erm": [], "nir": ["nir.yaml"]}``.
        seeds: the seeds; every arm gets the same.
        output_dir: folder of the study.
        manifest: the manifest; a run is bound to its content.
        base: config files of every training.
        evaluate: config files laid over a training's to evaluate it.
        overrides: values for the bundle's keys, the same in every run; ids such as ``network_def#layers`` work.
        jobs: runs at a time; by default one on a GPU, else one per core.

    Raises:
        MonaiFairError: at the end, if runs failed; with the reason of each. The others are complete.
    """

    def __init__(
        self,
        config_dir: str,
        arms: Mapping[str, Sequence[str]],
        seeds: Sequence[int],
        output_dir: str,
        manifest: str,
        *,
        base: Sequence[str] = ("train.yaml",),
        evaluate: Sequence[str] = ("evaluate.yaml",),
        overrides: Mapping[str, Any] | None = None,
        jobs: int | None = None,
    ) -> None:
        self.config_dir = Path(config_dir)
        self.output_dir = Path(output_dir)
        self.manifest = Path(manifest)
        self.base, self.evaluate = tuple(base), tuple(evaluate)
        self.overrides = dict(overrides or {})
        self.jobs = jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
        self._check_files(arms)
        self.runs = [self._plan(arm, tuple(files), seed) for seed in seeds for arm, files in arms.items()]

    def _check_files(self, arms: Mapping[str, Sequence[str]]) -> None:
        names = {*self.base, *self.evaluate, *(name for files in arms.values() for name in files)}
        needed = [self.manifest, *(self.config_dir / name for name in sorted(names))]
        missing = [f"expected the file {path}, found none" for path in needed if not path.is_file()]
        raise_problems(ArtifactError, f"study {self.output_dir}", missing)

    def _plan(self, arm: str, files: tuple[str, ...], seed: int) -> StudyRun:
        training = [self.config_dir / name for name in (*self.base, *files)]
        evaluation = [*training, *(self.config_dir / name for name in self.evaluate)]
        needed = {*evaluation, self.manifest}
        name = f"{arm}/seed_{seed}"
        folder = self.output_dir / name
        overrides = {**self.overrides, "manifest": str(self.manifest), "output_dir": str(folder), "seed": seed}
        # where the data lie does not change a result; what they are is in the manifest
        settings = {key: value for key, value in overrides.items() if not key.endswith(("_dir", "manifest"))}
        contents = {path.name: sha256(path) for path in needed}
        stages = tuple(tuple(map(str, stage)) for stage in (training, evaluation))
        return StudyRun(name, folder, stages, overrides, fingerprint([contents, settings]))

    @property
    def predictions(self) -> list[str]:
        """What the audit compares: ``ARM=`` and the ``predictions.csv`` of every run of this study, and of no other."""
        return [f"{run.folder.parent.name}={run.folder}/predictions.csv" for run in self.runs]

    def run(self) -> None:
        """Do all runs that are not finished."""
        waiting = [run for run in self.runs if not run.is_finished()]
        failures = self._run_all(waiting) if waiting else {}
        problems = [f"{name}: {reason}; see {self.output_dir / name / 'log.txt'}" for name, reason in failures.items()]
        raise_problems(MonaiFairError, f"study {self.output_dir}", problems)

    def _run_all(self, runs: Sequence[StudyRun]) -> dict[str, str]:
        jobs = min(self.jobs, len(runs))
        threads = max(1, (os.cpu_count() or 1) // jobs)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        failures = {}
        bar = tqdm(total=len(self.runs), initial=len(self.runs) - len(runs), desc="training and evaluating", unit="run")
        with bar, ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
            futures = {pool.submit(_execute, run, threads): run for run in runs}
            for future in as_completed(futures):
                run = futures[future]
                reason = _outcome(future)
                if reason:
                    failures[run.name] = reason
                bar.set_postfix_str(f"{'failed' if reason else 'finished'} {run.name}")
                bar.update()
        return failures


def _outcome(future: Future[str]) -> str:
    """Return why a run failed, or nothing."""
    error = future.exception()
    if error is None:
        return future.result()
    return f"its process, or one beside it, was killed ({error}); start the study again to continue"


def _execute(run: StudyRun, threads: int) -> str:
    """Do one run in this process; return the reason when it fails."""
    from monai.bundle import run as run_bundle

    run.folder.mkdir(parents=True, exist_ok=True)
    _redirect_output(run.folder / "log.txt")
    torch.set_num_threads(threads)
    try:
        for stage in run.stages:
            run_bundle(config_file=list(stage), **run.overrides)
    except Exception as error:
        # a failed run must not stop the others: its reason is reported when they are done
        traceback.print_exc()
        return root_cause(error)
    write_json(run.folder / "run.json", "study_run", {"key": run.key, "name": run.name})
    return ""


def _redirect_output(log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
