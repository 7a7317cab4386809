"""Cohorts with planted, recorded bias, written as ordinary files."""

import importlib
from typing import TYPE_CHECKING, Any

from monai_fair.simulation.brain_cohort import BrainCohort
from monai_fair.simulation.brain_options import simulate_brain_from_options
from monai_fair.simulation.chest_cohort import ChestCohort
from monai_fair.simulation.chest_files import simulate_chest
from monai_fair.simulation.chest_options import simulate_chest_from_options
from monai_fair.simulation.skin_cohort import SkinCohort
from monai_fair.simulation.skin_files import simulate_skin
from monai_fair.simulation.skin_options import simulate_skin_from_options

if TYPE_CHECKING:
    from monai_fair.simulation.brain_anatomy import BrainAnatomy, load_brain_anatomy
    from monai_fair.simulation.brain_files import simulate_brain
    from monai_fair.simulation.brain_subject import BrainSubject, simulate_brain_subject

__all__ = [
    "BrainAnatomy",
    "BrainCohort",
    "BrainSubject",
    "ChestCohort",
    "SkinCohort",
    "load_brain_anatomy",
    "simulate_brain",
    "simulate_brain_from_options",
    "simulate_brain_subject",
    "simulate_chest",
    "simulate_chest_from_options",
    "simulate_skin",
    "simulate_skin_from_options",
]

# What needs torch, by module: loaded when it is asked for, so that the command line starts without it.
_LAZY = {
    "BrainAnatomy": "brain_anatomy",
    "load_brain_anatomy": "brain_anatomy",
    "simulate_brain": "brain_files",
    "BrainSubject": "brain_subject",
    "simulate_brain_subject": "brain_subject",
}


def __getattr__(name: str) -> Any:
    """Load what needs torch only when it is asked for."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"monai_fair.simulation.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
