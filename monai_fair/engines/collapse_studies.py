"""Neural collapse and label bias: each dataset by {clean, biased} by seeds, and models that tell the groups."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fair.data import group_label_manifest, load_datalist, read_manifest, recorded_num_classes
from monai_fair.data.label_bias import label_bias_problems
from monai_fair.engines.named_studies import NamedStudies
from monai_fair.engines.study import BundleStudy
from monai_fair.engines.study_plan import Overlay, name_problems
from monai_fair.errors import ArtifactError, ManifestError, raise_problems

CLEAN, EARLY, FINAL = "clean", "early", "final"
_KEYS = {"manifest", "dataset_dir", "groups", "overlays"}
_TRAININGS = {"clean", "biased", "group"}


class CollapseStudies(NamedStudies):
    """One :class:`monai_fair.engines.BundleStudy` for each dataset, in ``output_dir/DATASET``.

    An experiment is a dataset and one of its attributes. Its arms are ``clean``, which the experiments of a dataset
    share, and ``biased_ATTRIBUTE``, trained with positives of one group missed. Both are trained once for each seed and
    evaluated at two checkpoints, so that their folders are ``clean_early``, ``clean_final``, ``biased_ATTRIBUTE_early``
    and ``biased_ATTRIBUTE_final``. ``group_ATTRIBUTE`` is trained to tell the group from images.

    Args:
        datasets: name to ``manifest``, ``dataset_dir``, ``groups`` (attribute to the value of its group whose positives
            are missed), and perhaps ``overlays`` of its own.
        study: makes a study, told all but ``manifest``, ``output_dir``, ``arms`` and ``overrides``.
        output_dir: folder of all studies.
        overrides: values for the bundle's keys, the same in every run; the data root is that of the dataset.
        trainings: config files of a ``clean``, a ``biased`` and a ``group`` training, laid over the bundle's own.
        overlays: laid over each of them, before those of the dataset.
        checkpoints: what is laid over an evaluation at the ``early`` and at the ``final`` checkpoint.

    Attributes:
        datasets: as given.

    Raises:
        ArtifactError: with every dataset that cannot be read; or with every config that is not there.
    """

    def __init__(
        self,
        datasets: Mapping[str, Mapping[str, Any]],
        study: Callable[..., BundleStudy],
        output_dir: str,
        *,
        overrides: Mapping[str, Any],
        trainings: Mapping[str, Sequence[Overlay]],
        overlays: Sequence[Overlay] = (),
        checkpoints: Mapping[str, Sequence[Overlay]],
    ) -> None:
        problems = [*_problems(datasets), *_missing("trainings", trainings, _TRAININGS)]
        problems += _missing("checkpoints", checkpoints, {EARLY, FINAL})
        raise_problems(ArtifactError, f"study {output_dir}", problems)
        self.datasets = {name: dict(dataset) for name, dataset in datasets.items()}
        self._trainings, self._overlays, self._checkpoints = trainings, list(overlays), checkpoints
        self._bias = {"rate": overrides.get("bias_rate", 0.0), "method": overrides.get("bias_method", "exact")}
        studies = {
            name: study(
                manifest=dataset["manifest"],
                output_dir=str(Path(output_dir) / name),
                arms=self._arms(dataset),
                overrides={**overrides, "dataset_dir": dataset["dataset_dir"]},
            )
            for name, dataset in self.datasets.items()
        }
        super().__init__(studies, output_dir)

    def _arms(self, dataset: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        groups: Mapping[str, Any] = dataset["groups"]
        own = [*self._overlays, *dataset.get("overlays", ())]
        measured = {"collapse_attributes": list(groups)}
        disease = {CLEAN: [*self._trainings["clean"], *own, measured]}
        for attribute, value in groups.items():
            bias = {"bias_group": {attribute: value}}
            disease[f"biased_{attribute}"] = [*self._trainings["biased"], *own, {**measured, **bias}]
        arms = {
            f"{arm}_{checkpoint}": {"trainings": [overlays], "evaluate": list(self._checkpoints[checkpoint])}
            for arm, overlays in disease.items()
            for checkpoint in (EARLY, FINAL)
        }
        for attribute, value in groups.items():
            learned = {"learned_group": {attribute: value}}
            arms[f"group_{attribute}"] = {"trainings": [[*self._trainings["group"], *own, learned]]}
        return arms

    def check(self) -> None:
        """Refuse data that a run could not finish with, before anything is trained.

        Raises:
            MonaiFairError: with every problem of every dataset.
        """
        self.each(lambda name, study: _check(study, self.datasets[name], self._bias))

    @property
    def experiments(self) -> list[dict[str, Any]]:
        """What :func:`monai_fair.report.write_collapse_page` reads: dataset, attribute, and folders of its runs."""
        return [
            {
                "dataset": name,
                "attribute": attribute,
                "group": str(value),
                "manifest": str(study.manifest),
                "seeds": list(study.seeds),
                "runs": {
                    arm: {checkpoint: self._folders(study, f"{folder}_{checkpoint}") for checkpoint in (EARLY, FINAL)}
                    for arm, folder in ((CLEAN, CLEAN), ("biased", f"biased_{attribute}"))
                },
                "attribute_models": self._folders(study, f"group_{attribute}"),
            }
            for name, study in self.studies.items()
            for attribute, value in self.datasets[name]["groups"].items()
        ]

    def _folders(self, study: BundleStudy, arm: str) -> list[str]:
        return [str(study.output_dir / arm / f"seed_{seed}") for seed in study.seeds]

    def audit(self, audit: Callable[..., Path]) -> dict[str, Path]:
        """Audit the clean and biased models of each dataset, at both checkpoints.

        Args:
            audit: :func:`monai_fair.report.audit_files`, told all but ``predictions``, ``attributes`` and ``out``.

        Returns:
            Experiment (``dataset: attribute``) to the page of its dataset, as
            :func:`monai_fair.report.write_collapse_page` links them.
        """
        pages: dict[str, Path] = {}
        for name, study in self.studies.items():
            groups = self.datasets[name]["groups"]
            learned = tuple(f"group_{attribute}=" for attribute in groups)
            tables = [path for path in study.predictions if not path.startswith(learned)]
            page = audit(predictions=tables, attributes=list(groups), out=study.output_dir)
            logging.getLogger(__name__).info("%s", page)
            pages |= {f"{name}: {attribute}": page for attribute in groups}
        return pages


def _problems(datasets: Mapping[str, Any]) -> Iterator[str]:
    if not datasets:
        yield "expected at least one dataset, got none; name one"
    yield from name_problems("dataset", datasets)
    for name, dataset in datasets.items():
        needed = {"manifest", "dataset_dir", "groups"}
        if not isinstance(dataset, Mapping) or not needed <= {*dataset} <= _KEYS:
            yield f"dataset '{name}': expected {', '.join(sorted(needed))} and perhaps overlays, got {dataset!r}"
        elif not isinstance(dataset["groups"], Mapping) or not dataset["groups"]:
            yield (
                f"dataset '{name}': expected groups as attribute to value, such as {{sex: female}}, got "
                f"{dataset['groups']!r}; name one"
            )
        else:
            yield from (f"dataset '{name}': {text}" for text in name_problems("attribute", dataset["groups"]))


def _missing(option: str, given: Mapping[str, Any], needed: set[str]) -> list[str]:
    if {*given} == needed:
        return []
    return [f"{option}: expected {', '.join(sorted(needed))}, got {', '.join(sorted(given)) or 'none'}; correct them"]


def _check(study: BundleStudy, dataset: Mapping[str, Any], bias: Mapping[str, Any]) -> None:
    """Refuse a dataset whose labels cannot be biased as asked, or whose groups cannot be learned."""
    path = study.manifest
    num_classes = recorded_num_classes(path) or 2
    if num_classes != 2:
        raise ManifestError(f"{path}: expected two classes, of which one can be missed, got {num_classes}")
    manifest = read_manifest(path)
    load_datalist(path, dataset["dataset_dir"])  # names every path that leaves the root
    problems: list[str] = []
    for attribute, value in dataset["groups"].items():
        group = {attribute: str(value)}
        found = label_bias_problems(manifest.table, group, **bias)
        problems += found
        if not found:
            try:
                group_label_manifest(manifest, group)
            except ManifestError as error:
                problems.append(str(error))
    raise_problems(ManifestError, path, list(dict.fromkeys(problems)))
