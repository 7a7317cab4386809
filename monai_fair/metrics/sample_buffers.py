"""Batches of any form as tensors, and texts as numbers: what metrics need whose samples lie in MONAI's buffers."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from monai.utils import convert_to_tensor

INVALID, NO_SAMPLE = -1, -2  # what a label in a buffer may be besides a class
_MOST = 2**31  # classes; neither infinity nor what no integer holds is one


def stacked(value: Any) -> torch.Tensor:
    """Return a batch as a tensor on the CPU: a tensor, an array, or a list with one of either per sample.

    A number is a batch of one.
    """
    if isinstance(value, list | tuple):
        value = torch.stack([torch.as_tensor(item) for item in value]) if value else torch.zeros(0)
    tensor: torch.Tensor = convert_to_tensor(value, track_meta=False).detach().cpu()
    return tensor if tensor.ndim else tensor.reshape(1)


def batched(value: Any) -> torch.Tensor:
    """Return a batch of any form as a tensor of shape ``(B, C)`` on the CPU, numbers as float64."""
    tensor = stacked(value).double()
    return tensor.reshape(len(tensor), math.prod(tensor.shape[1:]))


def class_indices(y: torch.Tensor, num_classes: int | None = None) -> torch.Tensor:
    """Return the class of each row, or ``INVALID``; nothing is raised, because other processes would wait.

    Args:
        y: class indices of shape ``(B, 1)`` or one-hot ``(B, K)``, as of :func:`batched`.
        num_classes: what indices have to be below, where that is known.
    """
    several = y.shape[1] > 1
    index = y.argmax(dim=1) if several else y[:, 0].long()
    valid = ((y >= 0) & (y == y.round()) & (y < _MOST)).all(dim=1)
    if several:
        valid &= y.sum(dim=1) == 1
    if num_classes is not None:
        valid &= index < num_classes
    return torch.where(valid, index, INVALID)


def text_problems(**texts: Sequence[str]) -> list[str]:
    """Return which of the named sequences have something that is no text, such as the NaN of an empty cell."""
    odd = {what: next((text for text in own if not isinstance(text, str)), "") for what, own in texts.items()}
    return [
        f"{what}: expected text, got {type(first).__name__}; write values as text"
        for what, first in odd.items()
        if not isinstance(first, str)
    ]


def codes(texts: Sequence[str], table: dict[int, str]) -> torch.Tensor:
    """Return a 64-bit code of each text, the same in every process, and note it in ``table``."""
    digests = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
    numbers = [int.from_bytes(digest, "big", signed=True) for digest in digests]
    table.update(zip(numbers, texts, strict=True))
    return torch.tensor(numbers, dtype=torch.int64)


def gathered(table: Mapping[int, str]) -> dict[int, str]:
    """Return the tables of all processes together; a collective call."""
    # JSON in ASCII, because ignite 0.5.5 takes the length of a text in characters for its length in bytes
    tables = idist.all_gather(json.dumps(list(table.items()), ensure_ascii=True))
    return {code: text for one in tables for code, text in json.loads(one)}
