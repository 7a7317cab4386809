"""Losses and regularisers: of classifiers, of deformations, and the similarity of images."""

from monai_fair.losses.attribute_loss import AttributeLoss
from monai_fair.losses.channel_means import probability_weighted_means, sample_weights
from monai_fair.losses.classification import ClassificationLoss
from monai_fair.losses.deformation import (
    BendingLoss,
    GradientInverseConsistencyLoss,
    HyperelasticLoss,
    JacobianDeviationLoss,
    bending_density,
    bending_energy,
    code_prior,
    gradient_inverse_consistency,
    hyperelastic_energy,
    jacobian_deviation,
)
from monai_fair.losses.derivatives import displacement_hessian, displacement_jacobian, field_jacobian
from monai_fair.losses.group_dro import GroupDROLoss, group_dro_step
from monai_fair.losses.nir import (
    NIRRegularizer,
    incidence_statistics,
    neuron_incidence_redistribution,
)
from monai_fair.losses.nir_loss import NIRLoss
from monai_fair.losses.orthogonality import ColumnOrthogonality, RowOrthogonality
from monai_fair.losses.sensitive_space import sensitive_basis, updated_basis
from monai_fair.losses.similarity import (
    CorrelationLoss,
    LocalCorrelationLoss,
    LocalNormalizedMSELoss,
    MutualInformationLoss,
    gaussian_blur,
    local_normalize,
    local_normalized_mse,
    mutual_information,
    normalized_correlation,
)

__all__ = [
    "AttributeLoss",
    "BendingLoss",
    "ClassificationLoss",
    "ColumnOrthogonality",
    "CorrelationLoss",
    "GradientInverseConsistencyLoss",
    "GroupDROLoss",
    "HyperelasticLoss",
    "JacobianDeviationLoss",
    "LocalCorrelationLoss",
    "LocalNormalizedMSELoss",
    "MutualInformationLoss",
    "NIRLoss",
    "NIRRegularizer",
    "RowOrthogonality",
    "bending_density",
    "bending_energy",
    "code_prior",
    "displacement_hessian",
    "displacement_jacobian",
    "field_jacobian",
    "gaussian_blur",
    "gradient_inverse_consistency",
    "group_dro_step",
    "hyperelastic_energy",
    "incidence_statistics",
    "jacobian_deviation",
    "local_normalize",
    "local_normalized_mse",
    "mutual_information",
    "neuron_incidence_redistribution",
    "normalized_correlation",
    "probability_weighted_means",
    "sample_weights",
    "sensitive_basis",
    "updated_basis",
]
