"""Sums over the processes of a distributed training, with their gradient."""

from typing import Any

import torch
from torch import distributed as dist

from monai_fair.errors import MonaiFairError


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """Return the sum of ``value`` over all processes, differentiable.

    With ``S = sum_r s_r`` and the same ``L(S)`` on each of W processes, the backward pass adds up W equal
    gradients, so ``s_r`` receives ``W L'(S)``. DistributedDataParallel then averages over processes:
    ``(1/W) sum_r W L'(S) ds_r/dw = dL/dw``, the gradient of one process that sees all samples.

    Raises:
        MonaiFairError: if torch.distributed is not initialised.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise MonaiFairError(
            "distributed=True: expected an initialised torch.distributed process group, got none; "
            "call init_process_group first or leave 'distributed' to its default"
        )
    result: torch.Tensor = _SumOverProcesses.apply(value)
    return result


def in_process_group() -> bool:
    """Whether torch.distributed is initialised with more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce with its gradient; ``torch.distributed.nn.functional.all_reduce`` is deprecated."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return sum_over_processes(gradient)
