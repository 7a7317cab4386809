"""The velocity field of a simulated subject: overall size, smooth random parts and local effects.

Everything is computed in RAS millimetres from products over the three axes of a grid that runs along them. The
random parts live on lattices that are fixed in the world, so one subject has the same deformation at any resolution.

Sign: a displacement is a pull-back, ``subject(x) = template(x + u(x))``. A field that points away from a place makes
that place smaller in the subject.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.interpolate import BSpline

from monai_fair.data.templates import MNI152_CENTRE_MM
from monai_fair.simulation.brain_regions import Site

Array = npt.NDArray[np.float64]
LATTICE_SIDE_MM = 256.0  # the largest field of view that the random parts cover
TAPER_MM = 8.0


def smooth_noise(
    axes_mm: Sequence[Array], smoothness_mm: float, generator: np.random.Generator, *, components: int = 3
) -> npt.NDArray[np.float32]:
    """Return Gaussian noise smoothed by a Gaussian, with mean 0 and standard deviation 1 at every voxel.

    White noise on a lattice is smoothed on it and read as coefficients of a cubic B-spline. The spline is close to a
    Gaussian with a variance of a third of the squared lattice spacing; the lattice adds what is missing.

    Args:
        axes_mm: world coordinates along each array axis, RAS.
        smoothness_mm: standard deviation of the Gaussian; also the spacing of the lattice.
        generator: source of randomness.
        components: number of independent fields.

    Returns:
        Shape ``(components, D, H, W)``.
    """
    nodes = math.ceil(LATTICE_SIDE_MM / 2 / smoothness_mm) + 2
    noise = generator.standard_normal((components, *[2 * nodes + 1] * 3)).astype(np.float32)
    spread = np.arange(-nodes, nodes + 1)
    blur = np.exp(-0.75 * (spread[:, None] - spread[None, :]) ** 2)  # 1 / (2 * 2/3), with 2/3 + 1/3 = 1
    basis = BSpline.basis_element([-2, -1, 0, 1, 2], extrapolate=False)
    field = noise
    for centre, axis in zip(MNI152_CENTRE_MM, axes_mm, strict=True):
        weights = np.nan_to_num(basis((axis - centre)[:, None] / smoothness_mm - spread)) @ blur
        # a lattice leaves a ripple in the variance of about one per cent; it goes here
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        # the axis that was upsampled goes to the end, so after three turns the order is the first one
        field = np.moveaxis(field, 1, -1) @ weights.T.astype(np.float32)
    return field


def scaling(axes_mm: Sequence[Array], log_scale: float) -> npt.NDArray[np.float32]:
    """Return the velocity that makes a subject ``exp(log_scale)`` times as long in every direction.

    Returns:
        Shape ``(3, D, H, W)``, mm.
    """
    shape = [len(axis) for axis in axes_mm]
    parts = [
        np.broadcast_to(_along((axis - centre) * -log_scale, place), shape)
        for place, (axis, centre) in enumerate(zip(axes_mm, MNI152_CENTRE_MM, strict=True))
    ]
    return np.stack(parts).astype(np.float32)


def local_effect(axes_mm: Sequence[Array], site: Site, log_volume: float) -> npt.NDArray[np.float32]:
    """Return the velocity that multiplies the volume at the centre of ``site`` by ``exp(log_volume)``.

    ``v(x) = a (x - c) exp(-|x - c|^2 / (2 r^2))`` has divergence ``3 a`` at ``c``, where the flow rests, so the
    pull-back's Jacobian determinant there is ``exp(3 a)``. A subject's volume goes the other way, so ``a`` is
    ``-log_volume / 3``.

    Returns:
        Shape ``(3, D, H, W)``, mm.
    """
    offsets = [axis - centre for axis, centre in zip(axes_mm, site.centre_mm, strict=True)]
    bells = [np.exp(-0.5 * (offset / site.radius_mm) ** 2) for offset in offsets]
    bump = -log_volume / 3 * np.einsum("i,j,k->ijk", *bells)
    return np.stack([bump * _along(offset, place) for place, offset in enumerate(offsets)]).astype(np.float32)


def taper(axes_mm: Sequence[Array]) -> npt.NDArray[np.float32]:
    """Return a factor that falls smoothly to 0 at the faces of the grid over ``TAPER_MM``, so that nothing leaves it.

    Returns:
        Shape ``(D, H, W)``, 0 to 1.
    """
    parts = []
    for axis in axes_mm:
        depth = np.clip(np.minimum(axis - axis[0], axis[-1] - axis) / TAPER_MM, 0.0, 1.0)
        parts.append(depth * depth * (3.0 - 2.0 * depth))
    return np.asarray(np.einsum("i,j,k->ijk", *parts), dtype=np.float32)


def _along(values: Array, place: int) -> Array:
    """Lay ``values`` along one of three axes, so that it broadcasts over the others."""
    shape = [1, 1, 1]
    shape[place] = -1
    return values.reshape(shape)
