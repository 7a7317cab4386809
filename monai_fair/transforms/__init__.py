"""Readers and MONAI dictionary transforms."""

from monai_fair.transforms.inr_deformation import RandINRDeformationd, smallest_determinant
from monai_fair.transforms.readers import NPZReader, RGBReader
from monai_fair.transforms.subvoxel_shift import RandSubvoxelShiftd
from monai_fair.transforms.volume_reader import VolumeReader

__all__ = [
    "NPZReader",
    "RGBReader",
    "RandINRDeformationd",
    "RandSubvoxelShiftd",
    "VolumeReader",
    "smallest_determinant",
]
