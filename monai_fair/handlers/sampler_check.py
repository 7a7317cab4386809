"""The check that training rows are drawn as an overlay says."""

from typing import Any

from ignite.engine import Engine, Events

from monai_fair.errors import MonaiFairError


class SamplerCheck:
    """Refuse to train when the loader draws rows by another sampler than the given one.

    Config files laid over each other may each set the sampler, and the last one counts: without this check, rows that
    were to be drawn by weight would be drawn evenly, and nothing would show it.

    Args:
        sampler: the sampler that the trainer's loader must have.

    Raises:
        MonaiFairError: at the start of a run, if it has another.
    """

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare the samplers."""
        found = getattr(engine.data_loader, "sampler", None)
        if found is not self.sampler:
            raise MonaiFairError(
                f"training rows: expected to be drawn by {type(self.sampler).__name__}, got {type(found).__name__}; "
                "lay the overlay that draws rows by weight after the one for several processes"
            )
