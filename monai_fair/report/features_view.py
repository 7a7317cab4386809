"""What features tell of attributes, as what the page's template prints."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from monai_fair.metrics.intervals import t_interval
from monai_fair.report.cells import Cell, cell_of
from monai_fair.report.embedding_figures import embedding_figure
from monai_fair.report.masking import Mask, masks_of
from monai_fair.report.quantities import AUC, Record, as_float, counted

_LABEL_ALONE = "the label alone"
_FIRST = ("embedding", "features")  # the layer that is shown open, where a run has it
_FEW = "too few fitted or audited cases of a level"


def features_view(results: Record, *, show_small: bool = False) -> Record | None:
    """Return the tables and figures of the section, or None without features.

    Args:
        results: of the audit; ``features`` is that of :func:`~monai_fair.report.feature_section.feature_section`.
        show_small: show small cells instead of masking them.

    Returns:
        What the template prints.
    """
    features = results.get("features")
    if not features:
        return None
    least, confidence = results["settings"]["min_count"], results["settings"]["confidence"]
    masks = masks_of(results["targets"][0], least, show_small=show_small).tables
    attributes = [_Attribute(results, name, masks) for name in results["settings"]["attributes"]]
    cases = features["cases"]
    return {
        "attributes": [own.head(features["runs"]) for own in attributes],
        "bodies": list(_bodies(features["runs"], attributes, confidence)),
        "most_fitted": f"{features['most_fitted']:,}",
        "pictures": [
            _pictures(run, record, cases, least=least, show_small=show_small)
            for run, record in features["runs"].items()
        ],
        "pictured": "" if len(cases["label"]) == cases["n"] else f"{len(cases['label']):,}",
        "n": f"{cases['n']:,}",
        "seed": results["settings"]["seed"],
        "drawn": show_small or any(n >= least for n in cases["n_joint"]),
        "panels": len(cases["attributes"]) + 1,
    }


class _Attribute:
    """One attribute's columns: what is masked in them, and their counts."""

    def __init__(self, results: Record, name: str, masks: Mapping[str, Mask]) -> None:
        self.name = name
        table = next(table for table in results["targets"][0]["tables"] if table["attributes"] == [name])
        self.mask = masks[table["name"]]
        # cases without a value take no part, though they may be a group of their own
        rows = [row for row in table["groups"] if row["levels"] != [""]]
        self.hides_n = self.mask.hides_missing(table["n_missing"]) or any(map(self.mask.hides_n, table["groups"]))
        self._hidden = {
            "all": any(self.mask.small(min(row["n"], row["n_subjects"])) for row in rows),
            "label": any(self.mask.hides_values(row) for row in _rows_of(results, name)),
        }

    def head(self, runs: Mapping[str, Record]) -> Record:
        """Return the name, and how many cases probes are judged and fitted on."""
        rows = [
            row
            for record in runs.values()
            for row in record["probes"]
            if (row["attribute"], row["stratum"]) == (self.name, "all")
        ]
        return {
            "name": self.name,
            "n": "masked" if self.hides_n else _range([row["n"] for row in rows]),
            "fitted": self._fitted(rows),
        }

    def _fitted(self, rows: Sequence[Record]) -> str:
        few = any(row["n_missing_fitted"] > 0 and self.mask.small(row["n_missing_fitted"]) for row in rows)
        return "masked" if few else _range([row["n_fitted"] for row in rows])

    def cell(self, rows: Sequence[Record], stratum: str, confidence: float) -> Cell:
        """Return the mean over seeds of one layer's probes."""
        own = [row for row in rows if (row["attribute"], row["stratum"]) == (self.name, stratum)]
        if self._hidden[stratum]:
            return cell_of("masked", quiet=True)
        values = np.array([as_float(row["auc"]) for row in own])
        mean, low, high = (float(part) for part in t_interval(values, confidence=confidence, bounds=(0, 1)))
        if math.isnan(mean):
            reasons = dict.fromkeys(self._reason(row["reason"]) for row in own if row["reason"])
            return cell_of("undefined", words=["; ".join(reasons)], quiet=True)
        if math.isnan(low):
            return cell_of(AUC.number(mean), lines=["one seed"])
        if high - low < 1e-9:
            return cell_of(AUC.number(mean), lines=["every seed"])
        return cell_of(AUC.number(mean), lines=[AUC.span(low, high)])

    def _reason(self, reason: str) -> str:
        """Why there is no value; most reasons have counts in them."""
        harmless = all(part.endswith("got none") or part.startswith("the audited") for part in reason.split("; "))
        return reason if self.mask.show_small or harmless else _FEW


def _rows_of(results: Record, name: str) -> Iterator[Record]:
    """The groups of an attribute in every target: within each class its positives have to be enough."""
    for target in results["targets"]:
        for table in target["tables"]:
            if table["attributes"] == [name]:
                yield from (row for row in table["groups"] if row["levels"] != [""])


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _bodies(runs: Mapping[str, Record], attributes: Sequence[_Attribute], confidence: float) -> Iterator[Record]:
    alone = {run: _label_alone(record, attributes, confidence) for run, record in runs.items()}
    same = len(runs) > 1 and len({str(cells) for cells in alone.values()}) == 1
    if same:
        yield {"run": "all runs", "rows": [next(iter(alone.values()))]}
    for run, record in runs.items():
        rows = [] if same else [alone[run]]
        for layer in dict.fromkeys(row["layer"] for row in record["probes"]):
            own = [row for row in record["probes"] if row["layer"] == layer]
            seeds = len({row["seed"] for row in own})
            cells = [one.cell(own, stratum, confidence) for one in attributes for stratum in ("all", "label")]
            note = "" if seeds == len(record["seeds"]) else f"{counted(seeds, 'seed')} of {len(record['seeds'])}"
            rows.append({"name": layer, "note": note, "cells": cells})
        yield {"run": run, "rows": rows}


def _label_alone(record: Record, attributes: Sequence[_Attribute], confidence: float) -> Record:
    cells = []
    for own in attributes:
        cells += [
            own.cell(record["label_alone"], "all", confidence),
            cell_of("0.5", words=["by definition"], quiet=True),
        ]
    return {"name": _LABEL_ALONE, "note": "", "cells": cells}


def _pictures(run: str, record: Record, cases: Record, *, least: int, show_small: bool) -> Record:
    """Figures of a run's first seed: one to be seen at once, the others folded, and why some are absent."""
    figures, absent = [], []
    for picture in record["pictures"]:
        layer = picture["layer"]
        name = f"{layer} of {run}, seed {picture['seed']}"
        svg = embedding_figure(picture, cases, name=name, least=least, show_small=show_small)
        if svg is not None:
            figures.append({"layer": layer, "svg": svg})
        elif picture["reason"]:
            absent.append(f"{layer} ({picture['reason']})")
    figures.sort(key=lambda figure: figure["layer"] not in _FIRST)
    return {"run": run, "seed": record["seeds"][0], "first": figures[:1], "others": figures[1:], "absent": absent}
