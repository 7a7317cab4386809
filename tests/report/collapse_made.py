"""Made-up results of a study of neural collapse, of any number of experiments, seeds and groups."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from monai_fair.metrics import compare_arms, rank_agreement

ARMS, CHECKPOINTS, PARTS = ("clean", "biased"), ("early", "final"), ("train", "test", "test_to_train")
NAMES = [f"{dataset}: {attribute}" for dataset in ("skin", "eyes", "chest") for attribute in ("sex", "age")]
NC1 = ("nc1_distance", "nc1_normalized", "nc1_pinv")
CURVES = (*NC1, "nc2_singular_ratio", "nc2_weight_balance", "nc3_direction", "nc4_disagreement", "error")
EPOCHS = 12
SHIFT = {"f1": -0.04, "nc1_distance": 0.2, "nc1_normalized": 0.1}  # of the biased arm


def made_results(
    experiments: int = 2, seeds: int = 10, groups: Sequence[str] = ("female", "male"), seed: int = 0
) -> dict[str, Any]:
    """Results as those of ``collapse_results``; the first of ``groups`` is under-diagnosed."""
    rng, names = np.random.default_rng(seed), NAMES[:experiments]
    sd = 0.02 if seeds > 1 else float("nan")
    points = [
        {"experiment": name, "arm": arm, "checkpoint": when, "split_mean": rng.uniform(0.55, 0.95), "split_sd": sd,
         "separability_mean": rng.uniform(0.6, 0.98), "separability_sd": sd, "n": seeds, "reason": ""}
        for name in names for arm in ARMS for when in CHECKPOINTS
    ]  # fmt: skip
    return {
        "settings": {"confidence": 0.95, "threshold": 0.5, "alternative": "two-sided"},
        "experiments": [_experiment(name, groups, seeds) for name in names],
        "cohorts": [_cohort(name, groups, seeds) for name in names],
        "curves": [curve for name in names for curve in _curves(name, groups, seeds)],
        "undefined": [{"measure": "nc2_equinorm", "reason": "with two classes it is 0", "n_curves": 2 * experiments}],
        "falls": [
            {"experiment": name, "arm": arm, "measure": measure, "part": "train", "max": [1.0] * seeds,
             "last": [0.05] * seeds, "ratio": [20.0] * seeds, "reason": [""] * seeds}
            for name in names for arm in ARMS for measure in NC1
        ],
        "comparisons": [
            row for when in CHECKPOINTS for row in _compared(_values(names, groups, when, seeds, rng), groups)
        ],
        "window": _compared(_window(names, seeds, rng), groups),
        "split": {"points": points, "agreement": _agreement(points), "changes": _changes(names, seeds)},
        "configurations": [
            {"experiment": name, "arm": arm, "checkpoint": when, "part": part, "label": label, "groups": [a, b],
             "mean": rng.uniform(0.02, 0.4), "sd": sd, "n": seeds, "reason": ""}
            for name in names for arm in ARMS for when in CHECKPOINTS for part in PARTS[:2] for label in (0, 1)
            for place, a in enumerate(groups) for b in groups[place + 1 :]
        ],
        "mislabelled": [
            {"experiment": name, "checkpoint": when, "to_label_mean": 0.5, "to_other_mean": 2.0, "ratio_mean": 0.25,
             "ratio_sd": sd, "n_seeds": seeds, "n_samples": [18] * seeds, "reason": ""}
            for name in names for when in CHECKPOINTS
        ],
        "planes": [
            {"experiment": name, "seed": 0, "checkpoint": when, **_cloud(90, spread, rng), "n": 900, "reason": ""}
            for name in names for when, spread in zip(CHECKPOINTS, (0.6, 0.1), strict=True)
        ],
        "toy": {
            when: {"epoch": epoch, "error": error, **_cloud(60, spread, rng)}
            for when, epoch, error, spread in (("early", 8, 0.125, 0.5), ("final", 500, 0.0, 0.1))
        } | {"n": 60, "settings": "a made-up toy"},
    }  # fmt: skip


def _experiment(name: str, groups: Sequence[str], seeds: int) -> dict[str, Any]:
    dataset, attribute = name.split(": ")
    early = {"clean": [3 + seed % 3 for seed in range(seeds)], "biased": [5] * seeds}
    return {
        "name": name, "dataset": dataset, "attribute": attribute, "group": groups[0], "n_seeds": seeds,
        "groups": list(groups), "early_epochs": early, "last_epoch": {arm: [EPOCHS] * seeds for arm in ARMS},
    }  # fmt: skip


def _cohort(name: str, groups: Sequence[str], seeds: int) -> dict[str, Any]:
    """Of each group 300 images with 100 positives; 5 images without a value."""
    whole = {"n": 300, "n_positive": 100, "splits": {"train": [200, 70], "val": [40, 14], "test": [60, 16]}}
    missing = {"name": "", "n": 5, "n_positive": 1, "splits": {"train": [4, 1], "val": [1, 0], "test": [0, 0]}}
    changed = {
        "train": {"n_eligible": 70, "n_changed": [17 + seed % 2 for seed in range(seeds)]},
        "val": {"n_eligible": 14, "n_changed": [4] * seeds},
    }
    rows = [*({"name": group, **whole} for group in groups), missing]
    splits = {split: sum(row["splits"][split][0] for row in rows) for split in ("train", "val", "test")}
    counts = {key: sum(row[key] for row in rows) for key in ("n", "n_positive")}
    return {"name": name, **counts, "splits": splits, "groups": rows, "changed": changed}


def _curves(name: str, groups: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """A tenth remains after 10 epochs in the clean arm, and in the biased one after 20."""
    epochs, found = np.arange(1, EPOCHS + 1), []
    for arm, decade in zip(ARMS, (10, 20), strict=True):
        mean = 10.0 ** (-epochs / decade)
        for part in PARTS:
            for measure in CURVES:
                for group in ("", *(groups if measure in NC1 and part != "test" else ())):
                    found.append({
                        "experiment": name, "arm": arm, "part": part, "group": group, "measure": measure,
                        "epochs": epochs.tolist(), "mean": mean.tolist(), "n": [seeds] * EPOCHS,
                        "sd": (0.1 * mean if seeds > 1 else mean * np.nan).tolist(),
                    })  # fmt: skip
    return found


def _values(names: Sequence[str], groups: Sequence[str], when: str, seeds: int, rng: Any) -> pd.DataFrame:
    cells = [("f1", "test", group) for group in groups]
    cells += [(nc1, part, group) for nc1 in NC1[:2] for part in PARTS[1:] for group in ("", *groups)]
    cells += [(nc1, "train", "") for nc1 in NC1[:2]]
    return pd.DataFrame([
        {"experiment": name, "checkpoint": when, "part": part, "measure": measure, "group": group, "arm": arm,
         "seed": seed, "value": 0.7 + (arm == "biased") * SHIFT[measure] + 0.03 * rng.normal()}
        for name in names for measure, part, group in cells for arm in ARMS for seed in range(seeds)
    ])  # fmt: skip


def _window(names: Sequence[str], seeds: int, rng: Any) -> pd.DataFrame:
    typical = {"mean_nc1_distance": 2.0, "mean_nc1_normalized": 0.8, "epochs_to_half": 12.0}
    return pd.DataFrame([
        {"experiment": name, "checkpoint": "window", "part": "train", "measure": measure, "group": "", "arm": arm,
         "seed": seed, "value": value * (1 + 0.2 * (arm == "biased") + 0.05 * rng.normal())}
        for name in names for measure, value in typical.items() for arm in ARMS for seed in range(seeds)
    ])  # fmt: skip


def _compared(values: pd.DataFrame, groups: Sequence[str]) -> list[dict[str, Any]]:
    """Compare, with 120 test cases of each group, of which 40 are positive; of the second group 8 are."""
    found = compare_arms(values, by=["experiment", "checkpoint", "part", "measure", "group"])
    found["group_n"] = 120
    found["group_n_positive"] = [8 if group == groups[1] else 40 for group in found["group"]]
    rows: list[dict[str, Any]] = found.to_dict("records")
    return rows


def _agreement(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    table = pd.DataFrame(points)
    return [
        {"arm": arm, "checkpoint": when, **asdict(rank_agreement(own["separability_mean"], own["split_mean"]))}
        for (arm, when), own in table.groupby(["arm", "checkpoint"], sort=False)
    ]


def _changes(names: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    nan = float("nan")
    tested = {"low": -0.08, "high": -0.04, "p": 0.002} if seeds > 1 else {"low": nan, "high": nan, "p": 1.0}
    return [
        {"experiment": name, "arm": arm, "n": seeds, "mean_early": 0.8, "mean_final": 0.74, "difference": -0.06,
         **tested, "p_holm": tested["p"], "p_smallest": min(1.0, 2 / 2**seeds), "reason": ""}
        for name in names for arm in ARMS
    ]  # fmt: skip


def _cloud(n: int, spread: float, rng: Any) -> dict[str, Any]:
    """Points around (0, 0) and (1, 0): each tenth has a changed label and lies near (0.9, 0) or, when spread is small,
    near (0.1, 0)."""
    place = np.arange(n)
    clean, changed = place % 2, place % 10 == 1
    centre = np.where(changed, 0.9 if spread > 0.2 else 0.1, clean)
    points = np.stack([centre, np.zeros(n)], axis=1) + np.where(changed, 0.05, spread)[:, None] * rng.normal(
        size=(n, 2)
    )
    return {
        "points": points.tolist(), "means": [[0.0, 0.0], [1.0, 0.0]], "clean_label": clean.tolist(),
        "label": np.where(changed, 0, clean).tolist(), "in_group": (place % 3 == 0).tolist(),
    }  # fmt: skip
