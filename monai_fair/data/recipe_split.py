"""The part of every row, as a recipe says: dealt by subject, in folds, from a column of the dataset, or from a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.data.artifacts import sha256
from monai_fair.data.derivations import derive
from monai_fair.data.splits import read_split, split_by_subject
from monai_fair.errors import RecipeError, SplitError, raise_problems


def split_rows(
    table: pd.DataFrame, rows: pd.DataFrame, content: Mapping[str, Any], split: str | Path | None, seed: int
) -> pd.Series:
    """Give the part of every row.

    Args:
        table: the manifest so far, with ``subject_id``, ``label`` and the attributes.
        rows: the dataset's rows, in the same order.
        content: a checked recipe. Its ``split`` has ``shares``; or ``folds``, ``test`` and ``fold``: so many equal
            folds of the subjects that are not in the share ``test``, of which number ``fold`` is val and the others
            are train; or ``column`` and ``groups``. Folds and test do not depend on ``fold``.
        split: a CSV with ``subject_id`` and ``split`` that is used instead.
        seed: of the dealing.

    Returns:
        train, val or test per row of ``table``.

    Raises:
        SplitError: if the given split does not cover the subjects, or there are fewer subjects than parts.
        RecipeError: if the column has a value that the recipe does not name.
    """
    rule = content["split"]
    if split is not None:
        parts = read_split(split).set_index("subject_id")["split"]
        absent = sorted(set(table["subject_id"]) - set(parts.index))
        message = f"expected every subject of the dataset, {len(absent)} are not there: {', '.join(absent[:5])}"
        raise_problems(SplitError, split, [message] if absent else [])
    elif "column" in rule:
        result = derive(rows[rule["column"]], "split", {"column": rule["column"], "groups": rule["groups"]})
        raise_problems(RecipeError, content["name"], result.problems)
        return result.values
    else:
        parts = _dealt(table, rule, _strata(content), seed)
    return table["subject_id"].map(parts)


def _strata(content: Mapping[str, Any]) -> list[str]:
    return ["label", *content.get("stratify", [])]


def _dealt(table: pd.DataFrame, rule: Mapping[str, Any], stratify: list[str], seed: int) -> pd.Series:
    """Deal subjects to the parts of ``shares``, or to test and folds at once and name one fold val."""
    if "shares" in rule:
        return split_by_subject(table, rule["shares"], stratify=stratify, seed=seed).set_index("subject_id")["split"]
    folds = [str(fold) for fold in range(rule["folds"])]
    shares = {"test": rule["test"], **dict.fromkeys(folds, (1 - rule["test"]) / len(folds))}
    dealt = split_by_subject(table, shares, stratify=stratify, seed=seed).set_index("subject_id")["split"]
    names = {fold: "val" if fold == str(rule["fold"]) else "train" for fold in folds}
    return dealt.map({"test": "test", **names})


def split_record(content: Mapping[str, Any], split: str | Path | None, seed: int) -> dict[str, Any]:
    """Say how the parts were made, ready for JSON."""
    rule = content["split"]
    if split is not None:
        return {"from": Path(split).name, "sha256": sha256(split)}
    if "column" in rule:
        return {"from": f"column {rule['column']}", "groups": rule["groups"]}
    how = {key: rule[key] for key in ("shares", "test", "folds", "fold") if key in rule}
    return {"from": "subjects", **how, "stratify": _strata(content), "seed": seed}
