"""The planted truth of a simulated brain cohort: every parameter, its range, and its check."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.simulation.cohort_parameters import number_problems, shares_by_sex, whole_number_problems

CONTRASTS = ("same", "gamma", "inverted")
MAX_DISTRACTORS = 6

_RANGES = {
    "prevalence": (0.05, 0.95),
    "male_share": (0.05, 0.95),
    "correlation": (-0.95, 0.95),
    "age_gap": (-20.0, 20.0),
    "scale_sd": (0.0, 0.1),
    "deformation_mm": (0.0, 10.0),
    "smoothness_mm": (4.0, 60.0),
    "detail_mm": (0.0, 5.0),
    "detail_smoothness_mm": (4.0, 60.0),
    "disease_effect": (-1.0, 1.0),
    "group_effect": (-1.0, 1.0),
    "group_spread": (0.0, 2.0),
    "distractor_effect": (-1.0, 1.0),
    "noise": (0.0, 0.5),
    "bias_field": (0.0, 0.9),
    "train_share": (0.0, 1.0),
    "val_share": (0.0, 1.0),
}


@dataclasses.dataclass(frozen=True)
class BrainCohort:
    """What is planted in a simulated cohort of brains, on purpose and on record.

    A subject is the template warped by the flow of a velocity field, which is a sum: a change of overall size, a
    random smooth part, and local effects that shrink or swell one place. ``disease_effect`` acts on the left
    hippocampus with a strength from N(1, 1) in patients and N(-1, 1) in controls; ``group_effect`` on the right
    frontal lobe with a mean of 2 in men and 0 in women and a standard deviation of ``group_spread``; each distractor
    on a place of its own with N(0, 1) in everyone. An effect of e at a strength of s changes the logarithm of the
    volume at its centre by ``-e s``: where both are positive the place shrinks. Intensity knows neither the sex nor
    the diagnosis.

    The defaults are calibrated on 240 training subjects of 3 mm: a classifier of the images takes the sex for the
    diagnosis, and one that sees all four cells alike mostly does not.

    Attributes:
        prevalence: share of patients, in [0.05, 0.95]; in test the share in both sexes.
        male_share: share of men in every split, in [0.05, 0.95].
        correlation: phi coefficient between "male" and "patient" in train and in val, in [-0.95, 0.95]; test has none.
        age_gap: years by which patients are older on average, in [-20, 20]; age itself changes nothing in the image.
        scale_sd: standard deviation of the logarithm of the size (length), in [0, 0.1].
        deformation_mm: standard deviation of each component of the coarse random velocity, in [0, 10].
        smoothness_mm: standard deviation of the Gaussian that smooths it, in [4, 60].
        detail_mm: the same for the fine random velocity, in [0, 5].
        detail_smoothness_mm: the same for the fine random velocity, in [4, 60].
        disease_effect: change of log volume per unit of strength, in [-1, 1].
        group_effect: change of log volume per unit of strength, in [-1, 1].
        group_spread: standard deviation of the strength within men and within women, in [0, 2]. At 1 the two overlap:
            who knew the strength itself would still mistake one in six.
        distractors: places with an effect that goes with nothing else, 0 to 6.
        distractor_effect: change of log volume per unit of strength, in [-1, 1].
        noise: standard deviation of the noise in both channels of the complex signal, as a share of the brightest
            tissue of the template, in [0, 0.5]; the image is the magnitude (Rician), so the background is not 0.
        bias_field: largest relative deviation of the smooth factor on the signal, in [0, 0.9].
        contrast: ``same`` as the template; ``gamma``: a power from 0.6 to 1.6 per subject; ``inverted``: white matter
            dark and fluid bright, as in a T2-weighted image.
        scramble_axes: store each image with its array axes flipped and permuted, and an affine to match, so that it
            lies in the world where it did. Truth stays on the template's grid.
        train_share: share of subjects in train, in [0, 1].
        val_share: share of subjects in val, in [0, 1]; test gets the rest.

    Raises:
        MonaiFairError: with every parameter that is out of its range.
    """

    prevalence: float = 0.5
    male_share: float = 0.5
    correlation: float = 0.7
    age_gap: float = 0.0
    scale_sd: float = 0.02
    deformation_mm: float = 1.0
    smoothness_mm: float = 20.0
    detail_mm: float = 0.3
    detail_smoothness_mm: float = 10.0
    disease_effect: float = 0.6
    group_effect: float = 0.35
    group_spread: float = 0.25
    distractors: int = 0
    distractor_effect: float = 0.25
    noise: float = 0.03
    bias_field: float = 0.05
    contrast: str = "same"
    scramble_axes: bool = False
    train_share: float = 0.65
    val_share: float = 0.1

    def __post_init__(self) -> None:
        raise_problems(MonaiFairError, "BrainCohort", brain_cohort_problems(dataclasses.asdict(self)))

    def parameters(self) -> dict[str, float | int | str | bool]:
        """Return every parameter by name; 0 and 0.0 are the same here, so that they make the same cohort."""
        values = dataclasses.asdict(self)
        return {name: float(value) if name in _RANGES else value for name, value in values.items()}

    def group_prevalence(self, split: str) -> dict[str, float]:
        """Return the planted share of patients per sex in ``split``; in test both have the prevalence."""
        return shares_by_sex(self.prevalence, self.male_share, 0.0 if split == "test" else self.correlation)


def brain_cohort_problems(values: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each parameter of a :class:`BrainCohort` that cannot be used.

    Args:
        values: every parameter by name.
    """
    problems = number_problems(values, _RANGES) + whole_number_problems(values, {"distractors": (0, MAX_DISTRACTORS)})
    contrast, scramble = values["contrast"], values["scramble_axes"]
    if contrast not in CONTRASTS:
        problems.append(f"contrast: expected one of {', '.join(CONTRASTS)}, got {contrast!r}; give one of them")
    if not isinstance(scramble, bool):
        problems.append(f"scramble_axes: expected True or False, got {scramble!r}; give one of the two")
    # What joins several parameters makes sense only once each of them does.
    return problems or _joint_problems(values)


def _joint_problems(values: Mapping[str, Any]) -> list[str]:
    problems = []
    taken = round(values["train_share"] + values["val_share"], 9)
    if taken > 1:
        problems.append(f"train_share, val_share: expected a sum of at most 1, got {taken:g}; lower one of the two")
    groups = shares_by_sex(values["prevalence"], values["male_share"], values["correlation"])
    problems += [
        f"correlation: expected a prevalence from 0 to 1 in both sexes, got {share:.3g} for {sex}; bring correlation "
        "nearer to 0, or prevalence and male_share nearer to each other"
        for sex, share in groups.items()
        if not -1e-9 <= share <= 1 + 1e-9
    ]
    return problems
