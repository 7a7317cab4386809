"""How smoothness was chosen: endpoint errors over its values on training subjects, and at the choice on others.

    python benchmarks/registration.py --cohort COHORT --out WORK --methods ours_codes,ours_residual
    python benchmarks/registration_smoothness.py --cohort COHORT --model WORK/model/same
        [--table benchmarks/results/registration-smoothness-NAME.md]

The last rows are test subjects that the other tables do not use, so nothing was chosen on them.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from registration_ours import SMOOTHNESS, ours
from registration_scores import Cohort
from tqdm import tqdm

from monai_fair.data import Volume, read_displacement, read_labels, read_volume

VALUES = (0.01, 0.03, 0.06, 0.1, 0.17, 0.3, 1.0)
COUNT = 16


def errors(cohort: Cohort, subjects: list[str], fields: list[np.ndarray]) -> np.ndarray:
    """Return each subject's mean endpoint error in mm inside its brain."""
    found = []
    for subject, field in zip(subjects, fields, strict=True):
        truth, grid = read_displacement(cohort.truth(subject, "desc-truth_xfm"))
        apart = np.linalg.norm((field - truth) * np.asarray(grid.spacing_mm)[:, None, None, None], axis=0)
        found.append(apart[read_labels(cohort.truth(subject, "desc-brain_mask")).array > 0].mean())
    return np.array(found)


def row(cohort: Cohort, title: str, subjects: list[str], model: Path, smoothness: float) -> str:
    """Register subjects with codes, and with a residual, and return a line of the table."""
    template = read_volume(cohort.template)
    images: list[Volume] = [read_volume(cohort.image(subject)) for subject in subjects]
    cells = [title, f"{smoothness:g}", str(len(subjects))]
    for residual in (False, True):
        fields = ours(template, images, model, residual=residual, smoothness=smoothness)
        each = errors(cohort, subjects, fields)
        cells.append(f"{each.mean():.3f} ({each.std(ddof=1):.3f})")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cohort = Cohort.read(options.cohort)
    train, others = cohort.subjects("train")[:COUNT], cohort.subjects("test")[COUNT : 2 * COUNT]
    lines = [
        "# Smoothness of the registration, chosen on training subjects",
        "",
        f"Simulated brains, seed {cohort.record['parameters']['seed']}, as in the table of registrations. Endpoint "
        "error in mm: mean over subjects (standard deviation).",
        "",
        "| subjects | smoothness | n | codes only | codes + residual |",
        "|---|---|---|---|---|",
    ]
    for value in tqdm(VALUES, desc="smoothness", unit="value"):
        lines.append(row(cohort, "training", train, options.model, value))
    lines.append(row(cohort, "test, used for nothing else", others, options.model, SMOOTHNESS))
    text = "\n".join(lines) + "\n"
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
