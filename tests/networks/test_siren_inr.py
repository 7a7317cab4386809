"""The conditioned SIREN: its formula in NumPy, derivatives in three ways, bounded memory, a toy cohort it learns."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor
from torch.utils.data import DataLoader

from monai_fair.data import write_volume
from monai_fair.engines.code_table import CodeTable
from monai_fair.engines.cohort_images import CohortImages
from monai_fair.engines.cohort_trainer import CohortTrainer
from monai_fair.engines.image_match import Level, TemplateMatch
from monai_fair.errors import MonaiFairError
from monai_fair.geometry import inverse_error, jacobian_determinant
from monai_fair.losses import displacement_jacobian
from monai_fair.networks import ConditionedSIREN, DeformationINR, ModulatedSIREN, SamplingGrid
from monai_fair.simulation import load_brain_anatomy, simulate_brain_subject

SHAPE = (9, 13, 11)
# forward-mode differentiation loads parts of torch that torch itself calls deprecated
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def network_of(*, scaled: bool = False, chunk: int = 65_536, kept_mb: float = 1024.0) -> ConditionedSIREN:
    """Return a network as after training: the scales are not zero, and unit codes move some tenths of a voxel."""
    torch.manual_seed(0)
    network = ConditionedSIREN(SHAPE, width=6, hidden=8, omega=10.0, scaled=scaled, chunk=chunk, kept_mb=kept_mb)
    if network.siren.scale is not None:
        torch.nn.init.normal_(network.siren.scale.weight, std=0.1)
    return network.double()


def dense(network: DeformationINR) -> SamplingGrid:
    return network.lattice.sampling_grid()


# the formula


@pytest.mark.parametrize("scaled", [False, True])
def test_values_are_those_of_the_formula(scaled: bool) -> None:
    network, codes, points = network_of(scaled=scaled), random(2, 6), random(5, 3, scale=4.0)
    state = {name: value.numpy() for name, value in network.siren.state_dict().items()}

    def siren(point: np.ndarray, code: np.ndarray) -> np.ndarray:
        values = point
        for layer in range(3):
            rows = slice(8 * layer, 8 * layer + 8)
            phase = state[f"layers.{layer}.weight"] @ values + state[f"layers.{layer}.bias"]
            if scaled:
                phase = phase + (state["scale.weight"][rows] @ code) * phase
            values = np.sin(10.0 * (phase + state["shift.weight"][rows] @ code))
        return state["last.weight"] @ values

    # half the longest axis of (9, 13, 11) is 6; the centre is (4, 6, 5)
    unit = (points.numpy() - [4.0, 6.0, 5.0]) / 6.0
    expected = [[6.0 * (siren(x, z) - siren(x, np.zeros(6))) for x in unit] for z in codes.numpy()]
    np.testing.assert_allclose(network.at(codes, points).detach().numpy(), np.array(expected), rtol=0, atol=1e-12)


def test_weights_start_as_published() -> None:
    torch.manual_seed(0)
    siren = ModulatedSIREN(50, hidden=200, depth=3, omega=30.0, scaled=True)
    first, second, third = siren.layers
    bounds = [(first, 1 / 3), *((layer, np.sqrt(6 / 200) / 30) for layer in (second, third, siren.last))]
    bounds.append((siren.shift, np.sqrt(6 / 50) / 30))
    for layer, bound in bounds:
        weights = layer.weight.detach().numpy()
        assert np.abs(weights).max() <= bound
        # a uniform distribution's standard deviation; 600 draws or more know it within 10 %
        np.testing.assert_allclose(weights.std(), bound / np.sqrt(3), rtol=0.1)
    assert siren.scale is not None
    assert not siren.scale.weight.any()


@torch.no_grad()
def test_codes_of_zeros_do_nothing_and_yet_have_a_derivative() -> None:
    for network in (network_of(scaled=True), ConditionedSIREN(SHAPE, width=6, hidden=8).double()):
        codes = torch.zeros(2, 6, dtype=torch.float64)
        nothing = torch.zeros(2, 3, *SHAPE, dtype=torch.float64)
        assert torch.equal(network(codes, dense(network)), nothing)
        assert torch.equal(network.inverse(codes, dense(network)), nothing)
        assert torch.equal(network.penalty(codes), codes[:, 0])
        change = network.linearise(codes, dense(network)).push(torch.ones_like(codes))
        assert float(change.abs().max()) > 1e-4


def test_a_field_is_the_network_at_the_grids_points() -> None:
    network, codes = network_of(), random(2, 6)
    grid = network.lattice.sampling_grid(3, (1, 2, 0))
    found = network(codes, grid)
    for index in np.ndindex(*found.shape[2:]):
        point = torch.stack([position[place] for position, place in zip(grid.positions, index, strict=True)])
        torch.testing.assert_close(found[(..., *index)], network.at(codes, point[None])[:, 0])
    residual = random(2, 3, *network.lattice.shape)
    free = network.lattice.upsample(residual, grid.weights)
    torch.testing.assert_close(network(codes, grid, residual), found + free)


# derivatives


@FORWARD_MODE
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("kept_mb", [1024.0, 0.0])
def test_the_derivative_by_codes_equals_autograd_and_finite_differences(scaled: bool, kept_mb: float) -> None:
    network = network_of(scaled=scaled, chunk=100, kept_mb=kept_mb)
    codes, change = random(2, 6, scale=0.3), random(2, 6, seed=1)
    grid = network.lattice.sampling_grid(2, (1, 0, 1))
    residual = random(2, 3, *network.lattice.shape, seed=2)
    linear = network.linearise(codes, grid, residual)
    other = DeformationINR.linearise(network_of(scaled=scaled), codes, grid, residual)
    torch.testing.assert_close(linear.push(change), other.push(change))
    values = random(*other.push(change).shape, seed=3)
    torch.testing.assert_close(linear.pull(values), other.pull(values))
    with torch.no_grad():
        step = (network(codes + 1e-5 * change, grid) - network(codes - 1e-5 * change, grid)) / 2e-5
        torch.testing.assert_close(linear.push(change), step, rtol=1e-6, atol=1e-8)


def test_the_jacobian_at_points_equals_finite_differences() -> None:
    network, code, points = network_of(scaled=True), random(1, 6), random(20, 3, seed=1, scale=3.0) + 4.0
    found = displacement_jacobian(lambda places: network.at(code, places)[0], points)
    columns = []
    for axis in range(3):
        step = 1e-5 * torch.eye(3, dtype=torch.float64)[axis]
        columns.append(((points + step + network.at(code, points + step)) - (points - step)) / 2e-5)
        columns[-1] = columns[-1] - network.at(code, points - step) / 2e-5
    expected = torch.cat(columns).reshape(3, 20, 3).permute(1, 2, 0)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    assert float((found - torch.eye(3)).detach().abs().max()) > 0.1


def test_forms_are_the_quadratic_part_of_length_and_penalty() -> None:
    network, codes = network_of(scaled=True), random(2, 6)
    length, form = (matrix.detach() for matrix in network.metric())
    small = 1e-4 * codes
    with torch.no_grad():
        field = network.at(small, network.lattice.control_points())
        expected = torch.einsum("bk,kl,bl->b", small, length, small)
        torch.testing.assert_close(field.square().sum(dim=(1, 2)), expected, rtol=1e-2, atol=0)
        expected = torch.einsum("bk,kl,bl->b", small, form, small)
        torch.testing.assert_close(network.penalty(small), expected, rtol=1e-2, atol=0)
        # the prior alone for a direction that makes no field
        network.siren.last.weight.zero_()
        torch.testing.assert_close(network.penalty(codes), codes.square().sum(dim=1))
        torch.testing.assert_close(network.metric()[1], torch.eye(6, dtype=torch.float64))


# memory


def gradients(network: ConditionedSIREN) -> list[Tensor]:
    codes = random(3, 6, scale=0.5)
    loss = network(codes, dense(network)).square().sum() + network.penalty(codes).sum()
    return list(torch.autograd.grad(loss, list(network.parameters())))


def test_chunks_change_no_value_and_no_gradient() -> None:
    whole, parts = network_of(scaled=True), network_of(scaled=True, chunk=50)
    codes = random(3, 6, scale=0.5)
    torch.testing.assert_close(parts(codes, dense(parts)), whole(codes, dense(whole)))
    for one, other in zip(gradients(parts), gradients(whole), strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(parts.metric(), whole.metric(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.fixture
def largest() -> Iterator[list[int]]:
    """Collect the rows, points times codes, of every linear layer that runs."""
    seen: list[int] = []

    def look(module: torch.nn.Module, _: object, output: object) -> None:
        if isinstance(module, torch.nn.Linear):
            assert isinstance(output, Tensor)
            seen.append(output.shape[:-1].numel())

    handle = torch.nn.modules.module.register_module_forward_hook(look)
    yield seen
    handle.remove()


def test_no_more_points_than_a_chunk_pass_at_once(largest: list[int]) -> None:
    network = network_of(chunk=60)
    gradients(network)
    linear = network.linearise(random(3, 6), dense(network))
    linear.pull(linear.push(random(3, 6)))
    network.metric()
    assert 40 < max(largest) <= 60


# use


def test_there_and_back_is_the_identity() -> None:
    network, codes = network_of(), random(1, 6)
    grid = network.lattice.sampling_grid(2, (1, 0, 1))
    with torch.no_grad():
        there, back = network(codes, dense(network)), network.inverse(codes, dense(network))
        assert float(there.abs().max()) > 0.3
        # what the fixed point inverts is the field between voxels, as it is interpolated
        error = inverse_error(there, back)[..., 2:-2, 2:-2, 2:-2]
        assert float(error.max()) < 1e-4
        assert torch.equal(network.inverse(codes, grid), back[(..., *grid.slices)])


def test_weights_are_read_back_without_pickle(tmp_path: Path) -> None:
    network = network_of(scaled=True)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    parser = ConfigParser(
        {"network_def": {"_target_": "monai_fair.networks.ConditionedSIREN", "image_shape": SHAPE, "width": 6}}
    )
    for name, value in {"hidden": 8, "omega": 10.0, "scaled": True, "chunk": 100, "kept_mb": 0.0}.items():
        parser[f"network_def#{name}"] = value
    read = parser.get_parsed_content("network_def").double()
    read.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True), strict=True)
    codes = random(1, 6)
    torch.testing.assert_close(read(codes, dense(read)), network(codes, dense(network)))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(MonaiFairError) as caught:
        ConditionedSIREN(SHAPE, chunk=0)
    assert str(caught.value) == "chunk: expected 1 point or more, got 0"
    with pytest.raises(MonaiFairError) as caught:
        ConditionedSIREN(SHAPE, depth=0)
    assert str(caught.value) == "depth: expected 1 layer of sines or more, got 0"


def test_a_cohort_is_fitted_from_codes_of_zeros(tmp_path: Path) -> None:
    shape = (24, 28, 24)
    anatomy = load_brain_anatomy("phantom", shape=shape)
    rows = []
    for number in range(6):
        image = simulate_brain_subject(number, anatomy=anatomy).image
        path = write_volume(tmp_path / f"{number}.nii.gz", image, anatomy.grid)
        rows.append({"subject_id": str(number), "image": str(path)})
    levels = Level.parse([[1.0, 2, 12]])
    match = TemplateMatch(torch.from_numpy(anatomy.image), torch.from_numpy(anatomy.mask), [1.0])
    data = CohortImages(rows, anatomy.grid, match, tmp_path / "copies", progress=False)
    torch.manual_seed(0)
    network = ConditionedSIREN(shape, width=8, hidden=32, omega=10.0)
    codes = CodeTable(data.subject_ids, network.code_shape)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    loader = DataLoader(data, batch_size=3)

    @torch.no_grad()
    def deformed() -> tuple[float, Tensor]:
        grid = network.lattice.sampling_grid()
        field = network(codes.values, grid)
        subjects = torch.stack([data[number]["image"] for number in range(6)]).float()
        residual = match(field, subjects, grid, 0).residual
        return float((residual.square() * match.mask).sum()), field

    before, field = deformed()
    assert not field.any()
    CohortTrainer("cpu", loader, network, optimizer, match, codes, levels=levels).run()
    after, field = deformed()
    assert after < 0.8 * before
    assert float(jacobian_determinant(field).min()) > 0.5
    assert bool((codes.values.abs().amax(dim=1) > 1e-4).all())
