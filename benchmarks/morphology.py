"""The morphological bias study over simulated cohorts: what finds the planted group, and what reduces the bias.

    python benchmarks/morphology.py --work DIR [--cohorts 11,12,13,14,15] [--seeds 0,1] [--arms erm,oracle,...]
        [--set correlation=0.4 ...] [--jobs 4] [--threads 4] [--tidy] [--out benchmarks/results/morphology-simulated.md]
    python benchmarks/morphology.py --work DIR --table-only --out ...

Each cohort goes through the stages of the bundle's study.yaml, and through arms and detectors beside it that a study
has not. `--set` changes an option of `simulate brain`; cohorts of a setting share a folder of DIR, and the page has all
settings of DIR. What is finished is skipped when it is started again.
"""

import argparse
import ast
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from morphology_arms import ARMS, GROUP, CohortStudy
from morphology_detection import (
    WRITTEN,
    claim_rows,
    detection_rows,
    error_aware_rows,
    look,
    memberships,
    read_rows,
)
from morphology_scores import conflicting_pairs, run_scores
from morphology_table import page

from monai_fair.data.artifacts import read_json, write_json
from monai_fair.engines import StageClock
from monai_fair.errors import MonaiFairError
from monai_fair.simulation import simulate_brain_from_options

KIND = "morphology_scores"
# The default effects with more test subjects: 240 in training, 40 in validation, 160 in test.
COHORT = {"n": 440, "spacing": 3, "train_share": 6 / 11, "val_share": 1 / 11}
_HEAVY = ("data", "study/fit", "study/registered")  # images and maps: all but 1 % of a cohort's 4 GB


def setting_name(changes: Mapping[str, Any], epochs: int | None) -> str:
    """Return the name of a folder for what differs from the default."""
    named = dict(sorted(changes.items())) | ({"epochs": epochs} if epochs else {})
    return "-".join(f"{key}_{value}" for key, value in named.items()) or "default"


def run_cohort(study: CohortStudy, simulation: Mapping[str, Any], arms: Sequence[str], jobs: int, threads: int) -> None:
    """Do what is not done of one cohort, and write its ``scores.json``."""
    clock = StageClock(study.folder)

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.monotonic()
        result = clock.run(name, work)
        print(f"{study.folder.parent.name} {study.folder.name}: {name}: {time.monotonic() - start:.1f} s", flush=True)
        return result

    timed("simulation", lambda: simulate_brain_from_options(study.data, num_workers=threads, **simulation))
    timed("fit of the cohort", lambda: study.part("fit").run())
    timed("registration of every subject", lambda: study.part("registration").run())
    timed("discovery in what registration wrote", lambda: look(study, WRITTEN, jobs=jobs))
    rows = timed("reading", lambda: read_rows(study, WRITTEN))
    found = timed("forced subgroups", lambda: memberships(study, rows))
    truth = study.cohort().table[GROUP].to_numpy()
    one_hot = (truth[:, None] == sorted(set(truth))).astype(float)
    study.rebalance("deformation", None)
    study.rebalance("oracle", one_hot)
    study.rebalance("intensity", found["intensity", "two_clouds"])
    if "augmented" in arms:
        timed("generation of images", lambda: study.part("generation").run())
    early = [arm for arm in arms if arm != "features"]
    timed("training and evaluation", lambda: study.train(early, jobs))
    timed("features of the classifier", study.features)
    timed("discovery in the classifier's features", lambda: look(study, ["embeddings"], jobs=1))
    features = read_rows(study, ["embeddings"])
    found |= memberships(study, features)
    if "features" in arms:
        study.rebalance("features", found["embeddings", "two_clouds"])
        timed("training on subgroups of features", lambda: study.train(["features"], jobs))
    rows.representations.extend(features.representations)
    detection = timed("scores of subgroups", lambda: [*detection_rows(study, found), *error_aware_rows(study, rows)])
    record = scores(study, simulation, arms, detection) | {"stages": clock.stages}
    write_json(study.folder / "scores.json", KIND, record)


