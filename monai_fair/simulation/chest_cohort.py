"""The planted truth of a simulated chest X-ray cohort: every parameter, its range, and its check."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_fair.data.predictions import SPLITS
from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.simulation.cohort_parameters import SEXES, number_problems

RACES = ("White", "Non-White")
AGE_GROUPS = ("<60", ">=60")
# A gap is the rate of an attribute's second group minus that of its first.
GROUPS = {"sex": SEXES, "race": RACES, "age_group": AGE_GROUPS}
CELLS = tuple(product(*GROUPS.values()))
FINDINGS = ("Cardiomegaly", "Pleural Effusion")

_RANGES = {
    "prevalence": (0.05, 0.95),
    "male_share": (0.1, 0.9),
    "white_share": (0.1, 0.9),
    "older_share": (0.1, 0.9),
    "sex_gap": (-0.8, 0.8),
    "race_gap": (-0.8, 0.8),
    "age_gap": (-0.8, 0.8),
    "test_gaps": (-1.0, 1.0),
    "signal": (0.0, 6.0),
    "sex_cue": (0.0, 2.0),
    "race_cue": (0.0, 2.0),
    "age_cue": (0.0, 2.0),
    "uncertain": (0.0, 0.5),
    "unknown_race": (0.0, 0.5),
    "train_share": (0.05, 0.9),
    "val_share": (0.05, 0.9),
}
_MAX_TAKEN_SHARE = 0.95
_RATE_LIMITS = (0.005, 0.995)
_NEWTON_STEPS = 60
_INDICATORS = np.array(list(product((0.0, 1.0), repeat=len(GROUPS))))  # of the second groups, in the order of CELLS


@dataclasses.dataclass(frozen=True)
class ChestCohort:
    """What is planted in a simulated cohort of chest X-rays, on purpose and on record.

    A shortcut has two halves: a gap (the finding is more frequent in one group of an attribute) and a cue (the group
    can be seen in the image). Either is off at 0. The defaults are the groups and, within 0.1 points, the rates of
    FairREAD's cohort for cardiomegaly: 30.1 % of women and 14.9 % of men, 28.1 % of non-White and 13.5 % of White
    patients, 24.3 % of those of 60 and more and 10.2 % of the younger.

    Attributes:
        finding: label that the image shows, ``Cardiomegaly`` (a wide heart) or ``Pleural Effusion`` (fluid above the
            diaphragm).
        prevalence: share of images with the finding in every part, in [0.05, 0.95].
        male_share: share of men, in [0.1, 0.9]; sex, race and age group are independent.
        white_share: share of White patients, in [0.1, 0.9].
        older_share: share of patients of 60 years and more, in [0.1, 0.9].
        sex_gap: rate of the finding among women minus that among men, in train and val, in [-0.8, 0.8]. In the
            groups of all three attributes together the log-odds of the finding add up.
        race_gap: rate among non-White minus that among White patients.
        age_gap: rate among those of 60 and more minus that among the younger.
        test_gaps: the gaps of test as a multiple of those of train and val, in [-1, 1]: 1 the same, 0 none, -1 the
            other way round.
        signal: distance between the mean evidence of images with and without the finding in standard deviations, in
            [0, 6]; evidence is the width of the heart or the height of the fluid.
        sex_cue: how far the sexes differ in the breasts' shadow, in [0, 2]; 0 leaves the differences that any two
            patients have.
        race_cue: how far White and non-White patients differ in the grey values of the whole image, in [0, 2].
        age_cue: how fast the aortic knob grows and the bones lose contrast with age, in [0, 2].
        uncertain: share of images of train and val whose label is uncertain, in [0, 0.5].
        unknown_race: share of patients whose race is not on record, in [0, 0.5].
        train_share: share of patients in train, in [0.05, 0.9].
        val_share: share of patients in val, in [0.05, 0.9]; test gets the rest, at least 0.05.

    Raises:
        MonaiFairError: with every parameter that is out of its range.

    References:
        Gao, Hao, Zhou, FairREAD, arXiv:2412.16373, table 1.
    """

    finding: str = FINDINGS[0]
    prevalence: float = 0.187
    male_share: float = 0.753
    white_share: float = 0.646
    older_share: float = 0.597
    sex_gap: float = 0.152
    race_gap: float = 0.146
    age_gap: float = 0.141
    test_gaps: float = 1.0
    signal: float = 1.5
    sex_cue: float = 0.5
    race_cue: float = 0.5
    age_cue: float = 0.5
    uncertain: float = 0.03
    unknown_race: float = 0.01
    train_share: float = 0.6
    val_share: float = 0.15

    def __post_init__(self) -> None:
        raise_problems(MonaiFairError, "ChestCohort", chest_cohort_problems(dataclasses.asdict(self)))

    def parameters(self) -> dict[str, float | str]:
        """Return every parameter by name; 0 and 0.0 are the same here, so that they make the same cohort."""
        values = dataclasses.asdict(self)
        return {name: float(value) if name in _RANGES else str(value) for name, value in values.items()}

    def split_shares(self) -> dict[str, float]:
        """Return the share of patients per split; the shares sum to 1."""
        rest = 1.0 - self.train_share - self.val_share
        return dict(zip(SPLITS, (self.train_share, self.val_share, rest), strict=True))

    def cell_shares(self) -> npt.NDArray[np.float64]:
        """Return the share of patients in each of :data:`CELLS`, shape ``(8,)``."""
        return _cell_shares(_second_shares(dataclasses.asdict(self)))

    def cell_rates(self, split: str) -> npt.NDArray[np.float64]:
        """Return the planted rate of the finding in each of :data:`CELLS` in ``split``, shape ``(8,)``."""
        return _cell_rates(dataclasses.asdict(self), self.test_gaps if split == "test" else 1.0)

    def group_rates(self, split: str) -> dict[str, dict[str, float]]:
        """Return the planted rate of the finding in ``split`` per attribute and group."""
        rates = _group_rates(dataclasses.asdict(self), self.test_gaps if split == "test" else 1.0).tolist()
        pairs = zip(GROUPS.items(), rates, strict=True)
        return {name: dict(zip(groups, row, strict=True)) for (name, groups), row in pairs}


def chest_cohort_problems(values: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each parameter of a :class:`ChestCohort` that cannot be used.

    Args:
        values: every parameter by name.
    """
    problems = number_problems(values, _RANGES)
    if values["finding"] not in FINDINGS:
        known = " or ".join(f"'{name}'" for name in FINDINGS)
        problems.append(f"finding: expected {known}, got {values['finding']!r}; give one of the two")
    # What joins several parameters makes sense only once each of them does.
    return problems or _joint_problems(values)


