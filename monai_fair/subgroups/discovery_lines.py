"""What a discovery found, as lines for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any


def discovery_lines(record: Mapping[str, Any]) -> Iterator[str]:
    """Say in plain lines what was found and how sure that is, from the content of ``discovery.json``."""
    failed = f"; {len(record['failed'])} of the manifest are not registered" if record["failed"] else ""
    yield f"{record['n']} subjects, {record['n_fitted']} of them fitted{failed}"
    if record.get("nuisances"):
        yield f"taken out before looking: {', '.join(own['name'] for own in record['nuisances'])}"
    tried = record["candidates"]
    for one in tried:
        sizes = "+".join(map(str, one["sizes"]))
        p = f"p {_number(one['p'])}, adjusted for {len(tried)} {_number(one['p_holm'])}"
        rest = f" ({one['reason']})" if one["reason"] else ""
        yield f"{one['representation']}, {one['method']}: {sizes}, {p}, stability {_number(one['stability'])}{rest}"
    if not record["claimed"]:
        yield "no subgroup claimed: all subjects are in S1"
    elif record["place"]:
        x, y, z = record["place"]["world_mm"]
        yield f"claimed: subgroups that differ around x {x:.0f}, y {y:.0f}, z {z:.0f} mm (right, anterior, superior)"
    for group in record["subgroups"]:
        yield f"{group['name']}: {', '.join(f'{part} {n}' for part, n in group['n_by_split'].items())}"
    yield from _association_lines(record)


def _association_lines(record: Mapping[str, Any]) -> Iterator[str]:
    for part, found in record["label_association"].items() if record["claimed"] else ():
        for row in found["rows"]:
            share = f"label 1 in {row['n_positive']} of {row['n']}"
            odds = f"odds ratio {_number(row['odds_ratio'])} ({_number(row['low'])} to {_number(row['high'])})"
            yield f"{part}, {row['subgroup']}: {share}, {row['reason'] or odds}"
    for row in record["attribute_associations"] if record["claimed"] else ():
        measure = "Cramer's V" if row["measure"] == "cramers_v" else f"AUROC of {row['subgroup']}"
        value = f"{measure} {_number(row['value'])}, p {_number(row['p'])}, adjusted {_number(row['p_holm'])}"
        yield f"{row['attribute']}: {row['reason'] or value}, n {row['n']}"
    for note in record["notes"]:
        yield f"note: {note}"


def _number(value: float | None) -> str:
    """Show a number; JSON has no infinity and no NaN."""
    return "undefined" if value is None else f"{value:.2g}"
