"""Register many new subjects in shards, each a bundle run of its own: in processes of this machine, or with Ray."""

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import joblib
import torch
from tqdm import tqdm

from monai_fair.engines.registration_saver import RegistrationSaver
from monai_fair.errors import RegistrationError, raise_problems, root_cause
from monai_fair.parallel import run_all

# imported once by the server that shards are forked from, instead of once per shard
_PRELOAD = ["monai.bundle", "monai.engines", "monai_fair.engines", "monai_fair.handlers", "monai_fair.networks"]


@dataclass(frozen=True)
class _Shard:
    """What one process does; ``folder`` is where its relative paths start."""

    part: int
    parts: int
    config_files: tuple[str, ...]
    overrides: Mapping[str, Any]
    log: str
    folder: str
    threads: int


def register_in_shards(
    config_files: Sequence[str | Path],
    saver: RegistrationSaver,
    *,
    overrides: Mapping[str, Any],
    shards: int,
    workers: int | None = None,
    ray_address: str | None = None,
    gpus_per_worker: float = 0,
    threads: int | None = None,
    progress: bool = True,
) -> None:
    """Run the same bundle once per shard, several at a time, then write the tables once from all finished subjects.

    Shard ``k`` of ``n`` is ``python -m monai.bundle run --shard [k, n]``: rows ``k, k + n, ...`` of the manifest. What
    it prints goes to ``output_dir/shards/k.txt``. One that fails, or whose process is killed, stops no other. Started
    again, with any number of shards, it does what is left. A script that calls it needs the guard
    ``if __name__ == "__main__"``.

    Args:
        config_files: of the bundle, laid over each other; ``inference.yaml``.
        saver: of the whole manifest and the folder that the shards write to.
        overrides: values for the bundle's keys; ids such as ``network_def#width`` work. ``None`` leaves a key as the
            bundle has it. They must lead to the settings of ``saver``, else the shards refuse the folder.
        shards: how many; more than ``workers`` share uneven work better, fewer spend less on starting.
        workers: shards at a time; by default one per GPU, without a GPU one per core. Those of one machine take its
            GPUs in turn. With Ray by default as many as it has room for.
        ray_address: ``local`` for a Ray of its own on this machine, or the address of a cluster whose machines see the
            same files; ``None``: no Ray.
        gpus_per_worker: GPUs of a shard with Ray; may be a fraction. With 0 it runs on the CPU.
        threads: of a shard; by default its share of the cores, with Ray 1.
        progress: show a bar, one step per finished shard.

    Raises:
        RegistrationError: at once for files that are missing and numbers below 1; at the end, with the reason of each,
            if shards failed. The others are complete.
    """
    _check(config_files, shards=shards, workers=workers, threads=threads)
    local = ray_address is None
    if local:
        workers = min(workers or torch.cuda.device_count() or joblib.cpu_count(), shards)
        threads = threads or max(1, joblib.cpu_count() // workers)
    chosen = {name: value for name, value in overrides.items() if value is not None}
    if not local and not gpus_per_worker:
        chosen.setdefault("device", torch.device("cpu"))
    logs = saver.folder.resolve() / "shards"
    files = tuple(str(Path(file).resolve()) for file in config_files)
    waiting = [
        _Shard(part, shards, files, chosen, str(logs / f"{part}.txt"), str(Path.cwd()), threads or 1)
        for part in _unfinished(saver, shards)
    ]
    if local:
        failures = _with_processes(waiting, workers or 1, progress=progress)
    else:
        failures = _with_ray(waiting, workers, ray_address, gpus_per_worker, progress=progress)
    saver.write_tables()
    problems = [
        f"shard {shard.part} of {shards}: {reason}; see {shard.log}; start again to continue"
        for shard, reason in failures
    ]
    raise_problems(RegistrationError, f"registration {saver.folder}", problems)


def _check(config_files: Sequence[str | Path], **counts: int | None) -> None:
    problems = [
        f"expected the file {file}, found none; give bundle_root or config_files"
        for file in config_files
        if not Path(file).is_file()
    ]
    for name, count in counts.items():
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            problems.append(f"{name}: expected a whole number from 1, got {count!r}")
    raise_problems(RegistrationError, "registration in shards", problems)


def _unfinished(saver: RegistrationSaver, shards: int) -> list[int]:
    """Return the shards with something to do."""
    left = {row["subject_id"] for row in saver.unfinished()}
    return sorted({place % shards for place, row in enumerate(saver.datalist) if row["subject_id"] in left})


def _with_ray(
    shards: Sequence[_Shard], workers: int | None, address: str | None, gpus_per_worker: float, *, progress: bool
) -> list[tuple[_Shard, str]]:
    outcomes = run_all(
        _register,
        shards,
        workers=workers,
        ray_address=address,
        cpus_per_worker=shards[0].threads if shards else 1,
        gpus_per_worker=gpus_per_worker,
        description="registering" if progress else "",
        unit="shard",
    )
    reasons = [(outcome.item, outcome.error or outcome.value or "") for outcome in outcomes]
    return [(shard, reason) for shard, reason in reasons if reason]


def _with_processes(shards: Sequence[_Shard], workers: int, *, progress: bool) -> list[tuple[_Shard, str]]:
    failures = []
    with tqdm(total=len(shards), desc="registering", unit="shard", disable=not progress or not shards) as bar:
        for shard, reason in _finished(shards, workers):
            if reason:
                failures.append((shard, reason))
            bar.set_postfix_str(f"shard {shard.part} {'failed' if reason else 'finished'}")
            bar.update()
    return sorted(failures, key=lambda failure: failure[0].part)


def _finished(shards: Sequence[_Shard], workers: int) -> Iterator[tuple[_Shard, str]]:
    """Yield each shard with the reason if it failed.

    Each has a process of its own, not a place in a pool: a pool ends every task when one of its processes is killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    waiting, free = list(shards)[::-1], list(range(workers))[::-1]
    running: dict[Any, tuple[Any, Connection, _Shard, int]] = {}
    try:
        while waiting or running:
            while waiting and free:
                shard, place = waiting.pop(), free.pop()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_answer, args=(shard, place, sender), name=f"shard {shard.part}")
                process.start()
                sender.close()
                running[process.sentinel] = process, receiver, shard, place
            for sentinel in wait(list(running)):
                process, receiver, shard, place = running.pop(sentinel)
                process.join()
                free.append(place)
                with receiver:
                    yield shard, _reason(receiver, process.exitcode)
    finally:
        # an interrupted run leaves no process behind that still writes
        for process, receiver, _, _ in running.values():
            process.terminate()
            process.join()
            receiver.close()


def _answer(shard: _Shard, place: int, sender: Connection) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())
    sender.send(_register(shard))


def _reason(receiver: Connection, exitcode: int) -> str:
    try:
        return str(receiver.recv())
    except EOFError:
        how = f"by {signal.Signals(-exitcode).name}" if exitcode < 0 else f"with exit code {exitcode}"
        return f"its process was ended {how}, without an answer; it may have run out of memory"


def _register(shard: _Shard) -> str:
    """Do one shard in this process; return the reason when it fails."""
    from monai.bundle import run as run_bundle

    settings = {**shard.overrides, "shard": [shard.part, shard.parts], "report": False}
    with _output_to(Path(shard.log)):
        try:
            torch.set_num_threads(shard.threads)
            with contextlib.chdir(shard.folder):
                run_bundle(config_file=list(shard.config_files), **settings)
        except Exception as error:
            # a failed shard must not stop the others: its reason is reported when they are done
            traceback.print_exc()
            return root_cause(error)
    return ""


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send what this process prints to a file; a process of Ray goes on to other work afterwards."""
    log.parent.mkdir(parents=True, exist_ok=True)
    streams = [sys.stdout, sys.stderr]
    kept = [os.dup(stream.fileno()) for stream in streams]
    with log.open("a", encoding="utf-8") as file:
        for stream in streams:
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    try:
        yield
    finally:
        for stream, before in zip(streams, kept, strict=True):
            stream.flush()
            os.dup2(before, stream.fileno())
            os.close(before)
