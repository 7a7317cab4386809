"""Several findings, each with an audit of the same arms: every repeat's performance, gaps and FATE, and averages."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.intervals import t_interval
from monai_fair.metrics.records import Record

QUANTITIES = ("accuracy", "auc", "delta_eo", "delta_auc", "fate_eo", "fate_auc")
FIRST_ARM = "the arm that FATE compares the others with"
_GAPS = {"delta_eo": "equalized_odds@{rule}", "delta_auc": "auc"}
_FATES = {"fate_eo": "delta_eo", "fate_auc": "delta_auc"}  # and the gap in it
_CASES = ["finding", "arm", "repeat", "n", "n_positive", "groups"]
_ALIKE = ("attributes", "split", "missing", "min_count", "confidence")  # settings of audits that may be averaged
_REPEAT_FOLDER = re.compile(r"(seed|fold)[_-]?[0-9]+")


def finding_values(audits: Mapping[str, Record], *, rule: str = "given") -> pd.DataFrame:
    """Return what each audit says of every arm and repeat, as one table.

    Accuracy and AUC are those of all cases; delta EO is the gap in equalized odds, delta AUC that in the AUC, over the
    groups of all attributes together; FATE is that of :func:`monai_fair.metrics.fate` against the first arm in the
    same repeat.

    Args:
        audits: finding to results of :func:`monai_fair.metrics.audit`, as computed or as read from ``metrics.json``.
            With ``provenance``, repeats are named by their folders, such as ``fold_0/seed_0``.
        rule: of the audits; accuracy and equalized odds are those at its thresholds.

    Returns:
        One row per finding, arm, repeat and quantity, in the order of the audits: ``finding``, ``arm``, ``repeat``;
        ``n`` and ``n_positive`` cases; ``groups`` of all attributes together, and ``compared``, how many of them stand
        in the gap (0 for accuracy and AUC); ``quantity``, one of :data:`QUANTITIES`; ``value``, NaN where undefined,
        and ``reason``, why; ``chance``, for a gap what shuffled groups give on average over repeats, else NaN.

    Raises:
        MonaiFairError: with every audit that has no such rule, several classes or no table of all attributes together,
            or that was not made as the first one was.
    """
    raise_problems(MonaiFairError, "findings", _problems(audits, rule))
    rows = [row for finding, audit in audits.items() for row in _rows(finding, audit, rule)]
    return pd.DataFrame(rows)


def finding_table(values: pd.DataFrame) -> pd.DataFrame:
    """Return one row per finding, arm and repeat, with a column for each quantity.

    Args:
        values: of :func:`finding_values`.

    Returns:
        ``finding``, ``arm``, ``repeat``, ``n``, ``n_positive``, ``groups``; ``groups_eo`` and ``groups_auc``, how many
        of them stand in each gap; the quantities; and ``reason``, why any of these is NaN.
    """
    rows = []
    for key, cell in values.groupby(_CASES, sort=False):
        own = cell.set_index("quantity")
        reasons = [f"{name}: {reason}" for name, reason in own["reason"].items() if reason]
        compared = {f"groups_{gap.removeprefix('delta_')}": own.loc[gap, "compared"] for gap in _GAPS}
        numbers = {name: own.loc[name, "value"] for name in QUANTITIES}
        rows.append({**dict(zip(_CASES, key, strict=True)), **compared, **numbers, "reason": "; ".join(reasons)})
    return pd.DataFrame(rows)


def average_findings(values: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """Return the mean of every quantity over the repeats of each finding, and then over findings.

    FATE is averaged as it came out in each repeat: FATE of averages is another number. An undefined repeat makes the
    mean of its finding undefined, and an undefined finding that of all: none is left out in silence.

    Student's t interval of a finding is over its repeats, that of all findings over the means of findings, because
    these are what is averaged; over all repeats of all findings it would count what differs between findings as known
    after one. Neither knows that folds share training cases, that all repeats of a finding are tested on the same
    cases, and that findings may share patients.

    Args:
        values: of :func:`finding_values`.
        confidence: of the intervals.

    Returns:
        One row per finding, arm and quantity, then one per arm and quantity with an empty ``finding``: ``value``,
        ``low``, ``high``; ``n`` repeats, or findings; ``n_repeats`` behind them; ``n_undefined`` of the ``n``;
        ``chance``; ``reason``, why the value is NaN; ``interval_reason``, why there is no interval.
    """
    by_finding = [
        {"finding": finding, "arm": arm, "quantity": name, **_mean(cell, "repeat", confidence, str(name))}
        for (finding, arm, name), cell in values.groupby(["finding", "arm", "quantity"], sort=False)
    ]
    over_all = [
        {"finding": "", "arm": arm, "quantity": name, **_mean(cell, "finding", confidence, str(name))}
        for (arm, name), cell in pd.DataFrame(by_finding).groupby(["arm", "quantity"], sort=False)
    ]
    return pd.DataFrame([*by_finding, *over_all])


def _problems(audits: Mapping[str, Record], rule: str) -> Iterator[str]:
    if not audits:
        yield "expected the audit of at least one finding, got none; name one"
        return
    first, reference = next((name, _design(audit)) for name, audit in audits.items())
    for finding, audit in audits.items():
        rules = list(audit["settings"]["rules"])
        if rule not in rules:
            yield f"{finding}: expected thresholds by '{rule}', the audit has {', '.join(rules)}; choose among these"
        if len(audit["targets"]) > 1:
            yield f"{finding}: expected two classes, got {len(audit['targets'])}; audit one class against the rest"
        elif not _joint(audit):
            yield f"{finding}: expected a table of all attributes together, found none; audit with intersections"
        for what, own in _design(audit).items():
            if own != reference[what]:
                yield f"{finding}: expected {what} {reference[what]} as in {first}, got {own}; audit all findings alike"


def _design(audit: Record) -> dict[str, str]:
    """What has to be the same in every finding, as text."""
    own = {"arms": [run["name"] for run in audit["runs"]]} | {name: audit["settings"][name] for name in _ALIKE}
    return {name: ", ".join(value) if isinstance(value, list | tuple) else str(value) for name, value in own.items()}


def _joint(audit: Record) -> list[Record]:
    """The table of all attributes together, if it is there."""
    size = len(audit["settings"]["attributes"])
    return [table for table in audit["targets"][0]["tables"] if len(table["attributes"]) == size]


def _rows(finding: str, audit: Record, rule: str) -> Iterator[Record]:
    overall, table = audit["targets"][0]["overall"], _joint(audit)[0]
    for run in audit["runs"]:
        shown = _repeat_names(audit, run)
        quantities = _of_run(overall, table, run, rule)
        for place, seed in enumerate(run["seeds"]):
            for name, (record, by_seed, compared) in quantities.items():
                value = _number(by_seed.get(seed))
                told = record["reason"] if seed in by_seed else "the first arm has no such repeat"
                yield {
                    "finding": finding,
                    "arm": run["name"],
                    "repeat": shown[place],
                    "n": int(overall["n"]),
                    "n_positive": int(overall["n_positive"]),
                    "groups": len(table["groups"]),
                    "compared": compared,
                    "quantity": name,
                    "value": value,
                    "reason": (told or "undefined in this repeat") if np.isnan(value) else "",
                    "chance": _number(record["chance"]) if name in _GAPS else np.nan,
                }


def _of_run(overall: Record, table: Record, run: Record, rule: str) -> dict[str, tuple[Record, Record, int]]:
    """Quantity to its record, its value in each seed, and how many groups stand in its gap."""
    name, seeds = run["name"], run["seeds"]
    found = {}
    for own, key in (("accuracy", f"accuracy@{rule}"), ("auc", "auc")):
        record = overall["cells"][name][key]
        found[own] = (record, {each["seed"]: each["value"] for each in record["by_seed"]}, 0)
    keys = {own: key.format(rule=rule) for own, key in _GAPS.items()}
    for own, key in keys.items():
        record = table["gaps"][name][key]
        found[own] = (record, dict(zip(seeds, record["by_seed"], strict=True)), record["groups_compared"])
    for own, gap in _FATES.items():
        record = {"reason": FIRST_ARM, "by_seed": [None] * len(seeds)}
        shared = seeds
        if name in table["fate"]:
            record = table["fate"][name][keys[gap]]
            shared = table["gap_differences"][name][keys[gap]]["shared_seeds"]
        found[own] = (record, dict(zip(shared, record["by_seed"], strict=True)), found[gap][2])
    return found


def _repeat_names(audit: Record, run: Record) -> Sequence[str]:
    """Folders of folds and seeds where they tell all repeats of a run apart, else the audit's names."""
    folders = {
        file["seed"]: "/".join(part for part in PurePosixPath(file["name"]).parts if _REPEAT_FOLDER.fullmatch(part))
        for file in audit.get("provenance", {}).get("files", [])
        if file["run"] == run["name"]
    }
    found = [folders.get(seed, "") for seed in run["seeds"]]
    return found if all(found) and len(set(found)) == len(found) else list(run["seeds"])


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)  # None is how JSON writes it


def _mean(cell: pd.DataFrame, of: str, confidence: float, quantity: str) -> Record:
    """Mean of the values of a cell, which are repeats or findings."""
    values = cell["value"].to_numpy(dtype=np.float64)
    bounds = (-np.inf, np.inf) if quantity in _FATES else (0.0, 1.0)
    mean, low, high = (float(part) for part in t_interval(values, confidence=confidence, bounds=bounds))
    undefined = cell[np.isnan(values)]
    return {
        "value": mean,
        "low": low,
        "high": high,
        "n": len(cell),
        "n_repeats": int(cell["n_repeats"].sum()) if of == "finding" else len(cell),
        "n_undefined": len(undefined),
        "chance": float(cell["chance"].mean(skipna=False)),
        "reason": _reason(undefined, len(cell), of),
        "interval_reason": f"one {of}: the spread over {of}s is unknown" if len(cell) == 1 else "",
    }


def _reason(undefined: pd.DataFrame, n: int, of: str) -> str:
    if undefined.empty:
        return ""
    why = undefined["finding"] if of == "finding" else undefined["reason"]
    return f"undefined in {len(undefined)} of {n} {of}s: {', '.join(dict.fromkeys(why))}"
