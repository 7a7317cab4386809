"""Readers and MONAI dictionary transforms."""

from monai_fair.transforms.readers import NPZReader, RGBReader

__all__ = ["NPZReader", "RGBReader"]
