"""Images on the template's grid: read once, turned to the world's axes, kept on disk; failures with their reason."""

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_fair.data import write_volume
from monai_fair.engines import CohortImages, SubjectImages, TemplateMatch, collate_subjects
from monai_fair.engines.cohort_images import Failure, read_on_grid
from monai_fair.errors import RegistrationError
from monai_fair.geometry import Grid

LEVELS = [[1.0, 2, 1], [0.5, 1, 1]]


def cohort(brain: Any, rows: Any, folder: Path, **options: Any) -> CohortImages:
    match = options.pop("match", None) or brain.match(LEVELS)
    return CohortImages(rows, brain.grid, match, folder / "cache", num_workers=2, progress=False, **options)


def reoriented(image: np.ndarray, grid: Grid) -> tuple[np.ndarray, Grid]:
    """The same image in the world, as an array with its second axis first, and flipped."""
    target = nib.orientations.axcodes2ornt(("P", "R", "S"))
    turn = nib.orientations.ornt_transform(nib.orientations.io_orientation(grid.affine), target)
    array = nib.orientations.apply_orientation(image, turn)
    return array, Grid(array.shape, grid.affine @ nib.orientations.inv_ornt_aff(turn, grid.shape))


# items


def test_items_are_what_the_levels_compare(brain: Any, tmp_path: Path) -> None:
    images = cohort(brain, brain.write(tmp_path), tmp_path)
    match = brain.match(LEVELS)
    assert images.subject_ids == [subject.person.subject_id for subject in brain.subjects]
    for level in range(2):
        images.level = level
        for place in range(4):
            item = images[place]
            expected = match.normalised(brain.images[place : place + 1], level)[0].half()
            assert item["index"] == place
            torch.testing.assert_close(item["image"], expected, rtol=0, atol=2e-3)
    assert images.failures == []


def test_memory_does_not_grow_with_the_cohort(brain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = brain.write(tmp_path)
    images = cohort(brain, rows, tmp_path)
    held = [len(pickle.dumps(each)) for each in (cohort(brain, rows[:2], tmp_path), images)]
    assert held[1] - held[0] < 1000  # paths of two subjects; an image has 50000 bytes
    seen = []
    load = np.load

    def spy(*args: Any, **options: Any) -> Any:
        seen.append(load(*args, **options))
        return seen[-1]

    monkeypatch.setattr(np, "load", spy)
    item = images[1]["image"]
    assert isinstance(seen[0], np.memmap)
    assert seen[0].shape == (2, *brain.grid.shape)
    assert item.dtype == torch.float16
    assert item.numel() * 2 == item.untyped_storage().nbytes()  # one level, not a view of all
    item += 1
    assert not torch.equal(images[1]["image"], item)  # the file stays as it is


def test_an_image_is_decoded_once(brain: Any, tmp_path: Path) -> None:
    rows = brain.write(tmp_path, 2)
    cohort(brain, rows, tmp_path)
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(stamps) == 2
    cohort(brain, rows, tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == stamps


def test_a_copy_of_something_else_is_not_taken(brain: Any, tmp_path: Path) -> None:
    rows = brain.write(tmp_path, 1)
    first = cohort(brain, rows, tmp_path)[0]["image"]
    other_mask = torch.from_numpy(brain.space.mask.astype(np.float32))
    other_mask[:, 16:] = 0
    blurs = [1.0, 0.5]
    for match in (
        brain.match(LEVELS, sigma_vox=3.0),
        brain.match(LEVELS, epsilon=0.5),
        brain.match([[2.0, 2, 1], [0.5, 1, 1]]),
        TemplateMatch(brain.template, other_mask, blurs),  # the scale is that of the voxels inside
    ):
        found = cohort(brain, rows, tmp_path, match=match)[0]["image"]
        assert not torch.equal(found, first)
        torch.testing.assert_close(found.float(), match.normalised(brain.images[:1], 0)[0], rtol=0, atol=2e-3)
    write_volume(rows[0]["image"], brain.subjects[1].image, brain.grid)
    match = brain.match(LEVELS)
    expected = match.normalised(brain.images[1:2], 0)[0]
    torch.testing.assert_close(cohort(brain, rows, tmp_path)[0]["image"].float(), expected, rtol=0, atol=2e-3)


def test_flipped_and_permuted_axes_are_turned_back(brain: Any, tmp_path: Path) -> None:
    array, grid = reoriented(brain.subjects[0].image, brain.grid)
    assert array.shape == (32, 28, 28)
    path = write_volume(tmp_path / "turned.nii.gz", array, grid)
    assert nib.aff2axcodes(nib.load(path).affine) == ("P", "R", "S")
    found = read_on_grid(path, brain.grid)
    np.testing.assert_array_equal(found.array, brain.subjects[0].image)
    assert found.array.flags.c_contiguous


# failures


def poison(kind: str, path: Path, brain: Any) -> str:
    """Spoil one file; return the reason that is given for it."""
    image, grid = brain.subjects[0].image, brain.grid
    if kind == "nan":
        image = image.copy()
        image[3, 4, 5] = np.nan
        nib.save(nib.Nifti1Image(image, grid.affine), path)
        return f"{path}: expected finite voxels, got 1 that are not, of 25088; repair the image"
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-2000])
        return (
            f"{path}: expected a whole NIfTI file, which cannot be read (EOFError: Compressed file ended before the "
            "end-of-stream marker was reached); fetch or write it again"
        )
    if kind == "no gzip":
        path.write_bytes(gzip.decompress(path.read_bytes())[:1000])
        return (
            f"{path}: expected a whole NIfTI file, which cannot be read (BadGzipFile: Not a gzipped file "
            "(b'\\\\\\x01')); fetch or write it again"
        )
    if kind == "shape":
        write_volume(path, image[:, :-2], Grid((28, 30, 28), grid.affine))
        return (
            f"{path}: expected a volume on the template's grid of (28, 32, 28) voxels, got (28, 30, 28); run "
            "`python -m monai_fair prepare`"
        )
    if kind == "moved":
        affine = grid.affine.copy()
        affine[0, 3] += 3.0
        write_volume(path, image, Grid(grid.shape, affine))
        return (
            f"{path}: expected voxels where the template's are, got a grid 3.00 mm away; run "
            "`python -m monai_fair prepare`"
        )
    if kind == "4D":
        nib.save(nib.Nifti1Image(np.stack([image, image], axis=-1), grid.affine), path)
        return f"{path}: expected one 3D volume, got shape (28, 32, 28, 2); give one volume per file"
    if kind == "missing":
        path.unlink()
        return f"{path}: expected a NIfTI file, found none; check the path"
    if kind in ("tiny", "huge"):
        scale = {"tiny": 1e-30, "huge": 1e30}[kind]  # their squares are 0 and infinite in float32
        image = (np.clip(image, 0.25, 0.5) * np.float32(scale)).astype(np.float32)
        write_volume(path, image, grid)
        low, high = 0.25 * scale, 0.5 * scale
        return (
            f"{path}: expected intensities inside the brain's mask whose spread float32 can hold, got {low:g} to "
            f"{high:g}; rescale the image"
        )
    # something outside the brain, and nothing in it
    write_volume(path, np.where(brain.space.mask, np.float32(0.5), image), grid)
    return (
        f"{path}: expected different intensities inside the brain's mask, got 0.5 in every voxel of it; give another "
        "file"
    )


