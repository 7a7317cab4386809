"""Manifests, recipes, splits, predictions, volumes and displacement fields: the files that stages talk through."""

import importlib
from typing import TYPE_CHECKING, Any

from monai_fair.data.artifacts import sha256
from monai_fair.data.attribute_coding import (
    AttributeCodes,
    attribute_codes,
    read_attribute_codes,
    with_attribute_codes,
)
from monai_fair.data.builder import BuiltManifest, build_manifest, write_manifest
from monai_fair.data.crosstables import cross_tables, small_cells
from monai_fair.data.folds import write_folds
from monai_fair.data.gap_enlarging import enlarge_gaps
from monai_fair.data.gap_enlarging_files import enlarge_gap_files, enlarged_manifest
from monai_fair.data.group_labels import group_label_manifest, write_group_labels
from monai_fair.data.images import ImageCheck, check_images
from monai_fair.data.label_bias import inject_label_bias
from monai_fair.data.label_bias_files import bias_label_files, biased_manifest, label_changes, write_biased_labels
from monai_fair.data.manifest import Manifest, check_manifest, load_datalist, read_manifest, recorded_num_classes
from monai_fair.data.predictions import Predictions, read_predictions, score_names, write_predictions
from monai_fair.data.rebalancing import balancing_weights, cell_deficits, rebalanced_manifest, resample_cells
from monai_fair.data.rebalancing_files import read_subgroups, rebalance_files
from monai_fair.data.recipes import Recipe, read_recipe
from monai_fair.data.row_groups import group_counts, row_group
from monai_fair.data.splits import read_split, split_by_subject, write_split
from monai_fair.data.weights import class_weights

if TYPE_CHECKING:
    from monai_fair.data.displacements import (
        read_displacement,
        read_itk_transform,
        write_displacement,
        write_itk_transform,
    )
    from monai_fair.data.samplers import ClassBalancedBatchSampler, FixedSampler, weighted_sampler
    from monai_fair.data.volumes import Volume, read_labels, read_map, read_volume, write_volume

__all__ = [
    "AttributeCodes",
    "BuiltManifest",
    "ClassBalancedBatchSampler",
    "FixedSampler",
    "ImageCheck",
    "Manifest",
    "Predictions",
    "Recipe",
    "Volume",
    "attribute_codes",
    "balancing_weights",
    "bias_label_files",
    "biased_manifest",
    "build_manifest",
    "cell_deficits",
    "check_images",
    "check_manifest",
    "class_weights",
    "cross_tables",
    "enlarge_gap_files",
    "enlarge_gaps",
    "enlarged_manifest",
    "group_counts",
    "group_label_manifest",
    "inject_label_bias",
    "label_changes",
    "load_datalist",
    "read_attribute_codes",
    "read_displacement",
    "read_itk_transform",
    "read_labels",
    "read_manifest",
    "read_map",
    "read_predictions",
    "read_recipe",
    "read_split",
    "read_subgroups",
    "read_volume",
    "rebalance_files",
    "rebalanced_manifest",
    "recorded_num_classes",
    "resample_cells",
    "row_group",
    "score_names",
    "sha256",
    "small_cells",
    "split_by_subject",
    "weighted_sampler",
    "with_attribute_codes",
    "write_biased_labels",
    "write_displacement",
    "write_folds",
    "write_group_labels",
    "write_itk_transform",
    "write_manifest",
    "write_predictions",
    "write_split",
    "write_volume",
]

_WITH_TORCH = {
    "ClassBalancedBatchSampler": "samplers",
    "FixedSampler": "samplers",
    "Volume": "volumes",
    "read_displacement": "displacements",
    "read_itk_transform": "displacements",
    "read_labels": "volumes",
    "read_map": "volumes",
    "read_volume": "volumes",
    "weighted_sampler": "samplers",
    "write_displacement": "displacements",
    "write_itk_transform": "displacements",
    "write_volume": "volumes",
}


def __getattr__(name: str) -> Any:
    """Load what needs torch, such as what lies on grids, only when it is asked for: tables are read without it."""
    if name in _WITH_TORCH:
        return getattr(importlib.import_module(f"monai_fair.data.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
