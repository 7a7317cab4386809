"""One function over many items: the same answers here, in processes and with Ray; a failure is a row."""

import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable

import pytest

from monai_fair.errors import MonaiFairError
from monai_fair.parallel import Outcome, run_all

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


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra 'cluster')")
@pytest.mark.filterwarnings("ignore")  # Ray's own, about sockets and files it leaves to its daemons
@pytest.mark.parametrize("function", [work, die])
def test_ray_gives_what_processes_give(function: Callable[[int], int]) -> None:
    items = list(range(6))
    outcomes = run_all(function, items, workers=2, ray_address="local")
    assert [outcome.item for outcome in outcomes] == items
    assert [outcome.value for outcome in outcomes] == [0, 1, 4, None, 16, 25]
    reason = "ValueError: three is not wanted" if function is work else f"WorkerCrashedError: {DIED}"
    assert [outcome.error for outcome in outcomes if outcome.error] == [reason]
