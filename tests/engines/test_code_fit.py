"""Gauss-Newton steps on codes and residuals against dense matrices of the same problem."""

from typing import Any

import pytest
import torch
from torch import Tensor

from monai_fair.engines import TemplateMatch
from monai_fair.engines.code_fit import CodeMetric, code_step, residual_step
from monai_fair.engines.image_match import Match
from monai_fair.networks import ControlLattice, LatticeINR, SamplingGrid

SHAPE = (10, 11, 12)
SMOOTHNESS = 0.1


def small_network(width: int = 6) -> LatticeINR:
    torch.manual_seed(0)
    network = LatticeINR(SHAPE, spacing=5.0, order=4, width=width, hidden=8, depth=2)
    torch.nn.init.normal_(network.trunk.change[-1].weight, std=0.1)  # not only cosines
    return network.eval()


def problem(stride: int = 1) -> tuple[SamplingGrid, Match]:
    """A match whose residuals have nothing to do with each other; two subjects."""
    generator = torch.Generator().manual_seed(1)
    grid = ControlLattice(SHAPE, 5.0).sampling_grid(stride)
    shape = grid.points().shape[1:]
    match = Match(
        residual=torch.randn(2, *shape, generator=generator),
        gradient=torch.randn(2, 3, *shape, generator=generator),
        weight=torch.rand(2, *shape, generator=generator),
        noise=torch.ones(2),
    )
    return grid, match


def dense_step(fields: Tensor, match: Match, penalty: Tensor, start: Tensor) -> Tensor:
    """Solve for one Gauss-Newton step of the first subject in float64.

    Args:
        fields: the displacement that each unknown makes, shape ``(U, 3, X, Y, Z)``.
        match: of the subject.
        penalty: dense and already weighted, shape ``(U, U)``.
        start: shape ``(U,)``.
    """
    rows = (fields.double() * match.gradient[0].double()).sum(dim=1).flatten(1)
    weight, residual = match.weight[0].double().flatten(), match.residual[0].double().flatten()
    matrix = rows * weight @ rows.T + penalty.double()
    gradient = rows @ (weight * residual) + penalty.double() @ start.double()
    return torch.linalg.solve(matrix, -gradient).float()


# the metric


def test_the_metric_makes_length_and_penalty_diagonal() -> None:
    network = small_network(24)
    metric = CodeMetric.of(network)
    length, penalty = (form.detach() for form in network.metric())
    assert metric.axes.shape == (24, 24)
    torch.testing.assert_close(metric.axes.T @ length @ metric.axes, torch.eye(24), rtol=0, atol=1e-3)
    scale = float(metric.penalties.max())
    found = metric.axes.T @ penalty @ metric.axes
    torch.testing.assert_close(found, torch.diag(metric.penalties), rtol=1e-3, atol=1e-3 * scale)
    assert (metric.penalties >= 0).all()
    torch.testing.assert_close(metric.form, penalty)


def test_a_direction_that_makes_no_field_is_left_out() -> None:
    network = small_network()
    with torch.no_grad():
        network._kept = network.basis().clone()
        network._kept[:, 5] = 2 * network._kept[:, 4]  # codes (0, ..., 2, -1) make nothing
    assert CodeMetric.of(network).axes.shape == (6, 5)


