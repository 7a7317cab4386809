"""The stages of a study, one after the other, and how long each took."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_fair.data.artifacts import read_json, write_json


class StageClock:
    """Run the stages of a study and keep their times in ``stages.json``.

    What is finished each stage knows by itself. A study that is started again adds the time of every sitting, so that
    the table says what the whole took.

    Args:
        output_dir: folder of the study.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.path = Path(output_dir) / "stages.json"
        self.stages: list[dict[str, Any]] = read_json(self.path, "stages")["stages"] if self.path.is_file() else []

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        """Do the work of one stage and return what it returns; a stage that fails keeps no time.

        Args:
            name: of the stage, for the page.
            work: does it, or returns at once when it is done.
        """
        start = time.monotonic()
        result = work()
        seconds = time.monotonic() - start
        known = next((stage for stage in self.stages if stage["name"] == name), None)
        if known is None:
            self.stages.append({"name": name, "seconds": seconds})
        else:
            known["seconds"] += seconds
        write_json(self.path, "stages", {"stages": self.stages})
        return result
