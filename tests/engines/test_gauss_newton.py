"""Conjugate gradients against a dense solver, for many problems at once."""

import pytest
import torch
from torch import Tensor

from monai_fair.engines.gauss_newton import Quadratic, newton_step

SIZE = 12


def systems(batch: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positive definite matrices of condition about 100, and right-hand sides."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(batch, SIZE, SIZE, generator=generator, dtype=torch.float64))
    values = torch.logspace(-1, 1, SIZE, dtype=torch.float64)
    gradient = torch.randn(batch, SIZE, generator=generator, dtype=torch.float64)
    return basis * values @ basis.mT, gradient


def quadratic(matrix: Tensor, gradient: Tensor, *, jacobi: bool = False) -> Quadratic:
    diagonal = torch.diagonal(matrix, dim1=1, dim2=2) if jacobi else torch.ones_like(gradient)

    def apply(step: Tensor) -> Tensor:
        return torch.einsum("bij,bj->bi", matrix, step)

    return Quadratic(gradient, apply, lambda values: values / diagonal)


def value(matrix: Tensor, gradient: Tensor, step: Tensor) -> Tensor:
    return (gradient * step).sum(dim=1) + torch.einsum("bi,bij,bj->b", step, matrix, step) / 2


def test_two_steps_on_paper() -> None:
    """A = diag(1, 4), g = (1, 1).

    First step: along -g by g'g / g'Ag = 2 / 5, to (-0.4, -0.4). Residual -g - A p = (-0.6, 0.6), so the direction turns
    by 0.72 / 2 = 0.36 to (-0.96, 0.24); length 0.72 / (0.96^2 + 4 * 0.24^2) = 0.625; end at (-1, -0.25) = -A^-1 g.
    """
    model = quadratic(torch.diag(torch.tensor([1.0, 4.0]))[None], torch.ones(1, 2))
    torch.testing.assert_close(newton_step(model, 1), torch.tensor([[-0.4, -0.4]]))
    torch.testing.assert_close(newton_step(model, 2), torch.tensor([[-1.0, -0.25]]))


@pytest.mark.parametrize("jacobi", [False, True])
@pytest.mark.parametrize("iterations", [2 * SIZE, 20 * SIZE])  # going on after the end moves nothing
def test_enough_iterations_solve_the_system(iterations: int, jacobi: bool) -> None:
    matrix, gradient = systems()
    expected = torch.linalg.solve(matrix, -gradient)
    found = newton_step(quadratic(matrix, gradient, jacobi=jacobi), iterations)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_exact_preconditioner_needs_one_iteration() -> None:
    matrix, gradient = systems()
    inverse = torch.linalg.inv(matrix)
    model = Quadratic(
        gradient,
        lambda step: torch.einsum("bij,bj->bi", matrix, step),
        lambda values: torch.einsum("bij,bj->bi", inverse, values),
    )
    torch.testing.assert_close(newton_step(model, 1), torch.linalg.solve(matrix, -gradient), rtol=1e-10, atol=1e-10)


def test_a_step_keeps_the_shape_of_the_gradient() -> None:
    gradient = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    model = Quadratic(gradient, lambda step: 2 * step, lambda values: values)
    torch.testing.assert_close(newton_step(model, 3), -gradient / 2)


@pytest.mark.parametrize("other", [1e6, 0.0, float("nan")])
def test_a_problem_does_not_see_the_others_of_its_batch(other: float) -> None:
    matrix, gradient = systems()
    expected = newton_step(quadratic(matrix, gradient), 5)
    matrix, gradient = matrix.clone(), gradient.clone()
    matrix[1] *= other
    gradient[1] += other
    found = newton_step(quadratic(matrix, gradient), 5)
    assert not torch.equal(found[1], expected[1])
    assert torch.equal(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("scale", [1.0, 0.0], ids=["definite", "zero"])
def test_no_gradient_no_step(scale: float) -> None:
    matrix, gradient = systems()
    found = newton_step(quadratic(matrix * scale, torch.zeros_like(gradient)), 4)
    assert torch.equal(found, torch.zeros_like(gradient))


def test_a_singular_system_is_solved_where_it_can_be() -> None:
    """The third unknown is in no equation; a step leaves it alone."""
    matrix = torch.diag(torch.tensor([2.0, 5.0, 0.0]))[None]
    found = newton_step(quadratic(matrix, torch.tensor([[1.0, 1.0, 0.0]])), 10)
    torch.testing.assert_close(found, torch.tensor([[-0.5, -0.2, 0.0]]))


def test_every_iteration_lowers_the_model_and_lengthens_the_step() -> None:
    matrix, gradient = systems()
    steps = [newton_step(quadratic(matrix, gradient), iterations) for iterations in range(SIZE + 1)]
    values = torch.stack([value(matrix, gradient, step) for step in steps])
    assert torch.equal(values[0], torch.zeros(3, dtype=torch.float64))
    assert (values.diff(dim=0) < 0).all()
    # Steihaug 1983, theorem 2.1: the length grows from one iterate to the next
    assert (torch.stack([step.norm(dim=1) for step in steps]).diff(dim=0) > 0).all()
