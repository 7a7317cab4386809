"""Group metrics over predictions: values, intervals, gaps and what chance makes of them."""

from monai_fair.metrics.auc import auc_by_group, auc_interval, logit_interval, placements
from monai_fair.metrics.audit_results import audit
from monai_fair.metrics.cases import gather_cases
from monai_fair.metrics.channels import Coactivation, CoactivationCell, coactivation
from monai_fair.metrics.gaps import group_gap, holm, permutation_p
from monai_fair.metrics.groups import Grouping, group_by, groupings
from monai_fair.metrics.incidence import (
    ChannelIncidence,
    Concentration,
    ablate_channel,
    channel_incidence,
    concentration,
)
from monai_fair.metrics.intervals import t_interval, wilson_interval
from monai_fair.metrics.permutation import permuted_auc_gaps, permuted_rate_gaps
from monai_fair.metrics.rates import RATE_NAMES, confusion_counts, rate
from monai_fair.metrics.tables import AuditSettings
from monai_fair.metrics.thresholds import fit_threshold, youden_threshold

__all__ = [
    "RATE_NAMES",
    "AuditSettings",
    "ChannelIncidence",
    "Coactivation",
    "CoactivationCell",
    "Concentration",
    "Grouping",
    "ablate_channel",
    "auc_by_group",
    "auc_interval",
    "audit",
    "channel_incidence",
    "coactivation",
    "concentration",
    "confusion_counts",
    "fit_threshold",
    "gather_cases",
    "group_by",
    "group_gap",
    "groupings",
    "holm",
    "logit_interval",
    "permutation_p",
    "permuted_auc_gaps",
    "permuted_rate_gaps",
    "placements",
    "rate",
    "t_interval",
    "wilson_interval",
    "youden_threshold",
]
