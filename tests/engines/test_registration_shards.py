"""New subjects in shards: the union is the whole, and a shard that fails or is killed takes nothing with it."""

import importlib.util
import itertools
import multiprocessing
import os
import re
import shutil
import signal
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from monai.bundle import ConfigWorkflow
from monai.bundle import run as run_bundle

from monai_fair.data.artifacts import read_tensors, write_json, write_tensors
from monai_fair.engines import RegistrationSaver, read_codes, read_template, register_in_shards
from monai_fair.errors import MonaiFairError, RegistrationError
from monai_fair.networks import LatticeINR
from monai_fair.parallel import run_all
from monai_fair.simulation import simulate_brain

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

BUNDLE = Path(__file__).parents[2] / "bundles" / "brain_mri_inr_registration"
CONFIGS = BUNDLE / "configs"
SUBJECTS = 7
SHARDS = 3
# of several threads or of larger batches sums differ in the last bit
TINY: dict[str, Any] = {
    "code_levels": [[1.0, 3, 3]],
    "residual_levels": [[0.5, 2, 2]],
    "exports": ["field", "inverse", "warped", "labels", "logdet"],  # HDF5 keeps the time of writing
    "batch_size": 1,
    "num_workers": 0,
    "network_def#width": 24,
    "network_def#hidden": 8,
}
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra 'cluster')")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven heads of ellipsoids, one of them damaged, and a network as it starts."""
    folder = tmp_path_factory.mktemp("heads")
    simulate_brain(folder, n=SUBJECTS, seed=1, anatomy="phantom", shape=(24, 28, 24), num_workers=1)
    torch.manual_seed(0)
    network = LatticeINR((24, 28, 24), width=24, hidden=8)
    torch.save(network.state_dict(), folder / "model.pt")
    damaged = image(folder, 3)
    damaged.write_bytes(damaged.read_bytes()[:1000])
    return folder


def image(cohort: Path, row: int) -> Path:
    return cohort / pd.read_csv(cohort / "manifest.csv")["image"][row]


def options(cohort: Path, output: Path) -> dict[str, Any]:
    own = {"bundle_root": str(BUNDLE), "dataset_dir": str(cohort), "ckpt_path": str(cohort / "model.pt")}
    return {**own, "output_dir": str(output), "progress": False, **TINY}


def run_alone(cohort: Path, output: Path, **more: Any) -> Path:
    config = str(CONFIGS / "inference.yaml")
    run_bundle(config_file=config, **{**options(cohort, output), "report": False, "logging_file": False, **more})
    return output


def run_shards(cohort: Path, output: Path, **more: Any) -> Path:
    files = [str(CONFIGS / name) for name in ("inference.yaml", "shards.yaml")]
    own = {"shards": SHARDS, "workers": 2, "threads": 1, "report": False, "logging_file": False}
    run_bundle(config_file=files, **{**options(cohort, output), **own, **more})
    return output


