"""What holds for every registration: of steps, of comparisons, of orientations, of tables."""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor

from monai_fair.data import write_volume
from monai_fair.engines import CodeTable, Level, SubjectFit, TemplateMatch, read_codes
from monai_fair.engines.cohort_images import read_on_grid
from monai_fair.engines.gauss_newton import Quadratic, newton_step
from monai_fair.engines.image_match import Match
from monai_fair.geometry import Grid, warp
from monai_fair.networks import LatticeINR

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
FEW = settings(max_examples=8, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**31)
SIZES = st.integers(1, 8)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth(*shape: int, seed: int, sigma: float) -> Tensor:
    noise = np.random.default_rng(seed).normal(size=shape)
    blurred = gaussian_filter(noise, [0] * (len(shape) - 3) + [sigma] * 3, mode="nearest")
    return torch.from_numpy(blurred / blurred.std()).float()


# steps


@SETTINGS
@given(SIZES, st.integers(1, 4), SIZES, st.integers(0, 12), st.floats(-3, 3), SEEDS)
def test_a_step_never_raises_the_model(
    size: int, batch: int, rank: int, iterations: int, power: float, seed: int
) -> None:
    """For any positive semi-definite matrix, also a singular one whose equations cannot all be met."""
    root = random(batch, size, rank, seed=seed)
    matrix = root @ root.mT * 10**power
    gradient = random(batch, size, seed=seed + 1)

    def step_of(factor: float, order: Tensor) -> Tensor:
        model = Quadratic(
            factor * gradient[order],
            lambda step: factor * torch.einsum("bij,bj->bi", matrix[order], step),
            lambda values: values / factor,
        )
        return newton_step(model, min(iterations, rank))

    order = torch.arange(batch)
    step = step_of(1.0, order)
    value = (gradient * step).sum(dim=1) + torch.einsum("bi,bij,bj->b", step, matrix, step) / 2
    assert torch.isfinite(step).all()
    assert (value <= 1e-9 * value.abs()).all()
    # another unit of the objective, another order of the batch
    torch.testing.assert_close(step_of(100.0, order), step, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(step_of(1.0, order.flip(0)), step.flip(0), rtol=1e-9, atol=1e-12)


@SETTINGS
@given(st.tuples(SIZES, SIZES, SIZES), st.integers(1, 3), SEEDS)
def test_the_curvature_is_symmetric_and_never_negative(shape: tuple[int, int, int], batch: int, seed: int) -> None:
    residual, weight = random(batch, *shape, seed=seed), random(batch, *shape, seed=seed + 1).square()
    gradient = random(batch, 3, *shape, seed=seed + 2)
    match = Match(residual, gradient, weight, torch.ones(batch))
    one, two = (random(batch, 3, *shape, seed=seed + each) for each in (3, 4))
    left, right = (one * match.curvature(two)).sum(), (two * match.curvature(one)).sum()
    torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-9)
    assert (one * match.curvature(one)).sum() >= 0
    # moved along its gradient so far that the residual is gone, a voxel has no force left
    length = gradient.square().sum(dim=1)
    back = -gradient * (residual / length)[:, None]
    torch.testing.assert_close(match.curvature(back), -match.force(), rtol=1e-9, atol=1e-9)


@SETTINGS
@given(st.lists(st.tuples(st.floats(0, 9), st.integers(1, 9), st.integers(1, 9)), max_size=4))
def test_levels_are_read_once(levels: list[tuple[float, int, int]]) -> None:
    parsed = Level.parse(levels)
    assert [(level.blur_vox, level.stride, level.steps) for level in parsed] == levels
    assert Level.parse(parsed) == parsed


# comparisons


@SETTINGS
@given(SEEDS, st.floats(0.01, 100), st.floats(-10, 10))
def test_gain_and_offset_do_not_count(seed: int, gain: float, offset: float) -> None:
    shape = (12, 13, 14)
    match = TemplateMatch(smooth(*shape, seed=seed, sigma=1), torch.ones(shape), [0.5], sigma_vox=2.0, epsilon=0.3)
    image = smooth(1, *shape, seed=seed + 1, sigma=1)
    found = match.normalised(gain * (image + offset), 0)
    torch.testing.assert_close(found, match.normalised(image, 0), rtol=0, atol=1e-3)


