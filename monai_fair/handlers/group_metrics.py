"""Group metrics in any MONAI evaluator, also as the key metric that chooses the model and stops the training."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler, from_engine

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.cumulative import GroupMetric
from monai_fair.metrics.summaries import GroupResults, Summary

logger = logging.getLogger(__name__)


class GroupMetricHandler(IgniteMetricHandler):
    """Compute :class:`monai_fair.metrics.GroupMetric` over an evaluator's epoch.

    The evaluator's postprocessing must leave probabilities in ``pred``, and its data must come from
    :func:`monai_fair.data.load_datalist`, whose ``attributes`` give the groups and whose ``row`` tells samples apart;
    for other data give ``batch_transform``.

    A key metric must be a number of which larger is better, for MONAI and for early stopping: ask for ``as_score``
    where it is not. An undefined key metric is minus infinity, because NaN would win: no later value is larger.
    :class:`monai_fair.handlers.BestModelSaver` ends the run on either.

    Args:
        name: ``auc``, ``tpr``, ``brier``, ...
        attribute: whose groups are compared.
        summary: ``overall``, ``worst``, ``gap`` or ``mean``.
        threshold: ``score >= threshold`` is predicted positive, for metrics of predictions.
        min_count: cases that a group needs to take part.
        class_index: the class that counts as positive, for scores of several classes.
        as_score: give minus the distance from the best value (for ``gap``, minus the gap) instead of the value.
        output_transform: what makes predictions and labels of the engine's output; by default ``pred`` and ``label``.
        batch_transform: what makes group names and ids, two lists of text, of the engine's batch.

    Attributes:
        results: values of all groups after an epoch, the same in every process; ``None`` before.

    Raises:
        MonaiFairError: if an option is unknown; when attached as key metric, if a smaller value is better; in a run, if
            the batch has no such attribute or no row.
    """

    metric_fn: GroupMetric

    def __init__(
        self,
        name: str,
        attribute: str,
        *,
        summary: Summary = "worst",
        threshold: float = 0.5,
        min_count: int = 10,
        class_index: int | None = None,
        as_score: bool = False,
        output_transform: Callable[[Any], Any] | None = None,
        batch_transform: Callable[[Any], tuple[Sequence[str], Sequence[str]]] | None = None,
    ) -> None:
        metric = GroupMetric(
            name,
            attribute=attribute,
            summary=summary,
            threshold=threshold,
            min_count=min_count,
            class_index=class_index,
        )
        if as_score and summary != "gap" and metric.best is None:
            raise MonaiFairError(f"as_score: expected a metric with a best value, '{name}' has none; leave it out")
        self.as_score = as_score
        self.batch_transform = batch_transform
        self.results: GroupResults | None = None
        super().__init__(
            metric, output_transform=output_transform or from_engine(["pred", "label"]), save_details=False
        )

    def attach(self, engine: Engine, name: str) -> None:
        """Register with an engine under a name; MONAI calls it for key and additional metrics."""
        if self._is_key(engine, name) and not (self.as_score or self.metric_fn.larger_is_better):
            raise MonaiFairError(
                f"key metric '{name}' ({self.metric_fn}): expected a number of which larger is better; "
                "add as_score: true"
            )
        super().attach(engine, name)

    def iteration_completed(self, engine: Engine) -> None:
        """Add a batch: ignite hands over the output only, and groups and ids are in the batch."""
        y_pred, y = self._output_transform(engine.state.output)
        groups, ids = (self.batch_transform or self._groups_and_ids)(engine.state.batch)
        self.update((y_pred, y, groups, ids))

    def update(self, output: Sequence[Any]) -> None:
        """Add predictions, labels, group names and ids of a batch."""
        self._is_reduced = False
        self.metric_fn(*output)

    def compute(self) -> float:
        """Return the summary, or the score made of it; keep the values of all groups in ``results``."""
        metric = self.metric_fn
        self.results = metric.by_group()
        value = metric.summarized(self.results)
        if self.as_score:
            best = 0.0 if metric.summary == "gap" else metric.best
            assert best is not None  # checked at the start
            value = 0.0 - abs(value - best)  # never -0.0
        if math.isnan(value) and self._engine is not None and self._is_key(self._engine, self._name):
            value = -math.inf
        self._is_reduced = True
        if idist.get_rank() == 0:
            logger.info("%s: %.4f; %s", metric, value, _listed(self.results))
        return value

    @staticmethod
    def _is_key(engine: Engine, name: str | None) -> bool:
        return getattr(engine.state, "key_metric_name", None) == name

    def _groups_and_ids(self, batch: Any) -> tuple[list[str], list[str]]:
        """Read group names and rows of a batch, whether or not the engine takes batches apart (``decollate``)."""
        attribute = self.metric_fn.attribute
        together = isinstance(batch, Mapping)
        there = batch if together else batch[0]
        attributes = there.get("attributes", {})
        problems = []
        if attribute not in attributes:
            names = ", ".join(attributes) or "none"
            problems.append(f"expected the attribute '{attribute}' in the batch, the ones there are {names}")
        if "row" not in there:
            problems.append("expected 'row' in the batch, as load_datalist gives it; or give batch_transform")
        raise_problems(MonaiFairError, "GroupMetricHandler", problems)
        if together:
            return list(attributes[attribute]), [str(int(row)) for row in there["row"]]
        return [item["attributes"][attribute] for item in batch], [str(int(item["row"])) for item in batch]


def _listed(results: GroupResults) -> str:
    counted = zip(results.names, results.values, results.n, results.counted, strict=True)
    groups = [f"{name} {value:.4f} (n {n})" for name, value, n, shown in counted if shown]
    return ", ".join(groups) or "no group with enough cases"
