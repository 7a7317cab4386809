import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_fair.errors import MonaiFairError
from monai_fair.simulation import SkinCohort, simulate_skin, simulate_skin_from_options


def test_options_are_the_parameters_with_their_defaults() -> None:
    options = {name: item.default for name, item in inspect.signature(simulate_skin_from_options).parameters.items()}
    run = {name: item.default for name, item in inspect.signature(simulate_skin).parameters.items() if name != "cohort"}
    assert options == {**run, **dataclasses.asdict(SkinCohort())}


def test_options_reach_the_cohort(tmp_path: Path, hashes: Callable[[Path], dict[str, str]]) -> None:
    changed = {
        "prevalence": 0.4, "male_share": 0.55, "correlation": 0, "age_slope": 0.1, "signal": 3, "cue_strength": 0.2,
        "contrast_gap": 0.3, "harder_group": "male", "label_bias": 0.5, "underdiagnosed_group": "male",
        "unknown_sex": 0.1, "missing_age": 0.2, "train_share": 0.5, "val_share": 0.2,
    }  # fmt: skip
    assert {name for name, value in dataclasses.asdict(SkinCohort()).items() if changed[name] != value} == set(changed)
    options = simulate_skin_from_options(tmp_path / "a", n=90, seed=1, size=32, num_workers=1, **changed)
    cohort = simulate_skin(tmp_path / "b", n=90, seed=1, size=32, num_workers=1, cohort=SkinCohort(**changed))
    assert hashes(options) == hashes(cohort)


def test_problems_of_run_and_cohort_come_together(tmp_path: Path) -> None:
    with pytest.raises(MonaiFairError) as caught:
        simulate_skin_from_options(tmp_path / "out", n="many", cue_strength=2, harder_group="women")
    assert str(caught.value) == (
        "simulate skin: 3 problems\n"
        "  1. n: expected a whole number from 1 to 10000000, got 'many'; give one in that range\n"
        "  2. cue_strength: expected a number from 0 to 1, got 2; give one in that range\n"
        "  3. harder_group: expected 'male' or 'female', got 'women'; give one of the two"
    )
