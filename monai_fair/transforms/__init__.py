"""Readers and MONAI dictionary transforms."""

from monai_fair.transforms.readers import RGBReader

__all__ = ["RGBReader"]
