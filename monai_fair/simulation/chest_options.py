"""The simulated chest X-rays with every parameter as a plain option, for a command line."""

from pathlib import Path

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.simulation.chest_cohort import ChestCohort, chest_cohort_problems
from monai_fair.simulation.chest_files import chest_run_problems, simulate_chest
from monai_fair.simulation.cohort_parameters import cohort_values


def simulate_chest_from_options(
    out: str | Path,
    *,
    n: int = 4000,
    seed: int = 0,
    size: int = 128,
    num_workers: int | None = None,
    finding: str = ChestCohort.finding,
    prevalence: float = ChestCohort.prevalence,
    male_share: float = ChestCohort.male_share,
    white_share: float = ChestCohort.white_share,
    older_share: float = ChestCohort.older_share,
    sex_gap: float = ChestCohort.sex_gap,
    race_gap: float = ChestCohort.race_gap,
    age_gap: float = ChestCohort.age_gap,
    test_gaps: float = ChestCohort.test_gaps,
    signal: float = ChestCohort.signal,
    sex_cue: float = ChestCohort.sex_cue,
    race_cue: float = ChestCohort.race_cue,
    age_cue: float = ChestCohort.age_cue,
    uncertain: float = ChestCohort.uncertain,
    unknown_race: float = ChestCohort.unknown_race,
    train_share: float = ChestCohort.train_share,
    val_share: float = ChestCohort.val_share,
) -> Path:
    """Write a simulated cohort of chest X-rays with planted, recorded gaps and cues, in the layout of CheXpert.

    A shortcut is a gap (the finding is more frequent in a group) with a cue (the group shows); each is off at 0.

    Args:
        out: folder to write to; missing, empty, or from an earlier call with the same options.
        n: number of images, one per study.
        seed: seed of everything random.
        size: side of an image in pixels, 32 to 1024.
        num_workers: processes that draw; by default one per core.
        finding: Cardiomegaly (a wide heart) or "Pleural Effusion" (fluid above the diaphragm).
        prevalence: share of images with the finding, 0.05 to 0.95.
        male_share: share of men, 0.1 to 0.9.
        white_share: share of White patients, 0.1 to 0.9.
        older_share: share of patients of 60 and more, 0.1 to 0.9.
        sex_gap: rate of the finding among women minus that among men, in train and val, -0.8 to 0.8.
        race_gap: the same for non-White minus White patients.
        age_gap: the same for those of 60 and more minus the younger.
        test_gaps: gaps of test as a multiple of these; 1 the same, 0 none, -1 the other way round.
        signal: distance between images with and without the finding in standard deviations, 0 to 6.
        sex_cue: how far the sexes differ in the breasts' shadow, 0 to 2.
        race_cue: how far White and non-White patients differ in the grey values, 0 to 2.
        age_cue: how fast the aortic knob grows and bones fade with age, 0 to 2.
        uncertain: share of train and val whose label is uncertain, 0 to 0.5.
        unknown_race: share of patients without a recorded race, 0 to 0.5.
        train_share: share of patients in train, 0.05 to 0.9.
        val_share: share of patients in val, 0.05 to 0.9; test gets the rest.

    Returns:
        ``out`` as a ``Path``.

    Raises:
        MonaiFairError: with every option that cannot be used.
        ArtifactError: if ``out`` holds anything else.
    """
    values = cohort_values(ChestCohort, locals())
    problems = chest_run_problems(n, seed, size, num_workers) + chest_cohort_problems(values)
    raise_problems(MonaiFairError, "simulate chest", problems)
    cohort = ChestCohort(**values)
    return simulate_chest(out, n=n, seed=seed, size=size, cohort=cohort, num_workers=num_workers)
