"""The audit in plain sentences, built from numbers; no verdicts."""

import math
from collections.abc import Sequence

from monai_fair.report.masking import Mask
from monai_fair.report.quantities import Quantity, Record, as_float, counted, joined, level_text, method_words, p_text

_WHAT = {
    "tpr": "finds {value} of the positive cases",
    "fpr": "calls {value} of the negative cases positive",
}


def what_was_compared(results: Record, target: Record, mask: Mask) -> list[str]:
    """Say which runs were looked at, on which cases, at which thresholds, and what the intervals know."""
    data, settings = results["data"], results["settings"]
    runs = [f"{run['name']} ({counted(len(run['seeds']), 'seed')})" for run in results["runs"]]
    verb = "were compared on the same" if len(runs) > 1 else "was audited on"
    subjects = counted(data["n_subjects"], "subject")
    cases = f"{joined(runs)} {verb} {counted(data['n'], settings['split'] + ' case')} of {subjects}."
    prevalence, span = mask.prevalence(target["overall"])
    level = level_text(settings["confidence"])
    share = f"Positive ({target['name']}): {mask.positives(target['overall'])} cases"
    share += f"; prevalence {prevalence}\u00a0% ({level} interval {span})." if span else "; prevalence masked."
    return [cases, share, *_thresholds(target, settings["rules"]), _sureness(results)]


def _thresholds(target: Record, rules: Sequence[str]) -> list[str]:
    said = ["A case is called positive when its score is at or above a threshold."]
    for rule in rules:
        absent = {run: record[rule]["reason"] for run, record in target["thresholds"].items() if record[rule]["reason"]}
        records = {run: record[rule] for run, record in target["thresholds"].items() if run not in absent}
        if records:
            said.append(_threshold_sentence(rule, records))
        if absent:
            each = "; ".join(f"{run}: {reason}" for run, reason in absent.items())
            said.append(f"There is no threshold by {rule} for {each}.")
    return said


def _threshold_sentence(rule: str, records: Record) -> str:
    first = next(iter(records.values()))
    if first["method"] == "fixed":
        return f"One threshold is fixed at {rule}."
    values = "; ".join(f"{run} {_threshold_range(record['by_seed'])}" for run, record in records.items())
    if first["method"] == "given":
        return f"One threshold is given with the predictions ({values})."
    per_group = f", and one for each group of {joined(first['attributes'])}" if first["attributes"] else ""
    return f"One threshold is chosen on each seed's validation part, for {method_words(first)}{per_group} ({values})."


def _threshold_range(values: Sequence[float | None]) -> str:
    low, high = (f"{end:.3f}" for end in (min(map(as_float, values)), max(map(as_float, values))))
    return low if low == high else f"{low} to {high}"


def _sureness(results: Record) -> str:
    level = level_text(results["settings"]["confidence"])
    over_cases = f"How sure: a {level} interval over cases says what could have come out with other patients."
    if all(len(run["seeds"]) == 1 for run in results["runs"]):
        return (
            f"{over_cases} Each run has one seed, so nothing is known about how much the numbers change when "
            "training is repeated."
        )
    return f"{over_cases} Values are means over seeds; an interval over seeds says what repeated training could give."


def gap_sentences(results: Record, table: Record, quantity: Quantity, mask: Mask) -> list[str]:
    """Say how far the groups of one attribute lie apart in one quantity, in every run, and what chance makes."""
    level = level_text(results["settings"]["confidence"])
    said = [_gap_sentence(run["name"], table, quantity, mask, level) for run in results["runs"]]
    for run in results["runs"][1:]:
        change = table["gap_differences"][run["name"]][quantity.key]
        said.append(f"From {results['baseline']} to {run['name']} {change_words(change, quantity)}")
    return said


