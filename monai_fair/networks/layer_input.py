"""Read the penultimate features of any classifier: the tensor that enters a named linear layer."""

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from monai_fair.errors import MonaiFairError

_SHOWN = 20
_SEVERAL = 2


class LayerInput:
    """Keep the input of one linear layer from the last forward pass until it is taken.

    The network is not changed: a hook looks at what enters the layer. For the last layer of a classifier this
    is the penultimate representation; where dropout stands before the layer, it is already applied. Wrappers
    (DistributedDataParallel, DataParallel, ``torch.compile``) are looked through, so ``layer`` is the name in
    the bare network: ``fc`` in MONAI's ResNet, ``class_layers.out`` in DenseNet, ``_fc`` in EfficientNet.
    Compile after construction or before the first forward pass: a graph already compiled ignores new hooks.

    Args:
        network: the network, wrapped or not.
        layer: name of an ``nn.Linear`` in it.

    Attributes:
        layer: the linear layer.

    Raises:
        MonaiFairError: if there is no such layer or it is not linear; the message lists the linear layers.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        self.layer = find_linear(network, layer)
        self._name = layer
        self._runs = 0
        self._input: torch.Tensor | None = None
        self._hook = self.layer.register_forward_pre_hook(self._keep, with_kwargs=True)

    def take(self) -> torch.Tensor:
        """Return the features ``(B, D)`` of the one forward pass since the last ``take`` or ``clear``.

        The tensor belongs to the autograd graph of that pass; nothing is kept here afterwards.

        Raises:
            MonaiFairError: if the layer ran never or several times, or its input is not ``(B, D)``.
        """
        runs, value = self._runs, self._input
        self.clear()
        if runs != 1 or value is None:
            got = "several" if runs else "none"
            raise MonaiFairError(
                f"layer '{self._name}': expected one forward pass since its input was last taken, got {got}; "
                "use an inferer that calls the network once per batch, such as SimpleInferer"
                + ("" if runs else ", and compile the network only after this hook is set")
            )
        if value.ndim != 2:
            raise MonaiFairError(
                f"layer '{self._name}': expected an input of shape (B, D), got {tuple(value.shape)}; "
                "name the layer after pooling"
            )
        return value.as_subclass(torch.Tensor)

    def clear(self) -> None:
        """Forget what was kept, and let its memory go."""
        self._runs, self._input = 0, None

    def remove(self) -> None:
        """Take the hook off the network and forget what was kept."""
        self._hook.remove()
        self.clear()

    def _keep(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # Counting stops at "several", because torch.compile compiles again for every state it meets here.
        self._runs = min(self._runs + 1, _SEVERAL)
        # A second input makes take() fail anyway: keeping it would only hold memory.
        self._input = (args[0] if args else kwargs["input"]) if self._runs == 1 else None


def find_linear(network: nn.Module, layer: str) -> nn.Linear:
    """Return the linear layer named ``layer`` of a network, looking through parallel and compile wrappers.

    Args:
        network: the network, wrapped or not.
        layer: name of the layer in the bare network.

    Raises:
        MonaiFairError: if there is no such layer or it is not linear; the message lists the linear layers.
    """
    modules = dict(unwrapped(network).named_modules())
    found = modules.get(layer)
    if isinstance(found, nn.Linear):
        return found
    names = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    more = f"{len(names) - _SHOWN} more, " if len(names) > _SHOWN else ""
    linear = more + ", ".join(f"'{name}'" for name in names[-_SHOWN:]) if names else "none"
    got = "no layer of that name" if found is None else f"a {type(found).__name__}"
    kind = type(unwrapped(network)).__name__
    raise MonaiFairError(
        f"layer '{layer}': expected an nn.Linear in {kind}, got {got}; its linear layers are: {linear}"
    )


def layer_width(network: nn.Module, layer: str) -> int:
    """Return how many features enter a linear layer; arguments and errors as in :func:`find_linear`."""
    return find_linear(network, layer).in_features


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the bare network inside DistributedDataParallel, DataParallel and ``torch.compile`` wrappers."""
    while True:
        inner = network.module if isinstance(network, DataParallel | DistributedDataParallel) else None
        # torch.compile's wrapper is a private class; this attribute is what its state dict is named after
        inner = getattr(network, "_orig_mod", None) if inner is None else inner
        if not isinstance(inner, nn.Module):
            return network
        network = inner
