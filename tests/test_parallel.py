"""One function over many items: the same answers here, in processes and with Ray; a failure is a row."""

import importlib.util
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from monai_fair.errors import MonaiFairError
from monai_fair.parallel import Cluster, Outcome, read_cluster, run_all, run_each

DIED = "the process that ran it ended without an answer; it may have run out of memory"


def work(item: int) -> int:
    if item == 3:
        raise ValueError("three is not wanted")
    return item * item


def die(item: int) -> int:
    if item == 3:
        os._exit(9)
    return item * item


def expected(items: list[int]) -> list[Outcome[int, int]]:
    return [
        Outcome(item, None, "ValueError: three is not wanted") if item == 3 else Outcome(item, item * item)
        for item in items
    ]


@pytest.mark.parametrize("workers", [1, 2, 5, None])
def test_outcomes_are_in_the_order_of_the_items(workers: int | None) -> None:
    items = [5, 3, 1, 4, 0, 2]
    assert run_all(work, items, workers=workers) == expected(items)


@pytest.mark.parametrize("workers", [1, 3])
def test_nothing_to_do(workers: int) -> None:
    assert run_all(work, [], workers=workers) == []


def test_one_worker_is_this_process() -> None:
    seen: list[int] = []
    run_all(seen.append, [1, 2, 3], workers=1)
    assert seen == [1, 2, 3]
    (first, second) = run_all(lambda _: (os.getpid(), threading.get_ident()), [0, 1], workers=1)
    assert first.value == second.value == (os.getpid(), threading.get_ident())


def test_workers_are_other_processes_with_one_thread_for_each_library() -> None:
    outcomes = run_all(lambda _: (time.sleep(0.05), os.getpid(), os.environ["OMP_NUM_THREADS"]), range(4), workers=2)
    assert {outcome.value[2] for outcome in outcomes if outcome.value} == {"1"}
    assert os.getpid() not in {outcome.value[1] for outcome in outcomes if outcome.value}


def test_a_process_that_dies_costs_its_own_item_only() -> None:
    outcomes = run_all(die, list(range(8)), workers=3)
    assert [outcome.value for outcome in outcomes] == [0, 1, 4, None, 16, 25, 36, 49]
    assert [outcome.error for outcome in outcomes if outcome.error] == [f"TerminatedWorkerError: {DIED}"]


def test_a_result_that_cannot_be_sent_back_is_a_failure() -> None:
    outcomes = run_all(lambda item: threading.Lock() if item else 0, [0, 1], workers=2)
    assert outcomes[0].value == 0
    assert "pickle" in outcomes[1].error


@pytest.mark.parametrize("workers", [0, -1, 1.5, "4", True])
def test_bad_workers(workers: object) -> None:
    with pytest.raises(MonaiFairError) as raised:
        run_all(work, [1], workers=workers)  # type: ignore[arg-type]
    assert str(raised.value) == (
        f"workers: expected a whole number from 1, got {workers!r}; leave it out for one per core"
    )


def test_a_bar_is_shown_when_it_has_a_title(capsys: pytest.CaptureFixture[str]) -> None:
    run_all(work, [1, 2], workers=1, description="square", unit="number")
    assert "square: 100%" in capsys.readouterr().err
    run_all(work, [1, 2], workers=1)
    assert capsys.readouterr().err == ""


def test_interrupting_stops_the_rest() -> None:
    def interrupt(item: int) -> int:
        if item == 1:
            raise KeyboardInterrupt
        return item

    with pytest.raises(KeyboardInterrupt):
        run_all(interrupt, [0, 1, 2], workers=1)


def test_ray_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MonaiFairError) as raised:
        run_all(work, [1], ray_address="local")
    assert str(raised.value) == "ray: expected the package, found none; pip install 'monai-fair[cluster]'"


def each(function: Callable[[Any], Any], items: list[Any], **options: Any) -> list[Outcome[Any, Any]]:
    """What became of the items, in their order."""
    found = dict(run_each(function, items, **options))
    assert sorted(found) == list(range(len(items)))
    return [found[place] for place in range(len(items))]


