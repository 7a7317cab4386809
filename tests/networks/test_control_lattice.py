"""B-spline lattices: SciPy as reference, differences written out, transposes by dot products, flows known on paper."""

import itertools

import numpy as np
import pytest
import torch
from scipy.interpolate import NdBSpline
from scipy.linalg import expm
from scipy.ndimage import laplace
from torch import Tensor

from monai_fair.errors import GeometryError
from monai_fair.geometry import voxel_points
from monai_fair.networks import ControlLattice

CASES = [((9, 13, 11), 4.0), ((10, 12, 7), 3.0), ((5, 31, 14), 2.5), ((2, 3, 20), 1.0), ((6, 4, 9), 16.0)]


def lattice_of(shape: tuple[int, int, int] = (9, 13, 11), spacing: float = 4.0, order: int = 4) -> ControlLattice:
    return ControlLattice(shape, spacing, order=order).double()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_control_points_reach_one_spacing_past_the_image() -> None:
    # 9 voxels at 4: nodes -4, 0, 4, 8, 12; 13 at 4: -4 .. 16; 11 at 4: the image ends at 10, so -4 .. 16
    lattice = lattice_of()
    assert lattice.shape == (5, 6, 6)
    assert lattice.size == 180
    points = lattice.control_points()
    assert points[0].tolist() == [-4, -4, -4]
    assert points[1].tolist() == [-4, -4, 0]  # the last axis runs first
    assert points[-1].tolist() == [12, 16, 16]
    assert repr(lattice) == "ControlLattice(image_shape=(9, 13, 11), spacing=4, shape=(5, 6, 6), order=4)"
    assert lattice.state_dict() == {}


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_weights_sum_to_one_on_every_voxel(shape: tuple[int, int, int], spacing: float) -> None:
    lattice = lattice_of(shape, spacing)
    ones = torch.ones(1, 1, *lattice.shape, dtype=torch.float64)
    field = lattice.upsample(ones, lattice.sampling_grid().weights)
    torch.testing.assert_close(field, torch.ones(1, 1, *shape, dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_positions_as_coefficients_give_positions(shape: tuple[int, int, int], spacing: float) -> None:
    lattice = lattice_of(shape, spacing)
    coefficients = lattice.control_points().T.reshape(1, 3, *lattice.shape)
    field = lattice.upsample(coefficients, lattice.sampling_grid().weights)
    torch.testing.assert_close(field[0], voxel_points(shape).double(), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_a_field_is_scipys_tensor_spline(shape: tuple[int, int, int], spacing: float) -> None:
    lattice = lattice_of(shape, spacing)
    coefficients = random(2, 3, *lattice.shape)
    found = lattice.upsample(coefficients, lattice.sampling_grid().weights)
    # the spline of control point k is centred at (k - 1) spacing, so its first knot is (k - 3) spacing
    knots = tuple((np.arange(size + 4) - 3.0) * spacing for size in lattice.shape)
    spline = NdBSpline(knots, coefficients.movedim((0, 1), (-2, -1)).numpy().copy(), 3)
    expected = spline(np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(float))
    np.testing.assert_allclose(found.movedim((0, 1), (-2, -1)).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_a_strided_grid_is_a_slice_of_the_dense_one(stride: int, shift: int) -> None:
    lattice = lattice_of((10, 12, 7), 3.0)
    offsets = (shift % stride, 2 * shift % stride, 0)
    grid = lattice.sampling_grid(stride, offsets)
    coefficients = random(1, 3, *lattice.shape)
    dense = lattice.upsample(coefficients, lattice.sampling_grid().weights)
    torch.testing.assert_close(lattice.upsample(coefficients, grid.weights), dense[(..., *grid.slices)])
    places = voxel_points((10, 12, 7)).double()
    assert torch.equal(grid.points(), places[(..., *grid.slices)])
    assert [int(position[0]) for position in grid.positions] == list(offsets)
    assert grid.stride == stride


@pytest.mark.parametrize("stride", [1, 3])
def test_downsampling_is_the_transpose(stride: int) -> None:
    lattice = lattice_of()
    weights = lattice.sampling_grid(stride, (stride - 1, 0, 0)).weights
    coefficients = random(2, 3, *lattice.shape)
    field = lattice.upsample(coefficients, weights)
    values = random(*field.shape, seed=1)
    pulled = lattice.downsample(values, weights)
    assert pulled.shape == coefficients.shape
    torch.testing.assert_close((field * values).sum(), (coefficients * pulled).sum(), rtol=1e-12, atol=0)


# roughness


def minus_laplacian(values: np.ndarray, times: int) -> np.ndarray:
    """Apply the negative discrete Laplacian to the last three axes; SciPy's "reflect" mirrors at the faces."""
    for _ in range(times):
        values = -np.stack([laplace(part, mode="reflect") for part in values])
    return values


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_roughness_is_a_power_of_the_laplacian(order: int) -> None:
    lattice = ControlLattice((9, 13, 11), 2.0, order=order).double()
    coefficients = random(1, 3, *lattice.shape)
    expected = minus_laplacian(coefficients[0].numpy(), order)
    # the modes are kept in single precision
    tolerance = 1e-5 * np.abs(expected).max()
    found = lattice.spectral(coefficients, lattice.roughness)
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=0, atol=tolerance)
    energy = (coefficients[0].numpy() * expected).sum()
    np.testing.assert_allclose(lattice.penalty(coefficients).numpy(), [energy], rtol=1e-5)


def test_factors_of_one_change_nothing() -> None:
    lattice = lattice_of((9, 13, 11), 2.0)
    coefficients = random(2, 3, *lattice.shape)
    torch.testing.assert_close(
        lattice.spectral(coefficients, torch.ones(1, dtype=torch.float64)), coefficients, rtol=0, atol=1e-5
    )


def test_order_two_is_the_bending_energy_with_mixed_terms_counted_twice() -> None:
    lattice = ControlLattice((25, 29, 27), 4.0, order=2).double()
    inner = random(1, 3, *(size - 6 for size in lattice.shape))
    coefficients = torch.nn.functional.pad(inner, (3,) * 6)  # away from the faces
    values = coefficients[0].numpy()
    energy = 0.0
    for first, second in itertools.combinations_with_replacement((1, 2, 3), 2):
        differences = np.diff(np.diff(values, axis=first), axis=second)
        energy += (1 if first == second else 2) * np.square(differences).sum()
    np.testing.assert_allclose(lattice.penalty(coefficients).numpy(), [energy], rtol=1e-5)


@pytest.mark.parametrize(("order", "per_line"), [(1, 4.0), (2, 2.0), (4, 4.0)])
def test_a_slope_costs_at_the_faces_alone(order: int, per_line: float) -> None:
    # 0, 1, 2, 3, 4 along the first axis (5 control points): first differences 1, 1, 1, 1, squared 4;
    # mirrored second differences -1, 0, 0, 0, 1, squared 2; theirs again 1, -1, 0, 1, -1 up to sign, squared 4
    lattice = ControlLattice((9, 13, 11), 4.0, order=order).double()
    slope = torch.arange(5.0, dtype=torch.float64)[:, None, None].expand(1, 1, *lattice.shape)
    lines = lattice.shape[1] * lattice.shape[2]
    torch.testing.assert_close(lattice.penalty(slope), slope.new_tensor([per_line * lines]), rtol=1e-4, atol=0)
    assert float(lattice.penalty(torch.ones_like(slope))) < 1e-3


# flows


def linear_velocity(lattice: ControlLattice, generator: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return coefficients of ``A (x - c)``, and the positions ``x - c`` of the voxels, shape ``(3, D, H, W)``."""
    centre = (torch.tensor(lattice.image_shape, dtype=torch.float64) - 1) / 2
    matrix = torch.from_numpy(generator)
    coefficients = (matrix @ (lattice.control_points() - centre).T).reshape(1, 3, *lattice.shape)
    return coefficients, voxel_points(lattice.image_shape).double() - centre[:, None, None, None]


def test_the_flow_of_a_linear_velocity_is_the_matrix_exponential() -> None:
    # the image is a cube with whole spacings, so the lattice is centred; on its faces the velocity points inwards
    # (0.3 against 0.1 + 0.15), so nothing is read beyond them, and linear interpolation of linear fields is exact
    lattice = lattice_of((13, 13, 13), 4.0)
    generator = np.array([[-0.3, 0.1, 0.15], [-0.15, -0.3, 0.1], [0.1, -0.1, -0.3]])
    coefficients, points = linear_velocity(lattice, generator)
    found = lattice.upsample(lattice.integrate(coefficients, 7), lattice.sampling_grid().weights)[0]

    def moved(matrix: np.ndarray) -> Tensor:
        return torch.einsum("ab,bxyz->axyz", torch.from_numpy(matrix - np.eye(3)), points)

    steps = np.linalg.matrix_power(np.eye(3) + generator / 128, 128)
    torch.testing.assert_close(found, moved(steps), rtol=0, atol=1e-11)
    # what 128 Euler steps leave out is |A|^2 / 256 of the distance, here below 10.4 voxels, at most
    bound = np.linalg.norm(generator, 2) ** 2 / 256 * 10.4
    torch.testing.assert_close(found, moved(expm(generator)), rtol=0, atol=bound)
    assert float(found.abs().max()) > 1


def test_small_velocities_are_displacements() -> None:
    # the flow of v is v + (v . grad) v / 2 + ...: a tenth of the velocity leaves a hundredth of the difference
    lattice = lattice_of((13, 17, 13), 4.0)
    velocity = random(1, 3, *lattice.shape)
    differences = [
        float((lattice.integrate(velocity * scale, 7) - velocity * scale).abs().max()) for scale in (1e-2, 1e-3)
    ]
    assert differences[0] < 1e-3
    assert differences[1] < differences[0] / 90


def test_a_constant_velocity_is_a_translation_up_to_the_faces() -> None:
    lattice = lattice_of((9, 13, 11), 4.0)
    velocity = torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64)[:, None, None, None].expand(1, 3, *lattice.shape)
    torch.testing.assert_close(lattice.integrate(velocity, 7), velocity.clone(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [5, 7])
def test_the_flow_of_a_rotation_turns(steps: int) -> None:
    # far from the faces, where the flow leaves the lattice; Euler steps leave out |A|^2 / 2^(steps + 1) of the radius
    lattice = lattice_of((25, 25, 13), 4.0)
    generator = np.array([[0.0, 0.5, 0.0], [-0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    coefficients, points = linear_velocity(lattice, generator)
    found = lattice.upsample(lattice.integrate(coefficients, steps), lattice.sampling_grid().weights)[0]
    turn = torch.from_numpy(expm(generator) - np.eye(3))
    inner = (slice(None), slice(8, -8), slice(8, -8), slice(None))
    expected = torch.einsum("ab,bxyz->axyz", turn, points)
    bound = 0.25 / 2 ** (steps + 1) * 6.0
    torch.testing.assert_close(found[inner], expected[inner], rtol=0, atol=bound)
    assert float((found - expected)[inner].abs().max()) > bound / 10  # the bound is no looser than it need be


# types, devices, errors


def test_single_precision_is_close_to_double() -> None:
    lattice = ControlLattice((9, 13, 11), 4.0)
    coefficients = random(1, 3, *lattice.shape)
    single = lattice.integrate(coefficients.float(), 7)
    assert single.dtype == torch.float32
    double = lattice_of().integrate(coefficients, 7)
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-4)
    assert lattice.control_points().dtype == torch.float32


def test_everything_is_made_where_the_lattice_lies() -> None:
    lattice = ControlLattice((9, 13, 11), 4.0).to("meta")
    grid = lattice.sampling_grid(2)
    assert {tensor.device.type for tensor in (*grid.weights, grid.points(), lattice.control_points())} == {"meta"}
    coefficients = torch.empty(2, 3, *lattice.shape, device="meta")
    assert lattice.upsample(lattice.integrate(coefficients, 2), grid.weights).shape == (2, 3, 5, 7, 6)
    assert lattice.penalty(coefficients).shape == (2,)


@pytest.mark.parametrize(
    ("shape", "spacing", "order", "got"),
    [
        ((9, 13), 4.0, 4, "(9, 13), 4.0 and 4"),
        ((9, 1, 11), 4.0, 4, "(9, 1, 11), 4.0 and 4"),
        ((9, 13, 11), 0.5, 4, "(9, 13, 11), 0.5 and 4"),
        ((9, 13, 11), float("nan"), 4, "(9, 13, 11), nan and 4"),
        ((9, 13, 11), float("inf"), 4, "(9, 13, 11), inf and 4"),
        ((9, 13, 11), 4.0, 0, "(9, 13, 11), 4.0 and 0"),
    ],
)
def test_a_lattice_that_cannot_be_is_refused(shape: tuple[int, ...], spacing: float, order: int, got: str) -> None:
    with pytest.raises(GeometryError) as caught:
        ControlLattice(shape, spacing, order=order)
    assert str(caught.value) == (
        "control lattice: expected three axes of at least 2 voxels, a spacing of at least 1 voxel and an order of at "
        f"least 1, got {got}"
    )
