"""Subgroups that are found, not recorded: mixtures of representations, their number, what goes along with them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_fair.subgroups.agreement import average_precision, detection_table, precision_at
    from monai_fair.subgroups.associations import LabelAssociation, attribute_associations, label_association
    from monai_fair.subgroups.contingency import Association, OddsRatio, cramers_v
    from monai_fair.subgroups.mixture import ErrorAwareMixture
    from monai_fair.subgroups.selection import Selection, select_components

__all__ = [
    "Association",
    "ErrorAwareMixture",
    "LabelAssociation",
    "OddsRatio",
    "Selection",
    "attribute_associations",
    "average_precision",
    "cramers_v",
    "detection_table",
    "label_association",
    "precision_at",
    "select_components",
]

# Where each name is: scikit-learn is loaded when one is asked for.
_LAZY = {
    "Association": "contingency",
    "ErrorAwareMixture": "mixture",
    "LabelAssociation": "associations",
    "OddsRatio": "contingency",
    "Selection": "selection",
    "attribute_associations": "associations",
    "average_precision": "agreement",
    "cramers_v": "contingency",
    "detection_table": "agreement",
    "label_association": "associations",
    "precision_at": "agreement",
    "select_components": "selection",
}


def __getattr__(name: str) -> Any:
    """Load what needs scikit-learn only when it is asked for."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"monai_fair.subgroups.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
