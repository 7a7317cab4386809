"""Curves of every group of one attribute in one run: ROC, precision-recall, calibration, threshold sweep."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from monai_fair.report.masking import Mask
from monai_fair.report.quantities import Record, as_float, joined
from monai_fair.report.svg import COLOURS, LINES, PALE, figure_style, plain, to_svg

# Up to so many groups are drawn over each other; more have a row each, with the others in grey behind.
_TOGETHER = 3
_WIDTH, _LEFT, _RIGHT, _BETWEEN = 10.2, 0.55, 0.1, 0.5
_TOP, _BOTTOM, _TITLE, _LEGEND = 0.1, 0.5, 0.3, 0.2
_GREY = "#8a97a3"
_PANELS = ("ROC", "Precision and recall", "Calibration", "Threshold")
_AXES = (
    ("false positive rate", "true positive rate"),
    ("recall", "precision"),
    ("mean score", "share positive"),
    ("threshold", "TPR (line), FPR (dashes)"),
)


@dataclass(frozen=True)
class Line:
    """One group as it is drawn: its curves, colour, dashes and name."""

    curves: Record
    colour: str
    dashes: str
    name: str


def curve_figure(results: Record, target: Record, table: Record, run: str, mask: Mask) -> Record:
    """Draw the curves of one attribute's groups in one run.

    Args:
        results: of the audit.
        target: of the results.
        table: of one attribute.
        run: whose curves.
        mask: of the table; groups whose values are masked are not drawn.

    Returns:
        ``svg``, or None when no group can be drawn, and ``absent``: names of the groups that are not drawn.
    """
    lines, absent = [], []
    for index, row in enumerate(table["groups"]):
        curves = row["curves"].get(run)
        if curves is None or mask.hides_values(row):
            absent.append(row["name"])
            continue
        colour, dashes = COLOURS[index % len(COLOURS)], LINES[(index // len(COLOURS)) % len(LINES)]
        positives = "" if mask.hides_classes(row) else f", {mask.positives(row)} positive"
        name = f"{plain(row['name'], 34)} (n {mask.n(row)}{positives})"
        lines.append(Line(curves, colour, dashes, name))
    if not lines:
        return {"run": run, "svg": None, "absent": absent}
    label = (
        f"Curves of {joined([line.name for line in lines])} for {run}: ROC, precision and recall, calibration, and "
        "rates at each threshold, with bands of uncertainty; values at the thresholds are in the tables"
    )
    thresholds = sorted({as_float(v) for rule in target["thresholds"][run].values() for v in rule["by_seed"]})
    painter = _Painter(results["curve_grid"], thresholds, mask)
    with figure_style(f"curves {target['name']} {table['name']} {run}"):
        return {"run": run, "svg": to_svg(_figure(lines, painter), label), "absent": absent}


@dataclass(frozen=True)
class _Painter:
    """Draws one group into one panel."""

    grid: Sequence[float]
    thresholds: Sequence[float]
    mask: Mask

    def panels(self) -> tuple[Callable[[Any, Line, float], None], ...]:
        return self.roc, self.precision, self.calibration, self.sweep

    def roc(self, axis: Any, line: Line, shift: float) -> None:
        self._band(axis, line.curves["roc"], line, line.dashes)

    def precision(self, axis: Any, line: Line, shift: float) -> None:
        self._band(axis, line.curves["pr"], line, line.dashes)

    def calibration(self, axis: Any, line: Line, shift: float) -> None:
        bins = [own for own in line.curves["calibration"] if not self.mask.small(own["n"])]
        x = [own["mean_score"] + shift for own in bins]
        axis.vlines(x, [own["low"] for own in bins], [own["high"] for own in bins], color=line.colour, linewidth=1)
        axis.plot(x, [own["observed"] for own in bins], "o", color=line.colour, markersize=3)

    def sweep(self, axis: Any, line: Line, shift: float) -> None:
        self._band(axis, line.curves["sweep"]["tpr"], line, "-")
        self._band(axis, line.curves["sweep"]["fpr"], line, "--")

    def behind(self, axes: Sequence[Any], line: Line) -> None:
        """Draw a group in grey, without band."""
        curves = line.curves
        parts = ((0, curves["roc"]), (1, curves["pr"]), (3, curves["sweep"]["tpr"]), (3, curves["sweep"]["fpr"]))
        for panel, curve in parts:
            value = [as_float(v) for v in curve["value"]]
            axes[panel].plot(self.grid[::4], value[::4], color=PALE, linewidth=0.8)

    def ground(self, axes: Sequence[Any]) -> None:
        """Draw what stands behind the curves: diagonals and thresholds."""
        for panel in (0, 2):
            axes[panel].plot([0, 1], [0, 1], color=_GREY, linewidth=0.6)
        for threshold in self.thresholds:
            if 0 <= threshold <= 1:
                axes[3].axvline(threshold, color=_GREY, linewidth=0.6)

    def _band(self, axis: Any, curve: Record, line: Line, dashes: str) -> None:
        low, high, value = ([as_float(v) for v in curve[key]] for key in ("low", "high", "value"))
        axis.fill_between(self.grid, low, high, color=line.colour, alpha=0.13, linewidth=0)
        axis.plot(self.grid, value, color=line.colour, linestyle=dashes, linewidth=1.3)


def _figure(lines: Sequence[Line], painter: _Painter) -> Figure:
    together = len(lines) <= _TOGETHER
    rows = [list(lines)] if together else [[line] for line in lines]
    side = (_WIDTH - _LEFT - _RIGHT - 3 * _BETWEEN) / 4
    high = side if together else 0.72 * side
    head = _LEGEND * len(lines) + 0.1 if together else _LEGEND
    step = high + _TITLE + (0.0 if together else 0.12)
    height = _TOP + head + step * len(rows) + _BOTTOM
    figure = Figure(figsize=(_WIDTH, height))
    for number, shown in enumerate(rows):
        bottom = height - _TOP - head - (number + 1) * step + (step - _TITLE - high)
        axes = [
            figure.add_axes((_box(panel, side) / _WIDTH, bottom / height, side / _WIDTH, high / height))
            for panel in range(4)
        ]
        painter.ground(axes)
        for line in () if together else [other for other in lines if other not in shown]:
            painter.behind(axes, line)
        for place, line in enumerate(shown):
            for axis, paint in zip(axes, painter.panels(), strict=True):
                paint(axis, line, 0.015 * (place - (len(shown) - 1) / 2))
        _dress(axes, last=number == len(rows) - 1, title="" if together else shown[0].name)
    if not together:
        for panel, name in enumerate(_PANELS):
            figure.text(_box(panel, side) / _WIDTH, 1 - (_TOP + 0.08) / height, name, fontsize=9, va="center")
    else:
        for number, line in enumerate(lines):
            _key(figure, line, 1 - (_TOP + _LEGEND * (number + 0.5)) / height)
    return figure


def _box(panel: int, side: float) -> float:
    return _LEFT + panel * (side + _BETWEEN)


def _dress(axes: Sequence[Any], *, last: bool, title: str) -> None:
    """Give a row of panels its titles, limits and labels."""
    for axis, name, (x, y) in zip(axes, _PANELS, _AXES, strict=True):
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        ticks = (0, 0.5, 1)
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks] if last else [""] * 3)
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.tick_params(labelsize=8, length=2.5)
        axis.set_ylabel(y, fontsize=8, labelpad=2)
        if last:
            axis.set_xlabel(x, fontsize=8, labelpad=2)
        if not title:
            axis.set_title(name, loc="left", fontsize=9, fontweight="bold")
    if title:
        axes[0].set_title(title, loc="left", fontsize=9, fontweight="bold")


def _key(figure: Figure, line: Line, y: float) -> None:
    """Write one entry of the legend: a stroke and the group's name."""
    start, stop = _LEFT / _WIDTH, (_LEFT + 0.35) / _WIDTH
    figure.add_artist(Line2D([start, stop], [y, y], color=line.colour, linestyle=line.dashes, linewidth=1.8))
    figure.text(stop + 0.008, y, line.name, va="center", fontsize=8.5)
