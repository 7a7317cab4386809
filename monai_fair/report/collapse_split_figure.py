"""How well an attribute is read off features, against how well it is seen in the images: Fig. 3 of the study."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from monai_fair.report.collapse_words import ARMS, CHECKPOINTS, chosen
from monai_fair.report.quantities import Record, as_float, joined
from monai_fair.report.svg import COLOURS, INK, PALE, figure_style, plain, to_svg

_MARKERS = "os^DvPX"
_COLOUR = dict(zip(ARMS, COLOURS[:2], strict=True))
_GREY = "#8a97a3"


def split_figure(points: Sequence[Record], experiments: Sequence[str]) -> Record:
    """Draw the AUC of the SPLIT test against separability, early and final, of every experiment and arm.

    Args:
        points: of the results.
        experiments: names, in the order of markers.

    Returns:
        ``svg``; ``undefined``, points that are not drawn; ``n``, points.
    """
    drawn = [point for point in points if not any(map(math.isnan, _place(point)))]
    with figure_style("split"):
        figure = Figure(figsize=(8.2, 4.1), layout="constrained")
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        low, high = _limits(drawn)
        for axis, checkpoint in zip(axes, CHECKPOINTS, strict=True):
            axis.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8)
            axis.axhline(0.5, color=PALE, linewidth=1)
            axis.axvline(0.5, color=PALE, linewidth=1)
            for point in chosen(drawn, checkpoint=checkpoint):
                _draw(axis, point, _MARKERS[list(experiments).index(point["experiment"]) % len(_MARKERS)])
            axis.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel="separability (AUC)")
            axis.set_title(checkpoint, loc="left", fontsize=9, fontweight="bold")
            axis.tick_params(labelsize=8, length=2.5)
        axes[0].set_ylabel("SPLIT test (AUC)")
        figure.legend(handles=_handles(experiments), loc="outside right upper", fontsize=8)
        label = (
            "Fig. 3: AUC of the SPLIT test against separability, early and final, clean and biased, for "
            f"{joined(list(experiments))}; the same numbers are in the tables"
        )
        return {"svg": to_svg(figure, label), "undefined": len(points) - len(drawn), "n": len(points)}


def _place(point: Record) -> tuple[float, float]:
    return as_float(point["separability_mean"]), as_float(point["split_mean"])


def _reach(point: Record) -> tuple[float, float]:
    """Return half the length of the error bars; 0 where there is no standard deviation."""
    reach = [as_float(point[key]) for key in ("separability_sd", "split_sd")]
    return 0.0 if math.isnan(reach[0]) else reach[0], 0.0 if math.isnan(reach[1]) else reach[1]


def _limits(points: Sequence[Record]) -> tuple[float, float]:
    ends = [
        at + sign * by
        for point in points
        for at, by in zip(_place(point), _reach(point), strict=True)
        for sign in (-1, 1)
    ]
    return min([0.45, *(end - 0.03 for end in ends)]), max([1.02, *(end + 0.02 for end in ends)])


def _draw(axis: Any, point: Record, marker: str) -> None:
    (x, y), (dx, dy), colour = _place(point), _reach(point), _COLOUR[point["arm"]]
    axis.plot([x - dx, x + dx], [y, y], color=colour, linewidth=1.1)
    axis.plot([x, x], [y - dy, y + dy], color=colour, linewidth=1.1)
    face = "#ffffff" if point["arm"] == ARMS[0] else colour
    axis.plot([x], [y], marker, color=colour, markerfacecolor=face, markersize=6.5, markeredgewidth=1.3)


def _handles(experiments: Sequence[str]) -> list[Line2D]:
    arms = [
        Line2D([], [], linestyle="", marker="o", color=_COLOUR[arm], label=arm, markeredgewidth=1.3,
               markerfacecolor="#ffffff" if arm == ARMS[0] else _COLOUR[arm])
        for arm in ARMS
    ]  # fmt: skip
    # a zero-width space keeps matplotlib from leaving out names that start with an underscore
    shapes = [
        Line2D([], [], linestyle="", marker=_MARKERS[place % len(_MARKERS)], color=INK, label=f"\u200b{plain(name)}")
        for place, name in enumerate(experiments)
    ]
    return [*arms, *shapes, Line2D([], [], color=_GREY, linewidth=0.8, label="equal")]
