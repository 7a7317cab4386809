"""Slices of a volume as an encoder sees them: the right ones, square pixels, the same for every order of axes."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from monai_fair.data import Volume, write_volume
from monai_fair.errors import ImageFileError
from monai_fair.geometry import Grid
from monai_fair.subgroups.image_views import read_views, volume_views


def block() -> npt.NDArray[np.float32]:
    """A bright block, voxels 4-15, 5-19 and 3-14, in the dark."""
    array = np.zeros((20, 24, 18), np.float32)
    array[4:16, 5:20, 3:15] = np.random.default_rng(0).uniform(1, 2, (12, 15, 12))
    return array


def squared(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Second axis up, first axis right, on a black square of 24 pixels."""
    shown = np.rint(255 * plane.T[::-1])
    rows, columns = (24 - size for size in shown.shape)
    return np.pad(shown, ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))).astype(np.uint8)


def test_slices_divide_what_is_inside() -> None:
    array = block()
    # the mean is about 0.25 x 1.5, below every voxel of the block, so that inside is the block itself
    low, high = np.percentile(array[4:16, 5:20, 3:15], (0.5, 99.5))
    scaled = np.clip((array.astype(np.float64) - low) / (high - low), 0, 1)
    found = volume_views(Volume(array, Grid.isotropic(array.shape, 2.0), "block.nii"))
    # quarters of 3-14, 5-19 and 4-15: 5.75, 8.5, 11.25; 8.5, 12, 15.5; 6.75, 9.5, 12.25, halves to the even voxel
    expected = [squared(scaled[:, :, at]) for at in (6, 8, 11)]
    expected += [squared(scaled[:, at, :]) for at in (8, 12, 16)]
    expected += [squared(scaled[at, :, :]) for at in (7, 10, 12)]
    assert found.shape == (9, 24, 24)
    assert np.abs(found.astype(int) - np.stack(expected)).max() <= 1  # rounding of single precision
    one = volume_views(Volume(array, Grid.isotropic(array.shape, 2.0), "block.nii"), slices=1)
    np.testing.assert_array_equal(one, found[1::3])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_order_and_direction_of_axes_change_nothing(order: tuple[int, int, int]) -> None:
    array, grid = block(), Grid.isotropic((20, 24, 18), 2.0)
    turned = np.ascontiguousarray(np.transpose(array[::-1], order))
    # the first axis runs backwards: voxel i is voxel 19 - i of the other array
    affine = grid.affine @ np.array([[-1.0, 0, 0, 19], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    affine[:, :3] = affine[:, list(order)]
    other = Volume(turned, Grid(turned.shape, affine), "turned.nii")
    np.testing.assert_array_equal(volume_views(other), volume_views(Volume(array, grid, "block.nii")))


def test_a_ball_is_round_whatever_the_spacing() -> None:
    grid = Grid((61, 51, 21), np.diag([1.0, 1.0, 3.0, 1.0]))
    # middle at 30, 25 and 30 mm, radius 15 mm
    distance = np.linalg.norm((np.moveaxis(np.indices(grid.shape), 0, -1) - [30, 25, 10]) * [1, 1, 3], axis=-1)
    views = volume_views(Volume((distance <= 15).astype(np.float32), grid, "ball.nii"), slices=1)
    assert views.shape == (3, 61, 61)
    for view in views > 127:
        heights, widths = (np.flatnonzero(view.any(axis=axis)) for axis in (1, 0))
        # a voxel of 3 mm reaches half of that beyond its centre
        assert 29 <= np.ptp(heights) + 1 <= 34
        assert 29 <= np.ptp(widths) + 1 <= 34


def test_a_wrong_spacing_asks_for_no_more_than_fits() -> None:
    volume = Volume(block(), Grid((20, 24, 18), np.diag([1e-4, 1.0, 1.0, 1.0])), "thin.nii")
    assert volume_views(volume, slices=1).shape == (3, 1024, 1024)


def test_an_image_without_contrast_inside_is_refused() -> None:
    array = np.zeros((10, 10, 10), np.float32)
    array[2:8, 2:8, 2:8] = 7.0
    with pytest.raises(ImageFileError) as caught:
        volume_views(Volume(array, Grid.isotropic(array.shape), "flat.nii"))
    assert str(caught.value) == (
        "flat.nii: expected an image with contrast, got 7 in 99 % of the voxels inside it; look at it"
    )


def test_files_are_read_as_pictures_of_three_channels(tmp_path: Path) -> None:
    write_volume(tmp_path / "brain.nii.gz", block(), Grid.isotropic((20, 24, 18), 2.0))
    views = read_views(tmp_path / "brain.nii.gz", slices=2)
    assert [(view.mode, view.size) for view in views] == [("RGB", (24, 24))] * 6
    assert all(np.ptp(np.asarray(view), axis=-1).max() == 0 for view in views)
    colours = np.random.default_rng(1).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "skin.png")
    (view,) = read_views(tmp_path / "skin.png", slices=2)
    np.testing.assert_array_equal(np.asarray(view), colours)


def test_a_picture_is_turned_as_its_camera_was(tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(colours).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(np.asarray(read_views(tmp_path / "turned.png")[0]), np.rot90(colours, -1))


def test_pictures_that_cannot_be_used(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "text.jpg").write_text("no picture")
    for name, words in (
        ("deep.png", "expected 8 bits per channel, got mode 'I;16'; convert it to 8 bits first"),
        ("text.jpg", f"cannot identify image file '{tmp_path / 'text.jpg'}'"),
    ):
        with pytest.raises(ImageFileError) as caught:
            read_views(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: expected a NIfTI volume or a picture; {words}"
