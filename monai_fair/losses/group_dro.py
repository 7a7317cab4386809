"""Group distributionally robust optimisation: the groups with the largest loss count most."""

from collections.abc import Mapping, Sequence
from math import isfinite

import torch
from torch import distributed as dist
from torch import nn

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.losses.classification import ClassificationLoss
from monai_fair.losses.process_sums import in_process_group


def group_dro_step(
    log_weights: torch.Tensor, losses: torch.Tensor, present: torch.Tensor, step_size: float
) -> torch.Tensor:
    """Return the logarithm of the next group weights: ``q_g <- q_g exp(step_size loss_g)``, then divided by the sum.

    In logarithms a weight that has become tiny can grow again, where a product would have reached 0.

    Args:
        log_weights: ``log q``, shape ``(G,)``.
        losses: loss of every group, shape ``(G,)``; values of absent groups are not read.
        present: which groups had a sample, shape ``(G,)``; the others keep their weight, but for the division.
        step_size: eta, at least 0.

    Returns:
        ``log q``, shape ``(G,)``; the weights sum to 1.

    References:
        Sagawa et al., Distributionally robust neural networks for group shifts, ICLR 2020, arXiv:1911.08731,
        Algorithm 1.
    """
    growth = torch.where(present, step_size * losses, torch.zeros_like(losses))
    return (log_weights + growth).log_softmax(0)


