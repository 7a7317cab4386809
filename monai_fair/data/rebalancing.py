"""Training rows re-balanced so that the label tells nothing about the subgroup: as weights, or as rows drawn again.

A cell is the rows of one label in one subgroup. Weights and draws can change how much a cell counts, not fill an
empty one: :func:`cell_deficits` says what augmentation would have to add.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.data.artifacts import fingerprint
from monai_fair.data.builder import BuiltManifest
from monai_fair.data.manifest import Manifest, check_manifest
from monai_fair.data.tables import table_sha256
from monai_fair.errors import ManifestError, MonaiFairError, raise_problems

Target = Literal["largest", "smallest", "equal_total"]
_MISSING = "missing"  # what cross-tables call the group of rows without a value
_SHOWN = 5  # subjects named in a message; the rest is counted


def balancing_weights(label: npt.ArrayLike, subgroup: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return Kamiran and Calders' weight of every row: ``P(y) P(s) / P(y, s)`` of its label y and subgroup s.

    1 for all rows where label and subgroup are independent; rows of a rare combination weigh more. Weighted, label
    and subgroup are independent, each label and each subgroup keeps its share, and the mean weight is 1. That needs
    every cell filled. No weight can stand in for the rows of an empty cell: the other cells keep their formula, and
    the mean is then ``1 - sum of P(y) P(s)`` over the empty cells.

    Args:
        label: class of every row, shape ``(n,)``.
        subgroup: its subgroup, of any values that sort, shape ``(n,)``; for responsibilities, the largest of a row.

    Returns:
        Positive weights, shape ``(n,)``.

    Raises:
        MonaiFairError: if there is no row, the lengths differ, or a value is missing.

    References:
        Kamiran and Calders, Data preprocessing techniques for classification without discrimination, KAIS 2012,
        doi:10.1007/s10115-011-0463-8 (reweighing).
    """
    cells = _cells(label, subgroup)
    counts = cells.counts
    independent = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    return np.asarray(independent.ravel()[cells.of_row] / counts.ravel()[cells.of_row])


