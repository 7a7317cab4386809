"""Rows that a recipe keeps, by the code in a column: the others leave the manifest, counted by their code."""

from collections.abc import Mapping
from typing import Any

import pandas as pd


def filter_reasons(rows: pd.DataFrame, filters: Mapping[str, Mapping[str, Any]]) -> pd.Series:
    """Say why rows leave the manifest.

    Args:
        rows: the dataset's rows, of text.
        filters: name to ``column`` and ``keep``, the codes whose rows stay.

    Returns:
        Text per row; empty where the row passes every filter, else one reason per filter that it does not pass.
    """
    reasons = pd.Series("", index=rows.index, dtype=object)
    for name, rule in filters.items():
        codes = rows[rule["column"]].str.strip()
        out = ~codes.isin([str(code) for code in rule["keep"]])
        reasons = add_reasons(reasons, f"{name} is not one that the recipe keeps: " + codes.replace("", "empty"), out)
    return reasons


def add_reasons(reasons: pd.Series, further: pd.Series | str, where: pd.Series) -> pd.Series:
    """Add a further reason to those rows that ``where`` names; several of one row have ``; `` between them."""
    return reasons.mask(where, reasons.mask(reasons != "", reasons + "; ") + further)
