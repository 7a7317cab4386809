"""The folder of images: an id is one file, and what is left out is said."""

import logging
from pathlib import Path

import pytest

from monai_fair.errors import LabelError
from monai_fair.label.image_files import check_files

PATTERNS = ["*.nii.gz", "*.nii", "*.jpg", "*.png"]


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"")


def test_two_files_of_one_id_are_refused_at_once(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg", "a.png", "b.nii", "b.nii.gz", "c.jpg", "c.d.jpg", "c.csv")
    with pytest.raises(LabelError) as caught:
        check_files(tmp_path, PATTERNS)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}: 2 problems")
    assert "'a': expected one image file of this name, found a.jpg, a.png; rename" in said
    assert "'b': expected one image file of this name, found b.nii, b.nii.gz; rename" in said


def test_what_is_left_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "a.jpg", "a name.jpg", "b.jpeg", "c.PNG", "manifest.csv", "datastore_v2.json", ".lock", "d.dcm",
          "e.dcm", "f.dcm")  # fmt: skip
    for name in ("labels", ".monai_fair", "sub-01"):
        (tmp_path / name).mkdir()
    with caplog.at_level(logging.WARNING):
        check_files(tmp_path, PATTERNS)
    files, folders = (record.getMessage() for record in caplog.records)
    assert f"{tmp_path}: 6 files are left out: a name.jpg, b.jpeg, c.PNG, d.dcm, e.dcm, ...; images have" in files
    assert f"{tmp_path}: 1 folders are not looked into: sub-01/; images" in folders


def test_nothing_is_said_of_a_folder_of_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, "a.jpg", "b.nii.gz", "manifest.csv", "participants.tsv", "README.md")
    check_files(tmp_path, PATTERNS)
    check_files(tmp_path / "not yet", PATTERNS)
    assert not caplog.records
