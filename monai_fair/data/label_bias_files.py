"""From a manifest to one in which positive labels of a group are turned to negative, with the clean labels beside."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.data.artifacts import sha256
from monai_fair.data.builder import BuiltManifest, write_manifest
from monai_fair.data.crosstables import cross_tables, small_cells
from monai_fair.data.label_bias import (
    BiasMethod,
    biased_parts,
    group_name,
    group_rows,
    inject_label_bias,
    label_bias_problems,
)
from monai_fair.data.manifest import Manifest, read_manifest, recorded_num_classes
from monai_fair.data.predictions import SPLITS
from monai_fair.data.tables import write_table
from monai_fair.errors import ManifestError, raise_problems


def biased_manifest(
    manifest: Manifest,
    group: Mapping[str, str],
    *,
    rate: float,
    method: BiasMethod = "exact",
    parts: Sequence[str] | None = None,
    seed: int = 0,
) -> BuiltManifest:
    """Return the manifest with biased labels in ``label`` and the labels as they were in ``clean_label`` behind it.

    Rows keep their order and other cells. ``clean_label`` is no attribute: readers hand it on with every image, so that
    what is mislabelled can be told.

    Args:
        manifest: checked, of two classes, with ``split``.
        group: attribute to value, see :func:`inject_label_bias`, as the following.
        rate: share of the eligible rows.
        method: ``exact`` or ``bernoulli``.
        parts: parts whose labels may change.
        seed: of the draw.

    Returns:
        Table and record for :func:`monai_fair.data.write_manifest`. The record's ``label_bias`` has what was asked,
        and per split its rows, those of the group and without its attributes, the eligible and the changed ones, and
        the positive rates of all rows and of the group before and after; ``cross_tables`` are of ``before`` and
        ``after``.

    Raises:
        ManifestError: with every problem of the manifest and the options.
    """
    if manifest.num_classes != 2:
        raise ManifestError(
            f"{manifest.source}: expected two classes, of which one can be missed, got {manifest.num_classes}"
        )
    table = manifest.table
    wanted = {str(name): str(value) for name, value in group.items()}  # a YAML file may have numbers
    problems = label_bias_problems(table, wanted, rate=rate, method=method, parts=parts)
    raise_problems(ManifestError, manifest.source, problems)
    changed = inject_label_bias(table, wanted, rate=rate, method=method, parts=parts, seed=seed)
    biased = table.assign(label=table["label"].mask(changed, 0))
    biased.insert(list(biased).index("label") + 1, "clean_label", table["label"])
    asked = {"group": wanted, "rate": rate, "method": method, "parts": biased_parts(table, parts), "seed": seed}
    return BuiltManifest(biased.astype(str), _record(manifest, biased, changed, asked))


def label_changes(biased: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a biased manifest whose label is not the clean one: subject_id, image, old and new."""
    rows = biased[biased["label"].astype(str) != biased["clean_label"].astype(str)]
    columns = {"subject_id": "subject_id", "image": "image", "clean_label": "old", "label": "new"}
    return rows[list(columns)].rename(columns=columns).reset_index(drop=True)


def bias_label_files(
    manifest: str | Path,
    out: str | Path,
    *,
    group: Mapping[str, str],
    rate: float,
    method: BiasMethod = "exact",
    parts: Sequence[str] | None = None,
    seed: int = 0,
) -> BuiltManifest:
    """Write a manifest with biased labels, its record, and beside it ``NAME_changes.csv`` with the changed labels.

    Args:
        manifest: CSV with ``label``, ``split`` and the attributes.
        out: the CSV file to write; not the manifest itself.
        group: see :func:`biased_manifest`, as the following.
        rate: share of the eligible rows.
        method: ``exact`` or ``bernoulli``.
        parts: parts whose labels may change.
        seed: of the draw.

    Returns:
        What was written.

    Raises:
        ManifestError: with every problem.
    """
    target = Path(out)
    if target.resolve() == Path(manifest).resolve():
        raise ManifestError(f"{out}: expected another file than the manifest, which would be overwritten; rename it")
    checked = read_manifest(manifest, num_classes=recorded_num_classes(manifest) or 2)
    built = biased_manifest(checked, group, rate=rate, method=method, parts=parts, seed=seed)
    changes = write_table(target.with_name(f"{target.stem}_changes.csv"), label_changes(built.table))
    files = {
        "input": Path(manifest).name,
        "input_sha256": sha256(manifest),
        "changes": changes.name,
        "changes_sha256": sha256(changes),
    }
    built = BuiltManifest(built.table, {**built.record, "label_bias": {**files, **built.record["label_bias"]}})
    write_manifest(built, target)
    return built


def write_biased_labels(
    manifest: str | Path,
    out: str | Path,
    *,
    group: Mapping[str, str],
    rate: float,
    method: BiasMethod = "exact",
    parts: Sequence[str] | None = None,
    seed: int = 0,
) -> str:
    """Do what :func:`bias_label_files` does and return ``out``, for a bundle's configuration."""
    bias_label_files(manifest, out, group=group, rate=rate, method=method, parts=parts, seed=seed)
    return str(out)


def _record(
    manifest: Manifest, biased: pd.DataFrame, changed: npt.NDArray[np.bool_], asked: dict[str, Any]
) -> dict[str, Any]:
    table, group = manifest.table, asked["group"]
    splits = [name for name in SPLITS if (table["split"] == name).any()]
    measured = [_measured(table, biased, changed, group, split) for split in splits]
    tables = {
        when: cross_tables(rows, list(group), intersect=list(group))
        for when, rows in (("before", table), ("after", biased))
    }
    idle = [
        f"{row['split']}: no row of {group_name(group)} with label 1, so that no label is changed there"
        if not row["n_eligible"]
        else f"{row['split']}: none of {row['n_eligible']} labels is changed, too few for a rate of {asked['rate']}"
        for row in measured
        if row["split"] in asked["parts"] and not row["n_changed"] and (asked["rate"] or not row["n_eligible"])
    ]
    return {
        "num_classes": manifest.num_classes,
        "label_bias": {**asked, "measured": measured},
        "n": len(table),
        "n_subjects": int(table["subject_id"].nunique()),
        "cross_tables": tables,
        "warnings": idle + [f"under 10 of a class: {cell}" for cell in small_cells(tables["after"])],
    }


def _measured(
    before: pd.DataFrame, after: pd.DataFrame, changed: npt.NDArray[np.bool_], group: Mapping[str, str], split: str
) -> dict[str, Any]:
    """Count one split; a positive rate without rows is null in the record, with n beside it."""
    inside, members = (before["split"] == split).to_numpy(), group_rows(before, group)
    missing = (before[list(group)] == "").any(axis=1).to_numpy()
    found = {
        "split": split,
        "n": int(inside.sum()),
        "n_missing": int((inside & missing).sum()),
        "n_group": int((inside & members).sum()),
        "n_eligible": int((inside & members & (before["label"] == 1).to_numpy()).sum()),
        "n_changed": int((inside & changed).sum()),
    }
    for when, table in (("before", before), ("after", after)):
        found[f"prevalence_{when}"] = float(table.loc[inside, "label"].mean())
        found[f"group_prevalence_{when}"] = float(table.loc[inside & members, "label"].mean())
    return found
