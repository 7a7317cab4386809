"""The clock of a study's stages: each runs in its turn, and what it took is added up over sittings."""

from pathlib import Path

import pytest

from monai_fair.data.artifacts import read_json
from monai_fair.engines import StageClock
from monai_fair.engines import stages as module
from monai_fair.errors import MonaiFairError


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def takes(self, seconds: float, result: str = "") -> str:
        self.now += seconds
        return result


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(module, "time", time)
    return time


def times(folder: Path) -> list[tuple[str, float]]:
    return [(stage["name"], stage["seconds"]) for stage in read_json(folder / "stages.json", "stages")["stages"]]


def test_stages_keep_their_order_and_add_up_over_sittings(tmp_path: Path, clock: Time) -> None:
    first = StageClock(tmp_path / "study")
    assert first.run("fit", lambda: clock.takes(20.0, "fitted")) == "fitted"
    first.run("audit", lambda: clock.takes(3.0))
    again = StageClock(tmp_path / "study")
    again.run("fit", lambda: clock.takes(0.5))
    again.run("audit", lambda: clock.takes(1.0))
    assert times(tmp_path / "study") == [("fit", 20.5), ("audit", 4.0)]


def test_a_stage_that_fails_keeps_no_time(tmp_path: Path, clock: Time) -> None:
    def fails() -> None:
        clock.takes(7.0)
        raise MonaiFairError("no images")

    stages = StageClock(tmp_path)
    stages.run("fit", lambda: clock.takes(2.0))
    with pytest.raises(MonaiFairError, match="no images"):
        stages.run("audit", fails)
    assert times(tmp_path) == [("fit", 2.0)]
