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
    check_attributes,
    check_not_random,
    check_rows_once,
    names_of_all,
    sum_over_processes,
    undisturbed,
)
from monai_fair.metrics import (
    COLLAPSE_MEASURES,
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
ALL = "all"  # stands for an attribute where none is named
Results = dict[str, dict[str, NeuralCollapse]]
LOGGED = ("nc1_normalized", "nc1_pinv", "nc3_cosine", "nc4_disagreement", "error")
# of all samples, and yet another number for each attribute: around the means of its groups
_WITHIN = ("nc1_within_configuration", "nc1_within_configuration_normalized")

logger = logging.getLogger(__name__)


class NeuralCollapseHandler:
    """Measure :func:`monai_fair.metrics.neural_collapse` of stated data every few epochs.

    In the last iteration of an epoch, and at the end of a training whatever its epoch, the network runs over each part
    in ``eval()``, in full precision, without gradients. The training goes on as if nothing had been: modes, buffers and
    random generators are left as they were. The first part is measured around its own class means; every other part
    around its own and, as ``PART_to_FIRST``, around those of the first.

    ``engine.state.metrics`` gets what ``logged`` names, as ``PART_NAME``, for each group as
    ``PART_NAME_ATTRIBUTE_GROUP``, and as ``PART_NAME_ATTRIBUTE`` for ``nc1_within_configuration``, which rests on the
    groups (other signs than letters, digits and ``_-. /`` become ``_``, as MLflow asks), so that MONAI's Stats,
    TensorBoard and MLflow handlers log it, wherever they stand in the list of handlers. What is undefined is not
    logged; with its reason it stands in the file, where every measure of every epoch is.

    Batches come from :func:`monai_fair.data.load_datalist`. The labels are those of the loader; where a batch has
    ``clean_label``, rows that differ are the mislabelled ones.

    Args:
        path: the JSON file; replaced after every measurement, so that a killed run leaves a whole one. A run that
            starts again keeps the epochs before its own.
        layer: name of the last linear layer, such as ``fc``; its input are the features.
        parts: loaders by name, the training data first, without augmentation and each row once.
        attributes: whose values are the groups, each attribute on its own.
        interval: epochs between measurements.
        logged: names of :data:`monai_fair.metrics.COLLAPSE_MEASURES`.
        keep_mib: MiB of features of a part that are kept in each process; above it the network runs twice over it.

    Attributes:
        results: of the last measurement, by part and attribute (``all`` where none is named); ``None`` before it.

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
        attributes: Sequence[str] = (),
        interval: int = 1,
        logged: Sequence[str] = LOGGED,
        keep_mib: float = 1024,
    ) -> None:
        self.path, self.layer, self.parts, self.attributes = Path(path), layer, dict(parts), attributes
        self.interval, self.logged, self.keep_mib = interval, tuple(logged), keep_mib
        self.results: Results | None = None
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
        if isinstance(self.attributes, str):  # each of its letters would be one
            problems.append(f"attributes: expected a list such as ['{self.attributes}'], got '{self.attributes}'")
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

    def _start(self, engine: Engine) -> None:
        """Refuse before the first epoch what the first measurement would fail with."""
        self._started, self._finished, self._measured = False, 0, 0
        find_linear(engine.network, self.layer)
        for name, loader in self.parts.items():
            check_not_random(name, loader)
            check_attributes(loader, self.attributes)

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
        return {"layer": self.layer, "parts": list(self.parts), "attributes": list(self.attributes)}

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

    def measure(self, engine: Trainer | Evaluator) -> Results:
        """Measure all parts, log, and write the file; a collective call.

        Returns:
            Results by part and attribute.
        """
        epoch = engine.state.epoch
        linear = find_linear(engine.network, self.layer)
        bias = None if linear.bias is None else linear.bias.detach().double().cpu().numpy()
        head = linear_head(linear.weight.detach().double().cpu().numpy(), bias)
        found: Results = {}
        with undisturbed(engine.network):
            for name, loader in self.parts.items():
                features = LoaderFeatures(engine, loader, self.layer, self.attributes, keep_bytes=self.keep_mib * 2**20)
                found |= self._part(name, features, head, found)
        self.results, self._measured = found, epoch
        self._publish(engine, found)
        records = {kind: {name: result.record() for name, result in by.items()} for kind, by in found.items()}
        self._epochs = [row for row in self._epochs if row["epoch"] < epoch]
        self._epochs.append({"epoch": epoch, **records})
        if idist.get_rank() == 0:
            write_json(self.path, _KIND, {**self._options(), "epochs": self._epochs})
        return found

    def _part(self, name: str, features: LoaderFeatures, head: LinearHead, before: Results) -> Results:
        """Go over a part twice: for its means, and for the distances from them and from those of the first part."""
        moments = self._moments(name, features, head)
        around = {(name, attribute): each.means() for attribute, each in moments.items()}
        first = next(iter(self.parts))
        if name != first:
            around |= {(f"{name}_to_{first}", attribute): before[first][attribute].means for attribute in moments}
        distances = {key: FeatureDistances(means, head) for key, means in around.items()}
        for batch in features:
            for (_, attribute), each in distances.items():
                each.update(batch.features, batch.labels, batch.groups.get(attribute), batch.mislabelled)
        found: Results = {}
        for (kind, attribute), each in distances.items():
            if idist.get_world_size() > 1:
                each = each.over_processes(sum_over_processes, moments[attribute].groups)
            found.setdefault(kind, {})[attribute] = collapse_result(each)
        return found

    def _moments(self, name: str, features: LoaderFeatures, head: LinearHead) -> dict[str, FeatureMoments]:
        """Return by attribute the moments of a part, of all processes, all in one pass."""
        moments = {attribute: FeatureMoments(*head.weight.shape) for attribute in self.attributes or (ALL,)}
        rows = []
        for batch in features:
            for attribute, each in moments.items():
                each.update(batch.features, batch.labels, batch.groups.get(attribute))
            rows.append(batch.rows)
        check_rows_once(name, rows, features.engine.state.device)
        if idist.get_world_size() == 1:
            return moments
        return {
            attribute: each.over_processes(sum_over_processes, names_of_all(each.groups))
            for attribute, each in moments.items()
        }

    def _publish(self, engine: Engine, found: Results) -> None:
        values: dict[str, float] = {}
        for part, by in found.items():
            whole = next(iter(by.values()))
            sets = [("", {name: value for name, value in whole.values.items() if name not in _WITHIN})]
            for attribute, own in by.items():
                sets.append((f"_{attribute}", {name: own.values[name] for name in _WITHIN}))
                sets += [(f"_{attribute}_{group.name}", group.values) for group in own.groups]
            for suffix, measures in sets:
                defined = self._defined(measures)
                values |= {_key(f"{part}_{name}{suffix}", values): value for name, value in defined.items()}
            if idist.get_rank() == 0:
                shown = ", ".join(f"{name} {value:.4g}" for name, value in self._defined(sets[0][1]).items())
                logger.info("epoch %d, %s, n %d, layer '%s': %s", engine.state.epoch, part, whole.n, self.layer, shown)
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
