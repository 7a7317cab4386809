"""What an audit costs: a million predictions from file to page, and the same estimands by other means.

    python benchmarks/audit.py [--rows 1000000] [--compared_rows 100000] [--out benchmarks/results/audit-NAME.md]

The first part runs `python -m monai_fair audit` as a user does, in a process of its own: three attributes and their
intersections, 2,000 resamples, 2,000 permutations, the whole page. The second part times our resamples against
fairlearn's MetricFrame with n_boot and against a bootstrap written in plain NumPy, on the same groups and metrics.
These two take hours at 2,000 resamples, so a few are timed and the time of 2,000 is that many times the time of one
more; ours is timed in full. The arms take turns.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fairlearn
import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, f1_score, roc_auc_score

from monai_fair import __version__
from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import METRICS as DEFINITIONS
from monai_fair.metrics import audit, group_values
from monai_fair.metrics.groups import groupings
from monai_fair.metrics.kinds import kinds_of, values_of
from monai_fair.metrics.resampling import resample, resampled_interval
from monai_fair.metrics.samples import canonical_samples
from monai_fair.metrics.spread import observed

ATTRIBUTES = {
    "sex": (["female", "male"], [0.5, 0.5]),
    "age_group": (["under 40", "40 to 59", "60 to 79", "80 and over"], [0.2, 0.35, 0.35, 0.1]),
    "race": (["A", "B", "C", "D", "E"], [0.5, 0.2, 0.15, 0.1, 0.05]),
}
THRESHOLD = 0.3


def predictions(rows: int, seed: int = 0) -> pd.DataFrame:
    """Scores of a classifier with AUC about 0.85 that misses more positives of one group."""
    rng = np.random.default_rng(seed)
    table = {name: rng.choice(values, rows, p=shares) for name, (values, shares) in ATTRIBUTES.items()}
    y = rng.random(rows) < 0.2
    evidence = rng.normal(0, 1, rows) + 1.5 * y - 0.2 * (y & (table["sex"] == "female"))
    number = np.arange(rows)
    return pd.DataFrame(
        {
            "subject_id": np.char.add("s", number.astype(str)),
            "image": np.char.add(np.char.add("images/", number.astype(str)), ".png"),
            "split": np.where(rng.random(rows) < 0.1, "val", "test"),
            "label": y.astype(int),
            "score": 1 / (1 + np.exp(1.9 - 1.5 * evidence)),
            **table,
        }
    )


def whole_audit(rows: int, folder: Path) -> dict[str, float]:
    """Time and memory of the command."""
    path = folder / "predictions.csv"
    predictions(rows).to_csv(path, index=False)
    command = [sys.executable, "-m", "monai_fair", "audit", str(path)]
    command += ["--attributes", ",".join(ATTRIBUTES), "--out", str(folder / "audit")]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "rows": rows,
        "seconds": seconds,
        "peak GB": usage.ru_maxrss * 1024 / 1e9,
        "CPU seconds": usage.ru_utime + usage.ru_stime,
        "file MB": path.stat().st_size / 1e6,
        "page MB": (folder / "audit/report.html").stat().st_size / 1e6,
    }


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# y_pred is the score, as MetricFrame hands the same column to each metric.
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "auc": roc_auc_score,
    "average_precision": average_precision_score,
    "brier": brier_score_loss,
    "tpr": lambda y, score: true_positive_rate(y, score >= THRESHOLD, pos_label=1),
    "fpr": lambda y, score: false_positive_rate(y, score >= THRESHOLD, pos_label=1),
    "accuracy": lambda y, score: accuracy_score(y, score >= THRESHOLD),
    "f1": lambda y, score: f1_score(y, score >= THRESHOLD, zero_division=np.nan),
    "selection_rate": lambda y, score: selection_rate(y, score >= THRESHOLD, pos_label=1),
}


def fairlearn_arm(table: pd.DataFrame, resamples: int) -> None:
    """One MetricFrame per attribute and intersection, with bootstrap intervals."""
    names = list(ATTRIBUTES)
    subsets = [[name] for name in names] + [[a, b] for i, a in enumerate(names) for b in names[i + 1 :]] + [names]
    for subset in subsets:
        frame = MetricFrame(
            metrics=METRICS,
            y_true=table["label"],
            y_pred=table["score"],
            sensitive_features=table[subset],
            n_boot=resamples,
            ci_quantiles=[0.025, 0.975],
            random_state=0,
        )
        assert len(frame.by_group_ci) == 2


def numpy_metrics(y: np.ndarray, score: np.ndarray) -> list[float]:
    """The same metrics in plain NumPy, from one sort."""
    order = np.argsort(-score)
    hit, ordered = y[order], score[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), hit.size - 1)
    true_positives = np.cumsum(hit)[last]
    false_positives = 1 + last - true_positives
    positives, negatives = true_positives[-1], false_positives[-1]
    tpr, fpr = np.append(0, true_positives / positives), np.append(0, false_positives / negatives)
    precision = true_positives / (1 + last)
    called = score >= THRESHOLD
    found, false_alarms = (called & (y == 1)).sum(), (called & (y == 0)).sum()
    return [
        float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2)),
        float(np.sum(np.diff(tpr) * precision)),
        float(np.mean((score - y) ** 2)),
        found / positives,
        false_alarms / negatives,
        (found + negatives - false_alarms) / y.size,
        2 * found / (found + false_alarms + positives),
        float(called.mean()),
    ]


def numpy_arm(table: pd.DataFrame, resamples: int) -> None:
    """Draw rows with replacement, and compute every metric in every group."""
    rng = np.random.default_rng(0)
    y, score = table["label"].to_numpy(), table["score"].to_numpy()
    text = table[list(ATTRIBUTES)].astype(str)
    grouped = [(grouping.codes, len(grouping.names)) for grouping in groupings(text, list(ATTRIBUTES))]
    found = []
    for _ in range(resamples):
        rows = rng.integers(0, y.size, y.size)
        y_drawn, score_drawn = y[rows], score[rows]
        for codes, count in grouped:
            drawn = codes[rows]
            for group in range(count):
                inside = drawn == group
                found.append(numpy_metrics(y_drawn[inside], score_drawn[inside]))
    np.quantile(np.reshape(found, (resamples, -1)), [0.025, 0.975], axis=0)


def same_estimands(table: pd.DataFrame, resamples: int) -> None:
    """Our resamples of the same metrics in the same groups, from the table to intervals."""
    y, score = table["label"].to_numpy() == 1, table["score"].to_numpy()
    grouped = groupings(table[list(ATTRIBUTES)].astype(str), list(ATTRIBUTES))
    samples = canonical_samples(y, [score], np.arange(y.size), grouped)
    kinds = kinds_of(samples.y, score[samples.rows], (score[samples.rows] >= THRESHOLD)[None])
    quantities = [(name, 0 if DEFINITIONS[name].of_predictions else None) for name in METRICS]
    found = resample(
        samples, [kinds], lambda counts: [values_of(kinds, counts[0], quantities)], resamples=resamples, seed=0
    )[0]
    assert found.shape == (resamples, len(METRICS), 89)
    codes = [grouping.codes[samples.rows] for grouping in grouped]
    exact = [
        [group_values(name, samples.y, score[samples.rows], code, len(grouping.names), threshold=THRESHOLD)
         for code, grouping in zip(codes, grouped, strict=True)]
        for name in METRICS
    ]  # fmt: skip
    values = np.array([np.concatenate(of_metric) for of_metric in exact])
    centre = values_of(kinds, observed(samples, kinds)[0], quantities)
    resampled_interval(values, centre, found, np.full(89, 1000), confidence=0.95)


def comparison(rows: int, resamples: int, rounds: int) -> list[tuple[str, float, str]]:
    """Seconds for all resamples: ours in full, the others from a few."""
    table = predictions(rows).assign(split="test")
    checked = check_predictions(table.astype(str), "predictions.csv")
    rule = [str(THRESHOLD)]

    def ours() -> None:
        audit({"run": [checked]}, list(ATTRIBUTES), thresholds=rule, resamples=resamples, permutations=resamples)

    few, more = 1, 3
    seconds: dict[str, list[float]] = {"ours": [], "whole audit": [], "fairlearn": [], "numpy": []}
    for _ in range(rounds):
        seconds["ours"].append(seconds_of(lambda: same_estimands(table, resamples)))
        seconds["whole audit"].append(seconds_of(ours))
        for name, arm in (("fairlearn", fairlearn_arm), ("numpy", numpy_arm)):
            one = (seconds_of(lambda arm=arm: arm(table, more)) - seconds_of(lambda arm=arm: arm(table, few))) / (
                more - few
            )
            seconds[name].append(one * resamples)
    said = {
        "ours": f"{len(METRICS)} metrics, intervals only; timed in full",
        "whole audit": f"{len(METRICS)} metrics and 7 more, permutation tests, curves and bands; timed in full",
        "fairlearn": f"MetricFrame(n_boot), {len(METRICS)} metrics, intervals only; from {more} minus {few} resamples",
        "numpy": f"{len(METRICS)} metrics, intervals only; from {more} minus {few} resamples",
    }
    return [(name, float(np.median(values)), said[name]) for name, values in seconds.items()]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--compared_rows", type=int, default=100_000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    lines = [
        "# Cost of an audit",
        "",
        f"monai_fair {__version__}, fairlearn {fairlearn.__version__}, numpy {np.__version__}, Python "
        f"{platform.python_version()}, {cores} CPU cores.",
        "",
        "## From predictions.csv to report.html",
        "",
        "`python -m monai_fair audit predictions.csv --attributes sex,age_group,race`: 3 attributes and their "
        "intersections (89 groups), 15 metrics at 2 thresholds, 2,000 resamples, 2,000 permutations, the whole page.",
        "",
    ]
    with tempfile.TemporaryDirectory() as folder:
        found = whole_audit(arguments.rows, Path(folder))
    lines += ["| " + " | ".join(found) + " |", "|" + "---|" * len(found)]
    lines += [
        "| " + " | ".join(f"{value:,.1f}" if value < 1000 else f"{value:,.0f}" for value in found.values()) + " |"
    ]
    compared = comparison(arguments.compared_rows, arguments.resamples, arguments.rounds)
    lines += [
        "",
        f"## {arguments.resamples:,} resamples of {arguments.compared_rows:,} predictions, 89 groups",
        "",
        "| arm | seconds | times ours | what it computes |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {seconds:,.1f} | {seconds / compared[0][1]:,.1f} | {said} |" for name, seconds, said in compared
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
