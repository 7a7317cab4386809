"""From a manifest to one whose groups differ in their positive rate by wanted gaps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.data.artifacts import sha256
from monai_fair.data.builder import BuiltManifest, write_manifest
from monai_fair.data.crosstables import cross_tables, small_cells
from monai_fair.data.gap_enlarging import NEAR, Gaps, enlarge_gaps, gap_problems
from monai_fair.data.manifest import Manifest, read_manifest, recorded_num_classes
from monai_fair.errors import ManifestError, MonaiFairError, raise_problems


def enlarged_manifest(
    manifest: Manifest,
    gaps: Gaps,
    *,
    parts: Sequence[str | int] | None = None,
    prevalence: float | None = None,
    seed: int = 0,
) -> BuiltManifest:
    """Return the manifest without the rows that :func:`enlarge_gaps` leaves out; rows that stay keep cells and order.

    Every part is thinned on its own, so that all have the same gaps, and each its own positive rate unless
    ``prevalence`` is given. Rows leave, not patients: a subject stays in its part, with fewer images or none.

    Args:
        manifest: checked, of two classes, with ``split`` or ``fold``.
        gaps: attribute to its named group to the wanted gap, see :func:`enlarge_gaps`.
        parts: those to thin, such as ``["train", "val"]``; by default all. Rows of the others stay.
        prevalence: positive rate wanted in every thinned part; by default as it is there.
        seed: of the draw.

    Returns:
        Table and record for :func:`monai_fair.data.write_manifest`. The record's ``gap_enlarging`` has what was asked,
        and per thinned part every gap before and after, with n of both sides; ``cross_tables`` have n, subjects and
        positive rate of every group and joint group ``before`` and ``after``; ``dropped`` names every image that left.

    Raises:
        ManifestError: with every problem of the options and of every part; or with the gaps that can be reached, of
            every part that cannot have the wanted ones.
    """
    table, part = manifest.table, manifest.part
    # a YAML file may have numbers as names of groups
    gaps = {str(name): {str(group): gap for group, gap in named.items()} for name, named in gaps.items()}
    raise_problems(ManifestError, manifest.source, _manifest_problems(manifest, gaps, parts, prevalence))
    every = _in_order(table[part])
    chosen = every if parts is None else [name for name in every if name in set(map(str, parts))]
    problems = []
    for name in chosen:
        problems += [f"{part} '{name}': {problem}" for problem in _row_problems(table[table[part] == name], gaps)]
    raise_problems(ManifestError, manifest.source, problems)
    kept = pd.Series(True, index=table.index)
    for name in chosen:
        rows = table[table[part] == name]
        try:
            kept[rows.index] = enlarge_gaps(
                rows["label"], rows[list(gaps)], gaps, ids=rows["image"], prevalence=prevalence, seed=seed
            )
        except MonaiFairError as error:
            problems.append(f"{part} '{name}': {error}")
    raise_problems(ManifestError, manifest.source, problems)

    # every column as text; a label has one way to be written, so it comes back as it was
    enlarged = table[kept].astype(str).reset_index(drop=True)
    return BuiltManifest(enlarged, _record(manifest, gaps, chosen, prevalence, seed, kept))


def enlarge_gap_files(
    manifest: str | Path,
    out: str | Path,
    *,
    gaps: Gaps,
    parts: Sequence[str | int] | None = None,
    prevalence: float | None = None,
    seed: int = 0,
) -> BuiltManifest:
    """Write a manifest whose groups differ in their positive rate by wanted gaps; see :func:`enlarged_manifest`.

    Args:
        manifest: CSV with ``label``, ``split`` or ``fold``, and the attributes.
        out: the CSV file to write, with its record beside it; not the manifest itself.
        gaps: see :func:`enlarged_manifest`.
        parts: as well.
        prevalence: as well.
        seed: as well.

    Returns:
        What was written.

    Raises:
        ManifestError: with every problem.
    """
    if Path(out).resolve() == Path(manifest).resolve():
        raise ManifestError(f"{out}: expected another file than the manifest, which would be overwritten; rename it")
    checked = read_manifest(manifest, num_classes=recorded_num_classes(manifest) or 2)
    built = enlarged_manifest(checked, gaps, parts=parts, prevalence=prevalence, seed=seed)
    source = {"input": Path(manifest).name, "input_sha256": sha256(manifest)}
    built = BuiltManifest(built.table, {**built.record, "gap_enlarging": {**source, **built.record["gap_enlarging"]}})
    write_manifest(built, out)
    return built


def _manifest_problems(
    manifest: Manifest, gaps: Gaps, parts: Sequence[str | int] | None, prevalence: float | None
) -> list[str]:
    table = manifest.table
    part = manifest.part if manifest.part in table else "split"
    if absent := [name for name in ("label", part) if name not in table]:
        return [f"expected a column '{name}', found none; add it" for name in absent]
    if manifest.num_classes != 2:
        return [f"expected two classes, whose positive rates can differ, got {manifest.num_classes}"]
    found = _in_order(table[part])
    problems = [] if parts is None or parts else ["parts: expected at least one, got none; leave it out for all"]
    problems += [
        f"parts: expected one of {', '.join(found)}, got '{name}'" for name in parts or () if str(name) not in found
    ]
    recorded = table[list(manifest.attributes)]
    return problems + gap_problems(table["label"], recorded, gaps, ids=table["image"], prevalence=prevalence)


def _row_problems(rows: pd.DataFrame, gaps: Gaps) -> list[str]:
    return gap_problems(rows["label"], rows, gaps, ids=rows["image"])


def _in_order(parts: "pd.Series[str]") -> list[str]:
    """Return the parts that occur: splits as they follow each other, folds by number."""
    known = {"train": 0, "val": 1, "test": 2}
    return sorted(map(str, parts.unique()), key=lambda name: known[name] if name in known else int(name))


def _record(
    manifest: Manifest, gaps: Gaps, parts: list[str], prevalence: float | None, seed: int, kept: "pd.Series[bool]"
) -> dict[str, Any]:
    table, part = manifest.table, manifest.part
    names, after = list(gaps), table[kept]
    measured = [
        _measured(table[table[part] == name], kept, {"split": name, "attribute": attribute, "group": group, "gap": gap})
        for name in parts
        for attribute, named in gaps.items()
        for group, gap in named.items()
    ]
    tables = {
        when: cross_tables(rows, names, intersect=names, part=part)
        for when, rows in (("before", table), ("after", after))
    }
    missed = [
        f"{row['split']}, {row['attribute']}:{row['group']}: wanted {row['wanted']:.3f}, got {row['after']:.3f}; whole "
        "rows come no nearer"
        for row in measured
        if abs(row["after"] - row["wanted"]) > NEAR
    ]
    return {
        "num_classes": manifest.num_classes,
        "gap_enlarging": {
            "gaps": {name: dict(named) for name, named in gaps.items()},
            "parts": parts,
            "prevalence": prevalence,
            "seed": seed,
            "measured": measured,
        },
        "dropped": _dropped(table[~kept], names, part),
        "n": len(after),
        "n_before": len(table),
        "n_subjects": int(after["subject_id"].nunique()),
        "n_subjects_before": int(table["subject_id"].nunique()),
        "cross_tables": tables,
        "warnings": missed + [f"under 10 of a class: {cell}" for cell in small_cells(tables["after"])],
    }


def _measured(rows: pd.DataFrame, kept: "pd.Series[bool]", wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one gap before and after, with n, and the positive rate of the part."""
    found: dict[str, Any] = {}
    for when, left in (("before", rows), ("after", rows[kept[rows.index]])):
        value = left[wanted["attribute"]]
        group, others = left[value == wanted["group"]], left[(value != wanted["group"]) & (value != "")]
        found |= {
            when: float(group["label"].mean() - others["label"].mean()),
            f"n_group_{when}": len(group),
            f"n_others_{when}": len(others),
            f"n_missing_{when}": int((value == "").sum()),
            f"prevalence_{when}": float(left["label"].mean()),
        }
    place = {name: wanted[name] for name in ("split", "attribute", "group")}
    return {**place, "wanted": float(wanted["gap"]), **found}


def _dropped(rows: pd.DataFrame, names: list[str], part: str) -> list[dict[str, Any]]:
    """Name the rows that left, by part, label and joint group; a row without a value is of the group missing."""
    shown = rows[names].astype(str).replace("", "missing")
    joint = [", ".join(values) for values in zip(*(shown[name] for name in names), strict=True)]
    keys: list[npt.NDArray[Any]] = [rows[part].to_numpy(), rows["label"].to_numpy(), np.array(joint, dtype=object)]
    return [
        {
            "reason": f"{name}, label {label}: more than the wanted gaps allow in {group}",
            "n": len(cell),
            "n_subjects": int(cell["subject_id"].nunique()),
            "image": cell["image"].tolist(),
        }
        for (name, label, group), cell in rows.groupby(keys)
    ]
