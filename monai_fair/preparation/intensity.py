"""Intensities of a scan from 0 to 1, and how alike two images are."""

from typing import Any

import numpy as np
import numpy.typing as npt

from monai_fair.errors import RegistrationError

_PERCENTILES = (0.5, 99.5)


def normalise(array: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Map the 0.5th and the 99.5th percentile inside ``mask`` to 0 and 1, and cut off what lies beyond.

    Nothing is taken from other subjects, so that a scan does not change with its cohort.

    Args:
        array: shape ``(D, H, W)``.
        mask: of the same shape; its voxels give the percentiles, all voxels are mapped.

    Raises:
        RegistrationError: if the mask is empty, or both percentiles are the same.
    """
    if not mask.any():
        raise RegistrationError("intensities: expected a brain on the template's grid, got an empty mask there")
    low, high = np.percentile(array[mask], _PERCENTILES)
    if not low < high:
        raise RegistrationError(f"intensities: expected tissue inside the mask, got {low:g} in 99 % of its voxels")
    scaled: npt.NDArray[np.float32] = np.clip((array - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return scaled


def normalised_correlation(first: npt.NDArray[Any], second: npt.NDArray[Any], mask: npt.NDArray[np.bool_]) -> float:
    """Return Pearson's correlation of two images inside ``mask``; NaN where one of them is constant there."""
    left, right = first[mask].astype(np.float64), second[mask].astype(np.float64)
    if not mask.any() or np.ptp(left) == 0 or np.ptp(right) == 0:
        return float("nan")
    return float(np.corrcoef(left, right)[0, 1])
