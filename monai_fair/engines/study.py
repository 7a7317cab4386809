"""Arms of a comparison over seeds: every run a bundle run of its own, several at a time, finished ones skipped."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from monai_fair.data import write_folds
from monai_fair.engines.bundle_runs import check_files
from monai_fair.engines.study_plan import Arm, Overlay, Stage, StudyPlan, TrainingPlan, external_problems
from monai_fair.engines.study_runs import StudyRun, run_in_order, with_beginnings
from monai_fair.engines.trials import write_trials
from monai_fair.errors import ArtifactError, raise_problems


class BundleStudy:
    """Train and evaluate every arm with every seed, as ``python -m monai.bundle run`` would.

    Each run has a folder ``output_dir/ARM/seed_SEED`` with the model, ``predictions.csv`` and ``log.txt``; with folds
    it is ``output_dir/ARM/fold_FOLD/seed_SEED``. A study that is started again skips finished runs and continues
    interrupted ones. What several trainings of arms begin with is trained once for each seed and fold, in
    ``output_dir/shared``, and its files are copied into the folders of the arms.

    Args:
        config_dir: the bundle's ``configs`` folder.
        arms: arm name to the overlays of its training, such as ``{"erm": [], "nir": ["nir.yaml"]}``. An overlay is a
            config file laid over ``base``, or keys with values, such as ``{"column_weight": 0}``, laid over what stands
            before. A list of lists is as many trainings, one after the other in one folder, such as ``[["stage1.yaml"],
            [{"blocks": 1}]]``; the last one's model is evaluated. A mapping has such a list as ``trainings``, and as
            ``evaluate`` the overlays of this arm's evaluation alone.
        seeds: the seeds; every arm gets the same.
        output_dir: folder of the study.
        manifest: the manifest; a run is bound to its content.
        base: config files of every training.
        evaluate: overlays over a training's to evaluate it.
        overrides: values for the bundle's keys, the same in every run; ids such as ``network_def#layers`` work.
        inputs: arm name to files that its runs depend on beside the manifest, such as a manifest of its own.
        jobs: runs at a time; by default one on a GPU, else one per core.
        folds: train and evaluate once for every fold of :func:`monai_fair.data.write_folds`; ``None`` uses the
            manifest's own split.
        external: name to ``manifest`` and ``dataset_dir`` of other data, which every model then scores with its own
            thresholds, in ``output_dir/external_NAME``.
        external_overlay: config file laid over the evaluation for that. It is given ``external_manifest``,
            ``external_dir`` and ``external_output_dir``.
        cluster: where runs go: ``address`` of a Ray cluster (``local`` for a Ray of its own on this machine, ``None``
            for no Ray), ``num_cpus`` and ``num_gpus`` of a run; see :class:`monai_fair.parallel.Cluster`.
        retries: how often a run that fails, or whose process is killed, is tried again; it continues where it was.

    Raises:
        ArtifactError: naming every config and input that is not there, or every arm or other data that cannot be read.
    """

    def __init__(
        self,
        config_dir: str,
        arms: Mapping[str, Arm],
        seeds: Sequence[int],
        output_dir: str,
        manifest: str,
        *,
        base: Sequence[str] = ("train.yaml",),
        evaluate: Sequence[Overlay] = ("evaluate.yaml",),
        overrides: Mapping[str, Any] | None = None,
        inputs: Mapping[str, Sequence[str]] | None = None,
        jobs: int | None = None,
        folds: int | None = None,
        external: Mapping[str, Mapping[str, str]] | None = None,
        external_overlay: str = "external.yaml",
        cluster: Mapping[str, Any] | None = None,
        retries: int = 1,
    ) -> None:
        self.config_dir = Path(config_dir)
        self.output_dir = Path(output_dir)
        self.manifest = Path(manifest)
        self.base, self.seeds, self.folds = tuple(base), tuple(seeds), folds
        self.overrides = dict(overrides or {})
        self.jobs, self.cluster, self.retries = jobs, cluster, retries
        self.external, self.external_overlay = dict(external or {}), external_overlay
        self.plan = StudyPlan(
            arms,
            evaluate,
            inputs=inputs or {},
            config_dir=self.config_dir,
            output_dir=self.output_dir,
            taken=self.overrides,
        )
        self._check()

    def _check(self) -> None:
        raise_problems(ArtifactError, f"study {self.output_dir}", external_problems(self.external))
        names = [*self.base, *([self.external_overlay] if self.external else [])]
        elsewhere = [Path(data["manifest"]) for data in self.external.values()]
        configs = [self.config_dir / name for name in names]
        needed = dict.fromkeys([self.manifest, *elsewhere, *sorted({*configs, *self.plan.files})])
        check_files(f"study {self.output_dir}", list(needed))

    def _repeats(self) -> Iterator[tuple[str, int | None, int]]:
        """Folder, fold and seed of each repeat of the arms."""
        for fold in range(self.folds) if self.folds else (None,):
            for seed in self.seeds:
                yield (f"seed_{seed}" if fold is None else f"fold_{fold}/seed_{seed}"), fold, seed

    @cached_property
    def manifests(self) -> list[str]:
        """The manifest of each fold, or the one of the study; those of folds are written when they are asked for."""
        if not self.folds:
            return [str(self.manifest)]
        return write_folds(self.manifest, self.output_dir / "folds", folds=self.folds)

    @cached_property
    def runs(self) -> list[StudyRun]:
        """A run for each arm in each repeat."""
        self.plan.write()
        found = []
        for place, fold, seed in self._repeats():
            options = {**self.overrides, "manifest": self.manifests[fold or 0], "seed": seed}
            shared: dict[TrainingPlan, StudyRun] = {}
            for beginning in sorted(self.plan.shared, key=lambda each: len(each.trainings)):
                name = f"shared/{self.plan.label(beginning)}/{place}"
                shared[beginning] = self._run(name, beginning, options, shared)
            for arm, plan in self.plan.arms.items():
                found.append(self._run(f"{arm}/{place}", plan, options, shared, evaluation=self.plan.evaluations[arm]))
        return found

    def _run(
        self,
        name: str,
        plan: TrainingPlan,
        options: Mapping[str, Any],
        shared: Mapping[TrainingPlan, StudyRun],
        *,
        evaluation: Stage | None = None,
    ) -> StudyRun:
        chain = [self.plan.paths((*self.base, *overlays)) for overlays in plan.trainings]
        if evaluation is not None:
            chain.append([*chain[-1], *self.plan.paths(evaluation)])
        before = [shared[beginning] for beginning in plan.beginnings if beginning in shared]
        return StudyRun(
            self.output_dir / name,
            chain,
            after=before[-1] if before else None,
            overrides=options,
            inputs=[options["manifest"], *plan.inputs],
            name=name,
        )

    def _external_runs(self, name: str) -> list[StudyRun]:
        there = self.external[name]
        return [
            StudyRun(
                folder := self.output_dir / f"external_{name}" / run.name,
                [[*run.stages[-1], self.config_dir / self.external_overlay]],
                overrides={
                    **run.overrides,
                    "external_manifest": there["manifest"],
                    "external_dir": there["dataset_dir"],
                    "external_output_dir": str(folder),
                },
                # the record of the training's run stands for its model and thresholds
                inputs=[there["manifest"], *run.inputs, run.folder / "run.json"],
                name=f"external_{name}/{run.name}",
            )
            for run in self.runs
        ]

    @property
    def predictions(self) -> list[str]:
        """What the audit compares: ``ARM=`` and the ``predictions.csv`` of every run of this study, and of no other."""
        return self._tables(self.output_dir)

    def _tables(self, root: Path) -> list[str]:
        return [
            f"{arm}={root}/{arm}/{place}/predictions.csv" for place, _, _ in self._repeats() for arm in self.plan.arms
        ]

    def run(self) -> None:
        """Do all runs that are not finished, and then let every model score the external data.

        ``output_dir/trials.csv`` has a row for each; see :func:`monai_fair.engines.trials.write_trials`.

        Raises:
            ArtifactError: before anything is trained, if a folder holds a run of other settings.
            MonaiFairError: at the end, if runs failed; with the reason of each. The others are complete.
        """
        options: dict[str, Any] = {"jobs": self.jobs, "cluster": self.cluster, "retries": self.retries}
        runs = with_beginnings(self.runs)
        try:
            run_in_order(self.runs, source=f"study {self.output_dir}", **options)
            for name in self.external:
                elsewhere = self._external_runs(name)
                runs += elsewhere
                run_in_order(elsewhere, source=f"study {self.output_dir}, {name}", **options)
        finally:
            write_trials(self.output_dir / "trials.csv", runs)

    def audit_external(self, audit: Callable[..., Path]) -> list[Path]:
        """Audit the arms on each of the external data.

        Args:
            audit: :func:`monai_fair.report.audit_files`, told all but ``predictions`` and ``out``.

        Returns:
            What it returned for each, the path of a page in ``output_dir/external_NAME``.
        """
        pages = []
        for name in self.external:
            folder = self.output_dir / f"external_{name}"
            pages.append(audit(self._tables(folder), out=folder))
            logging.getLogger(__name__).info("%s: %s", name, pages[-1])
        return pages
