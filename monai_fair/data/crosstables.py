"""Who is in the data: n and prevalence per group, per intersection and per split."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import pandas as pd


def cross_tables(
    table: pd.DataFrame,
    attributes: Sequence[str],
    *,
    intersect: Sequence[str] = (),
    part: str = "split",
    num_classes: int = 2,
) -> list[dict[str, Any]]:
    """Count rows, subjects and classes per part and group.

    Args:
        table: a manifest: ``subject_id``, ``label`` (int), ``part`` and attributes as text.
        attributes: attributes to count, each on its own; rows without a value are the group ``missing``.
        intersect: attributes whose intersection is counted too, when there are at least two; a row without one
            of the values is in the group ``missing``.
        part: the column that names the part.
        num_classes: number of classes of the label.

    Returns:
        One dict per part and group, also where a part has nobody of a group: ``split``, ``attribute``, ``group``,
        ``n``, ``n_subjects``, ``n_per_class``, and ``prevalence`` (share of class 1; ``None`` when there are more
        than two classes or no rows).
    """
    keys = [[name] for name in attributes] + ([list(intersect)] if len(intersect) > 1 else [])
    rows = []
    for names in keys:
        incomplete = (table[names] == "").any(axis=1)
        # row by row in Python: pandas makes a column of every row first, which takes minutes for large datasets
        joined = [", ".join(row) for row in zip(*(table[name] for name in names), strict=True)]
        groups = pd.Series(joined, index=table.index, dtype=str).mask(incomplete, "missing")
        for split, group in product(sorted(table[part].unique()), sorted(groups.unique())):
            cell = table[(table[part] == split) & (groups == group)]
            counts = cell["label"].value_counts().reindex(range(num_classes), fill_value=0)
            rows.append(
                {
                    "split": split,
                    "attribute": " x ".join(names),
                    "group": group,
                    "n": len(cell),
                    "n_subjects": int(cell["subject_id"].nunique()),
                    "n_per_class": [int(count) for count in counts],
                    "prevalence": float(counts[1] / len(cell)) if num_classes == 2 and len(cell) else None,
                }
            )
    return rows


def code_groups(codes: pd.Series, groups: pd.Series, subjects: pd.Series, kept: pd.Series) -> list[dict[str, Any]]:
    """Count what became of every code of a column: the cross-table of codes by group.

    Args:
        codes: the dataset's own code per row.
        groups: the group that a rule gave to each row; the empty text is no group.
        subjects: the subject of each row.
        kept: whether the row is in the manifest.

    Returns:
        One dict per code and group, in the order of groups: ``code``, ``group`` (where there is none ``missing``, or
        ``dropped`` if the code has no row in the manifest), ``n`` and ``n_subjects`` in the manifest, and
        ``n_dropped`` rows.
    """
    table = pd.DataFrame({"code": codes, "group": groups, "subject": subjects.where(kept), "kept": kept})
    cells = table.groupby(["group", "code"])
    return [
        {
            "code": code,
            "group": group or ("missing" if cell["kept"].any() else "dropped"),
            "n": int(cell["kept"].sum()),
            "n_subjects": int(cell["subject"].nunique()),
            "n_dropped": int((~cell["kept"]).sum()),
        }
        for (group, code), cell in cells
    ]


def small_cells(rows: Sequence[dict[str, Any]], minimum: int = 10) -> list[str]:
    """Say which groups have fewer than ``minimum`` rows of some class in some part: rates there are hardly known."""
    return [
        f"{row['split']}, {row['attribute']} = {row['group']}: {', '.join(map(str, row['n_per_class']))} rows "
        f"of class {', '.join(map(str, range(len(row['n_per_class']))))}"
        for row in rows
        if row["group"] != "missing" and min(row["n_per_class"]) < minimum
    ]
