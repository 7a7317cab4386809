"""FairREAD, its parts and ERM on simulated chest X-rays: performance, gaps, FATE, and what features tell of attributes.

    python benchmarks/fairread.py --work DIR [--seeds 0,1,2,3,4] [--n 16000] [--jobs 4] [--set test_gaps=0 ...]
        [--overrides "{'stage1_epochs': 30}"] [--out benchmarks/results/fairread-simulated.md]

One cohort and one training of each arm for each seed. What is finished is skipped when it is started again.
"""

import argparse
import ast
from pathlib import Path
from typing import Any

import pandas as pd
from fairread_scores import ATTRIBUTES, probes, results
from fairread_table import page

from monai_fair.engines import BundleStudy
from monai_fair.engines.study_runs import run_in_order
from monai_fair.simulation import simulate_chest_from_options

BUNDLE = Path(__file__).resolve().parents[1] / "bundles/fairread_image_classification"
BASE = ["train.yaml", "small.yaml"]
STAGE1 = [["stage1_attributes.yaml"], ["stage1_encoder.yaml"]]
FAIRREAD = [*STAGE1, []]
ARMS: dict[str, Any] = {
    "erm": ["erm.yaml"],
    "adversary": ["adversary.yaml"],
    "orthogonality": STAGE1,
    "erasure": [*STAGE1, ["stage1_erasure.yaml"]],
    "fairread": FAIRREAD,
    "fairread_reference": {"trainings": FAIRREAD, "evaluate": ["published_thresholds.yaml"]},
    "fairread_erased": [*STAGE1, ["stage1_erasure.yaml"], ["erased.yaml"]],
    "fairread_erased_tuned": [*STAGE1, ["stage1_erasure.yaml"], [{"erased": True}]],
}
# most cases in test, where gaps over eight groups are judged, and enough in val for eight thresholds
SHARES = {"train_share": 0.3, "val_share": 0.2}
SETTINGS = {"stage1_epochs": 30, "stage1_batch_size": 128}  # the row loss needs its published batches


def study_of(work: Path, seed: int, options: argparse.Namespace) -> BundleStudy:
    """Simulate a cohort, and return the study over it."""
    planted = {**SHARES, **dict(options.set)}
    data = simulate_chest_from_options(work / f"cohort_{seed}", n=options.n, seed=seed, **planted)
    return BundleStudy(
        str(BUNDLE / "configs"),
        ARMS,
        [seed],
        str(work / f"study_{seed}"),
        str(data / "manifest.csv"),
        base=BASE,
        evaluate=["evaluate.yaml", {"save_layers": True}],
        overrides={
            "bundle_root": str(BUNDLE),
            "dataset_dir": str(data),
            "attributes": dict.fromkeys(ATTRIBUTES),
            "missing_attributes": True,
            "progress": False,
            **SETTINGS,
            **options.overrides,
        },
    )


def change(text: str) -> tuple[str, Any]:
    """Read ``test_gaps=0``."""
    key, _, value = text.partition("=")
    return key, ast.literal_eval(value)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=lambda text: [int(part) for part in text.split(",")], default=[0, 1, 2, 3, 4])
    parser.add_argument("--n", type=int, default=16000, help="images of a cohort")
    parser.add_argument("--jobs", type=int, default=4, help="trainings at a time")
    parser.add_argument("--set", type=change, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--overrides", type=ast.literal_eval, default={}, help="of the trainings")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    """Train and evaluate what is not done, print the page, and write it when asked."""
    options = parse()
    studies = {seed: study_of(options.work.resolve(), seed, options) for seed in options.seeds}
    runs = [run for study in studies.values() for run in study.runs]
    run_in_order(runs, source=str(options.work), jobs=options.jobs)  # of all cohorts side by side
    folders = {seed: study.output_dir for seed, study in studies.items()}
    rows = pd.DataFrame([row for seed, folder in folders.items() for row in results(folder, seed, ARMS)])
    told = probes(folders, ARMS, jobs=options.jobs, kept=options.work / "probes.csv")
    text = page(rows, told, options, {**SHARES, **SETTINGS})
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
