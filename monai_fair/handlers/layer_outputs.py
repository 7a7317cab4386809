"""What leaves layers of a network, one vector for each image: for the diagnostics of a report."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.networks import EmbeddingClassifier, FairREAD, unwrapped

_ENTERS = "input:"
_SEVERAL = 2


class LayerOutputs:
    """Keep what leaves layers of a network in its last forward pass, until it is taken.

    A map ``(B, C, *spatial)`` is kept as its mean over places. The network is not changed: hooks look on between
    :meth:`start` and :meth:`remove`. Wrappers such as DistributedDataParallel are looked through.

    Args:
        network: the network, wrapped or not.
        layers: name to place in the bare network: ``blocks.0`` is what this module returns, ``attributes[1]`` the
            second of several things that it returns, ``input:out`` what enters a module.
        behind: another network; whenever it runs, ``network`` runs on the same images in ``eval()``, on its device.

    Raises:
        MonaiFairError: with every module that is not there.
    """

    def __init__(self, network: nn.Module, layers: Mapping[str, str], *, behind: nn.Module | None = None) -> None:
        self.network, self.layers = network, dict(layers)
        self.behind = behind
        self._places = {name: _place(place) for name, place in self.layers.items()}
        self._kept: dict[str, torch.Tensor] = {}
        self._runs: dict[str, int] = {}
        self._hooks: list[Any] = []
        modules, kind = dict(unwrapped(network).named_modules()), type(unwrapped(network)).__name__
        raise_problems(
            MonaiFairError,
            f"layers of {kind}",
            [
                f"{name}: expected a module, got no '{place.module}'; name one of its named_modules()"
                for name, place in self._places.items()
                if place.module not in modules
            ],
        )

    def start(self) -> None:
        """Set the hooks."""
        self.remove()
        modules = dict(unwrapped(self.network).named_modules())
        for name, place in self._places.items():
            module, look = modules[place.module], partial(self._keep, name)
            hook = module.register_forward_pre_hook if place.enters else module.register_forward_hook
            self._hooks.append(hook(look))
        if self.behind is not None:
            leader = unwrapped(self.behind)
            self.network.to(next(leader.parameters()).device).eval()
            self._hooks.append(leader.register_forward_pre_hook(self._follow))

    def take(self) -> dict[str, torch.Tensor]:
        """Return the vectors of the one forward pass since the last ``take``, each of shape ``(B, d)``, in float32.

        Raises:
            MonaiFairError: naming every layer that ran never or several times.
        """
        raise_problems(
            MonaiFairError,
            "layers",
            [
                f"{name}: expected one pass through '{place}' since it was last taken, got "
                f"{'several' if self._runs.get(name) else 'none'}; use an inferer that calls the network once per "
                "batch, such as SimpleInferer"
                for name, place in self.layers.items()
                if self._runs.get(name) != 1
            ],
        )
        kept = self._kept
        self._kept, self._runs = {}, {}
        return {name: kept[name] for name in self.layers}

    def remove(self) -> None:
        """Take the hooks off, and forget what was kept."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._kept, self._runs = [], {}, {}

    def _keep(self, name: str, _: nn.Module, *what: Any) -> None:
        """Keep what left a layer or entered it, the last thing that either kind of hook is told."""
        value = what[-1]
        place = self._places[name]
        several = isinstance(value, tuple | list)
        if several and place.index is not None and place.index < len(value):
            value = value[place.index]
        elif several or place.index is not None:
            got = f"{len(value)} things" if several else "one thing"
            raise MonaiFairError(
                f"layer '{self.layers[name]}': expected one thing to keep, got {got}; give [0], [1], ... for one of "
                "several, and none else"
            )
        vector = value.detach().as_subclass(torch.Tensor).float()
        self._kept[name] = vector.flatten(2).mean(dim=2) if vector.ndim > 2 else vector
        self._runs[name] = min(self._runs.get(name, 0) + 1, _SEVERAL)

    @torch.no_grad()
    def _follow(self, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.network(inputs[0])


@dataclass(frozen=True)
class _Place:
    """Where something leaves or enters a module, and which of several things."""

    module: str
    enters: bool
    index: int | None


def _place(text: str) -> _Place:
    enters = text.startswith(_ENTERS)
    name, bracket, rest = text.removeprefix(_ENTERS).partition("[")
    index = rest.removesuffix("]")
    if bracket and rest.endswith("]") and index.isdecimal():
        return _Place(name, enters, int(index))
    # of what enters a module the first argument is looked at
    return _Place(name + bracket + rest, enters, 0 if enters else None)


def fairread_layers(network: nn.Module, attribute_model: EmbeddingClassifier | None = None) -> list[LayerOutputs]:
    """Return the layers of either stage of FairREAD that tell where attributes can be read.

    Stage 2: ``map`` (the encoder's, before any ReLU, as re-fusion takes it), ``fused_1`` to ``fused_N`` (after each
    block), ``mu`` and ``sigma``. Stage 1: ``map`` and ``embedding``; with an attribute model also its
    ``attribute_embedding`` of the same images.

    Args:
        network: of either stage, wrapped or not.
        attribute_model: of stage 1a.

    Raises:
        MonaiFairError: if the network is of another kind.
    """
    bare = unwrapped(network)
    if isinstance(bare, FairREAD):
        fused = {f"fused_{place + 1}": f"blocks.{place}" for place in range(len(bare.blocks))}
        own = {"map": "encoder", **fused, "mu": "attributes[0]", "sigma": "attributes[1]"}
    elif isinstance(bare, EmbeddingClassifier):
        own = {"map": "encoder", "embedding": "input:out"}
    else:
        raise MonaiFairError(
            f"fairread_layers: expected a FairREAD or EmbeddingClassifier network, got {type(bare).__name__}; name its "
            "layers in a LayerOutputs"
        )
    found = [LayerOutputs(network, own)]
    if attribute_model is not None:
        found.append(LayerOutputs(attribute_model, {"attribute_embedding": "input:out"}, behind=network))
    return found
