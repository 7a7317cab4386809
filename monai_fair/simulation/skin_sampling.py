"""Who is in the simulated cohort: lesions, their true state, and what decides how they look.

Counts are planned, not drawn: each split has the planned number of men and women, and each of these the
planned number of malignant lesions, rounded to whole lesions. Only what is left is random.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.simulation.cohort_parameters import SEXES
from monai_fair.simulation.skin_cohort import SkinCohort

_PHOTOS_PER_LESION = (0.74, 0.18, 0.08)  # one, two or three; HAM10000 has 1.34 images per lesion
_AGE_MEAN, _AGE_SD, _AGE_LIMITS = 52.0, 16.0, (5.0, 85.0)
_CONTRAST_LIMITS = (0.65, 0.95)
_CUE_SD = 0.25


@dataclass(frozen=True)
class Cell:
    """One sex in one split: how many lesions, and how many of them malignant."""

    split: str
    sex: str
    lesions: int
    malignant: int


def photos_per_lesion(n: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw one to three photographs per lesion until there are ``n``; the last lesion gets what is left."""
    counts = generator.choice([1, 2, 3], size=n, p=_PHOTOS_PER_LESION)
    total = np.cumsum(counts)
    lesions = int(np.searchsorted(total, n)) + 1
    counts = counts[:lesions].astype(np.int64)
    counts[-1] -= total[lesions - 1] - n
    return counts


def plan_cells(lesions: int, cohort: SkinCohort) -> list[Cell]:
    """Share ``lesions`` out over splits and sexes, and set the number of malignant ones in each.

    Raises:
        MonaiFairError: if a cell would have no malignant or no benign lesion.
    """
    shares = cohort.split_shares()
    ends = [round(lesions * share) for share in np.cumsum(list(shares.values()))]
    sizes = np.diff([0, *ends])
    cells = []
    for split, size in zip(shares, sizes, strict=True):
        men = round(int(size) * cohort.male_share)
        prevalence = cohort.group_prevalence(split)
        for sex, count in zip(SEXES, (men, int(size) - men), strict=True):
            cells.append(Cell(split, sex, count, round(count * prevalence[sex])))
    problems = [
        f"n: expected at least 1 malignant and 1 benign lesion for {cell.sex} in {cell.split}, got "
        f"{cell.malignant} and {cell.lesions - cell.malignant}; raise n"
        for cell in cells
        if not 0 < cell.malignant < cell.lesions
    ]
    raise_problems(MonaiFairError, "simulated cohort", problems)
    return cells


def sample_lesions(cells: list[Cell], cohort: SkinCohort, generator: np.random.Generator) -> pd.DataFrame:
    """Draw the lesions of all cells, in random order.

    Returns:
        One row per lesion: ``lesion_id``, ``split``, ``sex``, ``age`` (years, rounded to 5), ``malignant``.
    """
    parts = []
    for cell in cells:
        age = np.clip(generator.normal(_AGE_MEAN, _AGE_SD, cell.lesions), *_AGE_LIMITS)
        # Log-odds plus logistic noise above a threshold is a logistic model; the threshold is set
        # where it leaves exactly the planned number.
        order = np.argsort(cohort.age_slope * age / 10.0 + generator.logistic(size=cell.lesions))
        malignant = np.zeros(cell.lesions, dtype=np.int64)
        malignant[order[cell.lesions - cell.malignant :]] = 1
        rounded = 5.0 * np.round(age / 5.0)
        parts.append(pd.DataFrame({"split": cell.split, "sex": cell.sex, "age": rounded, "malignant": malignant}))
    together = pd.concat(parts, ignore_index=True)
    shuffled = together.iloc[generator.permutation(len(together))].reset_index(drop=True)
    shuffled.insert(0, "lesion_id", [f"HAM_{number:07d}" for number in range(len(shuffled))])
    return shuffled


def flip_labels(lesions: pd.DataFrame, cohort: SkinCohort, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Choose the malignant lesions that are recorded as harmless.

    Exactly ``round(label_bias * n)`` of the n malignant lesions of the group in train, and the same in val.

    Returns:
        True for each chosen lesion.
    """
    flipped = np.zeros(len(lesions), dtype=np.bool_)
    missed = (lesions["sex"] == cohort.underdiagnosed_group) & (lesions["malignant"] == 1)
    for split in ("train", "val"):
        candidates = np.flatnonzero(missed & (lesions["split"] == split))
        count = round(cohort.label_bias * len(candidates))
        flipped[generator.permutation(candidates)[:count]] = True
    return flipped


def appearance(lesions: pd.DataFrame, cohort: SkinCohort, generator: np.random.Generator) -> pd.DataFrame:
    """Draw what decides how a lesion looks.

    Returns:
        One row per lesion: ``evidence`` (normal, standard deviation 1, mean 0 if benign, else ``signal``,
        less in the harder group), ``irregularity`` and ``variegation`` in [0, 1] (both rise with
        evidence), ``contrast`` in [0, 1].
    """
    count = len(lesions)
    kept = np.where(lesions["sex"] == cohort.harder_group, 1.0 - cohort.contrast_gap, 1.0)
    evidence = generator.standard_normal(count) + cohort.signal * kept * lesions["malignant"].to_numpy()
    drawn = {
        "evidence": evidence,
        "irregularity": _logistic(1.2 * (evidence - 1.25) + 0.5 * generator.standard_normal(count)),
        "variegation": _logistic(1.2 * (evidence - 1.25) + 0.5 * generator.standard_normal(count)),
        "contrast": generator.uniform(*_CONTRAST_LIMITS, size=count) * kept,
    }
    # Rounded before the drawing, so that truth.csv holds exactly what was drawn.
    return pd.DataFrame(drawn).round(6)


def photo_cues(sex: pd.Series, cohort: SkinCohort, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw the tint of each photograph: positive is warm, negative is cool, 0 is neutral."""
    side = np.where(sex == "male", 1.0, -1.0)
    cue: npt.NDArray[np.float64] = cohort.cue_strength * side + _CUE_SD * generator.standard_normal(len(sex))
    return np.round(cue, 6)


def _logistic(value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-value)))
