"""The page of the morphological bias study, from the scores of its cohorts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from morphology_scores import flat, share_interval

from monai_fair.metrics.intervals import t_interval
from monai_fair.simulation import BrainCohort

REPRESENTATIONS = {
    "log_jacobian": "deformation: log Jacobian",
    "displacement": "deformation: displacement",
    "codes": "deformation: codes",
    "intensity": "image: intensity",
    "embeddings": "image: features of the ERM classifier",
}
SLICERS = {
    "study": "the study's, with a claim or none",
    "two_clouds": "two clouds, forced",
    "local": "two modes in one place, forced",
    "error_aware": "error-aware mixture",
}
ARMS = {
    "erm": "ERM",
    "oracle": "re-balanced by the true group (oracle)",
    "intensity": "re-balanced by two clouds of intensity",
    "features": "re-balanced by two clouds of ERM features",
    "deformation": "re-balanced by the study's subgroups",
    "augmented": "images generated for the study's subgroups",
    "nir": "NIR",
    "group_dro": "re-balanced and group DRO, the study's subgroups",
}
_GROUP = {"adjusted_rand": "ARI", "normalized_mutual_info": "NMI", "auroc": "AUROC"}
_CONFLICT = {"precision@10": "precision@10", "precision@25": "precision@25", "average_precision": "AP"}
_RUN = {
    "auc": "AUC", "accuracy": "accuracy", "worst_cell": "lowest accuracy of a cell",
    "worst_group_auc": "lowest AUC of a group", "tpr_gap": "TPR gap", "fpr_gap": "FPR gap",
    "reversed_accuracy": "accuracy, reversed", "reversed_auc": "AUC, reversed",
}  # fmt: skip
_OWN = ("log_jacobian", "study")
_RIVALS = [
    ("intensity", "study", "AP, intensity"),
    ("embeddings", "study", "AP, ERM features"),
    ("embeddings", "two_clouds", "AP, two clouds of ERM features"),
]


def interval(values: Sequence[float] | pd.Series) -> str:
    """Mean over cohorts with its 95 % t interval; their number where some are undefined."""
    every = np.asarray(values, float)
    known = every[np.isfinite(every)]
    if not known.size:
        return "undefined"
    mean, low, high = (round(float(end), 2) + 0.0 for end in t_interval(known))  # no -0.00
    ends = f" ({low:.2f} to {high:.2f})" if np.isfinite(low) else ""
    return f"{mean:.2f}{ends}" + (f", n {known.size}" if known.size < every.size else "")


PLANTED = BrainCohort()


def page(records: Sequence[Mapping[str, Any]], default: Mapping[str, Any]) -> str:
    """Return the page as Markdown.

    Args:
        records: the scores of all cohorts, as ``morphology.py`` writes them.
        default: options of the simulation of the default setting.
    """
    settings: dict[str, list[Mapping[str, Any]]] = {}
    for record in sorted(records, key=lambda each: (each["setting"] != "default", each["setting"], each["cohort"])):
        settings.setdefault(record["setting"], []).append(record)
    lines = ["# The morphological bias study on simulated cohorts", "", *_how(default)]
    if len(settings) > 1:
        lines += ["", "## Settings", "", *_settings(settings)]
    for name, each in settings.items():
        lines += ["", f"## Setting: {name}", "", *_section(each)]
    return "\n".join(lines) + "\n"


def _how(default: Mapping[str, Any]) -> list[str]:
    options = " ".join(f"--{key} {value:.6g}" for key, value in default.items())
    return [
        f"`simulate brain {options}` (default), one cohort per seed. In training, label and sex are associated; the "
        "test rows have no association. Subgroups are fitted on training and validation rows, without label or sex. "
        "Values are means over cohorts with 95 % t intervals over cohorts (not cut at 0 or 1); seeds of a "
        "training are averaged within a cohort before; 1.00 (1.00 to 1.00) says that every cohort reached the end of "
        "the scale, not that all would.",
        "",
        "Planted: the sex changes the log volume of a place in the right frontal lobe by "
        f"{-2 * PLANTED.group_effect:g} in men (standard deviation {PLANTED.group_effect * PLANTED.group_spread:g} "
        f"within a sex), the disease that of the left hippocampus by {-PLANTED.disease_effect:g} in patients and "
        f"{PLANTED.disease_effect:g} in controls (standard deviation {PLANTED.disease_effect:g}); phi between them is "
        f"{PLANTED.correlation:g} in training. "
        "Intensities know neither. Classifiers are trained with small.yaml.",
        "",
        "The rows in conflict are those of the rarer sex of their label in training, such as women among patients. "
        "Subgroups rank them by 1 - sum_k m_k P(label | k), with memberships m and P from the training rows: the label "
        "is used to rank, never to find. The error-aware mixture alone (Domino's model, weights 10) is fitted on "
        "validation rows with their labels and ERM's predictions, and places test rows by both; the best of its first "
        "five slices and their complements counts. Arms are scored on the test rows at a threshold of 0.5; cells are "
        "sex by label. Reversed: the same rows, weighted to the training rows' association with the sexes exchanged.",
    ]


def _section(records: Sequence[Mapping[str, Any]]) -> list[str]:
    first = records[0]
    seeds = ", ".join(str(seed) for seed in first["seeds"])
    counts = ", ".join(f"{first['n'][part]} {part}" for part in ("train", "val", "test") if part in first["n"])
    detection, claims = pd.DataFrame(flat(records, "detection")), pd.DataFrame(flat(records, "claims"))
    runs = pd.DataFrame(flat(records, "runs"))
    means = runs.drop(columns="seed").groupby(["arm", "cohort"]).mean()
    failed = sum(len(record["failed"]) for record in records)
    lines = [
        f"{len(records)} cohorts (seeds {', '.join(str(record['cohort']) for record in records)}), trainings with "
        f"seeds {seeds}; registered subjects of a cohort: {counts}; {failed} failed registrations in all."
    ]
    for part, title in (("test", "test rows"), ("train", "fitted training rows")):
        lines += ["", f"### Subgroups against the truth, {title}", "", *_detection(detection, claims, part)]
    lines += ["", "### Error-aware mixture, test rows", "", *_error_aware(detection)]
    lines += ["", "### Arms, test rows", "", *_arms(means)]
    lines += ["", "### Changes from ERM, paired by cohort", "", *_changes(means)]
    return lines


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)]


def _detection(detection: pd.DataFrame, claims: pd.DataFrame, part: str) -> list[str]:
    found = detection[(detection["rows"] == part) & (detection["slicer"] != "error_aware")]
    by = {key: rows.set_index("cohort") for key, rows in found.groupby(["representation", "slicer", "measure"])}
    rows = []
    for name, title in REPRESENTATIONS.items():
        for slicer, how in SLICERS.items():
            if (name, slicer, "auroc") not in by:
                continue
            if slicer == "study":
                own = claims.loc[claims["representation"] == name, "claimed"]
                how = f"{how}; claimed in {int(own.sum())} of {len(own)}"
            values = [interval(by[name, slicer, measure]["value"]) for measure in (*_GROUP, *_CONFLICT)]
            less = by[*_OWN, "average_precision"]["value"] - by[name, slicer, "average_precision"]["value"]
            chance = by[name, slicer, "auroc"]["chance"].mean()
            rows.append([title, how, *values, "" if (name, slicer) == _OWN else interval(less), f"{chance:.2f}"])
    random_order = by[*_OWN, "average_precision"]["chance"]
    head = ["representation", "subgroups", *_GROUP.values(), *_CONFLICT.values(), "AP of the study less this"]
    lines = _table([*head, "AUROC by chance"], rows)
    said = f"in a random order AP is {random_order.mean():.2f}"
    if not np.isfinite(np.asarray(random_order, float)).any():
        said = f"precision and AP are undefined: {found.loc[found['reason'] != '', 'reason'].iloc[0]}"
    return [*lines, "", f"ARI, NMI and AUROC are of the sex: 1 for the same partition, ARI 0 by chance; {said}."]


def _error_aware(detection: pd.DataFrame) -> list[str]:
    found = detection[detection["slicer"] == "error_aware"]
    reasons = sorted(set(found["reason"]) - {""})
    rows = []
    for name, title in REPRESENTATIONS.items():
        own = found[(found["representation"] == name) & (found["reason"] == "")]
        cells = []
        for measure in (*_CONFLICT, "precision@10_half", "average_precision_half"):
            each = own[own["measure"] == measure]
            cells.append(f"{interval(each['value'])}; {each['chance'].mean():.2f}" if len(each) else "undefined")
        rows.append([title, *cells])
    head = ["representation", *_CONFLICT.values(), "precision@10, one label", "AP, one label"]
    fitted = f"Fitted on {int(found['n_fitted'].min())} validation rows of each cohort or more"
    end = f" Undefined: {'; '.join(reasons)}." if reasons else ""
    return [
        *_table(head, rows),
        "",
        f"{fitted}. After each interval: by chance, with the sexes shuffled within each label. One label: mean over "
        f"the two halves of the rows in conflict, each with its best slice.{end}",
    ]


def _arms(means: pd.DataFrame) -> list[str]:
    rows = [
        [ARMS[arm], *(interval(means.loc[arm][measure]) for measure in _RUN)]
        for arm in ARMS
        if arm in means.index.get_level_values("arm")
    ]
    return [
        *_table(["arm", *_RUN.values()], rows),
        "",
        "TPR and FPR gaps are absolute differences between the sexes; the lowest accuracy is that of the worst of the "
        "four cells of a run, so that chance makes it lower than the accuracy.",
    ]


def _changes(means: pd.DataFrame) -> list[str]:
    there = means.index.get_level_values("arm").unique()
    erm, rows = means.loc["erm"], []
    for arm in [name for name in ARMS if name in there and name != "erm"]:
        change = (means.loc[arm] - erm).dropna(how="all")
        recovered = share(means, arm) if arm != "oracle" and "oracle" in there else ""
        rows.append([ARMS[arm], *(interval(change[measure]) for measure in _RUN), recovered])
    lines = _table(["arm", *_RUN.values(), "share of the oracle's gain"], rows)
    return [
        *lines,
        "",
        "Share of the oracle's gain: what an arm gains in the lowest accuracy of a cell over what re-balancing by the "
        "true group gains, a ratio of means over cohorts, with its 95 % interval by Fieller's theorem; undefined "
        "where the oracle's gain itself may be 0. A gap that falls is a negative change.",
    ]


def share(means: pd.DataFrame, arm: str) -> str:
    """Share of the oracle's gain in the lowest accuracy of a cell that an arm has, with its interval."""
    worst = means["worst_cell"].unstack("arm")[[arm, "erm", "oracle"]].dropna()
    if not len(worst) or (worst["oracle"] - worst["erm"]).mean() <= 0:
        return "undefined"
    ratio, low, high = share_interval(worst[arm] - worst["erm"], worst["oracle"] - worst["erm"])
    return f"{ratio:.2f} ({low:.2f} to {high:.2f})" if np.isfinite(low) else "undefined"


