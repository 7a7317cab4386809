"""The tables of a simulated cohort: the truth, what HAM10000's metadata shows of it, the split, the counts."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.data.predictions import SPLITS
from monai_fair.simulation.cohort_parameters import SEXES
from monai_fair.simulation.skin_cohort import SkinCohort
from monai_fair.simulation.skin_records import METADATA_COLUMNS, POSITIVE_DX, record_lesions
from monai_fair.simulation.skin_sampling import (
    appearance,
    flip_labels,
    photo_cues,
    photos_per_lesion,
    plan_cells,
    sample_lesions,
)

TRUTH_COLUMNS = (
    "image_id",
    "lesion_id",
    "split",
    "sex",
    "age",
    "malignant",
    "recorded",
    "flipped",
    "evidence",
    "irregularity",
    "variegation",
    "contrast",
    "cue",
)
_RECORD_COLUMNS = ("dx", "dx_type", "localization", "dataset")


def sample_images(n: int, *, seed: np.random.SeedSequence, cohort: SkinCohort) -> pd.DataFrame:
    """Draw a whole cohort.

    Every purpose has a stream of its own, so that changing one parameter (the share of flipped labels,
    the strength of the cue) leaves everything else in the cohort as it was.

    Args:
        n: number of images.
        seed: source of randomness.
        cohort: the planted parameters.

    Returns:
        One row per image, by ``image_id``: the columns of ``truth.csv``; ``dx``, ``dx_type``,
        ``localization``, ``dataset``; ``recorded_sex``, ``recorded_age``; ``lesion``, the lesion's row number.

    Raises:
        MonaiFairError: if ``n`` is too small for every sex to have both labels in every split.
    """
    streams = [np.random.default_rng(child) for child in seed.spawn(7)]
    photos, who, missed, records, look, tints, ids = streams
    counts = photos_per_lesion(n, photos)
    lesions = sample_lesions(plan_cells(len(counts), cohort), cohort, who)
    flipped = flip_labels(lesions, cohort, missed)
    recorded = record_lesions(lesions, flipped, cohort, records)
    table = lesions.join(appearance(lesions, cohort, look)).join(recorded[list(_RECORD_COLUMNS)])
    table = table.assign(
        flipped=flipped.astype(np.int64),
        recorded=recorded["dx"].isin(POSITIVE_DX).astype(np.int64),
        recorded_sex=recorded["sex"],
        recorded_age=recorded["age"],
        lesion=np.arange(len(lesions)),
    )
    images = table.loc[np.repeat(table.index.to_numpy(), counts)].reset_index(drop=True)
    images["cue"] = photo_cues(images["sex"], cohort, tints)
    # In a random order, so that the numbers of the images tell nothing about their lesions.
    images["image_id"] = [f"ISIC_{number:07d}" for number in ids.permutation(n)]
    return images.sort_values("image_id", ignore_index=True)


def truth_table(images: pd.DataFrame) -> pd.DataFrame:
    """Return what was planted, one row per image; ``recorded`` is the label the metadata implies."""
    return images[list(TRUTH_COLUMNS)]


def metadata_table(images: pd.DataFrame) -> pd.DataFrame:
    """Return HAM10000's metadata: what is on record, with missing ages and unknown sexes."""
    shown = images.drop(columns=["sex", "age"]).rename(columns={"recorded_sex": "sex", "recorded_age": "age"})
    return shown[list(METADATA_COLUMNS)]


def split_table(images: pd.DataFrame) -> pd.DataFrame:
    """Return ``subject_id`` (the lesion) and ``split``, one row per lesion."""
    lesions = images.drop_duplicates("lesion_id").sort_values("lesion_id", ignore_index=True)
    return lesions[["lesion_id", "split"]].rename(columns={"lesion_id": "subject_id"})


def count_table(images: pd.DataFrame) -> list[dict[str, Any]]:
    """Count lesions and images, malignant, recorded as malignant and flipped, per split and sex."""
    lesions = images.drop_duplicates("lesion_id")
    return [
        {"split": split, "sex": sex, "lesions": _counts(lesions, split, sex), "images": _counts(images, split, sex)}
        for split in SPLITS
        for sex in SEXES
    ]


def part_of(images: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the image folder of each row, 1 or 2: the first half of the image ids, then the rest."""
    half = (len(images) + 1) // 2
    return np.where(np.arange(len(images)) < half, 1, 2).astype(np.int64)


def _counts(table: pd.DataFrame, split: str, sex: str) -> dict[str, float]:
    rows = table[(table["split"] == split) & (table["sex"] == sex)]
    sums = {name: int(rows[name].sum()) for name in ("malignant", "recorded", "flipped")}
    return {"n": len(rows), **sums, "prevalence": round(sums["malignant"] / len(rows), 6)}
