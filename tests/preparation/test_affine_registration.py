import math

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from scipy.spatial.transform import Rotation

from monai_fair.data import Volume
from monai_fair.errors import RegistrationError
from monai_fair.geometry import Axes, Grid, canonical
from monai_fair.preparation import PreparationOptions, prepare_scan, register_affine, split_scale
from monai_fair.preparation.conversion import one_thread, to_itk

from .conftest import BRAIN, affine, coarse_grid, head, inside, scan_grid, world

CASES = {
    "nothing": affine(),
    "translation": affine(shift_mm=(60, -45, 80)),
    "rotation": affine((18, -8, 10)),
    "scale": affine(scale=(1.2, 1.15, 1.1)),
    "small": affine(scale=(0.85, 0.9, 0.8)),
    "shear": affine(shear=0.06),
    "all": affine((-15, 6, 9), (1.08, 0.93, 1.04), -0.05, (20, -10, 35)),
}
# A quarter of a 6 mm voxel, anywhere in the brain.
TOLERANCE_MM = 1.5


def largest_error_mm(found: np.ndarray, true: np.ndarray, brain: Volume) -> float:
    points = brain.grid.points(np.argwhere(brain.array).astype(float), Axes.VOXEL, Axes.RAS)
    apart = points @ (found - true)[:3, :3].T + (found - true)[:3, 3]
    return float(np.linalg.norm(apart, axis=1).max())


# the last of the others has a translation as well
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in ("nothing", "translation"))) for name in CASES],
)
def test_a_known_affine_map_is_found(name: str, template: tuple[Volume, Volume]) -> None:
    matrix = CASES[name]
    scan, brain = head(scan_grid(matrix), matrix)
    with one_thread():
        fit = register_affine(
            to_itk(scan.array, scan.grid),
            to_itk(template[0].array, template[0].grid),
            template_mask=to_itk(binary_dilation(template[1].array), template[1].grid),
            image_mask=to_itk(brain.array, brain.grid),
        )
    assert largest_error_mm(fit.matrix, matrix, template[1]) < TOLERANCE_MM
    assert fit.determinant == pytest.approx(np.linalg.det(matrix[:3, :3]), rel=0.04)
    assert fit.scale**3 == pytest.approx(fit.determinant)
    assert fit.mutual_information > 0.5


def test_scale_is_kept_or_taken_out(template: tuple[Volume, Volume]) -> None:
    matrix = affine((5, 0, -5), (1.12, 1.1, 1.15), 0.02, (10, 0, 0))
    scan, brain = head(scan_grid(matrix), matrix)
    true_ml = brain.array.sum() * 6.0**3 / 1000
    template_ml = template[1].array.sum() * 6.0**3 / 1000
    taken = prepare_scan(scan, *template, PreparationOptions(n4=False), mask=brain)
    options = PreparationOptions(keep_scale=True, n4=False)
    kept = prepare_scan(scan, *template, options, mask=brain, matrix=taken.fit.matrix)  # it need not be found again
    results = {False: taken, True: kept}
    for result in results.values():
        assert result.measures["native_mask_ml"] == pytest.approx(true_ml, rel=0.02)
        assert result.measures["scale"] == pytest.approx(math.cbrt(1.12 * 1.1 * 1.15), rel=0.01)
        assert result.measures["ncc"] > 0.98
    assert results[False].measures["mask_ml"] == pytest.approx(template_ml, rel=0.02)
    assert results[True].measures["mask_ml"] == pytest.approx(true_ml, rel=0.02)
    assert np.linalg.det(results[True].matrix[:3, :3]) == pytest.approx(1.0)
    # the middle of the brain is in the same place of the scan for both
    middle = template[1].grid.points(np.argwhere(template[1].array).mean(axis=0), Axes.VOXEL, Axes.RAS)
    places = [result.matrix[:3, :3] @ middle + result.matrix[:3, 3] for result in results.values()]
    np.testing.assert_allclose(*places, atol=1e-9)


def test_the_template_s_mask_follows_the_scale_when_it_is_kept(template: tuple[Volume, Volume]) -> None:
    matrix = affine(scale=(0.9, 0.9, 0.9))
    scan, brain = head(scan_grid(matrix), matrix)
    result = prepare_scan(scan, *template, PreparationOptions(keep_scale=True, n4=False))
    assert result.measures["mask_ml"] == pytest.approx(brain.array.sum() * 0.216, rel=0.05)
    assert result.measures["mask_ml"] == pytest.approx(result.measures["native_mask_ml"])


def test_split_scale_on_paper() -> None:
    # diag(2, 2, 2) around c = (1, 0, 0): x -> 2x. The image of c is (2, 0, 0), so without the scale x -> x + (1, 0, 0).
    scale, kept = split_scale(np.diag([2.0, 2.0, 2.0, 1.0]), (1, 0, 0))
    assert scale == pytest.approx(2)
    expected = np.eye(4)
    expected[0, 3] = 1
    np.testing.assert_allclose(kept, expected)


def test_split_scale_leaves_a_rotation_alone() -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix()
    matrix[:3, 3] = (3, 4, 5)
    scale, kept = split_scale(matrix, (7, 8, 9))
    assert scale == pytest.approx(1)
    np.testing.assert_allclose(kept, matrix, atol=1e-12)