@pytest.fixture(scope="module")
def whole(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run of all subjects writes, by one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    output = run_alone(cohort, tmp_path_factory.mktemp("whole"))
    torch.set_num_threads(before)
    return output


@pytest.fixture(autouse=True)
def undetermined() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def table(output: Path) -> pd.DataFrame:
    return pd.read_csv(output / "registration.csv").drop(columns="seconds")


def files(output: Path) -> dict[str, Any]:
    """All results of subjects but their rows, which hold the seconds that they took."""
    found = [path for path in output.rglob("sub-*/*") if path.suffix != ".json"]
    return {str(path.relative_to(output)): content(path) for path in found}


def content(path: Path) -> bytes:
    # safetensors orders its header by chance
    return read_tensors(path)[0]["code"].tobytes() if path.suffix == ".safetensors" else path.read_bytes()


def assert_same(output: Path, whole: Path) -> None:
    """Every voxel, number and code is the same to the last bit."""
    pd.testing.assert_frame_equal(table(output), table(whole), check_exact=True)
    (names, codes), (expected_names, expected) = (read_codes(each / "codes.safetensors") for each in (output, whole))
    assert names == expected_names
    assert codes.any()
    assert torch.equal(codes, expected)
    assert files(output) == files(whole)


def test_the_union_of_shards_is_the_whole_run(cohort: Path, whole: Path, tmp_path: Path) -> None:
    output = run_shards(cohort, tmp_path / "out")
    assert_same(output, whole)
    rows = table(output)
    # a damaged image is a row, in the order of the manifest
    assert list(rows["subject_id"]) == list(pd.read_csv(cohort / "manifest.csv")["subject_id"])
    assert list(rows["status"]) == ["registered"] * 3 + ["failed"] + ["registered"] * 3
    assert rows["reason"][3].startswith(f"{image(cohort, 3)}: expected a whole NIfTI file, which cannot be read")
    assert sorted(path.name for path in (output / "shards").iterdir()) == ["0.txt", "1.txt", "2.txt"]


@needs_ray
@pytest.mark.filterwarnings("ignore")  # Ray's own, about sockets and files it leaves to its daemons
@pytest.mark.slow
def test_ray_gives_the_whole_run(cohort: Path, whole: Path, tmp_path: Path) -> None:
    output = run_shards(cohort, tmp_path / "out", ray_address="local")
    assert_same(output, whole)
    assert sorted(path.name for path in (output / "shards").iterdir()) == ["0.txt", "1.txt", "2.txt"]


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_ray_without_enough_gpus_is_an_error_and_no_endless_wait() -> None:
    with pytest.raises(MonaiFairError) as caught:
        run_all(abs, [1], workers=1, ray_address="local", gpus_per_worker=64)
    assert re.fullmatch(r"ray: gpus_per_worker: expected at most \d+, all that there are, got 64", str(caught.value))


def test_jobs_of_an_array_write_the_tables_when_the_last_is_done(cohort: Path, whole: Path, tmp_path: Path) -> None:
    for part in (2, 0):
        run_alone(cohort, tmp_path, shard=[part, SHARDS])
        assert not (tmp_path / "registration.csv").exists()
    done = {path.name for path in tmp_path.glob("sub-*")}
    names = list(pd.read_csv(cohort / "manifest.csv")["subject_id"])
    assert done == {name for place, name in enumerate(names) if place % SHARDS in {0, 2}}
    run_alone(cohort, tmp_path, shard=[1, SHARDS])
    assert_same(tmp_path, whole)


@pytest.fixture
def stuck(tmp_path: Path) -> list[str]:
    """Configs with which shard 1 registers its first subject and then waits for its end."""
    overlay = tmp_path / "stuck.yaml"
    overlay.write_text(
        "imports:\n- $import torch\n- $import monai\n- $import time\n"
        "dataset#limit: '$1 if @shard[0] == 1 else None'\n"
        "run:\n- $@saver.run(@evaluator)\n- '$time.sleep(250) if @shard[0] == 1 else None'\n"
    )
    return [str(CONFIGS / "inference.yaml"), str(overlay)]


def once_stuck(output: Path, action: Callable[[int], None]) -> threading.Thread:
    """Call ``action`` with the id of the process of shard 1 when its first subject, the second of all, is finished."""

    def watch() -> None:
        while not (output / "sub-0002" / "sub-0002_registration.json").is_file():
            time.sleep(0.01)
        (process,) = [child for child in multiprocessing.active_children() if child.name == "shard 1"]
        action(process.pid or 0)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_killed_shard_is_named_and_goes_on_where_it_was(
    cohort: Path, whole: Path, tmp_path: Path, stuck: list[str]
) -> None:
    output = tmp_path / "out"
    watch = once_stuck(output, lambda process: os.kill(process, signal.SIGKILL))
    with pytest.raises(RuntimeError) as caught:  # MONAI wraps what a config raises
        run_shards(cohort, output, config_files=stuck)
    watch.join()
    assert isinstance(caught.value.__cause__, RegistrationError)
    assert str(caught.value.__cause__) == (
        f"registration {output}: shard 1 of 3: its process was ended by SIGKILL, without an answer; it may have run "
        f"out of memory; see {output}/shards/1.txt; start again to continue"
    )
    # the tables are of all that is finished: shards 0 and 2, and the first subject of shard 1
    names = list(table(whole)["subject_id"])
    assert list(table(output)["subject_id"]) == [names[place] for place in (0, 1, 2, 3, 5, 6)]
    before = {path: path.stat().st_mtime_ns for path in output.rglob("sub-*/*.nii.gz")}
    run_shards(cohort, output)
    assert_same(output, whole)
    assert {path.parent.name for path in before} == {names[place] for place in (0, 1, 2, 5, 6)}
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts what runs in its background with SIGINT ignored, and Python leaves it so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_leaves_no_process_behind(cohort: Path, tmp_path: Path, stuck: list[str]) -> None:
    output = tmp_path / "out"
    main = threading.get_ident()
    before = set(multiprocessing.active_children())  # a pool that an earlier test has left idle
    seen: list[int] = []
    watch = once_stuck(output, lambda process: (seen.append(process), signal.pthread_kill(main, signal.SIGINT))[0])
    with pytest.raises(KeyboardInterrupt):
        run_shards(cohort, output, config_files=stuck, workers=3)
    watch.join()
    assert set(multiprocessing.active_children()) <= before
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_a_failing_shard_is_named_with_its_reason(cohort: Path, whole: Path, tmp_path: Path) -> None:
    # a file where the folder of a subject of shard 2 must be
    (tmp_path / "sub-0006").write_text("in the way")
    assert table(whole)["subject_id"][5] == "sub-0006"
    with pytest.raises(RuntimeError) as caught:
        run_shards(cohort, tmp_path)
    message = str(caught.value.__cause__)
    assert message.startswith(f"registration {tmp_path}: shard 2 of 3: ")
    assert "Error: " in message
    assert "sub-0006" in message
    assert message.endswith(f"; see {tmp_path}/shards/2.txt; start again to continue")
    assert "Traceback" in (tmp_path / "shards" / "2.txt").read_text()
    assert len(table(tmp_path)) == 6
    (tmp_path / "sub-0006").unlink()
    run_shards(cohort, tmp_path)
    assert_same(tmp_path, whole)


def test_a_finished_registration_starts_no_process(
    cohort: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = tmp_path / "out"
    shutil.copytree(whole, complete)
    # the damaged subject would be tried again
    record = complete / "sub-0004" / "sub-0004_registration.json"
    text = record.read_text()
    assert '"status": "failed"' in text
    record.write_text(text.replace('"status": "failed"', '"status": "registered"'))
    write_tensors(complete / "sub-0004" / "sub-0004_code.safetensors", {"code": np.zeros((3, 24), np.float32)})
    (complete / "registration.csv").unlink()
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: Refusing())
    run_shards(cohort, complete)
    assert len(table(complete)) == SUBJECTS
    assert not (complete / "shards").exists()


class Refusing:
    """A context of processes that may be got ready but starts none."""

    def set_forkserver_preload(self, _: list[str]) -> None:
        pass

    def Pipe(self, *, duplex: bool) -> None:
        raise AssertionError("a process was started")


def test_a_failed_subject_is_tried_again_by_its_shard_alone(cohort: Path, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(whole, output)
    run_shards(cohort, output)
    assert [path.name for path in (output / "shards").iterdir()] == ["0.txt"]  # row 3 of 3 shards
    assert_same(output, whole)


@pytest.mark.parametrize("names", [["inference.yaml"], ["inference.yaml", "evaluate.yaml"]])
def test_every_value_that_a_user_may_give_reaches_the_shards(cohort: Path, tmp_path: Path, names: list[str]) -> None:
    plain = yaml.safe_load((CONFIGS / "inference.yaml").read_text())
    built = {"imports", "grid", "image_shape", "network", "input_settings", "settings", "handlers", "initialize", "run"}
    knobs = {name for name, value in plain.items() if name not in built and "_target_" not in str(value)}
    network = {f"network_def#{name}" for name in plain["network_def"] if name not in {"_target_", "image_shape", "amp"}}
    workflow = ConfigWorkflow(
        [str(CONFIGS / name) for name in [*names, "shards.yaml"]],
        workflow_type=None,
        logging_file=False,
        **{**options(cohort, tmp_path), "iterations": 7, "network_def#width": 12, "overrides": {"fit#thinning": 1}},
    )
    workflow.initialize()
    given = workflow.parser.get_parsed_content("registration#overrides")
    assert set(given) == (knobs | network) - {"shard", "report"} | {"fit#thinning"}
    assert (given["iterations"], given["network_def#width"], given["fit#thinning"]) == (7, 12, 1)
    assert given["device"] is given["amp"] is None  # of the shard's machine, not of this one
    assert (given["splits"], given["truth"] is None) == ((None, True) if len(names) == 1 else ("test", False))


def test_shards_of_other_settings_refuse_the_folder(cohort: Path, whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(whole, output)
    with pytest.raises(RuntimeError) as caught:
        run_shards(cohort, output, overrides={"smoothness": 0.5})
    assert str(caught.value.__cause__) == (
        f"registration {output}: shard 0 of 3: ArtifactError: {output}/registration.json: made with other settings "
        "(smoothness: 0.1 there, 0.5 now); choose another output_dir or remove the folder; see "
        f"{output}/shards/0.txt; start again to continue"
    )


@pytest.fixture
def saver(cohort: Path, tmp_path: Path) -> RegistrationSaver:
    rows = [{"subject_id": f"sub-{number:02d}", "image": "none.nii.gz"} for number in range(11)]
    return RegistrationSaver(tmp_path / "out", read_template(cohort), rows, settings={})


def test_all_that_is_wrong_is_named_at_once(saver: RegistrationSaver, tmp_path: Path) -> None:
    with pytest.raises(RegistrationError) as caught:
        register_in_shards([tmp_path / "none.yaml"], saver, overrides={}, shards=0, workers=-1, threads=1.5)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "registration in shards: 4 problems\n"
        f"  1. expected the file {tmp_path}/none.yaml, found none; give bundle_root or config_files\n"
        "  2. shards: expected a whole number from 1, got 0\n"
        "  3. workers: expected a whole number from 1, got -1\n"
        "  4. threads: expected a whole number from 1, got 1.5"
    )


@pytest.mark.parametrize("shards", [1, 3, 11, 20])
def test_every_row_is_in_one_shard(saver: RegistrationSaver, shards: int) -> None:
    found = []
    for part in range(shards):
        own = RegistrationSaver(saver.folder, saver.space, saver.datalist, settings={}, shard=[part, shards])
        found.append([row["subject_id"] for row in own.unfinished()])
        assert own.key == saver.key
    whole = [row["subject_id"] for row in saver.datalist]
    assert sorted(itertools.chain(*found)) == whole
    assert [rows[0] for rows in found if rows] == whole[:shards]  # dealt in turn
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("shard", [[3, 3], [-1, 3], [0, 0], [0], [0, 1, 2], [0.0, 1], [False, 1], 3, "03"])
def test_a_shard_that_does_not_exist(saver: RegistrationSaver, shard: Any) -> None:
    with pytest.raises(RegistrationError) as caught:
        RegistrationSaver(saver.folder, saver.space, saver.datalist, settings={}, shard=shard)
    assert str(caught.value) == (
        f"shard: expected a part and how many there are, from [0, n] to [n - 1, n], got {shard!r}"
    )


def test_the_tables_need_no_more_memory_than_the_codes(cohort: Path, tmp_path: Path) -> None:
    # 100 codes of 30 000 numbers: 12 MB, once as they are read (torch, which stacks them, is not traced)
    rows = [{"subject_id": f"sub-{number:03d}", "image": "none.nii.gz"} for number in range(100)]
    saver = RegistrationSaver(tmp_path, read_template(cohort), rows, settings={})
    for row in rows:
        name = row["subject_id"]
        row_of_table = {"subject_id": name, "status": "registered"}
        content = {"key": saver.key, "row": row_of_table}
        write_json(tmp_path / name / f"{name}_registration.json", "registered_subject", content)
        code = np.full((3, 10_000), 0.5, np.float32)
        write_tensors(tmp_path / name / f"{name}_code.safetensors", {"code": code})
        (tmp_path / name / f"{name}_field.nii.gz").write_bytes(bytes(1_000_000))  # 100 MB that nobody needs
    tracemalloc.start()
    register_in_shards([CONFIGS / "inference.yaml"], saver, overrides={}, shards=4, progress=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    codes = read_codes(tmp_path / "codes.safetensors")[1]
    assert codes.shape == (100, 3, 10_000)
    assert codes.nbytes <= peak < 2.5 * codes.nbytes
