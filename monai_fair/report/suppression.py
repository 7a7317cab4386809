"""Which counts have to be hidden so that the small ones do not follow from those that are shown.

Four steps:

1. Small counts are hidden: the n of a group with fewer than ``least`` cases or subjects, and the positives of a group
   with fewer than ``least`` positives or negatives.
2. Where a table hides a count, it also hides the smallest one that is at least twice ``least``; else the hidden count
   would be the total minus the others. With none so large it hides all.
3. Groups of one attribute are sums of groups of its intersections. Counts are therefore taken up one after the other,
   single attributes and large counts first, and one is shown only if no small count is then a sum or difference of what
   is shown.
4. No count is below 0, so a sum can tell its parts: three groups with 0 negatives together have none. While a small
   count can be told in this way, the smallest shown count that tells it is hidden.

An interval still tells roughly how many cases are behind a value, and ``metrics.json`` has every count.
"""

from collections.abc import Callable, Sequence

from monai_fair.report.count_bounds import hide_bounded
from monai_fair.report.linked_counts import Hidden, hide_sums, link
from monai_fair.report.quantities import Record


def has_small_n(row: Record, least: int) -> bool:
    """Whether a group has fewer than ``least`` cases or subjects."""
    return bool(min(row["n"], row["n_subjects"]) < least)


def has_small_class(row: Record, least: int) -> bool:
    """Whether a group has fewer than ``least`` positives or negatives, or too few cases or subjects at all."""
    return has_small_n(row, least) or bool(min(row["n_positive"], row["n_negative"]) < least)


def in_no_group(table: Record, overall: Record) -> int:
    """Return how many cases are in no group of a table: those without a value, unless they are a group of their own."""
    return max(int(overall["n"] - sum(row["n"] for row in table["groups"])), 0)


def hidden_counts(tables: Sequence[Record], overall: Record, least: int) -> list[Hidden]:
    """Return what each table hides.

    Args:
        tables: of one target.
        overall: row of everyone, whose counts are shown.
        least: smallest count that may be shown.

    Returns:
        One record per table.
    """
    tables = [{**table, "n_missing": in_no_group(table, overall)} for table in tables]
    hidden = [_small(table, least) for table in tables]
    small = [Hidden(set(found.n), set(found.classes), found.missing) for found in hidden]
    for table, found in zip(tables, hidden, strict=True):
        _hide_partners(table, found, least)
    for part in _parts(tables):
        own, kept = [hidden[index] for index in part], [small[index] for index in part]
        linked = link([tables[index] for index in part])
        if linked is None:
            for index in part:
                if len(tables[index]["attributes"]) > 1:
                    _hide_all(tables[index], hidden[index])
            continue
        hide_sums(linked, own, kept)
        hide_bounded(linked, own, kept, overall, least)
    return hidden


def _parts(tables: Sequence[Record]) -> list[list[int]]:
    """Tables that tell of each other: all with intersections, each alone without."""
    everything = list(range(len(tables)))
    linked = any(len(table["attributes"]) > 1 for table in tables)
    return [everything] if linked else [[index] for index in everything]


def _small(table: Record, least: int) -> Hidden:
    return Hidden(
        {row["name"] for row in table["groups"] if has_small_n(row, least)},
        {row["name"] for row in table["groups"] if has_small_class(row, least)},
        0 < table["n_missing"] < least,
    )


def _hide_all(table: Record, found: Hidden) -> None:
    found.n |= {row["name"] for row in table["groups"]}
    found.classes |= found.n
    found.missing = table["n_missing"] > 0


def _hide_partners(table: Record, found: Hidden, least: int) -> None:
    rows = [row for row in table["groups"] if row["name"] not in found.classes]
    if found.n or found.missing:
        large = [(row["n"], row["name"]) for row in table["groups"] if row["n"] >= 2 * least]
        large = [(n, name) for n, name in large if name not in found.n]
        if not found.missing and table["n_missing"] >= 2 * least:
            large.append((table["n_missing"], ""))
        if not large:
            _hide_all(table, found)
            return
        name = min(large)[1]
        found.missing = found.missing or not name
        found.n |= {name} - {""}
    if found.classes or found.n:
        size: Callable[[Record], int] = lambda row: min(row["n_positive"], row["n_negative"])  # noqa: E731
        enough = [row for row in rows if size(row) >= 2 * least]
        found.classes |= found.n
        if not enough:
            found.classes |= {row["name"] for row in table["groups"]}
        elif not found.classes & {row["name"] for row in enough}:
            found.classes.add(min(enough, key=size)["name"])