SHAPE = (21, 25, 21)  # in these sizes lattice, cosines and strides are their own mirror images
LEVELS = [[1.0, 2, 4]]
RESIDUAL = [[0.5, 2, 2], [0.5, 1, 1]]


def registered(template: Tensor, subject: Tensor) -> Tensor:
    match = TemplateMatch(template, torch.ones(SHAPE), [1.0, 0.5, 0.5], sigma_vox=2.0, epsilon=0.3)
    torch.manual_seed(0)
    network = LatticeINR(SHAPE, spacing=4.0, order=4, width=60, hidden=8, depth=1)
    torch.nn.init.zeros_(network.trunk.change[-1].weight)
    fit = SubjectFit(match, code_levels=LEVELS, residual_levels=RESIDUAL, smoothness=0.1, iterations=8)
    return fit(subject[None], network).displacement(network)


@FEW
@given(SEEDS, st.sampled_from([axes for count in (1, 2, 3) for axes in itertools.combinations(range(3), count)]))
def test_the_mirror_image_is_registered_by_the_mirrored_field(seed: int, axes: tuple[int, ...]) -> None:
    template = smooth(*SHAPE, seed=seed, sigma=1.5)
    truth = 0.7 * smooth(1, 3, *SHAPE, seed=seed + 1, sigma=4.0)
    subject = warp(template[None, None], truth)[0, 0]
    field = registered(template, subject)
    assert (field - truth).norm(dim=1).mean() < 0.5 * truth.norm(dim=1).mean()
    mirrored = registered(template.flip(axes), subject.flip(axes)).flip([axis + 2 for axis in axes])
    sign = torch.tensor([-1.0 if axis in axes else 1.0 for axis in range(3)])[:, None, None, None]
    torch.testing.assert_close(sign * mirrored, field, rtol=0, atol=5e-3)


# orientations


@settings(max_examples=48, deadline=None, derandomize=True)
@given(st.permutations(range(3)), st.tuples(*[st.sampled_from([1, -1])] * 3), SEEDS)
def test_an_image_in_any_orientation_is_read_as_one(order: list[int], flips: tuple[int, ...], seed: int) -> None:
    grid = Grid.isotropic((4, 5, 6), 2.0)
    array = np.random.default_rng(seed).normal(size=grid.shape).astype(np.float32)
    turn = np.array(list(zip(order, flips, strict=True)), dtype=float)
    moved = nib.orientations.apply_orientation(array, turn)
    affine = grid.affine @ nib.orientations.inv_ornt_aff(turn, grid.shape)
    with tempfile.TemporaryDirectory() as folder:
        found = read_on_grid(write_volume(Path(folder) / "image.nii.gz", moved, Grid(moved.shape, affine)), grid)
    np.testing.assert_array_equal(found.array, array)


# tables


@SETTINGS
@given(
    st.lists(st.text(min_size=1, max_size=8), unique=True, min_size=1, max_size=6),
    st.lists(st.integers(1, 4), min_size=1, max_size=2),
    st.randoms(),
    SEEDS,
)
def test_a_table_of_codes_is_kept_by_its_rows(subjects: list[str], shape: list[int], order: Any, seed: int) -> None:
    change = random(len(subjects), *shape, seed=seed).float()
    rows = list(range(len(subjects)))
    order.shuffle(rows)
    whole, parts = CodeTable(subjects, shape), CodeTable(subjects, shape)
    whole.add(torch.arange(len(subjects)), change)
    for row in rows:  # in any order of batches
        parts.add(torch.tensor([row]), change[[row]])
    assert torch.equal(whole.values, parts.values)
    with tempfile.TemporaryDirectory() as folder:
        names, codes = read_codes(whole.save(Path(folder) / "codes.safetensors"))
    assert names == subjects
    assert torch.equal(codes, change)
