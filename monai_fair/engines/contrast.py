"""Give the template each subject's contrast: a curve from template to subject intensities, fitted as they stand."""

import torch
from torch import Tensor

_KNOTS = 16
_STIFFNESS = 1e-2  # of the curve's second differences, as a share of the voxels on a knot
_EVEN = 0.1  # slope of an even place, in knots per voxel: the flattest twentieth of a T1-weighted average


def intensity_curves(template: Tensor, subjects: Tensor, weight: Tensor, *, low: float, high: float) -> Tensor:
    """Fit a piecewise linear curve from template to subject intensities for every subject, by least squares.

    The residual of this fit is what the correlation ratio measures (Roche et al., MICCAI 1998), so a subject of any
    contrast that is a function of the template's can be compared with it. Weight the places of :func:`evenness`: at an
    edge that is not yet aligned, another tissue's intensity is read for the template's, which draws the curve level,
    and a level curve moves the edge.

    Args:
        template: intensities at sampled voxels, warped to each subject, shape ``(B, N)``.
        subjects: theirs at the same voxels, shape ``(B, N)``.
        weight: of each voxel, shape ``(B, N)``.
        low: intensity of the template at the first knot.
        high: intensity at the last knot.

    Returns:
        Subject intensity at the knots, shape ``(B, 16)``.
    """
    hats = _hats(template, low, high)
    weighted = hats * weight[..., None]
    normal = hats.transpose(1, 2) @ weighted
    second = torch.diff(torch.eye(_KNOTS, dtype=hats.dtype, device=hats.device), n=2, dim=0)
    scale = normal.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    target = weighted.transpose(1, 2) @ subjects[..., None]
    curves: Tensor = torch.linalg.solve(normal + _STIFFNESS * scale * (second.T @ second), target)[..., 0]
    return curves


def evenness(template: Tensor, *, low: float, high: float) -> Tensor:
    """Return how little it matters where exactly a template is read, shape ``(D, H, W)``, 0 to 1.

    With an error of place of d voxels, an intensity is off by d times the slope; its weight falls with the square.

    Args:
        template: shape ``(D, H, W)``.
        low: intensity at the first knot of the curves.
        high: intensity at the last knot.
    """
    slope = torch.stack(torch.gradient(template)).square().sum(dim=0)
    even = _EVEN * (high - low) / (_KNOTS - 1)
    return 1.0 / (1.0 + slope / even**2)


def recolour(template: Tensor, curves: Tensor, *, low: float, high: float) -> Tensor:
    """Return the template through each subject's curve; beyond the knots the curve is level.

    Args:
        template: shape ``(D, H, W)``.
        curves: of :func:`intensity_curves`, shape ``(B, 16)``.
        low: intensity at the first knot.
        high: intensity at the last knot.

    Returns:
        Shape ``(B, D, H, W)``.
    """
    place = _place(template, low, high)
    left = place.floor().long().clamp_max(_KNOTS - 2)
    share = place - left
    return curves[:, left] * (1.0 - share) + curves[:, left + 1] * share


def _place(values: Tensor, low: float, high: float) -> Tensor:
    return ((values - low) / (high - low) * (_KNOTS - 1)).clamp(0.0, _KNOTS - 1.0)


def _hats(values: Tensor, low: float, high: float) -> Tensor:
    """Return the share of each knot in each value, shape ``(..., 16)``."""
    knots = torch.arange(_KNOTS, device=values.device)
    return (1.0 - (_place(values, low, high)[..., None] - knots).abs()).clamp_min(0.0)
