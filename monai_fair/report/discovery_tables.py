"""Tables of discovered subgroups: sizes, label, attributes, and all ways of looking; small counts are masked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from scipy.stats import binomtest

from monai_fair.report.cells import Cell, cell_of
from monai_fair.report.discovery_record import FoundSubgroups
from monai_fair.report.masking import Mask, masks_of
from monai_fair.report.quantities import Record, as_float, p_text

METHODS = {"local": "two modes in one place", "mixture": "clouds in principal components"}


@dataclass(frozen=True, eq=False)
class Part:
    """One split: who is in which subgroup, who of them is positive, and what of that may be shown.

    Attributes:
        split: its name.
        fitted: whether the fit saw ``all``, ``some`` or ``none`` of its rows.
        n: rows in all.
        sizes: rows per subgroup: ``name`` and ``n``.
        labels: rows of the label association; None where the split has no labels.
        overall: Cramer's V of subgroup and label; None as above.
        size_mask: of the sizes.
        label_mask: of the labels.
    """

    split: str
    fitted: str
    n: int
    sizes: list[Record]
    labels: list[Record] | None
    overall: Record | None
    size_mask: Mask
    label_mask: Mask

    @property
    def hides_something(self) -> bool:
        """Whether any size is hidden."""
        return any(self.size_mask.hides_n(row) for row in self.sizes)

    @property
    def fitted_words(self) -> str:
        """How much of it the fit saw, in words."""
        return {"all": "the fit saw it", "some": "the fit saw a part of it", "none": "the fit did not see it"}[
            self.fitted
        ]


def parts_of(found: FoundSubgroups, *, min_count: int, show_small: bool) -> list[Part]:
    """Return the splits in the order of the file, each with its masks.

    Args:
        found: the folder.
        min_count: least count that is shown.
        show_small: show everything.
    """
    parts = []
    for name, rows in found.rows.groupby("split", sort=False):
        split, seen = str(name), int(rows["fitted"].sum())
        counts = rows["subgroup"].value_counts()
        sizes = [_countable(each, int(counts.get(each, 0)), None) for each in found.names]
        association = found.record["label_association"].get(split)
        size_mask = _mask(sizes, min_count, show_small)
        labels = label_mask = None
        if association:
            labels = _labels(found.names, association["rows"])
            label_mask = _mask(labels, min_count, show_small)
            if [row["n"] for row in labels] == [row["n"] for row in sizes]:
                # the same counts twice on one page: what hides them in one table hides them in the other
                size_mask = label_mask
        parts.append(
            Part(
                split or "not said",
                "all" if seen == len(rows) else "some" if seen else "none",
                len(rows),
                sizes,
                labels,
                association["overall"] if association else None,
                size_mask,
                label_mask or size_mask,
            )
        )
    return parts


def _labels(names: Sequence[str], rows: Sequence[Record]) -> list[Record]:
    """Return a row of the label association for every subgroup, also for those without rows in a split."""
    given = {row["subgroup"]: row for row in rows}
    empty = {"n": 0, "n_positive": 0, "p": None, "p_holm": None, "reason": "no row in the subgroup"}
    filled = [{**empty, "subgroup": name, **given.get(name, {})} for name in names]
    return [{**row, **_countable(row["subgroup"], row["n"], row["n_positive"])} for row in filled]


def _countable(name: str, n: int, positives: int | None) -> Record:
    """Return a row as masks want it; without labels both classes are as large as the row, so that neither is small."""
    split = (n, n) if positives is None else (positives, n - positives)
    return {"name": name, "levels": [name], "n": n, "n_subjects": n, "n_positive": split[0], "n_negative": split[1]}


def _mask(rows: Sequence[Record], min_count: int, show_small: bool) -> Mask:
    table = {"name": "subgroup", "attributes": ["subgroup"], "n_missing": 0, "groups": rows}
    overall = {key: sum(row[key] for row in rows) for key in ("n", "n_subjects", "n_positive", "n_negative")}
    return masks_of({"overall": overall, "tables": [table]}, min_count, show_small=show_small).tables["subgroup"]


def size_rows(parts: Sequence[Part]) -> list[Record]:
    """Return a row per split: its n, what the fit saw of it, and the n of every subgroup."""
    return [
        {
            "split": part.split,
            "fitted": part.fitted_words,
            "n": f"{part.n:,}",
            "cells": [_size_cell(part, row) for row in part.sizes],
        }
        for part in parts
    ]


def _size_cell(part: Part, row: Record) -> Cell:
    if part.size_mask.hides_n(row):
        return cell_of(part.size_mask.n(row), quiet=True)
    return cell_of(part.size_mask.n(row), lines=[f"{100 * row['n'] / part.n:.1f}\u00a0%"])


def prevalence(row: Record, mask: Mask, confidence: float) -> tuple[float, float, float]:
    """Return the share of positives in percent, with Wilson's interval; NaN where it is hidden or there is no row.

    Args:
        row: of the label association.
        mask: of its split.
        confidence: of the interval.
    """
    if mask.hides_classes(row) or not row["n"]:
        return math.nan, math.nan, math.nan
    ends = binomtest(row["n_positive"], row["n"]).proportion_ci(confidence, method="wilson")
    return 100 * row["n_positive"] / row["n"], 100 * float(ends.low), 100 * float(ends.high)


def label_bodies(parts: Sequence[Part], confidence: float) -> list[Record]:
    """Return a body per split with labels: counts, prevalence and odds ratio of every subgroup, and Cramer's V.

    Args:
        parts: of :func:`parts_of`.
        confidence: of the intervals.
    """
    return [
        {
            "split": part.split,
            "fitted": part.fitted_words,
            "strength": _strength(part),
            "rows": [_label_row(row, part.label_mask, confidence) for row in part.labels or ()],
        }
        for part in parts
        if part.labels is not None
    ]


def _label_row(row: Record, mask: Mask, confidence: float) -> Record:
    value, low, high = prevalence(row, mask, confidence)
    hidden = mask.hides_classes(row)
    share = cell_of("masked" if hidden else "undefined", quiet=True)
    if not math.isnan(value):
        share = cell_of(f"{value:.1f}", lines=[f"{low:.1f} to {high:.1f}"])
    return {
        "name": row["name"],
        "n": mask.n(row),
        "n_positive": mask.positives(row),
        "prevalence": share,
        "odds": cell_of("masked", quiet=True) if hidden else odds_cell(row),
        "p": _p_cell(row, hidden=hidden),
    }


def odds_cell(row: Record) -> Cell:
    """Return an odds ratio with its interval; a file writes infinity as null, and gives a reason where it is none."""
    if row["reason"]:
        return cell_of("undefined", words=[row["reason"]], quiet=True)
    return cell_of(ratio_text(row["odds_ratio"]), lines=[f"{ratio_text(row['low'])} to {ratio_text(row['high'])}"])


def ratio_text(value: float | None) -> str:
    """Write an odds ratio or an end of its interval; None is infinite."""
    if value is None or math.isinf(value):
        return "infinite"
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _p_cell(row: Record, *, hidden: bool = False) -> Cell:
    if hidden or math.isnan(as_float(row["p"])):
        return cell_of("masked" if hidden else "undefined", quiet=True)
    return cell_of(p_text(row["p"]), lines=[f"Holm {p_text(row['p_holm'])}"])


def _strength(part: Part) -> str:
    """Say how strongly subgroup and label go together in a split."""
    found = part.overall or {}
    if any(part.label_mask.hides_classes(row) for row in part.labels or ()):
        return "Cramer's V masked"
    value = as_float(found.get("value"))
    if math.isnan(value):
        return f"Cramer's V undefined: {found.get('reason') or 'no reason given'}"
    return f"Cramer's V {value:.2f}, p {p_text(found.get('p'))}"


def attribute_rows(found: FoundSubgroups, *, min_count: int, show_small: bool) -> list[Record]:
    """Return a row per recorded attribute: n, how strongly it goes along with the subgroups, and p."""
    mask = Mask(min_count, show_small)
    return [_attribute_row(row, mask) for row in found.record["attribute_associations"]]


def _attribute_row(row: Record, mask: Mask) -> Record:
    # with the total on the page, n tells the number that is missing
    n = "masked" if mask.hides_missing(row["n_missing"]) else mask.count(row["n"])
    return {
        "name": row["attribute"],
        "n": n,
        "missing": mask.missing(row["n_missing"]),
        "strength": strength_cell(row),
        "p": _p_cell(row),
    }


def strength_cell(row: Record) -> Cell:
    """Return Cramer's V of a categorical attribute, or the AUROC of a numeric one."""
    value = as_float(row["value"])
    if math.isnan(value):
        return cell_of("undefined", words=[str(row["reason"])], quiet=True)
    if row["measure"] == "auroc":
        return cell_of(f"AUROC {value:.2f}", words=[f"of {row['subgroup']}; 0.5: none, 0 or 1: complete"])
    return cell_of(f"Cramer's V {value:.2f}", words=["0: none, 1: complete"])


