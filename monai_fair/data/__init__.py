"""Manifests, recipes, splits and predictions: the files that stages talk through."""

from monai_fair.data.artifacts import sha256
from monai_fair.data.builder import BuiltManifest, build_manifest, write_manifest
from monai_fair.data.crosstables import cross_tables, small_cells
from monai_fair.data.images import ImageCheck, check_images
from monai_fair.data.manifest import Manifest, check_manifest, load_datalist, read_manifest, recorded_num_classes
from monai_fair.data.predictions import Predictions, read_predictions, score_names, write_predictions
from monai_fair.data.recipes import Recipe, read_recipe
from monai_fair.data.splits import read_split, split_by_subject, write_split
from monai_fair.data.weights import class_weights

__all__ = [
    "BuiltManifest",
    "ImageCheck",
    "Manifest",
    "Predictions",
    "Recipe",
    "build_manifest",
    "check_images",
    "check_manifest",
    "class_weights",
    "cross_tables",
    "load_datalist",
    "read_manifest",
    "read_predictions",
    "read_recipe",
    "read_split",
    "recorded_num_classes",
    "score_names",
    "sha256",
    "small_cells",
    "split_by_subject",
    "write_manifest",
    "write_predictions",
    "write_split",
]
