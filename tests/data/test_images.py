"""One unreadable image never stops a cohort and never passes unseen."""

import gzip
import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from monai_fair.data import Manifest, check_images, check_manifest
from monai_fair.errors import ImageFileError

GOOD = ("photo.jpg", "slice.png", "map.npz", "map.npy", "brain.nii", "brain.nii.gz")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one good file of every kind."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "photo.jpg")
    Image.fromarray(rng.integers(0, 255, (8, 9), dtype=np.uint8)).save(tmp_path / "slice.png")
    np.savez(tmp_path / "map.npz", rnflt=rng.normal(size=(5, 6)), md=np.array(-1.5))
    np.save(tmp_path / "map.npy", rng.normal(size=(5, 6)))
    volume = nib.Nifti1Image(rng.normal(size=(4, 5, 6)).astype(np.float32), np.diag([1.0, 1.5, 2.0, 1.0]))
    nib.save(volume, tmp_path / "brain.nii")
    nib.save(volume, tmp_path / "brain.nii.gz")
    return tmp_path


def manifest(images: Sequence[str], **columns: Sequence[str]) -> Manifest:
    table = {"subject_id": [f"s{n}" for n in range(len(images))], "image": images, "label": "0", "split": "train"}
    return check_manifest(pd.DataFrame({**table, **columns}, dtype=str), "m.csv")


def problems(images: Sequence[str], root: Path, *, full: bool, **columns: Sequence[str]) -> list[str]:
    with pytest.raises(ImageFileError) as caught:
        check_images(manifest(images, **columns), root, full=full, progress=False)
    lines = str(caught.value).splitlines()
    if len(lines) == 1:
        return [lines[0].removeprefix("m.csv: ")]
    assert lines[0] == f"m.csv: {len(lines) - 1} problems"
    return [line.split(". ", 1)[1] for line in lines[1:]]


def reason(image: str, root: Path, *, full: bool = True) -> str:
    (problem,) = problems([*GOOD, image], root, full=full)
    return problem.removeprefix(f"line 8, subject 's6', image '{image}': ")


@pytest.mark.parametrize("full", [False, True])
def test_good_files_are_counted_by_kind(root: Path, full: bool) -> None:
    found = check_images(manifest(GOOD), root, full=full, progress=False)
    assert dict(found.kinds) == {
        "NIfTI 4 x 5 x 6 at 1 x 1.5 x 2 mm": 2,
        "JPEG RGB 60 x 40": 1,
        "PNG L 9 x 8": 1,
        "npz with rnflt, md": 1,
        "npy with array": 1,
    }
    assert found.repeated == []


def test_a_truncated_jpeg_needs_the_full_look(root: Path) -> None:
    whole = (root / "photo.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    assert check_images(manifest(["cut.jpg"]), root, progress=False).kinds == {"JPEG RGB 60 x 40": 1}
    assert reason("cut.jpg", root).startswith("cannot be read (OSError: image file is truncated")


def test_pictures_that_are_none(root: Path) -> None:
    (root / "text.png").write_text("hello")
    (root / "empty.jpg").write_bytes(b"")
    for full in (False, True):
        for name in ("text.png", "empty.jpg"):
            expected = f"cannot be read (UnidentifiedImageError: cannot identify image file '{root / name}')"
            assert reason(name, root, full=full) == expected
        assert reason("gone.png", root, full=full) == "expected a file, found none"
    (root / "folder.png").mkdir()
    assert reason("folder.png", root) == "expected a file, found none"


def test_damaged_numpy_files(root: Path) -> None:
    whole = (root / "map.npz").read_bytes()
    (root / "cut.npz").write_bytes(whole[:-40])
    flipped = bytearray(whole)
    flipped[whole.index(b"}") + 200] ^= 1  # inside the numbers of the first array
    (root / "flipped.npz").write_bytes(flipped)
    (root / "cut.npy").write_bytes((root / "map.npy").read_bytes()[:-8])
    (root / "archive.npy").write_bytes(whole)
    (root / "array.npz").write_bytes((root / "map.npy").read_bytes())
    assert reason("cut.npz", root) == "cannot be read (BadZipFile: File is not a zip file)"
    assert reason("flipped.npz", root) == "cannot be read (BadZipFile: Bad CRC-32 for file 'rnflt.npy')"
    assert reason("cut.npy", root) == "cannot be read (ValueError: mmap length is greater than file size)"
    assert reason("archive.npy", root).startswith("cannot be read (ValueError: the magic string is not correct")
    assert reason("array.npz", root) == "cannot be read (BadZipFile: File is not a zip file)"


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_objects_are_refused_and_never_run(root: Path) -> None:
    mark = root / "was_run"
    hostile = np.empty(1, dtype=object)
    hostile[0] = Trap(mark)
    np.save(root / "hostile.npy", hostile, allow_pickle=True)
    np.savez(root / "hostile.npz", rnflt=hostile)
    assert reason("hostile.npy", root) == (
        "cannot be read (ValueError: Array can't be memory-mapped: Python objects in dtype.)"
    )
    assert reason("hostile.npz", root) == (
        "cannot be read (ValueError: Object arrays cannot be loaded when allow_pickle=False)"
    )
    assert not mark.exists()


def test_values_that_are_not_finite(root: Path) -> None:
    np.save(root / "nan.npy", np.array([1.0, np.nan, np.inf]))
    np.savez(root / "inf.npz", fine=np.ones(2), bad=np.array([-np.inf]))
    voxels = np.ones((3, 3, 3), dtype=np.float32)
    voxels[0, 0, :2] = np.nan
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), root / "nan.nii.gz")
    names = ["nan.npy", "inf.npz", "nan.nii.gz"]
    assert len(check_images(manifest(names), root, progress=False).kinds) == 3
    for name, count in zip(names, (2, 1, 2), strict=True):
        expected = f"cannot be read (ImageFileError: expected finite values, got {count} that are not)"
        assert reason(name, root) == expected


