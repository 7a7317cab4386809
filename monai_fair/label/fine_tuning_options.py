"""What can be chosen for a fine-tuning, checked."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from monai_fair.errors import LabelError, raise_problems

Replace = Literal["better", "always"]


@dataclass(frozen=True)
class FineTuning:
    """Options of a training.

    Attributes:
        max_epochs: epochs at most; the bundle's early stopping may end it before.
        val_split: share of the labelled subjects to choose the epoch on and to fit thresholds on.
        seed: of the split and the training.
        attributes: columns whose joint groups are balanced with the label.
        rebalance: draw rows so that label and group are independent.
        replace: ``better`` keeps the present model where the new one is worse on the validation rows.
        learning_rate: ``None`` for the bundle's own.

    Raises:
        LabelError: with every option that cannot be used.
    """

    max_epochs: int = 50
    val_split: float = 0.2
    seed: int = 0
    attributes: tuple[str, ...] = ()
    rebalance: bool = True
    replace: Replace = "better"
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        rules = {
            "max_epochs": (_is_whole(self.max_epochs, 1, 100_000), "a whole number from 1"),
            "val_split": (_is_number(self.val_split) and 0.05 <= self.val_split <= 0.5, "a number from 0.05 to 0.5"),
            "seed": (_is_whole(self.seed, 0, 2**31 - 1), "a whole number from 0 to 2147483647"),
            "attributes": (
                isinstance(self.attributes, tuple)
                and all(isinstance(name, str) for name in self.attributes)
                and len(set(self.attributes)) == len(self.attributes),
                "names of attributes, each once",
            ),
            "rebalance": (isinstance(self.rebalance, bool), "true or false"),
            "replace": (self.replace in get_args(Replace), f"one of {', '.join(get_args(Replace))}"),
            "learning_rate": (
                self.learning_rate is None or (_is_number(self.learning_rate) and 0 < self.learning_rate <= 1),
                "a number above 0, at most 1",
            ),
        }
        problems = [
            f"option '{name}': expected {expected}, got {getattr(self, name)!r}; correct it"
            for name, (holds, expected) in rules.items()
            if not holds
        ]
        raise_problems(LabelError, "training", problems)


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
