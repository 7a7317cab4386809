"""Gauss-Newton steps on what belongs to a subject: its code, and the free residual of its deformation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from monai_fair.engines.gauss_newton import Quadratic, newton_step
from monai_fair.engines.image_match import Match
from monai_fair.networks import ControlLattice, DeformationINR, Linearised, SamplingGrid

_RANK_TOLERANCE = 1e-6


@dataclass(frozen=True)
class CodeMetric:
    """A network's codes in the axes in which field length and penalty are both diagonal.

    Attributes:
        axes: shape ``(K, R)``; codes ``z = axes y`` make fields of squared length ``|y|^2``.
        penalties: of each axis, shape ``(R,)``.
        form: the penalty in the axes of the network, shape ``(K, K)``.
    """

    axes: Tensor
    penalties: Tensor
    form: Tensor

    @classmethod
    def of(cls, network: DeformationINR) -> "CodeMetric":
        """Diagonalise the forms of ``network.metric()``; directions that make no field are left out."""
        length, penalty = (form.detach().double() for form in network.metric())
        values, vectors = torch.linalg.eigh(length)
        kept = values > values[-1] * _RANK_TOLERANCE
        white = vectors[:, kept] / values[kept].sqrt()
        penalties, turn = torch.linalg.eigh(white.T @ penalty @ white)
        return cls((white @ turn).float(), penalties.clamp_min(0.0).float(), penalty.float())

    def precondition(self, values: Tensor, stiffness: Tensor, smoothness: float) -> Tensor:
        """Solve for data of equal stiffness everywhere: an easy stand-in for the Gauss-Newton matrix."""
        scale = stiffness.reshape(-1, *[1] * (values.dim() - 1)) + smoothness * self.penalties
        return (values @ self.axes) / scale @ self.axes.T


def code_step(
    codes: Tensor,
    linear: Linearised,
    match: Match,
    metric: CodeMetric,
    *,
    smoothness: float,
    points: int,
    iterations: int,
) -> Tensor:
    """Return the change of codes that one Gauss-Newton step makes, shape as ``codes``.

    The objective is half the weighted sum of squares plus ``smoothness / 2`` times the penalty.

    Args:
        codes: shape ``(B, *code_shape)``.
        linear: the derivative of the deformation at ``codes``.
        match: of that deformation.
        metric: of the network.
        smoothness: weight of the penalty.
        points: control points of the lattice that ``metric`` counts.
        iterations: of conjugate gradients.
    """
    stiffness = match.stiffness() / points

    def apply(change: Tensor) -> Tensor:
        return linear.pull(match.curvature(linear.push(change))) + smoothness * (change @ metric.form)

    gradient = linear.pull(match.force()) + smoothness * (codes @ metric.form)
    model = Quadratic(gradient, apply, lambda values: metric.precondition(values, stiffness, smoothness))
    return newton_step(model, iterations)


def residual_step(
    residual: Tensor,
    match: Match,
    lattice: ControlLattice,
    grid: SamplingGrid,
    *,
    smoothness: float,
    iterations: int,
    thinning: int = 1,
) -> Tensor:
    """Return the change of lattice coefficients that one Gauss-Newton step makes, shape as ``residual``.

    The gradient uses every voxel of the match; the curvature may use fewer, because it only shapes the step (a
    sub-sampled Newton method, Byrd et al., SIAM J Optim 2011).

    Args:
        residual: shape ``(B, 3, *lattice.shape)``.
        match: of the deformation that ``residual`` is part of.
        lattice: of the coefficients.
        grid: voxels of the match.
        smoothness: weight of the penalty.
        iterations: of conjugate gradients.
        thinning: the curvature reads every so many-th voxel along each axis.
    """
    thin = match.thinned(thinning)
    weights = [matrix[::thinning] for matrix in grid.weights]
    stiffness = (match.stiffness() / lattice.size)[:, None, None, None, None]
    penalty = smoothness * lattice.roughness

    def apply(change: Tensor) -> Tensor:
        data = lattice.downsample(thin.curvature(lattice.upsample(change, weights)), weights)
        return data + lattice.spectral(change, penalty)

    gradient = lattice.downsample(match.force(), grid.weights) + lattice.spectral(residual, penalty)
    model = Quadratic(gradient, apply, lambda values: lattice.spectral(values, 1.0 / (stiffness + penalty)))
    return newton_step(model, iterations)
