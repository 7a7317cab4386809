"""The 3D classifier in two gloo processes: the model of one, and rows drawn by weight only if they truly are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_fair.data import read_predictions

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = [pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"), pytest.mark.timeout(600)]

# Runs one after the other in the same two processes: starting them costs more than the runs.
DRIVER = """
import json, os, sys
import ignite.distributed as idist
import torch
from monai.bundle import run

torch.set_num_threads(1)
said = []
for port, options in json.load(open("runs.json")):
    os.environ["MASTER_PORT"] = str(port)
    try:
        run(**options)
        said.append("")
    except RuntimeError as error:
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        said.append(str(cause))
        torch.distributed.destroy_process_group()
    idist.sync()
json.dump(said, open(sys.argv[1], "w"))
# a run that failed leaves DDP, and so a thread of gloo, which may abort an ordinary exit
sys.stdout.flush()
os._exit(0)
"""
# 20 rows to train on in the same batches, whatever the number of processes; BatchNorm keeps statistics per process on a
# CPU, so the network has group norm
SAME_BATCHES: dict[str, Any] = {
    "max_epochs": 2,
    "train#random_transforms": [],
    "network_def#norm": ["group", {"num_groups": 4}],
}
ONE: dict[str, Any] = {"batch_size": 4, "train#dataloader#shuffle": False}
TWO: dict[str, Any] = {"batch_size": 2, "train#shuffle": False}


@pytest.fixture(scope="module")
def root(brains: Any, processes: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brains_in_processes")
    weighted = {"manifest": f"{brains.cohort}/weighted.csv", "max_epochs": 2}
    driven = []
    for arm in ("erm", "group_dro"):
        overlays = () if arm == "erm" else (arm,)
        shared = {**SAME_BATCHES, "manifest": weighted["manifest"]}
        brains.train(folder / f"{arm}_one", *overlays, **shared, **ONE)
        brains.evaluate(folder / f"{arm}_one", *overlays, **shared, **ONE)
        for more in ((), ("evaluate",)):
            names = ("train", *overlays, "multi_gpu_train", *more)
            options = brains.options(folder / f"{arm}_two", {**shared, **TWO})
            driven.append({"config_file": brains.files(*names), **options})
    for name, overlays in {
        "drawn": ("multi_gpu_train", "rebalanced"),
        "wrong_order": ("rebalanced", "multi_gpu_train"),
    }.items():
        options = brains.options(folder / name, dict(weighted))
        driven.append({"config_file": brains.files("train", *overlays), **options})
    processes.drive(DRIVER, driven, folder)
    return folder


def said(root: Path) -> list[list[str]]:
    import json

    return [json.loads((root / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("arm", ["erm", "group_dro"])
def test_two_processes_train_the_model_of_one(root: Path, arm: str) -> None:
    one, two = (torch.load(root / f"{arm}_{count}" / "model.pt", weights_only=True) for count in ("one", "two"))
    assert list(one) == list(two)  # no name starts with "module."
    scores = [read_predictions(root / f"{arm}_{count}" / "predictions.csv").table["score"] for count in ("one", "two")]
    assert scores[0].nunique() > 15
    np.testing.assert_allclose(scores[1], scores[0], rtol=0, atol=1e-5)


def test_group_dro_reaches_the_weights_of_both(root: Path) -> None:
    """Else the comparison with it would repeat the one without."""
    for count in ("one", "two"):
        erm, dro = (torch.load(root / f"{arm}_{count}" / "model.pt", weights_only=True) for arm in ("erm", "group_dro"))
        assert max((erm[name] - dro[name]).abs().max() for name in erm) > 1e-4
    states = [
        torch.load(root / f"group_dro_{count}" / "training_state.pt", weights_only=True)["objects"]["group_loss"]
        for count in ("one", "two")
    ]
    torch.testing.assert_close(states[0]["log_weights"], states[1]["log_weights"], rtol=1e-5, atol=1e-6)


def test_rows_are_drawn_by_weight_or_the_run_is_refused(root: Path) -> None:
    for rank in said(root):
        assert rank[:-1] == [""] * 5
        assert rank[-1] == (
            "training rows: expected to be drawn by DistributedWeightedRandomSampler, got DistributedSampler; lay the "
            "overlay that draws rows by weight after the one for several processes"
        )
    assert torch.load(root / "drawn" / "training_state.pt", weights_only=True)["epoch"] == 2
    assert not (root / "wrong_order" / "model.pt").exists()