KINDS = ["nan", "truncated", "no gzip", "shape", "moved", "4D", "missing", "tiny", "huge", "flat"]


@pytest.fixture
def spoil(brain: Any) -> Callable[[str, Path], str]:
    return lambda kind, path: poison(kind, path, brain)


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoiled_file_is_left_out_with_its_reason(
    brain: Any, spoil: Callable[[str, Path], str], tmp_path: Path, kind: str
) -> None:
    rows = brain.write(tmp_path, 3)
    expected = cohort(brain, [rows[0], rows[2]], tmp_path / "other")
    reason = spoil(kind, Path(rows[1]["image"]))
    images = cohort(brain, rows, tmp_path)
    assert images.subject_ids == ["sub-0001", "sub-0003"]
    assert len(images) == 2
    assert images.failures == [Failure("sub-0002", reason)]
    assert all(torch.equal(images[place]["image"], expected[place]["image"]) for place in range(2))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_subject_that_cannot_be_read_is_an_item_with_a_reason(
    brain: Any, spoil: Callable[[str, Path], str], tmp_path: Path, kind: str
) -> None:
    rows = brain.write(tmp_path, 2)
    path = rows[0]["image"]
    reason = spoil(kind, Path(path))
    images = SubjectImages(rows, brain.grid, mask=brain.space.mask)
    assert images[0] == {**rows[0], "path": path, "image": None, "reason": reason}
    assert torch.equal(images[1]["image"], brain.images[1])
    batch = collate_subjects([images[0], images[1]])
    assert batch["image"].shape == (1, *brain.grid.shape)
    assert [row["subject_id"] for row in batch["rows"]] == ["sub-0002"]
    assert [row["reason"] for row in batch["failed"]] == [reason]
    assert collate_subjects([images[0]])["image"] is None


def test_an_image_whose_scaling_overflows_is_left_out(brain: Any, tmp_path: Path) -> None:
    """A voxel of 3e38 far from the brain: divided by a spread below 0.9 it is more than float32 holds."""
    rows = brain.write(tmp_path, 2)
    image = brain.subjects[0].image.copy()
    image[0, 0, 0] = 3e38
    write_volume(rows[0]["image"], image, brain.grid)
    reason = "expected an image that can be normalised, got values that are not finite; look at its intensities"
    assert cohort(brain, rows, tmp_path).failures == [Failure("sub-0001", f"{rows[0]['image']}: {reason}")]


def test_a_cohort_of_which_nothing_can_be_read(brain: Any, tmp_path: Path) -> None:
    rows = [{"subject_id": name, "image": f"/none/{name}.nii.gz"} for name in "abcd"]
    with pytest.raises(RegistrationError) as caught:
        cohort(brain, rows, tmp_path)
    reasons = "; ".join(f"/none/{name}.nii.gz: expected" for name in "abc").replace(
        ": expected", ": expected a NIfTI file, found none; check the path"
    )
    assert str(caught.value) == f"cohort: expected at least one subject that can be read, got none: {reasons}"
    with pytest.raises(RegistrationError) as caught:
        cohort(brain, [], tmp_path)
    assert str(caught.value) == "cohort: expected at least one subject that can be read, got none: the list is empty"


# new subjects


def test_the_first_subjects_are_kept_when_asked(brain: Any, tmp_path: Path) -> None:
    rows = brain.write(tmp_path)
    images = SubjectImages(rows, brain.grid, keep=True, limit=2)
    assert len(images) == 2
    first = images[0]["image"]
    Path(rows[0]["image"]).unlink()
    assert images[0]["image"] is first
    assert SubjectImages(rows, brain.grid)[0]["image"] is None
