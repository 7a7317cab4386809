"""The study of neural collapse and label bias on simulated skin images, as one bundle command, timed.

    python benchmarks/label_bias.py --work DIR [--cohorts skin] [--seeds 10] [--out benchmarks/results/label-bias.md]

Cohorts differ in how well the sex shows in the image. A quarter of the positives of women, or of the older, are
recorded as healthy in train and val. What is published of such a study stands beside what comes out here.
"""

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from monai_fair.data.artifacts import read_json

BUNDLE = Path(__file__).parents[1] / "bundles" / "fair_image_classification"
COHORTS = {"faint": 0.1, "skin": 0.5, "strong": 1.0}  # cue_strength of the sex
GROUPS = {"sex": "female", "age_group": ">=60"}
COHORT = {"n": 1600, "size": 64, "label_bias": 0, "correlation": 0, "train_share": 0.4, "val_share": 0.1}
SHOWN = {"f1": "F1", "nc1_normalized": "NC1, normalised", "nc1_distance": "NC1, eq. 1"}


def main() -> None:
    """Do the study, and write its numbers as a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cohorts", default="skin")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = options.cohorts.split(",")
    for name in names:
        prepare(options.work / "data" / name, COHORTS[name])
    seconds = run_study(options.work, names, options.seeds)
    results = read_json(options.work / "study" / "neural_collapse_study.json", "neural_collapse_study")
    text = "\n".join(page(results, names, options, seconds)) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


def prepare(folder: Path, cue: float) -> None:
    """Simulate a cohort, and make its manifest."""
    if (folder / "manifest.csv").is_file():
        return
    values = [f"--{name}={value}" for name, value in {**COHORT, "cue_strength": cue}.items()]
    call("-m", "monai_fair", "simulate", "skin", "--out", str(folder), *values)
    given = ["--root", str(folder), "--split", str(folder / "split.csv"), "--out", str(folder / "manifest.csv")]
    call("-m", "monai_fair", "manifest", "--recipe", "ham10000", *given)


def run_study(work: Path, names: list[str], seeds: int) -> float:
    """Run the bundle's study and return the seconds it took."""
    data = work / "data"
    datasets = {
        name: {"manifest": str(data / name / "manifest.csv"), "dataset_dir": str(data / name), "groups": GROUPS}
        for name in names
    }
    files = [str(BUNDLE / "configs" / f"{name}.yaml") for name in ("study", "neural_collapse_study", "collapse_small")]
    start = time.monotonic()
    call(
        "-m", "monai.bundle", "run", "--config_file", str(files), "--bundle_root", str(BUNDLE),
        "--output_dir", str(work / "study"), "--seeds", str(list(range(seeds))), "--datasets", str(datasets),
    )  # fmt: skip
    return time.monotonic() - start


def call(*words: str) -> None:
    """Run Python as a user would."""
    subprocess.run([sys.executable, *words], check=True)


def page(results: dict[str, Any], names: list[str], options: argparse.Namespace, seconds: float) -> Iterator[str]:
    """Return the lines of the page."""
    cues = ", ".join(f"{name} {COHORTS[name]:g}" for name in names)
    trainings = len(names) * options.seeds * (1 + 2 * len(GROUPS))
    yield from (
        "# Label bias and neural collapse, simulated skin images",
        "",
        f"`python benchmarks/label_bias.py --work DIR --cohorts {options.cohorts} --seeds {options.seeds}`: cohorts of "
        f"{COHORT['n']} images (strength of the cue that shows the sex: {cues}), 40 % of them to train on; {trainings} "
        "trainings of up to 80 epochs on images of 28 pixels (`collapse_small.yaml`), each evaluated where early "
        f"stopping would have ended and at the end. The command took {seconds / 60:.1f} minutes on "
        f"{joblib.cpu_count()} cores, and skips what an earlier start had finished.",
        "",
        "Seeds share their test images: intervals and p know trainings and draws of the changed labels, not patients.",
        "",
        "## Train NC1 goes down in both arms",
        "",
        "| experiment | arm | measure | maximum over last value, mean (range over seeds) | last value |",
        "|---|---|---|---|---|",
    )
    for row in results["falls"]:
        ratio, last = np.array(row["ratio"], dtype=float), np.array(row["last"], dtype=float)
        yield (
            f"| {row['experiment']} | {row['arm']} | {row['measure']} | {ratio.mean():.0f} ({ratio.min():.0f} to "
            f"{ratio.max():.0f}) | {last.mean():.3g} |"
        )
    yield from ("", "## Clean and biased models", "", *HEAD)
    for row in [*results["window"], *results["comparisons"]]:
        if row["measure"] in SHOWN and row["part"] in ("test", "test_to_train") and row["group"]:
            if row["part"] == "test" and row["measure"] != "f1":
                continue  # around the test features' own means; on the study's page
            yield difference(row, f"{row['checkpoint']}, {SHOWN[row['measure']]}, {row['group']}")
        elif row["checkpoint"] == "window":
            yield difference(row, f"early epochs, {row['measure']}")
    yield from ("", "## SPLIT test: AUC of the early and of the final model", "", *SPLIT_HEAD)
    for row in results["split"]["changes"]:
        yield difference(row, row["arm"], means=("mean_early", "mean_final"))
    for row in results["split"]["agreement"]:
        told = f"tau {row['tau']:.2f}, p {row['p']:.3f}" if row["tau"] is not None else row["reason"]
        where = f"{row['arm']} {row['checkpoint']}"
        yield f"\nOrder of {row['n']} experiments by SPLIT test and separability, {where}: {told}."


HEAD = (
    "| experiment | what | clean | biased | difference (95 % interval) | p | Holm |",
    "|---|---|---|---|---|---|---|",
)
SPLIT_HEAD = (
    "| experiment | arm | early | final | change, paired by seed (95 % interval) | p | Holm |",
    "|---|---|---|---|---|---|---|",
)


def difference(row: dict[str, Any], what: str, *, means: tuple[str, str] = ("mean_first", "mean_later")) -> str:
    """Return a row of a table."""
    if row["difference"] is None or math.isnan(row["difference"]):
        return f"| {row['experiment']} | {what} | | | undefined: {row['reason']} | | |"
    span = "" if row["low"] is None else f" ({row['low']:+.3f} to {row['high']:+.3f})"
    holm = "" if row.get("p_holm") is None else f"{row['p_holm']:.3g}"
    both = " | ".join(f"{row[name]:.3f}" for name in means)
    return f"| {row['experiment']} | {what} | {both} | {row['difference']:+.3f}{span} | {row['p']:.2g} | {holm} |"


if __name__ == "__main__":
    main()
