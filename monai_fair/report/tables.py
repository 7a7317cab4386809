"""Tables of the page: who is in the data, values of groups, gaps, all cases together, thresholds."""

import math
from collections.abc import Sequence

from monai_fair.report.cells import Cell, cell_of
from monai_fair.report.masking import Mask
from monai_fair.report.quantities import Quantity, Record, as_float, method_words, p_text
from monai_fair.report.sentences import left_out


def who_table(tables: Sequence[tuple[Record, Mask]], overall: tuple[Record, Mask], results: Record) -> list[Record]:
    """Return a body per attribute, and one for everyone: n, subjects, share, positives, prevalence.

    Args:
        tables: of single attributes, each with its mask.
        overall: row of everyone, with its mask.
        results: of the audit.
    """
    everyone = {"name": "everyone", "n_missing": None, "groups": [overall[0]]}
    n = results["data"]["n"]
    return [
        {
            "attribute": table["name"],
            "missing": "" if table["n_missing"] is None else f"missing: {mask.missing(table['n_missing'])}",
            "rows": [
                {
                    "name": row["name"],
                    "n": mask.n(row),
                    "subjects": mask.n(row, "n_subjects"),
                    "share": mask.share(row, n),
                    "n_positive": mask.positives(row),
                    "prevalence": _prevalence(row, mask),
                }
                for row in table["groups"]
            ],
        }
        for table, mask in [*tables, (everyone, overall[1])]
    ]


def _prevalence(row: Record, mask: Mask) -> Cell:
    text, span = mask.prevalence(row)
    return cell_of(text, lines=[span], quiet=not span)


def section(
    table: Record, runs: Sequence[str], shown: Sequence[Quantity], gaps: Sequence[Quantity], mask: Mask
) -> Record:
    """Return the tables of one attribute or intersection: values of groups, gaps, and who takes no part in them.

    Args:
        table: of the results.
        runs: names.
        shown: quantities of the table of groups.
        gaps: quantities of the table of gaps.
        mask: of the table.
    """
    return {
        "name": table["name"],
        "missing": mask.missing(table["n_missing"]),
        "heads": [quantity.short for quantity in shown],
        "rows": [
            {
                "name": row["name"],
                "n": mask.n(row),
                "n_positive": mask.positives(row),
                "cells": [value_cell(row, quantity, run, mask) for quantity in shown for run in runs],
            }
            for row in table["groups"]
        ],
        "gaps": [_gap_row(table, quantity, runs, mask) for quantity in gaps],
        "left_out": left_out(table, gaps, mask),
    }


def matrix(table: Record, runs: Sequence[str], quantities: Sequence[Quantity], mask: Mask) -> Record:
    """Return a table with a row per quantity and run and a column per group."""
    return {
        "name": table["name"],
        "groups": [{"name": row["name"], "n": mask.n(row)} for row in table["groups"]],
        "bodies": [
            {
                "short": quantity.short,
                "title": quantity.spelled_out,
                "rows": [
                    {"run": run, "cells": [value_cell(row, quantity, run, mask) for row in table["groups"]]}
                    for run in runs
                ],
            }
            for quantity in quantities
        ],
    }


def value_cell(row: Record, quantity: Quantity, run: str, mask: Mask) -> Cell:
    """Return a group's value, with its interval over cases and its interval over seeds."""
    if mask.hides_values(row):
        return cell_of("masked", quiet=True)
    record = row["cells"][run][quantity.key]
    value = as_float(record["value"])
    if math.isnan(value):
        return cell_of("undefined", words=[str(record["reason"])], quiet=True)
    span = quantity.span(record["low"], record["high"])
    chance = as_float(record["by_chance"])
    words = [] if span else [f"{quantity.number(chance)} by chance" if chance >= 0 else str(record["interval_reason"])]
    seeds = quantity.span(record["seeds"]["low"], record["seeds"]["high"])
    return cell_of(quantity.number(value), lines=[span, f"seeds {seeds}" if seeds else ""], words=words)


def change_cell(record: Record, quantity: Quantity) -> Cell:
    """Return the change of a value or gap, with its intervals over cases and seeds and the paired p."""
    value = as_float(record["value"])
    if math.isnan(value):
        return cell_of("undefined", words=[str(record["reason"])], quiet=True)
    cases = quantity.span(record["cases"]["low"], record["cases"]["high"])
    seeds = quantity.span(record["low"], record["high"])
    p = "" if math.isnan(as_float(record["p"])) else f"p {p_text(record['p'])}"
    return cell_of(quantity.signed(value), lines=[cases, f"seeds {seeds}" if seeds else "", p])


