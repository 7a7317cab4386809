"""Folds of a manifest for cross-validation: one manifest per fold, in which it is ``val`` and the others ``train``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.data.artifacts import read_json, sha256, write_json
from monai_fair.data.builder import BuiltManifest, write_manifest
from monai_fair.data.manifest import Manifest, check_manifest, recorded_num_classes
from monai_fair.data.predictions import SPLITS
from monai_fair.data.splits import split_by_subject, subjects_in_several_parts
from monai_fair.data.tables import read_table, table_sha256
from monai_fair.errors import ArtifactError, ManifestError, SplitError, raise_problems

_RECORD = "folds.json"
_STRATA = ["label"]


def write_folds(manifest: str | Path, out: str | Path, *, folds: int = 5, seed: int = 0) -> list[str]:
    """Write one manifest per fold: ``out/fold_0.csv`` and so on, each with its record, and ``out/folds.json``.

    The rows of test are test in every one. The others are dealt to folds by subject, evenly by label: in ``fold_k.csv``
    fold k is ``val`` and the rest ``train``, whatever they were before. Where the manifest has a column ``fold`` it is
    used as it is. Rows keep their order and cells; the column ``fold`` has the fold of each, empty in test, so that
    ``fold_k.csv`` has the same folds again. Paths stay relative to the data root. What is there already with the same
    content stays, so that a study may call this each time.

    Every training part needs rows of every class, for the loss; every ``val`` too, for thresholds and for the choice of
    an epoch. A class that is absent from test is a warning in the record.

    Args:
        manifest: CSV with ``label`` and ``split``.
        out: folder to write to.
        folds: number of folds; of a column ``fold``, how many it has, numbered from 0.
        seed: of the dealing; the same seed and subjects give the same folds, in whatever order the rows come.

    Returns:
        Paths of the manifests, in the order of folds.

    Raises:
        ManifestError: if the manifest breaks its contract.
        SplitError: with every reason why there are no such folds.
        ArtifactError: if the folder has folds of another manifest, number or seed, or changed ones; each by name.
    """
    text = read_table(manifest, ManifestError)
    checked = check_manifest(text, str(manifest), num_classes=recorded_num_classes(manifest) or 2)
    raise_problems(SplitError, manifest, _problems(checked.table, folds))
    number = _numbers(checked.table, folds, seed)
    splits = [_split(number, fold) for fold in range(folds)]
    parts = [_parts(checked, split) for split in splits]
    remedy = "correct the column 'fold'" if "fold" in text else "take fewer folds"
    raise_problems(SplitError, manifest, [f"{absent}; {remedy}" for absent in _absent_classes(parts)])
    how = {
        "input": Path(manifest).name,
        "input_sha256": sha256(manifest),
        **({"from": "column fold"} if "fold" in text else {"from": "subjects", "stratify": _STRATA, "seed": seed}),
        "folds": folds,
        "num_classes": checked.num_classes,
    }
    return _write(Path(out), [_with_folds(text, split, number) for split in splits], parts, how)


def _problems(table: pd.DataFrame, folds: int) -> list[str]:
    problems = []
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        problems.append(f"folds: expected a whole number from 2 on, got {folds!r}")
    if "split" not in table:
        return [*problems, "expected a column 'split', because rows of test are in no fold, found none; add it"]
    others = table[table["split"] != "test"]
    if len(others) == len(table):
        problems.append("expected rows with split 'test', which are in no fold, got none; say which these are")
    if "fold" in table:
        return problems + _column_problems(others, None if problems else folds)
    subjects = others["subject_id"].nunique()
    if not problems and subjects < folds:
        problems.append(f"expected at least {folds} subjects outside test, got {subjects}; take fewer folds")
    return problems


def _column_problems(others: pd.DataFrame, folds: int | None) -> list[str]:
    """Say what keeps the column ``fold`` of the rows outside test from being used as it is."""
    counts = others["fold"].value_counts().sort_index()
    wanted = list(map(str, range(folds or 0)))
    remedy = "number its folds from 0 and give folds as many, or remove the column"
    problems = []
    if folds is not None:
        problems += [
            f"column 'fold': expected one of {', '.join(wanted)} in every row outside test, got '{value}' in {count} "
            f"rows; {remedy}"
            for value, count in counts.items()
            if value not in wanted
        ]
        problems += [
            f"column 'fold': expected rows of fold {number}, got none; {remedy}"
            for number in wanted
            if number not in counts
        ]
    leaks = subjects_in_several_parts(others[others["fold"] != ""], "fold")
    return problems + [
        f"column 'fold': subject '{who}' stands in {' and '.join(parts)}; put it in one" for who, parts in leaks.items()
    ]


def _numbers(table: pd.DataFrame, folds: int, seed: int) -> "pd.Series[str]":
    """Return the fold of every row as text, empty in test."""
    others = table[table["split"] != "test"]
    if "fold" in table:
        dealt = others["fold"]
    else:
        shares = {str(fold): 1 / folds for fold in range(folds)}
        parts = split_by_subject(others, shares, stratify=_STRATA, seed=seed).set_index("subject_id")["split"]
        dealt = others["subject_id"].map(parts)
    return dealt.astype(str).reindex(table.index, fill_value="")


def _split(number: "pd.Series[str]", fold: int) -> "pd.Series[str]":
    return pd.Series("train", index=number.index).mask(number == str(fold), "val").mask(number == "", "test")


def _with_folds(text: pd.DataFrame, split: "pd.Series[str]", number: "pd.Series[str]") -> pd.DataFrame:
    found = text.assign(split=split)
    if "fold" in found:
        return found.assign(fold=number)
    found.insert(list(found).index("split") + 1, "fold", number)
    return found


def _parts(manifest: Manifest, split: "pd.Series[str]") -> list[dict[str, Any]]:
    """Count rows, subjects and classes of every part."""
    return [
        {
            "split": name,
            "n": len(rows),
            "n_subjects": int(rows["subject_id"].nunique()),
            "n_per_class": [int((rows["label"] == label).sum()) for label in range(manifest.num_classes)],
        }
        for name in SPLITS
        for rows in [manifest.table[split == name]]
    ]


def _absent_classes(folds: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Say which fold can train or validate no network."""
    return [
        f"fold {fold}: expected rows of every class in {part['split']}, got none of class {label}"
        for fold, parts in enumerate(folds)
        for part in parts
        for label, n in enumerate(part["n_per_class"])
        if not n and part["split"] != "test"
    ]


