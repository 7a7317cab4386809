"""What NIR does on the simulated cohort: ERM, the bundle's NIR, and the paper's penalty, over the same seeds.

    python benchmarks/nir.py --work DIR [--seeds 5] [--out benchmarks/results/nir-simulated.md]

Trains with the bundle's small.yaml. A run that is started again with the same --work continues.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from monai_fair.data import build_manifest, write_manifest
from monai_fair.engines import BundleStudy
from monai_fair.report import audit_files
from monai_fair.simulation import simulate_skin

BUNDLE = Path(__file__).resolve().parents[1] / "bundles/fair_image_classification"


def run_study(work: Path, num_seeds: int) -> dict[str, Any]:
    """Simulate, train all arms, audit; return the audit's results."""
    cohort = simulate_skin(work / "skin", n=2000, seed=0)
    manifest = write_manifest(build_manifest("ham10000", cohort, split=cohort / "split.csv"), cohort / "manifest.csv")
    variance = work / "variance.yaml"
    variance.write_text("nir_scale_free: false\n", encoding="utf-8")
    study = BundleStudy(
        str(BUNDLE / "configs"),
        {"erm": [], "nir": ["nir.yaml"], "nir_variance": ["nir.yaml", str(variance)]},
        list(range(num_seeds)),
        str(work / "study"),
        str(manifest),
        base=["train.yaml", "small.yaml"],
        overrides={"dataset_dir": str(cohort), "progress": False},
    )
    study.run()
    audit_files(study.predictions, attributes=["sex", "age_group"], out=work / "study")
    results: dict[str, Any] = json.loads((work / "study/metrics.json").read_text(encoding="utf-8"))
    return results


def interval(cell: dict[str, Any], scale: float = 1.0) -> str:
    """Mean over seeds with its 95 % t interval over seeds."""
    low, high = (cell.get("seeds") or cell)["low"], (cell.get("seeds") or cell)["high"]
    return f"{scale * cell['value']:.3g} ({scale * low:.3g} to {scale * high:.3g})"


def concentration_lines(results: dict[str, Any]) -> list[str]:
    """Coefficient of variation of the weighted channel means on the test part, and AUC, per arm."""
    lines = [
        "| arm | CV, mean of seeds (each seed) | CV relative to ERM | AUC | change of AUC from ERM |",
        "|---|---|---|---|---|",
    ]
    overall = results["targets"][0]["overall"]
    values = {
        arm: np.array([row["cv"] for row in section["concentration"] if row["direction"] == "positive"])
        for arm, section in results["incidence"].items()
    }
    for arm, cv in values.items():
        each = ", ".join(f"{value:.2f}" for value in cv)
        change = "" if arm == "erm" else interval(overall["differences"][arm]["auc"])
        lines.append(
            f"| {arm} | {cv.mean():.3f} ({each}) | {cv.mean() / values['erm'].mean():.2f} "
            f"| {interval(overall['cells'][arm]['auc'])} | {change} |"
        )
    return lines


def gap_lines(results: dict[str, Any]) -> list[str]:
    """Gaps between groups at the threshold chosen on validation."""
    lines = [
        "| attribute | rate | arm | gap, percentage points (95 % over seeds) | by chance | p | change from ERM |",
        "|---|---|---|---|---|---|---|",
    ]
    for table in results["targets"][0]["tables"]:
        for quantity in ("tpr@youden", "fpr@youden"):
            for arm, gaps in table["gaps"].items():
                gap = gaps[quantity]
                change = "" if arm == "erm" else interval(table["gap_differences"][arm][quantity], 100)
                lines.append(
                    f"| {table['name']} | {quantity[:3].upper()} | {arm} | {interval(gap, 100)} "
                    f"| {100 * gap['chance']:.1f} | {gap['p']:.4f} | {change} |"
                )
    return lines


def main() -> None:
    """Print the tables, and write them when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = run_study(options.work, options.seeds)
    data = results["data"]
    lines = [
        "# NIR on the simulated cohort",
        "",
        f"`simulate skin --n 2000 --seed 0`, `train.yaml` with `small.yaml`, {options.seeds} seeds; test "
        f"part: {data['n']} images of {data['n_subjects']} subjects. nir: the bundle's overlay (scale-free); "
        "nir_variance: the paper's penalty. Intervals are 95 % t intervals over seeds.",
        "",
        "## Concentration and AUC",
        "",
        *concentration_lines(results),
        "",
        "## Gaps between groups",
        "",
        *gap_lines(results),
    ]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
