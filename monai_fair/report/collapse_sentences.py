"""A study of neural collapse in plain sentences, built from its numbers: what the paper reports, and what came out."""

import math
from collections.abc import Sequence

from monai_fair.report.collapse_words import (
    ARMS,
    CHECKPOINTS,
    LEVEL,
    chosen,
    extent,
    group_name,
    measure_name,
    number,
    p_words,
    signed,
    significant,
    small,
    span,
)
from monai_fair.report.quantities import Record, as_float, counted, joined

_EARLY, _FINAL = CHECKPOINTS
_NC1 = ("nc1_distance", "nc1_normalized")


def short_findings(results: Record) -> list[Record]:
    """Return the findings of the paper with what this study gives, in its own numbers.

    Args:
        results: of the study.

    Returns:
        One record per finding: ``title``; ``reported``, what the paper reports; ``counts``, sentences over all
        experiments; ``lines``, pairs of experiment and its numbers.
    """
    return [_early_nc1(results), _final_nc1(results), _early_f1(results), _final_test(results), _information(results)]


def power_sentences(results: Record) -> list[str]:
    """Say what so few seeds can show at all, before and after the adjustment for many comparisons."""
    rows = [row for row in results["comparisons"] if not math.isnan(as_float(row["p"]))]
    if not rows:
        return ["No comparison of the arms has a p; the reasons are in the table."]
    smallest = min(as_float(row["p_smallest"]) for row in rows)
    family = max(len(chosen(rows, checkpoint=checkpoint)) for checkpoint in CHECKPOINTS)
    adjusted = min(1.0, smallest * family)
    words = [f"With so many seeds the smallest p of one comparison without ties is {small(smallest)}"]
    words.append(f"after Holm's adjustment for {family} of them {small(adjusted)}")
    limits = [
        f"no {what} can be below {LEVEL:g}"
        for what, least in (("p", smallest), ("adjusted p", adjusted))
        if least >= LEVEL
    ]
    return [f"{', '.join(words)}{': ' if limits else ''}{joined(limits) if limits else ''}."]


def _early_nc1(results: Record) -> Record:
    rows = results["window"]
    means = {name: chosen(rows, measure=f"mean_{name}") for name in _NC1}
    half = chosen(rows, measure="epochs_to_half")
    return {
        "title": "Early epochs: NC1 of train",
        "reported": "with changed labels NC1 is higher at first and falls more slowly.",
        "counts": [
            *(
                f"Mean {measure_name(name)}, over the early epochs: {_tally(own, 'higher', +1)}"
                for name, own in means.items()
            ),
            f"First epoch with normalised NC1 at half of its maximum: {_tally(half, 'later', +1)}",
        ],
        "lines": [
            (own["name"], _lines(own, [row for part in (*means.values(), half) for row in part]))
            for own in results["experiments"]
        ],
    }


def _final_nc1(results: Record) -> Record:
    falls = [row for name in _NC1 for row in chosen(results["falls"], measure=name)]
    return {
        "title": "Last epoch: NC1 of train",
        "reported": "NC1 goes towards 0 with clean and with changed labels.",
        "counts": [_falls(name, chosen(falls, measure=name)) for name in _NC1],
        "lines": [
            (own["name"], [_fall(row) for row in chosen(falls, experiment=own["name"])])
            for own in results["experiments"]
        ],
    }


def _fall(row: Record) -> str:
    name, ratio = measure_name(row["measure"]), _mean(row["ratio"])
    if math.isnan(ratio):
        reasons = "; ".join(dict.fromkeys(filter(None, row.get("reason", ()))))
        return f"{row['arm']}, {name}: undefined ({reasons or 'a seed has no value'})"
    return (
        f"{row['arm']}, {name}: the maximum is {significant(ratio)} times ({extent(row['ratio'])} over seeds) the last "
        f"value ({significant(_mean(row['last']))}, n {len(row['ratio'])})"
    )


def _falls(measure: str, rows: Sequence[Record]) -> str:
    means = [_mean(row["ratio"]) for row in rows]
    known = [mean for mean in means if not math.isnan(mean)]
    if not known:
        return f"How far {measure_name(measure)}, falls is undefined in every arm."
    lost = f"; undefined in {len(means) - len(known)} more" if len(known) < len(means) else ""
    where = f"{extent(known)} in {counted(len(known), 'arm')}{lost}"
    return f"{measure_name(measure)}: its maximum over its last value, mean over seeds, is {where}."


def _early_f1(results: Record) -> Record:
    rows = chosen(results["comparisons"], measure="f1", checkpoint=_EARLY)
    marked = [f"{row['experiment']}, {row['group']}" for row in rows if as_float(row["p"]) < LEVEL]
    counts = [
        f"{counted(len(rows), 'group')} compared; p below {LEVEL:g} in {len(marked)}"
        f"{_named(marked)}, after Holm's adjustment in {sum(as_float(row['p_holm']) < LEVEL for row in rows)}."
    ]
    return {
        "title": "Early model: F1 by group",
        "reported": "for most groups F1 does not differ at the 0.05 level; it does for small groups.",
        "counts": counts + _undefined(rows),
        "lines": [(own["name"], _lines(own, rows)) for own in results["experiments"]],
    }


