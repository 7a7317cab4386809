"""The study of neural collapse and label bias, from a cohort to its page, as one bundle run."""

import importlib.util
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from monai.bundle import run

from monai_fair.data import build_manifest, write_manifest
from monai_fair.data.artifacts import read_json
from monai_fair.simulation import SkinCohort, simulate_skin

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = [pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"), pytest.mark.timeout(1200)]

BUNDLE = Path(__file__).parents[2] / "bundles" / "fair_image_classification"
NETWORK = {"network_def#block_inplanes": [8, 16, 32, 64]}
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra 'cluster')")


def cohort(folder: Path, n: int) -> Path:
    shares = SkinCohort(label_bias=0.0, correlation=0.0, train_share=0.4, val_share=0.2)
    simulate_skin(folder, n=n, seed=1, size=32, cohort=shares, num_workers=1)
    write_manifest(build_manifest("ham10000", folder, split=folder / "split.csv"), folder / "manifest.csv")
    return folder


def study(data: Path, output: Path, *, epochs: int, **options: Any) -> Path:
    names = ("study", "neural_collapse_study", "collapse_small")
    schedule = {"image_size": 28, "max_epochs": epochs, "learning_rate": 0.02, "weight_decay": 0.025}
    run(
        config_file=[str(BUNDLE / "configs" / f"{name}.yaml") for name in names],
        bundle_root=str(BUNDLE),
        dataset_dir=str(data),
        output_dir=str(output),
        overlays=["no_augmentation.yaml", "sgd.yaml", "cosine.yaml", {**schedule, **NETWORK}],
        **options,
    )
    return output / "neural_collapse.html"


def without_places(path: Path) -> dict[str, Any]:
    return {name: value for name, value in read_json(path, "neural_collapse_study").items() if name != "version"}


@pytest.mark.slow  # eighteen trainings and evaluations, each a process of its own
def test_one_command_gives_the_page_and_running_it_again_skips_what_is_done(tmp_path: Path) -> None:
    data = cohort(tmp_path / "data", 160)
    page = study(data, tmp_path / "out", epochs=2, seeds=[0, 1])
    text = page.read_text()
    assert str(tmp_path) not in text
    assert not [name for name in pd.read_csv(data / "manifest.csv")["subject_id"].unique() if name in text]
    trials = pd.read_csv(tmp_path / "out" / "cohort" / "trials.csv")
    assert (trials["state"] == "finished").all()
    assert trials["arm"].dropna().value_counts().to_dict() == dict.fromkeys(
        ["clean_early", "clean_final", "biased_sex_early", "biased_sex_final", "group_sex"], 2
    )
    results = without_places(tmp_path / "out" / "neural_collapse_study.json")
    (experiment,) = results["experiments"]
    assert (experiment["name"], experiment["groups"], experiment["last_epoch"]["biased"]) == (
        "cohort: sex", ["female", "male"], [2, 2],
    )  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/cohort/*/seed_*/run.json")}
    assert len(before) == 10
    study(data, tmp_path / "out", epochs=2, seeds=[0, 1])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert without_places(tmp_path / "out" / "neural_collapse_study.json") == results


def owner(log: Path) -> int | None:
    """The process whose output goes to a file."""
    for place in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if place.readlink() == log:
                return int(place.parts[2])
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return None


@contextmanager
def killer(folder: Path) -> Iterator[list[Path]]:
    """Kill the first training that has finished an epoch, in the middle of the next."""
    killed: list[Path] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() and not killed:
            for state in folder.glob("shared/*/seed_*/training_state.pt"):
                process = owner(state.with_name("log.txt").resolve())
                if process is not None and not state.with_name("run.json").is_file():
                    os.kill(process, signal.SIGKILL)
                    killed.append(state.parent)
                    break
            time.sleep(0.05)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("address", [None, pytest.param("local", marks=needs_ray)])
@pytest.mark.filterwarnings("ignore")  # Ray's own, about sockets and files it leaves to its daemons
def test_in_two_minutes_features_collapse_and_a_killed_worker_changes_nothing(
    tmp_path: Path, address: str | None
) -> None:
    data = cohort(tmp_path / "data", 400)
    study(data, tmp_path / "whole", epochs=60, seeds=[0, 1, 2])
    with killer(tmp_path / "out" / "cohort") as killed:
        study(data, tmp_path / "out", epochs=60, seeds=[0, 1, 2], address=address)
    (folder,) = killed
    trials = pd.read_csv(tmp_path / "out" / "cohort" / "trials.csv").set_index("name")
    assert (trials["state"] == "finished").all()
    assert trials["attempts"].sum() == len(trials) + 1
    assert trials.loc[str(folder.relative_to(tmp_path / "out" / "cohort")), "attempts"] == 2
    results, whole = (without_places(tmp_path / name / "neural_collapse_study.json") for name in ("out", "whole"))
    assert results == whole  # the same seeds give the same table, killed or not
    assert {row["arm"] for row in results["falls"]} == {"clean", "biased"}
    for row in results["falls"]:
        if row["measure"] != "nc1_distance":  # whose scale follows that of the features
            assert min(row["ratio"]) >= 10, row
    changed = results["cohorts"][0]["changed"]["train"]
    assert changed["n_changed"] == [round(0.25 * changed["n_eligible"])] * 3
