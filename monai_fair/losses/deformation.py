"""Regularisers of deformations: one formula for dense fields and for networks that are evaluated at points.

The functions take derivatives with any leading axes: Jacobian matrices ``J`` of the map ``x + u(x)``, shape
``(..., 3, 3)``, or second derivatives of ``u``, shape ``(..., 3, 3, 3)``, from :mod:`monai_fair.losses.derivatives`. A
mask is an index between the two: ``jacobian_deviation(field_jacobian(u)[inside])``.
"""

import itertools
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.geometry import compose
from monai_fair.losses.derivatives import UNIT_SPACING, check_field, field_jacobian, second_difference

Area = Literal["convex", "two_sided"]
Folded = Literal["continued", "infinite"]


def bending_energy(hessian: Tensor) -> Tensor:
    """Return the mean over points of ``sum_abc (d2 u_a / dx_b dx_c)^2``, in which mixed terms count twice; 1/mm^2.

    0 for affine maps. For fields see :func:`bending_density`. IDIR's code counts the yz term once, averages over the
    components as well, and divides by the number of points once more.

    Args:
        hessian: second derivatives of ``u``, shape ``(..., 3, 3, 3)``.

    References:
        Rueckert et al., Nonrigid registration using free-form deformations, IEEE TMI 1999, doi:10.1109/42.796284.
    """
    return hessian.square().sum(dim=(-3, -2, -1)).mean()


def bending_density(displacement_vox: Tensor, *, spacing_mm: Sequence[float] = UNIT_SPACING) -> Tensor:
    """Return the bending energy of every voxel of a field but those on the faces; its mean is :func:`bending_energy`.

    The differences are those of ``monai.losses.BendingEnergyLoss``: ``(1, -2, 1)`` along one axis, the four diagonal
    neighbours for two. MONAI averages over the components too and knows no spacing: with voxels of ``s`` mm along
    every axis the mean of this is 3 of MONAI's over ``s^2``.

    Args:
        displacement_vox: shape ``(B, 3, D, H, W)``, in voxels, at least 3 voxels along each axis.
        spacing_mm: distance of voxel centres along each array axis.

    Returns:
        Shape ``(B, D - 2, H - 2, W - 2)``, in 1/mm^2.

    Raises:
        GeometryError: if the field has another shape, or the spacing is not three positive numbers.
    """
    check_field("bending_density", displacement_vox, spacing_mm, smallest=3)
    displacement_mm = displacement_vox * displacement_vox.new_tensor(spacing_mm)[:, None, None, None]
    energy = displacement_mm.new_zeros(())
    for b, c in itertools.combinations_with_replacement(range(3), 2):
        weight = (1 if b == c else 2) / (spacing_mm[b] * spacing_mm[c]) ** 2
        energy = torch.add(energy, second_difference(displacement_mm, b, c).square(), alpha=weight)
    return energy.sum(dim=1)


def jacobian_deviation(matrices: Tensor) -> Tensor:
    """Return the mean over points of ``|det J - 1|``: 0 where the volume is kept everywhere.

    Args:
        matrices: ``J``, shape ``(..., 3, 3)``.

    References:
        Wolterink, Zwienenberg, Brune, Implicit neural representations for deformable image registration, MIDL 2022.
    """
    return (_determinant(matrices) - 1).abs().mean()


def hyperelastic_energy(
    matrices: Tensor,
    *,
    length_weight: float = 1.0,
    area_weight: float = 1.0,
    volume_weight: float = 1.0,
    area: Area = "convex",
    folded: Folded = "continued",
) -> Tensor:
    """Return the mean over points of the hyper-elastic energy, 0 for the identity.

    ``length_weight / 2 |J - I|^2 + area_weight sum_i phi(|c_i|^2 - 1) + volume_weight ((d - 1)^2 / d)^2`` with the
    columns ``c_i`` of the cofactor matrix (what becomes of the area element across axis ``i``) and ``d = det J``.
    Growing to the volume ``d`` costs as much as shrinking to ``1 / d``. IDIR's code is this, at the defaults.

    Args:
        matrices: ``J``, shape ``(..., 3, 3)``.
        length_weight: of the first derivatives of the displacement; it is not 0 for rotations.
        area_weight: of the changes of areas.
        volume_weight: of the changes of volumes.
        area: ``convex`` is ``phi(s) = max(s, 0)^2``, for which a minimiser exists: areas may shrink freely.
            ``two_sided`` is ``phi(s) = s^2``, the double well whose convex envelope that is: both directions cost.
        folded: the volume term where ``d <= 0``: ``infinite`` as in the paper; ``continued`` uses the formula on, so
            that a step of the optimiser over ``d = 0`` stays finite and can come back. Watch the folds then.

    Raises:
        MonaiFairError: if ``area`` or ``folded`` is none of these.

    References:
        Burger, Modersitzki, Ruthotto, A hyperelastic regularization energy for image registration, SIAM J. Sci.
        Comput. 2013, doi:10.1137/110835955.
    """
    raise_problems(MonaiFairError, "hyperelastic_energy", _option_problems(area, folded))
    length = 0.5 * _from_identity(matrices).square().sum(dim=(-2, -1))
    grown = _squared_cofactors(matrices) - 1
    areas = (grown.relu() if area == "convex" else grown).square().sum(dim=0)
    determinant = _determinant(matrices)
    volume = ((determinant - 1).square() / determinant).square()
    if folded == "infinite":
        volume = volume.where(determinant > 0, torch.inf)
    return (length_weight * length + area_weight * areas + volume_weight * volume).mean()


