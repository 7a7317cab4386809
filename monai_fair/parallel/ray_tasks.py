"""Items on Ray: on this machine, or on a cluster that is asked for by its address."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.parallel.processes import Answers
from monai_fair.parallel.tasks import DIED, ONE_THREAD, Item, Result, WaitingItems, attempt

# without it Ray lets a task that asked for no GPU see all there are
_NO_MORE_THAN_ASKED = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}


@dataclass(frozen=True)
class Cluster:
    """Where Ray runs items, and what it sets aside for one.

    Args:
        address: ``local`` for a Ray of its own on this machine, ``auto`` for the cluster that this machine is part of,
            or the address of one. Its machines see the same files.
        num_cpus: cores; may be a fraction.
        num_gpus: GPUs; a fraction shares one. With 0 an item sees none.
        names: what messages call the two numbers.

    Raises:
        MonaiFairError: if a number is not one that Ray can set aside.
    """

    address: str
    num_cpus: float = 1
    num_gpus: float = 0
    names: tuple[str, str] = ("num_cpus", "num_gpus")

    def __post_init__(self) -> None:
        problems = []
        if not isinstance(self.address, str) or not self.address:
            problems.append(f"address: expected 'local', 'auto' or that of a cluster, got {self.address!r}; give one")
        if not _is_number(self.num_cpus) or self.num_cpus <= 0:
            problems.append(f"{self.names[0]}: expected a number above 0, got {self.num_cpus!r}; correct it")
        if not _is_number(self.num_gpus) or self.num_gpus < 0 or (self.num_gpus > 1 and self.num_gpus % 1):
            problems.append(
                f"{self.names[1]}: expected a fraction of one or a whole number, got {self.num_gpus!r}; correct it"
            )
        raise_problems(MonaiFairError, "ray", problems)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_cluster(options: Mapping[str, Any] | None) -> Cluster | None:
    """Return what a configuration says of Ray.

    Args:
        options: ``address``, and perhaps ``num_cpus`` and ``num_gpus``; see :class:`Cluster`.

    Returns:
        Nothing if there are no options, or the address is ``None``: no Ray.

    Raises:
        MonaiFairError: if there are other keys, or a value cannot be used.
    """
    if options is None:
        return None
    known = ("address", "num_cpus", "num_gpus")
    if not isinstance(options, Mapping) or not {*options} <= {*known}:
        raise MonaiFairError(f"cluster: expected keys among {', '.join(known)}, got {options!r}; correct them")
    return None if options.get("address") is None else Cluster(**options)


def with_ray(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    waiting: WaitingItems,
    cluster: Cluster,
    *,
    workers: int | None,
    apart: bool,
) -> Answers[Result]:
    """Keep as many items under way as Ray has room for, or as there are workers.

    Args:
        function: makes one result.
        items: what it gets.
        waiting: places of the items.
        cluster: where, and what is set aside for one.
        workers: items under way at most.
        apart: start a process for each item; else Ray keeps them, and runs what a dead one had once more.

    Raises:
        MonaiFairError: if Ray is not installed, there is no cluster at the address, or this machine is too small.
    """
    try:
        import ray
    except ImportError as error:
        raise MonaiFairError("ray: expected the package, found none; pip install 'monai-fair[cluster]'") from error
    started = not ray.is_initialized()
    if started:
        _start(ray, cluster, workers)
    running: dict[Any, int] = {}
    try:
        if cluster.address == "local":  # a cluster may add machines; here the items would wait for ever
            _check_room(cluster, ray.cluster_resources())
        own = {"max_calls": 1, "max_retries": 0} if apart else {"max_retries": 1}
        env = {"env_vars": {**ONE_THREAD, **_NO_MORE_THAN_ASKED}}
        # options() knows no max_calls
        made = ray.remote(num_cpus=cluster.num_cpus, num_gpus=cluster.num_gpus, runtime_env=env, **own)
        task = made(attempt)
        shared = ray.put(function)
        while waiting or running:
            limit = workers or _room(cluster, ray.cluster_resources())
            while waiting and len(running) < limit:
                place = waiting.take()
                running[task.remote(shared, items[place])] = place
            (done,), _ = ray.wait(list(running), num_returns=1)
            place = running.pop(done)
            try:
                answer = ray.get(done)
            except ray.exceptions.RayError as error:
                answer = None, f"{type(error).__name__}: {DIED}"
            yield place, answer
    finally:
        # an interrupted run leaves no process behind that still writes
        for left in running:
            ray.cancel(left, force=True)
        if started:
            ray.shutdown()


def _start(ray: Any, cluster: Cluster, workers: int | None) -> None:
    # num_cpus belongs to a Ray that is started here; a cluster knows its own
    own = {"num_cpus": math.ceil(workers * cluster.num_cpus)} if cluster.address == "local" and workers else {}
    try:
        ray.init(address=cluster.address, include_dashboard=False, log_to_driver=False, configure_logging=False, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        # Ray's own message has lines of advice for those who call it
        reason = str(error).strip().partition("\n")[0]
        raise MonaiFairError(
            f"ray: expected a cluster at '{cluster.address}', got '{reason}'; start one with 'ray start --head', or "
            "give 'local' as address"
        ) from error


def _check_room(cluster: Cluster, there: Mapping[str, float]) -> None:
    wanted = zip(cluster.names, (cluster.num_cpus, cluster.num_gpus), ("CPU", "GPU"), strict=True)
    problems = [
        f"{name}: expected at most {there.get(kind, 0):g}, all that there are, got {number:g}"
        for name, number, kind in wanted
        if number > there.get(kind, 0)
    ]
    raise_problems(MonaiFairError, "ray", problems)


def _room(cluster: Cluster, there: Mapping[str, float]) -> int:
    """Return how many items there is room for at a time; machines may come and go."""
    wanted = {"CPU": cluster.num_cpus, "GPU": cluster.num_gpus}
    shares = [there.get(kind, 0) / number for kind, number in wanted.items() if number]
    # 0.3 / 0.1 is a little less than 3
    return max(1, math.floor(min(shares) + 1e-9))
