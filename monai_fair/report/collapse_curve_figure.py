"""Measures of neural collapse over the epochs of training: mean and spread over seeds, clean beside biased."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from monai_fair.report.collapse_words import ARMS, PARTS, measure_name
from monai_fair.report.quantities import Record, as_float, joined
from monai_fair.report.svg import COLOURS, PALE, figure_style, plain, to_svg

DASHES = dict(zip(ARMS, ("--", "-"), strict=True))
_COLOUR = dict(zip(ARMS, COLOURS[:2], strict=True))
_WIDTH, _HEIGHT = 10.2, 1.75  # inches; the second of a row
_FEW_DECADES = 1.7  # of a logarithmic axis, below which more than powers of ten have labels
_LEAST_SPAN = 0.01  # of an axis, as a share of its values
_MOST = 120  # epochs that are drawn: more would only make the page larger
Key = tuple[str, str, str, str, str]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """What one column of panels shows.

    Attributes:
        part: of the data.
        measure: drawn in it.
        log: whether a positive measure has a logarithmic axis.
    """

    part: str
    measure: str
    log: bool = False


@dataclass(frozen=True)
class Curve:
    """One line with its band.

    Attributes:
        epochs: shape ``(e,)``.
        mean: over seeds.
        sd: over seeds.
        colour: of the line.
        dashes: of the line.
    """

    epochs: FloatArray
    mean: FloatArray
    sd: FloatArray
    colour: str
    dashes: str


def curve_index(curves: Sequence[Record]) -> dict[Key, Record]:
    """Return the curves by experiment, arm, part, group and measure."""
    return {tuple(own[key] for key in ("experiment", "arm", "part", "group", "measure")): own for own in curves}


def curve_figure(
    index: Mapping[Key, Record], experiments: Sequence[Record], columns: Sequence[Column], *, name: str, groups: bool
) -> Record:
    """Draw a row of panels per experiment and a column per measure.

    Args:
        index: of :func:`curve_index`.
        experiments: of the results.
        columns: what is drawn; those that no experiment has are left out.
        name: of the figure.
        groups: a line per group of the attribute, without bands, instead of one line of all samples.

    Returns:
        ``svg``, or None where there is nothing to draw; ``absent``, curves that are not there; ``holes``, epochs at
        which a curve that is there has no value.
    """
    wanted = [(own, column) for own in experiments for column in columns]
    panels = {(own["name"], column): _curves(index, own, column, groups=groups) for own, column in wanted}
    expected = sum(len(ARMS) * (len(own["groups"]) if groups else 1) for own, _ in wanted)
    drawn = [curve for curves in panels.values() for curve in curves]
    counts = {"absent": expected - len(drawn), "holes": sum(int(np.isnan(curve.mean).sum()) for curve in drawn)}
    shown = [column for column in columns if any(panels[own["name"], column] for own in experiments)]
    if not shown:
        return {"svg": None, **counts}
    with figure_style(name):
        figure = Figure(figsize=(_WIDTH, _HEIGHT * len(experiments) + 0.75), layout="constrained")
        axes = figure.subplots(len(experiments), len(shown), squeeze=False, sharex="row")
        for row, own in enumerate(experiments):
            for place, column in enumerate(shown):
                axis = axes[row, place]
                _draw(axis, panels[own["name"], column], own["early_epochs"], log=column.log, bands=not groups)
                _dress(axis, column, top=row == 0, last=row == len(experiments) - 1)
            axes[row, 0].set_ylabel(plain(own["name"], 24), fontsize=8.5, fontweight="bold")
            if groups:
                _name_groups(axes[row, -1], own)
        figure.legend(handles=_handles(groups=groups), loc="outside upper left", ncols=4, fontsize=8)
        return {"svg": to_svg(figure, _label(name, shown, experiments, groups=groups)), **counts}


def _label(name: str, shown: Sequence[Column], experiments: Sequence[Record], *, groups: bool) -> str:
    what = joined([f"{measure_name(column.measure)} of {PARTS[column.part]}" for column in shown])
    where = joined([own["name"] for own in experiments])
    spread = "mean over seeds by group" if groups else "mean and standard deviation over seeds"
    return f"{name}: {what} over the epochs, {' and '.join(ARMS)}, {spread}, for {where}"


def _curves(index: Mapping[Key, Record], experiment: Record, column: Column, *, groups: bool) -> list[Curve]:
    """Return the lines of a panel: the arms by colour, or groups by colour and arms by dashes."""
    found = []
    for place, group in enumerate(experiment["groups"] if groups else [""]):
        for arm in ARMS:
            record = index.get((experiment["name"], arm, column.part, group, column.measure))
            if record is None or not record["epochs"]:
                continue
            keep = np.unique(np.linspace(0, len(record["epochs"]) - 1, _MOST).round().astype(int))
            epochs, mean, sd = (np.array([as_float(v) for v in record[key]])[keep] for key in ("epochs", "mean", "sd"))
            if not np.isnan(mean).all():
                colour = COLOURS[place % len(COLOURS)] if groups else _COLOUR[arm]
                found.append(Curve(epochs, mean, sd, colour, DASHES[arm]))
    return found


def _draw(axis: Any, curves: Sequence[Curve], early: Mapping[str, Sequence[float]], *, log: bool, bands: bool) -> None:
    if not curves:
        axis.text(0.5, 0.5, "undefined", transform=axis.transAxes, ha="center", style="italic", fontsize=8)
        axis.set(xticks=(), yticks=())
        return
    means = np.concatenate([curve.mean for curve in curves])
    positive = log and bool(np.nanmin(means) > 0)
    floor = _floor(curves) if positive else -math.inf
    for curve in curves:
        if bands:
            low = np.maximum(curve.mean - curve.sd, floor)
            axis.fill_between(curve.epochs, low, curve.mean + curve.sd, color=curve.colour, alpha=0.14, linewidth=0)
        dot = "o" if curve.epochs.size == 1 else ""  # one epoch makes no line
        axis.plot(
            curve.epochs,
            curve.mean,
            color=curve.colour,
            linestyle=curve.dashes,
            linewidth=1.3,
            marker=dot,
            markersize=3,
        )
    if positive:
        _logarithmic(axis, floor)
    else:
        _linear(axis)
    _mark_early(axis, early)


def _logarithmic(axis: Any, floor: float) -> None:
    """Make an axis logarithmic; its usual labels are formulas, which the page does not write."""
    axis.set_yscale("log")
    axis.set_ylim(bottom=floor)
    decades = math.log10(axis.get_ylim()[1] / floor)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < _FEW_DECADES else (1,)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def _linear(axis: Any) -> None:
    """Keep rounding errors of a constant from filling the panel."""
    low, high = axis.get_ylim()
    least = _LEAST_SPAN * max(abs(low), abs(high))
    if high - low < 2 * least:
        axis.set_ylim((low + high) / 2 - least, (low + high) / 2 + least)
    axis.ticklabel_format(axis="y", useOffset=False)


def _floor(curves: Sequence[Curve]) -> float:
    """Return where a logarithmic axis ends: below every mean, and not at the end of a band that reaches 0."""
    return float(0.6 * min(np.nanmin(curve.mean) for curve in curves))


def _mark_early(axis: Any, early: Mapping[str, Sequence[float]]) -> None:
    """Mark at the bottom when early stopping kept the model: the range over seeds, and the median."""
    for place, arm in enumerate(ARMS):
        epochs = [as_float(epoch) for epoch in early[arm] if not math.isnan(as_float(epoch))]
        if not epochs:
            continue
        y = 0.035 + 0.065 * place
        ground = axis.get_xaxis_transform()
        axis.plot([min(epochs), max(epochs)], [y, y], color=_COLOUR[arm], linewidth=2.2, alpha=0.55, transform=ground)
        axis.plot([float(np.median(epochs))], [y], "D", color=_COLOUR[arm], markersize=4, transform=ground)


def _dress(axis: Any, column: Column, *, top: bool, last: bool) -> None:
    if top:
        axis.set_title(f"{measure_name(column.measure)}\n{PARTS[column.part]}", loc="left", fontsize=8.5)
    if last:
        axis.set_xlabel("epoch", fontsize=8)
    axis.tick_params(labelsize=7.5, length=2.5)
    axis.grid(color=PALE, linewidth=0.5)
    axis.set_axisbelow(True)


def _name_groups(axis: Any, experiment: Record) -> None:
    handles = [
        Line2D([], [], color=COLOURS[place % len(COLOURS)], label=f"\u200b{plain(group, 22)}")
        for place, group in enumerate(experiment["groups"])
    ]
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), fontsize=7.5)


def _handles(*, groups: bool) -> list[Line2D | Patch]:
    colours = dict.fromkeys(ARMS, "#6b7883") if groups else _COLOUR
    lines: list[Line2D | Patch] = [
        Line2D([], [], color=colours[arm], linestyle=DASHES[arm], linewidth=1.5, label=arm) for arm in ARMS
    ]
    band = Patch(color="#6b7883", alpha=0.2, linewidth=0, label="standard deviation over seeds")
    mark = Line2D([], [], color="#6b7883", marker="D", markersize=4, linewidth=2.2, alpha=0.8,
                  label="early stopping: median and range")  # fmt: skip
    return [*lines, mark] if groups else [*lines, band, mark]
