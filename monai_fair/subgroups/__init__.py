"""Subgroups that are found, not recorded: mixtures of representations, their number, what goes along with them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_fair.subgroups.agreement import average_precision, detection_table, precision_at
    from monai_fair.subgroups.associations import LabelAssociation, attribute_associations, label_association
    from monai_fair.subgroups.block_maps import (
        block_positions,
        displacement_blocks,
        intensity_blocks,
        log_jacobian_blocks,
    )
    from monai_fair.subgroups.code_sampling import CodeSampler, SampledCode, SampledCodes, sample_codes
    from monai_fair.subgroups.contingency import Association, OddsRatio, cramers_v
    from monai_fair.subgroups.discovery import Discovery, discover
    from monai_fair.subgroups.discovery_files import discover_files
    from monai_fair.subgroups.labelwise_mixture import LabelwiseMixture
    from monai_fair.subgroups.local_mixture import LocalMixture
    from monai_fair.subgroups.mixture import ErrorAwareMixture
    from monai_fair.subgroups.new_subjects import assign_files, assign_subjects, read_discovered
    from monai_fair.subgroups.nuisances import Nuisances, read_nuisances, without_nuisances
    from monai_fair.subgroups.regions import Regions, read_regions, regional_volumes
    from monai_fair.subgroups.representations import Representation, code_rows, embedding_rows
    from monai_fair.subgroups.selection import Selection, select_components
    from monai_fair.subgroups.subgroup_model import SubgroupModel, read_subgroup_model

__all__ = [
    "Association",
    "CodeSampler",
    "Discovery",
    "ErrorAwareMixture",
    "LabelAssociation",
    "LabelwiseMixture",
    "LocalMixture",
    "Nuisances",
    "OddsRatio",
    "Regions",
    "Representation",
    "SampledCode",
    "SampledCodes",
    "Selection",
    "SubgroupModel",
    "assign_files",
    "assign_subjects",
    "attribute_associations",
    "average_precision",
    "block_positions",
    "code_rows",
    "cramers_v",
    "detection_table",
    "discover",
    "discover_files",
    "displacement_blocks",
    "embedding_rows",
    "intensity_blocks",
    "label_association",
    "log_jacobian_blocks",
    "precision_at",
    "read_discovered",
    "read_nuisances",
    "read_regions",
    "read_subgroup_model",
    "regional_volumes",
    "sample_codes",
    "select_components",
    "without_nuisances",
]

# Where each name is: scikit-learn is loaded when one is asked for.
_LAZY = {
    "Association": "contingency",
    "Discovery": "discovery",
    "CodeSampler": "code_sampling",
    "ErrorAwareMixture": "mixture",
    "LabelAssociation": "associations",
    "LabelwiseMixture": "labelwise_mixture",
    "LocalMixture": "local_mixture",
    "Nuisances": "nuisances",
    "OddsRatio": "contingency",
    "Regions": "regions",
    "Representation": "representations",
    "SampledCode": "code_sampling",
    "SampledCodes": "code_sampling",
    "Selection": "selection",
    "SubgroupModel": "subgroup_model",
    "assign_files": "new_subjects",
    "assign_subjects": "new_subjects",
    "attribute_associations": "associations",
    "average_precision": "agreement",
    "block_positions": "block_maps",
    "code_rows": "representations",
    "cramers_v": "contingency",
    "detection_table": "agreement",
    "discover": "discovery",
    "discover_files": "discovery_files",
    "displacement_blocks": "block_maps",
    "embedding_rows": "representations",
    "intensity_blocks": "block_maps",
    "label_association": "associations",
    "log_jacobian_blocks": "block_maps",
    "precision_at": "agreement",
    "read_discovered": "new_subjects",
    "read_nuisances": "nuisances",
    "read_regions": "regions",
    "read_subgroup_model": "subgroup_model",
    "regional_volumes": "regions",
    "sample_codes": "code_sampling",
    "select_components": "selection",
    "without_nuisances": "nuisances",
}


def __getattr__(name: str) -> Any:
    """Load what needs scikit-learn only when it is asked for."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"monai_fair.subgroups.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
