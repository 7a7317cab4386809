"""Write a simulated brain cohort as BIDS with its truth beside it.

First the template, then the subjects one by one, each with a small record as its last file, then the tables.
"""

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_fair.data import write_displacement, write_manifest, write_volume
from monai_fair.data.artifacts import atomic_path, read_json, write_json
from monai_fair.data.tables import write_table
from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.geometry import Grid
from monai_fair.parallel import run_all
from monai_fair.simulation import brain_bids
from monai_fair.simulation.brain_anatomy import (
    BrainAnatomy,
    anatomy_kind,
    anatomy_problems,
    brain_grid,
    load_brain_anatomy,
)
from monai_fair.simulation.brain_cohort import BrainCohort
from monai_fair.simulation.brain_sampling import AXES, BrainPerson, sample_people, stream
from monai_fair.simulation.brain_subject import BrainSubject, draw_subject
from monai_fair.simulation.cohort_folder import CohortFolder
from monai_fair.simulation.cohort_parameters import SEED_RANGE, whole_number_problems

_FOLDER = CohortFolder("simulated_brain", "simulation.json")
_SUBJECT_KIND = "simulated_brain_subject"
# Part of the fingerprint: raise it when equal parameters no longer give equal files.
_DRAWING = 1
_RANGES = {"n": (1, 9999), "seed": SEED_RANGE, "num_workers": (1, 1024)}  # n: four digits in sub-0001


def simulate_brain(
    out: str | Path,
    *,
    n: int = 64,
    seed: int = 0,
    anatomy: str = "auto",
    shape: Sequence[int] | None = None,
    spacing_mm: float | None = None,
    cohort: BrainCohort | None = None,
    num_workers: int | None = None,
) -> Path:
    """Write a simulated cohort of brains with planted, recorded effects.

    The folder gets BIDS: ``participants.tsv`` and ``sub-0001/anat/sub-0001_T1w.nii.gz``; the project's
    ``manifest.csv`` and its record; under ``derivatives/truth`` the template with its tissues, regions and mask, for
    every subject the same and the true displacement, and ``effects.csv``; and ``simulation.json`` with all
    parameters, places and definitions. Equal parameters give equal bytes, whatever ``num_workers`` is, and a subject
    is the same in a larger cohort. A finished folder with the same parameters is left as it is; an unfinished one is
    completed.

    Args:
        out: folder to write to; missing, empty, or from an earlier call with the same parameters.
        n: number of subjects, 1 to 9999.
        seed: seed of everything random, 0 or more.
        anatomy: ``mni152``, ``phantom`` or ``auto``; see :func:`~.brain_anatomy.load_brain_anatomy`.
        shape: voxels along right, anterior, superior; by default 80 x 96 x 80 at 2 mm.
        spacing_mm: side of a voxel.
        cohort: what is planted; by default ``BrainCohort()``.
        num_workers: processes that draw; 1 draws in this one, None takes one per core.

    Returns:
        ``out`` as a ``Path``.

    Raises:
        MonaiFairError: with every parameter that cannot be used, and with every subject whose deformation folds.
        ArtifactError: if ``out`` holds anything else.
    """
    cohort = BrainCohort() if cohort is None else cohort
    problems = brain_run_problems(n, seed, num_workers) + anatomy_problems(anatomy, shape, spacing_mm)
    raise_problems(MonaiFairError, "simulate_brain", problems)
    sizes, spacing = brain_grid(shape, spacing_mm)
    run = {"n": n, "seed": seed, "anatomy": anatomy_kind(anatomy), "shape": list(sizes), "spacing_mm": spacing}
    parameters = {**run, "drawing": _DRAWING, "cohort": cohort.parameters()}
    folder = Path(out)
    people = sample_people(n, seed=seed, cohort=cohort)
    finished = _FOLDER.check(folder, parameters)
    missing = [person for person in people if not _is_finished(folder, person)]
    if finished and not missing and all((folder / name).is_file() for name in brain_bids.COHORT_FILES):
        return folder
    _FOLDER.start(folder, parameters)
    template = load_brain_anatomy(anatomy, shape=sizes, spacing_mm=spacing)
    _write_template(folder, template)
    draw = partial(_draw, folder=folder, template=template, seed=seed, cohort=cohort)
    outcomes = run_all(draw, missing, workers=num_workers, description="simulate brain", unit="subject")
    raise_problems(MonaiFairError, folder, [outcome.error for outcome in outcomes if outcome.error])
    _finish(folder, people, cohort, parameters, template.source)
    return folder