def _gap_row(table: Record, quantity: Quantity, runs: Sequence[str], mask: Mask) -> Record:
    return {
        "name": quantity.name,
        "known_as": quantity.known_as,
        "unit": quantity.unit,
        "cells": [cell for run in runs for cell in _gap_cells(table["gaps"][run][quantity.key], quantity)],
    }


def _gap_cells(gap: Record, quantity: Quantity) -> list[Cell]:
    """Gap, chance and p of one run."""
    value = as_float(gap["value"])
    if math.isnan(value):
        undefined = cell_of("undefined", words=[str(gap["reason"])], quiet=True)
        return [undefined, cell_of("", quiet=True), cell_of("", quiet=True)]
    seeds = quantity.span(gap["seeds"]["low"], gap["seeds"]["high"])
    worst = gap["worst"]["group"] if gap["worst"] else None
    ends = [
        f"{word}: {gap[word]['group']}{', worst' if gap[word]['group'] == worst else ''}"
        for word in ("lowest", "highest")
        if gap[word]
    ]
    if worst and not any(end.endswith(", worst") for end in ends):
        ends.append(f"worst: {worst}")
    span = quantity.span(gap["low"], gap["high"])
    chance, high = quantity.number(as_float(gap["chance"])), quantity.number(as_float(gap["chance_high"]))
    return [
        cell_of(quantity.number(value), lines=[span, f"seeds {seeds}" if seeds else ""], words=ends),
        cell_of(chance, lines=[f"95 of 100 up to {high}"]),
        cell_of(p_text(gap["p"]), lines=[f"Holm {p_text(gap['p_holm'])}"]),
    ]


def overall_table(target: Record, runs: Sequence[str], quantities: Sequence[Quantity], mask: Mask) -> list[Record]:
    """Return one row per quantity, all cases together: a value per run, and the change from the first run."""
    row = target["overall"]
    return [
        {
            "title": quantity.spelled_out,
            "short": quantity.short,
            "n": mask.trials(row, quantity),
            "cells": [value_cell(row, quantity, run, mask) for run in runs],
            "changes": [
                cell_of("masked", quiet=True)
                if mask.hides_values(row)
                else change_cell(row["differences"][run][quantity.key], quantity)
                for run in runs[1:]
            ],
        }
        for quantity in quantities
    ]


def threshold_table(target: Record, runs: Sequence[Record], mask: Mask) -> list[Record]:
    """Return one row per run, rule and group: the threshold of each seed, and the validation cases behind it."""
    rows = []
    for run in runs:
        for rule, record in target["thresholds"][run["name"]].items():
            row = {
                "run": run["name"],
                "rule": rule,
                "method": method_words(record),
                "group": "everyone",
                "values": _by_seed(run["seeds"], [as_float(value) for value in record["by_seed"]]),
                "counts": _counts([record["n_positive"], record["n_negative"]], mask),
                "reason": record["reason"] or "",
            }
            rows += [row, *({**row, **own} for own in _group_thresholds(run, record, mask))]
    return rows


def _group_thresholds(run: Record, record: Record, mask: Mask) -> list[Record]:
    """Rows of a rule with a threshold per group; with one small count all are masked, or totals would tell it."""
    found: dict[str, list[tuple[str, Record]]] = {}
    for seed, groups in zip(run["seeds"], record.get("groups") or [], strict=False):
        for group in groups:
            found.setdefault(group["name"], []).append((seed, group))
    keys = ("n_positive", "n_negative")
    few = any(mask.small(group[key]) for own in found.values() for _, group in own for key in keys)
    return [
        {
            "group": name,
            "values": _by_seed([seed for seed, _ in own], [as_float(group["threshold"]) for _, group in own]),
            "counts": ["masked"] * 2 if few else _counts([[group[key] for _, group in own] for key in keys], mask),
            "reason": "; ".join(dict.fromkeys(group["reason"] for _, group in own if group["reason"])),
        }
        for name, own in found.items()
    ]


def _by_seed(seeds: Sequence[str], values: Sequence[float]) -> list[str]:
    named = zip(seeds, values, strict=True)
    return [f"{seed}: {'none' if math.isnan(value) else f'{value:.3f}'}" for seed, value in named]


def _counts(counts: Sequence[Sequence[int] | None], mask: Mask) -> list[str]:
    """Positives and negatives that a threshold was chosen on: one number, or the range over seeds."""
    said = []
    for numbers in counts:
        if not numbers:
            said.append("none used")
        elif any(mask.small(number) for each in counts if each for number in each):
            said.append("masked")
        else:
            low, high = min(numbers), max(numbers)
            said.append(f"{low:,}" if low == high else f"{low:,} to {high:,}")
    return said
