"""Shading, foreground, intensities and conversions, each against what it must give."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from monai_fair.errors import MonaiFairError, RegistrationError
from monai_fair.geometry import Axes, Grid
from monai_fair.preparation import PreparationOptions
from monai_fair.preparation.conversion import from_itk, itk_affine, one_thread, ras_matrix, resample, to_itk
from monai_fair.preparation.foreground import correct_bias, foreground_mask
from monai_fair.preparation.intensity import normalise, normalised_correlation

from .conftest import PARTS, TEMPLATE_GRID, affine, head, inside, scan_grid, world

OBLIQUE = Grid((9, 8, 7), affine((20, 10, -30), (2.0, 1.5, 3.0), 0.0, (4, 5, 6)))


def test_an_itk_image_lies_where_the_grid_says() -> None:
    array = np.random.default_rng(0).random(OBLIQUE.shape).astype(np.float32)
    image = to_itk(array, OBLIQUE)
    np.testing.assert_array_equal(from_itk(image), array)
    for index in ((0, 0, 0), (8, 2, 5)):
        ras = OBLIQUE.points(np.array(index, dtype=float), Axes.VOXEL, Axes.RAS)
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), ras * (-1, -1, 1), atol=1e-9)
        assert image[index] == array[index]


def test_a_matrix_becomes_an_itk_transform_and_comes_back() -> None:
    matrix = affine((5, 6, 7), (1.1, 0.9, 1.0), 0.1, (1, 2, 3))
    transform = itk_affine(matrix)
    point = np.array([11.0, -5.0, 7.0])
    moved = matrix[:3, :3] @ point + matrix[:3, 3]
    np.testing.assert_allclose(transform.TransformPoint((point * (-1, -1, 1)).tolist()), moved * (-1, -1, 1))
    np.testing.assert_allclose(ras_matrix(transform), matrix, atol=1e-12)


def test_resampling_equals_scipy() -> None:
    matrix = affine((3, -2, 4), (1.02, 0.97, 1.0), 0.01, (2, 1, -1))
    scan, _ = head(scan_grid(affine()))
    values = from_itk(
        resample(
            to_itk(scan.array, scan.grid), itk_affine(matrix), to_itk(np.zeros(TEMPLATE_GRID.shape), TEMPLATE_GRID)
        )
    )
    to_scan = scan.grid.matrix(Axes.RAS, Axes.VOXEL) @ matrix @ TEMPLATE_GRID.matrix(Axes.VOXEL, Axes.RAS)
    expected = ndimage.affine_transform(
        scan.array, to_scan[:3, :3], to_scan[:3, 3], TEMPLATE_GRID.shape, order=1, mode="constant"
    )
    np.testing.assert_allclose(values, expected, atol=1e-2)  # of 1000


def test_n4_takes_most_of_the_shading_off() -> None:
    grid = scan_grid(affine())
    points = world(grid)
    brain, core = (inside(points, *part[:2]) >= 0.5 for part in PARTS[:2])
    tissue = np.where(core, 900.0, np.where(brain, 450.0, 1.0))
    shading = 0.4 * points[..., 1] / 80 + 0.2 * (points[..., 0] / 60) ** 2
    image = (tissue * np.exp(shading)).astype(np.float32)
    with one_thread():
        fixed = from_itk(correct_bias(to_itk(image, grid), to_itk(brain, grid)))
    assert np.log(fixed / tissue)[brain].std() < shading[brain].std() / 3


def test_the_foreground_is_the_largest_part_without_holes_and_without_the_neck() -> None:
    # 4 mm voxels; a head from plane 10 to 59, on a neck down to plane 0, and a speck beside it
    image = np.full((30, 30, 62), 5.0, dtype=np.float32) + np.random.default_rng(0).random((30, 30, 62), np.float32)
    image[6:24, 6:24, 10:60] += 100
    image[12:18, 12:18, 0:10] += 100
    image[14:16, 14:16, 30:33] = 5  # a hole
    image[1:3, 1:3, 1:3] += 100
    mask = from_itk(foreground_mask(to_itk(image, Grid.isotropic(image.shape, 4.0)))) > 0
    assert mask[14:16, 14:16, 30:33].all()
    assert not mask[1:3, 1:3, 1:3].any()
    # the top is plane 59, and 170 mm are 42 planes
    assert np.flatnonzero(mask.any(axis=(0, 1))).tolist() == list(range(17, 60))
    assert mask[6:24, 6:24, 17:60].mean() > 0.99


def test_no_foreground_is_an_error() -> None:
    image = np.zeros((12, 12, 12), dtype=np.float32)
    image[5, 5, 5] = 1
    with pytest.raises(RegistrationError) as raised:
        foreground_mask(to_itk(image, Grid.isotropic(image.shape, 2.0)))
    assert str(raised.value) == "foreground: expected tissue and background, got 0 in 99 % of the voxels"


def test_intensities_on_paper() -> None:
    # 0..1000 inside: the percentiles are 5 and 995, so 5 -> 0, 995 -> 1, 500 -> 495 / 990
    array = np.arange(1002, dtype=np.float64).reshape(1, 1, -1)
    array[..., -1] = 1e6
    mask = array <= 1000
    scaled = normalise(array, mask)[0, 0]
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[[0, 5, 500, 995, 1000, 1001]], [0, 0, 0.5, 1, 1, 1], atol=1e-7)


def test_intensities_that_are_not_defined() -> None:
    ones = np.ones((3, 3, 3))
    with pytest.raises(RegistrationError) as raised:
        normalise(ones, ones > 2)
    assert str(raised.value) == "intensities: expected a brain on the template's grid, got an empty mask there"
    with pytest.raises(RegistrationError) as raised:
        normalise(ones, ones > 0)
    assert str(raised.value) == "intensities: expected tissue inside the mask, got 1 in 99 % of its voxels"


def test_correlation_has_a_sign_and_is_not_defined_for_a_constant() -> None:
    image = np.random.default_rng(0).random((4, 4, 4))
    mask = image > 0.1
    assert normalised_correlation(image, 3 * image + 2, mask) == pytest.approx(1)
    assert normalised_correlation(image, 5 - image, mask) == pytest.approx(-1)
    assert np.isnan(normalised_correlation(image, np.ones_like(image), mask))
    assert np.isnan(normalised_correlation(image, image, np.zeros_like(mask)))


def test_one_thread_puts_the_number_back() -> None:
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    with one_thread():
        assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 1
    assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == before


def test_all_bad_options_are_named_at_once() -> None:
    with pytest.raises(MonaiFairError) as raised:
        PreparationOptions(
            spacing_mm=0.0, shape=(80, 96), template="none.nii", masks="{subject_id}.nii", skull_stripped=True,
            orientation="RRS", n4="yes", interpolation="cubic",
        )  # type: ignore[arg-type]  # fmt: skip
    assert str(raised.value) == (
        "prepare: 7 problems\n"
        "  1. n4: expected true or false, got 'yes'\n"
        "  2. spacing: expected millimetres from 0.25 to 20, got 0.0; give one such as 2\n"
        "  3. shape: expected three whole numbers from 8 to 1024, got (80, 96); such as 80,96,80\n"
        "  4. interpolation: expected one of linear, bspline, got 'cubic'\n"
        "  5. orientation: expected three letters, one each of L or R, A or P, I or S, in the order of the array's "
        "axes, got 'RRS'; give one such as ASL\n"
        "  6. masks, skull_stripped: expected one of the two, got both; a mask takes the skull off\n"
        "  7. template: expected a file, found none at 'none.nii'; check the path"
    )
