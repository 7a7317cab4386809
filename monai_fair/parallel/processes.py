"""Items in processes of this machine: in a pool that is kept, or each in a process of its own."""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_any
from typing import Any

from joblib.executor import get_memmapping_executor

from monai_fair.errors import root_cause
from monai_fair.parallel.tasks import DIED, ONE_THREAD, Item, Result, WaitingItems, attempt

Answers = Generator[tuple[int, tuple[Result | None, str]], None, None]


def in_this_process(
    function: Callable[[Item], Result], items: Sequence[Item], waiting: WaitingItems
) -> Answers[Result]:
    """Yield place and answer of one item after the other."""
    while waiting:
        place = waiting.take()
        yield place, attempt(function, items[place])


def in_pool(
    function: Callable[[Item], Result], items: Sequence[Item], waiting: WaitingItems, workers: int
) -> Answers[Result]:
    """Keep as many items under way as there are processes.

    When a process dies, all that are under way get no answer. Each of them runs once more, alone, so that only the
    one to blame fails.
    """
    running: dict[Future[Any], int] = {}
    try:
        while waiting or running:
            pool = get_memmapping_executor(workers, env=ONE_THREAD)
            while waiting and len(running) < workers:
                place = waiting.take()
                running[pool.submit(attempt, function, items[place])] = place
            suspects = []
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                place = running.pop(future)
                if isinstance(future.exception(), BrokenProcessPool):
                    suspects.append(place)
                else:
                    yield place, _answer(future)
            if suspects:
                for future in wait(running).done:
                    suspects.append(running.pop(future))
                yield from _one_by_one(function, items, sorted(suspects))
    except BaseException:
        # an interrupted run leaves no process behind that still writes
        get_memmapping_executor(workers, env=ONE_THREAD).shutdown(wait=True, kill_workers=True)
        raise


def _one_by_one(
    function: Callable[[Item], Result], items: Sequence[Item], places: Sequence[int]
) -> Iterator[tuple[int, tuple[Result | None, str]]]:
    for place in places:
        pool = get_memmapping_executor(1, env=ONE_THREAD)
        future = pool.submit(attempt, function, items[place])
        wait([future])
        yield place, _answer(future)


def _answer(future: "Future[tuple[Any, str]]") -> tuple[Any, str]:
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        return None, f"{type(error).__name__}: {DIED}"
    # what cannot be sent to a process or back fails here
    return future.result() if error is None else (None, root_cause(error))


def in_own_processes(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    waiting: WaitingItems,
    workers: int,
    preload: Sequence[str],
) -> Answers[Result]:
    """Start a process for each item, and none in which another was run; one that dies costs its own item only."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    running: dict[Connection, tuple[Any, int]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                place = waiting.take()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_answer_to, args=(sender, function, items[place]))
                process.start()
                sender.close()
                running[receiver] = process, place
            # a long answer is read before its process can end; processes of a killed one may keep its pipe open
            ready = wait_for_any([*running, *(process.sentinel for process, _ in running.values())])
            for receiver, (process, place) in list(running.items()):
                if receiver in ready or process.sentinel in ready:
                    answer = _received(receiver)
                    process.join()
                    del running[receiver]
                    receiver.close()
                    yield place, answer or (None, _end(process.exitcode))
    finally:
        # an interrupted run leaves no process behind that still writes
        for receiver, (process, _) in running.items():
            process.terminate()
            process.join()
            receiver.close()


def _answer_to(sender: Connection, function: Callable[[Item], Result], item: Item) -> None:
    try:
        sender.send(attempt(function, item))
    except Exception as error:
        # as in a pool: what cannot be sent back
        sender.send((None, root_cause(error)))


def _received(receiver: Connection) -> tuple[Any, str] | None:
    try:
        found: tuple[Any, str] | None = receiver.recv() if receiver.poll() else None
    except (EOFError, OSError):
        return None
    return found


def _end(exitcode: int) -> str:
    return f"{signal.Signals(-exitcode).name if exitcode < 0 else f'exit code {exitcode}'}: {DIED}"
