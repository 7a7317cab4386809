"""Geometry that holds for every grid, field and image: a result lives in the world, not in the array."""

from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from monai_fair.geometry import (
    Axes,
    Grid,
    canonical,
    compose,
    exponential,
    invert,
    jacobian,
    jacobian_determinant,
    sample,
    voxel_points,
    warp,
)

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)


@st.composite
def grids(draw: Any) -> Grid:
    """Any shape, rotation, handedness, spacing, shear and place."""
    shape = draw(st.tuples(*[st.integers(4, 8)] * 3))
    angles = draw(st.tuples(*[st.floats(-np.pi, np.pi)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.5, 4)] * 3))
    shear = np.eye(3)
    shear[0, 1:] = draw(st.tuples(*[st.floats(-0.3, 0.3)] * 2))
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", angles).as_matrix()
    affine[:3, :3] = turn @ shear @ np.diag(spacing) * [draw(st.sampled_from([-1, 1])), 1, 1]
    affine[:3, 3] = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    return Grid(shape, affine)


SEEDS = st.integers(0, 2**31)
AXES = st.sampled_from(list(Axes))


def random(shape: tuple[int, ...], seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


@SETTINGS
@given(grids(), AXES, AXES, AXES)
def test_a_way_round_over_other_axes_changes_nothing(grid: Grid, first: Axes, second: Axes, third: Axes) -> None:
    points = np.random.default_rng(0).uniform(0, 3, (7, 3))
    start = grid.points(points, Axes.VOXEL, first)
    direct = grid.points(start, first, third)
    # places are within 300 mm, so that 1e-9 is some thousand times rounding
    np.testing.assert_allclose(grid.points(grid.points(start, first, second), second, third), direct, atol=1e-9)
    np.testing.assert_allclose(grid.points(direct, third, Axes.VOXEL), points, atol=1e-9)


@SETTINGS
@given(grids(), AXES, AXES, SEEDS)
def test_a_displacement_is_the_difference_of_two_points(grid: Grid, source: Axes, target: Axes, seed: int) -> None:
    points = random((*grid.shape, 3), seed)
    vectors = random((*grid.shape, 3), seed + 1)
    expected = grid.points(points + vectors, source, target) - grid.points(points, source, target)
    found = grid.displacement(vectors.movedim(-1, 0), source, target)
    torch.testing.assert_close(found.movedim(0, -1), expected, rtol=0, atol=1e-9)


@SETTINGS
@given(grids(), SEEDS)
def test_no_displacement_changes_no_image(grid: Grid, seed: int) -> None:
    image = random((2, 3, *grid.shape), seed)
    nothing = torch.zeros(2, 3, *grid.shape, dtype=torch.float64)
    torch.testing.assert_close(warp(image, nothing), image, rtol=0, atol=1e-12)
    torch.testing.assert_close(exponential(nothing), nothing)
    torch.testing.assert_close(invert(nothing), nothing)
    torch.testing.assert_close(jacobian_determinant(nothing), torch.ones_like(nothing[:, 0]))


@SETTINGS
@given(grids(), SEEDS, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_a_flipped_and_permuted_copy_moves_alike_in_the_world(
    grid: Grid, seed: int, order: list[int], flips: tuple[bool, bool, bool]
) -> None:
    # G2: array, affine and field are rewritten in other axes by indexing alone; every result in millimetres stays
    image, field = random((1, 1, *grid.shape), seed), random((1, 3, *grid.shape), seed + 1)
    backwards = [axis + 2 for axis, flip in enumerate(flips) if flip]

    def copy(values: Tensor) -> Tensor:
        leading = values.dim() - 3
        return values.flip([axis + leading - 2 for axis in backwards]).permute(
            *range(leading), *(leading + axis for axis in order)
        )

    # old index = signs * new index (in old order) + start
    signs = np.where(flips, -1, 1)
    back = np.eye(4)
    back[:3, :3] = np.diag(signs)
    back[:3, 3] = np.where(flips, np.array(grid.shape) - 1, 0)
    permuted = np.eye(4)[:, [*order, 3]]
    other = Grid(tuple(grid.shape[axis] for axis in order), grid.affine @ back @ permuted)  # type: ignore[arg-type]
    in_world = grid.displacement(field, Axes.VOXEL, Axes.RAS)
    other_field = other.displacement(copy(in_world), Axes.RAS, Axes.VOXEL)

    # its own components are those of the first, permuted, with the sign of the flip
    expected = copy(field * torch.from_numpy(signs)[:, None, None, None])[:, order]
    torch.testing.assert_close(other_field, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(warp(copy(image), other_field), copy(warp(image, field)), rtol=0, atol=1e-9)
    determinant = jacobian_determinant(field)
    torch.testing.assert_close(jacobian_determinant(other_field), copy(determinant), rtol=1e-9, atol=1e-9)
    flow = grid.displacement(exponential(field * 0.2, steps=3), Axes.VOXEL, Axes.RAS)
    other_flow = other.displacement(exponential(other_field * 0.2, steps=3), Axes.VOXEL, Axes.RAS)
    torch.testing.assert_close(other_flow, copy(flow), rtol=0, atol=1e-9)
    # and both have one canonical form
    (first, on), (second, on_other) = canonical(image.numpy(), grid), canonical(copy(image).numpy(), other)
    np.testing.assert_allclose(on_other.affine, on.affine, atol=1e-9)
    np.testing.assert_array_equal(first, second)


@SETTINGS
@given(grids(), SEEDS)
def test_canonical_moves_no_voxel_in_the_world(grid: Grid, seed: int) -> None:
    image = random((1, 1, *grid.shape), seed)
    turned, on = canonical(image.numpy(), grid)
    index = np.indices(on.shape).reshape(3, -1).T
    old = grid.points(on.points(index.astype(float), Axes.VOXEL, Axes.RAS), Axes.RAS, Axes.VOXEL)
    np.testing.assert_allclose(old, np.rint(old), atol=1e-9)
    there = tuple(np.rint(old).astype(int).T)
    np.testing.assert_array_equal(turned[0, 0].ravel(), image[0, 0].numpy()[there])


@SETTINGS
@given(grids(), SEEDS)
def test_the_jacobian_of_a_linear_map_is_its_matrix(grid: Grid, seed: int) -> None:
    matrix = torch.eye(3, dtype=torch.float64) + random((3, 3), seed, 0.5)
    points = voxel_points(grid.shape).double()
    field = torch.einsum("ab,bxyz->axyz", matrix - torch.eye(3), points)[None]
    expected = matrix[..., None, None, None].expand(3, 3, *grid.shape)
    torch.testing.assert_close(jacobian(field)[0], expected, rtol=0, atol=1e-11)
    determinant = torch.full((1, *grid.shape), torch.linalg.det(matrix).item(), dtype=torch.float64)
    torch.testing.assert_close(jacobian_determinant(field), determinant, rtol=0, atol=1e-10)
    # in millimetres the map is another matrix of the same determinant
    linear_part = torch.from_numpy(grid.affine[:3, :3].copy())
    in_world = linear_part @ matrix @ torch.linalg.inv(linear_part)
    torch.testing.assert_close(torch.linalg.det(in_world), torch.linalg.det(matrix), rtol=1e-9, atol=1e-9)


@SETTINGS
@given(grids(), SEEDS)
def test_warping_with_a_composition_is_warping_twice(grid: Grid, seed: int) -> None:
    # exact where the first warp is of whole voxels, which need no interpolation
    image = random((1, 1, *grid.shape), seed)
    outer = torch.round(random((1, 3, *grid.shape), seed + 1))
    inner = torch.round(random((1, 3, *grid.shape), seed + 2))
    # an inner target beyond the faces is read from the nearest voxel, in both ways only if it stays inside
    points = voxel_points(grid.shape).double()
    size = torch.tensor(grid.shape)[:, None, None, None] - 1
    inner = torch.minimum((points + inner).clamp(min=0), size) - points
    torch.testing.assert_close(warp(image, compose(outer, inner)), warp(warp(image, outer), inner), rtol=0, atol=1e-9)


@SETTINGS
@given(grids(), SEEDS)
def test_sampling_is_linear_and_stays_between_the_voxels(grid: Grid, seed: int) -> None:
    first, second = random((1, 1, *grid.shape), seed), random((1, 1, *grid.shape), seed + 1)
    points = random((1, 3, 3, 4, 5), seed + 2, 4)
    both = sample(2 * first - 3 * second, points)
    expected = 2 * sample(first, points) - 3 * sample(second, points)
    torch.testing.assert_close(both, expected, rtol=0, atol=1e-11)
    found = sample(first, points)
    assert first.min() - 1e-12 <= found.min()
    assert found.max() <= first.max() + 1e-12
    chosen = sample(first, points, mode="nearest")
    assert torch.isin(chosen, first).all()
