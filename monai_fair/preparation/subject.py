"""One scan: shading, mask, affine registration, the template's grid, intensities. Arrays in, arrays out."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk  # noqa: N813

from monai_fair.data.volumes import Volume
from monai_fair.errors import RegistrationError
from monai_fair.geometry import Axes, canonical
from monai_fair.preparation.affine import AffineFit, measure_affine, register_affine, split_scale
from monai_fair.preparation.conversion import Matrix, from_itk, itk_affine, one_thread, resample, to_itk
from monai_fair.preparation.foreground import correct_bias, foreground_mask
from monai_fair.preparation.intensity import normalise, normalised_correlation
from monai_fair.preparation.options import PreparationOptions, need_same_grid

_RIM_MM = 4.0


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan on the template's grid.

    Attributes:
        image: float32 in [0, 1], shape ``(D, H, W)``.
        mask: of the brain, bool, on the same grid.
        matrix: ``(4, 4)``, points of the output to points of the scan, RAS millimetres; what ``image`` was read with.
        fit: the affine registration with all 12 parameters, whatever of it was kept.
        measures: ``ncc`` (Pearson's correlation with the template inside its mask, all 12 parameters applied),
            ``mutual_information`` (nats), ``scale`` (length in the scan over length in the template),
            ``determinant`` (its cube), ``mask_ml`` (of the output's mask), ``native_mask_ml`` (the same in the scan),
            ``coverage`` (share of the template's brain that lies inside the scan) and ``edge_voxels`` (of the mask on
            the faces of the output's grid; above 0 the brain is cut off).
    """

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    matrix: Matrix
    fit: AffineFit
    measures: dict[str, float]


def prepare_scan(
    scan: Volume,
    template: Volume,
    template_mask: Volume,
    options: PreparationOptions,
    *,
    mask: Volume | None = None,
    matrix: Matrix | None = None,
) -> PreparedScan:
    """Bring a scan to the template's grid.

    Without ``keep_scale`` the scan is read through all 12 parameters. With it, the isotropic scale is taken out
    around the middle of the template's brain, so that the volume of the brain is that of the scan.

    Args:
        scan: as it was read, with axes in any order.
        template: float32, axes right, anterior, superior.
        template_mask: bool, on the same grid.
        options: see :class:`PreparationOptions`.
        mask: the scan's brain mask, on its grid.
        matrix: ``(4, 4)``, the affine map from the template to the scan in RAS millimetres, where other software has
            found it; without it, it is found by registration.

    Returns:
        The prepared scan; the same input gives the same bits, also from a flipped or permuted copy.

    Raises:
        GeometryError: if the mask is empty or on another grid.
        RegistrationError: if there is no foreground, the registration fails, or the result is constant.
    """
    if mask is not None:
        need_same_grid(mask, scan)
    # in one order of axes, N4 and the pyramid see the same voxels whatever the order in the file
    array, grid = canonical(scan.array, scan.grid)
    with one_thread():
        image = to_itk(np.ascontiguousarray(array, dtype=np.float32), grid)
        head = _head(
            image, None if mask is None else np.ascontiguousarray(canonical(mask.array, mask.grid)[0]), options
        )
        if options.n4:
            image = correct_bias(image, head)
        stripped = mask is not None or options.skull_stripped
        fit = _register(image, head, template, template_mask, matrix, stripped=stripped)
        middle = _middle(template_mask)
        kept = split_scale(fit.matrix, middle)[1] if options.keep_scale else fit.matrix
        return _resampled(image, head if stripped else None, fit, kept, template, template_mask, options)


def _head(image: Any, mask: npt.NDArray[Any] | None, options: PreparationOptions) -> Any:
    """Return the brain as given, the voxels that are not 0, or the foreground; uint8."""
    if mask is None and not options.skull_stripped:
        return foreground_mask(image)
    inside = mask > 0 if mask is not None else from_itk(image) != 0
    if mask is None and inside.all():
        raise RegistrationError(
            "skull_stripped: expected a background of exactly 0, got no voxel of 0; give --masks, or leave it out"
        )
    head = sitk.GetImageFromArray(np.ascontiguousarray(inside.transpose(2, 1, 0)).astype(np.uint8))
    head.CopyInformation(image)
    return head


def _register(
    image: Any, head: Any, template: Volume, template_mask: Volume, matrix: Matrix | None, *, stripped: bool
) -> AffineFit:
    fixed, fixed_mask = to_itk(template.array, template.grid), to_itk(template_mask.array, template.grid)
    if matrix is not None:
        return measure_affine(matrix, image, fixed, template_mask=fixed_mask)
    if not stripped:
        # a skull in one of the two only: compare inside the brain
        return register_affine(image, fixed, template_mask=fixed_mask, image_mask=head)
    # two brains without skull: their rim shows their size
    rim = sitk.BinaryDilate(fixed_mask, [max(1, round(_RIM_MM / step)) for step in fixed.GetSpacing()])
    moving, brain = (sitk.Mask(pair[0], pair[1]) for pair in ((image, head), (fixed, fixed_mask)))
    return register_affine(moving, brain, template_mask=rim, image_mask=head)


def _resampled(
    image: Any,
    brain: Any | None,
    fit: AffineFit,
    matrix: Matrix,
    template: Volume,
    template_mask: Volume,
    options: PreparationOptions,
) -> PreparedScan:
    reference, inside = to_itk(template.array, template.grid), template_mask.array.astype(bool)
    values = from_itk(resample(image, itk_affine(matrix), reference, interpolation=options.interpolation))
    everywhere = sitk.Cast(image * 0 + 1, sitk.sitkFloat32)
    seen = _share(everywhere, itk_affine(fit.matrix), reference)
    if brain is None:
        # the template's brain, laid over the scan by all 12 parameters and read where the output is
        laid = itk_affine(np.linalg.inv(fit.matrix) @ matrix)
        mask = _share(to_itk(inside, template.grid), laid, reference)
        mask &= _share(everywhere, itk_affine(matrix), reference)
    else:
        mask = _share(brain, itk_affine(matrix), reference)
    registered = values
    if options.keep_scale:
        registered = from_itk(resample(image, itk_affine(fit.matrix), reference))
    prepared = normalise(values, mask)
    if not options.keep_background:
        prepared[~mask] = 0.0
    millilitres = float(mask.sum()) * abs(float(np.linalg.det(template.grid.affine[:3, :3]))) / 1000
    measures = {
        "ncc": normalised_correlation(registered, template.array, inside & seen),
        "mutual_information": fit.mutual_information,
        "scale": fit.scale,
        "determinant": fit.determinant,
        "mask_ml": millilitres,
        "native_mask_ml": millilitres * float(np.linalg.det(matrix[:3, :3])),
        "coverage": float((inside & seen).sum() / inside.sum()),
        "edge_voxels": float(mask.sum() - mask[1:-1, 1:-1, 1:-1].sum()),
    }
    return PreparedScan(prepared, mask, matrix, fit, measures)


def _share(mask: Any, transform: Any, reference: Any) -> npt.NDArray[np.bool_]:
    """Resample a mask by shares of voxels: inside where at least half of the neighbourhood is."""
    inside: npt.NDArray[np.bool_] = from_itk(resample(sitk.Cast(mask, sitk.sitkFloat32), transform, reference)) >= 0.5
    return inside


def _middle(mask: Volume) -> npt.NDArray[np.float64]:
    inside = np.argwhere(mask.array)
    middle: npt.NDArray[np.float64] = mask.grid.points(inside.mean(axis=0), Axes.VOXEL, Axes.RAS)
    return middle
