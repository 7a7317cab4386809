"""Thin ignite handlers for MONAI engines."""

from monai_fair.handlers.adversary import AdversaryHandler
from monai_fair.handlers.best_model import BestModelSaver, ModelSettingsCheck
from monai_fair.handlers.erasure import ErasureFitter
from monai_fair.handlers.group_dro import GroupDROHandler
from monai_fair.handlers.group_metrics import GroupMetricHandler
from monai_fair.handlers.last_model import LastModelSaver
from monai_fair.handlers.layer_outputs import LayerOutputs, fairread_layers
from monai_fair.handlers.loss_term import LossTerm
from monai_fair.handlers.neural_collapse import NeuralCollapseHandler
from monai_fair.handlers.nir import NIRHandler
from monai_fair.handlers.orthogonality import OrthogonalityHandler
from monai_fair.handlers.outputs import batch_loss
from monai_fair.handlers.predictions import PredictionSaver
from monai_fair.handlers.sampler_check import SamplerCheck
from monai_fair.handlers.selection import SelectionRecorder
from monai_fair.handlers.training_state import EarlyStopping, EpochSeed, TrainingStateSaver

__all__ = [
    "AdversaryHandler",
    "BestModelSaver",
    "EarlyStopping",
    "EpochSeed",
    "ErasureFitter",
    "GroupDROHandler",
    "GroupMetricHandler",
    "LastModelSaver",
    "LayerOutputs",
    "LossTerm",
    "ModelSettingsCheck",
    "NIRHandler",
    "NeuralCollapseHandler",
    "OrthogonalityHandler",
    "PredictionSaver",
    "SamplerCheck",
    "SelectionRecorder",
    "TrainingStateSaver",
    "batch_loss",
    "fairread_layers",
]
