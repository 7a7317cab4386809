"""Registration killed and started again, in parts, and in two processes: the same as in one piece."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from ignite.engine import Engine, Events

from monai_fair.data import read_displacement
from monai_fair.data.artifacts import sha256
from monai_fair.engines import read_codes
from monai_fair.errors import ArtifactError

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = [pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning"), pytest.mark.timeout(600)]

State = dict[str, torch.Tensor]
StateOf = Callable[[Path], State]
# not part of an answer
CLOCK = "seconds"


class KilledError(Exception):
    pass


def kill(_: Engine) -> None:
    raise KilledError


def run_and_kill(workflow: Any, engine: str, event: Any) -> None:
    workflow.parser.get_parsed_content(engine).add_event_handler(event, kill)
    with pytest.raises((KilledError, RuntimeError)) as caught:
        workflow.run()
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, KilledError):
        error = error.__cause__
    assert isinstance(error, KilledError)


def digests(folder: Path, pattern: str) -> dict[str, str]:
    found = sorted(folder.glob(pattern))
    assert found
    return {str(path.relative_to(folder)): sha256(path) for path in found}


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "registration.csv", dtype={"subject_id": str}).set_index("subject_id")


@pytest.fixture(scope="module")
def registered(registration: Any, fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All subjects in one piece, one by one, so that a batch has no neighbours."""
    output = tmp_path_factory.mktemp("registered")
    return registration.infer(output, fitted / "model.pt", batch_size=1)


