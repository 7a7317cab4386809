"""Results of an audit as a page a clinician can read."""

from monai_fair.report.files import audit_files, find_runs
from monai_fair.report.incidence import combine_seeds, incidence_section
from monai_fair.report.model_card import model_card_block
from monai_fair.report.page import build_page, write_report

__all__ = [
    "audit_files",
    "build_page",
    "combine_seeds",
    "find_runs",
    "incidence_section",
    "model_card_block",
    "write_report",
]
