"""Who is in the simulated cohort: patients, their studies with one frontal image each, and how these look.

Counts are planned, not drawn: each part has the planned number of patients of every sex, race and age group together,
and their studies the planned number of findings, rounded to whole ones. Only what is left is random.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.data.predictions import SPLITS
from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.simulation.chest_cohort import AGE_GROUPS, CELLS, FINDINGS, GROUPS, RACES, ChestCohort
from monai_fair.simulation.cohort_parameters import SEXES

# Chance of a further study after each one, which makes 2.2 studies per patient; CheXpert has 2.9 frontal images.
_NEXT_STUDY, _MOST_STUDIES = 0.55, 12
_AGES = {AGE_GROUPS[0]: (45.0, 11.0, 18, 59), AGE_GROUPS[1]: (73.0, 8.0, 60, 90)}  # mean, sd, limits; 90 is the top
_YEARS_BETWEEN = 0.7
_SAME_PATIENT = 0.6  # of the liability: a patient who has the finding once is likelier to have it again
_CUE_SD = 0.4
_AGE_CENTRE, _AGE_UNIT = 60.0, 12.0


def studies_per_patient(n: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw one study or more per patient until there are ``n``; the last patient gets what is left."""
    counts = np.minimum(generator.geometric(1.0 - _NEXT_STUDY, size=n), _MOST_STUDIES).astype(np.int64)
    total = np.cumsum(counts)
    patients = int(np.searchsorted(total, n)) + 1
    counts = counts[:patients]
    counts[-1] -= total[patients - 1] - n
    return counts


def deal_patients(patients: int, cohort: ChestCohort, generator: np.random.Generator) -> pd.DataFrame:
    """Deal patients to parts and groups, in random order.

    Returns:
        One row per patient: ``split``, ``sex``, ``race``, ``age_group``. Every part has its share of patients, and
        every combination of groups its share of them, rounded to whole patients.
    """
    shares = list(cohort.split_shares().values())
    sizes = np.diff([0, *(round(patients * share) for share in np.cumsum(shares))])
    rows = [
        (split, *cell)
        for split, size in zip(SPLITS, sizes, strict=True)
        for cell, count in zip(CELLS, _rounded(int(size), cohort.cell_shares()), strict=True)
        for _ in range(count)
    ]
    table = pd.DataFrame(rows, columns=["split", *GROUPS])
    return table.iloc[generator.permutation(len(table))].reset_index(drop=True)


