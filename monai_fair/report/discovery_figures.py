"""How common the label is in every subgroup and split: a dot with its interval, as a figure."""

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from monai_fair.report.discovery_tables import Part, prevalence
from monai_fair.report.quantities import level_text
from monai_fair.report.svg import COLOURS, PALE, figure_style, plain, to_svg

_MARKERS = "os^Dv"


def prevalence_figure(parts: Sequence[Part], names: Sequence[str], confidence: float) -> Markup | None:
    """Draw the prevalence of the label by subgroup, a row per split; what is masked is left out.

    Args:
        parts: of :func:`~monai_fair.report.discovery_tables.parts_of`.
        names: of the subgroups.
        confidence: of the intervals.

    Returns:
        The figure, or None if nothing may be drawn.
    """
    found = [
        (part.split, [prevalence(row, part.label_mask, confidence) for row in part.labels or ()]) for part in parts
    ]
    shown = [(plain(split), rows) for split, rows in found if any(not math.isnan(value) for value, _, _ in rows)]
    if not shown:
        return None
    with figure_style("discovered prevalence"):
        figure = Figure(figsize=(5.0, 0.9 + len(shown) * (0.26 + 0.2 * len(names))), layout="constrained")
        axis = figure.subplots()
        for position, (_, rows) in enumerate(shown):
            _marks(axis, rows, position)
        axis.set_xlim(0, 100)
        axis.set_xlabel("Positive, %")
        axis.set_yticks(range(len(shown)), [split for split, _ in shown])
        axis.set_ylim(len(shown) - 0.45, -0.55)
        axis.grid(axis="x", color=PALE, linewidth=0.6)
        axis.set_axisbelow(True)
        handles = [
            axis.plot([], [], marker=_MARKERS[k % 5], color=COLOURS[k % len(COLOURS)], label=f"\u200b{plain(name)}")[0]
            for k, name in enumerate(names)
        ]
        figure.legend(handles=handles, loc="outside upper right", ncols=min(len(names), 6))
        level = level_text(confidence)
        splits = ", ".join(split for split, _ in shown)
        label = f"Share of positive subjects in every subgroup by split ({splits}), with {level} intervals"
        return to_svg(figure, f"{label}; the same numbers are in the table below")


def _marks(axis: Any, rows: Sequence[tuple[float, float, float]], position: int) -> None:
    for number, (value, low, high) in enumerate(rows):
        if math.isnan(value):
            continue
        y = position + (number - (len(rows) - 1) / 2) * 0.6 / len(rows)
        colour = COLOURS[number % len(COLOURS)]
        axis.hlines(y, low, high, color=colour, linewidth=1.5)
        axis.plot(value, y, marker=_MARKERS[number % 5], color=colour, markersize=5.5)
