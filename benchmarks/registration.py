"""Registration of unseen subjects: ours beside ANTs, elastix, demons and a network per pair, against a known truth.

    python -m monai_fair simulate brain --out COHORT --n 96 --train_share 0.6666666666666666 --val_share 0
        --deformation_mm 1.55 --detail_mm 0.45 --disease_effect 0.25 --group_effect 0.25 --group_spread 1
        --correlation 0.5    (64 to fit, 32 unseen)
    python benchmarks/registration.py --cohort COHORT --out WORK [--subjects 16] [--threads 4]
        [--methods demons,siren] [--peers_python ENVIRONMENT/bin/python] [--against WORK_MATCHED]
        [--table benchmarks/results/registration-NAME.md]

ANTs and elastix run with the Python of an environment of their own (`pip install antspyx itk-elastix`). Each method
gets one subject per process, and the methods take turns on a subject; ours gets all subjects in one batch, after a fit
to the training subjects. WORK/rows.csv has one row per method and subject and WORK/fields what was found; a method that
has its row is not run again (give `--repeat`), so the table can be built in several sittings on a quiet machine, and
`--rescore` computes the quality anew. `--methods none` only writes the table. On a machine that does something else
too, `--untimed` adds rows for their quality only, without seconds.

The same subjects with another contrast or a bias field: simulate with the same n and seed and `--contrast gamma`,
`--contrast inverted` or `--bias_field 0.4`, and give the first WORK as `--against`. The methods `ours_codes_any` and
`ours_residual_any` give the template each subject's contrast first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
from registration_scores import Cohort, quality
from registration_table import page
from registration_worker import FITS, OURS, PEERS
from tqdm import tqdm

from monai_fair.data.tables import write_table
from monai_fair.errors import MonaiFairError

METHODS = ["before", *OURS, *PEERS]
_WORKER = Path(__file__).with_name("registration_worker.py")
_FOREIGN = ("ants_syn", "ants_syn_cc", "elastix_bspline")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of an earlier sitting; a fingerprint of digits stays text."""
    rows: list[Any] = pd.read_csv(path, dtype={"cohort": str}).to_dict("records")
    return rows