@pytest.mark.parametrize(
    ("event", "epochs_kept"),
    [
        (Events.EPOCH_STARTED(once=3), 2),
        (Events.ITERATION_COMPLETED(once=6), 2),  # two batches of 4 and 2 in an epoch
        (Events.ITERATION_COMPLETED(once=1), 0),
    ],
    ids=["between epochs", "within an epoch", "at once"],
)
def test_a_killed_fit_goes_on_to_the_same_bits(
    registration: Any, fitted: Path, tmp_path: Path, event: Any, epochs_kept: int
) -> None:
    workflow = registration.workflow("train", output=tmp_path)
    run_and_kill(workflow, "train#trainer", event)
    assert not (tmp_path / "model.pt").exists()
    if epochs_kept:
        state = torch.load(tmp_path / "training_state.pt", weights_only=True)
        assert state["epoch"] == epochs_kept
        assert state["objects"]["codes"]["values"].abs().max() > 0
    else:
        assert not (tmp_path / "training_state.pt").exists()
    registration.train(tmp_path)
    one, other = (torch.load(folder / "model.pt", weights_only=True) for folder in (fitted, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(read_codes(fitted / "codes.safetensors")[1], read_codes(tmp_path / "codes.safetensors")[1])
    assert not list(tmp_path.rglob(".*"))  # no half file is left


def test_a_finished_fit_returns_at_once(registration: Any, fitted: Path, tmp_path: Path, state_of: StateOf) -> None:
    shutil.copytree(fitted, tmp_path / "run")
    before = sha256(tmp_path / "run" / "training_state.pt")
    workflow = registration.workflow("train", output=tmp_path / "run")
    workflow.parser.get_parsed_content("train#trainer").add_event_handler(Events.EPOCH_STARTED, kill)
    workflow.run()
    assert sha256(tmp_path / "run" / "training_state.pt") == before
    one, other = state_of(fitted), state_of(tmp_path / "run")
    assert all(torch.equal(one[name], other[name]) for name in one)
    codes = [read_codes(folder / "codes.safetensors")[1] for folder in (fitted, tmp_path / "run")]
    assert torch.equal(*codes)


def test_a_fit_of_other_settings_is_refused_by_name(registration: Any, fitted: Path, tmp_path: Path) -> None:
    shutil.copy(fitted / "training_state.pt", tmp_path)
    with pytest.raises((ArtifactError, RuntimeError)) as caught:
        registration.train(tmp_path, smoothness=0.5, max_epochs=6, **{"network_def#integration_steps": 3})
    error: BaseException = caught.value
    while not isinstance(error, ArtifactError):
        assert error.__cause__ is not None
        error = error.__cause__
    assert str(error) == (
        f"{tmp_path}/training_state.pt: this run has other settings than the one saved there (integration_steps: 0 "
        "there, 3 now; max_epochs: 4 there, 6 now; smoothness: 0.1 there, 0.5 now); choose another output_dir, or "
        "delete the file to start anew"
    )


def test_killed_inference_does_what_is_left(registration: Any, fitted: Path, registered: Path, tmp_path: Path) -> None:
    options = {"ckpt_path": str(fitted / "model.pt"), "batch_size": 1, "num_workers": 0}
    workflow = registration.workflow("inference", output=tmp_path, **options)
    run_and_kill(workflow, "evaluator", Events.ITERATION_COMPLETED(once=5))
    assert not (tmp_path / "registration.csv").exists()
    done = digests(tmp_path, "sub-*/*")
    stamps = {name: (tmp_path / name).stat().st_mtime_ns for name in done}
    assert len({name.split("/")[0] for name in done}) == 5
    again = registration.workflow("inference", output=tmp_path, **options)
    assert len(again.parser.get_parsed_content("dataset")) == 7
    again.run()
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in done} == stamps
    assert_same(tmp_path, registered)
    workflow = registration.workflow("inference", output=tmp_path, **options)
    workflow.parser.get_parsed_content("evaluator").add_event_handler(Events.EPOCH_STARTED, kill)
    workflow.run()  # nothing is left: the tables are written, no engine starts
    assert_same(tmp_path, registered)


def assert_same(one: Path, other: Path) -> None:
    """Tables, codes and fields, to the bit."""
    pd.testing.assert_frame_equal(table(one).drop(columns=CLOCK), table(other).drop(columns=CLOCK), check_exact=True)
    assert torch.equal(read_codes(one / "codes.safetensors")[1], read_codes(other / "codes.safetensors")[1])
    fields = sorted(path.relative_to(one) for path in one.glob("sub-*/*template_to-T1w_xfm.nii.gz"))
    assert len(fields) == len(table(one))
    for field in fields:
        np.testing.assert_array_equal(read_displacement(one / field)[0], read_displacement(other / field)[0])


def test_the_union_of_shards_is_the_whole(registration: Any, fitted: Path, registered: Path, tmp_path: Path) -> None:
    """As an array job: parts of the manifest into one folder, then the whole manifest for the tables."""
    manifest = pd.read_csv(registration.cohort / "manifest.csv", dtype=str)
    output = tmp_path / "out"
    for number in range(3):
        shard = tmp_path / f"shard_{number}.csv"
        manifest.iloc[number::3].to_csv(shard, index=False)
        registration.infer(output, fitted / "model.pt", batch_size=1, manifest=str(shard), report=False)
        assert len(table(output)) == 4
    registration.infer(output, fitted / "model.pt", batch_size=1)
    assert_same(output, registered)


def test_two_processes_fit_what_one_fits(registration: Any, fitted: Path, tmp_path: Path, state_of: StateOf) -> None:
    """As a user types it. Six subjects, three to a process, are one batch of six: the same steps in another order."""
    one = registration.train(tmp_path / "one", batch_size=6)
    two = tmp_path / "two"
    options = registration.options(two, {"batch_size": 3})
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    probe = socket.socket()
    probe.bind(("127.0.0.1", 0))
    port = str(probe.getsockname()[1])
    probe.close()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
    command += ["-m", "monai.bundle", "run", "--config_file", str(registration.files("train", "multi_gpu_train"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*command, *given], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    expected, found = state_of(one), state_of(two)
    assert list(found) == list(expected)
    initial = registration.workflow("train", output=tmp_path / "none").parser.get_parsed_content("network_def")
    start = initial.state_dict()
    assert max((expected[name] - start[name]).abs().max() for name in start) > 1e-3
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)
    (subjects, codes), (others, values) = (read_codes(folder / "codes.safetensors") for folder in (one, two))
    assert others == subjects
    torch.testing.assert_close(values, codes, rtol=0, atol=1e-4)
    scores = [torch.load(folder / "training_state.pt", weights_only=True)["best_metric"] for folder in (one, two)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-5)  # three subjects, none counted twice
