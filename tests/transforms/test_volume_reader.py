"""VolumeReader: one orientation whatever the file's axes, and the reasons of read_volume."""

from pathlib import Path

import monai
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage, Orientation

from monai_fair.errors import GeometryError, ImageFileError
from monai_fair.transforms import VolumeReader

ARRAY = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
AFFINE = np.diag([2.0, 3.0, 4.0, 1.0])


def load(path: Path) -> torch.Tensor:
    image: torch.Tensor = LoadImage(reader=VolumeReader(), image_only=True, ensure_channel_first=True)(str(path))
    return image


def write(path: Path, axes: str) -> Path:
    """The image above, stored with its axes in another order and direction, in the same place of the world."""
    image = nib.Nifti1Image(ARRAY, AFFINE)
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(AFFINE), nib.orientations.axcodes2ornt(tuple(axes))
    )
    nib.save(image.as_reoriented(turn), path)
    return path


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_order_of_axes_gives_the_same_image(tmp_path: Path, axes: str, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", axes)
    stored = nib.load(path).get_fdata()
    assert np.array_equal(stored, ARRAY) == (axes == "RAS")
    image = load(path)
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image, ARRAY[np.newaxis])
    np.testing.assert_allclose(image.affine, AFFINE)  # type: ignore[attr-defined]


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL"])
def test_axes_that_stay_can_be_turned_and_turned_back(tmp_path: Path, axes: str) -> None:
    path = write(tmp_path / "a.nii.gz", axes)
    stored = nib.load(path)
    reader = VolumeReader(turn=False)
    image = LoadImage(reader=reader, image_only=True, ensure_channel_first=True)(str(path))
    np.testing.assert_array_equal(image[0], stored.get_fdata())
    np.testing.assert_allclose(image.affine, stored.affine)
    turn = Orientation(axcodes="RAS", labels=None)
    turned = turn(image)
    np.testing.assert_array_equal(turned[0], ARRAY)
    np.testing.assert_array_equal(turn.inverse(turned)[0], stored.get_fdata())


def test_it_is_turned_without_metadata_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", "PIR")
    monai.data.set_track_meta(False)
    try:
        image = load(path)
    finally:
        monai.data.set_track_meta(True)
    assert type(image) is torch.Tensor
    np.testing.assert_array_equal(image, ARRAY[np.newaxis])


def test_all_reasons_of_a_file_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    broken = ARRAY.copy()
    broken[0, 0, 0] = np.nan
    nib.save(nib.Nifti1Image(broken, None), path)
    with pytest.raises(GeometryError) as caught:
        load(path)
    assert "expected finite voxels, got 1 that are not, of 24" in str(caught.value)
    assert str(caught.value).startswith(f"{path}: 2 problems")
    path.write_bytes(b"no image")
    with pytest.raises(GeometryError, match="expected"):
        load(path)


def test_several_files_are_refused(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / f"{name}.nii", "RAS")) for name in "ab"]
    with pytest.raises(ImageFileError) as caught:
        LoadImage(reader=VolumeReader(), image_only=True)(paths)
    assert str(caught.value) == f"expected one volume per item, got 2 files: {paths[0]}, {paths[1]}"
