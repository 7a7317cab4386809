"""What one training of FairREAD's comparison did on test rows, and what its layers tell of the attributes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from joblib import Parallel, delayed
from sklearn.metrics import roc_auc_score

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_tensors
from monai_fair.metrics import attribute_probe, fate, find_threshold
from monai_fair.metrics.label_probes import label_alone_probe, within_label_probe

ATTRIBUTES = ["sex", "race", "age_group"]
_DRAWS = 4000


def known_test_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Test rows with every attribute."""
    test = table[table["split"] == "test"]
    return test[(test[ATTRIBUTES] != "").all(axis=1)]


def gaps(test: pd.DataFrame, threshold: npt.ArrayLike) -> dict[str, float]:
    """Accuracy, delta EO over the joint groups, and the delta EO of equal rates in groups of these sizes."""
    positive, said = test["label"].to_numpy() == 1, test["score"].to_numpy() >= np.asarray(threshold)
    groups = test.groupby(ATTRIBUTES, sort=True).indices.values()
    sides = [[rows[positive[rows]] for rows in groups], [rows[~positive[rows]] for rows in groups]]
    right = said == positive
    rates = np.array([[right[rows].mean() for rows in side] for side in sides])
    counts = np.array([[len(rows) for rows in side] for side in sides])
    common = np.array([[right[np.concatenate(side)].mean()] for side in sides])
    drawn = np.random.default_rng(0).binomial(counts, common, (_DRAWS, *counts.shape)) / counts
    return {
        "accuracy": float(right.mean()),
        "gap_eo": float(np.ptp(rates, axis=1).max()),
        "chance_eo": float(np.ptp(drawn, axis=2).max(axis=1).mean()),
        "smallest": int(counts.min()),
    }


def scores(table: pd.DataFrame) -> dict[str, float]:
    """Performance and gaps of one run, by its stored thresholds and by one threshold for all."""
    val, test = table[table["split"] == "val"], known_test_rows(table)
    positive, score = test["label"].to_numpy() == 1, test["score"].to_numpy()
    aucs = [roc_auc_score(positive[rows], score[rows]) for rows in test.groupby(ATTRIBUTES, sort=True).indices.values()]
    found = {"auc": float(roc_auc_score(positive, score)), "gap_auc": float(np.ptp(aucs)), "n": len(test)}
    if len(val):
        one = gaps(test, find_threshold(val["label"], val["score"], "min_gap"))
        found |= {"one_accuracy": one["accuracy"], "one_eo": one["gap_eo"]}
    return {**found, **gaps(test, test["threshold"])}


def results(folder: Path, seed: int, arms: Iterable[str]) -> list[dict[str, Any]]:
    """A row for each arm, FATE against the first one on the same cohort."""
    rows = []
    for arm in arms:
        table = read_predictions(folder / arm / f"seed_{seed}" / "predictions.csv").table
        rows.append({"arm": arm, "seed": seed, **scores(table)})
    first = rows[0]
    for row in rows[1:]:
        row["fate_eo"] = float(fate(row["accuracy"], first["accuracy"], row["gap_eo"], first["gap_eo"]))
        row["fate_auc"] = float(fate(row["auc"], first["auc"], row["gap_auc"], first["gap_auc"]))
    for row in rows:  # against what is usually deployed, one threshold for all
        row["fate_from_one"] = float(fate(row["accuracy"], first["one_accuracy"], row["gap_eo"], first["one_eo"]))
        row["fate_one"] = float(fate(row["one_accuracy"], first["one_accuracy"], row["one_eo"], first["one_eo"]))
    return rows


def probes(folders: Mapping[int, Path], arms: Iterable[str], *, jobs: int, kept: Path) -> pd.DataFrame:
    """AUC of probes: ``seed, arm, layer, attribute, overall, within``; the label alone has no arm. Kept in a file."""
    if kept.is_file():
        return pd.read_csv(kept, keep_default_na=False, na_values=["nan"])
    runs = [(seed, arm, folder / arm / f"seed_{seed}") for seed, folder in folders.items() for arm in arms]
    work = [
        (seed, arm, layer, name, path)
        for seed, arm, path in runs
        if arm != "fairread_reference"  # FairREAD's own models
        for layer in read_tensors(path / "layers.safetensors")[0]
        if layer not in ("mu", "sigma")  # of the attributes alone
        for name in ATTRIBUTES
    ]
    work += [(seed, "", "label", name, path) for seed, arm, path in runs if arm == "erm" for name in ATTRIBUTES]
    found = pd.DataFrame(Parallel(jobs)(delayed(_probe)(*each) for each in work))
    found.to_csv(kept, index=False, na_rep="nan")
    return found


def _probe(seed: int, arm: str, layer: str, name: str, path: Path) -> dict[str, Any]:
    table = read_predictions(path / "predictions.csv").table
    attribute, split, label = table[name].tolist(), table["split"].tolist(), table["label"].to_numpy()
    found = {"seed": seed, "arm": arm, "layer": layer, "attribute": name, "within": float("nan")}
    if layer == "label":
        return {**found, "overall": label_alone_probe(attribute, label, split).auc}
    features = read_tensors(path / "layers.safetensors")[0][layer]
    return {
        **found,
        "overall": attribute_probe(features, attribute, split).auc,
        "within": within_label_probe(features, attribute, label, split).auc,
    }
