"""From a manifest to one whose label is membership of a group: what a model learns that tells the group from images."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from monai_fair.data.artifacts import sha256
from monai_fair.data.builder import BuiltManifest, write_manifest
from monai_fair.data.label_bias import group_name, group_problems, group_rows
from monai_fair.data.manifest import Manifest, read_manifest, recorded_num_classes
from monai_fair.data.predictions import SPLITS
from monai_fair.errors import ManifestError, raise_problems


def group_label_manifest(manifest: Manifest, group: Mapping[str, str]) -> BuiltManifest:
    """Return the manifest with membership of a group as its label.

    Args:
        manifest: checked, with ``split``.
        group: attribute to value, such as ``{"sex": "female"}``; a row is of the group if it has all of them.

    Returns:
        Table and record for :func:`monai_fair.data.write_manifest`. ``label`` is 1 in the group and 0 outside; rows
        without one of the attributes are left out, and the record counts them by split. ``clean_label`` and ``weight``
        are left out, for they are about another label.

    Raises:
        ManifestError: with every problem, such as a part that has no row in the group, or none outside.
    """
    wanted = {str(name): str(value) for name, value in group.items()}  # a YAML file may have numbers
    table = manifest.table
    if "split" not in table:
        raise ManifestError(f"{manifest.source}: expected a column 'split', found none; add it")
    raise_problems(ManifestError, manifest.source, group_problems(table, wanted))
    known = (table[list(wanted)] != "").all(axis=1)
    kept = table.drop(columns=["clean_label", "weight"], errors="ignore")
    if "label" not in kept:
        kept.insert(list(kept).index("image") + 1, "label", 0)
    kept = kept.assign(label=group_rows(table, wanted).astype(np.int64))[known]
    counts = {
        part: {
            "n": int((kept["split"] == part).sum()),
            "n_group": int(kept.loc[kept["split"] == part, "label"].sum()),
            "n_left_out": int((~known & (table["split"] == part)).sum()),
        }
        for part in SPLITS
        if (table["split"] == part).any()
    }
    raise_problems(ManifestError, manifest.source, _one_sided(counts, group_name(wanted)))
    record = {"num_classes": 2, "group_label": {"group": wanted, "splits": counts}, "n": len(kept)}
    return BuiltManifest(kept.reset_index(drop=True).astype(str), record)


def write_group_labels(manifest: str | Path, out: str | Path, *, group: Mapping[str, str]) -> str:
    """Write a manifest whose label is membership of a group, with its record beside it.

    Args:
        manifest: CSV with ``split`` and the attributes.
        out: the CSV file to write; not the manifest itself.
        group: see :func:`group_label_manifest`.

    Returns:
        ``out``, for a bundle's configuration.

    Raises:
        ManifestError: with every problem.
    """
    if Path(out).resolve() == Path(manifest).resolve():
        raise ManifestError(f"{out}: expected another file than the manifest, which would be overwritten; rename it")
    checked = read_manifest(manifest, num_classes=recorded_num_classes(manifest) or 2, labelled=False)
    built = group_label_manifest(checked, group)
    source = {"input": Path(manifest).name, "input_sha256": sha256(manifest)}
    record = {**built.record, "group_label": {**source, **built.record["group_label"]}}
    write_manifest(BuiltManifest(built.table, record), Path(out))
    return str(out)


def _one_sided(counts: Mapping[str, Mapping[str, int]], name: str) -> Iterator[str]:
    for part, n in counts.items():
        outside = n["n"] - n["n_group"]
        if not n["n_group"] or not outside:
            yield (
                f"{part}: expected rows in and outside of {name}, got {n['n_group']} in, {outside} outside and "
                f"{n['n_left_out']} without its attributes; choose another group, or split anew"
            )
