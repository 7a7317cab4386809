"""Fairness for medical imaging, the MONAI way."""

__version__ = "0.1.0"
