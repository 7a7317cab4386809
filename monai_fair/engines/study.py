"""Arms of a comparison over seeds: every run a bundle run of its own, several at a time, finished ones skipped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import torch

from monai_fair.engines.bundle_runs import BundleRun, check_files, run_bundles


class BundleStudy:
    """Train and evaluate every arm with every seed, as ``python -m monai.bundle run`` would.

    Each run has a folder ``output_dir/ARM/seed_SEED`` with the model, ``predictions.csv`` and ``log.txt``. A study
    that is started again skips finished runs and continues interrupted ones.

    Args:
        config_dir: the bundle's ``configs`` folder.
        arms: arm name to the config files laid over ``base`` in it, such as ``{"erm": [], "nir": ["nir.yaml"]}``. A
            list of lists is as many trainings, one after the other in one folder, such as ``[["stage1.yaml"], []]``;
            the last one's model is evaluated.
        seeds: the seeds; every arm gets the same.
        output_dir: folder of the study.
        manifest: the manifest; a run is bound to its content.
        base: config files of every training.
        evaluate: config files laid over a training's to evaluate it.
        overrides: values for the bundle's keys, the same in every run; ids such as ``network_def#layers`` work.
        inputs: arm name to files that its runs depend on beside the manifest, such as a manifest of its own.
        jobs: runs at a time; by default one on a GPU, else one per core.

    Raises:
        ArtifactError: naming every config and input that is not there.
    """

    def __init__(
        self,
        config_dir: str,
        arms: Mapping[str, Sequence[str] | Sequence[Sequence[str]]],
        seeds: Sequence[int],
        output_dir: str,
        manifest: str,
        *,
        base: Sequence[str] = ("train.yaml",),
        evaluate: Sequence[str] = ("evaluate.yaml",),
        overrides: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Sequence[str]] | None = None,
        jobs: int | None = None,
    ) -> None:
        self.config_dir = Path(config_dir)
        self.output_dir = Path(output_dir)
        self.manifest = Path(manifest)
        self.base, self.evaluate = tuple(base), tuple(evaluate)
        self.overrides = dict(overrides or {})
        self.inputs = {arm: tuple(Path(path) for path in (inputs or {}).get(arm, ())) for arm in arms}
        self.jobs = jobs or (1 if torch.cuda.is_available() else joblib.cpu_count())
        self.trainings = {arm: _trainings(files) for arm, files in arms.items()}
        self._check_files()
        self.runs = [self._plan(arm, seed) for seed in seeds for arm in arms]

    def _check_files(self) -> None:
        overlays = {name for trainings in self.trainings.values() for files in trainings for name in files}
        names = {*self.base, *self.evaluate, *overlays}
        own = [path for paths in self.inputs.values() for path in paths]
        needed = [self.manifest, *dict.fromkeys(own), *(self.config_dir / name for name in sorted(names))]
        check_files(f"study {self.output_dir}", needed)

    def _plan(self, arm: str, seed: int) -> BundleRun:
        trainings = [[self.config_dir / name for name in (*self.base, *files)] for files in self.trainings[arm]]
        evaluation = [*trainings[-1], *(self.config_dir / name for name in self.evaluate)]
        name = f"{arm}/seed_{seed}"
        return BundleRun(
            self.output_dir / name,
            [*trainings, evaluation],
            overrides={**self.overrides, "manifest": str(self.manifest), "seed": seed},
            inputs=[self.manifest, *self.inputs[arm]],
            name=name,
        )

    @property
    def predictions(self) -> list[str]:
        """What the audit compares: ``ARM=`` and the ``predictions.csv`` of every run of this study, and of no other."""
        return [f"{run.folder.parent.name}={run.folder}/predictions.csv" for run in self.runs]

    def run(self) -> None:
        """Do all runs that are not finished.

        Raises:
            MonaiFairError: at the end, if runs failed; with the reason of each. The others are complete.
        """
        run_bundles(self.runs, source=f"study {self.output_dir}", jobs=self.jobs)


def _trainings(files: Sequence[str] | Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the overlays of every training of an arm."""
    several = [list(names) for names in files if not isinstance(names, str)]
    return several or [[name for name in files if isinstance(name, str)]]
