"""Measure neural collapse while a network is trained, in any MONAI trainer or evaluator."""

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from monai.engines import Evaluator, Trainer

from monai_fair.data.artifacts import read_json, write_json
from monai_fair.errors import ArtifactError, MonaiFairError, raise_problems
from monai_fair.handlers.neural_collapse_passes import (
    LoaderFeatures,
    check_not_random,
    check_rows_once,
    names_of_all,
    sum_over_processes,
    undisturbed,
)
from monai_fair.metrics import (
    COLLAPSE_MEASURES,
    ClassMeans,
    CollapseValue,
    FeatureDistances,
    FeatureMoments,
    LinearHead,
    NeuralCollapse,
    collapse_result,
    linear_head,
)
from monai_fair.networks.layer_input import find_linear

_KIND = "neural_collapse"
LOGGED = ("nc1_normalized", "nc1_pinv", "nc3_cosine", "nc4_disagreement", "error")

logger = logging.getLogger(__name__)


class NeuralCollapseHandler:
    """Measure :func:`monai_fair.metrics.neural_collapse` of stated data every few epochs.

    In the last iteration of an epoch, and at the end of a training whatever its epoch, the network runs over each part
    in ``eval()``, in full precision, without gradients. The training goes on as if nothing had been: modes, buffers and
    random generators are left as they were. The first part is measured around its own class means; every other part
    around its own and, as ``PART_to_FIRST``, around those of the first.

    ``engine.state.metrics`` gets what ``logged`` names, as ``PART_NAME`` and for each group as ``PART_NAME_GROUP``
    (other signs than letters, digits and ``_-. /`` become ``_``, as MLflow asks), so that MONAI's Stats, TensorBoard
    and MLflow handlers log it, wherever they stand in the list of handlers. What is undefined is not logged; with its
    reason it stands in the file, where every measure of every epoch is.

    Batches come from :func:`monai_fair.data.load_datalist`. The labels are those of the loader; where a batch has
    ``clean_label``, rows that differ are the mislabelled ones.

    Args:
        path: the JSON file; replaced after every measurement, so that a killed run leaves a whole one. A run that
            starts again keeps the epochs before its own.
        layer: name of the last linear layer, such as ``fc``; its input are the features.
        parts: loaders by name, the training data first, without augmentation and each row once.
        attribute: whose values are the groups; ``None`` for no groups.
        interval: epochs between measurements.
        logged: names of :data:`monai_fair.metrics.COLLAPSE_MEASURES`.
        keep_mib: MiB of features of a part that are kept in each process; above it the network runs twice over it.

    Attributes:
        results: of the last measurement, by part; ``None`` before it.

    Raises:
        MonaiFairError: if an option is out of range; in a run, if there is no such layer or attribute, a loader
            augments, or a row comes twice.
        ArtifactError: when a run goes on, if the file there is of other options.
    """

    def __init__(
        self,
        path: str,
        layer: str,
        parts: Mapping[str, Iterable[Mapping[str, Any]]],
        *,
        attribute: str | None = None,
        interval: int = 1,
        logged: Sequence[str] = LOGGED,
        keep_mib: float = 1024,
    ) -> None:
        self.path, self.layer, self.parts, self.attribute = Path(path), layer, dict(parts), attribute
        self.interval, self.logged, self.keep_mib = interval, tuple(logged), keep_mib
        self.results: dict[str, NeuralCollapse] | None = None
        self._epochs: list[dict[str, Any]] = []
        self._keys: list[str] = []
        self._started, self._finished, self._measured = False, 0, 0
        raise_problems(MonaiFairError, "NeuralCollapseHandler", self._problems())

    def _problems(self) -> list[str]:
        problems = [
            f"logged: expected one of {', '.join(COLLAPSE_MEASURES)}, got '{name}'; correct it"
            for name in self.logged
            if name not in COLLAPSE_MEASURES
        ]
        if not self.parts:
            problems.append("parts: expected at least one, got none; give the loader of the training data")
        if self.interval < 1:
            problems.append(f"interval: expected at least 1 epoch, got {self.interval}; correct it")
        return problems

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer or evaluator that has a ``network``."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        engine.add_event_handler(Events.COMPLETED, self._end)

    def _start(self, _: Engine) -> None:
        self._started, self._finished, self._measured = False, 0, 0
        for name, loader in self.parts.items():
            check_not_random(name, loader)

    def _begin(self, engine: Engine) -> None:
        """Read what earlier epochs left, now that a resumed run knows its epoch; forget what is not of this one."""
        if not self._started:
            self._started = True
            self._epochs = self._read(engine.state.epoch)
        for key in self._keys:
            engine.state.metrics.pop(key, None)
        self._keys = []

    def _read(self, epoch: int) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        stored = read_json(self.path, _KIND)
        kept = [row for row in stored["epochs"] if row["epoch"] < epoch]
        changed = [f"{name}: {stored.get(name)} there, {value} now" for name, value in self._options().items()
                   if stored.get(name) != value]  # fmt: skip
        if kept and changed:
            raise ArtifactError(
                f"{self.path}: measured with other options before this run goes on ({'; '.join(changed)}); choose "
                "another path, or delete the file"
            )
        return kept

    def _options(self) -> dict[str, Any]:
        return {"layer": self.layer, "parts": list(self.parts), "attribute": self.attribute}

    def _after_iteration(self, engine: Engine) -> None:
        """Measure in the last iteration, before any handler of the epoch's end can log."""
        length = engine.state.epoch_length
        if length and engine.state.iteration % length == 0 and self._due(engine):
            self.measure(engine)

    def _after_epoch(self, engine: Engine) -> None:
        """Measure for loaders of unknown length, which end an epoch without a last iteration."""
        self._finished = engine.state.epoch
        if self._due(engine):
            self.measure(engine)

    def _due(self, engine: Engine) -> bool:
        epoch = engine.state.epoch
        last = isinstance(engine, Trainer) and epoch == engine.state.max_epochs
        return bool(epoch != self._measured and (epoch % self.interval == 0 or last))

    def _end(self, engine: Engine) -> None:
        """Measure the last epoch of a training that stopped early."""
        if isinstance(engine, Trainer) and self._measured < self._finished == engine.state.epoch:
            self.measure(engine)

    def measure(self, engine: Trainer | Evaluator) -> dict[str, NeuralCollapse]:
        """Measure all parts, log, and write the file; a collective call.

        Returns:
            Results by part.
        """
        epoch = engine.state.epoch
        linear = find_linear(engine.network, self.layer)
        bias = None if linear.bias is None else linear.bias.detach().double().cpu().numpy()
        head = linear_head(linear.weight.detach().double().cpu().numpy(), bias)
        found: dict[str, NeuralCollapse] = {}
        with undisturbed(engine.network):
            for name, loader in self.parts.items():
                features = LoaderFeatures(engine, loader, self.layer, self.attribute, keep_bytes=self.keep_mib * 2**20)
                found |= self._part(name, features, head, found)
        self.results, self._measured = found, epoch
        self._publish(engine, found)
        self._epochs = [row for row in self._epochs if row["epoch"] < epoch]
        self._epochs.append({"epoch": epoch, **{name: result.record() for name, result in found.items()}})
        if idist.get_rank() == 0:
            write_json(self.path, _KIND, {**self._options(), "epochs": self._epochs})
        return found

    def _part(
        self, name: str, features: LoaderFeatures, head: LinearHead, before: Mapping[str, NeuralCollapse]
    ) -> dict[str, NeuralCollapse]:
        """Go over a part twice: for its means, and for the distances from them and from those of the first part."""
        moments = FeatureMoments(*head.weight.shape)
        rows = []
        for batch in features:
            moments.update(batch.features, batch.labels, batch.groups)
            rows.append(batch.rows)
        check_rows_once(name, rows, features.engine.state.device)
        groups = names_of_all(moments.groups)
        several = idist.get_world_size() > 1
        moments = moments.over_processes(sum_over_processes, groups) if several else moments
        around: dict[str, ClassMeans] = {name: moments.means()}
        if before:
            first = next(iter(self.parts))
            around[f"{name}_to_{first}"] = before[first].means
        distances = {kind: FeatureDistances(means, head) for kind, means in around.items()}
        for batch in features:
            for each in distances.values():
                each.update(batch.features, batch.labels, batch.groups, batch.mislabelled)
        if several:
            distances = {kind: each.over_processes(sum_over_processes, groups) for kind, each in distances.items()}
        return {kind: collapse_result(each) for kind, each in distances.items()}

    def _publish(self, engine: Engine, found: Mapping[str, NeuralCollapse]) -> None:
        values: dict[str, float] = {}
        for part, result in found.items():
            sets = {"": result.values} | {f"_{group.name}": group.values for group in result.groups}
            for suffix, measures in sets.items():
                defined = self._defined(measures)
                values |= {_key(f"{part}_{name}{suffix}", values): value for name, value in defined.items()}
            if idist.get_rank() == 0:
                shown = ", ".join(f"{name} {value:.4g}" for name, value in self._defined(result.values).items())
                logger.info("epoch %d, %s, n %d, layer '%s': %s", engine.state.epoch, part, result.n, self.layer, shown)
        engine.state.metrics |= values
        self._keys = list(values)

    def _defined(self, measures: Mapping[str, CollapseValue]) -> dict[str, float]:
        chosen = {name: measures[name].value for name in self.logged if name in measures}
        return {name: value for name, value in chosen.items() if math.isfinite(value)}


def _key(text: str, taken: Mapping[str, float]) -> str:
    """Return a name that MLflow takes and that no other value has."""
    key = re.sub(r"[^\w\-. /]", "_", text, flags=re.ASCII)
    while key in taken:
        key += "_"
    return key
