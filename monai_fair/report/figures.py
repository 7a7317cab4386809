"""Figures of the page: gaps beside what chance makes, and concentration of the incidence."""

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from monai_fair.report.quantities import Quantity, Record, as_float, joined
from monai_fair.report.svg import COLOURS, INK, PALE, figure_style, plain, to_svg


def gap_figure(results: Record, target: Record, quantities: Sequence[Quantity]) -> Markup:
    """Draw the gap of every attribute: a dot per run with its interval over cases, over what chance makes.

    The band reaches from 0 to what 95 of 100 shuffles stay within, the tick is their mean.
    """
    tables, runs = target["tables"], [run["name"] for run in results["runs"]]
    with figure_style(f"gaps {target['name']}"):
        height = 1.1 + len(tables) * (0.2 + 0.24 * len(runs))
        figure = Figure(figsize=(9.6, height), layout="constrained")
        axes = figure.subplots(1, len(quantities), sharey=True, squeeze=False)[0]
        for axis, quantity in zip(axes, quantities, strict=True):
            for position, table in enumerate(tables):
                for offset, run in enumerate(runs):
                    _gap_marks(axis, table["gaps"][run][quantity.key], quantity, position, offset, len(runs))
            axis.set_xlabel(f"Gap in {quantity.name}" + (", percentage points" if quantity.percent else ""))
            axis.set_xlim(left=0)
            axis.grid(axis="x", color=PALE, linewidth=0.6)
            axis.set_axisbelow(True)
        axes[0].set_yticks(range(len(tables)), [plain(table["name"]) for table in tables])
        axes[0].set_ylim(len(tables) - 0.45, -0.55)
        figure.legend(handles=_run_handles(axes[0], runs), loc="outside upper right", ncols=len(runs) + 1)
        label = f"Gap between groups by attribute for {joined(runs)}; the same numbers are in the tables of gaps"
        return to_svg(figure, label)


def _gap_marks(axis: Any, gap: Record, quantity: Quantity, position: int, offset: int, runs: int) -> None:
    value = as_float(gap["value"])
    if math.isnan(value):
        return
    scale = 100 if quantity.percent else 1
    y = position + (offset - (runs - 1) / 2) * 0.8 / runs
    half = 0.3 / runs
    axis.barh(y, as_float(gap["chance_high"]) * scale, height=2 * half, color=PALE)
    axis.vlines(as_float(gap["chance"]) * scale, y - half, y + half, color="#8a97a3", linewidth=1.2)
    low, high = as_float(gap["low"]), as_float(gap["high"])
    colour = COLOURS[offset % len(COLOURS)]
    if not math.isnan(low):
        axis.hlines(y, low * scale, high * scale, color=colour, linewidth=1.5)
    axis.plot(value * scale, y, marker="os^Dv"[offset % 5], color=colour, markersize=5.5)


def _run_handles(axis: Any, runs: Sequence[str]) -> list[Any]:
    handles = [
        axis.plot([], [], marker="os^Dv"[i % 5], color=COLOURS[i % len(COLOURS)], label=f"\u200b{plain(run)}")[0]
        for i, run in enumerate(runs)
    ]
    return [*handles, Patch(color=PALE, label="by chance (95 of 100 shuffles)")]


def concentration_figure(incidence: Record, measures: Sequence[tuple[str, str]]) -> Markup:
    """Draw how concentrated each run's incidence is: one panel per measure, one bar per run, a dot per seed.

    Args:
        incidence: section of each run, by name.
        measures: key and name of each measure.
    """
    runs = list(incidence)
    with figure_style("concentration"):
        figure = Figure(figsize=(9.6, 2.5), layout="constrained")
        for index, (axis, (key, name)) in enumerate(
            zip(figure.subplots(1, len(measures), squeeze=False)[0], measures, strict=True)
        ):
            for position, run in enumerate(runs):
                values = [
                    as_float(entry[key])
                    for entry in incidence[run]["concentration"]
                    if entry["direction"] == "positive"
                ]
                axis.bar(
                    position, sum(values) / len(values), width=0.62, color=COLOURS[position % len(COLOURS)], alpha=0.75
                )
                axis.plot([position] * len(values), values, ".", color=INK, markersize=4)
            axis.set_title(name, fontsize=8.5)
            axis.set_xticks(range(len(runs)), [plain(run, 12) for run in runs], fontsize=8)
            axis.tick_params(axis="y", labelsize=7.5)
            if index == 0:
                axis.set_ylabel("mean and seeds")
        return to_svg(figure, f"Concentration of the incidence over channels for {joined(runs)}; values in the table")
