"""What registration costs against the size of the cohort and the resolution: seconds and memory per subject.

    python benchmarks/registration_scale.py --work WORK [--threads 4] [--sizes 64,256,1024] [--spacings 4,2,1.5]
        [--table benchmarks/results/registration-scale-NAME.md]

Each line is measured in a process of its own, so that its peak memory is its own. The cohorts of one resolution share
64 simulated images under many names: cost does not depend on what the images show. Levels are in voxels, so a finer
grid means finer steps of the same plan.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from registration_worker import peak_memory_mb
from torch.utils.data import DataLoader, DistributedSampler

from monai_fair.data import read_manifest
from monai_fair.engines import (
    CodeTable,
    CohortImages,
    CohortTrainer,
    RegistrationEvaluator,
    SubjectFit,
    SubjectImages,
    collate_subjects,
    read_template,
    template_match,
)
from monai_fair.networks import LatticeINR
from monai_fair.simulation import BrainCohort, simulate_brain

SHAPES = {4.0: (40, 48, 40), 2.0: (80, 96, 80), 1.5: (107, 128, 107), 1.0: (160, 192, 160)}
FIT = [[1.0, 4, 1]]
CODES, RESIDUAL = [[2.0, 4, 3], [1.0, 4, 2], [0.5, 2, 2]], [[0.3, 1, 3]]
IMAGES = 64
COHORT = BrainCohort(
    correlation=0.5,
    deformation_mm=1.55,
    detail_mm=0.45,
    disease_effect=0.25,
    group_effect=0.25,
    group_spread=1.0,
    train_share=0.6,
    val_share=0.15,
)


def cohort(work: Path, spacing: float, images: int) -> Path:
    """Simulate the images of one resolution, once."""
    return simulate_brain(
        work / f"cohort_{spacing:g}mm", n=images, seed=0, shape=SHAPES[spacing], spacing_mm=spacing, cohort=COHORT
    )


def rows(folder: Path, size: int) -> list[dict[str, str]]:
    """Return ``size`` subjects that share the images of ``folder``."""
    images = read_manifest(folder / "manifest.csv").table["image"].tolist()
    return [
        {"subject_id": f"s{number:05d}", "image": str(folder / images[number % len(images)])} for number in range(size)
    ]


def measure_fit(folder: Path, size: int) -> dict[str, float]:
    """Return seconds per subject of reading a cohort and of one epoch, and the peak memory in MB."""
    space = read_template(folder)
    match = template_match(space, FIT)
    network = LatticeINR(space.grid.shape)
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        images = CohortImages(rows(folder, size), space.grid, match, cache, progress=False)
        read = time.perf_counter() - start
        codes = CodeTable(images.subject_ids, network.code_shape)
        loader = DataLoader(images, batch_size=16, sampler=DistributedSampler(images, num_replicas=1, rank=0))
        trainer = CohortTrainer(
            "cpu", loader, network, torch.optim.Adam(network.parameters()), match, codes, levels=FIT
        )
        start = time.perf_counter()
        trainer.run()
        epoch = time.perf_counter() - start
    return {"reading_s": read / size, "epoch_s": epoch / size, "memory_mb": peak_memory_mb()}


def measure_new(folder: Path, size: int, residual: bool) -> dict[str, float]:
    """Return seconds per new subject of registration alone, and the peak memory in MB."""
    space = read_template(folder)
    levels = RESIDUAL if residual else []
    fit = SubjectFit(template_match(space, CODES, levels), code_levels=CODES, residual_levels=levels, iterations=10)
    loader = DataLoader(SubjectImages(rows(folder, size), space.grid), batch_size=8, collate_fn=collate_subjects)
    spent: list[float] = []
    evaluator = RegistrationEvaluator("cpu", loader, LatticeINR(space.grid.shape), fit)
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: spent.append(engine.state.output["seconds"]))
    evaluator.run()
    return {"register_s": sum(spent) / len(spent), "memory_mb": peak_memory_mb()}


def isolated(options: argparse.Namespace, **job: Any) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, "--work", str(options.work), "--threads", str(options.threads)]
    answer = subprocess.run([*command, "--job", json.dumps(job)], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def run_job(options: argparse.Namespace) -> dict[str, float]:
    """Do what :func:`isolated` asked for."""
    job = json.loads(options.job)
    torch.set_num_threads(options.threads)
    folder = cohort(options.work, job["spacing"], job["images"])
    if job["kind"] == "fit":
        return measure_fit(folder, job["size"])
    return measure_new(folder, job["size"], job["kind"] == "residual")


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--sizes", default="64,256,1024")
    parser.add_argument("--spacings", default="4,2,1.5")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(run_job(options)))
        return
    lines = ["| subjects | reading, s each | epoch, s each | fit, peak MB | codes, s each | codes, peak MB |"]
    lines.append("|---|---|---|---|---|---|")
    for size in map(int, options.sizes.split(",")):
        fit = isolated(options, kind="fit", spacing=2.0, size=size, images=IMAGES)
        new = isolated(options, kind="codes", spacing=2.0, size=size, images=IMAGES)
        lines.append(
            f"| {size} | {fit['reading_s']:.3f} | {fit['epoch_s']:.3f} | {fit['memory_mb']:.0f} "
            f"| {new['register_s']:.3f} | {new['memory_mb']:.0f} |"
        )
        print(lines[-1], flush=True)
    lines += [
        "",
        "| spacing, mm | voxels | codes, s each | codes + residual, s each | peak MB |",
        "|---|---|---|---|---|",
    ]
    for spacing in map(float, options.spacings.split(",")):
        codes, both = (
            isolated(options, kind=kind, spacing=spacing, size=16, images=16 if spacing != 2 else IMAGES)
            for kind in ("codes", "residual")
        )
        shape = " x ".join(map(str, SHAPES[spacing]))
        lines.append(
            f"| {spacing:g} | {shape} | {codes['register_s']:.3f} | {both['register_s']:.3f} "
            f"| {both['memory_mb']:.0f} |"
        )
        print(lines[-1], flush=True)
    if options.table:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
