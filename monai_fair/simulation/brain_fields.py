"""The geometry of the package on NumPy arrays: what the simulation needs of it, and its one door to torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from monai_fair import geometry

Field = npt.NDArray[np.float32]


def flow(velocity_vox: Field, *, steps: int = 8) -> Field:
    """Return the displacement of the flow of a velocity, both of shape ``(3, D, H, W)`` in voxels."""
    return np.asarray(geometry.exponential(_tensor(velocity_vox), steps=steps)[0].numpy())


def warped(array: npt.NDArray[Any], displacement_vox: Field, *, mode: str = "bilinear") -> npt.NDArray[Any]:
    """Return ``array(x + u(x))`` in the type of ``array``, shape ``(D, H, W)``; ``nearest`` keeps labels whole."""
    values = geometry.warp(_tensor(array[None].astype(np.float32)), _tensor(displacement_vox), mode=mode)
    return np.asarray(values[0, 0].numpy()).astype(array.dtype)


@dataclass(frozen=True)
class VolumeChanges:
    """What a displacement does to volumes, over the voxels of a mask.

    Attributes:
        minimum: smallest determinant of the Jacobian over the whole grid; at or below 0 the map folds.
        maximum: largest one over the whole grid.
        log_sd: standard deviation of its logarithm inside the mask; NaN if the map folds there.
    """

    minimum: float
    maximum: float
    log_sd: float


def volume_changes(displacement_vox: Field, mask: npt.NDArray[np.bool_]) -> VolumeChanges:
    """Summarise the Jacobian determinant of ``x + u(x)``."""
    determinant = geometry.jacobian_determinant(_tensor(displacement_vox))[0].numpy()
    inside = determinant[mask]
    log_sd = float(np.log(inside).std()) if inside.min() > 0 else float("nan")
    return VolumeChanges(float(determinant.min()), float(determinant.max()), log_sd)


def _tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))[None]