# the server that processes are forked from is kept: later tests of this process run bundles from it
APART: dict[str, Any] = {"apart": True, "preload": ["monai.bundle", "monai.engines"]}


def fail_first(item: int, folder: Path) -> int:
    """Fail as often as the item says, and then not."""
    marks = folder / str(item)
    before = marks.stat().st_size if marks.exists() else 0
    with marks.open("a") as file:
        file.write("x")
    if before < item:
        raise OSError(f"attempt {before}")
    return item


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"workers": 1}, id="here"),
        pytest.param({"workers": 2}, id="pool"),
        pytest.param({"workers": 2, **APART}, id="apart", marks=pytest.mark.slow),
    ],
)
def test_what_fails_is_tried_again(tmp_path: Path, options: dict[str, Any]) -> None:
    assert each(partial(fail_first, folder=tmp_path), [0, 3, 1, 2], retries=2, **options) == [
        Outcome(0, 0, attempts=1),
        Outcome(3, None, "OSError: attempt 2", attempts=3),
        Outcome(1, 1, attempts=2),
        Outcome(2, 2, attempts=3),
    ]


def test_what_is_tried_again_waits_behind_the_others(tmp_path: Path) -> None:
    order = [place for place, _ in run_each(partial(fail_first, folder=tmp_path), [1, 0, 2], workers=1, retries=2)]
    # first attempts of all three, of which the second is an answer; then the first again, and the third twice
    assert order == [1, 0, 2]


def test_seconds_are_of_all_attempts() -> None:
    def slow(_: int) -> None:
        time.sleep(0.05)
        raise OSError

    (outcome,) = each(slow, [0], workers=1, retries=2)
    assert outcome.seconds >= 3 * 0.05


def end(how: str) -> int:
    if how == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "code":
        os._exit(7)
    if how == "leave":
        raise SystemExit(3)
    return os.getpid()


def test_apart_each_item_has_a_process_of_its_own_that_ends_alone() -> None:
    ends = ["pid", "signal", "pid", "code", "pid", "leave", "pid"]
    outcomes = each(end, ends, workers=7, **APART, retries=1)
    assert [outcome.error for outcome in outcomes if outcome.error] == [
        f"SIGKILL: {DIED}", f"exit code 7: {DIED}", f"exit code 3: {DIED}"
    ]  # fmt: skip
    assert [outcome.attempts for outcome in outcomes] == [1, 2, 1, 2, 1, 2, 1]
    assert len({outcome.value for outcome in outcomes if outcome.value} - {os.getpid()}) == 4
    # one worker is another process as well
    (alone,) = each(end, ["pid"], workers=1, **APART)
    assert alone.value != os.getpid()


def give(what: str) -> Any:
    return bytes(1_000_000) if what == "much" else threading.Lock()


def test_apart_long_answers_come_back_and_what_cannot_be_sent_is_a_failure() -> None:
    much, lock = each(give, ["much", "lock"], workers=2, **APART)
    assert much.value == bytes(1_000_000)  # more than a pipe holds
    assert lock.error == "TypeError: cannot pickle '_thread.lock' object"


def stay(item: tuple[int, Path]) -> None:
    number, folder = item
    (folder / f"{number}").write_text(str(os.getpid()))
    if number:
        time.sleep(250)


def test_closing_ends_what_is_under_way(tmp_path: Path) -> None:
    outcomes = run_each(stay, [(number, tmp_path) for number in (1, 2, 0)], workers=3, **APART)
    assert next(outcomes)[0] == 2
    while sum(path.stat().st_size > 0 for path in tmp_path.iterdir()) < 3:
        time.sleep(0.01)
    outcomes.close()
    for number in (1, 2):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / str(number)).read_text()), 0)


