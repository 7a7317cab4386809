"""Networks and what is done to them: deformations, a classifier, initial weights, the features a layer receives."""

from monai_fair.networks.attribute_encoder import AttributeColumns, AttributeEncoder
from monai_fair.networks.control_lattice import ControlLattice, SamplingGrid
from monai_fair.networks.coordinate_trunk import CoordinateTrunk
from monai_fair.networks.deformation import DeformationINR, Linearised
from monai_fair.networks.erasure import ErasedEncoder, LinearErasure, least_squares_erasure
from monai_fair.networks.fairread import EmbeddingClassifier, FairREAD, classifier_like, with_erasures
from monai_fair.networks.gradient_reversal import GradientReversal
from monai_fair.networks.imagenet import load_imagenet_weights
from monai_fair.networks.lattice_inr import LatticeINR
from monai_fair.networks.layer_input import LayerInput, layer_width, unwrapped
from monai_fair.networks.marginal import MarginalInferer, marginal_probabilities
from monai_fair.networks.modulated_siren import ModulatedSIREN
from monai_fair.networks.refusion import AttributeAdversary, RefusionBlock
from monai_fair.networks.siren_inr import ConditionedSIREN
from monai_fair.networks.stored_weights import load_weights
from monai_fair.networks.volume_classifier import VolumeClassifier
from monai_fair.networks.warping import TemplateWarp

__all__ = [
    "AttributeAdversary",
    "AttributeColumns",
    "AttributeEncoder",
    "ConditionedSIREN",
    "ControlLattice",
    "CoordinateTrunk",
    "DeformationINR",
    "EmbeddingClassifier",
    "ErasedEncoder",
    "FairREAD",
    "GradientReversal",
    "LatticeINR",
    "LayerInput",
    "LinearErasure",
    "Linearised",
    "MarginalInferer",
    "ModulatedSIREN",
    "RefusionBlock",
    "SamplingGrid",
    "TemplateWarp",
    "VolumeClassifier",
    "classifier_like",
    "layer_width",
    "least_squares_erasure",
    "load_imagenet_weights",
    "load_weights",
    "marginal_probabilities",
    "unwrapped",
    "with_erasures",
]