def brain_run_problems(n: object, seed: object, num_workers: object) -> list[str]:
    """Return one sentence for each parameter of a run, apart from anatomy and cohort, that cannot be used."""
    values = {"n": n, "seed": seed, "num_workers": num_workers}
    return whole_number_problems(values, _RANGES, optional=["num_workers"])


def scrambled(subject: BrainSubject, grid: Grid, seed: int) -> tuple[npt.NDArray[np.float32], Grid]:
    """Flip and permute the array axes of a subject's image at random; the voxels stay where they are in the world."""
    generator = stream(seed, AXES, subject.person.index)
    turn = np.stack([generator.permutation(3), generator.choice([-1, 1], size=3)], axis=1)
    array = np.ascontiguousarray(nib.orientations.apply_orientation(subject.image, turn))
    affine = grid.affine @ nib.orientations.inv_ornt_aff(turn, grid.shape)
    first, second, third = array.shape
    return array, Grid((first, second, third), affine)


def _write_template(folder: Path, template: BrainAnatomy) -> None:
    arrays: list[npt.NDArray[Any]] = [template.image, template.tissue, template.roi, template.mask]
    for name, array in zip(brain_bids.TEMPLATE_FILES, arrays, strict=True):
        write_volume(folder / name, array, template.grid)


def _draw(person: BrainPerson, *, folder: Path, template: BrainAnatomy, seed: int, cohort: BrainCohort) -> None:
    subject, grid = draw_subject(person, template, seed, cohort), template.grid
    image, field, *labels, record = (folder / name for name in brain_bids.subject_files(person.subject_id))
    shown, shown_grid = scrambled(subject, grid, seed) if cohort.scramble_axes else (subject.image, grid)
    write_volume(image, shown, shown_grid)
    write_displacement(field, subject.displacement_vox, grid)
    for path, labelled in zip(labels, (subject.tissue, subject.roi, subject.mask), strict=True):
        write_volume(path, labelled, grid)
    measured = {
        "min_det_jacobian": subject.volumes.minimum,
        "max_det_jacobian": subject.volumes.maximum,
        "sd_log_det_jacobian": subject.volumes.log_sd,
        "mean_displacement_mm": subject.mean_displacement_mm,
        "tissue_dice": subject.tissue_dice,
    }
    rounded = {key: float(f"{value:.6g}") for key, value in measured.items()}
    # the last file of a subject: where it stands, the others do
    write_json(record, _SUBJECT_KIND, {**dataclasses.asdict(person), "measured": rounded})


def _finish(
    folder: Path, people: list[BrainPerson], cohort: BrainCohort, parameters: dict[str, Any], source: str
) -> None:
    measured = [read_json(_record(folder, person), _SUBJECT_KIND)["measured"] for person in people]
    effects = brain_bids.effects_table(people, measured, parameters["seed"])
    for name, content in brain_bids.descriptions(source).items():
        _write_text(folder / name, json.dumps(content, indent=2) + "\n")
    _write_text(folder / ".bidsignore", "manifest.csv\nmanifest.json\nsimulation.json\n")
    table = brain_bids.participants(people)
    _write_text(folder / "participants.tsv", table.to_csv(sep="\t", index=False, lineterminator="\n"))
    write_table(folder / brain_bids.EFFECTS, effects)
    write_manifest(brain_bids.built_manifest(people, parameters), folder / "manifest.csv")
    names = list(measured[0])
    content = {
        "template": source,
        **brain_bids.planted(cohort),
        "counts": brain_bids.count_people(people),
        "means": {name: round(float(effects[name].mean()), 6) for name in names},
    }
    _FOLDER.finish(folder, parameters, content)


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _is_finished(folder: Path, person: BrainPerson) -> bool:
    return all((folder / name).is_file() for name in brain_bids.subject_files(person.subject_id))


def _record(folder: Path, person: BrainPerson) -> Path:
    return folder / brain_bids.subject_files(person.subject_id)[-1]