def resample_cells(
    label: npt.ArrayLike, subgroup: npt.ArrayLike, *, seed: int, target: Target = "largest"
) -> npt.NDArray[np.int64]:
    """Return rows, drawn so that every cell that has any is equally large; for a sampler.

    Within a cell every row is drawn equally often, and chance decides which ones are drawn once more to come out
    even. An empty cell stays empty.

    Args:
        label: class of every row, shape ``(n,)``.
        subgroup: its subgroup, shape ``(n,)``.
        seed: of the draws.
        target: size of a cell: ``"largest"`` repeats rows up to the largest cell, ``"smallest"`` leaves rows out
            down to the smallest, ``"equal_total"`` gives each of C cells ``n // C`` rows, so that an epoch stays as
            long as it was (less at most ``C - 1`` rows).

    Returns:
        Row numbers in rising order, shape ``(filled cells * size,)``; shuffle them before training.

    Raises:
        MonaiFairError: if there is no row, the lengths differ, a value is missing, or the target is unknown.
    """
    cells = _cells(label, subgroup)
    sizes = cells.counts[cells.counts > 0]
    wanted = {"largest": sizes.max(), "smallest": sizes.min(), "equal_total": sizes.sum() // sizes.size}
    if target not in wanted:
        raise MonaiFairError(f"target: expected one of {', '.join(wanted)}, got {target!r}")
    rng = np.random.default_rng(seed)
    drawn = []
    for cell in np.flatnonzero(cells.counts):
        members = np.flatnonzero(cells.of_row == cell)
        whole, rest = divmod(int(wanted[target]), members.size)
        drawn += [np.repeat(members, whole), rng.choice(members, rest, replace=False)]
    return np.sort(np.concatenate(drawn))


def cell_deficits(label: npt.ArrayLike, subgroup: npt.ArrayLike) -> pd.DataFrame:
    """Say how many rows every cell lacks to be as large as the largest: what augmentation is to fill.

    Args:
        label: class of every row, shape ``(n,)``.
        subgroup: its subgroup, shape ``(n,)``.

    Returns:
        One row per label and subgroup, empty cells too: ``label``, ``subgroup``, ``n``, ``deficit``.

    Raises:
        MonaiFairError: if there is no row, the lengths differ, or a value is missing.
    """
    cells = _cells(label, subgroup)
    table = _cell_names(cells)
    return table.assign(n=cells.counts.ravel(), deficit=(cells.counts.max() - cells.counts).ravel())


def rebalanced_manifest(
    manifest: Manifest,
    subgroups: Mapping[str, Any],
    *,
    method: Literal["weights", "resample"] = "weights",
    missing: Literal["error", "drop", "group"] = "error",
    seed: int = 0,
) -> BuiltManifest:
    """Return the manifest with two last columns: ``subgroup``, and a ``weight`` that balances the training rows' cells.

    ``subgroup`` is an attribute, so that an audit compares by it; it is empty where a subject has none. Rows of ``val``
    and ``test`` keep every cell and their order, and weigh 1. Cells are counted in rows: a subject with several images
    counts as often. A manifest has one row per image, so rows are never repeated in it.

    Args:
        manifest: checked, with ``label`` and ``split``.
        subgroups: subject to its subgroup, taken as text; subjects of ``val`` and ``test`` may be among them.
        method: ``"weights"`` of :func:`balancing_weights`; or ``"resample"``, how often :func:`resample_cells`
            draws the row up to the largest cell, from 1 on: a loss weighted so equals one over repeated rows.
        missing: what to do with training subjects without a subgroup (absent, empty or NaN): ``"error"``,
            ``"drop"`` their rows, or put them in a ``"group"`` of their own, named ``missing``.
        seed: of ``"resample"``; the same seed, manifest and subgroups give the same table.

    Returns:
        Table and record for :func:`monai_fair.data.write_manifest`. The record's ``rebalancing`` has method, seed,
        hashes of what came in (``input_sha256`` is that of the file, where this package wrote it), and per cell
        ``n_before``, ``n_subjects`` and ``weight_after``; ``effective_n`` is Kish's effective number of rows.

    Raises:
        ManifestError: if the manifest has no label, split or training row or has weights or subgroups already, if a
            subject is unknown or has no subgroup, or if an option is unknown; with every problem.
    """
    text = {str(subject): str(group) for subject, group in subgroups.items() if not pd.isna(group) and str(group)}
    problems = _option_problems(method, missing) + _manifest_problems(manifest)
    raise_problems(ManifestError, manifest.source, problems)
    table = manifest.table
    training = table["split"] == "train"
    group = table["subject_id"].map(text)
    without = training & group.isna()
    raise_problems(ManifestError, manifest.source, _subject_problems(table, subgroups, text, without, missing))

    kept = ~without if missing == "drop" else pd.Series(True, index=table.index)
    train = training & kept
    label, subgroup = table.loc[train, "label"].to_numpy(), group[train].fillna(_MISSING).to_numpy(dtype=str)
    if not label.size:
        raise ManifestError(f"{manifest.source}: expected training subjects with a subgroup, got none; check the ids")
    weight = pd.Series(1.0, index=table.index)
    weight[train] = _train_weights(label, subgroup, method, seed)
    # every column as text; a label has one way to be written, so it comes back as it was
    written = [str(value) for value in weight.tolist()]
    balanced = table.assign(label=table["label"].astype(str), subgroup=group.fillna("").astype(str), weight=written)
    balanced = balanced[kept].reset_index(drop=True)
    check_manifest(balanced, manifest.source, num_classes=manifest.num_classes)
    rebalancing = {
        "method": method,
        "missing": missing,
        "seed": seed,
        "input": PurePath(manifest.source).name,
        "input_sha256": table_sha256(table),
        "subgroups_sha256": fingerprint(text),
        **_cell_record(label, subgroup, table.loc[train, "subject_id"].to_numpy(), weight[train].to_numpy()),
    }
    return BuiltManifest(balanced, _record(manifest, balanced, rebalancing, table.loc[~kept, "subject_id"]))


@dataclass(frozen=True)
class _Cells:
    """Labels L and subgroups S in order, rows per cell ``(L, S)``, and the cell of every row in the flat table."""

    labels: npt.NDArray[Any]
    subgroups: npt.NDArray[Any]
    counts: npt.NDArray[np.int64]
    of_row: npt.NDArray[np.int64]


def _cells(label: npt.ArrayLike, subgroup: npt.ArrayLike) -> _Cells:
    y, s = np.asarray(label), np.asarray(subgroup)
    if y.ndim != 1 or y.shape != s.shape or not y.size:
        raise MonaiFairError(f"expected one label and one subgroup per row, got shapes {y.shape} and {s.shape}")
    absent = int((pd.isna(y) | pd.isna(s)).sum())
    if absent:
        raise MonaiFairError(
            f"expected a label and a subgroup in every row, {absent} of {y.size} lack one; leave them out"
        )
    labels, row = np.unique(y, return_inverse=True)
    subgroups, column = np.unique(s, return_inverse=True)
    of_row = row * subgroups.size + column
    counts = np.bincount(of_row, minlength=labels.size * subgroups.size).reshape(labels.size, subgroups.size)
    return _Cells(labels, subgroups, counts, of_row)


def _cell_names(cells: _Cells) -> pd.DataFrame:
    rows, columns = np.indices(cells.counts.shape).reshape(2, -1)
    return pd.DataFrame({"label": cells.labels[rows], "subgroup": cells.subgroups[columns]})


def _train_weights(
    label: npt.NDArray[Any], subgroup: npt.NDArray[Any], method: str, seed: int
) -> npt.NDArray[np.float64]:
    if method == "weights":
        return balancing_weights(label, subgroup)
    return np.bincount(resample_cells(label, subgroup, seed=seed), minlength=label.size).astype(np.float64)


def _option_problems(method: str, missing: str) -> list[str]:
    choices = {"method": (method, ("weights", "resample")), "missing": (missing, ("error", "drop", "group"))}
    return [
        f"{name}: expected one of {', '.join(known)}, got {value!r}"
        for name, (value, known) in choices.items()
        if value not in known
    ]


def _manifest_problems(manifest: Manifest) -> list[str]:
    table = manifest.table
    problems = [f"expected a column '{name}', found none; add it" for name in ("label", "split") if name not in table]
    problems += [
        f"expected no column '{name}', it would be overwritten; remove it"
        for name in ("subgroup", "weight")
        if name in table
    ]
    if "split" in table and not (table["split"] == "train").any():
        problems.append("expected rows with split 'train', got none")
    return problems


def _subject_problems(
    table: pd.DataFrame, subgroups: Mapping[str, Any], text: Mapping[str, str], without: "pd.Series[bool]", missing: str
) -> list[str]:
    problems = []
    if unknown := sorted(set(map(str, subgroups)) - set(table["subject_id"])):
        problems.append(f"expected subgroups of its own subjects, {len(unknown)} are not in it: {_some(unknown)}")
    lacking = sorted(set(table.loc[without, "subject_id"]))
    if lacking and missing == "error":
        problems.append(
            f"expected a subgroup for every training subject, {len(lacking)} have none: {_some(lacking)}; "
            "add them, or choose missing='drop' or 'group'"
        )
    if lacking and missing == "group" and _MISSING in text.values():
        problems.append(f"expected no subgroup named '{_MISSING}', it names those without one; rename it")
    return problems


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _cell_record(
    label: npt.NDArray[Any], subgroup: npt.NDArray[Any], subjects: npt.NDArray[Any], weight: npt.NDArray[Any]
) -> dict[str, Any]:
    cells = _cells(label, subgroup)
    rows = pd.DataFrame({"cell": cells.of_row, "subject": subjects, "weight": weight})
    table = _cell_names(cells).assign(
        n_before=cells.counts.ravel(),
        n_subjects=rows.groupby("cell")["subject"].nunique().reindex(range(cells.counts.size), fill_value=0),
        weight_after=np.bincount(cells.of_row, weights=weight, minlength=cells.counts.size),
    )
    return {"cells": table.to_dict("records"), "effective_n": float(weight.sum() ** 2 / (weight**2).sum())}


def _record(
    manifest: Manifest, balanced: pd.DataFrame, rebalancing: dict[str, Any], dropped: "pd.Series[str]"
) -> dict[str, Any]:
    gone = {"reason": "no subgroup", "n": len(dropped), "subject_id": dropped.drop_duplicates().tolist()}
    empty = [cell for cell in rebalancing["cells"] if not cell["n_before"]]
    return {
        "num_classes": manifest.num_classes,
        "rebalancing": rebalancing,
        "dropped": [gone] if len(dropped) else [],
        "n": len(balanced),
        "n_subjects": int(balanced["subject_id"].nunique()),
        "warnings": [
            f"no training row of label {cell['label']} in subgroup '{cell['subgroup']}': "
            "re-balancing cannot make label and subgroup independent there"
            for cell in empty
        ],
    }
