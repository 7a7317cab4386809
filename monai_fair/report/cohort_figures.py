"""Who is in the cohort, as a figure: every joint group with its cases with and without the target, and its rate."""

from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from monai_fair.report.masking import Mask
from monai_fair.report.quantities import Record, as_float, level_text
from monai_fair.report.svg import COLOURS, INK, PALE, figure_style, plain, to_svg

MOST_GROUPS = 60  # a longer figure is no picture any more; the tables have all groups
_POSITIVE, _NEGATIVE, _BOTH = COLOURS[1], "#c3cbd2", "#8a97a3"


def joint_groups_figure(target: Record, table: Record, mask: Mask, confidence: float) -> Record:
    """Draw the cases of every joint group, with and without the target, and the share that has it.

    Args:
        target: of the results.
        table: of all attributes taken together.
        mask: of the table; a group whose n is masked has no bar, one whose positives are masked a bar of one colour.
        confidence: of the intervals.

    Returns:
        ``svg``, ``name`` of the table, ``n_groups`` and ``shown``: the number of groups drawn, the largest where there
        are more than 60.
    """
    groups = table["groups"]
    largest = sorted(range(len(groups)), key=lambda place: -groups[place]["n"])[:MOST_GROUPS]
    rows = [groups[place] for place in sorted(largest)]
    with figure_style(f"cohort {target['name']}"):
        figure = Figure(figsize=(9.6, 0.95 + 0.24 * len(rows)), layout="constrained")
        cases, share = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [3, 2]})
        for place, row in enumerate(rows):
            _bars(cases, row, mask, place)
            _rate(share, row, mask, place)
        _dress(cases, share, rows, level_text(confidence))
        figure.legend(handles=_handles(rows, mask), loc="outside upper left", ncols=3)
        label = f"Cases with and without {target['name']}, and the share with it, by {table['name']}"
        svg: Markup = to_svg(figure, f"{label}; the same numbers are in the tables of intersections")
    return {"svg": svg, "name": table["name"], "n_groups": len(groups), "shown": len(rows)}


def _bars(axis: Any, row: Record, mask: Mask, place: int) -> None:
    if mask.hides_n(row):
        _words(axis, 0, place, mask.n(row), style="italic")
        return
    if mask.hides_classes(row):
        axis.barh(place, row["n"], height=0.68, color=_BOTH)
        positives = "positives masked"
    else:
        axis.barh(place, row["n_positive"], height=0.68, color=_POSITIVE)
        axis.barh(place, row["n_negative"], left=row["n_positive"], height=0.68, color=_NEGATIVE)
        positives = f"{mask.positives(row)} positive"
    _words(axis, row["n"], place, f"n {mask.n(row)}, {positives}")


def _rate(axis: Any, row: Record, mask: Mask, place: int) -> None:
    text, span = mask.prevalence(row)
    if not span:
        _words(axis, 0, place, text, style="italic")
        return
    value, low, high = (100 * as_float(row[key]) for key in ("prevalence", "prevalence_low", "prevalence_high"))
    axis.hlines(place, low, high, color=INK, linewidth=1.3)
    axis.plot(value, place, "o", color=_POSITIVE, markersize=5)
    _words(axis, high, place, f"{text} %")


def _words(axis: Any, x: float, place: int, text: str, *, style: str = "normal") -> None:
    """Write beside a mark; a browser would drop a space in front of the words."""
    axis.annotate(text, (x, place), (4, 0), textcoords="offset points", va="center", fontsize=8, style=style)


def _handles(rows: list[Record], mask: Mask) -> list[Patch]:
    hidden = [mask.hides_classes(row) for row in rows if not mask.hides_n(row)]
    handles = [Patch(color=_POSITIVE, label="with the target"), Patch(color=_NEGATIVE, label="without")]
    both = Patch(color=_BOTH, label="both (positives masked)")
    return [*(handles if not all(hidden) else []), *([both] if any(hidden) else [])]


def _dress(cases: Any, share: Any, rows: list[Record], level: str) -> None:
    cases.set_yticks(range(len(rows)), [plain(row["name"], 60) for row in rows], fontsize=8)
    cases.set_ylim(len(rows) - 0.4, -0.6)
    # room for the words at the end of the longest bar
    cases.set_xlim(0, 1.42 * max(cases.get_xlim()[1], 1))
    cases.set_xlabel("Cases")
    share.set_xlim(0, 112)
    share.set_xticks(range(0, 101, 20))
    share.set_xlabel(f"Positive, %, with {level} interval")
    for axis in (cases, share):
        axis.grid(axis="x", color=PALE, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.tick_params(axis="x", labelsize=8)
