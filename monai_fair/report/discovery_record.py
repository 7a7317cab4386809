"""A folder of discovered subgroups as the page reads it: the record and the rows, checked before they are shown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.data.artifacts import read_json
from monai_fair.data.tables import read_table
from monai_fair.errors import ArtifactError, raise_problems
from monai_fair.report.quantities import Record

FILES = ("discovery.json", "subgroups.csv")
_KEYS = (
    "n", "n_fitted", "failed", "claimed", "alpha", "candidates", "chosen", "subgroups", "place", "label_association",
    "attribute_associations", "maps",
)  # fmt: skip
_COLUMNS = ("subject_id", "split", "fitted", "subgroup")
_CANDIDATE = (
    "representation", "method", "n_components", "p", "p_holm", "valley_p", "stability", "sizes", "reason"
)  # fmt: skip
_LABEL_ROW = ("subgroup", "n", "n_positive", "prevalence", "odds_ratio", "low", "high", "p", "p_holm", "reason")
_ATTRIBUTE = ("attribute", "n", "n_missing", "measure", "value", "subgroup", "p", "p_holm", "reason")


@dataclass(frozen=True, eq=False)
class FoundSubgroups:
    """What a discovery left in its folder.

    Attributes:
        folder: where it lies.
        record: ``discovery.json``.
        rows: ``subgroups.csv``: text ``subject_id``, ``split`` and ``subgroup``, and ``fitted`` as bool.
    """

    folder: Path
    record: Record
    rows: pd.DataFrame

    @property
    def names(self) -> list[str]:
        """Names of the subgroups, in the order of the record: by falling size."""
        return [str(entry["name"]) for entry in self.record["subgroups"]]

    @property
    def chosen(self) -> Record | None:
        """The candidate that is claimed; None when nothing is."""
        return dict(self.record["candidates"][self.record["chosen"]]) if self.record["claimed"] else None


def read_discovery(folder: str | Path) -> FoundSubgroups:
    """Read ``discovery.json`` and ``subgroups.csv`` of a folder of discovered subgroups.

    Raises:
        ArtifactError: if one is missing or is another file, or with everything that the record lacks.
    """
    root = Path(folder)
    record = read_json(root / FILES[0], "discovery")
    raise_problems(ArtifactError, root / FILES[0], _problems(record))
    rows = read_table(root / FILES[1], ArtifactError)
    problems = [f"expected a column '{name}', found none" for name in _COLUMNS if name not in rows]
    if not problems:
        known = {entry["name"] for entry in record["subgroups"]}
        unknown = sorted(set(rows["subgroup"]) - known)
        problems += [f"expected subgroups of discovery.json, got '{name}'" for name in unknown]
        if len(rows) != record["n"]:
            problems.append(f"expected the {record['n']} rows of discovery.json, got {len(rows)}")
    raise_problems(ArtifactError, root / FILES[1], [f"{problem}; run discover again" for problem in problems])
    return FoundSubgroups(root, record, rows[list(_COLUMNS)].assign(fitted=rows["fitted"] == "1"))


def read_stages(path: str | Path) -> list[Record]:
    """Read the stages of a study: ``name`` and ``seconds`` of each, and ``skipped`` where the file says it.

    Raises:
        ArtifactError: if the file is missing or is another one, or with everything that it lacks.
    """
    stages = read_json(path, "stages").get("stages")
    if not isinstance(stages, list):
        raise ArtifactError(f"{path}: expected a list 'stages', got {type(stages).__name__}; run the study again")
    problems = [
        problem
        for number, stage in enumerate(stages, start=1)
        for problem in _absent(stage, ("name", "seconds"), f"stage {number}")
    ]
    raise_problems(ArtifactError, path, problems)
    return list(stages)


def _problems(record: Mapping[str, Any]) -> Iterator[str]:
    missing = list(_absent(record, _KEYS, ""))
    yield from missing
    if missing:
        return
    for number, candidate in enumerate(record["candidates"], start=1):
        yield from _absent(candidate, _CANDIDATE, f"candidate {number}")
    for number, entry in enumerate(record["subgroups"], start=1):
        yield from _absent(entry, ("name", "n_fitted", "typical"), f"subgroup {number}")
    for split, found in record["label_association"].items():
        lacks = list(_absent(found, ("rows", "overall"), f"label_association {split}"))
        yield from lacks
        for row in () if lacks else found["rows"]:
            yield from _absent(row, _LABEL_ROW, f"label_association {split}")
    for number, row in enumerate(record["attribute_associations"], start=1):
        yield from _absent(row, _ATTRIBUTE, f"attribute association {number}")
    if not record["subgroups"]:
        yield "subgroups: expected at least one, got none; run discover again"
    chosen, last = record["chosen"], len(record["candidates"]) - 1
    if record["claimed"] and not (isinstance(chosen, int) and 0 <= chosen <= last):
        yield f"chosen: expected the number of a candidate, 0 to {last}, got {chosen}; run discover again"


def _absent(found: object, keys: Sequence[str], where: str) -> Iterator[str]:
    opening = f"{where}: " if where else ""
    if not isinstance(found, Mapping):
        yield f"{opening}expected an object with {', '.join(keys)}, got {type(found).__name__}; write it again"
        return
    for key in keys:
        if key not in found:
            yield f"{opening}expected a key '{key}', found none; write it again"
