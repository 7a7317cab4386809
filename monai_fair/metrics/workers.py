"""Work in threads: NumPy and SciPy leave the interpreter to the others, so arrays need not be copied to processes."""

import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

# Draws from one random stream: results do not depend on the number of threads.
CHUNK = 100
Job = TypeVar("Job")
Result = TypeVar("Result")


def in_threads(work: Callable[[Job], Result], jobs: Collection[Job], *, label: str) -> list[Result]:
    """Run ``work(job)`` for every job on all processors this process may use, and return the results in order.

    Args:
        work: makes one result.
        jobs: what it gets.
        label: of the progress bar, which is shown on a terminal only.

    Returns:
        One result per job.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Matrix products inside a job must not start threads of their own: they would wait for each other.
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(max_workers=count) as pool:
        return list(tqdm(pool.map(work, jobs), total=len(jobs), desc=label, disable=None, leave=False))


def in_chunks(count: int, seed: int, work: Callable[[int, np.random.Generator], Result], *, label: str) -> list[Result]:
    """Run ``work(size, generator)`` for chunks of ``count`` draws, in threads, and return the results in order.

    Args:
        count: number of draws.
        seed: seed of all streams; each chunk has a stream of its own.
        work: makes the results of ``size`` draws.
        label: of the progress bar.

    Returns:
        One result per chunk.
    """
    sizes = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
    streams = [np.random.Generator(np.random.SFC64(child)) for child in np.random.SeedSequence(seed).spawn(len(sizes))]
    return in_threads(lambda job: work(*job), list(zip(sizes, streams, strict=True)), label=label)
