"""Performance and gaps against the values of a parameter, as a figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from monai_fair.report.quantities import Quantity, Record, as_float, primary_rule, quantity, rule_words
from monai_fair.report.svg import COLOURS, INK, PALE, figure_style, plain, to_svg

_GREY = "#6b7883"


@dataclass(frozen=True)
class _Curve:
    """Values of a quantity in the runs of the sweep, the first run of the audit beside them, and chance.

    Attributes:
        colour: of its line.
        records: one per run, each with ``value`` and ``seeds``; gaps have ``chance``.
        baseline: record of the first run where it is not part of the sweep.
    """

    colour: str
    records: list[Record]
    baseline: Record | None


def swept_tables(results: Record, target: Record) -> list[Record]:
    """Return the tables whose gaps are drawn: that of all attributes together, else one per attribute."""
    attributes = results["settings"]["attributes"]
    joint = [table for table in target["tables"] if len(table["attributes"]) == len(attributes)]
    return joint or [table for table in target["tables"] if len(table["attributes"]) == 1]


def sweep_figure(results: Record, target: Record, sweep: Record, *, masked: bool) -> Markup:
    """Draw AUC, accuracy, and the gaps in equalized odds and AUC against the values of the parameter.

    Args:
        results: of the audit.
        target: of the results.
        sweep: ``parameter``, and ``runs`` in the order of their values.
        masked: whether values of all cases are hidden.
    """
    rule, runs = primary_rule(results, target), list(sweep["runs"])
    first = None if results["baseline"] in runs else results["baseline"]
    tables = swept_tables(results, target)
    with figure_style(f"sweep {target['name']}"):
        figure = Figure(figsize=(9.6, 2.75), layout="constrained")
        axes = figure.subplots(1, 4)
        for axis, key in zip(axes, ("auc", f"accuracy@{rule}", f"equalized_odds@{rule}", "auc"), strict=True):
            of_gap = axis in axes[2:]
            sources = [table["gaps"] for table in tables] if of_gap else [target["overall"]["cells"]]
            curves = [
                _Curve(COLOURS[i % len(COLOURS)], [own[run][key] for run in runs], own[first][key] if first else None)
                for i, own in enumerate(sources)
            ]
            _draw(axis, [] if masked and not of_gap else curves, quantity(key), of_gap=of_gap)
            axis.set_xticks(range(len(runs)), [f"{sweep['runs'][run]:g}" for run in runs], fontsize=8)
            axis.set_xlabel(plain(sweep["parameter"], 26), fontsize=8)
        figure.legend(handles=_handles(tables, first), loc="outside upper left", ncols=4, fontsize=8)
        label = (
            f"AUC, accuracy, gap in equalized odds and gap in AUC at {rule_words(rule, target)} against "
            f"{sweep['parameter']} for {target['name']}; the same numbers are in the tables"
        )
        return to_svg(figure, label)


def _draw(axis: Any, curves: Sequence[_Curve], drawn: Quantity, *, of_gap: bool) -> None:
    scale = 100 if drawn.percent else 1
    for place, curve in enumerate(curves):
        shift = 0.07 * (place - (len(curves) - 1) / 2)
        x = [number + shift for number in range(len(curve.records))]
        values = [scale * as_float(record["value"]) for record in curve.records]
        low, high = ([scale * as_float(record["seeds"][end]) for record in curve.records] for end in ("low", "high"))
        axis.vlines(x, low, high, color=curve.colour, linewidth=1.2)
        axis.plot(x, values, "o-", color=curve.colour, markersize=4, linewidth=1.3)
        if of_gap:
            chance = [scale * as_float(record["chance"]) for record in curve.records]
            axis.plot(x, chance, ":", color=curve.colour if len(curves) > 1 else _GREY, linewidth=1.2)
        if curve.baseline and not math.isnan(as_float(curve.baseline["value"])):
            colour = curve.colour if len(curves) > 1 else INK
            axis.axhline(scale * as_float(curve.baseline["value"]), color=colour, linewidth=0.9, linestyle="--")
    if not curves:
        axis.text(0.5, 0.5, "masked", transform=axis.transAxes, ha="center", style="italic")
    unit = (", points" if of_gap else ", %") if drawn.percent else ""
    axis.set_title(f"{'Gap in ' if of_gap else ''}{drawn.name}{unit}", loc="left", fontsize=9)
    if of_gap:
        axis.set_ylim(bottom=0)
    axis.grid(axis="y", color=PALE, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", labelsize=8)


def _handles(tables: Sequence[Record], first: str | None) -> list[Line2D]:
    handles = []
    if len(tables) > 1:
        handles = [
            Line2D([], [], color=COLOURS[i % len(COLOURS)], marker="o", markersize=4, label=f"\u200b{plain(t['name'])}")
            for i, t in enumerate(tables)
        ]
    else:
        handles = [Line2D([], [], color=COLOURS[0], marker="o", markersize=4, label="runs of the sweep")]
    handles.append(Line2D([], [], color=_GREY, linestyle=":", label="gap expected by chance"))
    if first is not None:
        handles.append(Line2D([], [], color=INK, linestyle="--", label=f"\u200b{plain(first)}"))
    return handles
