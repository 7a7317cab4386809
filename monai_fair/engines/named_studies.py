"""Studies that belong together: one after the other, each in a folder of its own."""

from collections.abc import Callable, Mapping
from pathlib import Path

from monai_fair.engines.study import BundleStudy
from monai_fair.errors import MonaiFairError


class NamedStudies:
    """Studies by name, such as those of several findings or datasets.

    Args:
        studies: name to study.
        output_dir: folder of all.

    Attributes:
        studies: name to study.
    """

    def __init__(self, studies: Mapping[str, BundleStudy], output_dir: str) -> None:
        self.studies = dict(studies)
        self.output_dir = Path(output_dir)

    def run(self) -> None:
        """Do all runs of all studies that are not finished.

        Raises:
            MonaiFairError: at the end, if runs failed; with the reason of each. The others are complete.
        """
        self.each(lambda _, study: study.run())

    def each(self, action: Callable[[str, BundleStudy], None]) -> None:
        """Do something with every name and study; what one of them says at the end stops none.

        Raises:
            MonaiFairError: with what was said of each.
        """
        failures: dict[str, MonaiFairError] = {}
        for name, study in self.studies.items():
            try:
                action(name, study)
            except MonaiFairError as error:
                failures[name] = error
        if failures:
            raise MonaiFairError("\n".join(f"{name}: {error}" for name, error in failures.items()))
