"""Write a simulated cohort as files in the layout of HAM10000, and know what a folder already holds.

A run first leaves a start mark, writes the images one by one, then the tables, and ``truth.json`` last. So
an unfinished folder is seen as one, and the same call goes on where it stopped.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from monai_fair.data.artifacts import atomic_path, fingerprint, read_json, write_json
from monai_fair.data.tables import write_table
from monai_fair.errors import ArtifactError, MonaiFairError, raise_problems
from monai_fair.simulation.skin_cohort import SkinCohort
from monai_fair.simulation.skin_image import SkinPhoto, draw_photo
from monai_fair.simulation.skin_tables import (
    count_table,
    metadata_table,
    part_of,
    sample_images,
    split_table,
    truth_table,
)

KIND = "simulated_skin"
METADATA, SPLIT, TRUTH_TABLE, TRUTH = "HAM10000_metadata.csv", "split.csv", "truth.csv", "truth.json"
_TABLES = (METADATA, SPLIT, TRUTH_TABLE)

_START_MARK, _START_KIND = ".simulated_skin_started.json", "simulated_skin_started"
# Part of the fingerprint: raise it when equal parameters no longer give equal files.
_DRAWING = 1
_MIN_SIZE, _MAX_SIZE, _MAX_IMAGES = 32, 1024, 10_000_000
_IMAGES_PER_TASK = 25
_JPEG_QUALITY = 92


@dataclasses.dataclass(frozen=True)
class _Task:
    path: Path
    photo: SkinPhoto


def simulate_skin(
    out: str | Path,
    *,
    n: int = 2000,
    seed: int = 0,
    size: int = 128,
    cohort: SkinCohort | None = None,
    num_workers: int | None = None,
) -> Path:
    """Write a simulated dermoscopy cohort with planted, recorded bias.

    The folder gets ``HAM10000_images_part_1/``, ``HAM10000_images_part_2/`` and
    ``HAM10000_metadata.csv`` as in HAM10000, and beside them ``split.csv`` (lesion to split),
    ``truth.csv`` (what was planted, per image) and ``truth.json`` (parameters and counts). Equal
    parameters give equal bytes, whatever ``num_workers`` is. A finished folder with the same parameters is
    left as it is; an unfinished one is completed.

    Args:
        out: folder to write to; missing, empty, or from an earlier call with the same parameters.
        n: number of images; about three quarters as many lesions.
        seed: seed of everything random, 0 or more.
        size: side of an image in pixels, 32 to 1024.
        cohort: what is planted; by default ``SkinCohort()``.
        num_workers: processes that draw; 0 or 1 draws in this one, None takes one per core.

    Returns:
        ``out`` as a ``Path``.

    Raises:
        MonaiFairError: with every parameter that cannot be used, or if ``n`` is too small.
        ArtifactError: if ``out`` holds anything else.

    Example:
        >>> import tempfile
        >>> from monai_fair.simulation import SkinCohort, simulate_skin
        >>> folder = simulate_skin(tempfile.mkdtemp(), n=80, size=32, cohort=SkinCohort(label_bias=0.5))
        >>> sorted(path.name for path in folder.iterdir())[:2]
        ['HAM10000_images_part_1', 'HAM10000_images_part_2']
    """
    cohort = SkinCohort() if cohort is None else cohort
    raise_problems(MonaiFairError, "simulate_skin", run_problems(n, seed, size, num_workers))
    folder = Path(out)
    parameters = {"n": n, "seed": seed, "size": size, "drawing": _DRAWING, "cohort": cohort.parameters()}
    finished = check_folder(folder, parameters)
    table_seed, lesion_seed, photo_seed = np.random.SeedSequence(seed).spawn(3)
    images = sample_images(n, seed=table_seed, cohort=cohort)
    tasks = list(_tasks(folder, images, lesion_seed, photo_seed))
    missing = [task for task in tasks if not task.path.is_file()]
    if finished and not missing and all((folder / name).is_file() for name in _TABLES):
        return folder
    _start(folder, parameters)
    _draw_all(missing, size, num_workers)
    _finish(folder, images, parameters)
    return folder


def run_problems(n: object, seed: object, size: object, num_workers: object) -> list[str]:
    """Return one sentence for each parameter of a run, apart from the cohort, that cannot be used."""
    wanted: list[tuple[str, object, int, int]] = [
        ("n", n, 1, _MAX_IMAGES),
        ("seed", seed, 0, 2**63 - 1),
        ("size", size, _MIN_SIZE, _MAX_SIZE),
    ]
    if num_workers is not None:
        wanted.append(("num_workers", num_workers, 0, 1024))
    return [
        f"{name}: expected a whole number from {low} to {high}, got {value!r}; give one in that range"
        for name, value, low, high in wanted
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high
    ]


def check_folder(folder: Path, parameters: dict[str, Any]) -> bool:
    """Say whether ``folder`` holds a finished cohort of these ``parameters``.

    Returns:
        True if it does; False if it is missing, empty, or holds an unfinished one of the same parameters.

    Raises:
        ArtifactError: if it is a file, or holds anything else.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: expected a folder, got a file; give another path")
    for name, kind in ((_START_MARK, _START_KIND), (TRUTH, KIND)):
        if (folder / name).is_file():
            _check_same(folder, read_json(folder / name, kind), parameters)
            return name == TRUTH
    found = sorted(path.name for path in folder.iterdir())
    if found:
        raise ArtifactError(
            f"{folder}: expected an empty folder or a simulated cohort, got a folder with '{found[0]}' "
            f"({len(found)} entries); give another folder"
        )
    return False


