"""Write a simulated cohort as files in the layout of CheXpert: the images patient by patient, then the tables."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from monai_fair.data import write_manifest
from monai_fair.data.artifacts import atomic_path
from monai_fair.data.tables import write_table
from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.parallel import run_all
from monai_fair.simulation.chest_cohort import ChestCohort
from monai_fair.simulation.chest_image import ChestView, draw_chest
from monai_fair.simulation.chest_tables import (
    ROOT,
    built_manifest,
    count_groups,
    sample_images,
    split_table,
    study_tables,
    truth_table,
    workbook_table,
)
from monai_fair.simulation.chest_workbook import write_workbook
from monai_fair.simulation.cohort_folder import CohortFolder
from monai_fair.simulation.cohort_parameters import SEED_RANGE, whole_number_problems

_WORKBOOK, _MANIFEST, _SPLIT, _TRUTH = "CHEXPERT DEMO.xlsx", "manifest.csv", "split.csv", "truth.csv"
_TABLES = (f"{ROOT}/train.csv", f"{ROOT}/valid.csv", _WORKBOOK, _MANIFEST, "manifest.json", _SPLIT, _TRUTH)
_FOLDER = CohortFolder("simulated_chest", "truth.json")
# Part of the fingerprint: raise it when equal parameters no longer give equal files.
_DRAWING = 1
_RANGES = {"n": (1, 200_000), "seed": SEED_RANGE, "size": (32, 1024), "num_workers": (1, 1024)}
_JPEG_QUALITY = 92
_IMAGES_PER_BATCH = 25
_LOOK = ("heart", "fluid", "sex_cue", "race_cue", "age_cue")
_DEFINITIONS = {
    "planted_rate": "rate of the finding per study; positive is the finding in the image, also where it is uncertain",
    "heart": "width of the heart, normal, sd 1, mean 0; for Cardiomegaly its mean is the signal in positive images",
    "fluid": "height of fluid, normal, sd 1, mean 0; for Pleural Effusion its mean is the signal in positive images",
    "sex_cue": "shadow of the breasts: the parameter in women, minus that in men, plus noise of the patient, sd 0.4",
    "race_cue": "exponent of all grey values: the parameter in non-White, minus that in White patients, plus noise",
    "age_cue": "size of the aortic knob, loss of contrast of bones: the parameter x (age - 60) / 12, plus noise",
}


def simulate_chest(
    out: str | Path,
    *,
    n: int = 4000,
    seed: int = 0,
    size: int = 128,
    cohort: ChestCohort | None = None,
    num_workers: int | None = None,
) -> Path:
    """Write a simulated cohort of chest X-rays with planted, recorded gaps and cues.

    The folder gets ``CheXpert-v1.0-small/`` as it is published, with ``train.csv`` (train and val), ``valid.csv``
    (test, labelled by readers: 1 and 0 only) and an image per study, and ``CHEXPERT DEMO.xlsx``. Beside them stand
    ``manifest.csv`` with its record (what the recipe ``chexpert`` makes of the files with the options ``valid=add`` and
    ``finding``, and the split ``split.csv``), ``truth.csv`` (what was planted, per image) and ``truth.json``
    (parameters, definitions, counts). Equal parameters give equal bytes, whatever ``num_workers`` is. A finished folder
    with the same parameters is left as it is; an unfinished one is completed.

    Args:
        out: folder to write to; missing, empty, or from an earlier call with the same parameters.
        n: number of images, one per study; a patient has two studies on average.
        seed: seed of everything random, 0 or more.
        size: side of an image in pixels, 32 to 1024.
        cohort: what is planted; by default ``ChestCohort()``.
        num_workers: processes that draw; 1 draws in this one, None takes one per core.

    Returns:
        ``out`` as a ``Path``.

    Raises:
        MonaiFairError: with every parameter that cannot be used, or if ``n`` is too small.
        ArtifactError: if ``out`` holds anything else.

    Example:
        >>> import tempfile
        >>> from monai_fair.simulation import ChestCohort, simulate_chest
        >>> folder = simulate_chest(tempfile.mkdtemp(), n=200, size=32, cohort=ChestCohort(test_gaps=0), num_workers=1)
        >>> sorted(path.name for path in folder.iterdir())[:2]
        ['CHEXPERT DEMO.xlsx', 'CheXpert-v1.0-small']
    """
    cohort = ChestCohort() if cohort is None else cohort
    raise_problems(MonaiFairError, "simulate_chest", chest_run_problems(n, seed, size, num_workers))
    folder = Path(out)
    parameters = {"n": n, "seed": seed, "size": size, "drawing": _DRAWING, "cohort": cohort.parameters()}
    finished = _FOLDER.check(folder, parameters)
    table_seed, patient_seed, image_seed = np.random.SeedSequence(seed).spawn(3)
    images = sample_images(n, seed=table_seed, cohort=cohort)
    views = _views(images, patient_seed, image_seed)
    missing = [(name, view) for name, view in views if not (folder / name).is_file()]
    if finished and not missing and all((folder / name).is_file() for name in _TABLES):
        return folder
    _FOLDER.start(folder, parameters)
    # one image at a time would spend as long on the way to a process as on the drawing
    batches = [missing[first : first + _IMAGES_PER_BATCH] for first in range(0, len(missing), _IMAGES_PER_BATCH)]
    draw = partial(_draw, folder=folder, size=size)
    outcomes = run_all(draw, batches, workers=num_workers, description="simulate chest", unit="batch")
    raise_problems(MonaiFairError, folder, [outcome.error for outcome in outcomes if outcome.error])
    _finish(folder, images, cohort, parameters)
    return folder


def chest_run_problems(n: object, seed: object, size: object, num_workers: object) -> list[str]:
    """Return one sentence for each parameter of a run, apart from the cohort, that cannot be used."""
    values = {"n": n, "seed": seed, "size": size, "num_workers": num_workers}
    return whole_number_problems(values, _RANGES, optional=["num_workers"])


def _views(
    images: pd.DataFrame, patient_seed: np.random.SeedSequence, image_seed: np.random.SeedSequence
) -> Iterator[tuple[str, ChestView]]:
    """Yield the path of every image in the cohort's folder, and what it shows."""
    patient_seeds = patient_seed.spawn(int(images["patient"].max()) + 1)
    for row, seed in zip(images.to_dict("records"), image_seed.spawn(len(images)), strict=True):
        look = {name: float(row[name]) for name in _LOOK}
        yield row["image"], ChestView(**look, patient_seed=patient_seeds[row["patient"]], image_seed=seed)


def _draw(views: Sequence[tuple[str, ChestView]], *, folder: Path, size: int) -> None:
    for name, view in views:
        image = Image.fromarray(draw_chest(view, size=size))
        with atomic_path(folder / name) as temporary:
            # Every encoder option is fixed, so that equal pixels give equal bytes.
            image.save(temporary, format="JPEG", quality=_JPEG_QUALITY, optimize=False, progressive=False)


def _finish(folder: Path, images: pd.DataFrame, cohort: ChestCohort, parameters: dict[str, Any]) -> None:
    for name, table in study_tables(images).items():
        write_table(folder / ROOT / f"{name}.csv", table)
    write_workbook(folder / _WORKBOOK, workbook_table(images))
    write_manifest(built_manifest(images, parameters), folder / _MANIFEST)
    write_table(folder / _SPLIT, split_table(images))
    write_table(folder / _TRUTH, truth_table(images))
    content = {
        "definitions": _DEFINITIONS,
        "patients": int(images["patient"].nunique()),
        "images": len(images),
        "counts": count_groups(images, cohort),
    }
    _FOLDER.finish(folder, parameters, content)