def _write(
    folder: Path, tables: Sequence[pd.DataFrame], parts: Sequence[Sequence[Mapping[str, Any]]], how: Mapping[str, Any]
) -> list[str]:
    """Write what is not there yet, the record last; refuse to change what is there."""
    paths = [folder / f"fold_{fold}.csv" for fold in range(len(tables))]
    digests = [table_sha256(table) for table in tables]
    problems = _changes(folder / _RECORD, how) or [
        f"{path.name}: expected a fold of this manifest, found other content"
        for path, digest in zip(paths, digests, strict=True)
        if path.is_file() and sha256(path) != digest
    ]
    raise_problems(ArtifactError, folder, [f"{problem}; give another folder" for problem in problems])
    for fold, path in enumerate(paths):
        if not (path.is_file() and path.with_suffix(".json").is_file()):
            write_manifest(BuiltManifest(tables[fold], {**how, "fold": fold, "parts": parts[fold]}), path)
    if not (folder / _RECORD).is_file():
        listed = [
            {"fold": fold, "file": path.name, "manifest_sha256": digests[fold], "parts": parts[fold]}
            for fold, path in enumerate(paths)
        ]
        # test is the same in every fold
        absent = [label for label, n in enumerate(parts[0][-1]["n_per_class"]) if not n]
        warnings = [f"test has no row of class {label}: rates of it are undefined there" for label in absent]
        write_json(folder / _RECORD, "folds", {**how, "manifests": listed, "warnings": warnings})
    return [str(path) for path in paths]


def _changes(record: Path, how: Mapping[str, Any]) -> list[str]:
    """Say in what the folds that a folder has differ from those that are to be written."""
    if not record.is_file():
        return []
    known = read_json(record, "folds")
    return [
        f"{record.name}: expected {name} {value!r}, found {known.get(name)!r}"
        for name, value in how.items()
        if name != "input" and known.get(name) != value
    ]
