"""The planted truth of a simulated dermoscopy cohort: every parameter, its range, and its check."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from monai_fair.data.predictions import SPLITS
from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.simulation.cohort_parameters import SEXES, number_problems, shares_by_sex

_RANGES = {
    "prevalence": (0.05, 0.95),
    "male_share": (0.1, 0.9),
    "correlation": (-0.8, 0.8),
    "age_slope": (0.0, 2.0),
    "signal": (0.0, 6.0),
    "cue_strength": (0.0, 1.0),
    "contrast_gap": (0.0, 0.9),
    "label_bias": (0.0, 1.0),
    "unknown_sex": (0.0, 0.5),
    "missing_age": (0.0, 0.5),
    "train_share": (0.05, 0.9),
    "val_share": (0.05, 0.9),
}
_GROUPS = ("harder_group", "underdiagnosed_group")
_MAX_TAKEN_SHARE = 0.95
_PREVALENCE_LIMITS = (0.01, 0.99)


@dataclasses.dataclass(frozen=True)
class SkinCohort:
    """What is planted in a simulated cohort of skin lesions, on purpose and on record.

    Four mechanisms put one sex at a disadvantage, each switched off by 0: ``correlation`` (sex and label
    go together in train and val, not in test), ``cue_strength`` (sex can be seen in the image),
    ``contrast_gap`` (one sex has fainter lesions) and ``label_bias`` (malignant lesions of one sex are
    recorded as harmless in train and val).

    Attributes:
        prevalence: share of malignant lesions, in [0.05, 0.95]; in test the share in both sexes.
        male_share: share of lesions of men in every split, in [0.1, 0.9].
        correlation: phi coefficient between "male" and "malignant" over the lesions of train and of val, in
            [-0.8, 0.8]; 0 gives both sexes the same prevalence, a positive value gives men the higher one.
        age_slope: rise of the log-odds of malignancy per ten years of age, in [0, 2].
        signal: distance between the mean evidence of malignant and benign lesions in standard deviations,
            in [0, 6]; evidence drives the irregular border and the mixed colours.
        cue_strength: size of the tint that separates the sexes, in [0, 1]; photographs of men are warmer,
            of women cooler. 0 leaves only the tint every photograph has by chance.
        contrast_gap: share in [0, 0.9] taken from the lesion's contrast to the skin and from ``signal``
            in ``harder_group``.
        harder_group: sex with the fainter lesions, ``male`` or ``female``.
        label_bias: share in [0, 1] of the malignant lesions of ``underdiagnosed_group`` recorded as ``nv``,
            in train and val; test keeps the truth.
        underdiagnosed_group: sex whose malignant lesions are missed, ``male`` or ``female``.
        unknown_sex: share of lesions whose recorded sex is ``unknown``, in [0, 0.5].
        missing_age: share of lesions without a recorded age, in [0, 0.5].
        train_share: share of lesions in train, in [0.05, 0.9].
        val_share: share of lesions in val, in [0.05, 0.9]; test gets the rest, at least 0.05.

    Raises:
        MonaiFairError: with every parameter that is out of its range.
    """

    prevalence: float = 0.3
    male_share: float = 0.5
    correlation: float = 0.25
    age_slope: float = 0.3
    signal: float = 2.8
    cue_strength: float = 0.5
    contrast_gap: float = 0.15
    harder_group: str = "female"
    label_bias: float = 0.25
    underdiagnosed_group: str = "female"
    unknown_sex: float = 0.006
    missing_age: float = 0.006
    train_share: float = 0.6
    val_share: float = 0.15

    def __post_init__(self) -> None:
        raise_problems(MonaiFairError, "SkinCohort", cohort_problems(dataclasses.asdict(self)))

    def parameters(self) -> dict[str, float | str]:
        """Return every parameter by name; 0 and 0.0 are the same here, so that they make the same cohort."""
        values = dataclasses.asdict(self)
        return {name: float(value) if name in _RANGES else str(value) for name, value in values.items()}

    def split_shares(self) -> dict[str, float]:
        """Return the share of lesions per split; the shares sum to 1."""
        return dict(zip(SPLITS, (self.train_share, self.val_share, self._test_share()), strict=True))

    def group_prevalence(self, split: str) -> dict[str, float]:
        """Return the planted share of malignant lesions per sex in ``split``; in test both have the prevalence."""
        return shares_by_sex(self.prevalence, self.male_share, 0.0 if split == "test" else self.correlation)

    def _test_share(self) -> float:
        return 1.0 - self.train_share - self.val_share


def cohort_problems(values: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each parameter of a :class:`SkinCohort` that cannot be used.

    Args:
        values: every parameter by name.
    """
    problems = number_problems(values, _RANGES) + [
        f"{name}: expected 'male' or 'female', got {values[name]!r}; give one of the two"
        for name in _GROUPS
        if values[name] not in SEXES
    ]
    # What joins several parameters makes sense only once each of them does.
    return problems or _joint_problems({name: float(values[name]) for name in _RANGES})


def _joint_problems(values: Mapping[str, float]) -> list[str]:
    problems = []
    taken = round(values["train_share"] + values["val_share"], 9)
    if taken > _MAX_TAKEN_SHARE:
        problems.append(
            f"train_share, val_share: expected a sum of at most {_MAX_TAKEN_SHARE}, got {taken:g}; lower one of the "
            "two to leave lesions for test"
        )
    low, high = _PREVALENCE_LIMITS
    groups = shares_by_sex(values["prevalence"], values["male_share"], values["correlation"])
    problems += [
        f"correlation: expected a prevalence from {low} to {high} in both sexes, got {share:.3g} for {sex}; "
        "bring correlation nearer to 0 or prevalence nearer to 0.5"
        for sex, share in groups.items()
        if not low <= share <= high
    ]
    return problems