def _settings(settings: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    rows = []
    for name, records in settings.items():
        detection = pd.DataFrame(flat(records, "detection"))
        found = (
            detection[detection["rows"] == "test"]
            .set_index(["representation", "slicer", "measure"])
            .sort_index()["value"]
        )
        own = found.loc[_OWN]
        claims = [row["claimed"] for row in flat(records, "claims") if row["representation"] == _OWN[0]]
        runs = pd.DataFrame(flat(records, "runs"))
        means = runs.drop(columns="seed").groupby(["arm", "cohort"]).mean()
        there = means.index.get_level_values("arm").unique()
        row = [name, str(len(records)), f"{sum(claims)} of {len(claims)}"]
        row += [interval(own.loc[[measure]]) for measure in ("adjusted_rand", "average_precision")]
        row += [interval(found.loc[[(rival, slicer, "average_precision")]]) for rival, slicer, _ in _RIVALS]
        for measure in ("worst_cell", "tpr_gap", "fpr_gap"):
            row += [
                interval(means.loc[arm][measure]) if arm in there else "" for arm in ("erm", "oracle", "deformation")
            ]
        rows.append([*row, share(means, "deformation") if {"oracle", "deformation"} <= set(there) else ""])
    arms = ("ERM", "oracle", "the study's")
    head = ["setting", "cohorts", "claimed", "ARI", "AP", *(title for _, _, title in _RIVALS)]
    head += [f"{title}, {arm}" for title in ("lowest cell", "TPR gap", "FPR gap") for arm in arms]
    return [
        *_table([*head, "share of the oracle's gain"], rows),
        "",
        "Each setting differs from the default by what its name says; correlations of 0, 0.4, 0.7 and 0.9 between "
        "label and sex are associations of 0.5, 0.7, 0.85 and 0.95. ARI and AP are of test rows: those of the study's "
        "subgroups (log Jacobian), AP of the same search in other representations, with a claim or none, and AP of two "
        "clouds that are forced. Arms are re-balanced by the true group (oracle) or by the study's subgroups. The "
        "share is undefined where the oracle's gain itself may be 0: there is hardly a bias to reduce.",
    ]
