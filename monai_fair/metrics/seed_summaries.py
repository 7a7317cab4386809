"""Means over seeds in which nothing is left out, and what the SPLIT test tells of them."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from monai_fair.metrics.paired_statistics import paired_difference
from monai_fair.metrics.rank_agreements import rank_agreement
from monai_fair.multiplicity import holm

_ONE = "one seed: the spread over seeds is unknown"
_ARM = ["experiment", "arm"]


def why_undefined(values: pd.Series, reasons: pd.Series, what: str = "seeds") -> str:
    """Say how many of several values are NaN and why; empty where none is.

    Args:
        values: numbers.
        reasons: of each that is NaN.
        what: they are, in the plural.
    """
    lost = values.isna()
    told = "; ".join(dict.fromkeys(reason for reason in reasons[lost] if reason))
    counted = f"undefined in {int(lost.sum())} of {len(values)} {what}"
    return f"{counted}{': ' if told else ''}{told}" if lost.any() else ""


def seed_means(values: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return mean and spread over seeds; a seed without a value makes both undefined.

    Args:
        values: one row per cell and seed: ``by``, ``value`` and ``reason``, why it is NaN.
        by: columns that tell cells apart.

    Returns:
        One row per cell in order of appearance: ``by``, ``mean``, ``sd`` (n - 1 in its denominator), ``n`` seeds,
        ``reason``, why the mean is NaN, and ``sd_reason``, why the spread is.
    """
    rows = []
    for key, cell in values.groupby(list(by), sort=False, dropna=False, observed=True):
        numbers = cell["value"].to_numpy(dtype=np.float64)
        reason = why_undefined(cell["value"], cell["reason"])
        spread = float(numbers.std(ddof=1)) if numbers.size > 1 else float("nan")
        rows.append(
            dict(zip(by, key, strict=True))
            | {"mean": float(numbers.mean()), "sd": spread, "n": numbers.size, "reason": reason}
            | {"sd_reason": reason or (_ONE if numbers.size < 2 else "")}
        )
    return pd.DataFrame(rows, columns=[*by, "mean", "sd", "n", "reason", "sd_reason"])


def split_points(split: pd.DataFrame, separability: pd.DataFrame) -> pd.DataFrame:
    """Return the SPLIT test beside separability, as means over seeds.

    Args:
        split: AUC of the SPLIT test: ``experiment``, ``arm``, ``checkpoint``, ``seed``, ``value``, ``reason``.
        separability: AUC of models that were trained to tell the group: ``experiment``, ``seed``, ``value``,
            ``reason``.

    Returns:
        One row per ``experiment``, ``arm`` and ``checkpoint``: ``split_mean``, ``split_sd``, ``n`` seeds,
        ``separability_mean``, ``separability_sd``, ``separability_n``, and ``reason``, why one of the means is NaN.
    """
    names = {"mean": "split_mean", "sd": "split_sd"}
    points = seed_means(split, [*_ARM, "checkpoint"]).drop(columns="sd_reason").rename(columns=names)
    others = seed_means(separability, ["experiment"]).drop(columns="sd_reason").set_index("experiment")
    points = points.join(others.add_prefix("separability_"), on="experiment")
    told = points[["reason", "separability_reason"]].itertuples(index=False)
    points["reason"] = [
        "; ".join(f"{name} {text}" for name, text in zip(("SPLIT test", "separability"), pair, strict=True) if text)
        for pair in told
    ]
    return points.drop(columns="separability_reason")


def split_agreements(points: pd.DataFrame) -> pd.DataFrame:
    """Return whether SPLIT test and separability put the experiments into one order, by arm and checkpoint.

    Args:
        points: of :func:`split_points`.

    Returns:
        ``arm``, ``checkpoint`` and the fields of :class:`monai_fair.metrics.RankAgreement`.
    """
    return pd.DataFrame([
        {"arm": arm, "checkpoint": checkpoint, **asdict(rank_agreement(own["separability_mean"], own["split_mean"]))}
        for (arm, checkpoint), own in points.groupby(["arm", "checkpoint"], sort=False)
    ])  # fmt: skip


def split_changes(split: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Return how the AUC of the SPLIT test changes from early to final, paired by seed.

    Args:
        split: see :func:`split_points`, with the checkpoints ``early`` and ``final``.
        confidence: of the intervals.

    Returns:
        One row per ``experiment`` and ``arm``: the fields of :class:`monai_fair.metrics.PairedDifference`, with the
        means as ``mean_early`` and ``mean_final``, and ``p_holm``, Holm's adjusted p over all rows. A ``reason`` says
        what the values themselves say.
    """
    rows = []
    for key, own in split.groupby(_ARM, sort=False):
        pairs = own.pivot(index="seed", columns="checkpoint", values="value")
        found = asdict(paired_difference(pairs["early"], pairs["final"], confidence=confidence))
        means = {f"mean_{name}": found.pop(f"mean_{place}") for name, place in (("early", "first"), ("final", "later"))}
        if found["reason"]:
            found["reason"] = "; ".join(
                f"{checkpoint} {text}"
                for checkpoint, cell in own.groupby("checkpoint", sort=False)
                if (text := why_undefined(cell["value"], cell["reason"]))
            )
        rows.append({**dict(zip(_ARM, key, strict=True)), **means, **found})
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"].to_numpy(dtype=np.float64)))