@pytest.mark.parametrize("retries", [-1, 0.5, "1", True])
def test_bad_retries(retries: object) -> None:
    with pytest.raises(MonaiFairError) as raised:
        each(work, [1], retries=retries)
    assert str(raised.value) == f"retries: expected a whole number from 0, got {retries!r}; correct it"


@pytest.mark.parametrize("options", [None, {}, {"address": None}, {"address": None, "num_cpus": 2, "num_gpus": 1}])
def test_without_an_address_there_is_no_cluster(options: dict[str, Any] | None) -> None:
    assert read_cluster(options) is None


def test_a_cluster_is_read() -> None:
    assert read_cluster({"address": "auto"}) == Cluster("auto", 1, 0)
    assert read_cluster({"address": "local", "num_cpus": 4, "num_gpus": 0.5}) == Cluster("local", 4, 0.5)


@pytest.mark.parametrize("options", ["auto", ["local"], {"adress": "auto"}, {"address": None, "cpus": 1}])
def test_a_cluster_of_other_keys(options: Any) -> None:
    with pytest.raises(MonaiFairError) as raised:
        read_cluster(options)
    assert str(raised.value) == (
        f"cluster: expected keys among address, num_cpus, num_gpus, got {options!r}; correct them"
    )


def test_a_cluster_of_bad_values_has_all_of_them_told() -> None:
    with pytest.raises(MonaiFairError) as raised:
        read_cluster({"address": "", "num_cpus": 0, "num_gpus": 1.5})
    assert str(raised.value) == (
        "ray: 3 problems\n"
        "  1. address: expected 'local', 'auto' or that of a cluster, got ''; give one\n"
        "  2. num_cpus: expected a number above 0, got 0; correct it\n"
        "  3. num_gpus: expected a fraction of one or a whole number, got 1.5; correct it"
    )
    with pytest.raises(MonaiFairError, match="cpus_per_worker: expected a number above 0, got nan; correct it"):
        run_all(work, [1], ray_address="local", cpus_per_worker=float("nan"))


needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra 'cluster')")


@needs_ray
def test_no_cluster_at_the_address() -> None:
    with pytest.raises(MonaiFairError) as raised:
        run_all(work, [1], ray_address="nowhere")
    assert re.fullmatch(
        r"ray: expected a cluster at 'nowhere', got '[^\n]+'; start one with 'ray start --head', or give 'local' as "
        "address",
        str(raised.value),
    )


@needs_ray
@pytest.mark.filterwarnings("ignore")  # Ray's own, about sockets and files it leaves to its daemons
@pytest.mark.parametrize("function", [work, die])
def test_ray_gives_what_processes_give(function: Callable[[int], int]) -> None:
    items = list(range(6))
    outcomes = run_all(function, items, workers=2, ray_address="local")
    assert [outcome.item for outcome in outcomes] == items
    assert [outcome.value for outcome in outcomes] == [0, 1, 4, None, 16, 25]
    reason = "ValueError: three is not wanted" if function is work else f"WorkerCrashedError: {DIED}"
    assert [outcome.error for outcome in outcomes if outcome.error] == [reason]


def die_first(name: str, folder: Path) -> tuple[int, str]:
    marks = folder / name
    first = not marks.exists()
    with marks.open("a") as file:
        file.write("x")
    if name == "dies once" and first:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


@needs_ray
@pytest.mark.filterwarnings("ignore")
def test_ray_apart_replaces_a_killed_worker_and_shows_no_gpu_that_was_not_asked_for(tmp_path: Path) -> None:
    names = ["dies once", "a"]
    outcomes = each(
        partial(die_first, folder=tmp_path), names, workers=2, cluster=Cluster("local"), retries=1, apart=True
    )
    assert [(outcome.attempts, outcome.error) for outcome in outcomes] == [(2, ""), (1, "")]
    assert [len((tmp_path / name).read_text()) for name in names] == [2, 1]
    answers = [outcome.value for outcome in outcomes if outcome.value]
    assert len({process for process, _ in answers}) == 2  # none was kept for another
    assert {devices for _, devices in answers} == {""}
