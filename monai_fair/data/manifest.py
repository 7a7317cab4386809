"""``manifest.csv``: one row per image, read as text and checked as a whole.

Columns: ``subject_id`` (letters, digits, ``_``, ``.``, ``-``), ``image`` (path under the data root), ``label``
(class index), ``split`` (train, val, test) or ``fold`` (a number); optionally ``image_id``, ``sha256``, ``weight`` and
``clean_label`` (the label before :func:`monai_fair.data.biased_manifest` changed it; equal to ``label`` in test). Every
other column is an attribute; an empty cell is a missing value.
"""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd

from monai_fair.data.artifacts import read_json
from monai_fair.data.predictions import SPLITS, is_score_column
from monai_fair.data.splits import subjects_in_several_parts
from monai_fair.data.tables import describe_cells, read_table
from monai_fair.errors import ManifestError, raise_problems

RESERVED = ("subject_id", "image", "label", "split", "fold", "image_id", "sha256", "weight", "clean_label")
_BATCH_KEYS = ("pred", "row", "attributes")  # keys that MONAI engines and our handlers use in a batch
_CLASS = re.compile(r"0|[1-9][0-9]{0,17}")
_SUBJECT = re.compile(r"[A-Za-z0-9_.-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    """A checked manifest.

    Attributes:
        table: text, but ``label`` and ``clean_label`` (int) and ``weight`` (float), each when there is one.
        attributes: attribute columns, in file order.
        source: the file it came from.
        num_classes: number of classes of ``label``.
    """

    table: pd.DataFrame
    attributes: tuple[str, ...]
    source: str
    num_classes: int

    @property
    def part(self) -> str:
        """The column that names the part: ``split``, or ``fold`` when there is no ``split``."""
        return "split" if "split" in self.table else "fold"


def read_manifest(path: str | Path, *, num_classes: int = 2, labelled: bool = True) -> Manifest:
    """Read and check a manifest.

    Args:
        path: the CSV file.
        num_classes: labels must be 0 to ``num_classes - 1``.
        labelled: ask for ``label`` and ``split`` (or ``fold``); without it both may be absent, as for images
            that only go through inference.

    Returns:
        The checked manifest.

    Raises:
        ManifestError: with every problem of the file, by line and column.
    """
    table = read_table(path, ManifestError)
    return check_manifest(table, str(path), num_classes=num_classes, labelled=labelled)


def recorded_num_classes(path: str | Path) -> int | None:
    """Return the number of classes in the record beside a manifest, or ``None`` when there is no record.

    Raises:
        ArtifactError: if the file beside it is not the record of a manifest.
    """
    record = Path(path).with_suffix(".json")
    return int(read_json(record, "manifest")["num_classes"]) if record.is_file() else None


def check_manifest(table: pd.DataFrame, source: str, *, num_classes: int = 2, labelled: bool = True) -> Manifest:
    """Check a table of text against the contract and convert it; see :func:`read_manifest`."""
    required = ["subject_id", "image", *(["label"] if labelled else [])]
    problems = [f"expected a column '{name}', found none; add it" for name in required if name not in table]
    if labelled and "split" not in table and "fold" not in table:
        problems.append("expected a column 'split' (train, val, test) or 'fold' (a number), found none; add it")
    clash = [name for name in _BATCH_KEYS if name in table]
    problems += [f"column '{name}' has a name that training needs for itself; rename it" for name in clash]
    clash = [str(name) for name in table if name == "threshold" or is_score_column(str(name))]
    problems += [f"column '{name}' has a name that tables of predictions need; rename it" for name in clash]
    if not len(table):
        problems.append("expected at least one row, got none")
    raise_problems(ManifestError, source, problems)

    for column, expected, bad in _rules(table, num_classes):
        problems += describe_cells(table, column, bad, expected)
    part = "split" if "split" in table else "fold"
    if part in table:
        leaks = subjects_in_several_parts(table, part)
        problems += [f"subject '{who}' stands in {' and '.join(parts)}; put it in one" for who, parts in leaks.items()]
    raise_problems(ManifestError, source, problems)

    converted = table.copy()
    for column, kind in (("label", np.int64), ("clean_label", np.int64), ("weight", np.float64)):
        if column in table:
            converted[column] = pd.to_numeric(table[column]).astype(kind)
    attributes = tuple(str(name) for name in table.columns if name not in RESERVED)
    return Manifest(converted, attributes, source, num_classes)


def _rules(table: pd.DataFrame, num_classes: int) -> list[tuple[str, str, pd.Series]]:
    """Column, what is expected there, and which rows break it."""
    subject, image = table["subject_id"], table["image"]
    rules = [
        ("subject_id", "letters, digits, '_', '.' or '-' only", ~subject.map(_is_subject)),
        ("image", "a path under the data root, without '..'", ~image.map(is_inside)),
        ("image", "one row per image", image.map(posixpath.normpath).duplicated(keep="first")),
    ]
    rules += _label_rules(table, num_classes)
    if "split" in table:
        rules.append(("split", f"one of {', '.join(SPLITS)}", ~table["split"].isin(SPLITS)))
    elif "fold" in table:
        rules.append(("fold", "a whole number", ~table["fold"].str.fullmatch(r"[0-9]+")))
    if "weight" in table:
        weight = pd.to_numeric(table["weight"], errors="coerce")
        rules.append(("weight", "a positive number", ~(weight > 0) | ~np.isfinite(weight)))
    if "sha256" in table:
        rules.append(("sha256", "64 hexadecimal digits or nothing", ~table["sha256"].map(_is_digest)))
    return rules


def _label_rules(table: pd.DataFrame, num_classes: int) -> list[tuple[str, str, pd.Series]]:
    wanted = "0 or 1" if num_classes == 2 else f"a class index from 0 to {num_classes - 1}"
    # as text: a table that was read before and is checked again has numbers in clean_label
    labels = {name: table[name].astype(str) for name in ("label", "clean_label") if name in table}
    known = {name: text.isin([each for each in text.unique() if _is_class(each, num_classes)])
             for name, text in labels.items()}  # fmt: skip
    rules = [(name, wanted, ~rows) for name, rows in known.items()]
    if len(labels) == 2 and "split" in table:
        differs = known["clean_label"] & (labels["clean_label"] != labels["label"])
        rules.append(("clean_label", "the label itself, as the row is of test", differs & (table["split"] == "test")))
    return rules


def _is_class(text: str, num_classes: int) -> bool:
    return _CLASS.fullmatch(text) is not None and int(text) < num_classes


def _is_subject(text: str) -> bool:
    return _SUBJECT.fullmatch(text) is not None and text.strip(".") != ""


def _is_digest(text: str) -> bool:
    return text == "" or _SHA256.fullmatch(text) is not None


def is_inside(text: str) -> bool:
    """Say whether a path stays under the folder it is relative to: not absolute, no ``..``, not empty."""
    path = PurePosixPath(text)
    absolute = path.is_absolute() or PureWindowsPath(text).drive != "" or text.startswith("\\")
    if text == "" or "\0" in text or absolute:
        return False
    return ".." not in path.parts and ".." not in PureWindowsPath(text).parts


def resolve_inside(root: Path, image: str) -> Path:
    """Return the path of ``image`` under ``root``.

    Raises:
        ManifestError: if the path, with symbolic links followed, leaves ``root``.
    """
    path = root / image
    if not is_inside(image) or not path.resolve().is_relative_to(root.resolve()):
        raise ManifestError(f"image '{image}': expected a path under {root}, but it leads outside; move the file")
    return path


def load_datalist(
    manifest: str | Path,
    dataset_dir: str | Path,
    split: str | int | Sequence[str | int] | None = None,
    *,
    num_classes: int = 2,
    labelled: bool = True,
) -> list[dict[str, Any]]:
    """Read a manifest as MONAI's list of dicts, the input of ``monai.data.Dataset``.

    Args:
        manifest: path of the manifest.
        dataset_dir: data root that the image paths start from.
        split: part or parts to keep, such as ``"train"``, ``["val", "test"]`` or fold ``0``; ``None`` keeps all rows.
        num_classes: number of classes of the label.
        labelled: ask for labels and splits, see :func:`read_manifest`.

    Returns:
        Per image: ``image`` (path to load), ``row`` (line of the manifest, from 0), ``subject_id``,
        ``attributes`` (dict of text) and, when the manifest has them, ``split``, ``label``, ``clean_label`` and
        ``weight``. Where ``clean_label`` differs from ``label`` the image is mislabelled on purpose.

    Raises:
        ManifestError: if the manifest breaks its contract, with every path that leaves the root, or with every part
            that is empty.
    """
    checked = read_manifest(manifest, num_classes=num_classes, labelled=labelled)
    table = checked.table
    if split is not None:
        table = _parts(checked, [split] if isinstance(split, str | int) else split)
    paths = _paths(table["image"], Path(dataset_dir), manifest)
    extra = [name for name in ("split", "label", "clean_label", "weight") if name in table]
    columns = {name: table[name].tolist() for name in ("subject_id", *extra, *checked.attributes)}
    return [
        {
            "image": paths[place],
            "row": int(row),
            "subject_id": columns["subject_id"][place],
            "attributes": {name: columns[name][place] for name in checked.attributes},
            **{name: columns[name][place] for name in extra},
        }
        for place, row in enumerate(table.index)
    ]


def _parts(manifest: Manifest, wanted: Sequence[str | int]) -> pd.DataFrame:
    """Keep the rows of the wanted parts; a part without rows is an error, and so is an empty list of parts."""
    part, names = manifest.part, [str(name) for name in wanted]
    sizes: dict[Any, int] = manifest.table[part].value_counts().to_dict() if part in manifest.table else {}
    found = ", ".join(f"{name} {count}" for name, count in sizes.items()) or "no such column"
    problems = [f"expected rows with {part} '{name}', got none; found {found}" for name in names if name not in sizes]
    if not names:
        problems = [f"expected at least one {part} to keep, got an empty list; leave it out to keep all rows"]
    raise_problems(ManifestError, manifest.source, problems)
    return manifest.table[manifest.table[part].isin(names)]


def _paths(images: pd.Series, root: Path, source: str | Path) -> list[str]:
    """Resolve every image under the root, and name all that lead outside."""
    paths, problems = [], []
    for image in images:
        try:
            paths.append(str(resolve_inside(root, image)))
        except ManifestError as error:
            problems.append(str(error))
    raise_problems(ManifestError, source, problems)
    return paths
