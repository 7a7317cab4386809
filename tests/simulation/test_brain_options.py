import dataclasses
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_fair import __main__ as cli
from monai_fair.errors import MonaiFairError
from monai_fair.simulation import BrainCohort, simulate_brain, simulate_brain_from_options


def test_options_are_the_parameters_with_their_defaults() -> None:
    options = {name: item.default for name, item in inspect.signature(simulate_brain_from_options).parameters.items()}
    run = {name: item.default for name, item in inspect.signature(simulate_brain).parameters.items()}
    run = {"spacing" if name == "spacing_mm" else name: value for name, value in run.items() if name != "cohort"}
    assert options == {**run, **dataclasses.asdict(BrainCohort())}


def test_options_reach_the_cohort(tmp_path: Path, hashes: Callable[[Path], dict[str, str]]) -> None:
    changed = {
        "prevalence": 0.4, "male_share": 0.55, "correlation": 0.1, "age_gap": 4, "scale_sd": 0.01,
        "deformation_mm": 0.8, "smoothness_mm": 24, "detail_mm": 0.2, "detail_smoothness_mm": 12,
        "disease_effect": -0.1, "group_effect": 0.3, "group_spread": 0.5, "distractors": 2,
        "distractor_effect": 0.1, "noise": 0.01, "bias_field": 0.2, "contrast": "gamma", "scramble_axes": True,
        "train_share": 0.5, "val_share": 0.25,
    }  # fmt: skip
    assert {name for name, value in dataclasses.asdict(BrainCohort()).items() if changed[name] != value} == set(changed)
    run = {"n": 2, "seed": 1, "anatomy": "phantom", "num_workers": 1}
    options = simulate_brain_from_options(tmp_path / "a", shape="20x24X20", spacing=8, **run, **changed)
    cohort = simulate_brain(tmp_path / "b", shape=(20, 24, 20), spacing_mm=8, cohort=BrainCohort(**changed), **run)
    assert hashes(options) == hashes(cohort)


def test_problems_of_run_anatomy_and_cohort_come_together(tmp_path: Path) -> None:
    with pytest.raises(MonaiFairError) as caught:
        simulate_brain_from_options(tmp_path / "out", n="many", shape="80x96", noise=2, contrast="t2")
    assert str(caught.value) == (
        "simulate brain: 4 problems\n"
        "  1. n: expected a whole number from 1 to 9999, got 'many'; give one in that range\n"
        "  2. shape: expected three whole numbers from 8 to 512, got [80, 96]; give them as 80x96x80\n"
        "  3. noise: expected a number from 0 to 0.5, got 2; give one in that range\n"
        "  4. contrast: expected one of same, gamma, inverted, got 't2'; give one of them"
    )


@pytest.mark.parametrize("shape", ["24x28x24", "24,28,24"])
def test_the_command_line_writes_a_cohort(
    tmp_path: Path, shape: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["monai_fair", "simulate", "brain", str(tmp_path / "out"), "--n", "1", "--anatomy", "phantom",
               "--shape", shape, "--num_workers", "1"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    cli.main()
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out")
    assert (tmp_path / "out" / "sub-0001" / "anat" / "sub-0001_T1w.nii.gz").is_file()