class Run:
    """The rows that were measured, and how to measure another."""

    def __init__(self, cohort: Cohort, options: argparse.Namespace) -> None:
        self.cohort, self.options = cohort, options
        self.path = options.out / "rows.csv"
        self.rows: list[dict[str, Any]] = []
        if self.path.is_file():
            self.rows = read_rows(self.path)
        same = {"cohort": cohort.record["fingerprint"][:12], "threads": options.threads}
        for name, value in same.items():
            if any(row[name] != value for row in self.rows):
                sys.exit(f"{self.path}: expected rows with {name} {value}, got others; give another --out")
        self.same = same

    def has(self, method: str, subject: str) -> bool:
        """Tell whether a method has registered a subject."""
        wanted = (method, subject, "registered")
        return any((row["method"], row["subject_id"], row["status"]) == wanted for row in self.rows)

    def field(self, method: str, subject: str) -> Path:
        """Where the field of a method lies."""
        return Path(self.options.out, "fields", method, f"{subject}.nii.gz")

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Put rows in place of older ones of the same method and subject, and save."""
        new = {(row["method"], row["subject_id"]) for row in rows}
        self.rows = [row for row in self.rows if (row["method"], row["subject_id"]) not in new]
        self.rows += [{**row, **self.same} for row in rows]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_table(self.path, pd.DataFrame(self.rows))

    def measure(self, method: str, subjects: list[str]) -> None:
        """Register subjects in one process, unless all have their rows."""
        if not self.options.repeat and all(self.has(method, subject) for subject in subjects):
            return
        cost: dict[str, Any] = {"status": "registered"}
        if method != "before":
            cost = {**self._work(method, subjects), "batch": len(subjects)}
            cost |= {name: cost[name] / len(subjects) for name in ("seconds", "gflop") if name in cost}
            cost |= dict.fromkeys(("seconds", "gflop", "load") if self.options.untimed else (), float("nan"))
        self.add(
            [
                {"method": method, "subject_id": subject, **cost, **self._quality(method, subject, cost)}
                for subject in subjects
            ]
        )

    def fit(self, method: str, subjects: list[str]) -> None:
        """Fit ours to the training subjects, unless that is done."""
        name = f"{len(subjects)} subjects"
        if self.options.repeat or not self.has(method, name):
            self.add([{"method": method, "subject_id": name, **self._work(method, subjects)}])

    def rescore(self) -> None:
        """Compute the quality of all fields anew."""
        for row in self.rows:
            row.update(self._quality(row["method"], row["subject_id"], row))
        self.add([])

    def _quality(self, method: str, subject: str, row: dict[str, Any]) -> dict[str, Any]:
        if row["status"] != "registered" or method in FITS:
            return {}
        try:
            return quality(self.cohort, subject, None if method == "before" else self.field(method, subject))
        except MonaiFairError as error:
            # a field that is not whole is an answer that failed
            return {"status": "failed", "reason": str(error)}

    def _work(self, method: str, subjects: list[str]) -> dict[str, Any]:
        """Run the worker and return what all subjects together cost, or why it failed."""
        python = self.options.peers_python if method in _FOREIGN else sys.executable
        fields = [] if method in FITS else [self.field(method, subject) for subject in subjects]
        (self.options.out / "fields" / method).mkdir(parents=True, exist_ok=True)
        threads = str(self.options.threads)
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder) / "answer.json"
            command = [python, _WORKER, method, "--template", self.cohort.template, "--threads", threads]
            command += ["--images", *(self.cohort.image(subject) for subject in subjects)]
            command += ["--fields", *fields, "--model", self.options.out / "model", "--answer", answer]
            # transformix leaves a file in the folder it runs in
            ran = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, **dict.fromkeys(names, threads)},
                capture_output=True,
                text=True,
            )
            if ran.returncode or not answer.is_file():
                lines = ran.stderr.strip().splitlines()
                return {"status": "failed", "reason": f"exit {ran.returncode}: {lines[-1] if lines else ''}"}
            return {"status": "registered", **json.loads(answer.read_text(encoding="utf-8"))}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--subjects", type=int, default=16)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--peers_python", default=sys.executable)
    parser.add_argument("--repeat", action="store_true")
    parser.add_argument("--untimed", action="store_true")
    parser.add_argument("--rescore", action="store_true")
    parser.add_argument("--against", type=Path)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    # workers run in folders of their own; a link to a Python is kept, because it tells the environment
    options.cohort, options.out = options.cohort.resolve(), options.out.resolve()
    options.peers_python = Path(options.peers_python).absolute()
    options.methods = [] if options.methods == "none" else options.methods.split(",")
    if unknown := sorted(set(options.methods) - set(METHODS)):
        parser.error(f"--methods: expected some of {','.join(METHODS)}, got {','.join(unknown)}")
    return options


def main() -> None:
    """Measure what is missing, and print the table."""
    options = _options()
    cohort = Cohort.read(options.cohort)
    held_out = cohort.subjects("test")[: options.subjects]
    if len(held_out) < options.subjects:
        sys.exit(f"{options.cohort}: expected {options.subjects} test subjects, got {len(held_out)}; simulate more")
    cohort.check_grids(held_out)
    run = Run(cohort, options)
    if ours := [method for method in options.methods if method in OURS]:
        for method in dict.fromkeys(OURS[method] for method in ours):
            run.fit(method, cohort.subjects("train"))
        for method in ours:
            run.measure(method, held_out)
    others = [method for method in options.methods if method not in OURS]
    turns = [(method, subject) for subject in held_out for method in others]
    for method, subject in tqdm(turns, desc="registration", unit="pair"):
        run.measure(method, [subject])
    if options.rescore:
        run.rescore()
    against = pd.DataFrame(read_rows(options.against / "rows.csv")) if options.against else None
    text = page(pd.DataFrame(run.rows), cohort.record["parameters"], against)
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
