"""Write a simulated cohort as files in the layout of HAM10000: the images one by one, then the tables."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from monai_fair.data.artifacts import atomic_path
from monai_fair.data.tables import write_table
from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.simulation.cohort_folder import CohortFolder
from monai_fair.simulation.cohort_parameters import SEED_RANGE, whole_number_problems
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

_METADATA, _SPLIT, _TRUTH = _TABLES = ("HAM10000_metadata.csv", "split.csv", "truth.csv")
_FOLDER = CohortFolder("simulated_skin", "truth.json")
# Part of the fingerprint: raise it when equal parameters no longer give equal files.
_DRAWING = 1
_RANGES = {"n": (1, 10_000_000), "seed": SEED_RANGE, "size": (32, 1024), "num_workers": (0, 1024)}
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
    finished = _FOLDER.check(folder, parameters)
    table_seed, lesion_seed, photo_seed = np.random.SeedSequence(seed).spawn(3)
    images = sample_images(n, seed=table_seed, cohort=cohort)
    tasks = list(_tasks(folder, images, lesion_seed, photo_seed))
    missing = [task for task in tasks if not task.path.is_file()]
    if finished and not missing and all((folder / name).is_file() for name in _TABLES):
        return folder
    _FOLDER.start(folder, parameters)
    _draw_all(missing, size, num_workers)
    _finish(folder, images, parameters)
    return folder


def run_problems(n: object, seed: object, size: object, num_workers: object) -> list[str]:
    """Return one sentence for each parameter of a run, apart from the cohort, that cannot be used."""
    values = {"n": n, "seed": seed, "size": size, "num_workers": num_workers}
    return whole_number_problems(values, _RANGES, optional=["num_workers"])


def _tasks(
    folder: Path, images: pd.DataFrame, lesion_seed: np.random.SeedSequence, photo_seed: np.random.SeedSequence
) -> Iterator[_Task]:
    lesion_seeds = lesion_seed.spawn(int(images["lesion"].max()) + 1)
    photo_seeds = photo_seed.spawn(len(images))
    for row, part, seed in zip(images.to_dict("records"), part_of(images), photo_seeds, strict=True):
        look = {name: float(row[name]) for name in ("irregularity", "variegation", "contrast", "cue")}
        photo = SkinPhoto(**look, lesion_seed=lesion_seeds[row["lesion"]], photo_seed=seed)
        yield _Task(folder / f"HAM10000_images_part_{part}" / f"{row['image_id']}.jpg", photo)


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
    write_table(folder / _SPLIT, split_table(images))
    write_table(folder / _TRUTH, truth_table(images))
    write_table(folder / _METADATA, metadata_table(images))
    lesions = int(images["lesion_id"].nunique())
    _FOLDER.finish(folder, parameters, {"lesions": lesions, "images": len(images), "counts": count_table(images)})
