"""First and second derivatives of displacements: of dense fields, and of functions that are evaluated at points.

Both kinds give the same matrices, so that one formula of :mod:`monai_fair.losses.deformation` serves both.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from monai_fair.errors import GeometryError, raise_problems
from monai_fair.geometry import jacobian

UNIT_SPACING = (1.0, 1.0, 1.0)


def field_jacobian(displacement_vox: Tensor, *, spacing_mm: Sequence[float] = UNIT_SPACING) -> Tensor:
    """Return the Jacobian matrices of ``x + u(x)`` in millimetres along the array's axes, by finite differences.

    Args:
        displacement_vox: shape ``(B, 3, D, H, W)``, in voxels.
        spacing_mm: distance of voxel centres along each array axis. Only its ratios count.

    Returns:
        Shape ``(B, D, H, W, 3, 3)``, a view: ``[..., a, b]`` is the derivative of component ``a`` along axis ``b``.

    Raises:
        GeometryError: if the field has another shape, or the spacing is not three positive numbers.
    """
    check_field("field_jacobian", displacement_vox, spacing_mm, smallest=2)
    matrices = jacobian(displacement_vox).movedim((1, 2), (-2, -1))
    if len(set(spacing_mm)) == 1:
        return matrices
    spacing = displacement_vox.new_tensor(spacing_mm)
    return matrices * (spacing[:, None] / spacing)


def check_field(source: str, displacement_vox: Tensor, spacing_mm: Sequence[float], *, smallest: int) -> None:
    """Raise ``GeometryError`` unless the field is ``(B, 3, D, H, W)`` and the spacing three positive numbers."""
    shape = tuple(displacement_vox.shape)
    problems = []
    if len(shape) != 5 or shape[1] != 3 or min(shape[2:]) < smallest:
        problems.append(
            f"expected a field of shape (B, 3, D, H, W) with at least {smallest} voxels along each axis, got {shape}; "
            "give a 3D displacement in voxels"
        )
    if len(spacing_mm) != 3 or not all(0 < float(value) < float("inf") for value in spacing_mm):
        problems.append(f"expected spacing_mm to be three positive numbers, got {tuple(spacing_mm)}; take the grid's")
    raise_problems(GeometryError, source, problems)


def second_difference(field: Tensor, first: int, second: int) -> Tensor:
    """Return the second difference of a field along two array axes, at all voxels but those on the faces.

    Args:
        field: shape ``(B, C, D, H, W)``, at least 3 voxels along each axis.
        first: array axis, 0 to 2.
        second: the same axis, for ``(1, -2, 1)``, or another one, for the mixed difference of the four diagonal
            neighbours.

    Returns:
        Shape ``(B, C, D - 2, H - 2, W - 2)``.
    """

    def moved(*steps: int) -> Tensor:
        starts = [1, 1, 1]
        for axis, step in zip((first, second), steps, strict=False):
            starts[axis] += step
        d, h, w = (slice(start, start + size - 2) for start, size in zip(starts, field.shape[2:], strict=True))
        return field[:, :, d, h, w]

    if first == second:
        return moved(1) - 2 * moved() + moved(-1)
    return (moved(1, 1) - moved(1, -1) - moved(-1, 1) + moved(-1, -1)) / 4


def displacement_jacobian(displacement: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Return the Jacobian matrices of ``x + u(x)`` at ``points``, by automatic differentiation.

    The identity is included, as in :func:`monai_fair.geometry.jacobian`. Where gradients are enabled the result has
    one with respect to the function's weights; under ``torch.no_grad`` it has none and takes less memory.

    Args:
        displacement: ``u``, from points ``(N, 3)`` to displacements ``(N, 3)`` in the same axes and unit (millimetres,
            for the regularisers to be in millimetres). Each row of the result may depend on its own point only.
        points: shape ``(N, 3)``.

    Returns:
        Shape ``(N, 3, 3)``: ``[n, a, b]`` is the derivative of component ``a`` along axis ``b``.

    Raises:
        GeometryError: if the points or the displacements have another shape.
    """
    with_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        places = _places(points)
        return _derivatives(places + _displaced(displacement, places), places, with_graph=with_graph)


def displacement_hessian(displacement: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Return the second derivatives of ``u`` at ``points``, by automatic differentiation.

    Args:
        displacement: as in :func:`displacement_jacobian`.
        points: shape ``(N, 3)``.

    Returns:
        Shape ``(N, 3, 3, 3)``: ``[n, a, b, c]`` is the derivative of component ``a`` along axes ``b`` and ``c``.

    Raises:
        GeometryError: if the points or the displacements have another shape.
    """
    with_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        places = _places(points)
        first = _derivatives(_displaced(displacement, places), places, with_graph=True)
        return _derivatives(first, places, with_graph=with_graph)


def _derivatives(values: Tensor, points: Tensor, *, with_graph: bool) -> Tensor:
    """Return d values / d points, shape ``(*values.shape, 3)``, for values whose row ``n`` depends on point ``n``."""
    if not values.requires_grad:  # a constant function
        return values.new_zeros(*values.shape, points.shape[-1])
    columns = values.flatten(1).unbind(1)
    found = [
        torch.autograd.grad(
            column.sum(), points, create_graph=with_graph, retain_graph=True, allow_unused=True, materialize_grads=True
        )[0]
        for column in columns
    ]
    return torch.stack(found, dim=1).reshape(*values.shape, points.shape[-1])


def _places(points: Tensor) -> Tensor:
    if points.dim() != 2 or points.shape[1] != 3:
        raise GeometryError(f"points: expected shape (N, 3), got {tuple(points.shape)}; flatten the grid first")
    return points.detach().requires_grad_()


def _displaced(displacement: Callable[[Tensor], Tensor], places: Tensor) -> Tensor:
    values = displacement(places)
    if values.shape != places.shape:
        raise GeometryError(
            f"displacement: expected a result of the shape of the points {tuple(places.shape)}, "
            f"got {tuple(values.shape)}; return one displacement per point"
        )
    return values