class GroupDROLoss(nn.Module):
    """Weighted sum of the losses of groups; the weights ``q`` grow with the losses (Sagawa et al., Algorithm 1).

    In every call, with ``l_g`` the base loss of the batch's samples of group g: first ``q_g <- q_g exp(eta (l_g +
    C / sqrt(n_g)))`` for the groups in the batch and all q divided by their sum, then the loss ``sum_g q_g l_g``. The
    gradient goes through ``l_g`` only. A group that is absent from a batch keeps its weight, but for the division, and
    adds nothing to the loss; draw groups evenly where some are rare (Sagawa et al. do).

    Over several processes ``l_g`` is that of all samples of the batch: means are combined by numbers of samples,
    DistributedDataParallel averages to the gradient of one process, and q is the same everywhere. The value of one
    process is its own part; their mean is the loss. With class weights in the base loss that holds where a group has
    one label.

    ``q`` is part of ``state_dict``, so that a resumed training goes on with it.

    Args:
        counts: group name to its number of training rows n_g, from :func:`monai_fair.data.group_counts`.
        loss_function: takes ``(y_pred, y)`` and returns a mean; ``None`` is :class:`ClassificationLoss`.
        step_size: eta, at least 0; with 0 all groups weigh the same for good.
        adjustment: C of the generalisation adjustment, at least 0, in units of the loss: small groups overfit more,
            so the same training loss of a small group counts as a larger one. It changes q only.

    Attributes:
        groups: the names, in the order of q.

    Raises:
        MonaiFairError: if there are fewer than two groups, a group has no row, or an option is negative or not finite.

    References:
        Sagawa, Koh, Hashimoto, Liang, Distributionally robust neural networks for group shifts: on the importance of
        regularization for worst-case generalization, ICLR 2020, arXiv:1911.08731 (Algorithm 1; section 3.3 for C).
    """

    log_weights: torch.Tensor
    margin: torch.Tensor

    def __init__(
        self,
        counts: Mapping[str, int],
        loss_function: nn.Module | None = None,
        *,
        step_size: float = 0.01,
        adjustment: float = 0.0,
    ) -> None:
        super().__init__()
        raise_problems(MonaiFairError, "GroupDROLoss", _problems(counts, step_size, adjustment))
        self.groups = tuple(counts)
        self.loss_function = ClassificationLoss() if loss_function is None else loss_function
        self.step_size = float(step_size)
        number = torch.tensor([float(count) for count in counts.values()])
        # from the configuration, so no part of the state
        self.register_buffer("margin", adjustment / number.sqrt(), persistent=False)
        self.register_buffer("log_weights", torch.zeros(len(counts)).log_softmax(0))
        self._index = {name: index for index, name in enumerate(self.groups)}
        self._next: tuple[str, ...] | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Weight q of every group now; they sum to 1."""
        return dict(zip(self.groups, self.log_weights.exp().tolist(), strict=True))

    def expect(self, groups: Sequence[str]) -> None:
        """Say the groups of the samples of the next call, for callers that pass only predictions and labels."""
        self._next = tuple(groups)

    def forward(self, y_pred: torch.Tensor, y: torch.Tensor, groups: Sequence[str] | None = None) -> torch.Tensor:
        """Update the weights, and return the weighted loss of the batch.

        Args:
            y_pred: predictions, samples first, length B.
            y: labels, samples first, length B.
            groups: group of every sample, length B; ``None`` takes those of :meth:`expect`, once.

        Returns:
            A scalar tensor.

        Raises:
            MonaiFairError: if no groups were given, there are more or fewer than predictions, or one is unknown.
        """
        names = self._next if groups is None else tuple(groups)
        self._next = None  # never those of another batch
        raise_problems(MonaiFairError, "GroupDROLoss", self._group_problems(names, len(y_pred)))
        members: dict[int, list[int]] = {}
        for row, name in enumerate(names or ()):
            members.setdefault(self._index[name], []).append(row)
        # rows are chosen by index: a mask would make the host wait for the device
        losses = {
            group: self.loss_function(*(_rows(value, rows) for value in (y_pred, y))) for group, rows in members.items()
        }
        return self._weighted(losses, {group: len(rows) for group, rows in members.items()}, y_pred.device)

    def _weighted(self, losses: dict[int, torch.Tensor], sizes: dict[int, int], device: torch.device) -> torch.Tensor:
        if self.log_weights.device != device:
            self.to(device)
        groups = range(len(self.groups))
        own = torch.tensor([float(sizes.get(group, 0)) for group in groups], device=device)
        zero = torch.zeros((), device=device)
        means = torch.stack([losses[group].float() if group in losses else zero for group in groups])
        both = torch.stack([own * means.detach(), own])
        if in_process_group():
            dist.all_reduce(both)
        total = both[1]
        present = total > 0
        adjusted = both[0] / total.clamp(min=1) + self.margin
        self.log_weights = group_dro_step(self.log_weights, adjusted, present, self.step_size)
        # every process holds its part of a group's samples, and DDP takes the mean of W gradients
        share = own / total.clamp(min=1) * (dist.get_world_size() if in_process_group() else 1)
        return (self.log_weights.exp() * share * means).sum()

    def _group_problems(self, names: tuple[str, ...] | None, size: int) -> list[str]:
        if names is None:
            return [
                "expected the groups of the batch, got none; attach monai_fair.handlers.GroupDROHandler to the "
                "trainer, or pass 'groups'"
            ]
        problems = []
        if len(names) != size:
            problems.append(f"expected the groups of {size} samples, got {len(names)}; give one per prediction")
        if unknown := sorted({name for name in names if name not in self._index}):
            problems.append(
                f"expected groups among {', '.join(map(repr, self.groups))}, got {', '.join(map(repr, unknown))}; "
                "count the groups of the rows that are trained on"
            )
        return problems


def _rows(value: torch.Tensor, rows: list[int]) -> torch.Tensor:
    return value.as_subclass(torch.Tensor)[torch.tensor(rows, device=value.device)]


def _problems(counts: Mapping[str, int], step_size: float, adjustment: float) -> list[str]:
    problems = []
    if len(counts) < 2:
        problems.append(
            f"expected at least two groups, got {len(counts)}: {', '.join(counts) or 'none'}; train with ERM"
        )
    if empty := [name for name, count in counts.items() if not count > 0]:
        problems.append(f"expected rows in every group, got none in {', '.join(map(repr, empty))}; leave it out")
    for name, value in (("step_size", step_size), ("adjustment", adjustment)):
        if not (value >= 0 and isfinite(value)):
            problems.append(f"expected a finite {name} of at least 0, got {value}; correct '{name}'")
    return problems
