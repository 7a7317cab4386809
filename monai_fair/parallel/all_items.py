"""One function over all items, wherever they run."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing

import joblib
from tqdm import tqdm

from monai_fair.errors import MonaiFairError
from monai_fair.parallel.processes import in_own_processes, in_pool, in_this_process
from monai_fair.parallel.ray_tasks import Cluster, with_ray
from monai_fair.parallel.tasks import Item, Outcome, Result, WaitingItems


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
        gpus_per_worker: GPUs that Ray sets aside for one item; may be a fraction. With 0 it sees none.

    Returns:
        One outcome per item, in the order of ``items``.

    Raises:
        MonaiFairError: if ``workers`` is not a positive whole number, Ray is asked for and not installed or not there,
            or a Ray of this machine has not so many cores or GPUs.

    Example:
        >>> [outcome.error for outcome in run_all(lambda divisor: 1 / divisor, [2, 0], workers=1)]
        ['', 'ZeroDivisionError: division by zero']
    """
    cluster = None
    if ray_address is not None:
        names = ("cpus_per_worker", "gpus_per_worker")
        cluster = Cluster(ray_address, cpus_per_worker, gpus_per_worker, names)
    outcomes: dict[int, Outcome[Item, Result]] = {}
    finished = run_each(function, items, workers=workers, cluster=cluster)
    with tqdm(total=len(items), desc=description, unit=unit, disable=not description) as bar, closing(finished):
        for place, outcome in finished:
            outcomes[place] = outcome
            bar.update()
    return [outcomes[place] for place in range(len(items))]


def run_each(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    cluster: Cluster | None = None,
    retries: int = 0,
    apart: bool = False,
    preload: Sequence[str] = (),
) -> Generator[tuple[int, Outcome[Item, Result]], None, None]:
    """Run ``function(item)`` for every item, and yield what became of each as soon as it is known.

    Close the generator to stop: what is under way is ended.

    Args:
        function: see :func:`run_all`.
        items: what it gets.
        workers: items at a time; see :func:`run_all`. With a cluster more than it has room for waits there, and asks a
            cluster that grows for machines.
        cluster: where Ray runs them; ``None``: no Ray.
        retries: how often an item that fails, or whose process dies, runs again, behind the others.
        apart: run each item in a process of its own that ends with it, also where one worker would be this process;
            its libraries have the threads of this process, not one. A process that dies takes no other with it.
        preload: modules that such a process finds imported, if this process has forked none so before; not with Ray.

    Yields:
        The place of an item, and its outcome.

    Raises:
        MonaiFairError: see :func:`run_all`.
    """
    _check(workers, retries)
    waiting = WaitingItems(len(items))
    if cluster is not None:
        answers = with_ray(function, items, waiting, cluster, workers=workers, apart=apart)
    elif apart:
        answers = in_own_processes(function, items, waiting, workers or joblib.cpu_count(), preload)
    elif workers == 1 or len(items) < 2:
        answers = in_this_process(function, items, waiting)
    else:
        answers = in_pool(function, items, waiting, min(workers or joblib.cpu_count(), len(items)))
    with closing(answers):
        for place, (value, error) in answers:
            again = bool(error) and waiting.attempts[place] <= retries
            waiting.end(place, again=again)
            if not again:
                yield place, Outcome(items[place], value, error, waiting.attempts[place], waiting.seconds[place])


def _check(workers: int | None, retries: int) -> None:
    problems = []
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        problems.append(f"workers: expected a whole number from 1, got {workers!r}; leave it out for one per core")
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        problems.append(f"retries: expected a whole number from 0, got {retries!r}; correct it")
    if problems:
        raise MonaiFairError("; ".join(problems))
