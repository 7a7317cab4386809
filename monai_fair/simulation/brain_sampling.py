"""Who is in a simulated brain cohort: split, sex, diagnosis, age and the strengths of the effects.

A subject's row depends on the seed and its number, and not on how many there are: a cohort of 32 is the start of one
of 64. So shares are met by counting along: among the first ``k`` there are ``floor(share * k + phase)`` of a kind,
with a phase from the seed. That is the planned number when it is whole, and less than one off when it is not. The
order in which kinds follow each other is regular, not random.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from monai_fair.data.predictions import SPLITS
from monai_fair.simulation.brain_cohort import MAX_DISTRACTORS, BrainCohort

DIAGNOSES = ("control", "patient")
_AGE_MEAN, _AGE_SD, _AGE_LIMITS = 68.0, 8.0, (45, 90)
_DISEASE_MEANS = (-1.0, 1.0)
_GROUP_MEANS = {"male": 2.0, "female": 0.0}
# Streams of randomness: the phases of the cohort, and for each subject one per purpose, so that a change of one
# parameter leaves everything else as it was.
PHASES, WHO, COARSE, FINE, INTENSITY, AXES = range(6)


@dataclass(frozen=True)
class BrainPerson:
    """One subject: what is on record, and what is planted.

    Attributes:
        index: number in the cohort, from 0.
        subject_id: ``sub-0001`` for the first.
        split: ``train``, ``val`` or ``test``.
        sex: ``male`` or ``female``.
        label: 1 for patients, 0 for controls.
        age: years.
        disease_strength: of the effect on the left hippocampus.
        group_strength: of the effect on the right frontal lobe.
        distractor_strengths: one per distractor of the cohort.
        scale: overall length relative to the template.
    """

    index: int
    subject_id: str
    split: str
    sex: str
    label: int
    age: int
    disease_strength: float
    group_strength: float
    distractor_strengths: tuple[float, ...]
    scale: float


def stream(seed: int, purpose: int, index: int = 0) -> np.random.Generator:
    """Return the generator of one purpose of one subject."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, index)))


def sample_people(n: int, *, seed: int, cohort: BrainCohort) -> list[BrainPerson]:
    """Draw the first ``n`` subjects of a cohort."""
    phases = stream(seed, PHASES).uniform(0.01, 0.99, size=16).tolist()
    taken: dict[tuple[str, ...], int] = {}

    def deal(key: tuple[str, ...], phase: float, share: float) -> bool:
        """Count one more of ``key``, and tell whether it is of the kind that has ``share``."""
        before = taken.get(key, 0)
        taken[key] = before + 1
        return math.floor(share * (before + 1) + phase) > math.floor(share * before + phase)

    rest = 1.0 - cohort.train_share
    val_share = min(1.0, cohort.val_share / rest) if rest > 0 else 0.0
    people = []
    for index in range(n):
        train = deal(("train",), phases[0], cohort.train_share)
        split = "train" if train else "val" if deal(("val",), phases[1], val_share) else "test"
        place = SPLITS.index(split)
        sex = "male" if deal((split, "male"), phases[2 + place], cohort.male_share) else "female"
        share = cohort.group_prevalence(split)[sex]
        patient = deal((split, sex, "patient"), phases[5 + 2 * place + (sex == "male")], share)
        people.append(_person(index, split, sex, int(patient), seed, cohort))
    return people


def people_table(people: Sequence[BrainPerson]) -> pd.DataFrame:
    """Return what is on record and the planted strengths, one row per subject."""
    rows = []
    for person in people:
        distractors = {f"distractor_{k}": value for k, value in enumerate(person.distractor_strengths, start=1)}
        kept = ("subject_id", "split", "sex", "label", "age", "disease_strength", "group_strength", "scale")
        row = {name: getattr(person, name) for name in kept}
        rows.append({**row, "diagnosis": DIAGNOSES[person.label], **distractors})
    return pd.DataFrame(rows)


def _person(index: int, split: str, sex: str, label: int, seed: int, cohort: BrainCohort) -> BrainPerson:
    drawn = stream(seed, WHO, index).standard_normal(4 + MAX_DISTRACTORS)
    age = _AGE_MEAN + _AGE_SD * drawn[0] + cohort.age_gap * (label - cohort.prevalence)
    # Rounded before the drawing, so that effects.csv holds exactly what was drawn.
    strengths = [round(float(value), 6) for value in drawn[4 : 4 + cohort.distractors]]
    return BrainPerson(
        index=index,
        subject_id=f"sub-{index + 1:04d}",
        split=split,
        sex=sex,
        label=label,
        age=int(np.clip(round(age), *_AGE_LIMITS)),
        disease_strength=round(_DISEASE_MEANS[label] + float(drawn[1]), 6),
        group_strength=round(_GROUP_MEANS[sex] + cohort.group_spread * float(drawn[2]), 6),
        distractor_strengths=tuple(strengths),
        scale=round(math.exp(cohort.scale_sd * float(drawn[3])), 6),
    )
