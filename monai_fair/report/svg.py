"""A matplotlib figure as inline SVG: the same bytes each time, labelled, without anything to load."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito's colours, which people with colour vision deficiency can tell apart; yellow is left out
# because it is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# A tenth of a point is less than a pixel; more digits would only make the page larger.
_DIGITS = re.compile(r"(\.[0-9])[0-9]+")
LINES = ("-", "--", ":", "-.")
INK, PALE = "#22303c", "#d7dde3"

_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 9,
    "axes.edgecolor": "#8a97a3",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


@contextmanager
def figure_style(salt: str) -> Iterator[None]:
    """Give figures made and written inside the block the page's style; names such as ``$x$`` stay text.

    Args:
        salt: makes the identifiers inside the SVG repeatable, and different from those of other figures.
    """
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        yield


def to_svg(figure: Figure, label: str) -> Markup:
    """Return ``figure`` as an ``<svg>`` element that names itself.

    Args:
        figure: drawn inside :func:`figure_style`, and still inside it.
        label: what a person who cannot see the figure should know.

    Returns:
        Markup; all text of the figure is escaped.
    """
    buffer = io.StringIO()
    empty = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with warnings.catch_warnings():
        # The browser draws the text with its own fonts; ours only measure it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        FigureCanvasSVG(figure).print_svg(buffer, metadata=empty)
    text = buffer.getvalue()
    body = text[text.index("<svg") :]
    # Group identifiers are only names (figure_1, axes_1) and would be repeated by each figure of the page.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r' d="[^"]*"', lambda path: _DIGITS.sub(r"\1", path[0]), body)
    width = figure.get_figwidth() * 72
    opening = f'<svg role="img" aria-label="{escape(label)}" style="min-width:{min(width, 760):.0f}px"'
    return Markup(body.replace("<svg", opening, 1))


def plain(text: str, longest: int = 40) -> str:
    """Return a name that fits into a figure: no control characters, cut after ``longest`` characters."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable if len(printable) <= longest else f"{printable[: longest - 1]}…"