def test_damaged_compressed_nifti(root: Path) -> None:
    # stored, not compressed, so that a flipped bit leaves a stream that can be read to its end
    values = np.random.default_rng(1).normal(size=(20, 20, 20)).astype(np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), root / "large.nii")
    plain = (root / "large.nii").read_bytes()
    stored = gzip.compress(plain, compresslevel=0)
    voxel, checksum = bytearray(stored), bytearray(stored)
    voxel[-60] ^= 1
    checksum[-8] ^= 1
    (root / "voxel.nii.gz").write_bytes(voxel)
    (root / "checksum.nii.gz").write_bytes(checksum)
    (root / "cut.nii.gz").write_bytes(stored[: len(stored) // 2])
    (root / "tail.nii.gz").write_bytes(stored[:-4])
    (root / "plain.nii.gz").write_bytes(plain)
    (root / "cut.nii").write_bytes(plain[:-50])
    # nibabel alone reads the first two without a word, and the first one wrongly
    read = [np.asarray(nib.load(root / name).dataobj) for name in ("voxel.nii.gz", "checksum.nii.gz")]
    assert [int((array != values).sum()) for array in read] == [1, 0]
    for name in ("voxel.nii.gz", "checksum.nii.gz"):
        assert reason(name, root).startswith("cannot be read (BadGzipFile: CRC check failed")
    for name in ("cut.nii.gz", "tail.nii.gz"):
        expected = "cannot be read (EOFError: Compressed file ended before the end-of-stream marker was reached)"
        assert reason(name, root) == expected
    assert "is not a gzip file" in reason("plain.nii.gz", root)
    assert reason("cut.nii", root).startswith("cannot be read (OSError: Expected")


def patched(root: Path, name: str, offset: int, values: Sequence[float]) -> str:
    content = bytearray((root / "brain.nii").read_bytes())
    struct.pack_into(f"<{len(values)}f", content, offset, *values)
    (root / name).write_bytes(content)
    return name


@pytest.mark.parametrize("full", [False, True])
def test_geometry_that_cannot_be(root: Path, full: bool) -> None:
    # offsets of the NIfTI-1 header: pixdim[1] at 80, srow_x at 280
    cases = {
        patched(root, "zero.nii", 80, [0, 1.5, 2]): "expected a voxel spacing other than 0, got [0.0, 1.5, 2.0]",
        patched(root, "nan.nii", 80, [np.nan, 1.5, 2]): "expected a voxel spacing other than 0, got [nan, 1.5, 2.0]",
        patched(root, "flat.nii", 280, [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]): "expected an invertible affine",
        patched(root, "nowhere.nii", 280, [np.nan] * 12): "expected an invertible affine",
    }
    for name, expected in cases.items():
        assert reason(name, root, full=full) == f"cannot be read (ImageFileError: {expected})"
    # zipped, the header is read in another way
    (root / "zero.nii.gz").write_bytes(gzip.compress((root / "zero.nii").read_bytes()))
    assert "expected a voxel spacing other than 0" in reason("zero.nii.gz", root, full=full)


def test_a_checksum_tells_that_a_file_has_changed(root: Path) -> None:
    right = [hashlib.sha256((root / name).read_bytes()).hexdigest() for name in GOOD]
    check_images(manifest(GOOD, sha256=right), root, full=True, progress=False)
    wrong = [*right[:-1], "0" * 64]
    assert problems(GOOD, root, full=True, sha256=wrong) == [
        f"line 7, subject 's5', image 'brain.nii.gz': expected sha256 {'0' * 12}..., got {right[-1][:12]}...: "
        "the file has changed"
    ]
    wrong[0] = ""  # not every row needs one
    assert len(problems(GOOD, root, full=True, sha256=wrong)) == 1


def test_the_same_content_in_two_parts_is_a_leak(root: Path) -> None:
    for name in ("b.jpg", "c.jpg"):
        (root / name).write_bytes((root / "photo.jpg").read_bytes())
    images, parts = ["photo.jpg", "slice.png", "b.jpg", "c.jpg"], ["train", "train", "test", "val"]
    assert problems(images, root, full=True, split=parts) == [
        "lines 2, 4, 5: the same image content in test and train and val; keep one"
    ]
    # within one part it is a note
    found = check_images(manifest(images), root, full=True, progress=False)
    assert found.repeated == [[2, 4, 5]]
    # and without the full look, contents are not compared
    assert check_images(manifest(images, split=parts), root, progress=False).repeated == []


def test_two_missing_files_are_not_the_same_content(root: Path) -> None:
    found = problems(["x.jpg", "y.jpg"], root, full=True, split=["train", "test"])
    assert found == [
        f"line {line}, subject 's{line - 2}', image '{name}.jpg': expected a file, found none"
        for line, name in [(2, "x"), (3, "y")]
    ]


def test_all_problems_in_order_whatever_the_number_of_threads(root: Path) -> None:
    for number in range(0, 40, 4):
        (root / f"{number}.jpg").write_bytes((root / "photo.jpg").read_bytes() + bytes([number]))
    (root / "outside.jpg").symlink_to("/etc/hostname")
    images = [*(f"{number}.jpg" for number in range(40)), "outside.jpg", *GOOD]
    seen = []
    for workers in (1, 3, 16):
        with pytest.raises(ImageFileError) as caught:
            check_images(manifest(images), root, full=True, num_workers=workers, progress=False)
        seen.append(str(caught.value))
    assert seen[0] == seen[1] == seen[2]
    lines = seen[0].splitlines()
    missing = [number for number in range(40) if number % 4]
    assert lines[0] == "m.csv: 31 problems"
    assert lines[1:-1] == [
        f"  {place}. line {number + 2}, subject 's{number}', image '{number}.jpg': expected a file, found none"
        for place, number in enumerate(missing, start=1)
    ]
    assert lines[-1].startswith("  31. line 42, subject 's40', image 'outside.jpg': cannot be read (ManifestError: ")
    assert "it leads outside" in lines[-1]
    good = [name for name in images if name not in {f"{number}.jpg" for number in missing} | {"outside.jpg"}]
    kinds = [
        dict(check_images(manifest(good), root, full=True, num_workers=workers, progress=False).kinds)
        for workers in (1, 16)
    ]
    assert kinds[0] == kinds[1]
    assert kinds[0]["JPEG RGB 60 x 40"] == 11


def test_a_long_list_is_counted_beyond_fifty(root: Path) -> None:
    with pytest.raises(ImageFileError) as caught:
        check_images(manifest([f"{number}.png" for number in range(60)]), root, progress=False)
    lines = str(caught.value).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("m.csv: 60 problems", "  ... and 10 more", 52)


def test_images_without_labels_can_be_checked(root: Path) -> None:
    table = pd.DataFrame({"subject_id": ["a", "b"], "image": ["photo.jpg", "slice.png"]}, dtype=str)
    found = check_images(check_manifest(table, "m.csv", labelled=False), root, full=True, progress=False)
    assert sum(found.kinds.values()) == 2
