"""Groups from a continuous attribute, by a rule that its name tells: ``age:quartiles``, ``age:40/60/80``."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd

from monai_fair.data.predictions import Predictions
from monai_fair.errors import PredictionsError, raise_problems
from monai_fair.metrics.arrays import FloatArray

QUANTILES = {"halves": 2, "tertiles": 3, "quartiles": 4, "quintiles": 5, "deciles": 10}
_CUTS = r"-?[0-9]+(\.[0-9]+)?(/-?[0-9]+(\.[0-9]+)?)*"


def with_bins(
    runs: Mapping[str, Sequence[Predictions]], attributes: Sequence[str], *, split: str
) -> Mapping[str, Sequence[Predictions]]:
    """Add a column of bins for every attribute that is written with a rule.

    A value equal to a cut goes above it. Quantiles are those of the audited rows of the first seed of the first run, so
    that all runs have the same groups.

    Args:
        runs: predictions of each seed, by run.
        attributes: columns, or ``column:rule``; a rule is halves, tertiles, quartiles, quintiles, deciles, or ascending
            cuts with ``/`` between them.
        split: the audited part.

    Returns:
        The runs, with a column named like each attribute with a rule. A missing value stays missing.

    Raises:
        PredictionsError: naming every rule that is unknown, and every column that is absent or not of numbers.
    """
    ruled = [name for name in dict.fromkeys(attributes) if ":" in name]
    tables = [predictions for seeds in runs.values() for predictions in seeds]
    if not ruled or not tables:
        return runs
    problems: list[str] = []
    columns: dict[str, dict[str, pd.Series]] = {predictions.source: {} for predictions in tables}
    for name in ruled:
        column, _, rule = name.rpartition(":")
        found = [_numbers(predictions, column) for predictions in tables if column in predictions.table]
        problems += [f"attribute '{name}': {text}" for text in _rule_problems(rule)]
        problems += [text for _, text in found if text]
        absent = [predictions.source for predictions in tables if column not in predictions.table]
        problems += [f"{source}: expected a column '{column}' to bin, found none" for source in absent]
        if problems:
            continue
        cuts = _cuts(rule, found[0][0][(tables[0].table["split"] == split).to_numpy()])
        for predictions, (numbers, _) in zip(tables, found, strict=True):
            columns[predictions.source][name] = _labels(numbers, cuts, predictions.table.index)
    raise_problems(PredictionsError, "audit", problems)
    return {
        run: [
            replace(
                predictions,
                table=predictions.table.assign(**columns[predictions.source]),
                attributes=(*predictions.attributes, *ruled),
            )
            for predictions in seeds
        ]
        for run, seeds in runs.items()
    }


def _rule_problems(rule: str) -> list[str]:
    if rule in QUANTILES:
        return []
    if not re.fullmatch(_CUTS, rule):
        return [f"expected a rule among {', '.join(QUANTILES)}, or cuts such as 40/60/80, got '{rule}'"]
    cuts = [float(part) for part in rule.split("/")]
    return [] if cuts == sorted(set(cuts)) else [f"expected ascending cuts, got '{rule}'"]


def _numbers(predictions: Predictions, column: str) -> tuple[FloatArray, str]:
    """The column as numbers, NaN where empty, and what is wrong with it."""
    text = predictions.table[column].astype(str)
    parsed = pd.to_numeric(text.where(text != "", None), errors="coerce")
    numbers: FloatArray = np.asarray(parsed, dtype=np.float64)
    bad = np.flatnonzero(np.isnan(numbers) & (text != "").to_numpy())
    if not bad.size:
        return numbers, ""
    return numbers, (
        f"{predictions.source}: expected numbers in '{column}' to bin, got '{text.iloc[bad[0]]}' and {bad.size - 1} "
        "more that are none; clean the column, or audit it as it is"
    )


def _cuts(rule: str, values: FloatArray) -> list[str]:
    """Cuts as they are written."""
    if rule not in QUANTILES:
        return rule.split("/")
    known, count = values[~np.isnan(values)], QUANTILES[rule]
    edges = np.quantile(known, np.arange(1, count) / count, method="higher") if known.size else np.zeros(0)
    return [f"{edge:g}" for edge in np.unique(edges)]


def _labels(numbers: FloatArray, cuts: Sequence[str], index: pd.Index) -> pd.Series:
    between = [f"{low} to below {high}" for low, high in pairwise(cuts)]
    names = [f"below {cuts[0]}", *between, f"{cuts[-1]} and above"] if cuts else ["all"]
    place = np.searchsorted(np.array([float(cut) for cut in cuts]), numbers, side="right")
    labels = np.array([*names, ""])[np.where(np.isnan(numbers), len(names), place)]
    return pd.Series(labels, index=index, dtype=str)
