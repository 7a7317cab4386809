"""The neuron incidence of every run as what the page's template prints."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from monai_fair.metrics.intervals import t_interval
from monai_fair.report.cells import Cell, cell_of
from monai_fair.report.figures import concentration_figure
from monai_fair.report.incidence import ROLES
from monai_fair.report.masking import Mask, masks_of
from monai_fair.report.quantities import AUC, Record, as_float, quantity

MEASURES: tuple[tuple[str, str, str], ...] = (
    ("cv", "Coefficient of variation", "standard deviation over mean; 0 when even"),
    ("top1_share", "Share of the top channel", "1 when one channel has everything"),
    ("top10_share", "Share of the top 10", "1 when ten channels have everything"),
    ("normalized_entropy", "Normalised entropy", "1 when even, 0 when one channel has everything"),
    ("gini", "Gini coefficient", "0 when even"),
    ("participation_ratio", "Participation ratio", "1 when even"),
)
_ROLE_WORDS = {
    "positive": "channel with the largest mean among positive predictions",
    "negative": "channel with the largest mean among negative predictions",
    "contrast positive": "channel with the largest excess among positive predictions",
    "contrast negative": "channel with the largest excess among negative predictions",
}


class _Groups:
    """What the page shows of the groups of the first target, so that both parts hide the same counts."""

    def __init__(self, results: Record, *, show_small: bool) -> None:
        target = results["targets"][0]
        masks = masks_of(target, results["settings"]["min_count"], show_small=show_small)
        self.everyone = target["overall"], masks.overall
        single = [(t, masks.tables[t["name"]]) for t in target["tables"] if len(t["attributes"]) == 1]
        self._hides_missing = {table["name"]: mask.hides_missing(table["n_missing"]) for table, mask in single}
        self._rows = {(table["name"], row["name"]): (row, mask) for table, mask in single for row in table["groups"]}

    def of(self, attribute: str, group: str) -> tuple[Record, Mask]:
        """Return a group's row in the audit and its mask; everyone for no attribute and for the label."""
        return self.everyone if attribute in ("", "label") else self._rows[attribute, group]

    def has_hidden(self, attribute: str) -> bool:
        """Whether any count of an attribute is hidden, so that sums over its groups have to be hidden too."""
        own = [pair for (name, _), pair in self._rows.items() if name == attribute]
        return self._hides_missing.get(attribute, False) or any(mask.hides_classes(row) for row, mask in own)


def incidence_view(results: Record, *, show_small: bool = False) -> Record | None:
    """Return texts, tables and the figure of the section, or None without any incidence.

    Args:
        results: of the audit; ``incidence`` has the combined sections by run, as
            :func:`monai_fair.report.incidence.combine_seeds` gives them.
        show_small: show small cells instead of masking them.

    Returns:
        What the template prints.
    """
    incidence = results.get("incidence")
    if not incidence:
        return None
    confidence, groups = results["settings"]["confidence"], _Groups(results, show_small=show_small)
    runs = list(incidence)
    # A later role that names the same channels as an earlier one would repeat its tables.
    roles: dict[tuple[Any, ...], str] = {}
    for role in ROLES:
        roles.setdefault(tuple(_channels(incidence, runs, role)), role)
    return {
        "runs": runs,
        "measures": [
            _measure_row(incidence, runs, measure, side, confidence) for measure in MEASURES for side in _SIDES
        ],
        "figure": _figure(incidence),
        "roles": [{"role": role, "words": _ROLE_WORDS[role]} for role in ROLES],
        "channels": [
            _channel_row(run, head["seed"], incidence[run]) for run in runs for head in incidence[run]["seeds"]
        ],
        "coactivation": [_coactivation(incidence, runs, role, groups) for role in roles.values()],
        "ablation": [_ablation(incidence, runs, role, groups) for role in roles.values()],
    }


_SIDES = ("positive", "negative")


def _figure(incidence: Record) -> Any:
    """The bars of positive predictions; None when a measure is undefined, which the table then explains."""
    rows = [row for run in incidence.values() for row in run["concentration"] if row["direction"] == "positive"]
    if any(math.isnan(as_float(row[key])) for row in rows for key, _, _ in MEASURES):
        return None
    return concentration_figure(incidence, [(key, name) for key, name, _ in MEASURES])


def _measure_row(
    incidence: Record, runs: Sequence[str], measure: tuple[str, str, str], side: str, confidence: float
) -> Record:
    key, name, meaning = measure
    cells = []
    for run in runs:
        rows = [row for row in incidence[run]["concentration"] if row["direction"] == side]
        values = np.array([as_float(row[key]) for row in rows])
        mean, low, high = (float(part) for part in t_interval(values, confidence=confidence))
        if math.isnan(mean):
            reasons = dict.fromkeys(row["reasons"].get(key, "") for row in rows)
            cells.append(_cell("undefined", "; ".join(reason for reason in reasons if reason), quiet=True))
            continue
        digits = 2 if mean >= 1 else 3
        spread = "one seed" if math.isnan(low) else f"seeds {low:.{digits}f} to {high:.{digits}f}"
        cells.append(_cell(f"{mean:.{digits}f}", spread))
    return {"name": name, "meaning": meaning, "direction": side, "cells": cells}


