"""Delta EO and FATE of every repeat of every finding, by arm, with means."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from monai_fair.report.quantities import joined
from monai_fair.report.svg import COLOURS, INK, PALE, figure_style, plain, to_svg

_MARKERS = "os^DvPX"
_ROW, _BETWEEN, _GREY = 0.17, 0.12, "#8a97a3"  # inches
_PANELS = (("delta_eo", "Delta EO, percentage points", 100.0), ("fate_eo", "FATE of accuracy and delta EO", 1.0))


def findings_figure(
    values: pd.DataFrame, averages: pd.DataFrame, findings: Sequence[str], arms: Sequence[str]
) -> Markup:
    """Draw delta EO and FATE_EO: of each arm a row per finding with a dot per repeat, and a row of means.

    Args:
        values: of :func:`~monai_fair.metrics.finding_averages.finding_values`.
        averages: of :func:`~monai_fair.metrics.finding_averages.average_findings`.
        findings: in the order of rows.
        arms: in the order of rows, the first one without FATE.
    """
    step = (len(findings) + 1) * _ROW + _BETWEEN
    height = 0.75 + len(arms) * step + 0.2 * (1 + len(findings) // 4)
    with figure_style("findings"):
        figure = Figure(figsize=(9.6, height), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, (name, title, scale) in zip(axes, _PANELS, strict=True):
            for number, arm in enumerate(arms):
                chosen = [table[(table["quantity"] == name) & (table["arm"] == arm)] for table in (values, averages)]
                _draw_arm(axis, chosen[0], chosen[1], findings, top=number * step, scale=scale)
            _dress(axis, title, zero=name == "fate_eo")
        axes[1].annotate(
            "the arm the others are compared with", (0, _ROW * len(findings) / 2), (4, 0), textcoords="offset points",
            va="center", fontsize=8, style="italic", color=_GREY,
        )  # fmt: skip
        middle = [number * step + _ROW * len(findings) / 2 for number in range(len(arms))]
        axes[0].set_yticks(middle, [plain(arm, 30) for arm in arms])
        axes[0].set_ylim(len(arms) * step - _BETWEEN, -_ROW)
        figure.legend(handles=_handles(findings), loc="outside upper left", ncols=5, fontsize=8)
        label = f"Delta EO and FATE of each repeat of {joined(findings)}, and means, for {joined(arms)}"
        return to_svg(figure, f"{label}; the same numbers are in the tables")


def _draw_arm(
    axis: Any, values: pd.DataFrame, averages: pd.DataFrame, findings: Sequence[str], *, top: float, scale: float
) -> None:
    """Draw the rows of one arm; what is undefined is not drawn."""
    means = {
        finding: (scale * mean, scale * low, scale * high)
        for finding, mean, low, high in averages[["finding", "value", "low", "high"]].itertuples(index=False)
    }
    for place, finding in enumerate(findings):
        y, colour = top + place * _ROW, COLOURS[place % len(COLOURS)]
        own = scale * values.loc[values["finding"] == finding, "value"].dropna().to_numpy()
        axis.plot(own, [y] * len(own), _MARKERS[place % len(_MARKERS)], color=colour, markersize=4, alpha=0.65)
        mean = means[finding][0]
        if not math.isnan(mean):
            axis.vlines(mean, y - 0.4 * _ROW, y + 0.4 * _ROW, color=colour, linewidth=1.6)
    y, (mean, low, high) = top + len(findings) * _ROW, means[""]
    if not math.isnan(low):
        axis.hlines(y, low, high, color=INK, linewidth=1.5)
    if not math.isnan(mean):
        axis.plot(mean, y, "D", color=INK, markersize=5.5)


def _dress(axis: Any, title: str, *, zero: bool) -> None:
    axis.set_xlabel(title)
    axis.grid(axis="x", color=PALE, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
    if zero:
        axis.axvline(0, color=_GREY, linewidth=0.9)
    else:
        axis.set_xlim(left=0)


def _handles(findings: Sequence[str]) -> list[Line2D]:
    # a zero-width space keeps matplotlib from leaving out names that start with an underscore
    handles = [
        Line2D([], [], linestyle="", marker=_MARKERS[place % len(_MARKERS)], markersize=4.5,
               color=COLOURS[place % len(COLOURS)], label=f"\u200b{plain(finding)}")
        for place, finding in enumerate(findings)
    ]  # fmt: skip
    return [*handles, Line2D([], [], color=INK, marker="D", markersize=5, label="mean over findings")]
