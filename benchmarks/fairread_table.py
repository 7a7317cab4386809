"""The page of FairREAD's comparison."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from fairread_scores import ATTRIBUTES

from monai_fair.metrics.intervals import t_interval

TITLES = {
    "erm": "ERM",
    "adversary": "adversary alone",
    "orthogonality": "orthogonality alone (stage 1, FCRO)",
    "erasure": "stage 1 and erasure",
    "fairread": "FairREAD",
    "fairread_reference": "FairREAD, thresholds as published",
    "fairread_erased": "FairREAD from the erased encoder, which stays",
    "fairread_erased_tuned": "FairREAD from the erased encoder, trained on",
}
MEASURES = {
    "auc": "AUC", "accuracy": "accuracy", "gap_eo": "delta EO", "one_eo": "delta EO, one threshold",
    "gap_auc": "delta AUC", "fate_eo": "FATE_EO", "fate_auc": "FATE_AUC",
}  # fmt: skip
FROM_ONE = {"fate_one": "at one threshold itself", "fate_from_one": "at thresholds by group"}
LAYERS = {
    "embedding": "embedding (z_T)", "map": "map", "fused_1": "after block 1", "fused_2": "after block 2",
    "attribute_embedding": "attribute embedding (z_A)",
}  # fmt: skip


def interval(values: Sequence[float] | pd.Series) -> str:
    """Mean with its 95 % t interval."""
    found = np.asarray(values, dtype=float)
    if not np.isfinite(found).any():
        return ""
    mean, low, high = (float(value) for value in t_interval(found))
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def page(rows: pd.DataFrame, told: pd.DataFrame, options: argparse.Namespace, settings: Mapping[str, Any]) -> str:
    """Return the tables as Markdown.

    Args:
        rows: of ``fairread_scores.results``.
        told: of ``fairread_scores.probes``.
        options: of the command line.
        settings: of cohorts and trainings.
    """
    return "\n".join([*_head(rows, options, settings), *_gaps(rows), *_probes(told)]) + "\n"


def _head(rows: pd.DataFrame, options: argparse.Namespace, settings: Mapping[str, Any]) -> list[str]:
    changed = {**settings, **dict(options.set), **options.overrides}
    return [
        "# FairREAD on simulated chest X-rays",
        "",
        f"`simulate chest --n {options.n}`, `train.yaml` with `small.yaml`, "
        f"{', '.join(f'{key} {value}' for key, value in changed.items())}; {rows['seed'].nunique()} cohorts, one "
        f"training of each arm on each; {int(rows['n'].mean())} test images of a cohort. Means over cohorts with 95 % "
        f"t intervals. Gaps are over the joint groups of {', '.join(ATTRIBUTES)}; the smallest had "
        f"{int(rows['smallest'].min())} images of one label. Thresholds of every arm: min-gap for each joint group, on "
        "validation rows and drawn towards where a shift of its scores puts it; as published: on the training rows, "
        "each group its own; one threshold: min-gap on validation rows for all.",
        "",
    ]


def _gaps(rows: pd.DataFrame) -> list[str]:
    by = {arm: own.set_index("seed") for arm, own in rows.groupby("arm")}
    lines = ["| arm | " + " | ".join(MEASURES.values()) + " |", "|" + "---|" * (len(MEASURES) + 1)]
    for arm, title in TITLES.items():
        cells = [interval(by[arm][name]) if name in by[arm] else "" for name in MEASURES]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    chance, without = by["erm"]["chance_eo"], rows[rows["arm"] != "erm"].groupby("seed")["chance_eo"].mean()
    return [
        *lines,
        "",
        f"By chance a model of equal rates in all groups would have a delta EO of {interval(chance)} here (at ERM's "
        f"rates; at those of the other arms {interval(without)}), if images were independent; several of a patient "
        "make it a little more.",
        "",
        "FATE is above 0 where what is gained in the gap outweighs what is lost in performance, against ERM of the "
        "same cohort with its thresholds by group; computed for each cohort, then averaged.",
        "",
        "## FATE_EO against ERM with one threshold for all",
        "",
        "| arm | " + " | ".join(FROM_ONE.values()) + " |",
        "|---|---|---|",
        *(
            f"| {title} | "
            + " | ".join("" if (arm, name) == ("erm", "fate_one") else interval(by[arm][name]) for name in FROM_ONE)
            + " |"
            for arm, title in TITLES.items()
        ),
        "",
    ]


def _probes(told: pd.DataFrame) -> list[str]:
    lines = [
        "## What layers tell of attributes: AUC of a linear probe, fitted on validation rows",
        "",
        "| arm | layer | " + " | ".join(ATTRIBUTES) + " | mean less than ERM's embedding | within label, mean |",
        "|" + "---|" * (len(ATTRIBUTES) + 4),
    ]
    erm = _of(told, "erm", "embedding").groupby("seed")["overall"].mean()
    alone = _of(told, "", "label")
    lines.append("| | the label itself | " + " | ".join(_cell(alone, name) for name in ATTRIBUTES) + " | | |")
    for arm, title in TITLES.items():
        for layer, words in LAYERS.items():
            own = _of(told, arm, layer)
            if own.empty:
                continue
            by_seed = own.groupby("seed")
            less = "" if (arm, layer) == ("erm", "embedding") else interval(erm - by_seed["overall"].mean())
            cells = [*(_cell(own, name) for name in ATTRIBUTES), less, interval(by_seed["within"].mean())]
            lines.append(f"| {title} | {words} | " + " | ".join(cells) + " |")
    return [
        *lines,
        "",
        "Within label: probes fitted and judged among images with the finding, and among those without, averaged. A "
        "probe that is not linear may read more.",
    ]


def _of(told: pd.DataFrame, arm: str, layer: str) -> pd.DataFrame:
    return told[(told["arm"] == arm) & (told["layer"] == layer)]


def _cell(own: pd.DataFrame, name: str) -> str:
    return interval(own[own["attribute"] == name].set_index("seed")["overall"])