def candidate_rows(found: FoundSubgroups, parts: Sequence[Part], *, min_count: int, show_small: bool) -> list[Record]:
    """Return a row per way of looking: what it found, how sure, and why it was not chosen."""
    # fitted rows are sums over splits: where one is hidden, sums with it would tell
    told = show_small or not any(part.hides_something for part in parts)
    return [
        {
            "name": candidate["representation"],
            "method": METHODS.get(candidate["method"], candidate["method"]),
            "components": str(candidate["n_components"]),
            "p": _p_cell(candidate),
            "valley": p_text(candidate["valley_p"]),
            "stability": stability_text(candidate["stability"]),
            "sizes": _sizes_text(candidate["sizes"], min_count if not show_small else 0, told=told),
            "reason": candidate["reason"] or "chosen",
        }
        for candidate in found.record["candidates"]
    ]


def _sizes_text(sizes: Sequence[int], least: int, *, told: bool) -> str:
    return ", ".join(f"{size:,}" for size in sizes) if told and min(sizes, default=0) >= least else "masked"


def stability_text(value: float | None) -> str:
    """Write a stability; ``undefined`` for NaN."""
    stability = as_float(value)
    return "undefined" if math.isnan(stability) else f"{stability:.2f}".replace("-", "−")


def fitted_splits(rows: pd.DataFrame) -> list[str]:
    """Return the splits that the fit saw rows of, in the order of the file."""
    return [str(split) or "not said" for split in rows.loc[rows["fitted"], "split"].unique()]
