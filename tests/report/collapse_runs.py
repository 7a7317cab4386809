"""Run folders of a small study of neural collapse and label bias, in the true layout and with made-up features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pandas as pd

from monai_fair.data import (
    read_manifest,
    write_biased_labels,
    write_group_labels,
    write_manifest,
    write_predictions,
)
from monai_fair.data.artifacts import sha256, write_json, write_tensors
from monai_fair.data.builder import BuiltManifest
from monai_fair.metrics import neural_collapse
from monai_fair.report.collapse_measures import write_collapse_measures

LEVELS = {"sex": ("female", "male"), "age_group": ("<60", ">=60")}  # of each the first is under-diagnosed
EPOCHS = 6
FEATURES = 5
ROWS = 360
RATE = 0.25
SHIFT = 2.0  # of all features; the last layer takes it back
WEIGHT = np.array([[-2.0, 0.0, 0.3, 0.0, 0.0], [2.0, 0.0, 0.0, 0.3, 0.0]], dtype=np.float32)
BIAS = -SHIFT * WEIGHT.sum(axis=1)


def write_experiments(
    root: Path,
    *,
    seeds: int = 3,
    attributes: Sequence[str] = ("sex", "age_group"),
    datasets: Sequence[str] = ("skin",),
) -> list[dict[str, Any]]:
    """Write all runs of a study under ``root`` and return its experiments; 4 to 10 seconds for two of three seeds.

    Classes separate and samples gather around their means from epoch to epoch; mislabelled ones move from the mean of
    their true class to that of their label. Early stopping keeps epoch 2 of even seeds and 3 of odd ones.
    """
    experiments = []
    for number, dataset in enumerate(datasets):
        folder = root / dataset
        manifest = write_cohort(folder / "manifest.csv", attributes, seed=number)
        clean = write_arm(folder / "clean", manifest, attributes, {}, seeds)
        for attribute in attributes:
            group = levels(attribute)[0]
            told = {attribute: group}
            experiments.append({
                "dataset": dataset,
                "attribute": attribute,
                "group": group,
                "manifest": str(manifest),
                "seeds": list(range(seeds)),
                "runs": {
                    "clean": clean,
                    "biased": write_arm(folder / f"biased_{attribute}", manifest, [attribute], told, seeds),
                },
                "attribute_models": [
                    write_attribute_model(folder / f"group_{attribute}" / f"seed_{seed}", manifest, told, seed)
                    for seed in range(seeds)
                ],
            })  # fmt: skip
    return experiments


def levels(attribute: str) -> tuple[str, str]:
    return LEVELS.get(attribute, ("a", "b"))


def early_epoch(seed: int) -> int:
    return 2 + seed % 2


def write_cohort(path: Path, attributes: Sequence[str], *, seed: int = 0) -> Path:
    """Two images of each subject; a third of the rows for test; one subject in 30 without its attributes."""
    rng = np.random.default_rng(seed)
    subject = np.arange(ROWS) // 2
    people = subject[-1] + 1
    table = pd.DataFrame({"subject_id": [f"s{i:03d}" for i in subject], "image": [f"{i}.png" for i in range(ROWS)]})
    table["label"] = (rng.random(ROWS) < 0.4).astype(int)
    table["split"] = rng.permutation(np.repeat(["train", "val", "test"], [people // 2, people // 6, people // 3]))[
        subject
    ]
    for name in attributes:
        values = np.where(rng.random(people) < 0.5, *levels(name))
        table[name] = np.where(np.arange(people) % 30 == 7, "", values)[subject]
    return write_manifest(BuiltManifest(table.astype(str), {"num_classes": 2}), path)


def write_arm(
    folder: Path, manifest: Path, attributes: Sequence[str], group: Mapping[str, str], seeds: int
) -> dict[str, list[str]]:
    """Write the runs of one arm; ``group`` is under-diagnosed in it, none where it is empty."""
    found: dict[str, list[str]] = {"early": [], "final": []}
    for seed in range(seeds):
        early, final = (folder / checkpoint / f"seed_{seed}" for checkpoint in found)
        early.mkdir(parents=True)
        labels = manifest
        if group:
            labels = early / "labels.csv"
            write_biased_labels(manifest, labels, group=group, rate=RATE, seed=seed)
        training = Training(labels, tuple(attributes), seed)
        write_training(early, training)
        copytree(early, final)  # one training, evaluated twice
        for run, epoch in ((early, early_epoch(seed)), (final, EPOCHS)):
            write_evaluation(run, training, epoch)
        found["early"].append(str(early))
        found["final"].append(str(final))
    return found


@dataclass
class Training:
    """What a network makes of the images of a manifest in each epoch."""

    manifest: Path
    attributes: tuple[str, ...]
    seed: int
    noise: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        biased = "clean_label" in self.table
        self.noise = np.random.default_rng([self.seed, int(biased)]).normal(size=(len(self.table), FEATURES))

    @cached_property
    def table(self) -> pd.DataFrame:
        return read_manifest(self.manifest).table

    @property
    def mislabelled(self) -> np.ndarray | None:
        table = self.table
        return (table["label"] != table["clean_label"]).to_numpy() if "clean_label" in table else None

    def features(self, epoch: int) -> np.ndarray:
        table, done = self.table, (epoch - 1) / (EPOCHS - 1)
        label = table["label"].to_numpy(dtype=float)
        truth = table.get("clean_label", table["label"]).to_numpy(dtype=float)
        towards = 2 * ((1 - done) * truth + done * label) - 1
        spread = np.where(table["split"] == "train", 1.6 * 0.6**epoch, 1.2 - 0.1 * epoch)
        if "clean_label" in table:
            spread = 1.2 * spread
        centres = np.zeros((len(table), FEATURES))
        centres[:, 0] = towards * (0.5 + 0.5 * done)
        for place, name in enumerate(self.attributes, start=1):
            centres[:, place] = 0.8 * (1 - 0.5 * done) * (table[name] == levels(name)[0])
        return np.asarray((centres + SHIFT + spread[:, None] * self.noise).astype(np.float32))

    def scores(self, epoch: int) -> np.ndarray:
        logits = self.features(epoch) @ WEIGHT.T + BIAS
        return np.asarray(np.round(1 / (1 + np.exp(logits[:, 0] - logits[:, 1])), 6))

    def collapse(self, epoch: int) -> dict[str, Any]:
        """Records as the handler writes them."""
        table, features, wrong = self.table, self.features(epoch), self.mislabelled
        found: dict[str, Any] = {"train": {}, "test": {}, "test_to_train": {}}
        for name in self.attributes:
            means = None
            for kind, part in (("train", "train"), ("test", "test"), ("test_to_train", "test")):
                rows = (table["split"] == part).to_numpy()
                own = neural_collapse(
                    features[rows],
                    table.loc[rows, "label"].to_numpy(),
                    weight=WEIGHT,
                    bias=BIAS,
                    groups=table.loc[rows, name].tolist(),
                    mislabelled=None if wrong is None else wrong[rows],
                    means=means if kind == "test_to_train" else None,
                )
                means = own.means if kind == "train" else means
                found[kind][name] = own.record()
        return found


def write_training(folder: Path, training: Training) -> None:
    """Write what a training leaves."""
    rows = [{"epoch": epoch, **training.collapse(epoch)} for epoch in range(1, EPOCHS + 1)]
    options = {"layer": "fc", "parts": ["train", "test"], "attributes": list(training.attributes)}
    write_json(folder / "neural_collapse.json", "neural_collapse", {**options, "epochs": rows})
    write_json(folder / "model.json", "model", {"settings": {"image_size": 32}, "epoch": early_epoch(training.seed)})


def write_evaluation(folder: Path, training: Training, epoch: int) -> None:
    """Write what the evaluation of the model of an epoch leaves."""
    score = training.scores(epoch)
    table = training.table.drop(columns="clean_label", errors="ignore")
    table = table.assign(score_0=np.round(1 - score, 6), score_1=score)
    write_scored(folder, table, training.features(epoch))
    write_collapse_measures(
        folder / "predictions.csv", training.manifest, training.attributes, out=folder / "collapse.json"
    )


def write_scored(folder: Path, table: pd.DataFrame, features: np.ndarray) -> None:
    """Write a table of predictions and the features beside it."""
    path = write_predictions(folder / "predictions.csv", table)
    tensors = {"features": features, "weight": WEIGHT, "bias": BIAS}
    write_tensors(folder / "features.safetensors", tensors, {"predictions_sha256": sha256(path)})


def write_attribute_model(folder: Path, manifest: Path, group: Mapping[str, str], seed: int) -> str:
    """Write the predictions of a model that was trained to tell the group."""
    labels = Path(write_group_labels(manifest, folder / "labels.csv", group=group))
    table = read_manifest(labels).table
    noise = np.random.default_rng([seed, 7]).normal(size=len(table))
    table["score"] = np.round(1 / (1 + np.exp(-(2 * table["label"] - 1 + noise))), 6)
    write_predictions(folder / "predictions.csv", table)
    return str(folder)
