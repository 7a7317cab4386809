"""The simulated brains with every parameter as a plain option, for a command line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.simulation.brain_cohort import BrainCohort, brain_cohort_problems
from monai_fair.simulation.cohort_parameters import cohort_values


def simulate_brain_from_options(
    out: str | Path,
    *,
    n: int = 64,
    seed: int = 0,
    anatomy: str = "auto",
    shape: str | Sequence[int] | None = None,
    spacing: float | None = None,
    num_workers: int | None = None,
    prevalence: float = BrainCohort.prevalence,
    male_share: float = BrainCohort.male_share,
    correlation: float = BrainCohort.correlation,
    age_gap: float = BrainCohort.age_gap,
    scale_sd: float = BrainCohort.scale_sd,
    deformation_mm: float = BrainCohort.deformation_mm,
    smoothness_mm: float = BrainCohort.smoothness_mm,
    detail_mm: float = BrainCohort.detail_mm,
    detail_smoothness_mm: float = BrainCohort.detail_smoothness_mm,
    disease_effect: float = BrainCohort.disease_effect,
    group_effect: float = BrainCohort.group_effect,
    group_spread: float = BrainCohort.group_spread,
    distractors: int = BrainCohort.distractors,
    distractor_effect: float = BrainCohort.distractor_effect,
    noise: float = BrainCohort.noise,
    bias_field: float = BrainCohort.bias_field,
    contrast: str = BrainCohort.contrast,
    scramble_axes: bool = BrainCohort.scramble_axes,
    train_share: float = BrainCohort.train_share,
    val_share: float = BrainCohort.val_share,
) -> Path:
    """Write a simulated cohort of 3D brains with planted, recorded effects, as BIDS with the truth beside it.

    An effect of e at a strength of s changes the log volume of its place by -e s; 0 switches it off.

    Args:
        out: folder to write to; missing, empty, or from an earlier call with the same options.
        n: number of subjects, 1 to 9999.
        seed: seed of everything random.
        anatomy: mni152 (the template that nilearn ships), phantom (ellipsoids), or auto.
        shape: voxels, such as 80x96x80; by default what covers 160 x 192 x 160 mm.
        spacing: side of a voxel in mm; by default 2, or what makes the shape cover 160 x 192 x 160 mm.
        num_workers: processes that draw; by default one per core.
        prevalence: share of patients, 0.05 to 0.95.
        male_share: share of men, 0.05 to 0.95.
        correlation: phi between male and patient in train and val, -0.95 to 0.95; none in test.
        age_gap: years by which patients are older, -20 to 20.
        scale_sd: standard deviation of the log of the overall size, 0 to 0.1.
        deformation_mm: standard deviation of the coarse random velocity, 0 to 10.
        smoothness_mm: width of the Gaussian that smooths it, 4 to 60.
        detail_mm: standard deviation of the fine random velocity, 0 to 5.
        detail_smoothness_mm: width of the Gaussian that smooths it, 4 to 60.
        disease_effect: on the left hippocampus; strength N(1, 1) in patients, N(-1, 1) in controls.
        group_effect: on the right frontal lobe; the mean strength is 2 in men and 0 in women.
        group_spread: standard deviation of that strength within a sex, 0 to 2; at 1 the sexes overlap.
        distractors: number of places with a strength of N(0, 1) in everyone, 0 to 6.
        distractor_effect: on these places.
        noise: standard deviation of the noise of the complex signal, 0 to 0.5.
        bias_field: largest relative deviation of the smooth factor on the signal, 0 to 0.9.
        contrast: same, gamma (a power of its own for each subject) or inverted.
        scramble_axes: store images with flipped and permuted axes and an affine to match.
        train_share: share of subjects in train, 0 to 1.
        val_share: share of subjects in val, 0 to 1; test gets the rest.

    Returns:
        ``out`` as a ``Path``.

    Raises:
        MonaiFairError: with every option that cannot be used.
        ArtifactError: if ``out`` holds anything else.
    """
    values = cohort_values(BrainCohort, locals())
    # torch takes a second to import, and the help of the command line reads this module
    from monai_fair.simulation.brain_anatomy import anatomy_problems
    from monai_fair.simulation.brain_files import brain_run_problems, simulate_brain

    sizes = _sizes(shape)
    problems = brain_run_problems(n, seed, num_workers) + anatomy_problems(anatomy, sizes, spacing)
    raise_problems(MonaiFairError, "simulate brain", problems + brain_cohort_problems(values))
    cohort = BrainCohort(**values)
    return simulate_brain(
        out, n=n, seed=seed, anatomy=anatomy, shape=sizes, spacing_mm=spacing, cohort=cohort, num_workers=num_workers
    )


def _sizes(shape: Any) -> Any:
    """Read ``80x96x80``; what is not of that form is left for the check to name."""
    parts = shape.lower().split("x") if isinstance(shape, str) else []
    return [int(part) for part in parts] if parts and all(part.strip().isdecimal() for part in parts) else shape
