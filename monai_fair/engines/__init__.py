"""Engines: what runs for long, with progress and resume."""

from monai_fair.engines.study import BundleStudy

__all__ = ["BundleStudy"]
