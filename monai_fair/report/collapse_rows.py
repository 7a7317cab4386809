"""Tables on the page of a study of neural collapse: the cohort, the last epoch, and what labels and groups do."""

import math
from collections.abc import Mapping, Sequence

from monai_fair.report.cells import Cell, cell_of
from monai_fair.report.collapse_curve_figure import Key
from monai_fair.report.collapse_words import (
    ARMS,
    CHECKPOINTS,
    PARTS,
    chosen,
    extent,
    measure_name,
    measure_words,
    seeds,
    significant,
    spread,
)
from monai_fair.report.quantities import Record, as_float, counted

_SPLITS = ("train", "val", "test")


def cohort_bodies(results: Record) -> list[Record]:
    """Return Table 1: for every experiment all samples, then each group, with what the label bias changed."""
    bodies = []
    for own, cohort in zip(results["experiments"], results["cohorts"], strict=True):
        groups = cohort["groups"]
        totals = {split: [sum(group["splits"][split][at] for group in groups) for at in (0, 1)] for split in _SPLITS}
        everyone = {"name": "all", "n": cohort["n"], "n_positive": cohort["n_positive"], "splits": totals}
        rows = [_cohort_row(everyone, cohort["n"], changed=[])]
        for group in groups:
            is_g1 = group["name"] == own["group"]
            changed = [_changed_text(cohort["changed"].get(split)) for split in _SPLITS[:2]] if is_g1 else []
            rows.append(_cohort_row(group, cohort["n"], changed=changed, mark=" (G1)" * is_g1))
        bodies.append({"name": cohort["name"], "rows": rows})
    return bodies


def _cohort_row(group: Record, total: int, *, changed: Sequence[str], mark: str = "") -> Record:
    n, positive = group["n"], group["n_positive"]
    return {
        "name": f"{group['name'] or 'missing'}{mark}",
        "n": f"{n:,} ({positive:,})",
        "share": _percent(n, total),
        "positive": _percent(positive, n),
        "splits": ["{:,} ({:,})".format(*group["splits"][split]) for split in _SPLITS],
        "changed": list(changed) or ["", ""],
    }


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "undefined"


def _changed_text(changed: Record | None) -> str:
    return f"{extent(changed['n_changed'])} of {extent([changed['n_eligible']])}" if changed else ""


def last_epoch_rows(index: Mapping[Key, Record], experiments: Sequence[Record], *, part: str) -> list[Record]:
    """Return a row per measure with its mean and spread in the last epoch, a cell per experiment with both arms.

    Args:
        index: of the curves.
        experiments: of the results.
        part: of the data.
    """
    rows = []
    for measure in dict.fromkeys(key[4] for key in index if key[2:4] == (part, "")):
        cells = [_last_cell(index, own["name"], part, measure) for own in experiments]
        rows.append({"name": measure_name(measure), "words": measure_words(measure), "cells": cells})
    return rows


def undefined_lines(undefined: Sequence[Record]) -> list[str]:
    """Say which measures have no value in any epoch, and why."""
    return [
        f"{measure_name(row['measure'])}: {row['reason'] or 'no reason is given'}"
        + (f" ({counted(row['n_curves'], 'curve')})" if "n_curves" in row else "")
        for row in undefined
    ]


def _last_cell(index: Mapping[Key, Record], experiment: str, part: str, measure: str) -> Cell:
    lines = []
    for arm in ARMS:
        curve = index.get((experiment, arm, part, "", measure))
        if curve and curve["epochs"]:
            lines.append(f"{arm} {spread(measure, curve['mean'][-1], curve['sd'][-1])}, n {curve['n'][-1]}")
        else:
            lines.append(f"{arm} undefined")
    return cell_of("", lines=lines)


def mislabelled_bodies(results: Record) -> list[Record]:
    """Return for every experiment a row per checkpoint: how near changed samples are to both class means."""
    bodies = []
    for own in results["experiments"]:
        rows = []
        for row in chosen(results["mislabelled"], experiment=own["name"]):
            cells = [_mean_cell("", row[key], None, row) for key in ("to_label_mean", "to_other_mean")]
            cells.append(_mean_cell("", row["ratio_mean"], row["ratio_sd"], row))
            samples = row["n_samples"] if isinstance(row["n_samples"], list) else [row["n_samples"]]
            counts = {"n_seeds": row["n_seeds"], "n_samples": extent(samples)}
            rows.append({"checkpoint": row["checkpoint"], **counts, "cells": cells})
        bodies.append({"name": own["name"], "rows": rows})
    return [body for body in bodies if body["rows"]]


def configuration_bodies(results: Record) -> list[Record]:
    """Return for every experiment a row per part, class and pair of groups, with a cell per arm and checkpoint."""
    bodies = []
    for own in results["experiments"]:
        rows: dict[tuple[str, str, str], dict[tuple[str, str], Record]] = {}
        for row in chosen(results["configurations"], experiment=own["name"]):
            key = PARTS[row["part"]], str(row["label"]), " and ".join(map(str, row["groups"]))
            rows.setdefault(key, {})[row["arm"], row["checkpoint"]] = row
        shown = [
            {"names": key, "cells": [_mean_cell("", *_mean_of(cells.get(place))) for place in configuration_heads()]}
            for key, cells in rows.items()
        ]
        bodies.append({"name": own["name"], "rows": shown})
    return [body for body in bodies if body["rows"]]


def configuration_heads() -> list[tuple[str, str]]:
    """Return arm and checkpoint of the columns of configurations."""
    return [(arm, checkpoint) for arm in ARMS for checkpoint in CHECKPOINTS]


def _mean_of(row: Record | None) -> tuple[float | None, float | None, Record]:
    return (None, None, {}) if row is None else (row["mean"], row["sd"], row)


def _mean_cell(measure: str, mean: float | None, sd: float | None, row: Record) -> Cell:
    if math.isnan(as_float(mean)):
        return cell_of("undefined", words=[str(row.get("reason") or "not given")], quiet=True)
    lines = [f"± {significant(sd)}" if not math.isnan(as_float(sd)) else "", seeds(row["n"]) if "n" in row else ""]
    return cell_of(significant(mean), lines=lines)


def fall_bodies(results: Record) -> list[Record]:
    """Return for every experiment a row per arm and measure: its largest value in training over its last one."""
    bodies = []
    for own in results["experiments"]:
        rows = [
            {
                "arm": row["arm"],
                "measure": measure_name(row["measure"]),
                "cells": [_seeds_cell(row[key]) for key in ("max", "last", "ratio")],
                "n": len(row["ratio"]),
            }
            for row in chosen(results["falls"], experiment=own["name"])
        ]
        bodies.append({"name": own["name"], "rows": rows})
    return [body for body in bodies if body["rows"]]


def _seeds_cell(values: Sequence[float | None]) -> Cell:
    """Return the mean of several seeds, with the range below."""
    known = [as_float(value) for value in values]
    lost = sum(map(math.isnan, known))
    if lost or not known:
        return cell_of("undefined", words=[f"undefined in {seeds(lost)}"], quiet=True)
    lines = [f"{significant(min(known))} to {significant(max(known))}"] if len(known) > 1 else []
    return cell_of(significant(sum(known) / len(known)), lines=lines)