def _check_same(folder: Path, document: dict[str, Any], parameters: dict[str, Any]) -> None:
    if document.get("fingerprint") == fingerprint(parameters):
        return
    before, now = (_flat(value) for value in (document.get("parameters", {}), parameters))
    changes = [f"{name} {before.get(name)!r}, now {now[name]!r}" for name in now if before.get(name) != now[name]]
    raise ArtifactError(
        f"{folder}: expected a cohort of the same parameters, got one with {'; '.join(changes)}; "
        "give another folder, or remove this one first"
    )


def _flat(parameters: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in parameters.items() if name != "cohort"}
    return {**rest, **parameters.get("cohort", {})}


def _tasks(
    folder: Path, images: pd.DataFrame, lesion_seed: np.random.SeedSequence, photo_seed: np.random.SeedSequence
) -> Iterator[_Task]:
    lesion_seeds = lesion_seed.spawn(int(images["lesion"].max()) + 1)
    photo_seeds = photo_seed.spawn(len(images))
    for row, part, seed in zip(images.to_dict("records"), part_of(images), photo_seeds, strict=True):
        look = {name: float(row[name]) for name in ("irregularity", "variegation", "contrast", "cue")}
        photo = SkinPhoto(**look, lesion_seed=lesion_seeds[row["lesion"]], photo_seed=seed)
        yield _Task(folder / f"HAM10000_images_part_{part}" / f"{row['image_id']}.jpg", photo)


def _start(folder: Path, parameters: dict[str, Any]) -> None:
    content = {"fingerprint": fingerprint(parameters), "parameters": parameters}
    write_json(folder / _START_MARK, _START_KIND, content)
    # A killed run leaves the half-written file it was at.
    for leftover in folder.rglob(".*.part"):
        leftover.unlink()


def _draw_all(tasks: list[_Task], size: int, num_workers: int | None) -> None:
    chunks = [tasks[first : first + _IMAGES_PER_TASK] for first in range(0, len(tasks), _IMAGES_PER_TASK)]
    wanted = joblib.cpu_count() if num_workers is None else max(1, num_workers)
    # joblib's loky processes do not import the caller's main module, so a plain script needs no guard.
    parallel = joblib.Parallel(n_jobs=max(1, min(wanted, len(chunks))), return_as="generator_unordered")
    with tqdm(total=len(tasks), desc="simulate skin", unit="image") as progress:
        for drawn in parallel(joblib.delayed(_draw_chunk)(chunk, size) for chunk in chunks):
            progress.update(drawn)


def _draw_chunk(tasks: list[_Task], size: int) -> int:
    for task in tasks:
        image = Image.fromarray(draw_photo(task.photo, size=size))
        with atomic_path(task.path) as temporary:
            # Every encoder option is fixed, so that equal pixels give equal bytes.
            image.save(
                temporary, format="JPEG", quality=_JPEG_QUALITY, subsampling=0, optimize=False, progressive=False
            )
    return len(tasks)


def _finish(folder: Path, images: pd.DataFrame, parameters: dict[str, Any]) -> None:
    write_table(folder / SPLIT, split_table(images))
    write_table(folder / TRUTH_TABLE, truth_table(images))
    write_table(folder / METADATA, metadata_table(images))
    content = {
        "fingerprint": fingerprint(parameters),
        "parameters": parameters,
        "lesions": int(images["lesion_id"].nunique()),
        "images": len(images),
        "counts": count_table(images),
    }
    write_json(folder / TRUTH, KIND, content)
    (folder / _START_MARK).unlink()
