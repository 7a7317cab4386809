"""The audit in plain sentences, built from numbers; no verdicts."""

import math

from monai_fair.report.masking import Mask
from monai_fair.report.quantities import Quantity, Record, as_float, counted, joined, p_text


def what_was_compared(results: Record, target: Record, mask: Mask) -> list[str]:
    """Say which runs were looked at, on which cases, at which thresholds."""
    data, settings = results["data"], results["settings"]
    runs = [f"{run['name']} ({counted(len(run['seeds']), 'seed')})" for run in results["runs"]]
    overall = target["overall"]
    verb = "were compared on the same" if len(runs) > 1 else "was audited on"
    subjects = counted(data["n_subjects"], "subject")
    cases = f"{joined(runs)} {verb} {counted(data['n'], settings['split'] + ' case')} of {subjects}."
    prevalence = mask.prevalence_with_unit(overall)
    share = f"Positive ({target['name']}): {mask.positives(overall)} cases; prevalence: {prevalence}."
    return [cases, share, *_thresholds(target), _seeds(results)]


def _thresholds(target: Record) -> list[str]:
    chosen, absent = [], []
    for run, rules in target["thresholds"].items():
        if rules["youden"]["reason"]:
            absent.append(f"{run}: {rules['youden']['reason']}")
            continue
        values = [as_float(value) for value in rules["youden"]["by_seed"]]
        low, high = f"{min(values):.3f}", f"{max(values):.3f}"
        chosen.append(f"{run} {low}" if low == high else f"{run} {low} to {high}")
    said = ["A case is called positive when its score is at or above a threshold."]
    if chosen:
        said.append(
            "The threshold is chosen on each seed's validation part, where TPR − FPR is largest (Youden): "
            f"{'; '.join(chosen)}. A second, fixed threshold is 0.5."
        )
    if absent:
        said.append(f"Only the fixed threshold 0.5 is used where none could be chosen: {'; '.join(absent)}.")
    return said


def _seeds(results: Record) -> str:
    level = f"{100 * results['settings']['confidence']:g}\u00a0%"
    if all(len(run["seeds"]) == 1 for run in results["runs"]):
        return (
            f"Intervals are {level} intervals over cases. Each run has one seed, so nothing is known about how much "
            "the numbers change when training is repeated."
        )
    return (
        f"Values are means over seeds, with two {level} intervals: over cases (other patients could have been "
        "tested) and over seeds (training could have been repeated)."
    )


def gap_sentences(results: Record, target: Record, table: Record, quantity: Quantity, mask: Mask) -> list[str]:
    """Say how far the groups of one attribute lie apart in one quantity, in every run, and what chance makes."""
    said = [_gap_sentence(run["name"], table, quantity, mask) for run in results["runs"]]
    for run in results["runs"][1:]:
        change = table["gap_differences"][run["name"]][quantity.key]
        said.append(_change_sentence(results["baseline"], run["name"], change, quantity, results))
    return said


def _gap_sentence(run: str, table: Record, quantity: Quantity, mask: Mask) -> str:
    gap = table["gaps"][run][quantity.key]
    value = as_float(gap["value"])
    if math.isnan(value):
        return f"{run}: undefined, {mask.reason(gap['reason'] or 'a group has no value')}."
    rows = {row["name"]: row for row in table["groups"]}
    lowest, highest = (_end(end, rows[end["group"]], quantity, mask) for end in (gap["lowest"], gap["highest"]))
    chance, high = quantity.number(as_float(gap["chance"])), quantity.number(as_float(gap["chance_high"]))
    return (
        f"{run}: {quantity.gap(value)}. Lowest: {lowest}; highest: {highest}. By chance {chance} on average, and "
        f"up to {high} in 95 of 100 shuffles; p {p_text(gap['p'])}, adjusted {p_text(gap['p_holm'])}."
    )


def _end(end: Record, row: Record, quantity: Quantity, mask: Mask) -> str:
    value = "value masked" if mask.hides_classes(row) else quantity.value(end["value"])
    return f"{end['group']} {value} ({mask.trials(row, quantity)})"


def _change_sentence(baseline: str, run: str, change: Record, quantity: Quantity, results: Record) -> str:
    value = as_float(change["value"])
    if math.isnan(value):
        return f"From {baseline} to {run}: undefined, {change['reason']}."
    span = quantity.span(as_float(change["low"]), as_float(change["high"]))
    level = f"{100 * results['settings']['confidence']:g}\u00a0%"
    spread = f"{level} interval {span}" if span else str(change["reason"])
    sign = "+" if value > 0 else ""
    return (
        f"From {baseline} to {run} the gap changes by {sign}{quantity.gap(value)} "
        f"(mean over {counted(change['n'], 'shared seed')}; {spread})."
    )


def left_out(table: Record, quantities: list[Quantity], mask: Mask) -> list[str]:
    """Say which groups take no part in which gap, and why, with groups of one reason together."""
    gathered: dict[tuple[str, str], list[str]] = {}
    for quantity in quantities:
        for gaps in table["gaps"].values():
            for entry in gaps[quantity.key]["left_out"]:
                shorts = gathered.setdefault((entry["group"], mask.reason(entry["reason"])), [])
                if quantity.name not in shorts:
                    shorts.append(quantity.name)
    # Turn group -> quantities around, so that groups left out of the same gaps stand together.
    together: dict[tuple[str, str], list[str]] = {}
    for (group, reason), shorts in gathered.items():
        together.setdefault((joined(shorts), reason), []).append(group)
    return [f"{shorts}: {joined(groups)} ({reason})." for (shorts, reason), groups in together.items()]