def test_the_preconditioner_is_the_inverse_for_equal_stiffness() -> None:
    network = small_network(10)
    metric = CodeMetric.of(network)
    length, penalty = (form.detach() for form in network.metric())
    values = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(0))
    stiffness = torch.tensor([0.5, 20.0])
    found = metric.precondition(values, stiffness, SMOOTHNESS)
    for place in range(2):
        matrix = stiffness[place] * length + SMOOTHNESS * penalty
        expected = torch.linalg.solve(matrix.double(), values[place].double().T).T.float()
        torch.testing.assert_close(found[place], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


# one step


def test_a_code_step_is_that_of_the_dense_system() -> None:
    network = small_network()
    grid, match = problem()
    codes = torch.randn(2, *network.code_shape, generator=torch.Generator().manual_seed(2))
    units = torch.eye(18).reshape(18, 3, 6)
    fields = network(units, grid).detach()  # a displacement is linear in its code
    form = network.metric()[1].detach()
    penalty = SMOOTHNESS * torch.block_diag(form, form, form)
    with torch.no_grad():
        found = code_step(
            codes,
            network.linearise(codes, grid),
            match,
            CodeMetric.of(network),
            smoothness=SMOOTHNESS,
            points=network.lattice.size,
            iterations=60,
        )
    expected = dense_step(fields, match, penalty, codes[0].flatten())
    torch.testing.assert_close(found[0].flatten(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("thinning", [1, 2])
def test_a_residual_step_is_that_of_the_dense_system(thinning: int) -> None:
    lattice = ControlLattice(SHAPE, 5.0)
    grid, match = problem()
    residual = torch.randn(2, 3, *lattice.shape, generator=torch.Generator().manual_seed(2))
    size = residual[0].numel()
    units = torch.eye(size).reshape(size, 3, *lattice.shape)
    fields = lattice.upsample(units, grid.weights)
    rough = lattice.spectral(units, SMOOTHNESS * lattice.roughness).flatten(1)
    found = residual_step(residual, match, lattice, grid, smoothness=SMOOTHNESS, iterations=300, thinning=thinning)
    rows = (fields.double() * match.gradient[0].double()).sum(dim=1)
    force = rows.flatten(1) @ (match.weight[0] * match.residual[0]).double().flatten()
    force += rough.double() @ residual[0].double().flatten()
    some = (slice(None), *[slice(None, None, thinning)] * 3)
    thin, weight = rows[some].flatten(1), match.weight[0][some[1:]].double().flatten() * thinning**3
    expected = torch.linalg.solve(thin * weight @ thin.T + rough.double(), -force)
    error = (found[0].double().flatten() - expected).norm() / expected.norm()
    assert error < 1e-3


# several steps on a head


def objective(network: LatticeINR, match: Match, codes: Tensor, residual: Tensor) -> Tensor:
    """Half the weighted squares, and the penalty."""
    data = (match.weight * match.residual.square()).flatten(1).sum(dim=1) / 2
    rough = network.penalty(codes) + network.lattice.penalty(residual)
    return data + SMOOTHNESS / 2 * rough


def at_weights(found: Match, weights: Match) -> Match:
    return Match(found.residual, found.gradient, weights.weight, weights.noise)


@pytest.mark.parametrize("what", ["codes", "residual"])
def test_every_step_lowers_the_objective_at_its_weights(brain: Any, what: str) -> None:
    network = brain.network().eval()
    matching: TemplateMatch = brain.match([[1.0, 1, 1]])
    grid = network.lattice.sampling_grid(2)
    subjects = matching.normalised(brain.images, 0)[(..., *grid.slices)]
    codes, residual = torch.zeros(4, *network.code_shape), torch.zeros(4, 3, *network.lattice.shape)
    metric = CodeMetric.of(network)
    with torch.no_grad():
        for _ in range(4):
            match = matching(network(codes, grid, residual), subjects, grid, 0)
            before = objective(network, match, codes, residual)
            if what == "codes":
                linear = network.linearise(codes, grid)
                codes = codes + code_step(
                    codes, linear, match, metric, smoothness=SMOOTHNESS, points=network.lattice.size, iterations=8
                )
            else:
                residual = residual + residual_step(
                    residual, match, network.lattice, grid, smoothness=SMOOTHNESS, iterations=8
                )
            after = matching(network(codes, grid, residual), subjects, grid, 0)
            assert (objective(network, at_weights(after, match), codes, residual) < before).all()
    # and the voxels fit better than at the start
    start = matching(torch.zeros_like(network(codes, grid)), subjects, grid, 0)
    assert (after.noise < 0.7 * start.noise).all()


def test_a_thinned_curvature_ends_where_the_whole_one_does(brain: Any) -> None:
    network = brain.network().eval()
    matching = brain.match([[0.5, 1, 1]])
    grid = network.lattice.sampling_grid()
    subjects = matching.normalised(brain.images[:2], 0)
    ends = []
    for thinning in (1, 2):
        residual = torch.zeros(2, 3, *network.lattice.shape)
        for _ in range(6):
            match = matching(network.lattice.upsample(residual, grid.weights), subjects, grid, 0)
            residual = residual + residual_step(
                residual, match, network.lattice, grid, smoothness=SMOOTHNESS, iterations=10, thinning=thinning
            )
        ends.append(network.lattice.upsample(residual, grid.weights))
    inside = torch.from_numpy(brain.space.mask)
    apart = (ends[0] - ends[1]).norm(dim=1)[:, inside].mean()
    moved = ends[0].norm(dim=1)[:, inside].mean()
    assert moved > 0.2
    assert apart < 0.1 * moved  # 0.01 of 0.34 voxels
