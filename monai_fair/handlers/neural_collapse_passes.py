"""What enters a layer for every item of a loader, in ``eval()`` and without a trace in the training."""

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.engines import Evaluator, Trainer
from monai.transforms import Compose, RandomizableTrait
from monai.utils import evenly_divisible_all_gather
from monai.utils.enums import CommonKeys as Keys
from torch import nn

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray
from monai_fair.networks import LayerInput, unwrapped


@dataclass(frozen=True)
class FeatureBatch:
    """Features of one batch, on the CPU.

    Attributes:
        features: float32, shape ``(B, d)``.
        labels: shape ``(B,)``.
        groups: of each attribute one name per row.
        mislabelled: where ``clean_label`` differs from ``label``; ``None`` if the batch has no ``clean_label``.
        rows: lines of the manifest, shape ``(B,)``; empty if the batch does not tell them.
    """

    features: np.ndarray
    labels: IntArray
    groups: Mapping[str, Sequence[str]]
    mislabelled: BoolArray | None
    rows: IntArray


class LoaderFeatures:
    """Features of a loader's items, batch by batch, as often as they are asked for.

    The first time the network runs over the loader; what it gives is kept while it fits, so that the second time costs
    nothing. What does not fit makes the network run again.

    Args:
        engine: whose network, device and way to prepare a batch are used.
        loader: batches of :func:`monai_fair.data.load_datalist`, each row once over all processes.
        layer: name of the linear layer in the bare network.
        attributes: whose values are the groups.
        keep_bytes: what features may take in memory.
    """

    def __init__(
        self,
        engine: Trainer | Evaluator,
        loader: Iterable[Mapping[str, Any]],
        layer: str,
        attributes: Sequence[str],
        *,
        keep_bytes: float,
    ) -> None:
        self.engine, self.loader, self.layer, self.attributes = engine, loader, layer, tuple(attributes)
        self.keep_bytes = keep_bytes
        self._kept: list[FeatureBatch] | None = None

    def __iter__(self) -> Iterator[FeatureBatch]:
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[FeatureBatch] | None = []
        size = 0
        for batch in self._run():
            size += batch.features.nbytes
            if kept is not None and size <= self.keep_bytes:
                kept.append(batch)
            else:
                kept = None
            yield batch
        self._kept = kept

    def _run(self) -> Iterator[FeatureBatch]:
        engine, network = self.engine, unwrapped(self.engine.network)
        entered = LayerInput(network, self.layer)
        try:
            for batch in self.loader:
                prepared = engine.prepare_batch(batch, engine.state.device, engine.non_blocking, **engine.to_kwargs)
                inputs, _, args, kwargs = prepared if len(prepared) == 4 else (*prepared, (), {})
                # the bare network, because processes may have unequal numbers of batches
                engine.inferer(inputs, network, *args, **kwargs)
                yield self._batch(batch, entered.take().detach().float().cpu().numpy())
        finally:
            entered.remove()

    def _batch(self, batch: Mapping[str, Any], features: np.ndarray) -> FeatureBatch:
        labels = _whole(batch[Keys.LABEL])
        clean = _whole(batch["clean_label"]) != labels if "clean_label" in batch else None
        rows = _whole(batch.get("row", []))
        return FeatureBatch(features, labels, self._groups(batch), clean, rows)

    def _groups(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        there = batch.get("attributes", {})
        _refuse_unknown(self.attributes, there)
        return {name: list(there[name]) for name in self.attributes}


def _whole(values: Any) -> IntArray:
    return np.asarray(torch.as_tensor(values).as_subclass(torch.Tensor).reshape(-1).cpu().numpy(), dtype=np.int64)


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Hold a network in ``eval()`` without gradients, and leave it and all random generators as they were.

    In several processes all use the buffers of the first one, as DistributedDataParallel does: running means of batch
    normalisation differ between processes.

    Args:
        network: wrapped or not.
    """
    modules = [(module, module.training) for module in network.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()] if idist.get_world_size() > 1 else []
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002, what the transforms of others draw from
    devices = list({value.device for value in network.parameters() if value.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            network.eval()
            for buffer, _ in buffers:
                buffer.copy_(idist.broadcast(buffer, src=0))
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002
        for module, training in modules:
            module.training = training  # one by one: a part may be frozen in eval()
        for buffer, value in buffers:
            buffer.copy_(value)


def check_not_random(name: str, loader: Any) -> None:
    """Refuse a loader whose dataset draws augmentations.

    Args:
        name: of the part, for the message.
        loader: with a MONAI dataset, or any other, which is not looked at.

    Raises:
        MonaiFairError: naming every random transform.
    """
    transform = getattr(getattr(loader, "dataset", None), "transform", None)
    steps = transform.flatten().transforms if isinstance(transform, Compose) else [transform]
    drawn = [type(step).__name__ for step in steps if isinstance(step, RandomizableTrait)]
    if drawn:
        raise MonaiFairError(
            f"NeuralCollapseHandler: part '{name}': expected a loader without random transforms, got "
            f"{', '.join(drawn)}; give it a dataset of its own with the transforms of the evaluation"
        )


def check_attributes(loader: Any, attributes: Sequence[str]) -> None:
    """Refuse attributes that the first row of a loader's dataset does not have.

    Args:
        loader: with a MONAI dataset of :func:`monai_fair.data.load_datalist`, or any other, which is not looked at
            before its first batch.
        attributes: whose values are to be the groups.

    Raises:
        MonaiFairError: naming every attribute that is not there.
    """
    data = getattr(getattr(loader, "dataset", None), "data", None)
    first = data[0] if isinstance(data, Sequence) and len(data) else None
    if isinstance(first, Mapping):
        _refuse_unknown(attributes, first.get("attributes", {}))


def _refuse_unknown(attributes: Sequence[str], there: Mapping[str, Any]) -> None:
    problems = [
        f"expected the attribute '{name}' in the batch, the ones there are {', '.join(there) or 'none'}; name one, "
        "or load the rows by load_datalist"
        for name in attributes
        if name not in there
    ]
    raise_problems(MonaiFairError, "NeuralCollapseHandler", problems)


def check_rows_once(name: str, rows: Sequence[IntArray], device: torch.device) -> None:
    """Refuse rows that come twice, over all processes; a collective call.

    Raises:
        MonaiFairError: in every process.
    """
    own = torch.as_tensor(np.concatenate([np.zeros(0, dtype=np.int64), *rows]), device=device)
    seen = evenly_divisible_all_gather(own).cpu().numpy()
    twice = len(seen) - len(np.unique(seen))
    if twice:
        raise MonaiFairError(
            f"NeuralCollapseHandler: part '{name}': expected each row once, got {twice} of {len(seen)} again; take "
            "no sampler that draws by weight, and in several processes a DistributedSampler with even_divisible: false"
        )


def sum_over_processes(array: FloatArray) -> FloatArray:
    """Return the sum of an array over all processes, the same in each."""
    if idist.get_world_size() == 1:
        return array
    summed = idist.all_reduce(torch.from_numpy(np.array(array)).to(idist.device()))
    return np.asarray(summed.cpu().numpy())


def names_of_all(own: Sequence[str]) -> list[str]:
    """Return the names that any process has, sorted; a collective call."""
    # JSON in ASCII, because ignite 0.5.5 takes the length of a text in characters for its length in bytes
    lists = idist.all_gather(json.dumps(list(own), ensure_ascii=True))
    return sorted({name for one in lists for name in json.loads(one)})
