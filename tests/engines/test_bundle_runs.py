"""Runs of bundles that fail, or whose process is killed: tried again, told, and never in the way of the others.

The bundle here does what its key ``does`` says; each attempt leaves a mark, so that it can be read how often it ran.
"""

import importlib.util
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from monai_fair.engines import BundleRun
from monai_fair.engines.bundle_runs import run_bundles
from monai_fair.engines.trials import trial_table, write_trials
from monai_fair.errors import MonaiFairError

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra 'cluster')")

DIED = "the process that ran it ended without an answer; it may have run out of memory"
BUNDLE = """
imports: [$import os, $import signal, $import sys, $import time, $import torch, $from pathlib import Path]
does: work
go: go
seed: 0
marks: $Path(@output_dir) / 'attempts.txt'
attempt: "$len(@marks.read_text()) if @marks.is_file() else 0"
seen: "$f'{torch.get_num_threads()} threads, GPUs: {os.environ.get(\\"CUDA_VISIBLE_DEVICES\\")}'"
run:
- $print('attempt', @attempt, 'on stdout') or print('attempt', @attempt, 'on stderr', file=sys.stderr)
- $@marks.open('a').write('x')
- "$1 / 0 if @does == 'fail' or (@does == 'fail once' and @attempt == 0) else None"
- "$os.kill(os.getpid(), signal.SIGKILL) if @does == 'die' or (@does == 'die once' and @attempt == 0) else None"
- "$[time.sleep(0.1) for _ in iter(lambda: @does != 'wait' or Path(@go).is_file(), True)]"
- $(Path(@output_dir) / 'pid.txt').write_text(str(os.getpid()))
- $(Path(@output_dir) / 'result.txt').write_text(@does + ' ' + str(@seed) + '; ' + @seen)
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "bundle.yaml"
    path.write_text(BUNDLE)
    return path


def made(bundle: Path, output: Path, *does: str) -> list[BundleRun]:
    """A run for each thing to do, named as a study names them."""
    return [
        BundleRun(
            folder := output / f"{each.replace(' ', '_')}/seed_{seed}",
            [[bundle]],
            overrides={"does": each, "seed": seed},
            name=str(folder.relative_to(output)),
        )
        for seed, each in enumerate(does)
    ]


def attempts(runs: list[BundleRun]) -> list[int]:
    return [len((run.folder / "attempts.txt").read_text()) for run in runs]


def result(run: BundleRun) -> str:
    return (run.folder / "result.txt").read_text()


def rows(table: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(table[["name", "state", "attempts", "reason"]].itertuples(index=False, name=None))


def test_what_fails_or_is_killed_is_tried_again_and_takes_nothing_with_it(bundle: Path, tmp_path: Path) -> None:
    runs = made(bundle, tmp_path / "out", "die once", "work", "fail", "die", "fail once", "work")
    with pytest.raises(MonaiFairError) as caught:
        run_bundles(runs, source="study", jobs=3)
    assert str(caught.value) == (
        "study: 2 problems\n"
        f"  1. fail/seed_2: ZeroDivisionError: division by zero; see {tmp_path}/out/fail/seed_2/log.txt\n"
        f"  2. die/seed_3: SIGKILL: {DIED}; see {tmp_path}/out/die/seed_3/log.txt"
    )
    assert attempts(runs) == [2, 1, 2, 2, 2, 1]
    assert [run.is_finished() for run in runs] == [True, True, False, False, True, True]
    assert rows(trial_table(runs)) == [
        ("die_once/seed_0", "finished", 2, ""),
        ("work/seed_1", "finished", 1, ""),
        ("fail/seed_2", "failed", 2, "ZeroDivisionError: division by zero"),
        ("die/seed_3", "failed", 2, f"SIGKILL: {DIED}"),
        ("fail_once/seed_4", "finished", 2, ""),
        ("work/seed_5", "finished", 1, ""),
    ]
    log = (runs[2].folder / "log.txt").read_text()
    assert log.count("Traceback (most recent call last)") >= 2
    assert [f"attempt {place} on {stream}" in log for place in (0, 1) for stream in ("stdout", "stderr")] == [True] * 4


def test_the_same_study_gives_the_same_table_but_for_seconds(bundle: Path, tmp_path: Path) -> None:
    tables = []
    for name in ("first", "second"):
        runs = made(bundle, tmp_path / name, "work", "fail", "die once", "work")
        with pytest.raises(MonaiFairError):
            run_bundles(runs, source="study", jobs=4)
        write_trials(tmp_path / name / "trials.csv", runs)
        tables.append(pd.read_csv(tmp_path / name / "trials.csv"))
    assert (tables[0]["seconds"] > 0).all()
    pd.testing.assert_frame_equal(*(table.drop(columns="seconds") for table in tables))


@pytest.mark.parametrize(("retries", "expected"), [(0, 1), (3, 4)])
def test_retries_are_counted(bundle: Path, tmp_path: Path, retries: int, expected: int) -> None:
    runs = made(bundle, tmp_path / "out", "fail")
    with pytest.raises(MonaiFairError, match="ZeroDivisionError"):
        run_bundles(runs, source="study", retries=retries)
    assert attempts(runs) == [expected]
    assert runs[0].trial is not None
    assert runs[0].trial.attempts == expected


def test_a_run_that_somebody_watches_is_tried_once(bundle: Path, tmp_path: Path) -> None:
    (run,) = made(bundle, tmp_path / "out", "fail")
    with pytest.raises(MonaiFairError, match="ZeroDivisionError"):
        run.run()
    assert attempts([run]) == [1]


def test_what_failed_is_done_by_the_next_start_and_what_is_finished_is_not(bundle: Path, tmp_path: Path) -> None:
    table = tmp_path / "out" / "trials.csv"
    runs = made(bundle, tmp_path / "out", "work", "fail once")
    with pytest.raises(MonaiFairError):
        run_bundles(runs, source="study", jobs=2, retries=0)
    first = write_trials(table, runs)
    runs = made(bundle, tmp_path / "out", "work", "fail once")
    run_bundles(runs, source="study", jobs=2)
    second = write_trials(table, runs)
    assert rows(first) == [
        ("work/seed_0", "finished", 1, ""),
        ("fail_once/seed_1", "failed", 1, "ZeroDivisionError: division by zero"),
    ]
    assert rows(second) == [("work/seed_0", "skipped", 1, ""), ("fail_once/seed_1", "finished", 1, "")]
    assert second["seconds"][0] == first["seconds"][0]  # what it took then
    assert attempts(runs) == [1, 2]


def test_one_bar_over_runs(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = made(bundle, tmp_path / "out", "work", "work")
    run_bundles(runs[:1], source="study")
    capsys.readouterr()
    run_bundles(runs, source="study")
    shown = capsys.readouterr().err
    assert "training and evaluating:  50%" in shown
    assert "2/2" in shown
    assert "finished work/seed_1" in shown
    assert "attempt" not in shown


def test_an_address_of_none_is_no_ray(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    runs = made(bundle, tmp_path / "out", "work")
    run_bundles(runs, source="study", cluster={"address": None, "num_cpus": 2})
    assert result(runs[0]).startswith("work 0; 1 threads")


def test_ray_that_is_not_installed_is_told_before_anything_runs(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    runs = made(bundle, tmp_path / "out", "work")
    with pytest.raises(MonaiFairError) as caught:
        run_bundles(runs, source="study", cluster={"address": "local"})
    assert str(caught.value) == "ray: expected the package, found none; pip install 'monai-fair[cluster]'"
    assert not (tmp_path / "out").exists()


@needs_ray
@pytest.mark.slow  # each attempt imports MONAI anew; that a killed worker is replaced tests/test_parallel.py shows fast
@pytest.mark.filterwarnings("ignore")  # Ray's own, about sockets and files it leaves to its daemons
def test_ray_does_the_same_with_what_it_sets_aside(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.chdir(tmp_path)  # a worker finds what is told from here
    runs = made(bundle, Path("out"), "work", "die once")
    run_bundles(runs, source="study", jobs=2, cluster={"address": "local", "num_cpus": 2})
    assert not ray.is_initialized()
    assert rows(write_trials(tmp_path / "out" / "trials.csv", runs)) == [
        ("work/seed_0", "finished", 1, ""),
        ("die_once/seed_1", "finished", 2, ""),
    ]
    assert attempts(runs) == [1, 2]
    # a run that asked for no GPU sees none, and has a thread for each of its cores
    assert [result(run) for run in runs] == ["work 0; 2 threads, GPUs: ", "die once 1; 2 threads, GPUs: "]
    assert len({(run.folder / "pid.txt").read_text() for run in runs}) == 2
    log = (runs[1].folder / "log.txt").read_text()
    assert [f"attempt {place} on {stream}" in log for place in (0, 1) for stream in ("stdout", "stderr")] == [True] * 4


@needs_ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_is_filled_and_may_lose_a_machine(bundle: Path, tmp_path: Path) -> None:
    """Two machines of two cores: four runs at a time, and those of the lost one are done by the other."""
    from ray.cluster_utils import Cluster

    runs = made(bundle, tmp_path / "out", "fail", *["wait"] * 4)
    for run in runs:
        run.overrides["go"] = str(tmp_path / "go")

    def lose_one() -> None:
        while not all((run.folder / "attempts.txt").is_file() for run in runs[1:]):
            time.sleep(0.1)
        machines.remove_node(second, allow_graceful=False)
        (tmp_path / "go").touch()

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        second = machines.add_node(num_cpus=2)
        machines.wait_for_nodes()
        loser = threading.Thread(target=lose_one)
        loser.start()
        with pytest.raises(MonaiFairError, match="fail/seed_0: ZeroDivisionError: division by zero"):
            run_bundles(runs, source="study", cluster={"address": machines.address, "num_cpus": 1})
        loser.join()
    finally:
        machines.shutdown()
    assert [run.trial.state for run in runs if run.trial] == ["failed", *["finished"] * 4]
    assert attempts(runs)[0] == 2
    # the two that ran on the lost machine
    assert sorted(attempts(runs[1:])) == [1, 1, 2, 2]
    assert attempts(runs) == [run.trial.attempts for run in runs if run.trial]


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_more_than_this_machine_has_is_an_error_and_no_endless_wait(bundle: Path, tmp_path: Path) -> None:
    runs = made(bundle, tmp_path / "out", "work")
    with pytest.raises(MonaiFairError) as caught:
        run_bundles(runs, source="study", cluster={"address": "local", "num_cpus": 4096, "num_gpus": 512})
    assert re.fullmatch(
        r"ray: 2 problems\n"
        r"  1\. num_cpus: expected at most \d+, all that there are, got 4096\n"
        r"  2\. num_gpus: expected at most \d+, all that there are, got 512",
        str(caught.value),
    )
    assert not (tmp_path / "out").exists()
