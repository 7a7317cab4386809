"""Features of two classes in the plane, early and at the end, with the samples whose label was changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from monai_fair.report.collapse_words import CHECKPOINTS
from monai_fair.report.quantities import Record, counted
from monai_fair.report.svg import COLOURS, INK, PALE, figure_style, plain, to_svg

_PAIRS, _SIDE, _LARGE = 2, 2.5, 3.4  # pairs of panels in a row; inches, the second where there is one pair
_GREY = "#6b7883"
_PALE_DOT, _DARK_DOT = 0.35, 0.95  # opacity outside and inside the group
_INSIDE = 99  # percent of the points that the panels hold at least
_TO_COMPLEX = np.array([1, 1j])  # a turn with a scale is one division of complex numbers
Plane = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """Points in the frame of a figure: ``mu_0`` at (0, 0) and ``mu_1`` at (1, 0).

    Attributes:
        title: above it.
        reason: why there are no points; else empty.
        points: shape ``(n, 2)``.
        true_class: 0 or 1, before any label was changed.
        changed: whether the label was changed.
        in_group: whether a point is of the under-diagnosed group.
    """

    title: str
    reason: str
    points: Plane
    true_class: npt.NDArray[np.int64]
    changed: npt.NDArray[np.bool_]
    in_group: npt.NDArray[np.bool_]

    @property
    def near_true(self) -> int:
        """Changed points that are nearer to the mean of their true class than to that of their label."""
        side = self.points[self.changed, 0] > 0.5
        return int((side == (self.true_class[self.changed] == 1)).sum())


def panel_of(record: Record, title: str) -> Panel:
    """Return points as the figure draws them: moved, turned and scaled until both means stand where they should.

    A turn and a scale change no ratio of distances, so that early and final are seen in the same unit.

    Args:
        record: ``points``, ``means``, ``label``, ``clean_label`` and ``in_group``; where there are none, the
            ``reason``.
        title: above the panel.
    """
    reason = str(record.get("reason") or "")
    means = np.asarray(record["means"] or [[0, 0], [1, 0]], dtype=np.float64) @ _TO_COMPLEX
    if not reason and means[0] == means[1]:
        reason = "the class means coincide"
    keep = slice(0) if reason else slice(None)
    points = np.asarray(record["points"], dtype=np.float64).reshape(-1, 2)[keep] @ _TO_COMPLEX
    turned = (points - means[0]) / (means[1] - means[0] or 1)
    label, clean = (np.asarray(record[key], dtype=np.int64)[keep] for key in ("label", "clean_label"))
    inside = np.asarray(record["in_group"], dtype=np.bool_)[keep]
    return Panel(title, reason, np.stack([turned.real, turned.imag], axis=1), clean, label != clean, inside)


def plane_figure(pairs: Sequence[tuple[str, Panel, Panel]], *, group: str, salt: str) -> Markup:
    """Draw pairs of panels, early and final, each pair on one scale.

    Args:
        pairs: name, early and final.
        group: what the under-diagnosed group is called.
        salt: name of the figure.
    """
    across = min(_PAIRS, len(pairs))
    down = -(-len(pairs) // across)
    side = _LARGE if len(pairs) == 1 else _SIDE
    with figure_style(f"planes {salt}"):
        figure = Figure(figsize=(2 * across * side, down * (side + 0.45) + 0.5), layout="constrained")
        axes = figure.subplots(down, 2 * across, squeeze=False)
        for number in range(down * across):
            row, place = divmod(number, across)
            own = axes[row, 2 * place : 2 * place + 2]
            if number >= len(pairs):
                for axis in own:
                    axis.set_axis_off()
                continue
            _draw_pair(own, *pairs[number])
        figure.legend(handles=_handles(group), loc="outside upper left", ncols=5 if across > 1 else 3, fontsize=8,
                      handlelength=1)  # fmt: skip
        return to_svg(figure, f"{salt}: {'; '.join(_told(*pair) for pair in pairs)}")


def _told(name: str, early: Panel, final: Panel) -> str:
    """Say in words what a pair of panels shows."""
    counts = [f"{panel.near_true} {when}" for panel, when in zip((early, final), CHECKPOINTS, strict=True)]
    total = counted(int(max(early.changed.sum(), final.changed.sum())), "changed point")
    return f"{name}, of {total} nearer to the mean of their true class are {' and '.join(counts)}"


def _draw_pair(axes: Iterable[Any], name: str, *panels: Panel) -> None:
    everything = np.concatenate([panel.points for panel in panels] + [np.array([[-0.3, -0.3], [1.3, 0.3]])])
    low, high = np.percentile(everything, [100 - _INSIDE, _INSIDE], axis=0)
    middle, half = (low + high) / 2, max((high - low).max() / 2 * 1.12, 0.8)
    for axis, panel in zip(axes, panels, strict=True):
        axis.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), yticks=())
        axis.set_xticks((0, 1), ("μ0", "μ1"))
        axis.tick_params(length=2.5, labelsize=8)
        axis.set_aspect("equal")
        for spine in ("top", "right"):
            axis.spines[spine].set_visible(True)
        axis.set_title(f"{plain(name, 24)}\n{panel.title}" if name else panel.title, loc="left", fontsize=8)
        if panel.reason:
            axis.text(0.5, 0.5, f"undefined:\n{panel.reason}", transform=axis.transAxes, ha="center", fontsize=8)
            continue
        axis.axvline(0.5, color=PALE, linewidth=1)
        _draw_points(axis, panel)


def _draw_points(axis: Any, panel: Panel) -> None:
    for kind, colour in enumerate(COLOURS[:2]):
        for inside, alpha in ((False, _PALE_DOT), (True, _DARK_DOT)):
            drawn = (panel.true_class == kind) & ~panel.changed & (panel.in_group == inside)
            _dots(axis, panel.points[drawn], colour, 3.2, alpha)
    axis.plot([0, 1], [0, 0], "P", color="#ffffff", markeredgecolor=INK, markersize=7, markeredgewidth=1)
    own = panel.points[panel.changed]
    _dots(axis, own, "#000000", 4.4, 1.0)
    if len(own):
        centre = own.mean(axis=0)
        target = (float(centre[0] > 0.5), 0.0)
        arrow = {"arrowstyle": "->", "color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 4}
        axis.annotate("", xy=target, xytext=tuple(centre), arrowprops=arrow)


def _dots(axis: Any, points: Plane, colour: str, size: float, alpha: float) -> None:
    if not len(points):
        return
    # a stroke of no length with round ends is a dot, in a fifth of the bytes of a marker
    path = Path(np.repeat(points, 2, axis=0).tolist(), [Path.MOVETO, Path.LINETO] * len(points))
    path.should_simplify = False  # which takes strokes of no length away
    axis.add_patch(PathPatch(path, edgecolor=colour, facecolor="none", linewidth=size, capstyle="round", alpha=alpha))


def _handles(group: str) -> list[Line2D]:
    looks = [
        (COLOURS[0], _DARK_DOT, f"class 0, {group}"), (COLOURS[0], _PALE_DOT, "class 0, others"),
        (COLOURS[1], _DARK_DOT, f"class 1, {group}"), (COLOURS[1], _PALE_DOT, "class 1, others"),
        ("#000000", 1.0, "class 1, label changed to 0"),
    ]  # fmt: skip
    return [
        Line2D([], [], linestyle="", marker="o", markersize=4, color=colour, alpha=alpha, markeredgewidth=0,
               label=f"\u200b{plain(text, 48)}")
        for colour, alpha, text in looks
    ]  # fmt: skip
