"""Names and tables of a simulated brain cohort: BIDS beside the project's own manifest.

References:
    The Brain Imaging Data Structure, https://bids-specification.readthedocs.io (1.10).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from monai_fair.data import BuiltManifest, check_manifest, cross_tables, small_cells
from monai_fair.data.predictions import SPLITS
from monai_fair.data.templates import MNI152_CENTRE_MM
from monai_fair.simulation.brain_cohort import BrainCohort
from monai_fair.simulation.brain_regions import (
    DISEASE_SITE,
    DISTRACTOR_SITES,
    GROUP_SITE,
    REGIONS,
    TISSUES,
    Site,
)
from monai_fair.simulation.brain_sampling import DIAGNOSES, BrainPerson, people_table
from monai_fair.simulation.brain_velocity import TAPER_MM
from monai_fair.simulation.cohort_parameters import SEXES

TRUTH = "derivatives/truth"
EFFECTS = f"{TRUTH}/effects.csv"
_LABEL_FILES = ("dseg", "desc-roi_dseg", "desc-brain_mask")  # tissues, regions, brain
TEMPLATE_FILES = tuple(f"{TRUTH}/template_{name}.nii.gz" for name in ("T1w", *_LABEL_FILES))
_TABLES = ("participants.tsv", "participants.json", "dataset_description.json", "manifest.csv", "manifest.json")
COHORT_FILES = (*_TABLES, *TEMPLATE_FILES, EFFECTS)
_BIDS_VERSION = "1.10.0"


def subject_files(subject_id: str) -> tuple[str, ...]:
    """Return where a subject's files lie in the cohort's folder: image, field, tissues, regions, brain, record."""
    start = f"{TRUTH}/{subject_id}/{subject_id}"
    labels = (f"{start}_{name}.nii.gz" for name in _LABEL_FILES)
    image = f"{subject_id}/anat/{subject_id}_T1w.nii.gz"
    return image, f"{start}_desc-truth_xfm.nii.gz", *labels, f"{start}_desc-truth_xfm.json"


def descriptions(template: str) -> dict[str, dict[str, Any]]:
    """Return the descriptions that BIDS asks for, by path; ``template`` says what the anatomy was made from."""
    common = {"BIDSVersion": _BIDS_VERSION, "Acknowledgements": f"anatomy: {template}"}
    generated = [{"Name": "monai_fair", "Description": "python -m monai_fair simulate brain"}]
    raw = {"Name": "Simulated brains with planted effects", "DatasetType": "raw", "GeneratedBy": generated}
    truth = {"Name": "What is planted in them", "DatasetType": "derivative", "GeneratedBy": generated}
    return {
        "dataset_description.json": {**raw, **common},
        f"{TRUTH}/dataset_description.json": {**truth, **common},
        "participants.json": {
            "participant_id": {"Description": "name of the subject"},
            "sex": {"Description": "sex", "Levels": {"male": "men", "female": "women"}},
            "age": {"Description": "age; it changes nothing in the image", "Units": "year"},
            "diagnosis": {"Description": "diagnosis", "Levels": {"control": "label 0", "patient": "label 1"}},
            "split": {"Description": "part of the study", "Levels": {name: name for name in SPLITS}},
        },
    }


def participants(people: Sequence[BrainPerson]) -> pd.DataFrame:
    """Return ``participants.tsv``."""
    table = people_table(people).rename(columns={"subject_id": "participant_id"})
    return table[["participant_id", "sex", "age", "diagnosis", "split"]]


def built_manifest(people: Sequence[BrainPerson], parameters: dict[str, Any]) -> BuiltManifest:
    """Return the project's manifest of the images, with its record."""
    table = people_table(people)
    table["image"] = [subject_files(name)[0] for name in table["subject_id"]]
    table = table[["subject_id", "image", "label", "split", "sex", "age"]].astype(str)
    cells = cross_tables(check_manifest(table, "simulated brains").table, ["sex"])
    record = {
        "recipe": "simulated_brain",
        "options": parameters,
        "num_classes": len(DIAGNOSES),
        "derivations": {"label": {"groups": [["control"], ["patient"]]}},
        "dropped": [],
        "split": {"from": "simulation"},
        "n": len(table),
        "n_subjects": len(table),
        "cross_tables": cells,
        "warnings": small_cells(cells),
    }
    return BuiltManifest(table, record)


def effects_table(people: Sequence[BrainPerson], measured: Sequence[dict[str, Any]], seed: int) -> pd.DataFrame:
    """Return ``effects.csv``: what is planted in each subject, and what came of it."""
    table = people_table(people).drop(columns=["age", "diagnosis"])
    return table.assign(seed=seed).join(pd.DataFrame(measured))


def count_people(people: Sequence[BrainPerson]) -> list[dict[str, Any]]:
    """Count subjects and patients per split and sex, with phi between the two per split (None where undefined)."""
    table = people_table(people)
    rows: list[dict[str, Any]] = []
    for split in SPLITS:
        part = table[table["split"] == split]
        phi = _phi((part["sex"] == "male").to_numpy(), (part["label"] == 1).to_numpy())
        for sex in SEXES:
            labels = part.loc[part["sex"] == sex, "label"]
            rows.append({"split": split, "sex": sex, "n": len(labels), "patients": int(labels.sum()), "phi": phi})
    return rows


def planted(cohort: BrainCohort) -> dict[str, Any]:
    """Return where the effects act and what the numbers mean, for ``simulation.json``."""
    return {
        "definitions": {
            "displacement": "pull-back on the template's grid: subject(x) = template(x + u(x)); on disk LPS mm",
            "effect": "log volume at the centre changes by -effect * strength: both positive shrink the place",
            "disease_strength": "normal, sd 1, mean 1 in patients and -1 in controls",
            "group_strength": f"normal, sd {cohort.group_spread:g}, mean 2 in men and 0 in women",
            "distractor_strength": "normal, sd 1, mean 0 in everyone",
            "velocity": "a (x - c) exp(-|x - c|^2 / (2 radius^2)) per effect; the sum of all parts is integrated",
            "scale": f"length relative to the template, about {MNI152_CENTRE_MM} mm",
            "taper": f"the velocity falls to 0 over {TAPER_MM:g} mm at the faces of the grid",
            "image": "magnitude of (contrast of the warped template) x bias field + complex Gaussian noise",
            "contrast": "same; gamma: signal ** g, log g uniform; inverted: min(signal / 0.2, 1) (1.1 - signal)",
            "scramble_axes": "flips and permutes the arrays of the images only; truth stays on the template's grid",
            "coordinates": "RAS mm of the MNI152 template",
        },
        "sites": {
            "disease": _site(DISEASE_SITE),
            "group": _site(GROUP_SITE),
            **{f"distractor_{k}": _site(site) for k, site in enumerate(DISTRACTOR_SITES[: cohort.distractors], 1)},
        },
        "tissues": {str(label): name for label, name in TISSUES.items()},
        "regions": {str(label): region.name for label, region in enumerate(REGIONS, start=1)},
    }


def _site(site: Site) -> dict[str, Any]:
    return {"name": site.name, "centre_mm": list(site.centre_mm), "radius_mm": site.radius_mm}


def _phi(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return the correlation of two yes-no columns; None where one of them is constant or empty."""
    if len(first) == 0 or first.all() or second.all() or not first.any() or not second.any():
        return None
    return float(np.corrcoef(first, second)[0, 1])
