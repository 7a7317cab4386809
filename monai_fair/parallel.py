"""Run one function over many subjects or seeds: here, in processes, or on a Ray cluster; a failure is a row.

Processes are joblib's (loky): they do not import the caller's main module, so that a plain script needs no guard.
Ray runs the same function on one machine or many, and is asked for by an address.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import joblib
from joblib.executor import get_memmapping_executor
from tqdm import tqdm

from monai_fair.errors import MonaiFairError, raise_problems

Item = TypeVar("Item")
Result = TypeVar("Result")
# Libraries in a worker must not start threads of their own: they would wait for each other.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
                     "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")  # fmt: skip
_ONE_THREAD = dict.fromkeys(_THREAD_VARIABLES, "1")
_DIED = "the process that ran it ended without an answer; it may have run out of memory"


@dataclass(frozen=True)
class Outcome(Generic[Item, Result]):
    """What became of one item.

    Attributes:
        item: as it was given.
        value: what the function returned; ``None`` if it failed.
        error: type and message of what went wrong; empty if nothing did.
    """

    item: Item
    value: Result | None
    error: str = ""


def run_all(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    ray_address: str | None = None,
    description: str = "",
    unit: str = "item",
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
) -> list[Outcome[Item, Result]]:
    """Run ``function(item)`` for every item; an exception or a dead process is an outcome and stops no other item.

    Args:
        function: makes one result. In processes and with Ray it works on copies, with one thread for each library.
        items: what it gets, one at a time.
        workers: processes; 1 runs in this one, ``None`` takes one per core (with Ray: all cores it has).
        ray_address: ``local`` for a Ray of its own on this machine, or the address of a cluster; ``None``: no Ray.
        description: title of the progress bar; without one there is no bar.
        unit: of the progress bar.
        cpus_per_worker: cores that Ray sets aside for one item.
        gpus_per_worker: GPUs that Ray sets aside for one item; may be a fraction.

    Returns:
        One outcome per item, in the order of ``items``.

    Raises:
        MonaiFairError: if ``workers`` is not a positive whole number, Ray is asked for and not installed, or a Ray of
            this machine has not so many cores or GPUs.

    Example:
        >>> [outcome.error for outcome in run_all(lambda divisor: 1 / divisor, [2, 0], workers=1)]
        ['', 'ZeroDivisionError: division by zero']
    """
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        raise MonaiFairError(f"workers: expected a whole number from 1, got {workers!r}; leave it out for one per core")
    if ray_address is not None:
        finished = _with_ray(function, items, workers, ray_address, cpus_per_worker, gpus_per_worker)
    elif workers == 1 or len(items) < 2:
        finished = ((place, _attempt(function, item)) for place, item in enumerate(items))
    else:
        finished = _in_processes(function, items, min(workers or joblib.cpu_count(), len(items)))
    outcomes: dict[int, Outcome[Item, Result]] = {}
    with tqdm(total=len(items), desc=description, unit=unit, disable=not description) as progress:
        for place, (value, error) in finished:
            outcomes[place] = Outcome(items[place], value, error)
            progress.update()
    return [outcomes[place] for place in range(len(items))]


def _attempt(function: Callable[[Item], Result], item: Item) -> tuple[Result | None, str]:
    try:
        return function(item), ""
    except Exception as error:
        # readers and registrations raise many classes; one item never stops the others
        return None, _reason(error)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[int, tuple[Result | None, str]]]:
    """Keep as many items under way as there are processes.

    When a process dies, all that are under way get no answer. Each of them runs once more, alone, so that only the
    one to blame fails.
    """
    waiting = list(range(len(items)))[::-1]
    running: dict[Future[Any], int] = {}
    try:
        while waiting or running:
            pool = get_memmapping_executor(workers, env=_ONE_THREAD)
            while waiting and len(running) < workers:
                place = waiting.pop()
                running[pool.submit(_attempt, function, items[place])] = place
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
        get_memmapping_executor(workers, env=_ONE_THREAD).shutdown(wait=True, kill_workers=True)
        raise


def _one_by_one(
    function: Callable[[Item], Result], items: Sequence[Item], places: Sequence[int]
) -> Iterator[tuple[int, tuple[Result | None, str]]]:
    for place in places:
        pool = get_memmapping_executor(1, env=_ONE_THREAD)
        future = pool.submit(_attempt, function, items[place])
        wait([future])
        yield place, _answer(future)


def _answer(future: "Future[tuple[Any, str]]") -> tuple[Any, str]:
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        return None, f"{type(error).__name__}: {_DIED}"
    # what cannot be sent to a process or back fails here
    return future.result() if error is None else (None, _reason(error))


def _with_ray(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None,
    address: str,
    cpus: float,
    gpus: float,
) -> Iterator[tuple[int, tuple[Result | None, str]]]:
    try:
        import ray
    except ImportError as error:
        raise MonaiFairError("ray: expected the package, found none; pip install 'monai-fair[cluster]'") from error
    started = not ray.is_initialized()
    if started:
        # num_cpus belongs to a Ray that is started here; a cluster knows its own
        own = {"num_cpus": math.ceil(workers * cpus)} if address == "local" and workers else {}
        ray.init(address=address, include_dashboard=False, log_to_driver=False, configure_logging=False, **own)
    try:
        there = ray.cluster_resources()
        if address == "local":  # a cluster may add machines; here the items would wait for ever
            _check_room(
                {"cpus_per_worker": (cpus, there.get("CPU", 0)), "gpus_per_worker": (gpus, there.get("GPU", 0))}
            )
        task = ray.remote(_attempt).options(
            max_retries=1, num_cpus=cpus, num_gpus=gpus, runtime_env={"env_vars": _ONE_THREAD}
        )
        shared = ray.put(function)
        waiting = list(range(len(items)))[::-1]
        running: dict[Any, int] = {}
        limit = workers or max(1, int(there.get("CPU", 1) / cpus))
        while waiting or running:
            while waiting and len(running) < limit:
                place = waiting.pop()
                running[task.remote(shared, items[place])] = place
            (done,), _ = ray.wait(list(running), num_returns=1)
            place = running.pop(done)
            try:
                yield place, ray.get(done)
            except ray.exceptions.RayError as error:
                yield place, (None, f"{type(error).__name__}: {_DIED}")
    finally:
        if started:
            ray.shutdown()


def _check_room(wanted: Mapping[str, tuple[float, float]]) -> None:
    problems = [
        f"{name}: expected at most {most:g}, all that there are, got {number:g}"
        for name, (number, most) in wanted.items()
        if number > most
    ]
    raise_problems(MonaiFairError, "ray", problems)