def _cell(text: str, line: str = "", *, quiet: bool = False) -> Cell:
    """A cell with one line below: words when it is quiet, else numbers."""
    return cell_of(text, lines=[] if quiet else [line], words=[line] if quiet and line else [], quiet=quiet)


def _channels(incidence: Record, runs: Sequence[str], role: str) -> list[Any]:
    return [row["channel"] for run in runs for row in incidence[run]["channels"] if row["role"] == role]


def _channel_row(run: str, seed: str, section: Record) -> Record:
    found = {row["role"]: row["channel"] for row in section["channels"] if row["seed"] == seed}
    shown = ["undefined" if found[role] is None else str(found[role]) for role in ROLES]
    return {"run": run, "seed": seed, "channels": shown}


def _unique(rows: Iterable[Record], key: Callable[[Record], tuple[str, ...]]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(key(row) for row in rows))


def _coactivation(incidence: Record, runs: Sequence[str], role: str, groups: _Groups) -> Record:
    """AUROC of a role's channel for the label and for each group, mean over seeds, by run."""
    rows = {
        run: [
            r
            for r in incidence[run]["coactivation"]
            if r["role"] == role and (r["attribute"], r["group"]) != ("label", "0")
        ]
        for run in runs
    }
    names = _unique(
        (row for run in runs for row in rows[run]), lambda row: (row["attribute"], row["group"], row["stratum"])
    )
    table = []
    for name in names:
        same = {run: [r for r in rows[run] if (r["attribute"], r["group"], r["stratum"]) == name] for run in runs}
        first = next(part for part in same.values() if part)[0]
        attribute, group, stratum = name
        row, mask = groups.of(attribute, group)
        table.append(
            {
                "name": "positive label" if attribute == "label" else f"{attribute}: {group}",
                "stratum": {"all": "all cases", "y=0": "negatives", "y=1": "positives"}[stratum],
                "n": "masked" if groups.has_hidden(attribute) else mask.count(first["n"]),
                "n_group": _in_group(first, row, stratum, mask),
                "cells": [_auroc_cell(same[run], mask) for run in runs],
            }
        )
    return {"words": _ROLE_WORDS[role], "rows": table}


def _in_group(record: Record, row: Record, stratum: str, mask: Mask) -> str:
    if mask.small(record["n_group"]):
        return mask.count(record["n_group"])
    hidden = mask.hides_n(row) if stratum == "all" else mask.hides_classes(row)
    return "masked" if hidden else mask.count(record["n_group"])


def _auroc_cell(rows: Sequence[Record], mask: Mask) -> Cell:
    if not rows:
        return _cell("undefined", "no such channel", quiet=True)
    if any(mask.small(row["n_group"]) or mask.small(row["n"] - row["n_group"]) for row in rows):
        return _cell("masked", quiet=True)
    values = [as_float(row["auroc"]) for row in rows]
    if any(math.isnan(value) for value in values):
        return _cell("undefined", next(row["reason"] for row in rows if row["reason"]), quiet=True)
    spread = f"seeds {AUC.number(min(values))} to {AUC.number(max(values))}" if len(values) > 1 else ""
    return _cell(AUC.number(sum(values) / len(values)), spread)


def _ablation(incidence: Record, runs: Sequence[str], role: str, groups: _Groups) -> Record:
    """TPR and FPR of each group with and without a role's channel, mean over seeds, by run."""
    rows = {run: [row for row in incidence[run]["ablation"] if row["role"] == role] for run in runs}
    names = _unique((row for run in runs for row in rows[run]), lambda row: (row["attribute"], row["group"]))
    table = []
    for attribute, group in names:
        same = {run: [r for r in rows[run] if (r["attribute"], r["group"]) == (attribute, group)] for run in runs}
        row, mask = groups.of(attribute, group)
        cells = [_before_after(same[run], key, row, mask) for key in ("tpr", "fpr") for run in runs]
        name = f"{attribute}: {group}" if attribute else group
        table.append({"name": name, "n": mask.n(row), "n_positive": mask.positives(row), "cells": cells})
    return {"words": _ROLE_WORDS[role], "rows": table}


def _before_after(rows: Sequence[Record], key: str, group: Record, mask: Mask) -> Cell:
    written = quantity(f"{key}@0.5")
    if not rows:
        return _cell("undefined", "no such channel", quiet=True)
    if mask.hides_values(group):
        return _cell("masked", quiet=True)
    before, after = (sum(as_float(row[f"{key}_{when}"]) for row in rows) / len(rows) for when in ("before", "after"))
    if math.isnan(before):
        return _cell("undefined", str(rows[0][f"{key}_reason"]), quiet=True)
    return _cell(f"{written.number(before)} → {written.number(after)}")
