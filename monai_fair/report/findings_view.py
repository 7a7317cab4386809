"""Averages over findings as what the page prints: one table over all, one by finding, one of every repeat."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from monai_fair.metrics.finding_averages import QUANTITIES
from monai_fair.report.cells import Cell, cell_of
from monai_fair.report.findings_figure import findings_figure
from monai_fair.report.masking import Mask
from monai_fair.report.quantities import Quantity, Record, joined, level_text, quantity, rule_words

_OF_CASES = ("accuracy", "auc")  # values of all cases, which are masked where one class has few


def findings_view(
    audits: Mapping[str, Record],
    values: pd.DataFrame,
    averages: pd.DataFrame,
    *,
    rule: str,
    links: Mapping[str, str],
    show_small: bool = False,
) -> Record:
    """Return everything the template prints.

    Args:
        audits: finding to results of its audit.
        values: of :func:`~monai_fair.metrics.finding_averages.finding_values`.
        averages: of :func:`~monai_fair.metrics.finding_averages.average_findings`.
        rule: whose thresholds the values are at.
        links: finding to the address of its report, where it has one.
        show_small: show values of few cases instead of masking them.

    Returns:
        Texts, tables and the figure.
    """
    first = next(iter(audits.values()))
    settings, arms = first["settings"], [run["name"] for run in first["runs"]]
    overall = {name: audit["targets"][0]["overall"] for name, audit in audits.items()}
    mask = Mask(settings["min_count"], show_small)
    writer = _Writer(arms[0], rule, frozenset(name for name, row in overall.items() if mask.hides_values(row)))
    of_first = (values["quantity"] == "fate_eo") & (values["arm"] == arms[0])
    drawn = values.loc[values["quantity"].isin(["delta_eo", "fate_eo"]) & ~of_first, "value"]
    return {
        "arms": arms,
        "facts": _facts(values, arms),
        "attributes": joined([str(name) for name in settings["attributes"]]),
        "split": settings["split"],
        "level": level_text(settings["confidence"]),
        "rule": rule_words(rule, first["targets"][0]),
        "heads": [writer.head(name) for name in QUANTITIES],
        "averages": writer.arm_rows(averages[averages["finding"] == ""], frozenset(overall)),
        "by_finding": [
            {
                "finding": name,
                "link": links.get(name, ""),
                "n": mask.n(row),
                "n_positive": mask.positives(row),
                **writer.of_finding(name, values, averages),
            }
            for name, row in overall.items()
        ],
        "n_rows": len(values) // len(QUANTITIES),
        "figure": findings_figure(values, averages, list(audits), arms),
        "drawn": len(drawn),
        "undefined": int(drawn.isna().sum()),
        "masking": bool(writer.hidden),
        "min_count": settings["min_count"],
    }


@dataclass(frozen=True)
class _Writer:
    """Writes values into cells.

    Attributes:
        first: the arm that FATE compares the others with.
        rule: whose thresholds the values are at.
        hidden: findings whose values of all cases are masked.
    """

    first: str
    rule: str
    hidden: frozenset[str]

    def head(self, name: str) -> Record:
        """Return what stands above a column, and its unit."""
        if name.startswith("fate"):
            return {"name": "FATE", "of": "accuracy, delta EO" if name == "fate_eo" else "AUC, delta AUC"}
        own = self._quantity(name)
        title = {"delta_eo": "Delta EO", "delta_auc": "Delta AUC"}.get(name, own.name)
        unit = own.unit if name.startswith("delta") else "%" * own.percent
        return {"name": title, "of": unit}

    def arm_rows(self, averages: pd.DataFrame, findings: frozenset[str]) -> list[Record]:
        """Return a row per arm of means: over repeats of one finding, or over all findings."""
        rows = []
        for arm, cell in averages.groupby("arm", sort=False):
            own = cell.set_index("quantity")
            cells = [self._average(str(arm), name, own.loc[name].to_dict(), findings) for name in QUANTITIES]
            counts = {key: int(own[key].iloc[0]) for key in ("n", "n_repeats")}
            rows.append({"arm": arm, **counts, "cells": cells})
        return rows

    def of_finding(self, finding: str, values: pd.DataFrame, averages: pd.DataFrame) -> Record:
        """Return how many groups a finding compares, its means and its repeats."""
        own = values[values["finding"] == finding]
        return {
            "compared": _compared(own),
            "rows": self.arm_rows(averages[averages["finding"] == finding], frozenset([finding])),
            "repeats": self.repeat_rows(own, finding),
        }

    def repeat_rows(self, values: pd.DataFrame, finding: str) -> list[Record]:
        """Return a row per arm and repeat of one finding."""
        rows = []
        for (arm, repeat), cell in values.groupby(["arm", "repeat"], sort=False):
            own = cell.set_index("quantity")
            cells = [self._value(str(arm), name, own.loc[name].to_dict(), finding) for name in QUANTITIES]
            rows.append({"arm": arm, "repeat": repeat, "cells": cells})
        return rows

    def _average(self, arm: str, name: str, record: Mapping[Any, Any], findings: frozenset[str]) -> Cell:
        if (fixed := self._fixed(arm, name, record, findings)) is not None:
            return fixed
        low, high, chance = (float(record[key]) for key in ("low", "high", "chance"))
        span = "" if math.isnan(low) else f"{self._text(name, low)} to {self._text(name, high)}"
        lines = [span, "" if math.isnan(chance) else f"chance {self._text(name, chance)}"]
        words = [] if span else [str(record["interval_reason"])]
        return cell_of(self._text(name, record["value"]), lines=lines, words=words)

    def _value(self, arm: str, name: str, record: Mapping[Any, Any], finding: str) -> Cell:
        fixed = self._fixed(arm, name, record, frozenset([finding]))
        return cell_of(self._text(name, record["value"])) if fixed is None else fixed

    def _fixed(self, arm: str, name: str, record: Mapping[Any, Any], findings: frozenset[str]) -> Cell | None:
        """Return the cell of what has no number; None for a number."""
        if name.startswith("fate") and arm == self.first:
            return cell_of("first arm", quiet=True)
        if name in _OF_CASES and findings & self.hidden:  # an average would tell the one that is hidden
            return cell_of("masked", quiet=True)
        if math.isnan(record["value"]):
            return cell_of("undefined", words=[str(record["reason"])], quiet=True)
        return None

    def _quantity(self, name: str) -> Quantity:
        return quantity(
            {"accuracy": f"accuracy@{self.rule}", "delta_eo": f"equalized_odds@{self.rule}"}.get(name, "auc")
        )

    def _text(self, name: str, value: float) -> str:
        if name.startswith("fate"):
            text = f"{value:.2f}"
            return "0.00" if text == "-0.00" else text.replace("-", "−")
        return self._quantity(name).number(value)


def _facts(values: pd.DataFrame, arms: list[str]) -> list[tuple[str, str]]:
    repeats = values.groupby(["finding", "arm"])["repeat"].nunique()
    return [
        (str(values["finding"].nunique()), "findings"),
        (str(len(arms)), "arms"),
        (_range(repeats), "repeats of each arm and finding"),
        (_range(values["groups"]), "joint groups"),
    ]


def _range(numbers: pd.Series) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _compared(values: pd.DataFrame) -> str:
    """Say how many of the joint groups stand in each gap: the same in all arms, or the range."""
    groups = int(values["groups"].iloc[0])
    own = {name: _range(values.loc[values["quantity"] == name, "compared"]) for name in ("delta_eo", "delta_auc")}
    return f"of {groups} groups, {own['delta_eo']} stand in delta EO, {own['delta_auc']} in delta AUC"
