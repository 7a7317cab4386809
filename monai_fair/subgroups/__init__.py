"""Subgroups that are found, not recorded: mixtures of representations, their number, what goes along with them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_fair.subgroups.agreement import average_precision, detection_table, precision_at
    from monai_fair.subgroups.associations import LabelAssociation, attribute_associations, label_association
    from monai_fair.subgroups.contingency import Association, OddsRatio, cramers_v
    from monai_fair.subgroups.local_mixture import LocalMixture
    from monai_fair.subgroups.mixture import ErrorAwareMixture
    from monai_fair.subgroups.representations import (
        Representation,
        code_rows,
        displacement_blocks,
        embedding_rows,
        intensity_blocks,
        log_jacobian_blocks,
        without_nuisances,
    )
    from monai_fair.subgroups.selection import Selection, select_components

__all__ = [
    "Association",
    "ErrorAwareMixture",
    "LabelAssociation",
    "LocalMixture",
    "OddsRatio",
    "Representation",
    "Selection",
    "attribute_associations",
    "average_precision",
    "code_rows",
    "cramers_v",
    "detection_table",
    "displacement_blocks",
    "embedding_rows",
    "intensity_blocks",
    "label_association",
    "log_jacobian_blocks",
    "precision_at",
    "select_components",
    "without_nuisances",
]

# Where each name is: scikit-learn is loaded when one is asked for.
_LAZY = {
    "Association": "contingency",
    "ErrorAwareMixture": "mixture",
    "LabelAssociation": "associations",
    "LocalMixture": "local_mixture",
    "OddsRatio": "contingency",
    "Representation": "representations",
    "Selection": "selection",
    "attribute_associations": "associations",
    "average_precision": "agreement",
    "code_rows": "representations",
    "cramers_v": "contingency",
    "detection_table": "agreement",
    "displacement_blocks": "representations",
    "embedding_rows": "representations",
    "intensity_blocks": "representations",
    "label_association": "associations",
    "log_jacobian_blocks": "representations",
    "precision_at": "agreement",
    "select_components": "selection",
    "without_nuisances": "representations",
}


def __getattr__(name: str) -> Any:
    """Load what needs scikit-learn only when it is asked for."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"monai_fair.subgroups.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
