"""The whole study of brains as one command: register, discover, re-balance, generate, train, audit; then nothing."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from monai_fair.data import read_manifest, read_predictions
from monai_fair.data.artifacts import read_json
from monai_fair.simulation import BrainCohort, simulate_brain

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

BUNDLE = Path(__file__).parents[2] / "bundles" / "brain_mri_fair_classification"


def tree(folder: Path) -> dict[str, int]:
    """When each file was written; only the clock and the report are written at every start."""
    again = {"stages.json", "report.html", "metrics.json", "model_card.md", "manifest.csv", "manifest.json"}
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in again]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def test_from_a_cohort_to_one_report(tmp_path: Path, study: Any, stages: list[str]) -> None:
    cohort = BrainCohort(correlation=0.6, train_share=0.6, val_share=0.15)
    data = simulate_brain(
        tmp_path / "data", n=32, seed=0, anatomy="phantom", shape=(20, 24, 20), cohort=cohort, num_workers=1
    )
    output = tmp_path / "study"
    study(data, output)

    assert [stage["name"] for stage in read_json(output / "stages.json", "stages")["stages"]] == stages
    record = read_json(output / "discovery" / "discovery.json", "discovery")
    assert record["n"] == 32
    assert record["n_fitted"] == 24
    # the manifest that every arm trains on: the discovered subgroup and weights beside what there was
    before, balanced = (read_manifest(path).table for path in (data / "manifest.csv", output / "manifest.csv"))
    pd.testing.assert_frame_equal(balanced[list(before)], before)
    found = pd.read_csv(output / "discovery" / "subgroups.csv", dtype=str).set_index("subject_id")["subgroup"]
    assert balanced["subgroup"].tolist() == found[balanced["subject_id"]].tolist()
    # generated rows are for training only, and every arm is scored on the same real images
    augmented = read_manifest(data / "derivatives" / "generated" / "manifest.csv").table
    assert set(augmented["split"][len(before) :]) <= {"train"}
    wanted = before.loc[before["split"] != "train", "image"].tolist()
    for arm in ("erm", "rebalanced", "augmented"):
        folder = output / arm / "seed_0"
        assert read_predictions(folder / "predictions.csv").table["image"].tolist() == wanted
    logs = (output / "augmented" / "seed_0" / "log.txt").read_text()
    assert "Traceback" not in logs
    page = (output / "report.html").read_text()
    assert "Subgroups found without attributes" in page
    assert all(stage in page for stage in stages)
    audited = json.loads((output / "metrics.json").read_text())
    assert [run["name"] for run in audited["runs"]] == ["erm", "rebalanced", "augmented"]

    done = tree(tmp_path)
    study(data, output)
    assert tree(tmp_path) == done
