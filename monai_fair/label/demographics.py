"""What is known of a patient: told with a request, kept beside the image, or in a table beside the studies.

Nothing is guessed: what nobody says is missing, and every value says where it is from.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from monai_fair.data import check_manifest
from monai_fair.data.manifest import RESERVED
from monai_fair.data.tables import read_table
from monai_fair.errors import LabelError, raise_problems

_PARTICIPANT = "participant_id"
_NOT_AVAILABLE = "n/a"  # BIDS, for a missing value
_BIDS_SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)(?:_|$)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}")
_LONGEST = 200


@dataclass(frozen=True)
class Known:
    """Attributes of one patient.

    Attributes:
        values: name to value, as text; what is missing is not there.
        sources: name to where its value is from: ``request``, ``datastore``, or the name of the table.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


class Demographics:
    """What a table says of the images' patients.

    Args:
        rows: image id or BIDS subject to attributes; an empty text is missing.
        source: name of the table.
        subjects: image id to subject, where the table tells.
    """

    def __init__(
        self,
        rows: Mapping[str, Mapping[str, str]] | None = None,
        source: str = "",
        *,
        subjects: Mapping[str, str] | None = None,
    ) -> None:
        self.rows, self.source, self.subjects = dict(rows or {}), source, dict(subjects or {})

    @classmethod
    def read(cls, path: str | Path | None, attributes: tuple[str, ...] = ()) -> "Demographics":
        """Read a manifest, whose images are known by file name without its ending, or a BIDS participants.tsv.

        Args:
            path: the file; ``None`` for no table.
            attributes: columns to keep; empty for all.

        Raises:
            LabelError: if it is neither, an attribute is no column of it, or two of its rows speak of one image or
                participant and differ.
        """
        if path is None:
            return cls()
        table = read_table(path, LabelError, "\t" if Path(path).suffix == ".tsv" else ",")
        if _PARTICIPANT in table:
            keys, table = table[_PARTICIPANT], table.drop(columns=_PARTICIPANT).replace(_NOT_AVAILABLE, "")
            subjects = keys
        else:
            kept = table[[name for name in table if name in ("subject_id", "image") or name not in RESERVED]]
            checked = check_manifest(kept, str(path), labelled=False)
            subjects = checked.table["subject_id"]
            keys, table = checked.table["image"].map(image_id_of), checked.table[list(checked.attributes)]
        absent = [name for name in attributes if name not in table]
        columns = ", ".join(map(str, table)) or "none"
        problems = [f"attribute '{name}': expected a column of {columns}; correct the name" for name in absent]
        problems += _ambiguous(keys, table.assign(**{"subject of the row": subjects}))
        raise_problems(LabelError, path, problems)
        table = table[list(attributes)] if attributes else table
        records = table.to_dict("records")
        rows = {
            str(key): {str(name): str(value) for name, value in row.items()}
            for key, row in zip(keys, records, strict=True)
        }
        return cls(rows, Path(path).name, subjects=dict(zip(keys, subjects, strict=True)))

    @property
    def attributes(self) -> tuple[str, ...]:
        """Columns of the table."""
        return tuple(next(iter(self.rows.values()), {}))

    def of(self, image_id: str, *, stored: Mapping[str, Any] | None = None, told: Any = None) -> Known:
        """Return what is known of an image's patient.

        Args:
            image_id: of the datastore; a table has it, or its beginning ``sub-XX`` as BIDS names files.
            stored: what the datastore keeps of the image; its key ``attributes`` is read.
            told: with the request; beats ``stored``, which beats the table. An empty text says that the value is not
                known, whatever the others say.

        Raises:
            LabelError: if ``told`` or what is stored is no mapping of names to text, numbers or ``None``.
        """
        values: dict[str, str] = {}
        sources: dict[str, str] = {}
        layers = (
            (self.source, self.rows.get(self._key(image_id), {})),
            ("datastore", attribute_values((stored or {}).get("attributes"), "datastore")),
            ("request", attribute_values(told, "request")),
        )
        for source, layer in layers:
            values |= layer
            sources |= dict.fromkeys(layer, source)
        known = {name: value for name, value in values.items() if value != ""}
        return Known(known, {name: sources[name] for name in known})

    def subject(self, image_id: str) -> str:
        """Return who an image shows: the table's subject, else the BIDS subject in its name, else the image itself."""
        found = _BIDS_SUBJECT.match(image_id)
        return self.subjects.get(self._key(image_id), found[1] if found else image_id)

    def _key(self, image_id: str) -> str:
        found = _BIDS_SUBJECT.match(image_id)
        return found[1] if found and image_id not in self.rows else image_id


def image_id_of(image: str) -> str:
    """Return the id that MONAI Label gives an image file: its name without ``.nii.gz`` or the last ending."""
    name = PurePosixPath(image).name
    return name.removesuffix(".nii.gz") if name.endswith(".nii.gz") else PurePosixPath(name).stem


def attribute_values(given: Any, source: str) -> dict[str, str]:
    """Return attributes as text.

    Args:
        given: name to text, number, truth value or ``None``; ``None`` for nothing.
        source: who gave them; opens the error.

    Raises:
        LabelError: with every name and value that is none.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise LabelError(f"{source}: attributes: expected names and values such as {{'sex': 'female'}}, got {given!r}")
    raise_problems(LabelError, source, _attribute_problems(given))
    return {name: "" if value is None else str(value).strip() for name, value in given.items()}


def _attribute_problems(given: Mapping[Any, Any]) -> Iterator[str]:
    for name, value in given.items():
        if not isinstance(name, str) or _NAME.fullmatch(name) is None or name in RESERVED:
            yield f"attributes: expected a name such as sex or age_group, got {str(name)[:_LONGEST]!r}; correct it"
        elif not (value is None or isinstance(value, str | int | float)) or len(str(value)) > _LONGEST:
            shown = str(value)[:_LONGEST]
            yield f"attributes, '{name}': expected a text of at most {_LONGEST} letters or a number, got {shown!r}"


def _ambiguous(keys: pd.Series, table: pd.DataFrame) -> list[str]:
    """Say which keys have rows that differ; lines are those of the file."""
    distinct = table.assign(key=keys).drop_duplicates()
    twice = distinct[distinct["key"].duplicated(keep=False)]
    return [
        f"lines {' and '.join(str(line + 2) for line in rows.index)}: expected one row for '{key}', got rows that "
        "differ; give the image files names that differ, or leave a row out"
        for key, rows in twice.groupby("key", sort=False)
    ]
