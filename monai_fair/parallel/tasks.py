"""Items that wait to be run, and what became of each."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from monai_fair.errors import root_cause

Item = TypeVar("Item")
Result = TypeVar("Result")
# Libraries in a worker must not start threads of their own: they would wait for each other.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
                     "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")  # fmt: skip
ONE_THREAD = dict.fromkeys(_THREAD_VARIABLES, "1")
DIED = "the process that ran it ended without an answer; it may have run out of memory"


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of one item.

    Attributes:
        item: as it was given.
        value: what the function returned; ``None`` if it failed.
        error: type and message of what went wrong, of the last attempt; empty if nothing did.
        attempts: how often it was given out.
        seconds: from when it was given out until it ended, of all attempts. Two outcomes may differ in it and be equal.
    """

    item: Item
    value: Result | None
    error: str = ""
    attempts: int = 1
    seconds: float = field(default=0.0, compare=False)


class WaitingItems:
    """Places of the items that are yet to be given out, in their order, and a record of those that were.

    Args:
        count: how many there are.

    Attributes:
        attempts: per place how often it was given out.
        seconds: per place how long it was out.
    """

    def __init__(self, count: int) -> None:
        self._waiting = deque(range(count))
        self._since: dict[int, float] = {}
        self.attempts = [0] * count
        self.seconds = [0.0] * count

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> int:
        """Give out the next."""
        place = self._waiting.popleft()
        self.attempts[place] += 1
        self._since[place] = time.monotonic()
        return place

    def end(self, place: int, *, again: bool) -> None:
        """Take one back, and let it wait behind the others if it is to run again."""
        self.seconds[place] += time.monotonic() - self._since.pop(place)
        if again:
            self._waiting.append(place)


def attempt(function: Callable[[Item], Result], item: Item) -> tuple[Result | None, str]:
    """Return the result and an empty reason, or none and the reason."""
    try:
        return function(item), ""
    except Exception as error:
        # readers and registrations raise many classes; one item never stops the others
        return None, root_cause(error)
