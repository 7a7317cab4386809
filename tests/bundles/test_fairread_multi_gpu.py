"""FairREAD's stages in two gloo processes: they end, agree, and one process scores with their model."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_tensors
from monai_fair.metrics import read_thresholds

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = [pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"), pytest.mark.timeout(600)]

# Runs one after the other in the same two processes: starting them costs more than the runs.
DRIVER = """
import json, os, sys
import ignite.distributed as idist
import torch
from monai.bundle import run

torch.set_num_threads(1)
for port, options in json.load(open("runs.json")):
    os.environ["MASTER_PORT"] = str(port)
    run(**options)
    idist.sync()
open(sys.argv[1], "w").write("done")
"""
STAGES = ("stage1_attributes",), ("stage1_encoder",), ()
EVALUATED: dict[str, Any] = {
    "batch_size": 4,
    "stage1_batch_size": 4,
    "threshold_min_count": 1,
    "save_layers": True,
}


@pytest.fixture(scope="module")
def root(fairread: Any, processes: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fairread_in_processes")
    options = fairread.options(folder / "model", dict(EVALUATED))
    files = [fairread.files("train", *overlays, "multi_gpu_train") for overlays in STAGES]
    files.append(fairread.files("train", "multi_gpu_train", "evaluate"))
    processes.drive(DRIVER, [{"config_file": names, **options} for names in files], folder)
    return folder


def test_every_stage_ends_in_both_processes(root: Path) -> None:
    assert [(root / f"{rank}.json").read_text() for rank in range(2)] == ["done"] * 2
    for name in ("stage1_attributes.pt", "stage1_encoder.pt", "model.pt"):
        found = torch.load(root / "model" / name, weights_only=True)
        assert not any(key.startswith("module.") for key in found)
        assert all(value.isfinite().all() for value in found.values())


def test_the_log_has_what_each_stage_adds_to_the_loss(root: Path) -> None:
    said = (root / "0.log").read_text()
    assert "layer 'out', sensitive directions" in said
    assert "AdversaryHandler: adversary" in said


def test_one_process_scores_with_the_model_of_two(fairread: Any, root: Path) -> None:
    two, thresholds = (root / "model" / name for name in ("predictions.csv", "thresholds.json"))
    before, stored = read_predictions(two).table, read_thresholds(thresholds)
    assert before["score"].nunique() > 5
    assert before["threshold"].tolist() == stored.for_groups(before).tolist()
    layers = read_tensors(root / "model" / "layers.safetensors")[0]
    fairread.train(root / "model", "evaluate", threshold_min_count=1, save_layers=True)
    after = read_predictions(two).table
    pd.testing.assert_frame_equal(after, before, rtol=0, atol=1e-5)
    again = read_tensors(root / "model" / "layers.safetensors")[0]
    assert {*again} == {*layers} == {"map", "fused_1", "fused_2", "mu", "sigma"}
    for name, values in layers.items():  # gathered from both, each row once and in its place
        np.testing.assert_allclose(values, again[name], rtol=0, atol=1e-5, err_msg=name)
