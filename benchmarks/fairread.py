"""FairREAD, its parts and ERM on simulated chest X-rays: performance, gaps, FATE, and what features tell of attributes.

    python benchmarks/fairread.py --work DIR [--seeds 0,1,2,3,4] [--n 4000] [--jobs 4] [--set test_gaps=0 ...]
        [--overrides "{'max_epochs': 8}"] [--out benchmarks/results/fairread-simulated.md]

One cohort and one training of each arm for each seed. What is finished is skipped when it is started again.
"""

import argparse
import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_tensors
from monai_fair.engines import BundleRun, BundleStudy
from monai_fair.engines.bundle_runs import run_bundles
from monai_fair.metrics import attribute_probe, fate
from monai_fair.metrics.intervals import t_interval
from monai_fair.simulation import simulate_chest_from_options

BUNDLE = Path(__file__).resolve().parents[1] / "bundles/fairread_image_classification"
CONFIGS = BUNDLE / "configs"
ATTRIBUTES = ["sex", "race", "age_group"]
BASE = ["train.yaml", "small.yaml"]
ARMS: dict[str, Any] = {
    "erm": ["erm.yaml"],
    "adversary": ["adversary.yaml"],
    "orthogonality": [["stage1_attributes.yaml"], ["stage1_encoder.yaml"]],
    "fairread": [["stage1_attributes.yaml"], ["stage1_encoder.yaml"], []],
}
TITLES = {
    "erm": "ERM",
    "adversary": "adversary alone",
    "orthogonality": "orthogonality alone (stage 1, FCRO)",
    "fairread": "FairREAD",
    "fairread_reference": "FairREAD, thresholds as published",
}
MEASURES = {
    "auc": "AUC", "accuracy": "accuracy", "gap_eo": "delta EO", "gap_auc": "delta AUC", "fate_eo": "FATE_EO",
    "fate_auc": "FATE_AUC",
}  # fmt: skip
_PUBLISHED = {"threshold_split": "train", "threshold_min_count": 1, "threshold_shrinkage": 0.0}


def study_of(work: Path, seed: int, options: argparse.Namespace) -> BundleStudy:
    """Simulate a cohort, and return the study over it."""
    data = simulate_chest_from_options(work / f"cohort_{seed}", n=options.n, seed=seed, **dict(options.set))
    return BundleStudy(
        str(CONFIGS),
        ARMS,
        [seed],
        str(work / f"study_{seed}"),
        str(data / "manifest.csv"),
        base=BASE,
        overrides={
            "bundle_root": str(BUNDLE),
            "dataset_dir": str(data),
            "attributes": dict.fromkeys(ATTRIBUTES),
            "missing_attributes": True,
            "progress": False,
            **options.overrides,
        },
    )


def published(study: BundleStudy, seed: int) -> BundleRun:
    """FairREAD's model once more, with thresholds from the training rows, each group its own."""
    (run,) = [each for each in study.runs if each.name == f"fairread/seed_{seed}"]
    folder = study.output_dir / f"fairread_reference/seed_{seed}"
    overrides = {**run.overrides, "ckpt_path": str(run.folder / "model.pt"), "evaluate_splits": ["train", "test"]}
    return BundleRun(folder, [run.stages[-1]], overrides=overrides | _PUBLISHED, inputs=[run.folder / "model.pt"])


def scores(table: pd.DataFrame) -> dict[str, float]:
    """Performance and gaps of one run over the joint groups in its test rows."""
    test = table[table["split"] == "test"]
    test = test[(test[ATTRIBUTES] != "").all(axis=1)]
    positive, said = test["label"].to_numpy() == 1, (test["score"] >= test["threshold"]).to_numpy()
    groups = test.groupby(ATTRIBUTES, sort=True).indices
    rates = np.array([[said[rows][positive[rows]].mean(), (~said)[rows][~positive[rows]].mean()]
                      for rows in groups.values()])  # fmt: skip
    aucs = [roc_auc_score(positive[rows], test["score"].to_numpy()[rows]) for rows in groups.values()]
    return {
        "auc": float(roc_auc_score(positive, test["score"])),
        "accuracy": float((said == positive).mean()),
        "gap_eo": float(np.ptp(rates, axis=0).max()),
        "gap_auc": float(np.ptp(aucs)),
        "n": len(test),
        "smallest": min(min(positive[rows].sum(), (~positive[rows]).sum()) for rows in groups.values()),
    }


