"""One cell of a table on the page."""

from collections.abc import Sequence
from typing import Any

Cell = dict[str, Any]


def cell_of(text: str, *, lines: Sequence[str] = (), words: Sequence[str] = (), quiet: bool = False) -> Cell:
    """Return a table cell.

    Args:
        text: what stands in it.
        lines: small lines of numbers below, which stay in one line each; empty ones are left out.
        words: small lines of words, which may wrap.
        quiet: for masked and undefined cells.

    Returns:
        What the template prints.
    """
    return {"text": text, "lines": [line for line in lines if line], "words": list(words), "quiet": quiet}
