"""Run one registration method in this process, time it, and write its fields and what it cost.

The driver (registration.py) starts this file with the Python that holds the method's package. Timed is the
registration alone, from images in memory to fields in memory: imports, reading and writing are not. ANTs keeps its
fields in files, which is timed with it.
"""

import argparse
import importlib
import json
import os
import time
from pathlib import Path
from typing import Any

# how ours registers, and the fit of the cohort that it needs; _any gives the template each subject's contrast
OURS = {
    "ours_codes": "ours_fit",
    "ours_residual": "ours_fit",
    "ours_codes_any": "ours_fit_any",
    "ours_residual_any": "ours_fit_any",
}
FITS = tuple(dict.fromkeys(OURS.values()))
PEERS = {
    "ants_syn": "registration_peers",
    "ants_syn_cc": "registration_peers",
    "elastix_bspline": "registration_peers",
    "demons": "registration_peers",
    "siren": "registration_siren",
}


def peak_memory_mb() -> float:
    """Largest resident memory of this program so far.

    Not ``ru_maxrss``: on Linux it begins with the memory of the process that started this one.
    """
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024 / 1e6
    raise OSError("/proc/self/status: expected a line with VmHWM, found none; measure on Linux")


def matrix_peaks(threads: int) -> dict[str, float]:
    """GFLOP/s of the best of ten products of two 2048 x 2048 matrices, in float32 and bfloat16."""
    import torch

    torch.set_num_threads(threads)
    size, found = 2048, {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        first, second = (torch.randn(size, size, dtype=dtype) for _ in range(2))
        best = float("inf")
        for _ in range(10):
            start = time.perf_counter()
            torch.mm(first, second)
            best = min(best, time.perf_counter() - start)
        found[f"peak_{name}_gflops"] = 2 * size**3 / best / 1e9
    return found


def prepared(options: argparse.Namespace) -> Any:
    """Import the method and let it read its images."""
    if options.method in (*OURS, *FITS):
        method = importlib.import_module("registration_ours").prepare
        return method(
            options.method, options.template, options.images, options.fields,
            model=options.model, threads=options.threads,
        )  # fmt: skip
    method = getattr(importlib.import_module(PEERS[options.method]), options.method)
    (image,), (field,) = options.images, options.fields
    return method(options.template, image, field, threads=options.threads)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Run the method and return what it cost."""
    work = prepared(options)
    load, memory = os.getloadavg()[0], peak_memory_mb()
    start = time.perf_counter()
    result = work.run()
    seconds = time.perf_counter() - start
    cost: dict[str, Any] = {
        "seconds": seconds,
        "memory_mb": peak_memory_mb(),
        "memory_before_mb": memory,
        "load": load,
        "versions": ", ".join(f"{name} {number}" for name, number in work.versions.items()),
    }
    work.write(result)
    if work.flops is not None:
        cost |= {"gflop": work.flops() / 1e9, **matrix_peaks(options.threads)}
    return cost


def main() -> None:
    """Read the task from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=[*FITS, *OURS, *PEERS])
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--images", type=Path, nargs="+", required=True)
    parser.add_argument("--fields", type=Path, nargs="*", default=[])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--answer", type=Path, required=True)
    options = parser.parse_args()
    options.answer.write_text(json.dumps(measured(options)), encoding="utf-8")


if __name__ == "__main__":
    main()
