"""Quality of a registration: overlap of labels, distance to a known truth, folds, volume changes, similarity.

NumPy in, numbers out, and the columns of a registration table from one call (:func:`registration_quality`). Fields are
displacements in voxels of shape ``(3, D, H, W)`` as in :mod:`monai_fair.geometry`; lengths in millimetres hold for
grids whose axes stand at right angles.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import uniform_filter

from monai_fair import geometry
from monai_fair.errors import GeometryError, raise_problems
from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray

Array = npt.NDArray[Any]
_FLAT = 1e-10  # share of the image's variance below which a window has no contrast but that of rounding

logger = logging.getLogger(__name__)


def dice_by_label(pred: Array, truth: Array, labels: Sequence[int] | None = None) -> dict[int, float]:
    """Return ``2 |A n B| / (|A| + |B|)`` of every label: 1 where it fills the same voxels, 0 where it shares none.

    Args:
        pred: labels of at least 0, any shape, of an integer type.
        truth: the same.
        labels: those to compare; ``None`` takes every label above 0 that is in either.

    Returns:
        Value per label, in ascending order or that of ``labels``. NaN, with a line in the log, for a label that is in
        neither.

    Raises:
        GeometryError: if shapes differ, or a map has values below 0 or is not of an integer type.
    """
    problems = []
    if pred.shape != truth.shape:
        problems.append(f"expected two maps of one shape, got {pred.shape} and {truth.shape}; bring them to one grid")
    for name, values in (("pred", pred), ("truth", truth)):
        if not np.issubdtype(values.dtype, np.integer):
            problems.append(f"expected {name} of an integer type, got {values.dtype}; round it if it holds labels")
        elif values.size and values.min() < 0:
            problems.append(f"expected {name} to hold labels of at least 0, got {values.min()}; correct it")
    raise_problems(GeometryError, "dice_by_label", problems)
    size = 1 + max((int(values.max()) for values in (pred, truth) if values.size), default=0)
    counts = [np.bincount(values.ravel(), minlength=size) for values in (pred, truth, truth[pred == truth])]
    total, shared = counts[0] + counts[1], counts[2]
    chosen = [int(label) for label in np.flatnonzero(total) if label > 0] if labels is None else list(labels)
    absent = [label for label in chosen if not 0 <= label < size or total[label] == 0]
    if absent:
        logger.warning("dice_by_label: labels in neither map, so without a value: %s", ", ".join(map(str, absent)))
    return {label: np.nan if label in absent else 2 * float(shared[label]) / float(total[label]) for label in chosen}


def endpoint_error_mm(
    displacement_vox: Array, truth_vox: Array, *, spacing_mm: Sequence[float], mask: BoolArray
) -> tuple[float, float]:
    """Return mean and 95th percentile of ``|u(x) - u_true(x)|`` over the voxels of a mask, in millimetres.

    Args:
        displacement_vox: shape ``(3, D, H, W)``.
        truth_vox: the same shape.
        spacing_mm: along the array axes.
        mask: shape ``(D, H, W)``.

    Raises:
        GeometryError: if shapes do not fit or the mask is empty.
    """
    fields = {"displacement_vox": displacement_vox, "truth_vox": truth_vox}
    _check("endpoint_error_mm", mask, fields=fields, spacing_mm=spacing_mm)
    error = _length_mm(displacement_vox.astype(np.float64) - truth_vox, spacing_mm)[mask]
    return float(error.mean()), float(np.percentile(error, 95))


def inverse_consistency_mm(
    outer_vox: Array, inner_vox: Array, *, spacing_mm: Sequence[float], mask: BoolArray
) -> float:
    """Return the mean of ``|(id + outer) o (id + inner) - id|`` over the voxels of a mask, in millimetres.

    Args:
        outer_vox: shape ``(3, D, H, W)``; the inverse, if the mask is on the grid of the map.
        inner_vox: the same shape; the map whose grid the mask is on.
        spacing_mm: along the array axes.
        mask: shape ``(D, H, W)``.

    Raises:
        GeometryError: if shapes do not fit or the mask is empty.
    """
    fields = {"outer_vox": outer_vox, "inner_vox": inner_vox}
    _check("inverse_consistency_mm", mask, fields=fields, spacing_mm=spacing_mm)
    left = geometry.compose(_tensor(outer_vox), _tensor(inner_vox))[0].numpy()
    return float(_length_mm(left, spacing_mm)[mask].mean())


def det_jacobian(displacement_vox: Array) -> FloatArray:
    """Return det J of ``x + u(x)`` for a field ``(3, D, H, W)``, shape ``(D, H, W)``; at or below 0 it folds.

    Raises:
        GeometryError: if the field has another shape.
    """
    inside = np.ones(displacement_vox.shape[1:], dtype=np.bool_)
    _check("det_jacobian", inside, fields={"displacement_vox": displacement_vox})
    return np.asarray(geometry.jacobian_determinant(_tensor(displacement_vox))[0].numpy(), dtype=np.float64)


def log_det_jacobian(determinant: FloatArray) -> FloatArray:
    """Return the natural logarithm of determinants; NaN where the map folds, which has none."""
    return np.log(determinant, out=np.full(determinant.shape, np.nan), where=determinant > 0)


def fold_share(determinant: FloatArray, *, mask: BoolArray) -> float:
    """Return the share of a mask's voxels where det J is at or below 0.

    Args:
        determinant: of :func:`det_jacobian`.
        mask: of the same shape.

    Raises:
        GeometryError: if shapes do not fit or the mask is empty.
    """
    _check("fold_share", mask, images={"determinant": determinant})
    return float((determinant[mask] <= 0).mean())


def sd_log_det_jacobian(determinant: FloatArray, *, mask: BoolArray) -> float:
    """Return the standard deviation of log det J over a mask's voxels: 0 for rigid maps, larger for rougher ones.

    Folded voxels have no logarithm and do not take part; :func:`fold_share` tells how many they are. NaN if all fold.

    Args:
        determinant: of :func:`det_jacobian`.
        mask: of the same shape.

    Raises:
        GeometryError: if shapes do not fit or the mask is empty.
    """
    _check("sd_log_det_jacobian", mask, images={"determinant": determinant})
    inside = determinant[mask]
    kept = inside[inside > 0]
    return float(np.log(kept).std()) if kept.size else float("nan")


def local_correlation(first: Array, second: Array, *, mask: BoolArray, window_vox: int = 9) -> float:
    """Return the mean over a mask of the correlation of two images in a cube around each voxel, from -1 to 1.

    1 for images that are alike up to a local gain and offset, such as a bias field; inverted contrast is negative.
    Windows in which an image has no contrast have no correlation and do not take part; the log counts them.

    Args:
        first: shape ``(D, H, W)``.
        second: the same shape.
        mask: of the same shape: centres of the windows.
        window_vox: width of the cube, odd; 9 is the radius of 4 that is usual for SyN. Beyond the image its edge is
            repeated.

    Returns:
        The mean; NaN if no window has contrast in both images.

    Raises:
        GeometryError: if shapes do not fit, the mask is empty, or the width is not an odd number of at least 3.
    """
    _check("local_correlation", mask, images={"first": first, "second": second})
    if window_vox < 3 or window_vox % 2 == 0:
        raise GeometryError(
            f"local_correlation: expected window_vox to be odd and at least 3, got {window_vox}; correct it"
        )
    # without their means, so that the difference of moments keeps its digits
    one, two = (image.astype(np.float64) - image.mean(dtype=np.float64) for image in (first, second))

    def covariance(a: FloatArray, b: FloatArray) -> FloatArray:
        means = [uniform_filter(values, window_vox, mode="nearest")[mask] for values in (a * b, a, b)]
        return np.asarray(means[0] - means[1] * means[2])

    variances = covariance(one, one), covariance(two, two)
    contrast = (variances[0] > _FLAT * one.var()) & (variances[1] > _FLAT * two.var())
    if not contrast.all():
        logger.warning(
            "local_correlation: %d of %d windows have no contrast and are left out", (~contrast).sum(), contrast.size
        )
    products = covariance(one, two)[contrast] / np.sqrt(variances[0][contrast] * variances[1][contrast])
    return float(products.mean()) if products.size else float("nan")


def registration_quality(
    displacement_vox: Array,
    *,
    subject: Array,
    template: Array,
    mask: BoolArray,
    spacing_mm: Sequence[float],
    inverse_vox: Array | None = None,
    truth_vox: Array | None = None,
    labels: Mapping[str, tuple[IntArray, IntArray]] | None = None,
    before: bool = True,
) -> dict[str, float]:
    """Return what a registration table says about the map ``subject(x) = template(x + u(x))``.

    Everything is measured on the subject's grid, inside its mask; Dice on the whole grid.

    Args:
        displacement_vox: ``u``, shape ``(3, D, H, W)``.
        subject: image, shape ``(D, H, W)``.
        template: image on the same grid.
        mask: the subject's brain.
        spacing_mm: along the array axes.
        inverse_vox: displacement of the inverse map, if there is one.
        truth_vox: the true displacement, if it is known.
        labels: for each name, such as ``tissue`` and ``roi``, the template's and the subject's label map.
        before: also measure the images as they were, under names that end in ``_before``.

    Returns:
        ``similarity`` (:func:`local_correlation` with the warped template), ``folds``, ``min_det_jacobian``,
        ``sd_log_det_jacobian``; with an inverse ``inverse_error_mm``; with labels ``dice_<name>``, the mean over all
        labels above 0 of either map; with a truth ``endpoint_error_mm`` and ``endpoint_error_p95_mm``. With ``before``
        also ``similarity_before``, ``dice_<name>_before``, ``endpoint_error_mm_before`` and
        ``endpoint_error_p95_mm_before``.

    Raises:
        GeometryError: if shapes do not fit or the mask is empty.
    """
    pairs = dict(labels or {})
    images = {"subject": subject, "template": template}
    for name, (moving, fixed) in pairs.items():
        images |= {f"labels of the template ({name})": moving, f"labels of the subject ({name})": fixed}
    given = {"displacement_vox": displacement_vox, "inverse_vox": inverse_vox, "truth_vox": truth_vox}
    fields = {name: field for name, field in given.items() if field is not None}
    _check("registration_quality", mask, fields=fields, images=images, spacing_mm=spacing_mm)
    determinant = det_jacobian(displacement_vox)
    quality = {
        "folds": fold_share(determinant, mask=mask),
        "min_det_jacobian": float(determinant[mask].min()),
        "sd_log_det_jacobian": sd_log_det_jacobian(determinant, mask=mask),
    }
    if inverse_vox is not None:
        quality["inverse_error_mm"] = inverse_consistency_mm(
            inverse_vox, displacement_vox, spacing_mm=spacing_mm, mask=mask
        )
    tested = {"": displacement_vox} | ({"_before": np.zeros_like(displacement_vox)} if before else {})
    for suffix, field in tested.items():
        warped = _warped(template, field, "bilinear")
        quality[f"similarity{suffix}"] = local_correlation(subject, warped, mask=mask)
        for name, (moving, fixed) in pairs.items():
            overlaps = dice_by_label(_warped(moving, field, "nearest").astype(np.int64), fixed)
            quality[f"dice_{name}{suffix}"] = float(np.mean([*overlaps.values()])) if overlaps else float("nan")
        if truth_vox is not None:
            error = endpoint_error_mm(field, truth_vox, spacing_mm=spacing_mm, mask=mask)
            quality[f"endpoint_error_mm{suffix}"], quality[f"endpoint_error_p95_mm{suffix}"] = error
    return quality


def _warped(image: Array, displacement_vox: Array, mode: str) -> Array:
    values = geometry.warp(_tensor(image[None]), _tensor(displacement_vox), mode=mode)
    return np.asarray(values[0, 0].numpy())


def _tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None]


def _length_mm(vectors_vox: Array, spacing_mm: Sequence[float]) -> FloatArray:
    """Return lengths ``(D, H, W)`` of vectors ``(3, D, H, W)``."""
    scaled = vectors_vox * np.asarray(spacing_mm, dtype=np.float64)[:, None, None, None]
    return np.asarray(np.sqrt((scaled**2).sum(axis=0)))


def _check(
    source: str,
    mask: BoolArray,
    *,
    fields: Mapping[str, Array] | None = None,
    images: Mapping[str, Array] | None = None,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> None:
    """Raise all that does not fit; a NaN is refused, because it compares as no fold and as no contrast."""
    problems = []
    if mask.ndim != 3 or mask.dtype != np.bool_ or not mask.any():
        problems.append(
            f"expected a mask of bool, shape (D, H, W), with at least one voxel, got {mask.dtype} of shape "
            f"{mask.shape} with {np.count_nonzero(mask)}; give the voxels to measure"
        )
    if len(spacing_mm) != 3 or not all(0 < float(value) < float("inf") for value in spacing_mm):
        problems.append(f"expected spacing_mm to be three positive numbers, got {tuple(spacing_mm)}; take the grid's")
    expected = dict.fromkeys(fields or {}, (3, *mask.shape)) | dict.fromkeys(images or {}, mask.shape)
    for name, values in {**(fields or {}), **(images or {})}.items():
        if values.shape != expected[name]:
            problems.append(
                f"expected {name} of shape {expected[name]}, got {values.shape}; bring all to the grid of the mask"
            )
        elif bad := np.count_nonzero(~np.isfinite(values)):
            problems.append(f"expected {name} to be finite, got {bad} values that are not; leave it out")
    raise_problems(GeometryError, source, problems)
