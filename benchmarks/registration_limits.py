"""What the error of our registration consists of: the choice of smoothness, and what the functions can express.

    python benchmarks/registration.py --cohort COHORT --out WORK --methods ours_codes,ours_residual
    python benchmarks/registration_limits.py --cohort COHORT --model WORK/model/same
        [--table benchmarks/results/registration-limits.md]

Smoothness is varied on training subjects. Its choice is then used on test subjects that the other tables do not
show, so nothing was chosen on them. For these, the true deformations are also brought as near as codes, or codes and
residual, can come to them, by least squares over the brain: an error that no choice of similarity removes.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from registration_ours import SMOOTHNESS, fitted_network, ours
from registration_scores import Cohort
from torch import Tensor
from tqdm import tqdm

from monai_fair.data import read_displacement, read_labels, read_volume
from monai_fair.engines.gauss_newton import Quadratic, newton_step
from monai_fair.networks import LatticeINR, SamplingGrid

VALUES = (0.01, 0.03, 0.06, 0.1, 0.17, 0.3, 1.0)
COUNT = 16
ITERATIONS = 150  # of conjugate gradients; twice as many come 3 % nearer with codes, and no nearer with a residual
Fields = list[npt.NDArray[np.float32]]


def errors(cohort: Cohort, subjects: list[str], fields: Fields) -> str:
    """Return the mean endpoint error in mm inside the subjects' brains, and its standard deviation."""
    found = []
    for subject, field in zip(subjects, fields, strict=True):
        truth, grid = read_displacement(cohort.truth(subject, "desc-truth_xfm"))
        apart = np.linalg.norm((field - truth) * np.asarray(grid.spacing_mm)[:, None, None, None], axis=0)
        found.append(apart[read_labels(cohort.truth(subject, "desc-brain_mask")).array > 0].mean())
    return f"{np.mean(found):.3f} ({np.std(found, ddof=1):.3f})"


def registered(cohort: Cohort, title: str, subjects: list[str], model: Path, smoothness: float) -> str:
    """Register subjects with codes, and with a residual, and return a line of the table."""
    template = read_volume(cohort.template)
    images = [read_volume(cohort.image(subject)) for subject in subjects]
    cells = [title, f"{smoothness:g}", str(len(subjects))]
    for residual in (False, True):
        fields = ours(template, images, model, residual=residual, smoothness=smoothness)
        cells.append(errors(cohort, subjects, fields))
    return "| " + " | ".join(cells) + " |"


@torch.no_grad()
def nearest(network: LatticeINR, truth: Tensor, mask: Tensor, *, residual: bool, iterations: int) -> Tensor:
    """Return what comes nearest to a true field, inside a mask, of all that codes, or residuals too, express.

    Args:
        network: the fitted one.
        truth: shape ``(1, 3, D, H, W)``.
        mask: of the subject's brain, shape ``(D, H, W)``.
        residual: any lattice coefficients, of which codes are a part.
        iterations: of conjugate gradients.

    Returns:
        A field, shape as ``truth``.
    """
    lattice = network.lattice
    codes = truth.new_zeros(1, *network.code_shape)

    def parts(stride: int) -> tuple[SamplingGrid, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        grid = lattice.sampling_grid(stride)
        if residual:
            return grid, lambda x: lattice.upsample(x, grid.weights), lambda x: lattice.downsample(x, grid.weights)
        linear = network.linearise(codes, grid)
        return grid, linear.push, linear.pull

    # every second voxel along each axis tells all about functions that are smooth over four
    grid, push, pull = parts(2)
    inside, wanted = mask[grid.slices], truth[(..., *grid.slices)]
    model = Quadratic(-pull(inside * wanted), lambda change: pull(inside * push(change)), lambda values: values)
    return parts(1)[1](newton_step(model, iterations))


def expressed(cohort: Cohort, subjects: list[str], model: Path, iterations: int = ITERATIONS) -> str:
    """Return the line of the table for the true fields themselves."""
    network = fitted_network(read_volume(cohort.template), model)
    cells = ["test, nearest to the truth", "-", str(len(subjects))]
    for residual in (False, True):
        fields = []
        for subject in subjects:
            truth = torch.from_numpy(read_displacement(cohort.truth(subject, "desc-truth_xfm"))[0])[None]
            mask = torch.from_numpy(read_labels(cohort.truth(subject, "desc-brain_mask")).array > 0).float()
            fields.append(nearest(network, truth, mask, residual=residual, iterations=iterations)[0].numpy())
        cells.append(errors(cohort, subjects, fields))
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
        "# What the error of our registration consists of",
        "",
        f"Simulated brains, seed {cohort.record['parameters']['seed']}, as in the table of registrations. Endpoint "
        "error in mm: mean over subjects (standard deviation).",
        "",
        "| subjects | smoothness | n | codes only | codes + residual |",
        "|---|---|---|---|---|",
    ]
    for value in tqdm(VALUES, desc="smoothness", unit="value"):
        lines.append(registered(cohort, "training", train, options.model, value))
    lines.append(registered(cohort, "test, in no other table", others, options.model, SMOOTHNESS))
    lines.append(expressed(cohort, others, options.model))
    text = "\n".join(lines) + "\n"
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
