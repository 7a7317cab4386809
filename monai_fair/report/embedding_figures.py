"""Features in the plane, as a figure: one panel per method and per what the dots are coloured by."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from monai_fair.metrics.groups import natural_order
from monai_fair.report.quantities import Record, as_float, joined
from monai_fair.report.svg import COLOURS, figure_style, plain, to_svg

_ACROSS, _SIDE = 4, 2.4  # panels in a row; inches
_OTHERS, _MISSING = "#6b7883", "#b9c3cc"
_METHODS = {"pca": "PCA", "tsne": "t-SNE"}


def embedding_figure(picture: Record, cases: Record, *, name: str, least: int, show_small: bool) -> Markup | None:
    """Draw one layer's features of the pictured cases, coloured by label and by each attribute.

    Unless ``show_small``, cases of joint groups below ``least`` are not drawn, and every other case is drawn in at most
    one panel of each method, so that nobody's label and attributes follow from the same dot in several panels.

    Args:
        picture: of :func:`~monai_fair.report.layer_work.layer_picture`.
        cases: of :func:`~monai_fair.report.feature_section.feature_section`.
        name: of run and layer.
        least: smallest joint group that is drawn.
        show_small: draw every case in every panel.

    Returns:
        The figure, or None where there is no picture or no case to draw.
    """
    drawn = [show_small or n >= least for n in cases["n_joint"]]
    if picture["reason"] or not any(drawn):
        return None
    colourings = {"label": [str(label) for label in cases["label"]], **cases["attributes"]}
    across = min(_ACROSS, len(colourings))
    down = math.ceil(len(colourings) / across)
    keys = max(len(set(levels)) for levels in colourings.values())
    with figure_style(f"embedding {name}"):
        figure = Figure(
            figsize=(across * _SIDE, 2 * down * (_SIDE - 0.35 + 0.15 * min(keys, len(COLOURS) + 1))),
            layout="constrained",
        )
        axes = figure.subplots(2 * down, across, squeeze=False)
        for number, axis in enumerate(axes.flat):
            method, place = divmod(number, across * down)
            if place >= len(colourings):
                axis.set_axis_off()
                continue
            what, levels = list(colourings.items())[place]
            inside = [own and (show_small or panel == place) for own, panel in zip(drawn, cases["panel"], strict=True)]
            key = list(_METHODS)[method]
            title = _METHODS[key] + (_shares(picture["variance"]) if key == "pca" and not place else "")
            _panel(axis, picture[key], levels, inside, drawn)
            axis.set_title(f"{title}, by {plain(what, 24)}" if place else f"{title}, by label", loc="left", fontsize=8)
        label = f"Features of {name} in two dimensions by PCA and t-SNE, coloured by {joined(list(colourings))}"
        return to_svg(figure, f"{label}; how well they are told apart is in the table of probes")


def _shares(variance: Sequence[float]) -> str:
    first, second = (f"{100 * as_float(share):.0f}" for share in variance)
    return f" ({first} + {second} %)"


def _panel(axis: Any, plane: Record, levels: Sequence[str], inside: Sequence[bool], drawn: Sequence[bool]) -> None:
    axis.set(xlim=(-40, 1040), ylim=(-40, 1040), xticks=(), yticks=())
    for spine in ("top", "right"):
        axis.spines[spine].set_visible(True)
    names = _named(levels, drawn)
    counts = Counter(names[level] for level, own in zip(levels, inside, strict=True) if own)
    # the rarest last, so that the others do not cover it
    for colour, _ in sorted(((own, -counts[own]) for own in counts), key=lambda pair: pair[1]):
        dots = [
            (x, y)
            for x, y, level, own in zip(plane["x"], plane["y"], levels, inside, strict=True)
            if own and names[level] == colour
        ]
        # a stroke of no length with round ends is a dot, in a fifth of the bytes of a marker
        path = Path([dot for dot in dots for _ in range(2)], [Path.MOVETO, Path.LINETO] * len(dots))
        path.should_simplify = False  # which takes strokes of no length away
        axis.add_patch(PathPatch(path, edgecolor=colour[0], facecolor="none", linewidth=3, capstyle="round"))
    handles = [Line2D([], [], marker="o", linestyle="", markersize=4, color=c, label=text) for c, text in _keys(names)]
    axis.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.04, 0), fontsize=7.5, handletextpad=0, ncols=1,
                borderpad=0.2, labelspacing=0.25)  # fmt: skip


def _named(levels: Sequence[str], drawn: Sequence[bool]) -> dict[str, tuple[str, str]]:
    """Colour and name of every level: the most common have their own, the rest share one, missing has another."""
    counts = Counter(level for level, own in zip(levels, drawn, strict=True) if own)
    known = sorted((level for level in counts if level), key=natural_order)
    own = known
    if len(known) > len(COLOURS):
        common = [level for level, _ in counts.most_common() if level][: len(COLOURS) - 1]
        own = [level for level in known if level in common]
    found = {level: (COLOURS[index], f"\u200b{plain(level, 30)}") for index, level in enumerate(own)}
    rest = (_OTHERS, f"{len(known) - len(own)} other levels")
    return {level: found.get(level, rest) if level else (_MISSING, "missing") for level in counts}


def _keys(names: dict[str, tuple[str, str]]) -> list[tuple[str, str]]:
    order = sorted(names, key=natural_order)
    return list(dict.fromkeys(names[level] for level in order))
