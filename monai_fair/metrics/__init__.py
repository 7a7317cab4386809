"""Group metrics over predictions: values, intervals, gaps and what chance makes of them; quality of registrations."""

import importlib
from typing import TYPE_CHECKING, Any

from monai_fair.metrics.arm_scores import f1_by_seed
from monai_fair.metrics.arm_statistics import ArmDifference, arm_difference, compare_arms, smallest_p
from monai_fair.metrics.attribute_auc import AttributeAUC, separability
from monai_fair.metrics.auc import auc_by_group, auc_interval, logit_interval, paired_auc_difference, placements
from monai_fair.metrics.audit_results import audit
from monai_fair.metrics.by_group import group_values
from monai_fair.metrics.cases import gather_cases
from monai_fair.metrics.channels import Coactivation, CoactivationCell, coactivation
from monai_fair.metrics.definitions import METRICS, Metric
from monai_fair.metrics.fairness import (
    auc_gap,
    demographic_parity_difference,
    equal_opportunity_difference,
    equalized_odds_difference,
    fate,
)
from monai_fair.metrics.gaps import group_gap, permutation_p
from monai_fair.metrics.group_thresholds import ThresholdFitter, Thresholds, fit_thresholds
from monai_fair.metrics.groups import Grouping, group_by
from monai_fair.metrics.incidence import (
    ChannelIncidence,
    Concentration,
    ablate_channel,
    channel_incidence,
    concentration,
)
from monai_fair.metrics.intervals import t_interval, wilson_interval
from monai_fair.metrics.metric_frame import to_metric_frame
from monai_fair.metrics.neural_collapse_assembly import collapse_result
from monai_fair.metrics.neural_collapse_distances import FeatureDistances
from monai_fair.metrics.neural_collapse_head import LinearHead, linear_head
from monai_fair.metrics.neural_collapse_means import ClassMeans, FeatureMoments
from monai_fair.metrics.neural_collapse_measures import COLLAPSE_MEASURES
from monai_fair.metrics.neural_collapse_results import CollapseValue, NeuralCollapse
from monai_fair.metrics.neural_collapse_samples import neural_collapse
from monai_fair.metrics.paired_statistics import PairedDifference, paired_difference
from monai_fair.metrics.probes import Probe, attribute_probe
from monai_fair.metrics.rank_agreements import RankAgreement, rank_agreement
from monai_fair.metrics.rates import RATE_NAMES, confusion_counts, rate
from monai_fair.metrics.selection import select_epochs
from monai_fair.metrics.settings import AuditSettings
from monai_fair.metrics.split_tests import SplitTest, split_test
from monai_fair.metrics.threshold_files import read_thresholds, write_thresholds
from monai_fair.metrics.threshold_tables import store_thresholds, write_threshold_column
from monai_fair.metrics.thresholds import GroupThreshold, find_threshold, fit_threshold, shrink_threshold
from monai_fair.multiplicity import holm

if TYPE_CHECKING:
    from monai_fair.metrics.registration import (
        det_jacobian,
        dice_by_label,
        endpoint_error_mm,
        fold_share,
        inverse_consistency_mm,
        local_correlation,
        log_det_jacobian,
        registration_quality,
        sd_log_det_jacobian,
    )

__all__ = [
    "COLLAPSE_MEASURES",
    "METRICS",
    "RATE_NAMES",
    "ArmDifference",
    "AttributeAUC",
    "AuditSettings",
    "ChannelIncidence",
    "ClassMeans",
    "Coactivation",
    "CoactivationCell",
    "CollapseValue",
    "Concentration",
    "FeatureDistances",
    "FeatureMoments",
    "GroupMetric",
    "GroupThreshold",
    "Grouping",
    "LinearHead",
    "Metric",
    "NeuralCollapse",
    "NeuralCollapseMetric",
    "PairedDifference",
    "Probe",
    "RankAgreement",
    "SplitTest",
    "ThresholdFitter",
    "Thresholds",
    "ablate_channel",
    "arm_difference",
    "attribute_probe",
    "auc_by_group",
    "auc_gap",
    "auc_interval",
    "audit",
    "channel_incidence",
    "coactivation",
    "collapse_result",
    "compare_arms",
    "concentration",
    "confusion_counts",
    "demographic_parity_difference",
    "det_jacobian",
    "dice_by_label",
    "endpoint_error_mm",
    "equal_opportunity_difference",
    "equalized_odds_difference",
    "f1_by_seed",
    "fate",
    "find_threshold",
    "fit_threshold",
    "fit_thresholds",
    "fold_share",
    "gather_cases",
    "group_by",
    "group_gap",
    "group_values",
    "holm",
    "inverse_consistency_mm",
    "linear_head",
    "local_correlation",
    "log_det_jacobian",
    "logit_interval",
    "neural_collapse",
    "paired_auc_difference",
    "paired_difference",
    "permutation_p",
    "placements",
    "rank_agreement",
    "rate",
    "read_thresholds",
    "registration_quality",
    "sd_log_det_jacobian",
    "select_epochs",
    "separability",
    "shrink_threshold",
    "smallest_p",
    "split_test",
    "store_thresholds",
    "t_interval",
    "to_metric_frame",
    "wilson_interval",
    "write_threshold_column",
    "write_thresholds",
]

# What needs torch, by module: loaded when it is asked for, so that an audit runs without it.
_LAZY = {
    "GroupMetric": "cumulative",
    "NeuralCollapseMetric": "collapse_metric",
    "det_jacobian": "registration",
    "dice_by_label": "registration",
    "endpoint_error_mm": "registration",
    "fold_share": "registration",
    "inverse_consistency_mm": "registration",
    "local_correlation": "registration",
    "log_det_jacobian": "registration",
    "registration_quality": "registration",
    "sd_log_det_jacobian": "registration",
}


def __getattr__(name: str) -> Any:
    """Load what needs torch only when it is asked for."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"monai_fair.metrics.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
