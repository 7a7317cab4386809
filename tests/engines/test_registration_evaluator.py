"""Validation with subjects that have no result: named once in the log, not counted, and never none in silence."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from monai_fair.engines import (
    Deformations,
    FitQuality,
    RegistrationEvaluator,
    SubjectFit,
    SubjectImages,
    collate_subjects,
    read_template,
    template_match,
)
from monai_fair.errors import RegistrationError
from monai_fair.networks import LatticeINR

LEVELS = [[1.0, 4, 2]]
LOGGER = "monai_fair.engines.registration_evaluator"
# noise that each subject is given, by the number in its name
NOISE = {1: 0.25, 2: 0.5, 3: float("nan"), 4: float("inf")}


class Laid(SubjectFit):
    """Gives each image the noise that stands in its first voxel."""

    def __call__(self, inputs: torch.Tensor, network: Any, **_: Any) -> Deformations:
        codes = torch.zeros(len(inputs), *network.code_shape)
        residual = torch.zeros(len(inputs), 3, *network.lattice.shape)
        return Deformations(codes, residual, inputs[:, 0, 0, 0], torch.zeros(len(inputs)))


class Marked(SubjectImages):
    """Writes that noise there."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        if item["image"] is not None:
            image = item["image"].clone()
            image[0, 0, 0] = NOISE[int(item["subject_id"][-1])]
            item = {**item, "image": image}
        return item


def evaluator_of(folder: Path, rows: Any, *, batch_size: int = 2) -> RegistrationEvaluator:
    space = read_template(folder)
    return RegistrationEvaluator(
        "cpu",
        DataLoader(Marked(rows, space.grid), batch_size=batch_size, collate_fn=collate_subjects),
        LatticeINR(space.grid.shape, width=40, hidden=16),
        Laid(template_match(space, LEVELS), code_levels=LEVELS),
        key_val_metric={"val_fit": FitQuality()},
    )


def rows_of(folder: Path, *numbers: int, missing: tuple[int, ...] = ()) -> list[dict[str, str]]:
    names = {number: f"sub-000{number}" for number in (*numbers, *missing)}
    return [
        {"subject_id": name, "image": str(folder / f"{'no-' if number in missing else ''}{name}_T1w.nii.gz")}
        for number, name in sorted(names.items())
    ]


def no_file(folder: Path, number: int) -> str:
    path = folder / f"no-sub-000{number}_T1w.nii.gz"
    return f"subject sub-000{number} is left out: {path}: expected a NIfTI file, found none; check the path"


NONE_LEFT = (
    "validation: expected at least one subject that can be registered, got none of {}; the log warns of each with its "
    "reason: repair the images, or give the split val to other subjects"
)


@pytest.fixture(scope="module")
def folder(brain: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("validation")
    brain.write(brain.write_template(path))
    return path


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_what_has_no_result_is_told_once_and_does_not_count(
    folder: Path, caplog: pytest.LogCaptureFixture, batch_size: int
) -> None:
    """Subject 1 has noise 0.25 and is the only one with a result: 2 has no file, 3 and 4 come out as NaN and inf."""
    evaluator = evaluator_of(folder, rows_of(folder, 1, 3, 4, missing=(2,)), batch_size=batch_size)
    with caplog.at_level(logging.WARNING, LOGGER):
        for epoch in (1, 2, 3):
            evaluator.run(global_epoch=epoch)
            assert evaluator.state.metrics["val_fit"] == -0.25
    assert evaluator.state.best_metric == -0.25
    diverged = [
        f"subject sub-000{number} is left out: {folder}/sub-000{number}_T1w.nii.gz: expected a finite noise, got "
        f"{value}: the fit diverged; look at the image"
        for number, value in ((3, "nan"), (4, "inf"))
    ]
    found = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert sorted(found) == sorted([*diverged, no_file(folder, 2)])


def test_another_reason_is_told_again(folder: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    rows = [{"subject_id": "sub-0001", "image": str(tmp_path / "a.nii.gz")}, *rows_of(folder, 2)]
    evaluator = evaluator_of(folder, rows)
    with caplog.at_level(logging.WARNING, LOGGER):
        evaluator.run()
        (tmp_path / "a.nii.gz").write_bytes(b"")
        evaluator.run()
    assert [record.getMessage().count("found none") for record in caplog.records] == [1, 0]


@pytest.mark.parametrize(
    ("numbers", "missing"), [((), (1, 2, 3)), ((3, 4), ()), ((4,), (1,))], ids=["unread", "diverged", "both"]
)
def test_no_subject_with_a_result_is_an_error(folder: Path, numbers: Any, missing: Any) -> None:
    evaluator = evaluator_of(folder, rows_of(folder, *numbers, missing=missing))
    with pytest.raises(RegistrationError) as caught:
        evaluator.run()
    assert str(caught.value) == NONE_LEFT.format(len(numbers) + len(missing))


def test_a_list_without_subjects_is_an_error_too(folder: Path) -> None:
    with pytest.raises(RegistrationError) as caught:
        evaluator_of(folder, []).run()
    assert str(caught.value) == NONE_LEFT.format(0)


# in two processes

# what each of the two is given: subjects with a file, and without
SHARES = {
    "one each": (((1,), ()), ((2,), ())),
    "one unread": (((1,), ()), ((), (2,))),
    "one diverged": (((3,), ()), ((2,), ())),
    "one without subjects": (((1, 2), ()), ((), ())),
    "all unread": (((), (1, 2)), ((), (3,))),
    "unread and none": (((), (1,)), ((), ())),
}
# minus the mean of the noise that is finite, over both
EXPECTED = {
    "one each": -0.375,
    "one unread": -0.25,
    "one diverged": -0.5,
    "one without subjects": -0.375,
    "all unread": NONE_LEFT.format(3),
    "unread and none": NONE_LEFT.format(1),
}


def work(rank: int, folder: Path) -> tuple[dict[str, float | str], list[Any]]:
    found: dict[str, float | str] = {}
    for name, shares in SHARES.items():
        numbers, missing = shares[rank]
        evaluator = evaluator_of(folder, rows_of(folder, *numbers, missing=missing), batch_size=1)
        try:
            for epoch in (1, 2):
                evaluator.run(global_epoch=epoch)
            found[name] = evaluator.state.metrics["val_fit"]
        except RegistrationError as error:
            found[name] = str(error)
    return found, []


def test_two_processes_know_the_same_and_neither_waits(folder: Path, two_processes: Callable[..., list[Any]]) -> None:
    assert two_processes(work, folder) == [EXPECTED, EXPECTED]
