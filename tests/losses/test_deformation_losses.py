"""Regularisers of deformations: values derived on paper, finite differences, NumPy and MONAI as references."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import BendingEnergyLoss
from torch import Tensor, nn

from monai_fair.errors import GeometryError, MonaiFairError
from monai_fair.geometry import jacobian, voxel_points, warp
from monai_fair.losses import (
    BendingLoss,
    GradientInverseConsistencyLoss,
    HyperelasticLoss,
    JacobianDeviationLoss,
    bending_density,
    bending_energy,
    code_prior,
    displacement_hessian,
    displacement_jacobian,
    field_jacobian,
    gradient_inverse_consistency,
    hyperelastic_energy,
    jacobian_deviation,
)

SHAPE = (6, 7, 8)
SPACING = (2.0, 3.0, 5.0)
ONE_TERM = {"length_weight": 0.0, "area_weight": 0.0, "volume_weight": 0.0}


def field_of(function: Callable[[Tensor], Tensor], shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """Return the field of a function of points ``(N, 3)``, shape ``(1, 3, D, H, W)``."""
    points = voxel_points(shape).double()
    return function(points.flatten(1).T).T.reshape(1, 3, *shape)


def random_field(shape: tuple[int, int, int] = SHAPE, scale: float = 0.1) -> Tensor:
    return torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale


def products(points: Tensor) -> Tensor:
    """Return u_0 = x y, u_1 = z^2, u_2 = 0: second derivatives 1 and 1 (xy and yx), and 2."""
    x, y, z = points.unbind(-1)
    return torch.stack([x * y, z * z, torch.zeros_like(x)], dim=-1)


def matrices_of(*values: list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Sine(nn.Module):
    def forward(self, points: Tensor) -> Tensor:
        return torch.sin(3 * points)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 16), Sine(), nn.Linear(16, 16), Sine(), nn.Linear(16, 3)).double()


# derivatives


def test_the_jacobian_of_a_linear_field_in_millimetres() -> None:
    # x -> A x in voxels is S A S^-1 in millimetres: entry ab is A_ab s_a / s_b
    matrix = torch.tensor([[1.1, 0.2, 0.0], [0.0, 0.9, -0.3], [0.5, 0.0, 1.2]], dtype=torch.float64)
    field = field_of(lambda points: points @ (matrix - torch.eye(3)).T)
    expected = torch.tensor([[1.1, 0.2 * 2 / 3, 0.0], [0.0, 0.9, -0.3 * 3 / 5], [0.5 * 5 / 2, 0.0, 1.2]])
    found = field_jacobian(field, spacing_mm=SPACING)
    torch.testing.assert_close(found, expected.double().expand(1, *SHAPE, 3, 3), rtol=0, atol=1e-7)
    for spacing in ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0)):
        torch.testing.assert_close(
            field_jacobian(field, spacing_mm=spacing), matrix.expand(1, *SHAPE, 3, 3), rtol=0, atol=1e-12
        )


def test_field_matrices_are_those_of_the_geometry() -> None:
    field = random_field()
    found = field_jacobian(field)
    torch.testing.assert_close(found[1, 2, 3, 4], jacobian(field)[1, :, :, 2, 3, 4], rtol=0, atol=0)


def test_automatic_derivatives_are_finite_differences() -> None:
    model = network()
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first, second = displacement_jacobian(model, points), displacement_hessian(model, points)
    assert first.shape == (20, 3, 3)
    assert second.shape == (20, 3, 3, 3)
    step = 1e-4
    for b, shift in enumerate(step * torch.eye(3, dtype=torch.float64)):
        slope = (model(points + shift) - model(points - shift)) / (2 * step)
        # a central difference is off by step^2 / 6 of the third derivative, which is below 3^3 * 20
        torch.testing.assert_close(first[:, :, b] - torch.eye(3)[b], slope, rtol=0, atol=1e-6)
        change = displacement_jacobian(model, points + shift) - displacement_jacobian(model, points - shift)
        torch.testing.assert_close(second[:, :, :, b], change / (2 * step), rtol=0, atol=1e-5)
    assert second.abs().max() > 1


def test_derivatives_of_polynomials_at_points() -> None:
    point = torch.tensor([[2.0, 3.0, 5.0]], dtype=torch.float64)
    # u_0 = x y: (y, x, 0) = (3, 2, 0); u_1 = z^2: (0, 0, 10)
    expected = matrices_of([[1 + 3, 2, 0], [0, 1, 10], [0, 0, 1]])
    torch.testing.assert_close(displacement_jacobian(products, point), expected)
    second = torch.zeros(1, 3, 3, 3, dtype=torch.float64)
    second[0, 0, 0, 1] = second[0, 0, 1, 0] = 1
    second[0, 1, 2, 2] = 2
    torch.testing.assert_close(displacement_hessian(products, point), second)


def test_constant_and_linear_functions_have_derivatives_too() -> None:
    points = torch.rand(4, 3)
    model = nn.Linear(3, 3)
    torch.testing.assert_close(displacement_jacobian(torch.ones_like, points), torch.eye(3).expand(4, 3, 3))
    torch.testing.assert_close(displacement_jacobian(model, points), (torch.eye(3) + model.weight).expand(4, 3, 3))
    for function in (torch.ones_like, lambda places: places * 2, model):
        assert displacement_hessian(function, points).abs().max() == 0


def test_regularisers_train_the_network() -> None:
    model = network()
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight = model[0].weight

    def loss() -> Tensor:
        matrices = displacement_jacobian(model, points)
        return hyperelastic_energy(matrices) + bending_energy(displacement_hessian(model, points))

    (gradient,) = torch.autograd.grad(loss(), weight)
    step = 1e-5
    with torch.no_grad():
        weight[3, 1] += step
        above = loss()
        weight[3, 1] -= 2 * step
        below = loss()
    assert not above.requires_grad
    assert gradient[3, 1].item() == pytest.approx((above - below).item() / (2 * step), rel=1e-5)


def test_points_are_left_as_they_are() -> None:
    points = torch.rand(4, 3)
    displacement_jacobian(network().float(), points)
    assert not points.requires_grad


# bending


def test_bending_of_products_by_hand() -> None:
    # voxels: xy and yx give 1 each, zz gives 2^2. In mm: component a times s_a, each derivative over s_b:
    # u_0,xy = 2 * 1 / (2 * 3) = 1/3, twice; u_1,zz = 3 * 2 / (5 * 5) = 6/25
    field = field_of(products)
    for spacing, expected in (((1.0, 1.0, 1.0), 1 + 1 + 4.0), (SPACING, 2 / 9 + (6 / 25) ** 2)):
        density = bending_density(field, spacing_mm=spacing)
        assert density.shape == (1, 4, 5, 6)
        torch.testing.assert_close(density, torch.full_like(density, expected))
        assert BendingLoss(spacing_mm=spacing)(field).item() == pytest.approx(expected)
    points = torch.rand(9, 3, dtype=torch.float64)
    assert bending_energy(displacement_hessian(products, points)).item() == pytest.approx(6.0)


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("component", [0, 1, 2])
def test_every_mixed_term_counts_twice(pair: tuple[int, int], component: int) -> None:
    def product(points: Tensor) -> Tensor:
        return torch.eye(3, dtype=torch.float64)[component] * (points[:, pair[0]] * points[:, pair[1]])[:, None]

    assert BendingLoss()(field_of(product)).item() == pytest.approx(2.0)
    assert bending_energy(displacement_hessian(product, torch.rand(5, 3).double())).item() == pytest.approx(2.0)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_bending_is_three_of_that_of_monai() -> None:
    field = random_field()
    theirs = BendingEnergyLoss()(field).item()
    assert BendingLoss()(field).item() == pytest.approx(3 * theirs, rel=1e-12)
    assert BendingLoss(spacing_mm=(2.0, 2.0, 2.0))(field).item() == pytest.approx(3 * theirs / 4, rel=1e-12)


# volume and hyper-elastic


def test_volume_changes_by_hand() -> None:
    # 1.1^3 - 1, a mirror (det -1), and a matrix of det 1 that is no rotation
    grown, mirror = (1.1 * np.eye(3)).tolist(), np.diag([-1.0, 1, 1]).tolist()
    squeezed = np.diag([2.0, 0.5, 1]).tolist()
    expected = (0.331 + 2 + 0) / 3
    assert jacobian_deviation(matrices_of(grown, mirror, squeezed)).item() == pytest.approx(expected)
    field = field_of(lambda points: 0.1 * points)
    assert JacobianDeviationLoss()(field).item() == pytest.approx(0.331)


def test_hyperelastic_terms_of_a_stretch_by_hand() -> None:
    stretch = matrices_of(np.diag([2.0, 1.0, 0.5]).tolist())
    # length: (1 + 0 + 0.25) / 2; cofactors diag(0.5, 1, 2): squares - 1 are -0.75, 0, 3; det 1
    assert hyperelastic_energy(stretch, **(ONE_TERM | {"length_weight": 1.0})).item() == pytest.approx(0.625)
    assert hyperelastic_energy(stretch, **(ONE_TERM | {"area_weight": 1.0})).item() == pytest.approx(9.0)
    two_sided = hyperelastic_energy(stretch, **(ONE_TERM | {"area_weight": 1.0}), area="two_sided")
    assert two_sided.item() == pytest.approx(9 + 0.5625)
    assert hyperelastic_energy(stretch, **(ONE_TERM | {"volume_weight": 1.0})).item() == pytest.approx(0.0)
    # det 2: ((2 - 1)^2 / 2)^2 = 1/4, and det 1/2: (1/4 * 2)^2 = 1/4
    for factor in (2.0, 0.5):
        grown = matrices_of(np.diag([factor, 1, 1]).tolist())
        assert hyperelastic_energy(grown, **(ONE_TERM | {"volume_weight": 1.0})).item() == pytest.approx(0.25)


@pytest.mark.parametrize("area", ["convex", "two_sided"])
def test_hyperelastic_is_that_of_numpy(area: str) -> None:
    rng = np.random.default_rng(0)
    matrices = np.eye(3) + 0.3 * rng.normal(size=(50, 3, 3))
    expected = []
    for matrix in matrices:
        determinant = np.linalg.det(matrix)
        cofactors = determinant * np.linalg.inv(matrix).T
        grown = (cofactors**2).sum(axis=0) - 1  # columns: areas across the axes of the input
        areas = np.maximum(grown, 0) if area == "convex" else grown
        volume = (determinant - 1) ** 4 / determinant**2
        expected.append(0.5 * 2 * ((matrix - np.eye(3)) ** 2).sum() + 3 * (areas**2).sum() + 5 * volume)
    found = hyperelastic_energy(
        torch.from_numpy(matrices),
        length_weight=2.0,
        area_weight=3.0,
        volume_weight=5.0,
        area=area,  # type: ignore[arg-type]
    )
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-10)


def test_both_readings_of_a_fold() -> None:
    mirror = matrices_of(np.diag([-1.0, 1, 1]).tolist(), np.eye(3).tolist())
    # (d - 1)^4 / d^2 = 16 in one of two points
    continued = hyperelastic_energy(mirror, **(ONE_TERM | {"volume_weight": 1.0}))
    assert continued.item() == pytest.approx(8.0)
    assert hyperelastic_energy(mirror, folded="infinite").item() == np.inf
    mirrored = field_of(lambda points: points * torch.tensor([-2.0, 0.0, 0.0]))
    assert HyperelasticLoss(folded="infinite")(mirrored).item() == np.inf
    # length (-2)^2 / 2, no area grown, volume 16
    assert HyperelasticLoss()(mirrored).item() == pytest.approx(18.0)
    upright = matrices_of(np.diag([1.5, 1, 1]).tolist())
    torch.testing.assert_close(hyperelastic_energy(upright, folded="infinite"), hyperelastic_energy(upright))


def test_unknown_readings_are_refused() -> None:
    message = (
        "{}: 2 problems\n"
        "  1. expected area to be 'convex' or 'two_sided', got 'concave'; choose one\n"
        "  2. expected folded to be 'continued' or 'infinite', got 'never'; choose one"
    )
    with pytest.raises(MonaiFairError) as caught:
        hyperelastic_energy(torch.eye(3), area="concave", folded="never")  # type: ignore[arg-type]
    assert str(caught.value) == message.format("hyperelastic_energy")
    with pytest.raises(MonaiFairError) as caught:
        HyperelasticLoss(area="concave", folded="never")  # type: ignore[arg-type]
    assert str(caught.value) == message.format("HyperelasticLoss")


# inverse consistency, codes


def test_gradient_inverse_consistency_by_hand() -> None:
    # |J - I|^2 = 0.1^2 + 0.2^2 + 0.3^2 for the one, 0 for the other
    off = matrices_of([[1.1, 0, 0.2], [0, 1, 0], [0, -0.3, 1]], np.eye(3).tolist())
    assert gradient_inverse_consistency(off).item() == pytest.approx(0.07)


def test_gradient_inverse_consistency_of_two_fields() -> None:
    shift = torch.ones(1, 3, *SHAPE, dtype=torch.float64)
    # translations that are no inverses of each other: the error is the same everywhere
    assert GradientInverseConsistencyLoss()(2 * shift, shift).item() == pytest.approx(0.0)
    # phi(x) = A x and the identity: A - I in millimetres, 0.2 * 2 / 3 and 0.1
    matrix = torch.tensor([[1.0, 0.2, 0], [0, 1.1, 0], [0, 0, 1]], dtype=torch.float64)
    field = field_of(lambda points: points @ (matrix - torch.eye(3)).T)
    loss = GradientInverseConsistencyLoss(spacing_mm=SPACING)
    assert loss(field, torch.zeros_like(field)).item() == pytest.approx((0.4 / 3) ** 2 + 0.1**2)


def test_the_outer_field_is_read_where_the_inner_leads() -> None:
    outer, inner = random_field(), 3 * random_field().flip(0)
    found, other = GradientInverseConsistencyLoss()(outer, inner), GradientInverseConsistencyLoss()(inner, outer)
    torch.testing.assert_close(found, gradient_inverse_consistency(field_jacobian(inner + warp(outer, inner))))
    assert abs(found / other - 1) > 1e-3


def test_inverses_are_consistent_as_functions() -> None:
    points = torch.rand(30, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    matrix = torch.tensor([[1.0, 0.2, 0], [0, 1.1, 0], [0.1, 0, 1]], dtype=torch.float64)
    away, back = matrix - torch.eye(3), torch.linalg.inv(matrix) - torch.eye(3)

    def there_and_back(places: Tensor) -> Tensor:
        moved = places @ away.T
        return moved + (places + moved) @ back.T

    assert gradient_inverse_consistency(displacement_jacobian(there_and_back, points)).item() < 1e-24


def test_code_prior_by_hand() -> None:
    # (9 + 16 + 0) / 2 subjects, over 2^2
    codes = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert code_prior(codes).item() == 12.5
    assert code_prior(codes, sigma=2.0).item() == 3.125


# all of them


@pytest.mark.parametrize(
    "loss",
    [
        BendingLoss(spacing_mm=SPACING),
        JacobianDeviationLoss(),
        HyperelasticLoss(spacing_mm=SPACING),
        HyperelasticLoss(area="two_sided", folded="infinite"),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_gradients_of_fields(loss: nn.Module) -> None:
    field = random_field((3, 4, 3)).requires_grad_()
    torch.autograd.gradcheck(loss, (field,))
    assert loss(torch.zeros(1, 3, *SHAPE)).item() == 0


def test_gradients_of_two_fields() -> None:
    first, second = random_field((3, 4, 3)), random_field((3, 4, 3)).flip(0)
    torch.autograd.gradcheck(GradientInverseConsistencyLoss(), (first.requires_grad_(), second.requires_grad_()))


def test_losses_are_named_in_configs() -> None:
    config = {
        "loss": {
            "_target_": "monai_fair.losses.HyperelasticLoss",
            "spacing_mm": list(SPACING),
            "length_weight": 2.0,
            "area_weight": 3.0,
            "volume_weight": 4.0,
            "area": "two_sided",
            "folded": "infinite",
        }
    }
    loss = ConfigParser(config).get_parsed_content("loss")
    field = random_field()
    expected = hyperelastic_energy(
        field_jacobian(field, spacing_mm=SPACING),
        length_weight=2.0,
        area_weight=3.0,
        volume_weight=4.0,
        area="two_sided",
        folded="infinite",
    )
    torch.testing.assert_close(loss(field), expected)


def test_fields_that_do_not_fit_are_refused() -> None:
    with pytest.raises(GeometryError) as caught:
        bending_density(torch.zeros(1, 3, 5, 5, 2), spacing_mm=(1.0, 0.0, 1.0))
    assert str(caught.value) == (
        "bending_density: 2 problems\n"
        "  1. expected a field of shape (B, 3, D, H, W) with at least 3 voxels along each axis, got (1, 3, 5, 5, 2); "
        "give a 3D displacement in voxels\n"
        "  2. expected spacing_mm to be three positive numbers, got (1.0, 0.0, 1.0); take the grid's"
    )
    for shape in ((3, 5, 5, 5), (1, 2, 5, 5, 5), (1, 3, 5, 5, 1)):
        with pytest.raises(GeometryError, match="field_jacobian: expected a field of shape"):
            field_jacobian(torch.zeros(shape))
    with pytest.raises(GeometryError, match=r"got \(1.0, inf, 1.0\)"):
        field_jacobian(torch.zeros(1, 3, 5, 5, 5), spacing_mm=(1.0, float("inf"), 1.0))


def test_points_that_do_not_fit_are_refused() -> None:
    with pytest.raises(GeometryError) as caught:
        displacement_jacobian(torch.ones_like, torch.zeros(4, 2))
    assert str(caught.value) == "points: expected shape (N, 3), got (4, 2); flatten the grid first"
    with pytest.raises(GeometryError) as caught:
        displacement_hessian(lambda points: points[:, :2], torch.zeros(4, 3))
    assert str(caught.value) == (
        "displacement: expected a result of the shape of the points (4, 3), got (4, 2); "
        "return one displacement per point"
    )
