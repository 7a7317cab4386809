"""What a study trains: the arms as chains of trainings, and the beginnings of chains that arms share."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from monai_fair.data.artifacts import atomic_path, fingerprint
from monai_fair.errors import ArtifactError, raise_problems

Overlay = str | Mapping[str, Any]  # a config file, or keys with their values
Trainings = Sequence[Overlay] | Sequence[Sequence[Overlay]]
Arm = Trainings | Mapping[str, Any]  # trainings alone, or with what is laid over their evaluation
Stage = tuple[str, ...]  # names of the config files laid over each other
_PARTS = ("trainings", "evaluate")
_SHORT = 10  # digits of a fingerprint in a name


@dataclass(frozen=True)
class TrainingPlan:
    """Trainings one after the other.

    Attributes:
        trainings: overlays of every training, by name.
        inputs: files that they depend on beside the manifest.
    """

    trainings: tuple[Stage, ...]
    inputs: tuple[Path, ...]

    @property
    def beginnings(self) -> list["TrainingPlan"]:
        """What has been done after each of them; the whole is last."""
        return [TrainingPlan(self.trainings[: count + 1], self.inputs) for count in range(len(self.trainings))]


class StudyPlan:
    """The arms of a study, checked.

    Keys that stand in place of a config file become one, ``output_dir/overlays/FINGERPRINT.yaml``, written by
    :meth:`write`.

    Args:
        arms: see :class:`monai_fair.engines.BundleStudy`, as the others.
        evaluate: overlays of the evaluation.
        inputs: arm to files.
        config_dir: where config files lie.
        output_dir: folder of the study.
        taken: keys that are set for every run.

    Raises:
        ArtifactError: with every arm that cannot be read.
    """

    def __init__(
        self,
        arms: Mapping[str, Arm],
        evaluate: Sequence[Overlay],
        *,
        inputs: Mapping[str, Sequence[str]],
        config_dir: Path,
        output_dir: Path,
        taken: Mapping[str, Any],
    ) -> None:
        self.config_dir, self.folder = config_dir, output_dir / "overlays"
        self._written: dict[str, Mapping[str, Any]] = {}
        problems = [*name_problems("arm", arms)]
        problems += [problem for arm, wanted in arms.items() for problem in _arm_problems(arm, wanted)]
        raise_problems(ArtifactError, f"study {output_dir}", problems)
        several = {arm: _trainings(_parts(wanted)[0]) for arm, wanted in arms.items()}
        scored = {arm: [*evaluate, *_parts(wanted)[1]] for arm, wanted in arms.items()}
        problems = [problem for arm in arms for problem in _key_problems(arm, [*several[arm], scored[arm]], taken)]
        raise_problems(ArtifactError, f"study {output_dir}", problems)
        self.evaluations = {arm: self._names(overlays) for arm, overlays in scored.items()}
        self.arms = {
            arm: TrainingPlan(
                tuple(self._names(overlays) for overlays in trainings),
                tuple(Path(path) for path in inputs.get(arm, ())),
            )
            for arm, trainings in several.items()
        }

    @property
    def files(self) -> list[Path]:
        """Config files and inputs that must be there; none that :meth:`write` makes."""
        names = {name for arm in self.arms.values() for stage in arm.trainings for name in stage}
        own = [path for arm in self.arms.values() for path in arm.inputs]
        names |= {name for stage in self.evaluations.values() for name in stage}
        given = sorted(names - {*self._written})
        return [*dict.fromkeys(own), *(self.config_dir / name for name in given)]

    @property
    def shared(self) -> set[TrainingPlan]:
        """Beginnings of arms that have a run of their own: whatever more than one arm has, or trains on from."""
        uses = Counter(chain.from_iterable(arm.beginnings for arm in self.arms.values()))
        inner = chain.from_iterable(arm.beginnings[:-1] for arm in self.arms.values())
        return {*inner, *(beginning for beginning, count in uses.items() if count > 1)}

    def label(self, beginning: TrainingPlan) -> str:
        """Return a name of what was trained last, for a folder; two beginnings have different ones."""
        given = [name for name in beginning.trainings[-1] if name not in self._written]
        content = [[list(stage) for stage in beginning.trainings], [str(path) for path in beginning.inputs]]
        return f"{Path(given[-1]).stem if given else 'train'}-{fingerprint(content)[:_SHORT]}"

    def paths(self, stage: Stage) -> list[Path]:
        """Return the files of a training or evaluation."""
        return [(self.folder if name in self._written else self.config_dir) / name for name in stage]

    def write(self) -> None:
        """Write the config files that stand for keys; those that are there already have the same content."""
        for name, keys in self._written.items():
            if not (self.folder / name).is_file():
                with atomic_path(self.folder / name) as temporary:
                    temporary.write_text(yaml.safe_dump(dict(keys), sort_keys=False), encoding="utf-8")

    def _names(self, overlays: Sequence[Overlay]) -> Stage:
        names = []
        for overlay in overlays:
            if isinstance(overlay, str):
                names.append(overlay)
            elif overlay:
                names.append(f"{fingerprint(overlay)[:_SHORT]}.yaml")
                self._written[names[-1]] = overlay
        return tuple(names)


class Sweep:
    """Arms that differ in one option of one of their trainings.

    Args:
        name: of the arms: ``fairread`` gives ``fairread_0``, ``fairread_0.5``.
        parameter: the bundle's key, such as ``adversary_strength``.
        values: of it, each once.
        trainings: overlays of every training of an arm, one after the other.
        stage: the training that is given the option, counted from 0, or from the end if negative; what comes before it
            is trained once.

    Attributes:
        arms: for :class:`monai_fair.engines.BundleStudy`.
        record: what :func:`monai_fair.report.audit_files` takes as ``sweep``.

    Raises:
        ArtifactError: if there is no value, or one stands twice, or the training is not there.
    """

    def __init__(
        self,
        name: str,
        parameter: str,
        values: Sequence[float],
        trainings: Sequence[Sequence[Overlay]],
        *,
        stage: int = -1,
    ) -> None:
        problems = [] if values else [f"expected values of '{parameter}', got none"]
        problems += [
            f"expected each value of '{parameter}' once, got {value} {count} times; keep one"
            for value, count in Counter(values).items()
            if count > 1
        ]
        if not -len(trainings) <= stage < len(trainings):
            problems.append(f"expected one of {len(trainings)} trainings as stage, got {stage}; correct it")
        raise_problems(ArtifactError, f"sweep {name}", problems)
        self.arms: dict[str, list[list[Overlay]]] = {}
        for value in values:
            stages = [list(overlays) for overlays in trainings]
            stages[stage].append({parameter: value})
            self.arms[f"{name}_{value}"] = stages
        self.record = {"parameter": parameter, "runs": dict(zip(self.arms, values, strict=True))}


def name_problems(kind: str, names: Iterable[str]) -> list[str]:
    """Say which names cannot be those of folders."""
    return [
        f"{kind} '{name}': expected a name of letters, digits, '_', '.' or '-', from a letter on; give it such a one"
        for name in names
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name)
    ]


def external_problems(external: Mapping[str, Any]) -> list[str]:
    """Say what of other data cannot be read; see :class:`monai_fair.engines.BundleStudy`."""
    return name_problems("external", external) + [
        f"external '{name}': expected 'manifest' and 'dataset_dir', got {data!r}; give both"
        for name, data in external.items()
        if not isinstance(data, Mapping) or {*data} != {"manifest", "dataset_dir"}
    ]


def _parts(arm: Arm) -> tuple[Trainings, Sequence[Overlay]]:
    """Return the trainings of an arm, and the overlays of its evaluation."""
    return (arm["trainings"], arm.get("evaluate", ())) if isinstance(arm, Mapping) else (arm, ())


def _trainings(wanted: Trainings) -> list[list[Overlay]]:
    """Return the overlays of every training."""
    several = [list(overlays) for overlays in wanted if not isinstance(overlays, str | Mapping)]
    return several or [[overlay for overlay in wanted if isinstance(overlay, str | Mapping)]]


def _arm_problems(arm: str, wanted: Any) -> Iterator[str]:
    if isinstance(wanted, Mapping) and ("trainings" not in wanted or not {*wanted} <= {*_PARTS}):
        yield f"arm '{arm}': expected 'trainings' and perhaps 'evaluate', got {', '.join(wanted)}; correct the keys"
        return
    for part in _parts(wanted):
        listed = isinstance(part, Sequence) and not isinstance(part, str)
        if not listed or len({isinstance(item, str | Mapping) for item in part}) > 1:
            yield (
                f"arm '{arm}': expected a list of overlays, or such a list for each training, got {part!r}; write it "
                "as one of them"
            )


def _key_problems(arm: str, stages: Sequence[Sequence[Overlay]], taken: Mapping[str, Any]) -> Iterator[str]:
    overlays = [overlay for stage in stages for overlay in stage if isinstance(overlay, Mapping)]
    for key in dict.fromkeys(key for overlay in overlays for key in overlay if key in taken):
        yield f"arm '{arm}': expected keys of its own, got '{key}', which overrides sets for every run; keep one"
