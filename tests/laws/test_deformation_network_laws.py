"""What holds for every lattice, grid, design and code."""

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from monai_fair.geometry import voxel_points
from monai_fair.networks import ConditionedSIREN, ControlLattice, DeformationINR, LatticeINR, SamplingGrid

SETTINGS = settings(max_examples=40, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**31 - 1)


def random(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


@st.composite
def lattices(draw: Any) -> ControlLattice:
    shape = draw(st.tuples(*[st.integers(2, 14)] * 3))
    spacing = draw(st.floats(1.0, 9.0))
    return ControlLattice(shape, spacing, order=draw(st.integers(1, 4))).double()


@st.composite
def sampling_grids(draw: Any, lattice: ControlLattice) -> SamplingGrid:
    stride = draw(st.integers(1, min(lattice.image_shape)))
    return lattice.sampling_grid(stride, draw(st.tuples(*[st.integers(0, stride - 1)] * 3)))


@st.composite
def designs(draw: Any, *, linear: bool = False) -> DeformationINR:
    """Draw a network with weights as after training, of either design; ``linear`` ones are linear in their codes."""
    shape = draw(st.tuples(*[st.integers(5, 10)] * 3))
    spacing = draw(st.sampled_from([2.0, 3.5, 4.0]))
    torch.manual_seed(draw(SEEDS))
    network: DeformationINR
    if linear or draw(st.booleans()):
        steps = 0 if linear else draw(st.sampled_from([0, 3]))
        network = LatticeINR(shape, spacing=spacing, width=5, hidden=4, depth=1, integration_steps=steps)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    else:
        chunk = draw(st.sampled_from([7, 200, 65_536]))
        network = ConditionedSIREN(shape, spacing=spacing, width=5, hidden=4, omega=5.0, scaled=True, chunk=chunk)
        torch.nn.init.normal_(network.siren.scale.weight, std=0.1)  # type: ignore[union-attr]
    return network.double()


def codes_of(network: DeformationINR, count: int, seed: int) -> Tensor:
    return random(count, *network.code_shape, seed=seed, scale=0.2)


@SETTINGS
@given(lattices())
def test_a_lattice_keeps_constants_and_lines_everywhere(lattice: ControlLattice) -> None:
    places = voxel_points(lattice.image_shape).double()
    coefficients = torch.cat([torch.ones(1, lattice.size, dtype=torch.float64), lattice.control_points().T])
    field = lattice.upsample(coefficients.reshape(1, 4, *lattice.shape), lattice.sampling_grid().weights)[0]
    torch.testing.assert_close(field[0], torch.ones_like(places[0]), rtol=0, atol=1e-12)
    torch.testing.assert_close(field[1:], places, rtol=0, atol=1e-10)
    for axis in range(3):
        line = lattice.node_weights(axis) @ torch.arange(lattice.shape[axis], dtype=torch.float64)
        torch.testing.assert_close(line, torch.arange(lattice.shape[axis], dtype=torch.float64), rtol=0, atol=1e-12)


@SETTINGS
@given(lattices(), SEEDS)
def test_roughness_is_never_negative_and_ignores_constants(lattice: ControlLattice, seed: int) -> None:
    coefficients = random(2, 3, *lattice.shape, seed=seed)
    energy = lattice.penalty(coefficients)
    assert bool((energy > 0).all())
    torch.testing.assert_close(lattice.penalty(coefficients + 5.0), energy, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lattice.penalty(3.0 * coefficients), 9.0 * energy)


@SETTINGS
@given(st.data(), lattices(), SEEDS)
def test_down_is_the_transpose_of_up(data: Any, lattice: ControlLattice, seed: int) -> None:
    grid = data.draw(sampling_grids(lattice))
    coefficients = random(2, 3, *lattice.shape, seed=seed)
    field = lattice.upsample(coefficients, grid.weights)
    values = random(*field.shape, seed=seed + 1)
    both = (field * values).sum(), (coefficients * lattice.downsample(values, grid.weights)).sum()
    torch.testing.assert_close(*both, rtol=1e-10, atol=1e-10)


@SETTINGS
@given(st.data(), designs(), SEEDS)
def test_any_grid_is_a_slice_of_all_voxels(data: Any, network: DeformationINR, seed: int) -> None:
    grid = data.draw(sampling_grids(network.lattice))
    codes, residual = codes_of(network, 2, seed), random(2, 3, *network.lattice.shape, seed=seed + 1, scale=0.1)
    with torch.no_grad():
        whole = network(codes, network.lattice.sampling_grid(), residual)
        torch.testing.assert_close(network(codes, grid, residual), whole[(..., *grid.slices)])


@SETTINGS
@given(designs())
def test_codes_of_zeros_are_the_identity(network: DeformationINR) -> None:
    codes = torch.zeros(2, *network.code_shape, dtype=torch.float64)
    with torch.no_grad():
        assert not network(codes, network.lattice.sampling_grid()).any()
        assert not network.inverse(codes, network.lattice.sampling_grid()).any()
        assert not network.penalty(codes).any()


@SETTINGS
@given(designs(), SEEDS)
def test_a_subject_does_not_depend_on_the_others_of_its_batch(network: DeformationINR, seed: int) -> None:
    codes, grid = codes_of(network, 3, seed), network.lattice.sampling_grid(2)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        whole, penalty = network(codes, grid), network.penalty(codes)
        torch.testing.assert_close(network(codes[order], grid), whole[order])
        torch.testing.assert_close(network(codes[1:2], grid), whole[1:2])
        torch.testing.assert_close(network.penalty(codes[order]), penalty[order], rtol=1e-6, atol=1e-9)


@SETTINGS
@given(st.data(), designs(), SEEDS)
def test_pulling_is_the_transpose_of_pushing(data: Any, network: DeformationINR, seed: int) -> None:
    grid = data.draw(sampling_grids(network.lattice))
    with torch.no_grad():
        linear = network.linearise(codes_of(network, 2, seed), grid)
        change = codes_of(network, 2, seed + 1)
        values = random(*linear.push(change).shape, seed=seed + 2)
        both = (linear.push(change) * values).sum(), (change * linear.pull(values)).sum()
    torch.testing.assert_close(*both, rtol=1e-9, atol=1e-9)


@SETTINGS
@given(designs(linear=True), SEEDS, st.floats(-3, 3))
def test_displacements_of_a_lattice_are_linear_in_codes(network: DeformationINR, seed: int, factor: float) -> None:
    first, second, grid = codes_of(network, 1, seed), codes_of(network, 1, seed + 1), network.lattice.sampling_grid()
    with torch.no_grad():
        both = network(first + factor * second, grid)
        torch.testing.assert_close(both, network(first, grid) + factor * network(second, grid))


@SETTINGS
@given(designs())
def test_forms_are_symmetric_and_never_negative(network: DeformationINR) -> None:
    with torch.no_grad():
        for form in network.metric():
            scale = float(form.abs().max())
            torch.testing.assert_close(form, form.T, rtol=0, atol=1e-5 * scale)
            assert float(torch.linalg.eigvalsh((form + form.T) / 2).min()) > -1e-6 * scale
