"""What handlers and metrics read from an engine's output."""

from collections.abc import Mapping, Sequence
from typing import Any


def batch_loss(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Any:
    """Return the loss of a training step, whether or not the trainer takes batches apart (``decollate``).

    MONAI's ``from_engine("loss")`` gives a tuple in one case and a list in the other.
    """
    first = output if isinstance(output, Mapping) else output[0]
    return first["loss"]
