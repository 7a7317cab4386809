"""The trunk's features: cosines of lowest frequency by brute force and SciPy, and what is learned on top."""

import itertools

import numpy as np
import pytest
import torch
from scipy.fft import idctn

from monai_fair.geometry import voxel_points
from monai_fair.networks import CoordinateTrunk

SHAPE = (6, 8, 10)


def test_it_starts_as_the_lowest_modes_of_a_cosine_transform() -> None:
    trunk = CoordinateTrunk(SHAPE, width=20, hidden=8).double()
    features = trunk(voxel_points(SHAPE).double().flatten(1).T)
    for number, frequency in enumerate(trunk.frequencies.int().tolist()):
        spectrum = np.zeros(SHAPE)
        spectrum[tuple(frequency)] = 1.0
        # SciPy's inverse DCT-II has a factor 2 for each wave that is not 0, and divides by 2 n
        scale = np.prod([2 * size for size in SHAPE]) / 2 ** sum(wave > 0 for wave in frequency)
        np.testing.assert_allclose(
            features[:, number].detach().numpy(), (idctn(spectrum) * scale).ravel(), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize(
    ("shape", "width"),
    [((80, 96, 80), 512), ((24, 28, 24), 16), ((16, 96, 96), 512), ((2, 2, 60), 30), ((3, 50, 4), 1)],
)
def test_no_frequency_left_out_is_lower(shape: tuple[int, int, int], width: int) -> None:
    found = CoordinateTrunk(shape, width=width, hidden=2).frequencies.numpy()
    assert found.shape == (width, 3)
    assert len({tuple(triple) for triple in found}) == width
    lengths = np.linalg.norm(found / shape, axis=1)
    assert (np.diff(lengths) >= -1e-7).all()
    # all triples of a box that reaches past the highest frequency found
    box = [range(int(lengths.max() * size) + 2) for size in shape]
    every = np.sort(np.linalg.norm(np.array(list(itertools.product(*box))) / shape, axis=1))
    np.testing.assert_allclose(lengths, every[:width], atol=1e-7)


def test_the_change_is_learned_from_the_first_step_on() -> None:
    torch.manual_seed(0)
    trunk = CoordinateTrunk(SHAPE, width=20, hidden=8)
    points = torch.rand(50, 3) * 5
    before = trunk(points)
    before.square().sum().backward()
    last = trunk.change[-1]
    assert isinstance(last, torch.nn.Linear)
    assert last.weight.grad is not None
    assert bool((last.weight.grad != 0).any())
    with torch.no_grad():
        last.weight.normal_()
    assert float((trunk(points) - before).detach().abs().max()) > 0.1


def test_a_place_gives_the_same_features_at_any_resolution() -> None:
    # half the voxels of twice the size: the centre of voxel x lies at 2 x + 1/2 of the fine image
    coarse, fine = (CoordinateTrunk(shape, width=20, hidden=8) for shape in (SHAPE, (12, 16, 20)))
    fine.load_state_dict(coarse.state_dict())
    points = torch.rand(30, 3) * 5
    torch.testing.assert_close(coarse(points), fine(2 * points + 0.5))


@pytest.mark.parametrize(("depth", "layers"), [(0, 1), (1, 3), (3, 7)])
def test_depth_counts_hidden_layers(depth: int, layers: int) -> None:
    trunk = CoordinateTrunk(SHAPE, width=5, hidden=7, depth=depth)
    assert len(trunk.change) == layers  # a linear layer and its activation each, and the last one
    assert trunk(torch.zeros(4, 3)).shape == (4, 5)


def test_only_what_is_learned_is_saved() -> None:
    names = CoordinateTrunk(SHAPE, width=5, hidden=8, depth=1).state_dict().keys()
    assert set(names) == {"change.0.weight", "change.0.bias", "change.2.weight", "change.2.bias"}