def gradient_inverse_consistency(matrices: Tensor) -> Tensor:
    """Return the mean over points of ``|J - I|^2`` (Frobenius) for a composition that should be the identity.

    0 where ``phi_inv(phi(x)) - x`` is the same everywhere. The published code averages over the components too, so
    its value is a third of this.

    Args:
        matrices: Jacobians of ``phi_inv(phi(x))``, shape ``(..., 3, 3)``.

    References:
        Tian et al., GradICON: approximate diffeomorphisms via gradient inverse consistency, CVPR 2023.
    """
    return _from_identity(matrices).square().sum(dim=(-2, -1)).mean()


def code_prior(codes: Tensor, *, sigma: float = 1.0) -> Tensor:
    """Return the mean over subjects of ``|z|^2 / sigma^2``; its expectation for codes of that sd is their length.

    Args:
        codes: ``z``, shape ``(N, K)``.
        sigma: standard deviation of the Gaussian prior, in the unit of the codes.
    """
    return codes.square().sum(dim=-1).mean() / sigma**2


class BendingLoss(nn.Module):
    """Mean of :func:`bending_density` of a field ``(B, 3, D, H, W)`` in voxels."""

    def __init__(self, *, spacing_mm: Sequence[float] = UNIT_SPACING) -> None:
        super().__init__()
        self.spacing_mm = tuple(spacing_mm)

    def forward(self, displacement_vox: Tensor) -> Tensor:
        """Return the energy in 1/mm^2, a scalar."""
        return bending_density(displacement_vox, spacing_mm=self.spacing_mm).mean()


class JacobianDeviationLoss(nn.Module):
    """:func:`jacobian_deviation` of a field ``(B, 3, D, H, W)`` in voxels; the spacing plays no part."""

    def forward(self, displacement_vox: Tensor) -> Tensor:
        """Return the mean of ``|det J - 1|``, a scalar."""
        return jacobian_deviation(field_jacobian(displacement_vox))


class HyperelasticLoss(nn.Module):
    """:func:`hyperelastic_energy` of a field ``(B, 3, D, H, W)`` in voxels; options as there."""

    def __init__(
        self,
        *,
        spacing_mm: Sequence[float] = UNIT_SPACING,
        length_weight: float = 1.0,
        area_weight: float = 1.0,
        volume_weight: float = 1.0,
        area: Area = "convex",
        folded: Folded = "continued",
    ) -> None:
        super().__init__()
        raise_problems(MonaiFairError, "HyperelasticLoss", _option_problems(area, folded))
        self.spacing_mm = tuple(spacing_mm)
        self.length_weight, self.area_weight, self.volume_weight = length_weight, area_weight, volume_weight
        self.area, self.folded = area, folded

    def forward(self, displacement_vox: Tensor) -> Tensor:
        """Return the energy, a scalar without unit."""
        return hyperelastic_energy(
            field_jacobian(displacement_vox, spacing_mm=self.spacing_mm),
            length_weight=self.length_weight,
            area_weight=self.area_weight,
            volume_weight=self.volume_weight,
            area=self.area,
            folded=self.folded,
        )


class GradientInverseConsistencyLoss(nn.Module):
    """:func:`gradient_inverse_consistency` of two fields ``(B, 3, D, H, W)`` in voxels, of a map and its inverse."""

    def __init__(self, *, spacing_mm: Sequence[float] = UNIT_SPACING) -> None:
        super().__init__()
        self.spacing_mm = tuple(spacing_mm)

    def forward(self, outer_vox: Tensor, inner_vox: Tensor) -> Tensor:
        """Return the mean for ``(id + outer) o (id + inner)``, a scalar; add both orders for a symmetric loss."""
        return gradient_inverse_consistency(field_jacobian(compose(outer_vox, inner_vox), spacing_mm=self.spacing_mm))


def _from_identity(matrices: Tensor) -> Tensor:
    return matrices - torch.eye(3, device=matrices.device, dtype=matrices.dtype)


def _determinant(matrices: Tensor) -> Tensor:
    # matrix axes first: in the memory of a field its voxels are neighbours, not the entries of its matrices
    rows = matrices.movedim((-2, -1), (0, 1))
    determinant: Tensor = (rows[0] * torch.linalg.cross(rows[1], rows[2], dim=0)).sum(dim=0)
    return determinant


def _squared_cofactors(matrices: Tensor) -> Tensor:
    """Return the squared lengths of the columns of ``det(J) J^-T``, shape ``(3, ...)``, without the inverse."""
    rows = matrices.movedim((-2, -1), (0, 1))
    squares: list[Tensor] = [torch.linalg.cross(rows[a - 2], rows[a - 1], dim=0).square() for a in range(3)]
    return squares[0] + squares[1] + squares[2]


def _option_problems(area: str, folded: str) -> list[str]:
    return [
        f"expected {name} to be {' or '.join(map(repr, get_args(choices)))}, got {value!r}; choose one"
        for name, value, choices in (("area", area, Area), ("folded", folded, Folded))
        if value not in get_args(choices)
    ]
