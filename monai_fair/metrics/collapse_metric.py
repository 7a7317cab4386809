"""Neural collapse, batch by batch, as a MONAI metric; the numbers are those of ``neural_collapse``."""

from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import CumulativeIterationMetric

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.arrays import IntArray
from monai_fair.metrics.neural_collapse_means import ClassMeans
from monai_fair.metrics.neural_collapse_results import NeuralCollapse
from monai_fair.metrics.neural_collapse_samples import neural_collapse
from monai_fair.metrics.sample_buffers import (
    INVALID,
    NO_SAMPLE,
    batched,
    class_indices,
    codes,
    gathered,
    stacked,
    text_problems,
)

# Features of one sample may differ by the batch it was in, at half precision, by this part of their length.
_SAME = 0.01
_UNKNOWN = -1  # whether a sample is mislabelled, where no mask was given
Features = npt.NDArray[np.float32]


class NeuralCollapseMetric(CumulativeIterationMetric):
    """Every measure of neural collapse of the features of all batches.

    Call it with each batch, then :meth:`aggregate` and ``reset``, as any cumulative metric of MONAI. In several
    processes every process gets the same result. A sample that a distributed sampler repeats counts once where ids are
    given; they are told apart as in :class:`monai_fair.metrics.GroupMetric`.

    MONAI's buffers keep every feature vector, ``4 n d`` bytes of float32 for ``n`` samples of ``d`` features. In
    :meth:`aggregate` each process holds those of all processes, and needs about five times their bytes. What does not
    fit is measured while training by :class:`monai_fair.handlers.NeuralCollapseHandler`, and in a loop of one's own by
    :class:`monai_fair.metrics.FeatureMoments` and ``FeatureDistances``, which go over the data twice and keep sums.

    Example:
        >>> metric = NeuralCollapseMetric()
        >>> metric(torch.tensor([[0.0, 0.0], [4.0, 0.0]]), torch.tensor([0, 1]))
        >>> metric(torch.tensor([[0.0, 2.0], [4.0, 2.0]]), torch.tensor([0, 1]))
        >>> metric.aggregate().values["nc1_distance"].value
        1.0
    """

    def __init__(self) -> None:
        self._groups: dict[int, str] = {}
        self._ids: dict[int, str] = {}
        self._width = self._count = 0
        super().__init__()

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self._groups, self._ids = {}, {}
        self._width = self._count = 0

    def __call__(
        self,
        features: Any,
        labels: Any,
        groups: Sequence[str] | None = None,
        mislabelled: Any = None,
        *,
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            features: input of the last linear layer, shape ``(B, d)``, kept as float32; or a list of ``B`` tensors of
                shape ``(d,)``, as MONAI's engines give them.
            labels: class indices, shape ``(B,)`` or ``(B, 1)``, or one-hot ``(B, K)``; or a list of ``B``.
            groups: group name of each sample; an empty text is a missing value. ``None``: no sample has a group.
            mislabelled: True for samples whose label is known to be wrong, shape ``(B,)``.
            ids: text that tells samples apart, such as the row of a manifest. ``None``: every row counts, also one that
                a distributed sampler repeats.

        Raises:
            MonaiFairError: if shapes, lengths or types do not fit; all problems in one message.
        """
        hidden, classes = stacked(features), batched(labels)
        marks = None if mislabelled is None else stacked(mislabelled)
        raise_problems(MonaiFairError, str(self), self._batch_problems(hidden, classes, groups, marks, ids))
        names = [""] * len(hidden) if groups is None else groups
        own = [f"row {self._count + row} of process {idist.get_rank()}" for row in range(len(hidden))]
        self._count += len(hidden)
        self._width = hidden.shape[1]
        super().__call__(y_pred=hidden, y=classes, groups=names, mislabelled=marks, ids=own if ids is None else ids)

    def _batch_problems(
        self,
        features: torch.Tensor,
        labels: torch.Tensor,
        groups: Sequence[str] | None,
        mislabelled: torch.Tensor | None,
        ids: Sequence[str] | None,
    ) -> list[str]:
        shape = tuple(features.shape)
        if features.ndim != 2 or not features.numel():
            return [f"features: expected shape (B, d) with B and d from 1, got {shape}; take the last layer's input"]
        problems = []
        if self._width not in (0, shape[1]):
            problems.append(f"features: expected {self._width} as in earlier batches, got {shape[1]}; call reset first")
        if not labels.shape[1]:
            problems.append("labels: expected at least one column, got none; give class indices")
        if mislabelled is not None and mislabelled.dtype != torch.bool:
            problems.append(f"mislabelled: expected truth values, got {mislabelled.dtype}; give a mask")
        if mislabelled is not None and mislabelled.numel() != len(mislabelled):
            problems.append(f"mislabelled: expected one per sample, got shape {tuple(mislabelled.shape)}; give a mask")
        texts = {name: own for name, own in (("groups", groups), ("ids", ids)) if own is not None}
        given = {"labels": labels, **texts, **({} if mislabelled is None else {"mislabelled": mislabelled})}
        problems += [
            f"{what}: expected {len(features)}, one per row of features, got {len(own)}; give as many"
            for what, own in given.items()
            if len(own) != len(features)
        ]
        return problems + text_problems(**texts)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor, **kwargs: Any) -> list[torch.Tensor]:
        """Return the columns of the buffers: features; and label, code of group, mark and code of id."""
        marks = kwargs["mislabelled"]
        mark = torch.full((len(y),), _UNKNOWN) if marks is None else marks.reshape(-1).long()
        # values are judged when all processes see all of them: an error in one would let the others wait
        columns = [class_indices(y), codes(kwargs["groups"], self._groups), mark, codes(kwargs["ids"], self._ids)]
        # a copy, because the caller may fill its tensor again
        return [y_pred.to(torch.float32, copy=True), torch.stack(columns, dim=1)]

    def aggregate(self, weight: Any = None, bias: Any = None, means: ClassMeans | None = None) -> NeuralCollapse:
        """Return the measures of all samples of all processes; a collective call.

        Args:
            weight: of the last layer, shape ``(K, d)``, or ``(1, d)`` for a single logit; without it NC3, NC4 and the
                error are NaN with that reason.
            bias: shape ``(K,)`` or ``(1,)``; ``None`` is 0.
            means: of other samples, such as those of the training set; ``None`` takes the means of these samples.

        Returns:
            What :func:`monai_fair.metrics.neural_collapse` returns of the same samples; without ``weight`` and
            ``means`` the largest label tells the number of classes.

        Raises:
            MonaiFairError: in every process, if there is no sample, a label is no class, features are not finite or
                differ between processes in their number, samples that differ have the same id, or weight, bias or means
                do not fit.
        """
        features, columns = self._samples()
        label, group, mark, identity = columns.T
        layer, offset = _array(weight), _array(bias)
        _, first, inverse = np.unique(identity, return_index=True, return_inverse=True)
        again = np.flatnonzero(first[inverse] != np.arange(len(identity)))
        differing = again[_differ(features, columns, again, first[inverse[again]])]
        problems = self._value_problems(features, columns, differing, _num_classes(layer, means))
        raise_problems(MonaiFairError, str(self), problems)
        names = gathered(self._groups)
        return neural_collapse(
            features[first],
            label[first],
            weight=layer,
            bias=offset,
            groups=[names[int(code)] for code in group[first]],
            mislabelled=None if (mark == _UNKNOWN).all() else mark[first] == 1,
            means=means,
        )

    def _samples(self) -> tuple[Features, IntArray]:
        """Return features and columns of all processes, shapes ``(n, d)`` and ``(n, 4)``."""
        widths = {int(width) for width in idist.all_gather(self._width)} - {0}
        if len(widths) != 1:
            got = f"got {' and '.join(map(str, sorted(widths)))} in processes" if widths else "got none"
            advice = "measure one layer" if widths else "call it with a batch first"
            raise MonaiFairError(f"{self}: expected features of one number of columns, {got}; {advice}")
        if self._buffers is None:
            # a process without samples takes part in the gathering with a row that is dropped
            self.extend(torch.zeros(1, *widths), torch.tensor([[NO_SAMPLE, 0, 0, 0]]))
        features, columns = (values.cpu().numpy() for values in self.get_buffer())
        real = columns[:, 0] != NO_SAMPLE
        return features[real] if not real.all() else features, columns[real]

    def _value_problems(
        self, features: Features, columns: IntArray, differing: IntArray, num_classes: int | None
    ) -> list[str]:
        label, n = columns[:, 0], len(columns)
        wrong = (label == INVALID) | (num_classes is not None and label >= num_classes)
        infinite = ~np.isfinite(features).all(axis=1)
        if not (wrong.any() or infinite.any() or differing.size):
            return []
        # all processes come here together, so the names can be gathered
        names = gathered(self._ids)
        problems = []
        if wrong.any():
            below = "" if num_classes is None else f" below {num_classes}"
            what = f"{wrong.sum()} of {n} samples have others, first '{names[int(columns[wrong][0, 3])]}'"
            problems.append(f"expected labels that are class indices{below} or one-hot, {what}; correct them")
        if infinite.any():
            what = f"{infinite.sum()} of {n} samples have others, first '{names[int(columns[infinite][0, 3])]}'"
            problems.append(f"expected finite features, {what}; check the training that made them")
        if differing.size:
            what = f"'{names[int(columns[differing[0], 3])]}' stands for several"
            problems.append(f"expected ids that tell samples apart, {what}; use the row or the image's path")
        return problems


def _differ(features: Features, columns: IntArray, rows: IntArray, first: IntArray) -> npt.NDArray[np.bool_]:
    """Return which rows are other samples than the first ones of their ids."""
    one, other = features[rows].astype(np.float64), features[first].astype(np.float64)
    with np.errstate(invalid="ignore"):  # what is not finite has a message of its own
        apart = np.linalg.norm(one - other, axis=1) > _SAME * np.linalg.norm(other, axis=1)
    return np.asarray(apart | (columns[rows] != columns[first]).any(axis=1))


def _num_classes(weight: npt.NDArray[np.float64] | None, means: ClassMeans | None) -> int | None:
    if weight is not None:
        return max(2, len(np.atleast_2d(weight)))
    return None if means is None else means.num_classes


def _array(value: Any) -> npt.NDArray[np.float64] | None:
    if value is None:
        return None
    return np.asarray(value.detach().double().cpu() if isinstance(value, torch.Tensor) else value, dtype=np.float64)
