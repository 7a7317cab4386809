"""Runs of a study that start from what other runs have trained, in their order."""

import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

from monai_fair.data.artifacts import atomic_path, fingerprint, read_json, write_json
from monai_fair.engines.bundle_runs import BundleRun, run_bundles
from monai_fair.errors import ArtifactError, MonaiFairError

_START = "started_from.json"
_OWN = ("run.json", "log.txt", _START)  # files of a run that the next one does not take over


class StudyRun(BundleRun):
    """A bundle run that may start from the files of another one.

    What it depends on is the whole chain of stages, whether it does them itself or another run has done the first.

    Args:
        output_dir: folder of the run.
        chain: per stage the config files laid over each other, from the first training on.
        after: the run that has done the first of them, in a folder of its own.
        overrides: values for the bundle's keys; with ``output_dir`` the stages read and write there, and the folder of
            the run has only its record.
        inputs: files that the result depends on.
        name: for messages.

    Raises:
        ArtifactError: naming every config and input that is not there.
    """

    def __init__(
        self,
        output_dir: str | Path,
        chain: Sequence[Sequence[str | Path]],
        *,
        after: Optional["StudyRun"] = None,
        overrides: Mapping[str, Any],
        inputs: Sequence[str | Path],
        name: str,
    ) -> None:
        self.after = after
        self.chain = tuple(tuple(map(str, stage)) for stage in chain)
        done = 0 if after is None else len(after.chain)
        # MONAI takes a None on its command line for a key that was not given
        plain = {key: "$None" if value is None else value for key, value in overrides.items()}
        super().__init__(output_dir, self.chain[done:], overrides=plain, inputs=inputs, name=name)
        self.overrides["output_dir"] = overrides.get("output_dir", str(output_dir))

    @property
    def files(self) -> list[Path]:
        """Inputs and configs of all stages, each once."""
        return list(dict.fromkeys([*self.inputs, *(Path(path) for stage in self.chain for path in stage)]))

    @cached_property
    def key(self) -> str:
        """Fingerprint of all that the result depends on."""
        return fingerprint([super().key, [[Path(path).name for path in stage] for stage in self.chain]])

    @property
    def depth(self) -> int:
        """How many runs come before."""
        return 0 if self.after is None else self.after.depth + 1

    def check_start(self) -> None:
        """Refuse to go on in the folder of a run that has begun, but from something else.

        Raises:
            ArtifactError: if the folder was started from a run of other settings.
        """
        record = self.folder / _START
        if self.after is not None and record.is_file() and read_json(record, "study_start")["key"] != self.after.key:
            raise ArtifactError(
                f"{self.folder}: was started from another training than {self.after.folder}; choose another output_dir"
            )

    def take_over(self) -> None:
        """Copy the files of the run before into the folder; those that are there a later stage may have changed."""
        if self.after is None:
            return
        write_json(self.folder / _START, "study_start", {"key": self.after.key, "name": self.after.name})
        for path in sorted(self.after.folder.iterdir()):
            started = path.name.startswith(".")  # a write that was killed has left it
            if path.is_file() and path.name not in _OWN and not started and not (self.folder / path.name).exists():
                # no link: a stage that writes into a file would change it for every arm
                with atomic_path(self.folder / path.name) as temporary:
                    shutil.copyfile(path, temporary)


def with_beginnings(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """Return the runs, each behind those that it starts from."""
    found: dict[StudyRun, None] = {}
    for run in runs:
        found |= dict.fromkeys([*(with_beginnings([run.after]) if run.after else []), run])
    return list(found)


def run_in_order(
    runs: Sequence[StudyRun],
    *,
    source: str,
    jobs: int | None = None,
    cluster: Mapping[str, Any] | None = None,
    retries: int = 1,
) -> None:
    """Do all runs that are not finished, each after the one it starts from.

    Args:
        runs: what is to be done; the runs that they start from are done where needed.
        source: what an error is about.
        jobs: see :func:`monai_fair.engines.bundle_runs.run_bundles`, as the others.
        cluster: see there.
        retries: see there.

    Raises:
        ArtifactError: before anything is run, if a folder holds a run of other settings.
        MonaiFairError: at the end, if runs failed; with the reason of each. What does not start from them is complete.
    """
    waiting = {run: None for run in runs if not run.is_finished()}
    for run in list(waiting):
        while run.after is not None and not run.after.is_finished():
            run = run.after
            waiting[run] = None
    for run in waiting:
        run.check_start()
    failures: list[MonaiFairError] = []
    for depth in sorted({run.depth for run in waiting}):
        ready = [run for run in waiting if run.depth == depth and (run.after is None or run.after.is_finished())]
        for run in ready:
            run.take_over()
        try:
            run_bundles(ready, source=source, jobs=jobs, cluster=cluster, retries=retries)
        except MonaiFairError as error:
            failures.append(error)
    if len(failures) > 1:
        raise MonaiFairError("\n".join(map(str, failures)))
    if failures:
        raise failures[0]