# the last is a flip and a permutation at once
@pytest.mark.parametrize(
    "axes",
    [
        pytest.param(((2, 0, 1), ()), marks=pytest.mark.slow),
        pytest.param(((0, 1, 2), (0,)), marks=pytest.mark.slow),
        ((1, 2, 0), (0, 2)),
    ],
)
def test_a_flipped_or_permuted_copy_gives_the_same_bits(
    axes: tuple[tuple[int, ...], tuple[int, ...]], coarse_template: tuple[Volume, Volume]
) -> None:
    matrix = CASES["all"]
    scan, _ = head(coarse_grid(matrix), matrix)
    order, flips = axes
    array, turn = scan.array.transpose(order), np.zeros((4, 4))
    for new, old in enumerate(order):
        sign = -1.0 if new in flips else 1.0
        turn[old, new] = sign
        turn[old, 3] = scan.grid.shape[old] - 1 if new in flips else 0
    turn[3, 3] = 1
    array = np.flip(array, flips)
    copy = Volume(np.ascontiguousarray(array), Grid(array.shape, scan.grid.affine @ turn), "copy")
    np.testing.assert_array_equal(canonical(copy.array, copy.grid)[0], scan.array)
    first, second = (prepare_scan(each, *coarse_template, PreparationOptions(n4=True)) for each in (scan, copy))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.mask, second.mask)
    np.testing.assert_array_equal(first.matrix, second.matrix)


def test_a_head_is_found_without_a_mask_and_neck_and_scalp_do_no_harm(template: tuple[Volume, Volume]) -> None:
    matrix = affine((8, 0, 4), (1.04, 1.0, 0.97), 0.0, (0, 5, 0))
    grid = scan_grid(matrix, shape=(38, 44, 54))
    scan, _ = head(grid, matrix)
    back = np.linalg.inv(matrix)
    points = world(grid) @ back[:3, :3].T + back[:3, 3]
    scalp = inside(points, BRAIN[0], (80, 97, 85)) - inside(points, BRAIN[0], (73, 90, 78))
    neck = (np.hypot(points[..., 0], points[..., 1] + 30) < 50) & (points[..., 2] < -68)
    image = scan.array + 1100 * scalp.astype(np.float32) + np.where(neck & (scan.array < 100), 600, 0)
    whole = Volume(image.astype(np.float32), grid, "head")
    result = prepare_scan(whole, *template, PreparationOptions(n4=False))
    assert largest_error_mm(result.fit.matrix, matrix, template[1]) < 2.0
    assert result.measures["coverage"] == 1.0
    assert (result.image[~result.mask] == 0).all()
    options = PreparationOptions(n4=False, keep_background=True)
    kept = prepare_scan(whole, *template, options, matrix=result.fit.matrix)
    assert (kept.image[~kept.mask] > 0.5).any()


def test_a_scan_that_misses_a_part_of_the_brain_says_so(template: tuple[Volume, Volume]) -> None:
    grid = scan_grid(affine())
    scan, _ = head(grid)
    cut = Grid((38, 44, 28), grid.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 12.0], [0, 0, 0, 1]]))
    result = prepare_scan(Volume(scan.array[:, :, 12:].copy(), cut, "cut"), *template, PreparationOptions(n4=False))
    # the first plane left is at z = 5 - 6 * 39 / 2 + 6 * 12 = -40 mm, its voxels begin at -43 mm; the brain spans
    # -65 to 75 mm, and a cap of height h of a ball of diameter 1 is h^2 (3 - 2 h) of it
    height = (-43 + 65) / 140
    assert 1 - result.measures["coverage"] == pytest.approx(height**2 * (3 - 2 * height), abs=0.02)


def test_no_overlap_is_an_error_and_not_a_result(coarse_template: tuple[Volume, Volume]) -> None:
    grid = coarse_grid(affine())
    scan, _ = head(grid)
    image = to_itk(scan.array, grid)
    # a mask of somewhere else puts every start five metres away
    elsewhere = grid.affine.copy()
    elsewhere[:3, 3] += 5000
    mask = to_itk(scan.array > 100, Grid(grid.shape, elsewhere))
    with one_thread(), pytest.raises(RegistrationError, match="expected a scan that overlaps the template, got none"):
        register_affine(
            image,
            to_itk(coarse_template[0].array, coarse_template[0].grid),
            template_mask=to_itk(coarse_template[1].array, coarse_template[1].grid),
            image_mask=mask,
        )


def test_a_brain_without_skull_is_its_own_mask(template: tuple[Volume, Volume]) -> None:
    matrix = affine((4, 2, -6), (1.05, 1.0, 1.02), 0.0, (4, -8, 0))
    scan, brain = head(scan_grid(matrix), matrix)
    stripped = Volume(scan.array * brain.array, scan.grid, "stripped")
    linear = prepare_scan(stripped, *template, PreparationOptions(n4=False, skull_stripped=True))
    splines = PreparationOptions(n4=False, skull_stripped=True, interpolation="bspline")
    cubic = prepare_scan(stripped, *template, splines, matrix=linear.fit.matrix)
    assert largest_error_mm(linear.fit.matrix, matrix, template[1]) < TOLERANCE_MM
    assert linear.measures["native_mask_ml"] == pytest.approx(brain.array.sum() * 0.216, rel=0.02)
    # cubic splines keep the folds that linear interpolation rounds off
    assert 0.001 < np.abs(linear.image - cubic.image)[linear.mask].mean() < 0.05
    with pytest.raises(RegistrationError) as raised:
        prepare_scan(scan, *template, PreparationOptions(n4=False, skull_stripped=True))
    assert str(raised.value) == (
        "skull_stripped: expected a background of exactly 0, got no voxel of 0; give --masks, or leave it out"
    )
