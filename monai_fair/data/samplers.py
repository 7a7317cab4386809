"""Training rows drawn in proportion to the manifest's weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from monai.data import DistributedWeightedRandomSampler
from torch import distributed as dist
from torch.utils.data import Sampler, WeightedRandomSampler

from monai_fair.errors import ManifestError

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