def scores(
    study: CohortStudy, simulation: Mapping[str, Any], arms: Sequence[str], detection: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what the page needs of a cohort."""
    training, cohort = study.training_rows(), study.cohort()
    pairs, reason = conflicting_pairs(training[GROUP], training["label"])
    return {
        "setting": study.folder.parent.name,
        "cohort": study.seed,
        "simulation": dict(simulation),
        "seeds": list(study.seeds),
        "arms": list(arms),
        "overrides": dict(study.overrides),
        "n": cohort.table["split"].value_counts().to_dict(),
        "failed": dict(cohort.failed),
        "conflict": {str(label): name for label, name in pairs.items()} or reason,
        "claims": list(claim_rows(study, [*WRITTEN, "embeddings"])),
        "detection": detection,
        "runs": [
            {"arm": arm, "seed": seed, **run_scores(study.predictions(arm, seed), training, group=GROUP)}
            for arm in arms
            for seed in study.seeds
        ],
    }


def do_cohort(folder: Path, seed: int, options: argparse.Namespace, changes: Mapping[str, Any]) -> None:
    """Run a cohort unless its scores have all that is asked for; what they have beside it is kept."""
    path = folder / "scores.json"
    seeds, arms = list(options.seeds), {*options.arms, "erm"}
    if path.is_file():
        there = read_json(path, KIND)
        if there["simulation"] != {**COHORT, **changes, "seed": seed}:
            raise MonaiFairError(f"{path}: of another simulation; choose another --work")
        if set(seeds) <= set(there["seeds"]) and arms <= set(there["arms"]):
            return
        if not (folder / "data").is_dir():
            raise MonaiFairError(f"{folder}: was tidied, so that no arm or seed can be added; choose another --work")
        # the features are those of the first seed, which stays the first
        seeds, arms = list(dict.fromkeys([*there["seeds"], *seeds])), arms | set(there["arms"])
    overrides = {"max_epochs": options.epochs} if options.epochs else {}
    study = CohortStudy(folder, seed, tuple(seeds), overrides)
    kept = [arm for arm in ARMS if arm in arms]
    run_cohort(study, {**COHORT, **changes, "seed": seed}, kept, options.jobs, options.threads)
    if options.tidy:
        for name in _HEAVY:
            shutil.rmtree(folder / name)


def numbers(text: str) -> list[int]:
    """Read ``11,12``."""
    return [int(part) for part in text.split(",")]


def change(text: str) -> tuple[str, Any]:
    """Read ``correlation=0.4``; what is no number is text."""
    key, _, value = text.partition("=")
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return key, value


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cohorts", type=numbers, default=[11, 12, 13, 14, 15], help="seeds of the cohorts")
    parser.add_argument("--seeds", type=numbers, default=[0, 1], help="of the trainings")
    parser.add_argument("--arms", type=lambda text: text.split(","), default=list(ARMS), help=", ".join(ARMS))
    parser.add_argument("--set", type=change, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--jobs", type=int, default=4, help="trainings, or searches for subgroups, at a time")
    parser.add_argument("--threads", type=int, default=4, help="of a registration, and of all trainings together")
    parser.add_argument("--epochs", type=int, help="of the trainings, for a trial; a setting of its own")
    parser.add_argument("--tidy", action="store_true", help="remove images and maps of a cohort when it is scored")
    parser.add_argument("--table-only", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if unknown := set(options.arms) - set(ARMS):
        parser.error(f"--arms: expected names of {', '.join(ARMS)}, got {', '.join(sorted(unknown))}")
    known = set(signature(simulate_brain_from_options).parameters) - {"out", "seed", "num_workers"}
    if unknown := {key for key, _ in options.set} - known:
        parser.error(f"--set: expected options of simulate brain, got {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    """Run the cohorts, and print the page of all that is in the folder."""
    options = parse()
    torch.set_num_threads(options.threads)  # bundle runs share as many as this process has
    changes = dict(options.set)
    setting = options.work / setting_name(changes, options.epochs)
    failed = 0
    for seed in [] if options.table_only else options.cohorts:
        try:
            do_cohort((setting / f"cohort_{seed}").resolve(), seed, options, changes)
        except MonaiFairError as error:
            # one cohort never stops the others; the page says how many it has
            failed += 1
            print(f"{setting.name} cohort_{seed}: {error}", flush=True)
    records = [read_json(path, KIND) for path in sorted(options.work.glob("*/cohort_*/scores.json"))]
    if records:
        text = page(records, COHORT)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(text, encoding="utf-8")
        print(text)
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
