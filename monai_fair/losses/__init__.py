"""Losses and regularisers for training classifiers."""

from monai_fair.losses.channel_means import probability_weighted_means, sample_weights
from monai_fair.losses.classification import ClassificationLoss
from monai_fair.losses.nir import (
    NIRRegularizer,
    incidence_statistics,
    neuron_incidence_redistribution,
)
from monai_fair.losses.nir_loss import NIRLoss

__all__ = [
    "ClassificationLoss",
    "NIRLoss",
    "NIRRegularizer",
    "incidence_statistics",
    "neuron_incidence_redistribution",
    "probability_weighted_means",
    "sample_weights",
]