def _final_test(results: Record) -> Record:
    final = [row for row in chosen(results["comparisons"], checkpoint=_FINAL) if row["group"] != ""]
    nc1 = {name: chosen(final, measure=name, part="test_to_train") for name in _NC1}
    under = {own["name"]: own["group"] for own in results["experiments"]}
    f1 = chosen(final, measure="f1")
    own_group = [row for row in f1 if row["group"] == under[row["experiment"]]]
    others = [row for row in f1 if row["group"] != under[row["experiment"]]]
    return {
        "title": "Last epoch: test NC1 and F1 by group",
        "reported": "with changed labels test NC1 is larger in all groups; F1 of the under-diagnosed group (G1) is "
        "lower in every experiment, that of the other group in four of six.",
        "counts": [
            *(f"Test {measure_name(name)}, by group: {_tally(own, 'larger', +1)}" for name, own in nc1.items()),
            f"F1 of G1: {_tally(own_group, 'lower', -1)}",
            f"F1 of the other groups: {_tally(others, 'lower', -1)}",
        ],
        "lines": [(own["name"], _lines(own, [*nc1["nc1_normalized"], *f1])) for own in results["experiments"]],
    }


def _information(results: Record) -> Record:
    split = results["split"]
    lines = []
    for own in results["experiments"]:
        parts = [_change(row) for row in chosen(split["changes"], experiment=own["name"])]
        lines.append((own["name"], parts))
    biased = chosen(split["changes"], arm=ARMS[1])
    return {
        "title": "The attribute in the features: SPLIT test",
        "reported": "a linear model reads less of the attribute off the features when they come near to collapse, "
        "though not in all experiments; early, the SPLIT test follows separability.",
        "counts": [
            f"From early to final, biased arm: {_tally(biased, 'lower', -1)}",
            _agreements(split["agreement"]),
        ],
        "lines": lines,
    }


def _tally(rows: Sequence[Record], word: str, sign: int) -> str:
    """Count how often a difference has the reported direction, and name where it has not."""
    known = [row for row in rows if not math.isnan(as_float(row["difference"]))]
    there = [row for row in known if sign * as_float(row["difference"]) > 0]
    tested = _p_counts(there)
    against = [row for row in known if row not in there]
    lost = len(rows) - len(known)
    sentences = [f"{word} in {len(there)} of {len(rows)}{tested}."]
    if against:
        names = joined([_where(row) for row in against])
        sentences.append(f"Not {word}: {names}{_p_counts(against)}.")
    if lost:
        sentences.append(f"Undefined in {lost}.")
    return " ".join(sentences)


def _p_counts(rows: Sequence[Record]) -> str:
    """Write in how many p is below the level, before and after the adjustment where there is one."""
    if not rows:
        return ""
    text = f", p below {LEVEL:g} in {sum(as_float(row['p']) < LEVEL for row in rows)}"
    if "p_holm" in rows[0]:
        text += f", after Holm's adjustment in {sum(as_float(row['p_holm']) < LEVEL for row in rows)}"
    return text


def _where(row: Record) -> str:
    return ", ".join(filter(None, [row["experiment"], row.get("group")]))


def _lines(experiment: Record, rows: Sequence[Record]) -> list[str]:
    """Return the comparisons of one experiment, each named by its measure and its group."""
    return [
        f"{', '.join(filter(None, [measure_name(row['measure']), group_name(row, experiment)]))}: {_told(row)}"
        for row in chosen(rows, experiment=experiment["name"])
    ]


def _told(row: Record) -> str:
    measure = row["measure"]
    if math.isnan(as_float(row["difference"])):
        return f"undefined ({row['reason']})"
    interval = span(measure, row["low"], row["high"])
    means = [number(measure, row[key]) for key in ("mean_first", "mean_later")]
    return (
        f"{means[0]} clean, {means[1]} biased (n {row['n_first']} and {row['n_later']}); difference "
        f"{signed(measure, row['difference'])}{f' ({interval})' if interval else ''}, {p_words(row)}"
    )


def _undefined(rows: Sequence[Record]) -> list[str]:
    lost = [row for row in rows if math.isnan(as_float(row["difference"]))]
    return [f"Undefined: {joined([_where(row) for row in lost])}."] if lost else []


def _named(names: Sequence[str]) -> str:
    return f" ({'; '.join(names)})" if names else ""


def _mean(values: Sequence[float | None]) -> float:
    known = [as_float(value) for value in values]
    return sum(known) / len(known) if known else float("nan")


def _change(row: Record) -> str:
    if math.isnan(as_float(row["difference"])):
        return f"{row['arm']}: undefined ({row['reason']})"
    means = [number("auc", row[key]) for key in ("mean_early", "mean_final")]
    interval = span("auc", row["low"], row["high"])
    return (
        f"{row['arm']}: AUC {means[0]} early, {means[1]} final (n {row['n']}); change "
        f"{signed('auc', row['difference'])}{f' ({interval})' if interval else ''}, {p_words(row)} "
        f"(smallest there can be {small(row['p_smallest'])})"
    )


def _agreements(rows: Sequence[Record]) -> str:
    """Say of both arms and checkpoints in one sentence how alike the two orders of experiments are."""
    known = [row for row in rows if not math.isnan(as_float(row["tau"]))]
    parts = [f"{row['arm']} {row['checkpoint']} {number('auc', row['tau'])} (p {small(row['p'])})" for row in known]
    lost = [f"{row['arm']} {row['checkpoint']} ({row['reason']})" for row in rows if row not in known]
    told = f"tau {', '.join(parts)}; n {known[0]['n']} experiments" if known else ""
    least = f", for which no p is below {small(known[0]['p_smallest'])}" if known else ""
    absent = f"undefined: {', '.join(lost)}" if lost else ""
    return f"Order of experiments by SPLIT test and by separability: {'; '.join(filter(None, [told + least, absent]))}."
