"""The audit as Markdown for a model card: a bundle's ``docs/README.md``, or a card on a model hub."""

import math
import re
from collections.abc import Iterator, Sequence

from monai_fair.report.masking import Mask, masks_of
from monai_fair.report.quantities import (
    Quantity,
    Record,
    as_float,
    headline,
    headline_gaps,
    level_text,
    p_text,
    primary_rule,
    rule_words,
)
from monai_fair.report.sentences import left_out, what_was_compared
from monai_fair.report.tables import threshold_table

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;"}
_LIMITS = (
    "Intervals over cases say what other patients of the same kind could give. They say nothing about other hospitals, "
    "devices or populations.",
    "A large p does not say that there is no difference; small groups can hide one.",
)


def model_card_block(results: Record, *, show_small: bool = False) -> str:
    """Return the results of an audit as a block of Markdown without front matter, ready to be put into a card.

    It has what was compared, one table per attribute with n and intervals, the gaps with what chance makes of them,
    the thresholds, and limits. Small cells are masked as on the page. Names come from data files and are escaped, so
    that they are neither markup nor links nor cells of their own.

    Args:
        results: of :func:`monai_fair.metrics.audit`, as computed or as read back from ``metrics.json``.
        show_small: show small cells instead of masking them.

    Returns:
        Markdown that begins with a heading of level 2 and ends with a newline.
    """
    lines = ["## Results by group", ""]
    several = len(results["targets"]) > 1
    for target in results["targets"]:
        lines += [f"### {escaped(target['name'])}", ""] if several else []
        lines += _target_lines(results, target, show_small=show_small)
    limits = [*_LIMITS, *(f"{note}." for note in results["notes"])]
    if not show_small:
        least = results["settings"]["min_count"]
        limits.append(f"Counts below {least}, and counts and values that would tell them, are masked.")
    lines += ["### Limits", "", *(f"- {escaped(limit)}" for limit in limits)]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Return text from outside as Markdown that shows it and does nothing else.

    Args:
        text: a name of a group, attribute or run.

    Returns:
        One line: control characters are spaces, HTML is entities, marks of Markdown have a backslash, and addresses
        are no links.
    """
    line = "".join(character if character.isprintable() else " " for character in text)
    line = re.sub(r"[\\`*_{}\[\]#$~|!^]", r"\\\g<0>", line)
    line = re.sub(r"[&<>@]", lambda found: _ENTITIES[found[0]], line)
    return re.sub(r"(?i)(www)\.", r"\1&#46;", line.replace("://", "&#58;//"))


def _target_lines(results: Record, target: Record, *, show_small: bool) -> Iterator[str]:
    rule = primary_rule(results, target)
    masks = masks_of(target, results["settings"]["min_count"], show_small=show_small)
    runs = [run["name"] for run in results["runs"]]
    yield from (escaped(" ".join(what_was_compared(results, target, masks.overall))), "")
    level = level_text(results["settings"]["confidence"])
    yield from (f"Values at {escaped(rule_words(rule, target))}; in brackets the {level} interval over cases.", "")
    for table in target["tables"]:
        if len(table["attributes"]) == 1:
            yield from _attribute_lines(table, target["overall"], runs, rule, masks.tables[table["name"]])
    yield from ("### Gaps between groups", "")
    yield "Largest minus smallest group; what shuffled groups give on average; p, and p adjusted by Holm's method."
    yield ""
    yield from _gap_lines(target["tables"], runs, headline_gaps(rule))
    yield from ("### Thresholds", "")
    yield from _threshold_lines(results, target, masks.overall)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, names: int) -> Iterator[str]:
    """Lines of a table whose first ``names`` columns are text and whose others are numbers."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join([' :-- '] * names + [' --: '] * (len(heads) - names))}|"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _attribute_lines(table: Record, overall: Record, runs: Sequence[str], rule: str, mask: Mask) -> Iterator[str]:
    shown = headline(rule)
    yield from (f"### By {escaped(table['name'])}", "")
    heads = ["Group", "n", "n positive", *(f"{escaped(run)}: {item.short}" for item in shown for run in runs)]
    rows = [
        [escaped(row["name"]), mask.n(row), mask.positives(row)]
        + [_value(row, item, run, mask) for item in shown for run in runs]
        for row in [*table["groups"], overall]
    ]
    yield from _table(heads, [[cell.replace("<", "&lt;") for cell in row] for row in rows], names=1)
    yield from (f"Cases without a value: {mask.missing(table['n_missing'])}.".replace("<", "&lt;"), "")
    absent = left_out(table, shown, mask)
    if absent:
        yield from (f"Not part of the gaps: {escaped(' '.join(absent))}", "")


def _value(row: Record, quantity: Quantity, run: str, mask: Mask) -> str:
    if mask.hides_values(row):
        return "masked"
    cell = row["cells"][run][quantity.key]
    span = quantity.span(cell["low"], cell["high"])
    return quantity.number(as_float(cell["value"])) + (f" ({span})" if span else "")


def _gap_lines(tables: Sequence[Record], runs: Sequence[str], gaps: Sequence[Quantity]) -> Iterator[str]:
    heads = ["Attribute", "Run", "Gap in", "Lowest", "Highest", "Gap", "By chance", "p", "p, Holm"]
    rows = []
    for table in tables:
        for quantity in gaps:
            for run in runs:
                gap = table["gaps"][run][quantity.key]
                name = f"{quantity.name}, points" if quantity.percent else quantity.name
                ends = [escaped(gap[end]["group"]) if gap[end] else "" for end in ("lowest", "highest")]
                first = [escaped(table["name"]), escaped(run), name, *ends]
                rows.append([*first, *_gap_numbers(gap, quantity)])
    yield from _table(heads, rows, names=5)


def _gap_numbers(gap: Record, quantity: Quantity) -> list[str]:
    value = as_float(gap["value"])
    if math.isnan(value):
        return [f"undefined: {gap['reason']}", "", "", ""]
    span = quantity.span(gap["low"], gap["high"])
    text = quantity.number(value) + (f" ({span})" if span else "")
    numbers = [text, quantity.number(as_float(gap["chance"])), p_text(gap["p"]), p_text(gap["p_holm"])]
    return [number.replace("<", "&lt;") for number in numbers]


def _threshold_lines(results: Record, target: Record, mask: Mask) -> Iterator[str]:
    heads = ["Run", "Rule", "Group", "Chosen for", "Seed: threshold", "Validation positives", "Validation negatives"]
    rows = [
        [escaped(row[key]) for key in ("run", "rule", "group", "method")]
        + [escaped(", ".join(row["values"])), *row["counts"]]
        for row in threshold_table(target, results["runs"], mask)
    ]
    yield from _table(heads, rows, names=5)