def _gap_sentence(run: str, table: Record, quantity: Quantity, mask: Mask, level: str) -> str:
    gap = table["gaps"][run][quantity.key]
    if math.isnan(as_float(gap["value"])):
        return f"{run}: no gap, {gap['reason']}."
    rows = {row["name"]: row for row in table["groups"]}
    low, high = (rows[gap[end]["group"]] for end in ("lowest", "highest"))
    of = f", the lowest of {gap['groups_compared']} groups" if gap["groups_compared"] > 2 else ""
    what = _WHAT.get(quantity.key.split("@")[0], f"has {quantity.name} {{value}}")
    first = what.format(value=_value(run, low, quantity, mask))
    span = quantity.span(gap["low"], gap["high"])
    return (
        f"{run} {first} in {low['name']}{of} ({level} interval {_sure(run, low, quantity, mask)}), and "
        f"{_value(run, high, quantity, mask)} in {high['name']}{', the highest' if of else ''} "
        f"({_sure(run, high, quantity, mask)}): a gap of {quantity.gap(as_float(gap['value']))} "
        f"({span or 'no interval'}). {_chance_words(gap, quantity)}"
    )


def _value(run: str, row: Record, quantity: Quantity, mask: Mask) -> str:
    masked = mask.hides_values(row)
    return "a masked value" if masked else quantity.value(as_float(row["cells"][run][quantity.key]["value"]))


def _sure(run: str, row: Record, quantity: Quantity, mask: Mask) -> str:
    """Interval and n of a value."""
    cell = row["cells"][run][quantity.key]
    span = "" if mask.hides_values(row) else quantity.span(cell["low"], cell["high"])
    return f"{span or 'not shown'}; {mask.trials(row, quantity)}"


def _chance_words(gap: Record, quantity: Quantity) -> str:
    p = as_float(gap["p"])
    if math.isnan(p):
        return "What chance makes is undefined."
    often = "fewer than 1 of 1,000" if p < 0.001 else f"{100 * p:.1f} of 100"
    holm = f"; {p_text(gap['p_holm'])} adjusted for {gap['holm_over']} comparisons" if gap["holm_over"] > 1 else ""
    average = quantity.number(as_float(gap["chance"]))
    return f"By chance alone: {average} on average; so much in {often} shuffles of the groups (p {p_text(p)}{holm})."


def change_words(change: Record, quantity: Quantity) -> str:
    """Say how a gap changes from the first run to a later one, with both intervals and the paired test."""
    value = as_float(change["value"])
    if math.isnan(value):
        return f"the change of the gap is undefined, {change['reason']}."
    unit = " percentage points" if quantity.percent else ""
    cases = quantity.span(change["cases"]["low"], change["cases"]["high"])
    seeds = quantity.span(change["low"], change["high"])
    parts = [f"{cases} over cases" if cases else "no interval over cases"]
    parts.append(f"{seeds} over seeds" if seeds else str(change["reason"] or "no interval over seeds"))
    if not math.isnan(as_float(change["p"])):
        parts.append(f"p {p_text(change['p'])}, {change['test']}")
    parts.append(counted(change["n"], "shared seed"))
    return f"the gap changes by {quantity.signed(value)}{unit} ({'; '.join(parts)})."


def left_out(table: Record, quantities: Sequence[Quantity], mask: Mask) -> list[str]:
    """Say which groups take no part in which gap, and why, with groups of one reason together."""
    rows = {row["name"]: row for row in table["groups"]}
    gathered: dict[tuple[str, str], list[str]] = {}
    for quantity in quantities:
        for gaps in table["gaps"].values():
            for entry in gaps[quantity.key]["left_out"]:
                row = rows[entry["group"]]
                names = gathered.setdefault((entry["group"], mask.reason(row, entry["reason"])), [])
                if quantity.name not in names:
                    names.append(quantity.name)
    # Turn group -> quantities around, so that groups left out of the same gaps stand together.
    together: dict[tuple[str, str], list[str]] = {}
    for (group, reason), names in gathered.items():
        together.setdefault((joined(names), reason), []).append(group)
    return [f"{names}: {joined(groups)} ({reason})." for (names, reason), groups in together.items()]
