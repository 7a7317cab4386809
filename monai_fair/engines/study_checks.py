"""What a study of attributes is given, and data from elsewhere: refused before anything is trained on or scored."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.data import (
    Manifest,
    attribute_codes,
    load_datalist,
    read_manifest,
    recorded_num_classes,
    with_attribute_codes,
)
from monai_fair.errors import ManifestError

_LEARNED = ("train", "val")
_SHOWN = 3


def check_attributes(
    manifests: Sequence[str | Path],
    dataset_dir: str | Path,
    attributes: Mapping[str, Sequence[str] | str | None],
    *,
    missing_attributes: bool = False,
    external: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Refuse attributes that the last training, or the scoring of other data, could not take.

    Args:
        manifests: of the study, one for each fold.
        dataset_dir: data root that their image paths start from.
        attributes: see :func:`monai_fair.data.attribute_codes`.
        missing_attributes: whether networks are told that an attribute is missing.
        external: name to ``manifest`` and ``dataset_dir`` of other data.

    Raises:
        ManifestError: with what is wrong with the attributes, or if other data hold rows that are learned from.
    """
    for manifest in manifests:
        num_classes = recorded_num_classes(manifest) or 2
        codes = attribute_codes(load_datalist(manifest, dataset_dir, "train", num_classes=num_classes), attributes)
        rows = load_datalist(manifest, dataset_dir, num_classes=num_classes)
        with_attribute_codes(rows, codes, missing="told" if missing_attributes else "error")
        for data in (external or {}).values():
            other = external_rows(data["manifest"], data["dataset_dir"], trained_on=manifest, num_classes=num_classes)
            with_attribute_codes(other, codes, unseen="missing")


def external_rows(
    manifest: str | Path, dataset_dir: str | Path, *, trained_on: str | Path, num_classes: int = 2
) -> list[dict[str, Any]]:
    """Return every row of the manifest of other data, whatever its split.

    Args:
        manifest: of the other data.
        dataset_dir: data root that its image paths start from.
        trained_on: the manifest of the training.
        num_classes: number of classes of the label.

    Returns:
        Rows of :func:`monai_fair.data.load_datalist`.

    Raises:
        ManifestError: if a row is one that the model was trained or chosen on, by subject and image or by content.
    """
    own, other = (read_manifest(path, num_classes=num_classes) for path in (trained_on, manifest))
    part = own.table[own.part].astype(str)
    learned = _names(own, part.isin(_LEARNED) if own.part == "split" else part.notna())
    told = _names(other, pd.Series(True, index=other.table.index))
    if known := [name for name in told if name in learned]:
        raise ManifestError(
            f"{manifest}: expected rows that no model learned from, {len(known)} stand in train or val of "
            f"{trained_on}, such as {', '.join(known[:_SHOWN])}; leave them out"
        )
    return load_datalist(manifest, dataset_dir, num_classes=num_classes)


def _names(manifest: Manifest, rows: pd.Series) -> dict[str, None]:
    """Return what tells an image from others: its subject and path, and its content where that is recorded."""
    table = manifest.table[rows]
    names = [f"{subject} {image}" for subject, image in zip(table["subject_id"], table["image"], strict=True)]
    contents = [digest for digest in table.get("sha256", pd.Series(dtype=str)) if digest]
    return dict.fromkeys([*names, *contents])
