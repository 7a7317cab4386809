import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_fair.errors import MonaiFairError
from monai_fair.simulation import ChestCohort, simulate_chest, simulate_chest_from_options


def test_options_are_the_parameters_with_their_defaults() -> None:
    options = {name: item.default for name, item in inspect.signature(simulate_chest_from_options).parameters.items()}
    run = {
        name: item.default for name, item in inspect.signature(simulate_chest).parameters.items() if name != "cohort"
    }
    assert options == {**run, **dataclasses.asdict(ChestCohort())}


def test_options_reach_the_cohort(tmp_path: Path, hashes: Callable[[Path], dict[str, str]]) -> None:
    changed = {
        "finding": "Pleural Effusion", "prevalence": 0.4, "male_share": 0.55, "white_share": 0.5, "older_share": 0.5,
        "sex_gap": 0.1, "race_gap": 0, "age_gap": -0.1, "test_gaps": 0.5, "signal": 3, "sex_cue": 0.2, "race_cue": 0.9,
        "age_cue": 1, "uncertain": 0.1, "unknown_race": 0.2, "train_share": 0.5, "val_share": 0.2,
    }  # fmt: skip
    assert {name for name, value in dataclasses.asdict(ChestCohort()).items() if changed[name] != value} == set(changed)
    options = simulate_chest_from_options(tmp_path / "a", n=150, seed=1, size=32, num_workers=1, **changed)
    cohort = simulate_chest(tmp_path / "b", n=150, seed=1, size=32, num_workers=1, cohort=ChestCohort(**changed))
    assert hashes(options) == hashes(cohort)


def test_problems_of_run_and_cohort_come_together(tmp_path: Path) -> None:
    with pytest.raises(MonaiFairError) as caught:
        simulate_chest_from_options(tmp_path / "out", n="many", sex_cue=3, finding="heart")
    assert str(caught.value) == (
        "simulate chest: 3 problems\n"
        "  1. n: expected a whole number from 1 to 200000, got 'many'; give one in that range\n"
        "  2. sex_cue: expected a number from 0 to 2, got 3; give one in that range\n"
        "  3. finding: expected 'Cardiomegaly' or 'Pleural Effusion', got 'heart'; give one of the two"
    )