def _joint_problems(values: Mapping[str, Any]) -> list[str]:
    problems = []
    taken = round(values["train_share"] + values["val_share"], 9)
    if taken > _MAX_TAKEN_SHARE:
        problems.append(
            f"train_share, val_share: expected a sum of at most {_MAX_TAKEN_SHARE}, got {taken:g}; lower one of the "
            "two to leave patients for test"
        )
    low, high = _RATE_LIMITS
    outside = _outside([*SEXES, *RACES, *AGE_GROUPS], _group_rates(values, 1.0).ravel())
    if not outside:
        # Test may have the opposite gaps, and with them other corners.
        scales = (1.0, float(values["test_gaps"]))
        names = [" ".join(cell) for cell in CELLS]
        outside = [text for scale in scales for text in _outside(names, _cell_rates(values, scale))]
    if outside:
        problems.append(
            f"sex_gap, race_gap, age_gap: expected a rate from {low} to {high} in every group, got "
            f"{', '.join(dict.fromkeys(outside))}; bring the gaps nearer to 0 or prevalence nearer to 0.5"
        )
    return problems


def _outside(names: Sequence[str], rates: npt.NDArray[np.float64]) -> list[str]:
    low, high = _RATE_LIMITS
    return [f"{rate:.3g} for {name}" for name, rate in zip(names, rates, strict=True) if not low <= rate <= high]


def _second_shares(values: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Shares of women, of non-White patients and of those of 60 and more."""
    return np.array([1.0 - values["male_share"], 1.0 - values["white_share"], values["older_share"]])


def _group_rates(values: Mapping[str, Any], scale: float) -> npt.NDArray[np.float64]:
    """Rates in the first and the second group of each attribute, shape ``(3, 2)``; over both they give prevalence."""
    gaps = scale * np.array([values["sex_gap"], values["race_gap"], values["age_gap"]])
    first = values["prevalence"] - gaps * _second_shares(values)
    return np.stack([first, first + gaps], axis=1)


def _cell_shares(second: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.prod(np.where(_INDICATORS == 1.0, second, 1.0 - second), axis=1))


def _cell_rates(values: Mapping[str, Any], scale: float) -> npt.NDArray[np.float64]:
    """Rates of a logistic model without interactions that has the rates of the groups; found by Newton's method.

    It is the model of largest likelihood for a table with these margins, so there is one at most. Where there is none,
    the rates run to 0 or 1.
    """
    second = _second_shares(values)
    shares, wanted = _cell_shares(second), second * _group_rates(values, scale)[:, 1]
    design = np.column_stack([np.ones(len(CELLS)), _INDICATORS])
    target = np.array([values["prevalence"], *wanted])
    prevalence = values["prevalence"]
    weights = np.array([math.log(prevalence / (1.0 - prevalence)), 0.0, 0.0, 0.0])
    for _ in range(_NEWTON_STEPS):
        rates = 1.0 / (1.0 + np.exp(-np.clip(design @ weights, -30.0, 30.0)))
        curvature = design.T @ (design * (shares * rates * (1.0 - rates))[:, np.newaxis])
        step = np.linalg.lstsq(curvature, target - design.T @ (shares * rates), rcond=None)[0]
        weights = weights + step * min(1.0, 1.0 / max(float(np.abs(step).max()), 1e-12))
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(design @ weights, -30.0, 30.0))))