def patient_ages(age_group: pd.Series, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw the age at the first study in whole years, within the age group."""
    mean, sd, low, high = (np.array(part) for part in zip(*(_AGES[name] for name in age_group), strict=True))
    # Reflected at the limits, so that no age is more frequent there.
    drawn = generator.normal(mean, sd)
    drawn = np.where(drawn < low, 2 * low - drawn, drawn)
    drawn = np.where(drawn > high + 1, 2 * (high + 1) - drawn, drawn)
    return np.clip(np.floor(drawn), low, high).astype(np.int64)


def study_ages(studies: pd.DataFrame, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the age at every study: that of the first one and the years since, without leaving the age group.

    Args:
        studies: ``patient``, ``first_age`` and ``age_group``, a patient's studies in their order.
        generator: source of randomness.
    """
    gap = pd.Series(generator.exponential(_YEARS_BETWEEN, len(studies)), index=studies.index)
    gap = gap.mask(~studies["patient"].duplicated(), 0.0)
    since = gap.groupby(studies["patient"]).cumsum()
    limit = studies["age_group"].map({name: values[-1] for name, values in _AGES.items()})
    reached = studies["first_age"].to_numpy() + np.floor(since.to_numpy())
    return np.asarray(np.minimum(reached, limit.to_numpy()), dtype=np.int64)


def plant_findings(studies: pd.DataFrame, cohort: ChestCohort, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Choose the studies with the finding: the planned number in every part and combination of groups.

    Args:
        studies: ``patient``, ``split``, ``sex``, ``race``, ``age_group``.
        cohort: the planted rates.
        generator: source of randomness.

    Returns:
        1 for each chosen study, else 0.

    Raises:
        MonaiFairError: if a group of some attribute would have no study with, or none without the finding in a part.
    """
    own = generator.standard_normal(len(studies))
    shared = generator.standard_normal(int(studies["patient"].max()) + 1)[studies["patient"]]
    liability = np.sqrt(_SAME_PATIENT) * shared + np.sqrt(1.0 - _SAME_PATIENT) * own
    positive = np.zeros(len(studies), dtype=np.int64)
    places = studies.groupby(["split", *GROUPS]).indices
    for split in SPLITS:
        for cell, rate in zip(CELLS, cohort.cell_rates(split).tolist(), strict=True):
            rows = places.get((split, *cell), np.empty(0, dtype=np.int64))
            # rates are solved for: the last bit, which a processor may give another value, must not decide on a half
            count = round(round(rate * len(rows), 9))
            most = np.argsort(liability[rows])[len(rows) - count :]
            positive[rows[most]] = 1
    raise_problems(MonaiFairError, "simulated cohort", _one_sided(studies, positive))
    return positive


def signs(positive: npt.NDArray[np.int64], cohort: ChestCohort, generator: np.random.Generator) -> pd.DataFrame:
    """Draw how wide the heart is and how high the fluid stands.

    Returns:
        One row per study: ``heart`` and ``fluid``, normal with standard deviation 1 and mean 0; the one that the
        finding is about has the mean ``signal`` where there is the finding.
    """
    drawn = generator.standard_normal((len(positive), len(FINDINGS)))
    drawn[:, FINDINGS.index(cohort.finding)] += cohort.signal * positive
    # Rounded before the drawing, so that truth.csv holds exactly what was drawn.
    return pd.DataFrame(drawn, columns=["heart", "fluid"]).round(6)


def cues(studies: pd.DataFrame, cohort: ChestCohort, generator: np.random.Generator) -> pd.DataFrame:
    """Draw what shows the sex, the race and the age of the patient, with noise that all studies of a patient share.

    Returns:
        One row per study: ``sex_cue`` (positive for women), ``race_cue`` (positive for non-White patients), both the
        strength on either side of 0 plus noise of standard deviation 0.4; ``age_cue``, the strength times
        (age - 60) / 12 plus such noise.
    """
    noise = _CUE_SD * generator.standard_normal((int(studies["patient"].max()) + 1, 3))[studies["patient"]]
    sides = np.column_stack(
        [
            np.where(studies["sex"] == SEXES[1], cohort.sex_cue, -cohort.sex_cue),
            np.where(studies["race"] == RACES[1], cohort.race_cue, -cohort.race_cue),
            cohort.age_cue * (studies["age"].to_numpy() - _AGE_CENTRE) / _AGE_UNIT,
        ]
    )
    return pd.DataFrame(sides + noise, columns=["sex_cue", "race_cue", "age_cue"]).round(6)


def _one_sided(studies: pd.DataFrame, positive: npt.NDArray[np.int64]) -> list[str]:
    """Name every group of a part that has no image with the finding, or none without it."""
    problems = []
    for split in SPLITS:
        for group in (group for groups in GROUPS.values() for group in groups):
            chosen = positive[(studies["split"] == split) & (studies[list(GROUPS)] == group).any(axis=1)]
            found = int(chosen.sum())
            if not 0 < found < len(chosen):
                problems.append(
                    f"n: expected at least 1 image with and 1 without the finding for {group} in {split}, got {found} "
                    f"and {len(chosen) - found}; raise n"
                )
    return problems


def _rounded(total: int, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Share ``total`` out in whole numbers; the largest remainders are rounded up."""
    exact = total * shares
    counts = np.floor(exact).astype(np.int64)
    largest = np.argsort(counts - exact, kind="stable")
    counts[largest[: total - int(counts.sum())]] += 1
    return counts
