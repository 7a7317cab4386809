"""What an epoch came to, for whoever waits for a training."""

import sys

from ignite.engine import Engine, Events
from monai.engines import Evaluator

from monai_fair.data.artifacts import write_json
from monai_fair.errors import LabelError


class EpochLog:
    """Write a line to stderr after every epoch: a server shows it, while stdout goes to the log of the run.

    Args:
        evaluator: the validation evaluator.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def attach(self, engine: Engine) -> None:
        """Register with a MONAI trainer, after the handler that runs the validation."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the line."""
        state, epoch = self.evaluator.state, f"epoch {engine.state.epoch} of {engine.state.max_epochs}"
        value = state.metrics[state.key_metric_name]
        best = f"best {state.best_metric:.4f} of epoch {state.best_metric_epoch}"
        sys.stderr.write(f"{epoch}: {state.key_metric_name} {value:.4f}, {best}\n")
        sys.stderr.flush()


def write_key_metric(evaluator: Evaluator, path: str) -> None:
    """Write name and value of the key metric of an evaluator that has run.

    Raises:
        LabelError: if it has none.
    """
    name = evaluator.state.key_metric_name
    if name is None:
        raise LabelError(f"{path}: expected a key metric to compare models by, got none; set validate#key_metric")
    write_json(path, "key_metric", {"name": name, "value": float(evaluator.state.metrics[name])})
