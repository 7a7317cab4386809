"""Cohorts with planted, recorded bias, written as ordinary files."""

from monai_fair.simulation.skin_cohort import SkinCohort
from monai_fair.simulation.skin_files import simulate_skin
from monai_fair.simulation.skin_options import simulate_skin_from_options

__all__ = ["SkinCohort", "simulate_skin", "simulate_skin_from_options"]