def probes(folder: Path, table: pd.DataFrame) -> dict[str, float]:
    """AUC of each attribute, read off the penultimate features."""
    features = read_tensors(folder / "features.safetensors")[0]["features"]
    return {name: attribute_probe(features, table[name].tolist(), table["split"].tolist()).auc for name in ATTRIBUTES}


def results(study: BundleStudy, seed: int) -> list[dict[str, Any]]:
    """A row for each arm, FATE against ERM of the same cohort."""
    rows = []
    for arm in TITLES:
        folder = study.output_dir / arm / f"seed_{seed}"
        table = read_predictions(folder / "predictions.csv").table
        told = probes(folder, table) if arm in ARMS else {}
        rows.append({"arm": arm, "seed": seed, **scores(table), **{f"probe_{name}": auc for name, auc in told.items()}})
    erm = rows[0]
    for row in rows[1:]:
        row["fate_eo"] = float(fate(row["accuracy"], erm["accuracy"], row["gap_eo"], erm["gap_eo"]))
        row["fate_auc"] = float(fate(row["auc"], erm["auc"], row["gap_auc"], erm["gap_auc"]))
    return rows


def interval(values: Sequence[float] | pd.Series) -> str:
    """Mean with its 95 % t interval."""
    found = np.asarray(values, dtype=float)
    if not np.isfinite(found).any():
        return ""
    mean, low, high = (float(value) for value in t_interval(found))
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def page(rows: pd.DataFrame, options: argparse.Namespace) -> str:
    """Return the tables as Markdown."""
    by = {arm: own.set_index("seed") for arm, own in rows.groupby("arm")}
    more = "".join(f" --{key} {value}" for key, value in options.set)
    changed = f", {options.overrides}" if options.overrides else ""
    lines = [
        "# FairREAD on simulated chest X-rays",
        "",
        f"`simulate chest --n {options.n}{more}`, `train.yaml` with `small.yaml`{changed}; {rows['seed'].nunique()} "
        f"cohorts, one training of each arm on each; {int(rows['n'].mean())} test images of a cohort. Means over "
        f"cohorts with 95 % t intervals. Gaps are over the joint groups of {', '.join(ATTRIBUTES)}; the smallest had "
        f"{int(rows['smallest'].min())} images of one label. Thresholds of every arm: min-gap for each joint group, on "
        "validation rows and drawn towards the pooled one; as published: on the training rows, each group its own.",
        "",
        "| arm | " + " | ".join(MEASURES.values()) + " |",
        "|" + "---|" * (len(MEASURES) + 1),
    ]
    for arm, title in TITLES.items():
        cells = [interval(by[arm][name]) if name in by[arm] else "" for name in MEASURES]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "FATE is above 0 where what is gained in the gap outweighs what is lost in performance, against ERM of the "
        "same cohort; computed for each cohort, then averaged.",
        "",
        "## What the features tell of attributes: AUC of a linear probe, fitted on validation rows",
        "",
        "| features of | " + " | ".join(ATTRIBUTES) + " | less than ERM's, mean of attributes |",
        "|" + "---|" * (len(ATTRIBUTES) + 2),
    ]
    names = [f"probe_{name}" for name in ATTRIBUTES]
    for arm in ARMS:
        less = "" if arm == "erm" else interval((by["erm"][names] - by[arm][names]).mean(axis=1))
        lines.append(f"| {TITLES[arm]} | " + " | ".join(interval(by[arm][name]) for name in names) + f" | {less} |")
    return "\n".join(lines) + "\n"


def change(text: str) -> tuple[str, Any]:
    """Read ``test_gaps=0``."""
    key, _, value = text.partition("=")
    return key, ast.literal_eval(value)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2, 3, 4])
    parser.add_argument("--n", type=int, default=4000, help="images of a cohort")
    parser.add_argument("--jobs", type=int, default=4, help="trainings at a time")
    parser.add_argument("--set", type=change, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--overrides", type=ast.literal_eval, default={}, help="of the trainings")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def run(options: argparse.Namespace) -> pd.DataFrame:
    """Train and evaluate what is not done; return a row for each arm and cohort."""
    work, jobs = options.work.resolve(), options.jobs
    studies: Mapping[int, BundleStudy] = {seed: study_of(work, seed, options) for seed in options.seeds}
    run_bundles([each for study in studies.values() for each in study.runs], source=str(work), jobs=jobs)
    run_bundles([published(study, seed) for seed, study in studies.items()], source=str(work), jobs=jobs)
    return pd.DataFrame([row for seed, study in studies.items() for row in results(study, seed)])


def main() -> None:
    """Print the page, and write it when asked."""
    options = parse()
    text = page(run(options), options)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
