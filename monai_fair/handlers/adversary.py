"""An adversary that guesses attributes from a network's features, in any MONAI ``SupervisedTrainer``."""

from typing import Any

import torch
from monai.engines import SupervisedTrainer
from torch import nn

from monai_fair.errors import MonaiFairError
from monai_fair.handlers.loss_term import LossTerm
from monai_fair.losses import AttributeLoss
from monai_fair.losses.nir_loss import checked_weight
from monai_fair.networks import GradientReversal, unwrapped


class AdversaryHandler(LossTerm):
    """Train a network's adversary on the attributes, and let its encoder work against it.

    The loss gets the adversary's own, which the adversary descends; behind the :class:`GradientReversal` the encoder
    gets ``-strength`` times its gradient. So that an encoder does not run from an adversary that knows nothing yet, the
    strength rises linearly from 0 during the warm-up. How the loss is added and logged is that of
    :class:`monai_fair.handlers.LossTerm`; the values are ``adversary`` (its loss) and ``adversary_strength``.

    Args:
        loss: of the adversary's logits.
        strength: alpha, at least 0. With 0 the encoder is left alone, and the adversary says what could be guessed.
        warm_up_epochs: epochs until the strength is reached; may be a fraction.
        module: name of the adversary in the bare network, such as that of :class:`monai_fair.networks.FairREAD`; what
            it returns are the logits.
        reversal: name of the :class:`GradientReversal` in it.
        key: of the batch, for the attributes as :class:`AttributeLoss` takes them.

    Raises:
        MonaiFairError: if a number is negative; in a run, if the network has no such modules or its batch no such key.

    References:
        Gao, Hao, Zhou, FairREAD, arXiv:2412.16373; Ganin et al., Domain-adversarial training of neural networks, JMLR
        2016, arXiv:1505.07818 (the strength that rises).
    """

    elsewhere = "monai_fair.losses.AttributeLoss behind a monai_fair.networks.GradientReversal"

    def __init__(
        self,
        loss: AttributeLoss,
        strength: float = 0.1,
        *,
        warm_up_epochs: float = 0.0,
        module: str = "adversary",
        reversal: str = "reversal",
        key: str = "attribute_codes",
    ) -> None:
        super().__init__()
        self.loss = loss
        self.strength = checked_weight("AdversaryHandler", strength)
        self.warm_up_epochs = checked_weight("AdversaryHandler", warm_up_epochs)
        self.module, self.reversal, self.key = module, reversal, key
        self._hook: Any = None
        self._layer: GradientReversal | None = None
        self._logits: list[torch.Tensor] = []

    def begin(self, engine: SupervisedTrainer) -> None:
        """Find the adversary, and look at its logits."""
        network = unwrapped(engine.network)
        modules: dict[str, nn.Module] = dict(network.named_modules())
        layer = modules.get(self.reversal)
        if self.module not in modules or not isinstance(layer, GradientReversal):
            raise MonaiFairError(
                f"AdversaryHandler: expected modules '{self.module}' and '{self.reversal}' (a GradientReversal) in "
                f"{type(network).__name__}, got {', '.join(name for name, _ in network.named_children()) or 'none'}; "
                "build the network with its adversary"
            )
        self._layer = layer
        self._hook = modules[self.module].register_forward_hook(lambda *passed: self._logits.append(passed[2]))

    def end(self) -> None:
        """Take the hook off the network."""
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._layer = None, None
        self.forget()

    def forget(self) -> None:
        """Drop logits of other passes."""
        self._logits.clear()

    def start(self, engine: SupervisedTrainer) -> None:
        """Set the strength of this iteration."""
        super().start(engine)
        if self._layer is not None:
            self._layer.strength.fill_(self._now(engine))

    def terms(self, engine: SupervisedTrainer) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """Return the adversary's loss."""
        batch = engine.state.batch
        if len(self._logits) != 1 or self.key not in batch:
            raise MonaiFairError(
                f"AdversaryHandler: expected one pass of '{self.module}' and '{self.key}' in the batch, got "
                f"{len(self._logits)} passes and {', '.join(map(str, batch))}; attach it before the run starts, with "
                "SimpleInferer and encoded attributes"
            )
        logits = self._logits.pop()
        attributes = batch[self.key].to(logits.device, non_blocking=True)
        loss: torch.Tensor = self.loss(logits, attributes)
        return loss, {"adversary": loss, "adversary_strength": torch.tensor(self._now(engine))}

    def _now(self, engine: SupervisedTrainer) -> float:
        """Return the strength of this iteration, which only the iteration decides: a resumed run has the same."""
        length = (engine.state.epoch_length or 0) * self.warm_up_epochs
        return self.strength * min(1.0, (engine.state.iteration - 1) / length) if length else self.strength
