"""What a mixture costs on many subjects: ours, with and without labels and predictions, beside scikit-learn's.

    python benchmarks/discovery.py [--threads 4] [--subjects 100000] [--columns 128] [--components 5,10,25]
        [--tol 0.001] [--table benchmarks/results/discovery-NAME.md]

The rows are easy, so that Domino's tolerance of 0.001 ends after a few steps; `--tol 0` goes on to its most, 100,
which is what hard rows cost. All methods get the same rows and start: k-means of the same seed, which is part of the
time. Each line is measured in a process of its own, so that its peak memory is its own; the rows themselves (102 MB at
the default size) are in it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from registration_worker import peak_memory_mb
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from monai_fair.subgroups import ErrorAwareMixture

METHODS = {
    "sklearn": "scikit-learn GaussianMixture, diag",
    "ours": "ErrorAwareMixture, embeddings alone",
    "ours_aware": "ErrorAwareMixture, with labels and predictions",
}
# As Domino has them, so that no method stops early for a tolerance of its own.
OPTIONS = {"max_iter": 100, "reg_covar": 1e-6, "random_state": 0}


def cohort(subjects: int, columns: int) -> tuple[Any, Any, Any]:
    """Overlapping clouds of 25 sizes; a label, and a score that errs in five of them."""
    rng = np.random.default_rng(0)
    cloud = rng.choice(25, size=subjects, p=rng.dirichlet(np.full(25, 5.0)))
    x = rng.normal(size=(subjects, columns))
    x += rng.normal(0, 0.35, (25, columns))[cloud]
    y = rng.integers(2, size=subjects)
    right = rng.random(subjects) < np.where(cloud < 5, 0.5, 0.9)
    return x, y, np.clip(np.where(right, y, 1 - y) + rng.normal(0, 0.1, subjects), 0.01, 0.99)


def measure(method: str, subjects: int, columns: int, components: int, tol: float) -> dict[str, float]:
    """Fit once, and say what it took."""
    x, y, y_prob = cohort(subjects, columns)
    warnings.simplefilter("ignore", ConvergenceWarning)
    start = time.perf_counter()
    if method == "sklearn":
        fitted = GaussianMixture(components, covariance_type="diag", tol=tol, **OPTIONS).fit(x)
    elif method == "ours":
        fitted = ErrorAwareMixture(components, tol=tol, **OPTIONS).fit(x)
    else:
        fitted = ErrorAwareMixture(components, tol=tol, **OPTIONS).fit(x, y, y_prob)
    return {
        "seconds": time.perf_counter() - start,
        "steps": fitted.n_iter_,
        "memory_mb": peak_memory_mb(),
        "log_likelihood": fitted.score(x),
    }


def isolated(options: argparse.Namespace, **job: Any) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(options.threads))
    command = [sys.executable, __file__, "--job", json.dumps(job)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **threads})
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--subjects", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=128)
    parser.add_argument("--components", default="5,10,25")
    parser.add_argument("--tol", type=float, default=1e-3)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(measure(**json.loads(options.job))))
        return
    lines = [
        f"# Mixtures of {options.subjects} subjects x {options.columns} columns",
        "",
        f"`python benchmarks/discovery.py`, {options.threads} threads of {platform.machine()}, scikit-learn "
        f"{sklearn.__version__}, numpy {np.__version__}, tolerance {options.tol:g}; load before the run "
        f"{os.getloadavg()[0]:.1f}.",
        "",
        "| components | method | seconds | steps | peak MB | mean log likelihood of the embeddings |",
        "|---|---|---|---|---|---|",
    ]
    for components in map(int, options.components.split(",")):
        for method, title in METHODS.items():
            found = isolated(
                options,
                method=method,
                subjects=options.subjects,
                columns=options.columns,
                components=components,
                tol=options.tol,
            )
            lines.append(
                f"| {components} | {title} | {found['seconds']:.1f} | {found['steps']:.0f} "
                f"| {found['memory_mb']:.0f} | {found['log_likelihood']:.6f} |"
            )
            print(lines[-1], flush=True)
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
