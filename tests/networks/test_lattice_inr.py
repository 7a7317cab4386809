"""A shared trunk on a lattice: its derivative in three ways, its flow and inverse, and what it keeps and forgets."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from scipy.ndimage import gaussian_filter
from torch import Tensor

from monai_fair.errors import GeometryError
from monai_fair.geometry import inverse_error, jacobian_determinant
from monai_fair.networks import DeformationINR, LatticeINR, SamplingGrid

SHAPE = (13, 17, 13)
# forward-mode differentiation loads parts of torch that torch itself calls deprecated
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")


def network_of(steps: int = 0, *, width: int = 12, shape: tuple[int, int, int] = SHAPE) -> LatticeINR:
    """Return a network as after training: what the trunk adds to the cosines is not zero."""
    torch.manual_seed(0)
    network = LatticeINR(shape, width=width, hidden=8, integration_steps=steps)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.double()


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def dense(network: DeformationINR) -> SamplingGrid:
    return network.lattice.sampling_grid()


def smooth_residual(network: LatticeINR, scale: float) -> Tensor:
    """Return smooth lattice coefficients of at most ``scale`` voxels that fade towards the faces."""
    field = random(1, 3, *network.lattice.shape).numpy()
    field = gaussian_filter(field, (0, 0, 1, 1, 1), mode="constant")
    return torch.from_numpy(field / abs(field).max() * scale)


# what it computes


@pytest.mark.parametrize("steps", [0, 7])
def test_codes_of_zeros_do_nothing_before_and_after_training(steps: int) -> None:
    for network in (network_of(steps), LatticeINR(SHAPE, width=12, hidden=8, integration_steps=steps).double()):
        codes = torch.zeros(2, 3, 12, dtype=torch.float64)
        assert torch.equal(network(codes, dense(network)), torch.zeros(2, 3, *SHAPE, dtype=torch.float64))
        assert torch.equal(network.inverse(codes, dense(network)), torch.zeros(2, 3, *SHAPE, dtype=torch.float64))
        assert torch.equal(network.penalty(codes), torch.zeros(2, dtype=torch.float64))


def test_a_field_is_a_spline_of_features_times_codes() -> None:
    network, codes = network_of(), random(2, 3, 12)
    features = network.trunk(network.lattice.control_points())
    coefficients = torch.einsum("pk,bak->bap", features, codes).reshape(2, 3, *network.lattice.shape)
    weights = dense(network).weights
    expected = torch.einsum("baijk,xi,yj,zk->baxyz", coefficients, *weights)
    torch.testing.assert_close(network(codes, dense(network)), expected)
    # a residual is added to the coefficients
    residual = random(2, 3, *network.lattice.shape, seed=1)
    expected = expected + torch.einsum("baijk,xi,yj,zk->baxyz", residual, *weights)
    torch.testing.assert_close(network(codes, dense(network), residual), expected)


def test_forms_and_penalty_equal_the_fields_they_speak_of() -> None:
    network, codes = network_of(), random(2, 3, 12)
    length, form = network.metric()
    coefficients = network.coefficients(codes)
    quadratic = torch.einsum("bak,kl,bal->b", codes, length, codes)
    torch.testing.assert_close(quadratic, coefficients.square().sum(dim=(1, 2, 3, 4)))
    rough = network.lattice.spectral(coefficients, network.lattice.roughness)
    expected = (coefficients * rough).sum(dim=(1, 2, 3, 4))
    torch.testing.assert_close(torch.einsum("bak,kl,bal->b", codes, form, codes), expected)
    torch.testing.assert_close(network.penalty(codes), expected)
    torch.testing.assert_close(DeformationINR.penalty(network, codes), expected)
    features = network.basis()
    torch.testing.assert_close(length, features.T @ features)


# the derivative


@FORWARD_MODE
@pytest.mark.parametrize("stride", [1, 3])
def test_a_displacement_has_the_derivative_of_autograd_and_finite_differences(stride: int) -> None:
    network, codes, change = network_of(), random(2, 3, 12), random(2, 3, 12, seed=1)
    grid = network.lattice.sampling_grid(stride, (stride - 1, 0, 0))
    residual = random(2, 3, *network.lattice.shape, seed=2)
    linear = network.linearise(codes, grid, residual)
    other = DeformationINR.linearise(network, codes, grid, residual)
    torch.testing.assert_close(linear.push(change), other.push(change))
    # linear in the code: any step gives the derivative
    step = (network(codes + change, grid, residual) - network(codes - change, grid, residual)) / 2
    torch.testing.assert_close(linear.push(change), step)
    values = random(*step.shape, seed=3)
    torch.testing.assert_close(linear.pull(values), other.pull(values))
    torch.testing.assert_close((linear.push(change) * values).sum(), (change * linear.pull(values)).sum())


@FORWARD_MODE
def test_the_derivative_of_a_velocity_is_that_of_its_displacement() -> None:
    # log-domain demons: exact at the identity, an approximation that falls behind as the deformation grows
    network, change = network_of(7), random(2, 3, 12, seed=1)
    grid = dense(network)
    errors = []
    for size in (0.0, 0.01, 0.05):
        codes = random(2, 3, 12, scale=size)
        linear, other = network.linearise(codes, grid), DeformationINR.linearise(network, codes, grid)
        expected = other.push(change).detach()
        errors.append(float((linear.push(change).detach() - expected).norm() / expected.norm()))
        values = random(*expected.shape, seed=3)
        torch.testing.assert_close((linear.push(change) * values).sum(), (change * linear.pull(values)).sum())
    assert errors[0] < 1e-12
    assert errors[0] < errors[1] < errors[2] < 0.25


def test_autograd_of_a_flow_equals_finite_differences() -> None:
    network = network_of(4, width=4)
    grid = network.lattice.sampling_grid(4)
    codes = random(1, 3, 4, scale=0.05).requires_grad_()
    assert torch.autograd.gradcheck(lambda value: network(value, grid), (codes,), atol=1e-6)


# flows and inverses


@torch.no_grad()
@pytest.mark.parametrize("steps", [0, 7])
def test_there_and_back_is_the_identity(steps: int) -> None:
    network = network_of(steps, shape=(25, 29, 25))
    codes = torch.zeros(1, 3, 12, dtype=torch.float64)
    residual = smooth_residual(network, 3.0)
    there = network(codes, dense(network), residual)
    back = network.inverse(codes, dense(network), residual)
    error = inverse_error(there, back)[..., 3:-3, 3:-3, 3:-3]
    assert float(there.abs().max()) > 1.5
    # a fixed point stops when it moves by less than 1e-3 voxels; flows are integrated on control points 4 voxels apart
    assert float(error.max()) < {0: 1e-3, 7: 0.2}[steps]
    assert float(error.mean()) < {0: 1e-5, 7: 0.05}[steps]
    grid = network.lattice.sampling_grid(3, (1, 2, 0))
    torch.testing.assert_close(network.inverse(codes, grid, residual), back[(..., *grid.slices)])


@torch.no_grad()
def test_a_velocity_does_not_fold_where_its_displacement_does() -> None:
    shape = (25, 29, 25)
    plain, flowing = network_of(0, shape=shape), network_of(7, shape=shape)
    codes = torch.zeros(1, 3, 12, dtype=torch.float64)
    residual = smooth_residual(plain, 11.0)
    assert float(jacobian_determinant(plain(codes, dense(plain), residual)).min()) < -0.1
    assert float(jacobian_determinant(flowing(codes, dense(flowing), residual)).min()) > 0.01


def test_flipped_axes_give_the_flipped_field() -> None:
    # whole spacings, so that the lattice is symmetric; a cosine of odd frequency changes its sign
    network = LatticeINR(SHAPE, width=30, hidden=8, integration_steps=3).double()
    codes = random(1, 3, 30, scale=0.05)
    field = network(codes, dense(network))
    for axis in range(3):
        signs = (1.0 - 2.0 * (network.trunk.frequencies[:, axis] % 2)).expand(3, -1).clone()
        signs[axis] *= -1  # of the component along the axis
        flipped = field.flip(axis + 2).clone()
        flipped[:, axis] *= -1
        torch.testing.assert_close(network(codes * signs, dense(network)), flipped, rtol=0, atol=1e-6)


# what is kept


def count_evaluations(network: LatticeINR) -> list[int]:
    calls: list[int] = []
    network.trunk.register_forward_hook(lambda *_: calls.append(1))
    return calls


def gradients(network: LatticeINR, *, inner: Callable[[], None] = lambda: None) -> list[Tensor]:
    network.zero_grad()
    inner()
    codes = random(2, 3, 12)
    loss = network(codes, dense(network)).square().sum() + network.penalty(codes).sum()
    loss.backward()
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def test_held_gives_the_same_gradients_from_one_evaluation() -> None:
    network = network_of()
    expected = gradients(network)
    calls = count_evaluations(network)

    def look() -> None:
        # a first look without gradients must not take them from what follows
        with torch.no_grad():
            network.linearise(random(2, 3, 12), dense(network))

    with network.held():
        found = gradients(network, inner=look)
    assert len(calls) == 1
    assert len(found) == len(expected) == len(list(network.parameters()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    gradients(network)
    assert len(calls) == 3  # forward and penalty again, after the block


def test_features_are_kept_in_evaluation_mode_until_the_weights_change() -> None:
    network, other = network_of().eval(), LatticeINR(SHAPE, width=12, hidden=8).double()
    calls = count_evaluations(network)
    codes = random(1, 3, 12)
    with torch.inference_mode():
        first = network(codes, dense(network)).clone()
    assert torch.equal(network(codes, dense(network)), first)
    assert len(calls) == 1
    assert not network.basis().requires_grad
    # features made in inference mode serve gradients of codes
    codes.requires_grad_()
    network(codes, dense(network)).sum().backward()
    assert codes.grad is not None
    network.load_state_dict(other.state_dict())
    assert float((network(codes, dense(network)) - first).detach().abs().max()) > 0.1
    network.load_state_dict(network_of().state_dict())
    network.train()
    with torch.no_grad():
        next(network.parameters()).add_(1.0)
    network.eval()
    assert float((network(codes, dense(network)) - first).detach().abs().max()) > 1e-3
    assert network.float()(codes.detach().float(), dense(network)).dtype == torch.float32


def test_a_copy_of_a_network_in_evaluation_mode_learns_for_itself() -> None:
    network = network_of().eval()
    network.basis()
    twin = copy.deepcopy(network)
    twin.load_state_dict(LatticeINR(SHAPE, width=12, hidden=8).state_dict())
    assert float((twin.basis() - network.basis()).abs().max()) > 0.1


# configurations and files


def test_weights_are_read_back_without_pickle(tmp_path: Path) -> None:
    network = network_of(7)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    read = LatticeINR(SHAPE, width=12, hidden=8, integration_steps=7).double()
    read.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True, map_location="cpu"), strict=True)
    codes = random(1, 3, 12, scale=0.05)
    assert torch.equal(read(codes, dense(read)), network(codes, dense(network)))
    assert all(name.startswith("trunk.") for name in network.state_dict())


def test_a_configuration_names_every_choice() -> None:
    choices = {"spacing": 3, "order": 2, "width": 7, "hidden": 9, "depth": 1, "integration_steps": 5, "amp": True}
    parser = ConfigParser({"network_def": {"_target_": "monai_fair.networks.LatticeINR", "image_shape": [9, 13, 11]}})
    for name, value in choices.items():
        parser[f"network_def#{name}"] = value
    network = parser.get_parsed_content("network_def")
    assert isinstance(network, LatticeINR)
    assert (network.lattice.spacing, network.lattice.order, network.code_shape) == (3.0, 2, (3, 7))
    assert (network.integration_steps, network.amp) == (5, True)
    assert [tuple(parameter.shape) for parameter in network.parameters()] == [(9, 10), (9,), (7, 9), (7,)]


def test_half_precision_in_the_trunk_changes_little() -> None:
    exact = network_of().float()
    coarse = LatticeINR(SHAPE, width=12, hidden=8, amp=True)
    coarse.load_state_dict(exact.state_dict())
    found = coarse.basis()
    assert found.dtype == torch.float32
    assert 0 < float((found - exact.basis()).detach().abs().max()) < 0.05


def test_a_negative_number_of_squarings_is_refused() -> None:
    with pytest.raises(GeometryError) as caught:
        LatticeINR(SHAPE, integration_steps=-1)
    assert str(caught.value) == "integration_steps: expected 0 (a displacement) or more, got -1"
