"""Which rows an epoch or a measurement takes: by weight, as many of every class, or the same every time."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from monai.data import DistributedWeightedRandomSampler
from torch import distributed as dist
from torch.utils.data import Sampler, WeightedRandomSampler

from monai_fair.errors import ManifestError, MonaiFairError, raise_problems

_SHOWN = 5


def weighted_sampler(datalist: Sequence[Mapping[str, Any]], *, num_samples: int | None = None) -> Sampler[int]:
    """Return a sampler that draws rows with replacement, each with a chance in proportion to its ``weight``.

    An epoch then has, in expectation, what a loss weighted by row would see, and a step never meets one sample of a
    large weight: drawing is stable where weighting stochastic gradients is not (An et al.).

    Draws come from torch's global generator, which :class:`monai_fair.handlers.EpochSeed` seeds at every epoch, so a
    resumed run draws as an uninterrupted one. Of several processes each draws from its share of the rows, which is
    dealt anew at every epoch (MONAI's ``DistributedWeightedRandomSampler``).

    Args:
        datalist: training rows of :func:`monai_fair.data.load_datalist`, in the order of the dataset.
        num_samples: rows drawn per epoch, in all processes together; ``None`` draws as many as there are.

    Raises:
        ManifestError: if a row has no weight, if none is given, or if ``num_samples`` is less than 1.

    References:
        An, Ying, Zhu, Why resampling outperforms reweighting for correcting sampling bias with stochastic gradients,
        ICLR 2021, arXiv:2009.13447.
    """
    total = len(datalist) if num_samples is None else num_samples
    if total < 1:
        raise ManifestError(
            f"weighted_sampler: expected at least one row to draw, got {total}; check the training rows"
        )
    lacking = [str(item.get("subject_id", "")) for item in datalist if "weight" not in item]
    if lacking:
        shown = ", ".join(lacking[:_SHOWN]) + (", ..." if len(lacking) > _SHOWN else "")
        raise ManifestError(
            f"weighted_sampler: expected a weight in every training row, {len(lacking)} of {len(datalist)} have none: "
            f"{shown}; write a manifest with weights by python -m monai_fair rebalance"
        )
    weights = [float(item["weight"]) for item in datalist]
    if dist.is_available() and dist.is_initialized():
        per_rank = -(-total // dist.get_world_size())
        sampler: Sampler[int] = DistributedWeightedRandomSampler(
            datalist, weights, num_samples_per_rank=per_rank, even_divisible=False
        )
        return sampler
    return WeightedRandomSampler(weights, total)


class ClassBalancedBatchSampler(Sampler[list[int]]):
    """Draw batches in which every class has the same number of samples, each sample once in a batch.

    Draws come from torch's global generator, which :class:`monai_fair.handlers.EpochSeed` seeds at every epoch, so a
    resumed run draws as an uninterrupted one. Of several processes each has its share of the rows of every class.

    Args:
        datalist: training rows with an integer ``label``, in the order of the dataset.
        batch_size: of one process, a multiple of the number of classes.
        num_classes: number of classes.
        num_batches: of an epoch and one process; ``None`` takes as many as go through as many rows as there are.

    Raises:
        ManifestError: if a class has too few rows for a batch, or the size is no multiple of the number of classes.
    """

    def __init__(
        self,
        datalist: Sequence[Mapping[str, Any]],
        batch_size: int,
        *,
        num_classes: int = 2,
        num_batches: int | None = None,
    ) -> None:
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        labels = torch.tensor([int(row["label"]) for row in datalist], dtype=torch.long)
        rows = [(labels == label).nonzero()[:, 0] for label in range(num_classes)]
        self.each = batch_size // num_classes
        least = world * max(1, self.each)
        problems = [
            f"expected at least {least} rows of label {label} ({max(1, self.each)} in a batch"
            f"{f', {world} processes' if world > 1 else ''}), got {len(own)}; take smaller batches"
            for label, own in enumerate(rows)
            if len(own) < least
        ]
        if batch_size < num_classes or batch_size % num_classes:
            problems.append(f"expected a batch_size that is a multiple of {num_classes}, got {batch_size}; correct it")
        if num_batches is not None and num_batches < 1:
            problems.append(f"expected num_batches of at least 1, or None, got {num_batches}; correct it")
        raise_problems(ManifestError, "ClassBalancedBatchSampler", problems)
        self.rows = [own[rank::world] for own in rows]
        self.num_batches = num_batches or max(1, len(datalist) // (batch_size * world))

    def __len__(self) -> int:
        """Return the number of batches."""
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the rows of each batch, in random order."""
        for _ in range(self.num_batches):
            drawn = torch.cat([own[torch.randperm(len(own))[: self.each]] for own in self.rows])
            yield drawn[torch.randperm(len(drawn))].tolist()


class FixedSampler(Sampler[int]):
    """The same rows in every pass, each once and in their order; of several processes each has its share of them.

    Rows are drawn at random and without regard to labels or groups, so a rare group keeps its proportion, not its size.
    The draw has a generator of its own: no other random number changes by it.

    Args:
        dataset: whose rows they are.
        share: of the rows, above 0 up to 1, which is all of them; at least one row.
        seed: of the draw.

    Raises:
        MonaiFairError: if the share is out of range.
    """

    def __init__(self, dataset: Sized, *, share: float = 1.0, seed: int = 0) -> None:
        if not 0 < share <= 1:
            raise MonaiFairError(f"FixedSampler: expected a share above 0 and up to 1, got {share}; correct it")
        generator = torch.Generator().manual_seed(seed)
        count = max(1, round(share * len(dataset)))
        self.rows = torch.randperm(len(dataset), generator=generator)[:count].sort().values

    def _own(self) -> torch.Tensor:
        # asked late: configs build samplers before they start the process group
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        return self.rows[rank::world]

    def __len__(self) -> int:
        """Return the number of rows of this process."""
        return len(self._own())

    def __iter__(self) -> Iterator[int]:
        """Yield the rows of this process."""
        yield from self._own().tolist()
