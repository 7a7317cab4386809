"""Results of an audit, a registration and a discovery of subgroups as pages a clinician can read."""

import importlib
from typing import TYPE_CHECKING, Any

from monai_fair.report.collapse_measures import write_collapse_measures
from monai_fair.report.files import audit_files
from monai_fair.report.incidence import combine_seeds, incidence_section
from monai_fair.report.model_card import model_card_block
from monai_fair.report.page import build_page, write_report
from monai_fair.report.run_files import find_runs

if TYPE_CHECKING:
    from monai_fair.report.collapse_page import write_collapse_page
    from monai_fair.report.discovery_page import write_discovery_page
    from monai_fair.report.registration_dice import LabelMap
    from monai_fair.report.registration_page import write_registration_report

__all__ = [
    "LabelMap",
    "audit_files",
    "build_page",
    "combine_seeds",
    "find_runs",
    "incidence_section",
    "model_card_block",
    "write_collapse_measures",
    "write_collapse_page",
    "write_discovery_page",
    "write_registration_report",
    "write_report",
]

# What lies on grids needs torch, as does the network that the page of neural collapse trains, and an audit does not.
_LAZY = {
    "LabelMap": "registration_dice",
    "write_collapse_page": "collapse_page",
    "write_discovery_page": "discovery_page",
    "write_registration_report": "registration_page",
}


def __getattr__(name: str) -> Any:
    """Load what needs torch only when it is asked for."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"monai_fair.report.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
