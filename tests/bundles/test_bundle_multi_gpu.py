"""multi_gpu_train.yaml in two gloo processes, as torchrun starts them, against one process."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from monai_fair.data import read_predictions
from monai_fair.data.artifacts import read_json, read_tensors
from monai_fair.errors import PredictionsError

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = [pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"), pytest.mark.timeout(600)]

# Runs one after the other in the same two processes: starting them costs more than the runs. Each run meets at a
# port of its own. None may leave a thread of gloo behind: one that still frees a tensor when Python exits aborts the
# process. That happens once in many runs, a thread that is left is seen in every run (where there is a /proc).
DRIVER = """
import json, os, time
from pathlib import Path

import ignite.distributed as idist
import torch
from monai.bundle import run

torch.set_num_threads(1)


def gloo_workers():
    names = []
    for task in Path("/proc/self/task").glob("*"):
        try:
            names.append((task / "comm").read_text())
        except OSError:  # it ended meanwhile
            pass
    return [name for name in names if "gloo_runloop" in name]


for port, options in json.load(open("runs.json")):
    os.environ["MASTER_PORT"] = str(port)
    run(**options)
    idist.sync()
    tries = 0
    while gloo_workers() and tries < 500:  # Linux lists a thread a moment longer than others wait for it
        time.sleep(0.01)
        tries += 1
    assert not gloo_workers()
"""
SEEN = {"train": 32, "val": 9, "test": 13}
# What makes the batches of one process and of two the same. BatchNorm keeps statistics per process on a CPU, so the
# network has group norm; it is a DenseNet because MONAI 1.6.1's ResNet hands `norm` to its first layer only. The
# optimiser is the bundle's Adam.
SAME_BATCHES: dict[str, Any] = {
    "train#random_transforms": [],
    "network_def": {
        "_target_": "monai.networks.nets.DenseNet",
        "spatial_dims": 2,
        "in_channels": 3,
        "out_channels": 1,
        "init_features": 8,
        "growth_rate": 4,
        "block_config": [2, 2],
        "norm": ["group", {"num_groups": 2}],
    },
    "last_layer": "class_layers.out",
    "tiny_network": False,
    "max_epochs": 2,
    "patience": 9,
}
ONE: dict[str, Any] = {"batch_size": 8, "train#dataloader#shuffle": False}
TWO: dict[str, Any] = {"batch_size": 4, "train#shuffle": False}
COLLAPSE: dict[str, Any] = {"network_def#out_channels": 2, "bias_group": {"sex": "male"}, "bias_rate": 0.5}


@pytest.fixture(scope="module")
def manifest(bundle: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 rows to train on, which batches of 8 divide, and an odd number to validate."""
    table = pd.read_csv(bundle.cohort / "manifest.csv", dtype=str, keep_default_na=False)
    parts = [table[table["split"] == split].iloc[:count] for split, count in SEEN.items()]
    path = tmp_path_factory.mktemp("manifest") / "manifest.csv"
    pd.concat(parts).sort_index().to_csv(path, index=False)
    assert pd.read_csv(path)["split"].value_counts().to_dict() == SEEN
    return path


@pytest.fixture(scope="module")
def results(
    bundle: Any, processes: Any, manifest: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Path]]:
    """Per arm the folder of one process and of two: trained, then evaluated."""
    root = tmp_path_factory.mktemp("arms")
    shared = {**SAME_BATCHES, "manifest": str(manifest)}
    folders: dict[str, dict[str, Path]] = {}
    driven = []
    for arm, overlays in {"erm": (), "nir": ("nir",)}.items():
        one, two, across = (root / f"{arm}_{count}" for count in ("one", "two", "across"))
        names = ("train", "small", *overlays)
        bundle.run(*names, output=one, **shared, **ONE)
        bundle.run(*names, "evaluate", output=one, **shared, **ONE)
        stages = [
            (two, (*names, "multi_gpu_train"), {}),
            (two, (*names, "multi_gpu_train", "evaluate"), {}),
            # the model of one process, evaluated by two
            (across, (*names, "multi_gpu_train", "evaluate"), {"ckpt_path": str(one / "model.pt")}),
        ]
        for output, files, more in stages:
            options = bundle.options(output, {**shared, **TWO, **more})
            driven.append({"config_file": bundle.files(*files), **options})
        folders[arm] = {"one": one, "two": two, "across": across}
    folders["collapse"] = {"two": root / "collapse"}
    names = ("train", "small", "multi_gpu_train", "neural_collapse", "label_bias")
    for more in ((), ("evaluate", "collapse_evaluate", "last")):
        options = bundle.options(root / "collapse", {**shared, **TWO, **COLLAPSE})
        driven.append({"config_file": bundle.files(*names, *more), **options})
    processes.drive(DRIVER, driven, root)
    return folders


def scores(folder: Path) -> pd.DataFrame:
    return read_predictions(folder / "predictions.csv").table


@pytest.mark.parametrize("arm", ["erm", "nir"])
def test_two_processes_train_the_model_of_one(results: dict[str, dict[str, Path]], arm: str) -> None:
    one, two = results[arm]["one"], results[arm]["two"]
    expected, got = (torch.load(folder / "model.pt", weights_only=True) for folder in (one, two))
    assert list(got) == list(expected)  # no name starts with "module."
    assert scores(one)["score"].nunique() > 10
    np.testing.assert_allclose(scores(two)["score"], scores(one)["score"], rtol=0, atol=1e-5)


