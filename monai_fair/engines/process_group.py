"""The end of a training on several processes."""

import logging
import weakref

# Functions of these two have the world's group as a default argument: imported while there is one, they keep it.
import torch.distributed.nn
import torch.distributed.optim  # noqa: F401
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_fair.errors import MonaiFairError

logger = logging.getLogger(__name__)

# What DistributedDataParallel itself leaves out when it is pickled, because it belongs to the process.
_TIES = ("process_group", "reducer", "logger")


def leave_process_group(network: nn.Module) -> None:
    """Destroy the process group and wait for its threads, so that Python can exit.

    ``torch.distributed.destroy_process_group`` forgets the group, but gloo's threads run for as long as anything
    refers to it, and DistributedDataParallel does. Such a thread drops the tensors of a collective only after the
    collective has returned, and needs the interpreter for it. If Python has begun to exit by then, CPython ends the
    thread inside a C++ destructor, and a process whose work is all done dies of SIGABRT with ``terminate called
    without an active exception``. Here DDP drops the group first; destroying it then waits for its threads.

    Import this module before the process group is made. What still refers to the group is a warning in the log.

    Args:
        network: holds DDP anywhere in it, or is DDP. DDP cannot run afterwards; the module in it can.

    Raises:
        MonaiFairError: if there is no process group.

    References:
        https://github.com/pytorch/pytorch/issues/190489 (the abort) and 56297 (the group's destructor waits).
    """
    group = dist.group.WORLD
    if group is None:
        raise MonaiFairError(
            "leave_process_group: expected an initialised torch.distributed process group, got none; "
            "call it once, after init_process_group"
        )
    still_there = weakref.ref(group)
    del group
    for module in network.modules():
        if isinstance(module, DistributedDataParallel):
            for name in _TIES:
                vars(module).pop(name, None)
    dist.destroy_process_group()
    if still_there() is not None:
        logger.warning(
            "the process group is destroyed, but something other than the network refers to it, so that its threads "
            "still run; with gloo the process may abort when it exits"
        )
