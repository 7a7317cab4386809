"""Real scans on a template's grid: shading corrected, affinely registered, masked, their intensities from 0 to 1."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_fair.preparation.affine import AffineFit, register_affine, split_scale
    from monai_fair.preparation.cohort import PreparedCohort, prepare_cohort, source_manifest
    from monai_fair.preparation.options import PreparationOptions
    from monai_fair.preparation.reading import read_scan
    from monai_fair.preparation.subject import PreparedScan, prepare_scan

__all__ = [
    "AffineFit",
    "PreparationOptions",
    "PreparedCohort",
    "PreparedScan",
    "prepare_cohort",
    "prepare_scan",
    "read_scan",
    "register_affine",
    "source_manifest",
    "split_scale",
]

# All of it needs SimpleITK and torch, by module: loaded when it is asked for.
_LAZY = {
    "AffineFit": "affine",
    "PreparationOptions": "options",
    "PreparedCohort": "cohort",
    "PreparedScan": "subject",
    "prepare_cohort": "cohort",
    "prepare_scan": "subject",
    "read_scan": "reading",
    "register_affine": "affine",
    "source_manifest": "cohort",
    "split_scale": "affine",
}


def __getattr__(name: str) -> Any:
    """Load a function or class when it is asked for."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"monai_fair.preparation.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
