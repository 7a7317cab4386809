"""Distributions over subjects: a box of quartiles and a dot per subject, for every measure and stage."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from monai_fair.report.registration_measures import MEASURES, Measure, stages_of
from monai_fair.report.registration_table import stage_values
from monai_fair.report.svg import COLOURS, INK, PALE, figure_style, to_svg

DOTS = 200  # at most in a row: more would hide each other and make the page large
_COLUMNS = 3
_GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples spread evenly in [0, 1): dots of neighbouring ranks stand apart
_MARKS = {"Best": "^", "Only": "D", "Median": "D", "Worst": "v"}


def distribution_figure(table: pd.DataFrame, shown: Mapping[str, str]) -> Markup | None:
    """Draw every measure that differs between subjects: a panel each, with a row per stage.

    Args:
        table: of subjects that were registered.
        shown: rank of each subject that has pictures, by ``subject_id``; it has a mark of its own.

    Returns:
        The figure, or None if there is nothing to draw.
    """
    stages = stages_of([str(name) for name in table])
    found = [(measure, stage_values(table, measure, stages)) for measure in MEASURES]
    # what all subjects share stands in the table
    drawn = [(measure, rows) for measure, rows in found if any(values.nunique() > 1 for _, values in rows)]
    if not drawn:
        return None
    ranks = table["subject_id"].map(shown).fillna("")
    lines = math.ceil(len(drawn) / _COLUMNS)
    with figure_style("registration"):
        figure = Figure(figsize=(9.6, 0.4 + lines * (0.55 + 0.28 * len(stages))), layout="constrained")
        axes = figure.subplots(lines, _COLUMNS, squeeze=False, sharey=True).ravel()
        for axis, (measure, rows) in zip(axes, drawn, strict=False):
            _panel(axis, measure, rows, ranks)
            axis.set_yticks(range(len(stages)), [stage.name for stage in stages])
            axis.set_ylim(len(stages) - 0.45, -0.55)
        for axis in axes[len(drawn) :]:
            axis.set_axis_off()
        figure.legend(handles=_handles(ranks), loc="outside upper right", ncols=5, fontsize=8)
        names = ", ".join(measure.name for measure, _ in drawn)
        return to_svg(figure, f"Distribution over {len(table)} subjects of {names}; quartiles are in the table")


def _panel(axis: Any, measure: Measure, rows: Sequence[tuple[int, pd.Series]], ranks: pd.Series) -> None:
    for place, values in rows:
        _row(axis, place, values.sort_values() * measure.scale, ranks)
    axis.set_title(measure.head, fontsize=8.5, loc="left")
    axis.tick_params(labelsize=8, length=2.5)
    axis.margins(x=0.06)
    axis.locator_params(axis="x", nbins=4)
    axis.grid(axis="x", color=PALE, linewidth=0.6)
    axis.set_axisbelow(True)


def _row(axis: Any, place: int, values: pd.Series, ranks: pd.Series) -> None:
    """Draw one stage of one measure; ``values`` in ascending order."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    axis.barh(place, high - low, left=low, height=0.72, color=PALE)
    axis.vlines(middle, place - 0.36, place + 0.36, color=INK, linewidth=1.4)
    kept = values.iloc[np.unique(np.linspace(0, len(values) - 1, min(len(values), DOTS)).round().astype(int))]
    height = place + 0.56 * (np.arange(len(kept)) * _GOLDEN % 1 - 0.5)
    axis.plot(kept, height, ".", color=COLOURS[0], markersize=4, alpha=0.75, markeredgewidth=0)
    for rank, mark in _MARKS.items():
        own = values[ranks[values.index] == rank]
        axis.plot(own, [place] * len(own), mark, color=COLOURS[1], markersize=5, markeredgecolor="white", mew=0.5)


def _handles(ranks: pd.Series) -> list[Any]:
    present = [rank for rank in _MARKS if (ranks == rank).any()]
    marks = [
        Line2D([], [], linestyle="", marker=_MARKS[rank], color=COLOURS[1], label=f"{rank} subject") for rank in present
    ]
    dot = Line2D([], [], linestyle="", marker=".", color=COLOURS[0], label="a subject")
    return [dot, Patch(color=PALE, label="quartiles and median"), *marks]