def test_nir_reaches_the_weights_of_both(results: dict[str, dict[str, Path]]) -> None:
    """Else the comparison with NIR would repeat the one without."""
    for count in ("one", "two"):
        erm, nir = (torch.load(results[arm][count] / "model.pt", weights_only=True) for arm in ("erm", "nir"))
        assert max((erm[name] - nir[name]).abs().max() for name in erm) > 1e-4


@pytest.mark.parametrize("arm", ["erm", "nir"])
def test_no_padded_validation_row_is_counted(results: dict[str, dict[str, Path]], arm: str) -> None:
    """Nine rows on two processes: the best AUC is that of nine rows, as one process computes it."""
    best = [
        torch.load(results[arm][count] / "training_state.pt", weights_only=True)["best_metric"]
        for count in ("one", "two")
    ]
    assert best[0] == pytest.approx(best[1], abs=1e-9)
    validation = scores(results[arm]["two"]).query("split == 'val'")
    assert len(validation) == SEEN["val"]
    positive = validation.query("label == 1")["score"].to_numpy()
    negative = validation.query("label == 0")["score"].to_numpy()
    # the probability that a positive is ranked above a negative
    wins = np.greater.outer(positive, negative).mean() + np.equal.outer(positive, negative).mean() / 2
    assert best[1] == pytest.approx(wins, abs=1e-6)


@pytest.mark.parametrize("arm", ["erm", "nir"])
def test_evaluation_by_two_processes_writes_what_one_writes(results: dict[str, dict[str, Path]], arm: str) -> None:
    one, across = results[arm]["one"], results[arm]["across"]
    assert len(scores(across)) == SEEN["val"] + SEEN["test"]
    rest = [name for name in scores(one) if name != "score"]
    pd.testing.assert_frame_equal(scores(across)[rest], scores(one)[rest])
    np.testing.assert_allclose(scores(across)["score"], scores(one)["score"], rtol=0, atol=1e-6)
    expected, got = (read_tensors(folder / "features.safetensors")[0] for folder in (one, across))
    assert list(got) == list(expected)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=0, atol=1e-5)


def values_by_place(record: Any, place: str = "") -> dict[str, Any]:
    if not isinstance(record, dict | list):
        return {place: record}
    items = record.items() if isinstance(record, dict) else enumerate(record)
    return {key: value for name, item in items for key, value in values_by_place(item, f"{place}/{name}").items()}


def test_two_processes_measure_the_collapse_that_one_measures(
    bundle: Any, results: dict[str, dict[str, Path]], manifest: Path, tmp_path: Path
) -> None:
    """With 7 and 6 of the 13 test rows: each row counts once, the labels are the biased ones in both."""
    two = results["collapse"]["two"]
    names = ("train", "small", "neural_collapse", "label_bias", "evaluate", "collapse_evaluate")
    options = {**SAME_BATCHES, **ONE, **COLLAPSE, "manifest": str(manifest), "ckpt_path": str(two / "last.pt")}
    bundle.run(*names, output=tmp_path, **options)
    expected = read_json(tmp_path / "collapse.json", "collapse")["collapse"]["sex"]
    measured = read_json(two / "neural_collapse.json", "neural_collapse")["epochs"]
    assert [row.pop("epoch") for row in measured] == [1, 2]
    assert {part: record["n"] for part, record in expected.items()} == {"train": 32, "test": 13, "test_to_train": 13}
    assert expected["train"]["values"]["mislabelled_ratio"]["n"] >= 2
    across = read_json(two / "collapse.json", "collapse")["collapse"]["sex"]  # evaluated by two
    for record in ({part: by["sex"] for part, by in measured[-1].items()}, across):
        found = values_by_place(record)
        assert list(found) == list(values_by_place(expected))
        for place, value in values_by_place(expected).items():
            same_value = pytest.approx(value, rel=1e-4, abs=1e-5) if isinstance(value, float) else value
            assert found[place] == same_value, place


def test_only_the_first_process_reads_the_predictions_that_it_wrote(bundle: Any, tmp_path: Path) -> None:
    """The others are there first."""
    names = ("train", "small", "neural_collapse", "evaluate", "collapse_evaluate")
    parser = bundle.workflow(*names, output=tmp_path, is_main=False).parser
    assert parser["run"][1]["_target_"] == "monai_fair.report.write_collapse_measures"
    assert parser.get_parsed_content("run#1") is None
    with pytest.raises((PredictionsError, RuntimeError)):
        bundle.workflow(*names, output=tmp_path, is_main=True).parser.get_parsed_content("run#1")


def test_the_command_of_the_config_trains(bundle: Any, processes: Any, tmp_path: Path) -> None:
    """As a user types it, with BatchNorm, augmentation, shuffling, and rows that two processes cannot share evenly."""
    options = bundle.options(tmp_path / "run", {"max_epochs": 2})
    files = str(bundle.files("train", "small", "nir", "multi_gpu_train"))
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    (port,) = processes.free_ports(1)
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
    processes.run([[*torchrun, "-m", "monai.bundle", "run", "--config_file", files, *given]], tmp_path, [{}])
    state = torch.load(tmp_path / "run" / "training_state.pt", weights_only=True)
    assert state["epoch"] == 2
    assert (tmp_path / "run" / "model.pt").is_file()
