"""Differences of the biased from the clean arm by experiment and group, early and final: Fig. 4 of the study."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from monai_fair.report.collapse_words import CHECKPOINTS, FEW, LEVEL, chosen, is_few
from monai_fair.report.quantities import Record, as_float, joined
from monai_fair.report.svg import COLOURS, INK, PALE, figure_style, plain, to_svg

_ROW, _BETWEEN, _GREY = 0.36, 0.2, "#8a97a3"  # inches
_COLOUR = {True: COLOURS[1], False: COLOURS[0]}  # of the under-diagnosed group, and of the others
_PANELS = (
    ("nc1_normalized", "test_to_train", "Normalised test NC1: biased minus clean"),
    ("f1", "test", "F1: biased minus clean"),
)
RAW_MARK, HOLM_MARK = "*", "★"


def drawn_rows(comparisons: Sequence[Record]) -> list[Record]:
    """Return the comparisons that are drawn: of single groups, normalised test NC1 around train means, and F1."""
    return [
        row
        for measure, part, _ in _PANELS
        for row in chosen(comparisons, measure=measure, part=part)
        if row["group"] != ""
    ]


def difference_figure(comparisons: Sequence[Record], experiments: Sequence[Record]) -> Record:
    """Draw the differences of both arms in normalised test NC1 and F1, of every group, early and final.

    Args:
        comparisons: of the results.
        experiments: of the results, in the order of rows.

    Returns:
        ``svg``; ``undefined``, differences that are not drawn; ``n``, differences.
    """
    rows = drawn_rows(comparisons)
    places = _places(experiments)
    bottom = max(places.values()) + _ROW
    with figure_style("differences"):
        figure = Figure(figsize=(9.6, bottom + 1.1), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for axis, (measure, part, title) in zip(axes, _PANELS, strict=True):
            for row in chosen(rows, measure=measure, part=part):
                own = next(one for one in experiments if one["name"] == row["experiment"])
                _draw(axis, row, places[row["experiment"], row["group"]], is_g1=row["group"] == own["group"])
            _dress(axis, title)
        names = [_row_name(own, group, rows) for own in experiments for group in own["groups"]]
        axes[0].set_yticks(list(places.values()), names, fontsize=8.5)
        axes[0].set_ylim(bottom, min(places.values()) - 1.5 * _ROW)
        for own in experiments:
            top = places[own["name"], own["groups"][0]]
            axes[0].annotate(
                plain(own["name"], 34), (0, top - 0.72 * _ROW), (-4, 0), xycoords=axes[0].get_yaxis_transform(),
                textcoords="offset points", ha="right", va="center", fontsize=9, fontweight="bold",
            )  # fmt: skip
        few = any(map(is_few, chosen(rows, measure="f1")))
        figure.legend(handles=_handles(few=few), loc="outside upper left", ncols=4, fontsize=8)
        label = (
            "Fig. 4: differences of the biased from the clean arm in normalised test NC1 and in F1, by group, early "
            f"and final, with intervals, for {joined([own['name'] for own in experiments])}; the table has the numbers"
        )
        missing = sum(math.isnan(as_float(row["difference"])) for row in rows)
        return {"svg": to_svg(figure, label), "undefined": missing, "n": len(rows)}


def _places(experiments: Sequence[Record]) -> dict[tuple[str, str], float]:
    """Return the height of every experiment's groups, in inches from the top; a name stands above each experiment."""
    places, y = {}, 0.0
    for own in experiments:
        y += _ROW + _BETWEEN
        for group in own["groups"]:
            places[own["name"], group] = y
            y += _ROW
    return places


def _row_name(experiment: Record, group: str, rows: Sequence[Record]) -> str:
    of_f1 = chosen(rows, experiment=experiment["name"], group=group, measure="f1")
    mark = " †" if any(map(is_few, of_f1)) else ""
    return f"{plain(group, 28)}{' (G1)' if group == experiment['group'] else ''}{mark}"


def _draw(axis: Any, row: Record, y: float, *, is_g1: bool) -> None:
    value, low, high = (as_float(row[key]) for key in ("difference", "low", "high"))
    if math.isnan(value):
        return
    final = row["checkpoint"] == CHECKPOINTS[1]
    y += (0.18 if final else -0.18) * _ROW
    colour = _COLOUR[is_g1]
    if not math.isnan(low):
        axis.plot([low, high], [y, y], color=colour, linewidth=1.4)
    axis.plot([value], [y], "o", color=colour, markerfacecolor=colour if final else "#ffffff", markersize=5)
    if mark := significance_mark(row):
        end = value if math.isnan(high) else high
        axis.annotate(mark, (end, y), (4, -1), textcoords="offset points", va="center", fontsize=9, color=INK)


def significance_mark(row: Record) -> str:
    """Return the mark of a comparison: of p after Holm's adjustment, else of p itself, else none."""
    if as_float(row["p_holm"]) < LEVEL:
        return HOLM_MARK
    return RAW_MARK if as_float(row["p"]) < LEVEL else ""


def _dress(axis: Any, title: str) -> None:
    axis.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axis.axvline(0, color=_GREY, linewidth=0.9)
    axis.grid(axis="x", color=PALE, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.margins(x=0.1)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)


def _handles(*, few: bool) -> list[Line2D]:
    looks = [
        (INK, "#ffffff", "early"), (INK, INK, "final"),
        (_COLOUR[True], _COLOUR[True], "under-diagnosed group (G1)"), (_COLOUR[False], _COLOUR[False], "other groups"),
    ]  # fmt: skip
    marks = [(RAW_MARK, f"p < {LEVEL:g}"), (HOLM_MARK, f"p < {LEVEL:g} after Holm")]
    marks += [("†", f"fewer than {FEW} test positives or negatives")] * few
    dots = [
        Line2D([], [], marker="o", markersize=5, color=colour, markerfacecolor=face, label=text)
        for colour, face, text in looks
    ]
    return [*dots, *(Line2D([], [], linestyle="", label=f"{mark}  {text}") for mark, text in marks)]
