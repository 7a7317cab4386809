"""Grids and fields whose points, derivatives, flows and inverses are known on paper or from other libraries."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.networks.blocks import Warp
from scipy.linalg import expm
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor

from monai_fair.errors import GeometryError
from monai_fair.geometry import (
    Axes,
    Grid,
    canonical,
    compose,
    exponential,
    inverse_error,
    invert,
    jacobian,
    jacobian_determinant,
    sample,
    voxel_points,
    warp,
)

SHAPE = (12, 14, 16)
LARGE = (24, 28, 32)
CENTRE = torch.tensor([5.5, 6.5, 7.5], dtype=torch.float64)
GENERATOR = np.array([[0.10, -0.30, 0.05], [0.25, -0.10, 0.00], [0.00, 0.15, 0.08]])


def oblique(shape: tuple[int, int, int] = SHAPE) -> Grid:
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * [1.0, 1.5, 2.0]
    affine[:3, 3] = [10.0, -20.0, 30.0]
    return Grid(shape, affine)


def linear(matrix: np.ndarray) -> Tensor:
    """Return the field of ``x -> centre + matrix (x - centre)``, shape ``(1, 3, D, H, W)``."""
    points = voxel_points(SHAPE).double()
    from_centre = points - CENTRE[:, None, None, None]
    return torch.einsum("ab,bxyz->axyz", torch.from_numpy(matrix) - torch.eye(3), from_centre)[None]


def smooth(scale: float) -> Tensor:
    """Return a smooth random field that is 0 on the faces, of at most ``scale`` voxels."""
    rng = np.random.default_rng(0)
    field = np.stack([gaussian_filter(rng.normal(size=LARGE), 5) for _ in range(3)])
    window = np.prod(np.meshgrid(*(np.hanning(size) for size in LARGE), indexing="ij"), axis=0)
    field *= window / np.abs(field * window).max() * scale
    return torch.from_numpy(field)[None]


def inside(field: Tensor, margin: int) -> Tensor:
    return field[..., margin:-margin, margin:-margin, margin:-margin]


# grids


def test_axes_of_a_hand_made_grid() -> None:
    # axis 0 runs to the left by 2 mm a voxel, axis 1 up by 3, axis 2 to the front by 4
    affine = np.array([[-2.0, 0, 0, 90], [0, 0, 4, -126], [0, 3, 0, -72], [0, 0, 0, 1]])
    grid = Grid((5, 7, 3), affine)
    assert grid.spacing_mm == (2.0, 3.0, 4.0)
    assert grid.orientation == "LSA"
    # voxel (4, 6, 1): 90 - 8, -126 + 4, -72 + 18
    point = np.array([4.0, 6.0, 1.0])
    np.testing.assert_allclose(grid.points(point, Axes.VOXEL, Axes.RAS), [82, -122, -54])
    np.testing.assert_allclose(grid.points(point, Axes.VOXEL, Axes.LPS), [-82, 122, -54])
    # last, last and middle voxel of 5, 7 and 3
    np.testing.assert_allclose(grid.points(point, Axes.VOXEL, Axes.CUBE), [1, 1, 0])
    np.testing.assert_allclose(grid.points(np.array([-1.0, -1.0, -1.0]), Axes.CUBE, Axes.RAS), [90, -126, -72])
    np.testing.assert_array_equal(grid.matrix(Axes.VOXEL, Axes.RAS), affine)
    for axes in Axes:
        np.testing.assert_array_equal(grid.matrix(axes, axes), np.eye(4))


def test_points_agree_with_nibabel_and_simpleitk() -> None:
    grid = oblique()
    points = np.random.default_rng(1).uniform(0, 10, (20, 3))
    np.testing.assert_allclose(
        grid.points(points, Axes.VOXEL, Axes.RAS), nib.affines.apply_affine(grid.affine, points), atol=1e-12
    )
    image = sitk.Image(*SHAPE, sitk.sitkUInt8)
    to_lps = np.diag([-1, -1, 1, 1]) @ grid.affine
    image.SetOrigin(to_lps[:3, 3].tolist())
    image.SetSpacing([1.0, 1.5, 2.0])
    image.SetDirection((to_lps[:3, :3] / [1.0, 1.5, 2.0]).ravel().tolist())
    theirs = [image.TransformContinuousIndexToPhysicalPoint(point) for point in points.tolist()]
    np.testing.assert_allclose(grid.points(points, Axes.VOXEL, Axes.LPS), theirs, atol=1e-12)


def test_cube_axes_are_those_of_grid_sample() -> None:
    grid = oblique()
    image = torch.randn(1, 1, *SHAPE, dtype=torch.float64)
    points = torch.from_numpy(np.random.default_rng(2).uniform(0, 11, (1, 4, 5, 6, 3)))
    cube = grid.points(points, Axes.VOXEL, Axes.CUBE)
    theirs = torch.nn.functional.grid_sample(image, cube.flip(-1), align_corners=True)
    torch.testing.assert_close(sample(image, points.movedim(-1, 1)), theirs, rtol=0, atol=1e-12)


def test_isotropic_grids_are_centred() -> None:
    grid = Grid.isotropic((4, 5, 6), 2.0)
    assert grid.spacing_mm == (2.0, 2.0, 2.0)
    assert grid.orientation == "RAS"
    np.testing.assert_allclose(grid.points(np.array([1.5, 2.0, 2.5]), Axes.VOXEL, Axes.RAS), 0, atol=1e-12)


def test_displacements_ignore_where_the_grid_lies() -> None:
    # 1 voxel along axis 0 (to the left, 2 mm) and 2 along axis 1 (up, 3 mm each)
    grid = Grid((3, 4, 5), np.array([[-2.0, 0, 0, 90], [0, 0, 4, -126], [0, 3, 0, -72], [0, 0, 0, 1]]))
    field = np.zeros((3, 3, 4, 5), dtype=np.float32)
    field[0], field[1] = 1.0, 2.0
    in_ras = grid.displacement(field, Axes.VOXEL, Axes.RAS)
    np.testing.assert_allclose(in_ras, np.broadcast_to(np.reshape([-2, 0, 6], (3, 1, 1, 1)), field.shape))
    np.testing.assert_allclose(grid.displacement(in_ras, Axes.RAS, Axes.VOXEL), field, atol=1e-6)
    tensor = grid.displacement(torch.from_numpy(field)[None], Axes.VOXEL, Axes.RAS)
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor[0].numpy(), in_ras)


def test_grids_match_by_their_corners() -> None:
    grid = oblique()
    moved = grid.affine.copy()
    moved[:3, 3] += [0.0, 3e-4, 4e-4]
    assert grid.distance_mm(Grid(SHAPE, moved)) == pytest.approx(5e-4)
    assert grid.matches(Grid(SHAPE, moved))
    assert not grid.matches(Grid(SHAPE, moved), tolerance_mm=4e-4)
    assert not grid.matches(Grid((12, 14, 15), grid.affine))
    # a scale of 0.1 % about voxel 0 moves the far corner by 0.1 % of its distance
    scaled = Grid(SHAPE, grid.affine @ np.diag([1.001, 1.001, 1.001, 1.0]))
    assert grid.distance_mm(scaled) == pytest.approx(1e-3 * np.linalg.norm([11 * 1.0, 13 * 1.5, 15 * 2.0]))


def test_a_grid_cannot_be_changed() -> None:
    affine = np.eye(4)
    grid = Grid(SHAPE, affine)
    affine[0, 0] = 5
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 5


def row_3(value: float) -> np.ndarray:
    affine = np.eye(4)
    affine[3, 0] = value
    return affine


@pytest.mark.parametrize(
    ("shape", "affine", "expected"),
    [
        ((4, 5), np.eye(4), "expected three axes of at least 2 voxels, got shape (4, 5); give a 3D volume"),
        ((4, 5, 1), np.eye(4), "expected three axes of at least 2 voxels, got shape (4, 5, 1); give a 3D volume"),
        (
            SHAPE,
            np.eye(3),
            "expected a finite affine of shape (4, 4) with last row 0 0 0 1, got "
            "[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]",
        ),
        (
            SHAPE,
            row_3(1e-6),
            "expected a finite affine of shape (4, 4) with last row 0 0 0 1, got "
            "[[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [1e-06, 0.0, 0.0, 1.0]]",
        ),
        (
            SHAPE,
            np.diag([1, np.inf, 1, 1]),
            "expected a finite affine of shape (4, 4) with last row 0 0 0 1, got "
            "[[1.0, 0.0, 0.0, 0.0], [0.0, inf, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]",
        ),
        (
            SHAPE,
            np.diag([1, 0, 1, 1]),
            "expected voxels of positive size, got the singular affine "
            "[[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]",
        ),
    ],
)
def test_impossible_grids_are_refused(shape: tuple[int, ...], affine: np.ndarray, expected: str) -> None:
    with pytest.raises(GeometryError) as caught:
        Grid(shape, affine)  # type: ignore[arg-type]
    assert str(caught.value) == f"grid: {expected}"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1.0, -1.0), repeat=3)))
def test_canonical_is_that_of_nibabel(order: tuple[int, ...], signs: tuple[float, ...]) -> None:
    affine = oblique().affine.copy()
    affine[:3, :3] = affine[:3, list(order)] * signs
    array = np.random.default_rng(0).normal(size=SHAPE)
    turned, grid = canonical(array, Grid(SHAPE, affine))
    theirs = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
    np.testing.assert_array_equal(turned, theirs.get_fdata())
    np.testing.assert_allclose(grid.affine, theirs.affine, atol=1e-12)
    assert grid.orientation == "RAS"
    # a leading axis stays where it is
    both, _ = canonical(np.stack([array, 2 * array]), Grid(SHAPE, affine))
    np.testing.assert_array_equal(both, np.stack([turned, 2 * turned]))


# sampling


@pytest.mark.parametrize(("mode", "order"), [("bilinear", 1), ("nearest", 0)])
@pytest.mark.parametrize(("padding_mode", "scipy_mode"), [("border", "nearest"), ("zeros", "constant")])
def test_warp_reads_where_scipy_reads(mode: str, order: int, padding_mode: str, scipy_mode: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *SHAPE))
    field = rng.normal(0, 2, size=(3, *SHAPE))
    points = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij")) + field
    found = warp(torch.from_numpy(image)[None], torch.from_numpy(field)[None], mode=mode, padding_mode=padding_mode)
    expected = np.stack([map_coordinates(channel, points, order=order, mode=scipy_mode) for channel in image])
    if padding_mode == "zeros":
        # between the last voxel and one voxel beyond, grid_sample fades to 0 and SciPy has stopped
        within = ((points >= 0) & (points <= np.reshape(SHAPE, (3, 1, 1, 1)) - 1)).all(axis=0)
        assert 0.2 < within.mean() < 0.8
        np.testing.assert_allclose(found[0].numpy()[:, within], expected[:, within], atol=1e-12)
        far = ((points < -1) | (points > np.reshape(SHAPE, (3, 1, 1, 1)))).any(axis=0)
        assert not found[0].numpy()[:, far].any()
    else:
        np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-12)


@pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp")
@pytest.mark.parametrize("batch", [1, 3])
def test_warp_is_that_of_monai(batch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(batch, 2, *SHAPE, generator=generator)
    field = torch.randn(batch, 3, *SHAPE, generator=generator) * 2
    theirs = Warp(mode="bilinear", padding_mode="border")(image, field)
    torch.testing.assert_close(warp(image, field), theirs, rtol=0, atol=1e-5)


def test_a_whole_voxel_is_read_from_its_neighbour() -> None:
    # pull-back: the voxel at x takes the value of x + u
    image = torch.arange(24, dtype=torch.float32).reshape(1, 1, 2, 3, 4)
    field = torch.zeros(1, 3, 2, 3, 4)
    field[:, 2] = 1
    moved = warp(image, field)
    torch.testing.assert_close(moved[..., :3], image[..., 1:])
    torch.testing.assert_close(moved[..., 3], image[..., 3])


def test_samples_need_not_lie_on_a_grid_of_the_same_shape() -> None:
    image = torch.arange(24, dtype=torch.float64).reshape(1, 1, 2, 3, 4)
    points = torch.tensor([0.5, 1.25, 2.5], dtype=torch.float64).reshape(1, 3, 1, 1, 1)
    # the image is 12 i + 4 j + k, and linear interpolation keeps it
    assert sample(image, points).item() == pytest.approx(12 * 0.5 + 4 * 1.25 + 2.5)


@pytest.mark.parametrize(
    ("image", "points"),
    [
        ((1, 1, 4, 4), (1, 3, 4, 4, 4)),
        ((1, 1, 4, 4, 4), (3, 4, 4, 4)),
        ((1, 1, 4, 4, 4), (1, 2, 4, 4, 4)),
        ((2, 1, 4, 4, 4), (1, 3, 4, 4, 4)),
    ],
)
def test_shapes_that_do_not_fit(image: tuple[int, ...], points: tuple[int, ...]) -> None:
    with pytest.raises(GeometryError) as caught:
        sample(torch.zeros(image), torch.zeros(points))
    assert str(caught.value) == (
        f"sample: expected an image (B, C, D, H, W) and points (B, 3, X, Y, Z) of equal B, got {image} and {points}"
    )


# derivatives


def test_a_translation_has_no_derivative() -> None:
    field = torch.ones(2, 3, *SHAPE) * torch.tensor([1.0, -2.0, 3.0])[:, None, None, None]
    torch.testing.assert_close(jacobian(field), torch.eye(3)[..., None, None, None].expand(2, 3, 3, *SHAPE))
    torch.testing.assert_close(jacobian_determinant(field), torch.ones(2, *SHAPE))


def test_a_rotation_has_twice_its_sine_as_curl() -> None:
    # x -> R x, R by 30 degrees about axis 2: J = R, curl = R[1, 0] - R[0, 1] = 2 sin 30 = 1
    angle = np.pi / 6
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    found = jacobian(linear(turn))
    expected = torch.from_numpy(turn)[..., None, None, None].expand(3, 3, *SHAPE)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(found[0, 1, 0] - found[0, 0, 1], torch.ones(SHAPE, dtype=torch.float64))
    torch.testing.assert_close(jacobian_determinant(linear(turn)), torch.ones(1, *SHAPE, dtype=torch.float64))


def test_a_sine_field_has_a_cosine_as_derivative() -> None:
    # u_a = s sin(w_a x_a + p_a x_b), b the next axis. A central difference of sin over one voxel is sin(w)/w times
    # its derivative, so J is known to rounding: u_a,a = s sin(w_a) cos(.) and u_a,b = s sin(p_a) cos(.)
    points = voxel_points(SHAPE).double()
    s, w, p = 0.8, (0.3, 0.4, 0.5), (0.2, 0.1, 0.15)
    phase = torch.stack([w[a] * points[a] + p[a] * points[(a + 1) % 3] for a in range(3)])
    expected = torch.eye(3, dtype=torch.float64)[..., None, None, None].repeat(1, 1, *SHAPE)
    for a in range(3):
        expected[a, a] += s * np.sin(w[a]) * torch.cos(phase[a])
        expected[a, (a + 1) % 3] += s * np.sin(p[a]) * torch.cos(phase[a])
    field = s * torch.sin(phase)[None]
    torch.testing.assert_close(inside(jacobian(field)[0], 1), inside(expected, 1), rtol=0, atol=1e-12)
    # cofactors of a matrix whose only other entries are the next ones in each row: aei + bfg, the signs all +
    diagonal = expected[0, 0] * expected[1, 1] * expected[2, 2]
    cyclic = expected[0, 1] * expected[1, 2] * expected[2, 0]
    found = jacobian_determinant(field)[0]
    torch.testing.assert_close(inside(found, 1), inside(diagonal + cyclic, 1), rtol=0, atol=1e-12)
    # the analytic derivative differs by sin(w)/w, at most 1 - sin(0.5)/0.5 = 4 %
    assert (found - 1).abs().max() > 0.5


def test_the_jacobian_is_that_of_numpy_gradient() -> None:
    field = smooth(2.0)
    found = jacobian(field)[0].numpy()
    for a in range(3):
        expected = np.stack(np.gradient(field[0, a].numpy())) + np.eye(3)[a][:, None, None, None]
        np.testing.assert_allclose(found[a], expected, atol=1e-12)
    matrices = np.moveaxis(found, (0, 1), (-2, -1))
    np.testing.assert_allclose(jacobian_determinant(field)[0].numpy(), np.linalg.det(matrices), atol=1e-12)


def test_the_determinant_is_that_of_simpleitk_in_millimetres() -> None:
    # axes along LPS, because the filter takes derivatives along the array's axes and does not turn them
    grid = Grid(LARGE, np.diag([-1.0, -1.5, 2.0, 1.0]))
    field = smooth(3.0)
    in_lps = np.transpose(grid.displacement(field[0].numpy(), Axes.VOXEL, Axes.LPS), (3, 2, 1, 0))
    image = sitk.GetImageFromArray(in_lps, isVector=True)
    image.SetSpacing(grid.spacing_mm)
    theirs = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image)).T
    found = jacobian_determinant(field)[0].numpy()
    np.testing.assert_allclose(found[1:-1, 1:-1, 1:-1], theirs[1:-1, 1:-1, 1:-1], atol=1e-5)
    assert np.ptp(found) > 0.5


def test_a_mirror_folds() -> None:
    mirrored = linear(np.diag([-1.0, 1.0, 1.0]))
    torch.testing.assert_close(jacobian_determinant(mirrored), -torch.ones(1, *SHAPE, dtype=torch.float64))


# flows


def test_translations_add_up() -> None:
    first = torch.full((1, 3, *SHAPE), 1.5)
    second = torch.full((1, 3, *SHAPE), -0.25)
    torch.testing.assert_close(compose(first, second), torch.full((1, 3, *SHAPE), 1.25))


def test_composition_of_linear_maps_is_their_product() -> None:
    outer, inner = expm(0.2 * GENERATOR), expm(-0.1 * GENERATOR.T)
    # the inner map moves points by less than 2 voxels, so that the outer field is read inside the grid
    found = inside(compose(linear(outer), linear(inner)), 2)
    torch.testing.assert_close(found, inside(linear(outer @ inner), 2), rtol=0, atol=1e-12)
    # the order counts
    assert (found - inside(linear(inner @ outer), 2)).abs().max() > 0.01


def test_the_flow_of_a_linear_velocity_is_the_matrix_exponential() -> None:
    # v = A (x - centre), so phi = centre + expm(A) (x - centre). Fields that are linear are interpolated without
    # error; what is left is the first step, id + v / 2^K for exp(v / 2^K): (I + A/2^K)^(2^K), off by A^2/2^(K+1).
    # Beyond the faces fields keep their value, of which 1e-8 comes 4 voxels in
    generator = 0.4 * GENERATOR
    velocity = linear(generator + np.eye(3))
    for steps in (4, 7):
        power = np.linalg.matrix_power(np.eye(3) + generator / 2**steps, 2**steps)
        found = inside(exponential(velocity, steps=steps), 4)
        torch.testing.assert_close(found, inside(linear(power), 4), rtol=0, atol=1e-7)
    error = (found - inside(linear(expm(generator)), 4)).abs().max().item()
    assert error <= np.abs(generator @ generator).sum(axis=1).max() / 2**8 * 7.5 * 2


def test_more_steps_converge_at_first_order() -> None:
    velocity = linear(0.4 * GENERATOR + np.eye(3))
    exact = inside(linear(expm(0.4 * GENERATOR)), 4)
    errors = [(inside(exponential(velocity, steps=steps), 4) - exact).abs().max().item() for steps in (5, 6, 7, 8)]
    # halving the step halves the error
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.02)


def test_minus_the_velocity_gives_the_inverse() -> None:
    velocity = smooth(2.0)
    forward, backward = exponential(velocity), exponential(-velocity)
    assert forward.abs().max() > 1.5
    for pair in ((forward, backward), (backward, forward)):
        # linear interpolation of a smooth field: hundredths of a voxel, against 2 voxels of displacement
        assert inverse_error(*pair).max() < 0.05
    assert jacobian_determinant(forward).min() > 0


def test_the_inverse_of_a_linear_map() -> None:
    matrix = expm(0.2 * GENERATOR)
    # 30 iterations leave (norm of matrix - I)^30; that norm is about 0.1
    inverse = invert(linear(matrix))
    torch.testing.assert_close(inside(inverse, 3), inside(linear(np.linalg.inv(matrix)), 3), rtol=0, atol=1e-12)


def test_the_inverse_of_a_smooth_field_undoes_it() -> None:
    field = smooth(1.5)
    inverse = invert(field)
    assert inverse_error(field, inverse).max() < 1e-6
    # the other side holds as well as the grid resolves the fields
    assert inverse_error(inverse, field).max() < 0.1
    assert field.abs().max() == pytest.approx(1.5)


def test_the_error_of_an_inverse_that_is_none() -> None:
    field = torch.zeros(1, 3, *SHAPE)
    field[:, 0], field[:, 1] = 3.0, 4.0
    torch.testing.assert_close(inverse_error(field, torch.zeros_like(field)), torch.full((1, *SHAPE), 5.0))


def test_voxel_points_are_indices() -> None:
    points = voxel_points((2, 3, 4))
    assert points.dtype == torch.float32
    np.testing.assert_array_equal(points.numpy(), np.indices((2, 3, 4)))


def test_fields_have_gradients() -> None:
    field = smooth(1.0).requires_grad_()
    image = torch.from_numpy(gaussian_filter(np.random.default_rng(1).normal(size=LARGE), 1))[None, None]
    for value in (warp(image, exponential(field)), jacobian_determinant(field), invert(field, iterations=3)):
        (gradient,) = torch.autograd.grad(value.square().sum(), field)
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0
