"""The simulated cohort with every parameter as a plain option, for a command line."""

from pathlib import Path

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.simulation.cohort_parameters import cohort_values
from monai_fair.simulation.skin_cohort import SkinCohort, cohort_problems
from monai_fair.simulation.skin_files import run_problems, simulate_skin


def simulate_skin_from_options(
    out: str | Path,
    *,
    n: int = 2000,
    seed: int = 0,
    size: int = 128,
    num_workers: int | None = None,
    prevalence: float = SkinCohort.prevalence,
    male_share: float = SkinCohort.male_share,
    correlation: float = SkinCohort.correlation,
    age_slope: float = SkinCohort.age_slope,
    signal: float = SkinCohort.signal,
    cue_strength: float = SkinCohort.cue_strength,
    contrast_gap: float = SkinCohort.contrast_gap,
    harder_group: str = SkinCohort.harder_group,
    label_bias: float = SkinCohort.label_bias,
    underdiagnosed_group: str = SkinCohort.underdiagnosed_group,
    unknown_sex: float = SkinCohort.unknown_sex,
    missing_age: float = SkinCohort.missing_age,
    train_share: float = SkinCohort.train_share,
    val_share: float = SkinCohort.val_share,
) -> Path:
    """Write a simulated dermoscopy cohort with planted, recorded bias, in the layout of HAM10000.

    The four biases are off at 0: correlation, cue_strength, contrast_gap, label_bias.

    Args:
        out: folder to write to; missing, empty, or from an earlier call with the same options.
        n: number of images.
        seed: seed of everything random.
        size: side of an image in pixels, 32 to 1024.
        num_workers: processes that draw; by default one per core.
        prevalence: share of malignant lesions, 0.05 to 0.95.
        male_share: share of lesions of men, 0.1 to 0.9.
        correlation: phi between male and malignant in train and val, -0.8 to 0.8.
        age_slope: rise of the log-odds of malignancy per ten years, 0 to 2.
        signal: distance of malignant from benign in standard deviations, 0 to 6.
        cue_strength: tint that shows the sex, 0 to 1.
        contrast_gap: share of contrast and signal lost in harder_group, 0 to 0.9.
        harder_group: male or female.
        label_bias: share of malignant lesions of underdiagnosed_group recorded as nv, 0 to 1.
        underdiagnosed_group: male or female.
        unknown_sex: share of lesions without a recorded sex, 0 to 0.5.
        missing_age: share of lesions without a recorded age, 0 to 0.5.
        train_share: share of lesions in train, 0.05 to 0.9.
        val_share: share of lesions in val, 0.05 to 0.9; test gets the rest.

    Returns:
        ``out`` as a ``Path``.

    Raises:
        MonaiFairError: with every option that cannot be used.
        ArtifactError: if ``out`` holds anything else.
    """
    values = cohort_values(SkinCohort, locals())
    problems = run_problems(n, seed, size, num_workers) + cohort_problems(values)
    raise_problems(MonaiFairError, "simulate skin", problems)
    cohort = SkinCohort(**values)
    return simulate_skin(out, n=n, seed=seed, size=size, cohort=cohort, num_workers=num_workers)
