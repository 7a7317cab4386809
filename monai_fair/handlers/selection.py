"""What each way to choose the epoch would have chosen, side by side, on validation data."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
from ignite.engine import Engine, Events
from monai.engines import Evaluator, Trainer

from monai_fair.data.artifacts import write_json
from monai_fair.errors import MonaiFairError
from monai_fair.handlers.group_metrics import GroupMetricHandler
from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.selection import EpochSelection, distance_to_utopia, select_epochs
from monai_fair.metrics.summaries import GroupResults, larger_is_better

STRATEGIES = ("overall", "worst_group", "dto", "pareto")
_HEADER = f"{'strategy':<12}{'epoch':>6}{'overall':>9}{'worst':>8}{'gap':>8}{'DTO':>8}  worst group"

logger = logging.getLogger(__name__)


class SelectionRecorder:
    """Record a metric of every group after each validation, and what each selection strategy makes of it.

    ``selection.json`` holds the values of all epochs and the choices of
    :func:`monai_fair.metrics.selection.select_epochs`; it is replaced after every validation, and at the end of the
    training the choices are logged as a table. Only what the validation evaluator has computed is read: no other data,
    and never the test part. The model that is kept is that of the evaluator's key metric; this says what it cost.

    A group without enough cases in every epoch has no part in the choices; the file says why. An epoch in which a group
    that has a part is undefined is left out with the reason.

    Args:
        path: the file, such as ``selection.json``; replaced atomically.
        metric: the handler whose groups are recorded, attached to ``evaluator``; its metric must be one of which larger
            is better.
        evaluator: the validation evaluator.

    Raises:
        MonaiFairError: if of the metric a smaller value is better.
    """

    def __init__(self, path: str, metric: GroupMetricHandler, evaluator: Evaluator) -> None:
        found = metric.metric_fn
        if not larger_is_better(found.name):
            raise MonaiFairError(f"{path}: expected a metric of which larger is better, got '{found.name}'; use auc")
        self.path = Path(path)
        self.metric = metric
        self.evaluator = evaluator
        self._groups: dict[str, dict[str, int]] = {}
        self._epochs: list[dict[str, Any]] = []

    def attach(self, engine: Trainer) -> None:
        """Register with a MONAI trainer, after the handler that runs the validation."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.record)
        engine.add_event_handler(Events.COMPLETED, self.report)

    def record(self, engine: Engine) -> None:
        """Take over the values of this epoch's validation, if there was one."""
        results = self.metric.results
        if results is None or self.evaluator.state.epoch != engine.state.epoch:
            return
        rows = zip(results.names, results.n.tolist(), results.n_positive.tolist(), strict=True)
        self._groups = {name: {"n": n, "n_positive": n_positive} for name, n, n_positive in rows}
        self._epochs.append(_epoch_record(engine.state.epoch, results))
        if idist.get_rank() == 0:
            write_json(self.path, "selection", self._content())

    def report(self, _: Engine) -> None:
        """Log the table."""
        if self._epochs and idist.get_rank() == 0:
            logger.info("%s", "\n".join(self._lines()))

    def state_dict(self) -> dict[str, Any]:
        """Return the epochs so far, so that a resumed run goes on with them."""
        return {"groups": self._groups, "epochs": self._epochs}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the epochs of an earlier run."""
        self._groups, self._epochs = dict(state_dict["groups"]), list(state_dict["epochs"])

    def _content(self) -> dict[str, Any]:
        selection, rows = self._choices()
        found = self.metric.metric_fn
        return {
            "metric": found.name,
            "attribute": found.attribute,
            "data": "validation",
            "min_count": found.min_count,
            "groups": self._groups,
            "epochs": self._epochs,
            "choices": {strategy: [row for name, row in rows if name == strategy] for strategy in STRATEGIES},
            "epochs_left_out": {
                str(self._epochs[place]["epoch"]): reason for place, reason in selection["left_out"].items()
            },
        }

    def _choices(self) -> tuple[EpochSelection, list[tuple[str, dict[str, Any]]]]:
        """Return the selection, and per strategy and epoch chosen what that epoch gives."""
        names = [name for name in self._groups if any(not epoch["left_out"][name] for epoch in self._epochs)]
        values = np.array([[_value(epoch, name) for name in names] for epoch in self._epochs], dtype=np.float64)
        overall = [epoch["overall"] for epoch in self._epochs]
        if not names:
            reason = "no group has enough cases"
            left_out = dict.fromkeys(range(len(overall)), reason)
            return {"overall": None, "worst_group": None, "dto": None, "pareto": [], "left_out": left_out}, []
        selection = select_epochs(overall, values, names=names)
        usable = [place not in selection["left_out"] for place in range(len(overall))]
        distance = distance_to_utopia(np.where(np.array(usable)[:, None], values, np.nan))
        single = {"overall": selection["overall"], "worst_group": selection["worst_group"], "dto": selection["dto"]}
        chosen = [(strategy, place) for strategy, place in single.items() if place is not None]
        chosen += [("pareto", place) for place in selection["pareto"]]
        rows = [
            (strategy, self._row(place, names, values[place], float(distance[place]))) for strategy, place in chosen
        ]
        return selection, rows

    def _row(self, place: int, names: Sequence[str], values: FloatArray, distance: float) -> dict[str, Any]:
        epoch, worst = self._epochs[place], int(values.argmin())
        return {
            "epoch": epoch["epoch"],
            "overall": epoch["overall"],
            "worst": float(values[worst]),
            "worst_group": names[worst],
            "worst_group_n": self._groups[names[worst]]["n"],
            "gap": float(values.max() - values.min()) if len(names) > 1 else float("nan"),
            "dto": distance,
        }

    def _lines(self) -> Iterator[str]:
        selection, rows = self._choices()
        found = self.metric.metric_fn
        yield f"epochs chosen by validation {found.name} over '{found.attribute}' ({len(self._epochs)} validations)"
        yield _HEADER
        for strategy, row in rows:
            numbers = f"{row['overall']:>9.4f}{row['worst']:>8.4f}{row['gap']:>8.4f}{row['dto']:>8.4f}"
            yield f"{strategy:<12}{row['epoch']:>6}{numbers}  {row['worst_group']} (n {row['worst_group_n']})"
        for place, reason in selection["left_out"].items():
            yield f"epoch {self._epochs[place]['epoch']} left out: {reason}"
        for name, reason in self._epochs[-1]["left_out"].items():
            if all(epoch["left_out"][name] for epoch in self._epochs):
                yield f"group '{name}' left out: {reason}"


def _epoch_record(epoch: int, results: GroupResults) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "overall": results.overall,
        "values": dict(zip(results.names, results.values.tolist(), strict=True)),
        "left_out": dict(zip(results.names, results.left_out, strict=True)),
    }


def _value(epoch: Mapping[str, Any], name: str) -> float:
    """Return a group's value in an epoch; NaN where the group had too few cases."""
    return float("nan") if epoch["left_out"][name] else float(epoch["values"][name])
