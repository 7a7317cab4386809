"""What a folder holds of a simulated cohort: nothing, a start, or all of it.

A run first leaves a start mark, which names its parameters, then writes its files, and its record last. So an
unfinished folder is seen as one, and the same call goes on where it stopped.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fair.data.artifacts import fingerprint, read_json, write_json
from monai_fair.errors import ArtifactError


@dataclass(frozen=True)
class CohortFolder:
    """The start mark and the record of one kind of cohort.

    Attributes:
        kind: kind of the record, such as ``simulated_skin``; the start mark is named after it.
        record: name of the record, the last file that a run writes.
    """

    kind: str
    record: str

    def check(self, folder: Path, parameters: dict[str, Any]) -> bool:
        """Say whether ``folder`` holds a finished cohort of these ``parameters``.

        Returns:
            True if it does; False if it is missing, empty, or holds an unfinished one of the same parameters.

        Raises:
            ArtifactError: if it is a file, or holds anything else.
        """
        if not folder.exists():
            return False
        if not folder.is_dir():
            raise ArtifactError(f"{folder}: expected a folder, got a file; give another path")
        for path, kind in ((self._mark(folder), self._mark_kind), (folder / self.record, self.kind)):
            if path.is_file():
                _check_same(folder, read_json(path, kind), parameters)
                return kind == self.kind
        found = sorted(path.name for path in folder.iterdir())
        if found:
            raise ArtifactError(
                f"{folder}: expected an empty folder or a simulated cohort, got a folder with '{found[0]}' "
                f"({len(found)} entries); give another folder"
            )
        return False

    def start(self, folder: Path, parameters: dict[str, Any]) -> None:
        """Leave the start mark, and remove what a killed run has left half-written."""
        write_json(self._mark(folder), self._mark_kind, _named(parameters))
        for leftover in folder.rglob(".*.part"):
            leftover.unlink()

    def finish(self, folder: Path, parameters: dict[str, Any], content: dict[str, Any]) -> None:
        """Write the record, of the ``parameters`` and more ``content``, and remove the start mark."""
        write_json(folder / self.record, self.kind, {**_named(parameters), **content})
        self._mark(folder).unlink()

    @property
    def _mark_kind(self) -> str:
        return f"{self.kind}_started"

    def _mark(self, folder: Path) -> Path:
        return folder / f".{self._mark_kind}.json"


def _named(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"fingerprint": fingerprint(parameters), "parameters": parameters}


def _check_same(folder: Path, document: dict[str, Any], parameters: dict[str, Any]) -> None:
    if document.get("fingerprint") == fingerprint(parameters):
        return
    before, now = (_flat(value) for value in (document.get("parameters", {}), parameters))
    changes = [f"{name} {before.get(name)!r}, now {now[name]!r}" for name in now if before.get(name) != now[name]]
    raise ArtifactError(
        f"{folder}: expected a cohort of the same parameters, got one with {'; '.join(changes)}; "
        "give another folder, or remove this one first"
    )


def _flat(parameters: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in parameters.items() if name != "cohort"}
    return {**rest, **parameters.get("cohort", {})}
