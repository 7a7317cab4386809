"""Where the head is, and where scanners shade it: the foreground mask and N4."""

import math
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813

from monai_fair.errors import RegistrationError

_HEAD_MM = 170.0  # from the top of the head down to below the cerebellum; the neck would pull on the start
_N4_SPACING_MM = 4.0
_N4_ITERATIONS = (50, 50, 50, 50)
_N4_CONVERGENCE = 1e-3


def foreground_mask(image: Any) -> Any:
    """Return the head (or brain) as a mask: Otsu's threshold, the largest part, closed, its holes filled, no neck.

    Voxels more than 170 mm below the top of the mask are left out, as FSL's ``robustfov`` does.

    Args:
        image: SimpleITK image whose third axis runs to superior.

    Returns:
        uint8 image, 1 inside.

    Raises:
        RegistrationError: if nothing is above the threshold.
    """
    values = sitk.GetArrayViewFromImage(image)
    # fat and vessels are so bright that they would move the threshold above the brain
    low, high = (float(level) for level in np.percentile(values, (0.1, 99.0)))
    if not low < high:
        raise RegistrationError(f"foreground: expected tissue and background, got {low:g} in 99 % of the voxels")
    mask = sitk.OtsuThreshold(sitk.Clamp(image, lowerBound=low, upperBound=high), 0, 1, 128)
    radius = [max(1, round(3.0 / spacing)) for spacing in image.GetSpacing()]
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(sitk.BinaryMorphologicalOpening(mask, [1, 1, 1])))
    largest = parts == 1
    # closing at the edge of the image needs room around it
    padded = sitk.ConstantPad(largest, radius, radius, 0)
    filled = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(padded, radius))
    whole = sitk.Crop(filled, radius, radius)
    inside = sitk.GetArrayFromImage(whole)
    levels = np.flatnonzero(inside.any(axis=(1, 2)))
    if not levels.size:
        raise RegistrationError("foreground: expected a head, got no voxel above Otsu's threshold; give --masks")
    inside[: max(0, levels[-1] - int(_HEAD_MM / image.GetSpacing()[2]))] = 0
    head = sitk.GetImageFromArray(inside)
    head.CopyInformation(image)
    return head


def correct_bias(image: Any, mask: Any) -> Any:
    """Return ``image`` without its smooth shading, by N4 on voxels of about 4 mm inside ``mask``.

    N4 works on the logarithm, so voxels at or below 0 are lifted to a thousandth of the mask's median first.

    Args:
        image: SimpleITK image, float32.
        mask: of the same grid, 1 where the shading is estimated.

    References:
        Tustison et al., N4ITK: improved N3 bias correction, IEEE TMI 2010, doi:10.1109/TMI.2010.2046908.
    """
    inside = sitk.GetArrayViewFromImage(image)[sitk.GetArrayViewFromImage(mask) > 0]
    floor = 1e-3 * float(np.median(inside[inside > 0])) if (inside > 0).any() else 1.0
    lifted = sitk.Maximum(image, floor)
    shrink = [math.ceil(_N4_SPACING_MM / spacing) for spacing in image.GetSpacing()]
    shrink = [min(factor, max(1, size // 8)) for factor, size in zip(shrink, image.GetSize(), strict=True)]
    correction = sitk.N4BiasFieldCorrectionImageFilter()
    correction.SetMaximumNumberOfIterations(_N4_ITERATIONS)
    correction.SetConvergenceThreshold(_N4_CONVERGENCE)
    correction.Execute(sitk.Shrink(lifted, shrink), sitk.Shrink(mask, shrink))
    field = sitk.Exp(correction.GetLogBiasFieldAsImage(image))
    return sitk.Cast(image / sitk.Cast(field, image.GetPixelID()), sitk.sitkFloat32)
