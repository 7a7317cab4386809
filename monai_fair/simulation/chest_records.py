"""What CheXpert's own tables would say about the simulated studies, in their columns and vocabulary.

Only the planted finding is in the image. The other labels, the view and the choice among the names of a race fill the
vocabulary and are drawn at random.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.simulation.chest_cohort import RACES, ChestCohort

POSITIVE, NEGATIVE, UNCERTAIN, NOT_MENTIONED = "1.0", "0.0", "-1.0", ""
NO_FINDING, _DEVICES = "No Finding", "Support Devices"
# Per cent of studies where a label is positive, uncertain and negative in words; rounded, after CheXpert's table 1.
_RATES = {
    "Enlarged Cardiomediastinum": (5, 5, 10),
    "Cardiomegaly": (12, 4, 5),
    "Lung Opacity": (49, 2, 3),
    "Lung Lesion": (4, 1, 1),
    "Edema": (26, 6, 9),
    "Consolidation": (7, 13, 13),
    "Pneumonia": (2, 8, 1),
    "Atelectasis": (16, 16, 1),
    "Pneumothorax": (9, 1, 25),
    "Pleural Effusion": (40, 5, 16),
    "Pleural Other": (1, 1, 1),
    "Fracture": (4, 1, 1),
    _DEVICES: (56, 1, 3),
}
LABELS = (NO_FINDING, *_RATES)
TABLE_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS)
WORKBOOK_COLUMNS = ("PATIENT", "GENDER", "AGE_AT_CXR", "PRIMARY_RACE", "ETHNICITY")
_NEGATIVE_IN_WORDS = 0.2  # of the studies without the planted finding; the others do not mention it
_AP_SHARE = 0.84

_RACE_NAMES: dict[str, dict[str, float]] = {
    RACES[0]: {"White": 70, "White, non-Hispanic": 24, "White, Hispanic": 5, "White or Caucasian": 1},
    RACES[1]: {
        "Other": 32,
        "Asian": 22,
        "Asian, non-Hispanic": 10,
        "Black or African American": 11,
        "Black, non-Hispanic": 4,
        "Other, Hispanic": 9,
        "Other, non-Hispanic": 2,
        "Native Hawaiian or Other Pacific Islander": 3,
        "Pacific Islander, non-Hispanic": 1,
        "Pacific Islander, Hispanic": 0.3,
        "American Indian or Alaska Native": 1,
        "Native American, non-Hispanic": 0.5,
        "Native American, Hispanic": 0.5,
        "Black, Hispanic": 0.5,
        "Asian, Hispanic": 0.5,
        "Asian - Historical Conv": 0.5,
    },
}
_UNKNOWN_RACES = {"Unknown": 50, "Race and Ethnicity Unknown": 20, "Patient Refused": 10, "": 20}
_NOT_HISPANIC = {"Non-Hispanic/Non-Latino": 90, "Not Hispanic": 4, "Unknown": 6}
_HISPANIC = {"Hispanic/Latino": 92, "Hispanic": 8}
_UNSAID = {"Non-Hispanic/Non-Latino": 76, "Hispanic/Latino": 14, "Unknown": 8, "Patient Refused": 2}


def uncertain_rows(studies: pd.DataFrame, cohort: ChestCohort, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Choose the studies whose planted finding is recorded as uncertain: the exact share of train and of val."""
    chosen = np.zeros(len(studies), dtype=np.bool_)
    for split in ("train", "val"):
        rows = np.flatnonzero(studies["split"] == split)
        chosen[generator.permutation(rows)[: round(cohort.uncertain * len(rows))]] = True
    return chosen


def record_labels(studies: pd.DataFrame, cohort: ChestCohort, generator: np.random.Generator) -> pd.DataFrame:
    """Draw what is on record for each study.

    Args:
        studies: ``positive``, ``uncertain`` and ``split``; test is labelled by readers, who know 1 and 0 only.
        cohort: says which finding is planted.
        generator: source of randomness.

    Returns:
        One row per study: the 14 labels as text, and ``AP/PA``.

    References:
        Irvin et al., CheXpert, AAAI 2019, arXiv:1901.07031.
    """
    count = len(studies)
    table = pd.DataFrame(index=studies.index)
    for name, (positive, uncertain, negative) in _RATES.items():
        weights = {POSITIVE: positive, UNCERTAIN: uncertain, NEGATIVE: negative}
        table[name] = _draw({**weights, NOT_MENTIONED: 100 - sum(weights.values())}, count, generator)
    without = np.where(generator.uniform(size=count) < _NEGATIVE_IN_WORDS, NEGATIVE, NOT_MENTIONED)
    planted = np.where(studies["positive"] == 1, POSITIVE, without)
    table[cohort.finding] = np.where(studies["uncertain"], UNCERTAIN, planted)
    by_readers = (studies["split"] == "test").to_numpy()
    table[by_readers] = table[by_readers].replace({UNCERTAIN: NEGATIVE, NOT_MENTIONED: NEGATIVE})
    nothing = ~table.drop(columns=_DEVICES).isin([POSITIVE, UNCERTAIN]).any(axis=1)
    otherwise = np.where(by_readers, NEGATIVE, NOT_MENTIONED)
    table.insert(0, NO_FINDING, np.where(nothing, POSITIVE, otherwise))
    table["AP/PA"] = _draw({"AP": _AP_SHARE, "PA": 1.0 - _AP_SHARE}, count, generator)
    return table


def record_race(race: pd.Series, cohort: ChestCohort, generator: np.random.Generator) -> pd.DataFrame:
    """Draw the names of race and ethnicity of each patient.

    Args:
        race: ``White`` or ``Non-White``.
        cohort: gives the share without a race on record, exact after rounding.
        generator: source of randomness.

    Returns:
        One row per patient: ``PRIMARY_RACE`` and ``ETHNICITY`` as text, and ``unknown_race``.
    """
    count = len(race)
    unknown = np.zeros(count, dtype=np.bool_)
    names = {group: _draw(weights, count, generator) for group, weights in _RACE_NAMES.items()}
    ethnicities = [_draw(weights, count, generator) for weights in (_NOT_HISPANIC, _HISPANIC, _UNSAID)]
    nameless = _draw(_UNKNOWN_RACES, count, generator)
    unknown[generator.permutation(count)[: round(cohort.unknown_race * count)]] = True
    known = np.where(race == RACES[0], names[RACES[0]], names[RACES[1]])
    shown = np.where(unknown, nameless, known)
    said = [np.char.endswith(shown, end) for end in ("non-Hispanic", ", Hispanic")]
    ethnicity = np.select(said, ethnicities[:2], ethnicities[2])
    return pd.DataFrame({"PRIMARY_RACE": shown, "ETHNICITY": ethnicity, "unknown_race": unknown}, index=race.index)


def _draw(weights: Mapping[str, float], count: int, generator: np.random.Generator) -> npt.NDArray[np.str_]:
    shares = np.array(list(weights.values()), dtype=np.float64)
    return generator.choice(list(weights), size=count, p=shares / shares.sum())
