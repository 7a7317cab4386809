"""A metric of the audit in every group of an attribute, batch by batch, as a MONAI metric.

The numbers come from the functions of the audit.
"""

import logging
from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import pandas as pd
import torch
from monai.metrics import CumulativeIterationMetric

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.arrays import FloatArray, IntArray
from monai_fair.metrics.definitions import METRICS
from monai_fair.metrics.groups import group_by
from monai_fair.metrics.sample_buffers import (
    INVALID,
    NO_SAMPLE,
    batched,
    class_indices,
    codes,
    gathered,
    text_problems,
)
from monai_fair.metrics.summaries import SUMMARIES, GroupResults, Summary, group_results, larger_is_better, summarize

# Scores of one sample may differ by the batch it was in, at half precision; those of two samples differ by more.
_SAME_SCORE = 0.01

logger = logging.getLogger(__name__)


class GroupMetric(CumulativeIterationMetric):
    """A metric of the audit over the groups of an attribute, summed up in one number.

    Call it with each batch, then :meth:`aggregate` and ``reset``, as any cumulative metric of MONAI. Undefined is NaN,
    and the log says why, as it names the groups left out. In several processes every process gets the same number, and
    a sample that a distributed sampler repeats counts once: samples are told apart by a 64-bit code of their id (two of
    a million ids share one with a chance of 3e-8).

    Args:
        name: ``auc``, ``tpr``, ``brier``, ...; a key of :data:`monai_fair.metrics.definitions.METRICS`.
        attribute: name of the attribute, for messages.
        summary: ``overall`` (all samples), ``worst`` (the group furthest from the metric's best value), ``gap``
            (largest minus smallest value) or ``mean`` (each group counts the same).
        threshold: ``score >= threshold`` is predicted positive, for metrics of predictions.
        min_count: cases that a group needs to take part, such as positives and negatives for the AUC.
        class_index: the class that counts as positive against all others, for scores of several classes.

    Raises:
        MonaiFairError: if an option is unknown, or ``worst`` is asked of a metric without a best value.
    """

    def __init__(
        self,
        name: str,
        *,
        attribute: str,
        summary: Summary = "worst",
        threshold: float = 0.5,
        min_count: int = 10,
        class_index: int | None = None,
    ) -> None:
        self._names: dict[int, str] = {}
        self._ids: dict[int, str] = {}
        self._said = ""
        super().__init__()
        self.name, self.attribute, self.summary = name, attribute, summary
        self.threshold, self.min_count, self.class_index = threshold, min_count, class_index
        raise_problems(MonaiFairError, "GroupMetric", self._option_problems())

    def _option_problems(self) -> list[str]:
        problems = []
        if self.name not in METRICS:
            problems.append(f"name: expected one of {', '.join(METRICS)}, got '{self.name}'; choose one")
        else:
            problems += self._summary_problems(self.summary)
        if self.min_count < 1:
            problems.append(f"min_count: expected at least 1, got {self.min_count}; raise it")
        if not 0 <= self.threshold <= 1:
            problems.append(f"threshold: expected a number in [0, 1], got {self.threshold}; scores are probabilities")
        return problems

    def _summary_problems(self, summary: str) -> list[str]:
        if summary not in SUMMARIES:
            return [f"summary: expected one of {', '.join(SUMMARIES)}, got '{summary}'; choose one"]
        if summary == "worst" and self.best is None:
            return [f"summary: 'worst' needs a metric with a best value, '{self.name}' has none; use 'gap'"]
        return []

    @property
    def best(self) -> float | None:
        """The metric's best value."""
        return METRICS[self.name].best

    @property
    def larger_is_better(self) -> bool:
        """Whether of the summary a larger value is better, as key metrics of MONAI expect."""
        return self.summary != "gap" and larger_is_better(self.name)

    def __str__(self) -> str:
        return f"{self.name}, {self.summary} of '{self.attribute}'"

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self._names, self._ids = {}, {}

    def __call__(self, y_pred: Any, y: Any, groups: Sequence[str], ids: Sequence[str]) -> None:
        """Add a batch.

        Args:
            y_pred: probabilities, shape ``(B,)``, ``(B, 1)``, or ``(B, K)`` with one column per class; or a list of
                ``B`` tensors, as MONAI's engines give them.
            y: class indices, shape ``(B,)`` or ``(B, 1)``, or one-hot ``(B, K)``; or a list of ``B``.
            groups: group name of each sample; an empty text is a missing value.
            ids: text that tells samples apart, such as the row of a manifest.

        Raises:
            MonaiFairError: if shapes or lengths do not fit.
        """
        scores, labels = batched(y_pred), batched(y)
        raise_problems(MonaiFairError, str(self), self._batch_problems(scores, labels, groups, ids))
        super().__call__(y_pred=scores, y=labels, groups=groups, ids=ids)

    def _batch_problems(
        self, scores: torch.Tensor, labels: torch.Tensor, groups: Sequence[str], ids: Sequence[str]
    ) -> list[str]:
        problems, columns = [], scores.shape[1]
        if len({len(scores), len(labels), len(groups), len(ids)}) > 1:
            counts = f"{len(scores)} scores, {len(labels)} labels, {len(groups)} groups and {len(ids)} ids"
            problems.append(f"expected as many of each in a batch, got {counts}")
        if labels.shape[1] not in (1, columns):
            problems.append(f"labels: expected 1 or {columns} columns as the scores have, got {labels.shape[1]}")
        if columns > 1 and (self.class_index is None or not 0 <= self.class_index < columns):
            got = f"class_index {self.class_index}"
            problems.append(f"scores of {columns} classes: expected the class that is positive, got {got}; name one")
        if columns == 1 and self.class_index is not None:
            problems.append(f"class_index {self.class_index}: expected scores of several classes, got one column")
        return problems + text_problems(groups=groups, ids=ids)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor, **kwargs: Any) -> list[torch.Tensor]:
        """Return the columns of the buffers: score, label (0, 1 or ``INVALID``), codes of group and id."""
        score = y_pred[:, self.class_index or 0]
        # values are judged when all processes see all of them: an error in one would let the others wait
        index = class_indices(y, max(2, y_pred.shape[1]))
        positive = index == (1 if self.class_index is None else self.class_index)
        label = torch.where(index == INVALID, INVALID, positive.long())
        return [score, label, codes(kwargs["groups"], self._names), codes(kwargs["ids"], self._ids)]

    def aggregate(self, summary: Summary | None = None) -> float:
        """Return the summary over all processes; NaN where undefined.

        Args:
            summary: another one than the metric's own.

        Raises:
            MonaiFairError: if there is no sample, a score is not in [0, 1], a label is no class, or samples that differ
                have the same id.
        """
        return self.summarized(self.by_group(), summary)

    def summarized(self, results: GroupResults, summary: Summary | None = None) -> float:
        """Return a summary of ``results``, and log which groups are left out, once for the same groups."""
        raise_problems(MonaiFairError, "GroupMetric", self._summary_problems(summary or self.summary))
        value = summarize(results, summary or self.summary, best=self.best)
        rows = [f"'{name}' ({reason})" for name, reason in zip(results.names, results.left_out, strict=True) if reason]
        said = [f"left out: {', '.join(rows)}"] if rows else []
        said += [f"{results.n_missing} of {results.n_total} samples have no value"] if results.n_missing else []
        said += ["undefined"] if np.isnan(value) else []
        message = "; ".join(said)
        if message and message != self._said and idist.get_rank() == 0:
            logger.warning("%s: %s", self, message)
        self._said = message
        return value

    def by_group(self) -> GroupResults:
        """Return the metric in every group over all processes; see :meth:`aggregate` for errors."""
        if self._buffers is None:
            # a process without samples takes part in the gathering with a row that is dropped
            self.extend(torch.zeros(1, dtype=torch.float64), *torch.tensor([[NO_SAMPLE], [0], [0]]))
        score, label, group, identity = (column.cpu().numpy() for column in self.get_buffer())
        names = gathered(self._names)
        real = label != NO_SAMPLE
        score, label, group, identity = score[real], label[real], group[real], identity[real]
        _, first, inverse = np.unique(identity, return_index=True, return_inverse=True)
        differs = (label != label[first][inverse]) | (group != group[first][inverse])
        differs |= ~np.isclose(score, score[first][inverse], rtol=0, atol=_SAME_SCORE, equal_nan=True)
        raise_problems(MonaiFairError, str(self), self._sample_problems(score, label, identity[differs]))
        texts = [names[int(code)] for code in group[first]]
        grouping = group_by(pd.DataFrame({self.attribute: texts}, dtype=str), [self.attribute])
        return group_results(
            self.name,
            label[first] == 1,
            score[first],
            grouping,
            threshold=self.threshold,
            min_count=self.min_count,
        )

    def _sample_problems(self, score: FloatArray, label: IntArray, differing: IntArray) -> list[str]:
        if not score.size:
            return ["expected at least one sample, got none; call it with a batch first"]
        problems = []
        outside = score[~((score >= 0) & (score <= 1))]
        if outside.size:
            what = f"{outside.size} of {score.size} samples have others, first {outside[0]:.6g}"
            problems.append(f"expected probabilities in [0, 1], {what}; add Activationsd to the postprocessing")
        if (label == INVALID).any():
            what = f"{(label == INVALID).sum()} of {label.size} samples have others"
            problems.append(f"expected labels that are class indices (0 or 1 for one score) or one-hot, {what}")
        if differing.size:
            # all processes come here together, so the names can be gathered
            name = gathered(self._ids)[int(differing[0])]
            what = f"'{name}' stands for several"
            problems.append(f"expected ids that tell samples apart, {what}; use the row or the image's path")
        return problems
