"""The tables of a simulated cohort: the truth, what CheXpert shows of it, the manifest, the counts."""

from typing import Any

import numpy as np
import pandas as pd

from monai_fair.data import BuiltManifest, check_manifest, cross_tables, small_cells
from monai_fair.data.predictions import SPLITS
from monai_fair.simulation.chest_cohort import CELLS, GROUPS, ChestCohort
from monai_fair.simulation.chest_records import (
    TABLE_COLUMNS,
    WORKBOOK_COLUMNS,
    record_labels,
    record_race,
    uncertain_rows,
)
from monai_fair.simulation.chest_sampling import (
    cues,
    deal_patients,
    patient_ages,
    plant_findings,
    signs,
    studies_per_patient,
    study_ages,
)

ROOT = "CheXpert-v1.0-small"
TRUTH_COLUMNS = (
    "image",
    "subject_id",
    "study",
    "split",
    "sex",
    "race",
    "age_group",
    "age",
    "positive",
    "uncertain",
    "heart",
    "fluid",
    "sex_cue",
    "race_cue",
    "age_cue",
)
_MANIFEST_COLUMNS = ("subject_id", "image", "image_id", "label", "split", "sex", "age", "age_group", "race", "view")


def sample_images(n: int, *, seed: np.random.SeedSequence, cohort: ChestCohort) -> pd.DataFrame:
    """Draw a whole cohort.

    Every purpose has a stream of its own, so that changing one parameter (the strength of a cue, the share of
    uncertain labels) leaves everything else in the cohort as it was.

    Args:
        n: number of images, one per study.
        seed: source of randomness.
        cohort: the planted parameters.

    Returns:
        One row per image, by patient and study: the columns of ``truth.csv`` and of CheXpert's tables; ``patient``,
        the patient's number; ``first_age``; ``unknown_race``.

    Raises:
        MonaiFairError: if ``n`` is too small for every group to have images with and without the finding in every part.
    """
    streams = [np.random.default_rng(child) for child in seed.spawn(10)]
    counting, who, ages, later, findings, look, shown, doubts, labels, names = streams
    counts = studies_per_patient(n, counting)
    patients = deal_patients(len(counts), cohort, who)
    patients["first_age"] = patient_ages(patients["age_group"], ages)
    patients = patients.join(record_race(patients["race"], cohort, names))
    # Patients stand in a random order, so that their numbers tell nothing.
    patients["subject_id"] = [f"patient{number:05d}" for number in range(1, len(patients) + 1)]
    places = np.repeat(np.arange(len(patients)), counts)
    studies = patients.iloc[places].reset_index(drop=True).assign(patient=places)
    studies["study"] = studies.groupby("patient").cumcount() + 1
    studies["age"] = study_ages(studies, later)
    studies["positive"] = plant_findings(studies, cohort, findings)
    studies["uncertain"] = uncertain_rows(studies, cohort, doubts).astype(np.int64)
    studies["image"] = [_path(*row) for row in studies[["split", "subject_id", "study"]].itertuples(index=False)]
    studies = studies.join(signs(studies["positive"].to_numpy(), cohort, look)).join(cues(studies, cohort, shown))
    return studies.join(record_labels(studies, cohort, labels))


def truth_table(images: pd.DataFrame) -> pd.DataFrame:
    """Return what was planted, one row per image."""
    return images[list(TRUTH_COLUMNS)]


def study_tables(images: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return ``train.csv`` (train and val) and ``valid.csv`` (test), with CheXpert's columns."""
    shown = images.assign(Sex=_capital(images["sex"]), Age=images["age"])
    shown = shown.rename(columns={"image": "Path"}).assign(**{"Frontal/Lateral": "Frontal"})[list(TABLE_COLUMNS)]
    by_readers = images["split"] == "test"
    return {"train": shown[~by_readers], "valid": shown[by_readers]}


def workbook_table(images: pd.DataFrame) -> pd.DataFrame:
    """Return the demographics, one row per patient; the age is that at the first study."""
    patients = images.drop_duplicates("patient")
    shown = patients.assign(
        PATIENT=patients["subject_id"], GENDER=_capital(patients["sex"]), AGE_AT_CXR=patients["first_age"]
    )
    return shown[list(WORKBOOK_COLUMNS)]


def split_table(images: pd.DataFrame) -> pd.DataFrame:
    """Return ``subject_id`` and ``split``, one row per patient."""
    return images.drop_duplicates("patient")[["subject_id", "split"]]


def built_manifest(images: pd.DataFrame, parameters: dict[str, Any]) -> BuiltManifest:
    """Return the project's manifest with its record, the manifest that the recipe for CheXpert would give.

    Rows with an uncertain label are dropped and counted; a race that is not on record is missing.
    """
    doubtful = images["uncertain"] == 1
    kept = images[~doubtful].rename(columns={"positive": "label", "AP/PA": "view"}).reset_index(drop=True)
    kept["image_id"] = [f"{who}_study{study}_view1_frontal" for who, study in kept[["subject_id", "study"]].to_numpy()]
    table = kept.assign(race=kept["race"].mask(kept["unknown_race"], ""))[list(_MANIFEST_COLUMNS)].astype(str)
    gone = images.loc[doubtful, "subject_id"].tolist()
    checked = check_manifest(table, "simulated chest X-rays").table
    cells = cross_tables(checked, list(GROUPS), intersect=list(GROUPS))
    record = {
        "recipe": "simulated_chest",
        "options": parameters,
        "num_classes": 2,
        "derivations": {"label": {"groups": ["no finding", parameters["cohort"]["finding"]]}},
        "dropped": [{"reason": "label is uncertain", "n": len(gone), "subject_id": gone}] if gone else [],
        "split": {"from": "simulation"},
        "n": len(table),
        "n_subjects": int(table["subject_id"].nunique()),
        "cross_tables": cells,
        "warnings": small_cells(cells),
    }
    return BuiltManifest(table, record)


def count_groups(images: pd.DataFrame, cohort: ChestCohort) -> list[dict[str, Any]]:
    """Count patients, images, findings and uncertain labels per part and group, beside the planted rate.

    Groups are those of each attribute, then all combinations; a combination's name has its three groups.
    """
    keys = images[list(GROUPS)].apply(tuple, axis=1)
    rows = []
    for split in SPLITS:
        here = images["split"] == split
        planted = [
            (name, group, rate, images[name] == group)
            for name, rates in cohort.group_rates(split).items()
            for group, rate in rates.items()
        ]
        planted += [
            (" x ".join(GROUPS), ", ".join(cell), rate, keys == cell)
            for cell, rate in zip(CELLS, cohort.cell_rates(split).tolist(), strict=True)
        ]
        for name, group, rate, chosen in planted:
            part = images[here & chosen]
            positive, uncertain = int(part["positive"].sum()), int(part["uncertain"].sum())
            rows.append(
                {
                    "split": split,
                    "attribute": name,
                    "group": group,
                    "patients": int(part["patient"].nunique()),
                    "images": len(part),
                    "positive": positive,
                    "uncertain": uncertain,
                    "planted_rate": round(rate, 6),
                    "rate": round(positive / len(part), 6) if len(part) else None,
                }
            )
    return rows


def _path(split: str, subject_id: str, study: int) -> str:
    folder = "valid" if split == "test" else "train"
    return f"{ROOT}/{folder}/{subject_id}/study{study}/view1_frontal.jpg"


def _capital(names: pd.Series) -> pd.Series:
    return names.str.capitalize()
