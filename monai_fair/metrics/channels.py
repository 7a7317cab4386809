"""Does one channel answer to the disease, to an attribute, or to both?"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.arrays import BoolArray, FloatArray

_LABEL = "label"


@dataclass(frozen=True)
class CoactivationCell:
    """One channel against one group in one stratum.

    Attributes:
        attribute: the attribute, or ``label`` for the disease.
        group: the group compared with all others, or ``0`` and ``1`` for ``label``.
        stratum: ``all``, ``y=0`` or ``y=1``.
        auroc: probability that the channel is higher in the group than outside, ties one half; 0.5 means no
            relation; NaN where undefined.
        activation_rate: share of the group above the channel's quantile; NaN without a sample of the group.
        n: samples of the stratum with a known value of the attribute.
        n_group: those of the group.
        reason: why ``auroc`` is NaN; empty where it is defined.
    """

    attribute: str
    group: str
    stratum: str
    auroc: float
    activation_rate: float
    n: int
    n_group: int
    reason: str


@dataclass(frozen=True)
class Coactivation:
    """A channel against the disease and every group of every attribute.

    Attributes:
        channel: the channel.
        quantile: activation above this quantile counts as active.
        quantile_value: the activation at the quantile over all samples.
        cells: one per attribute, group and stratum.
        n_missing: samples left out per attribute because its value is missing.
    """

    channel: int
    quantile: float
    quantile_value: float
    cells: tuple[CoactivationCell, ...]
    n_missing: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def coactivation(
    features: npt.ArrayLike,
    channel: int,
    y: npt.ArrayLike,
    attributes: Mapping[str, Sequence[str]],
    *,
    quantile: float = 0.9,
) -> Coactivation:
    """Return how well one channel alone tells the diseased, and each group, from the others.

    A channel that answers to both has both AUROCs away from 0.5; within ``y=0`` and ``y=1`` the relation to a
    group cannot come from its prevalence.

    Args:
        features: input of the last linear layer, shape ``(N, D)``.
        channel: index of the channel, 0 to ``D - 1``.
        y: labels 0 or 1, shape ``(N,)``.
        attributes: values by attribute name, ``N`` texts each; the empty text is missing, is left out for this
            attribute and counted. Each group is compared with all other known values.
        quantile: where "active" begins, strictly between 0 and 1.

    Raises:
        MonaiFairError: if shapes or values do not fit; all problems in one message.
    """
    hidden, labels = np.asarray(features, dtype=np.float64), np.asarray(y)
    raise_problems(MonaiFairError, "coactivation", _problems(hidden, channel, labels, attributes, quantile))
    activation: FloatArray = hidden[:, channel]
    value = float(np.quantile(activation, quantile))
    active: BoolArray = activation > value
    positive: BoolArray = labels == 1
    everyone = np.ones_like(positive)
    sides = (("0", ~positive), ("1", positive))
    cells = [_cell(activation, active, member, everyone, (_LABEL, side, "all")) for side, member in sides]
    missing = {}
    for name, values in attributes.items():
        groups = np.asarray(values, dtype=str)
        missing[name] = int((groups == "").sum())
        for stratum, inside in (("all", everyone), ("y=0", ~positive), ("y=1", positive)):
            for group in np.unique(groups[groups != ""]).tolist():
                known = inside & (groups != "")
                cells.append(_cell(activation, active, groups == group, known, (name, group, stratum)))
    return Coactivation(channel, quantile, value, tuple(cells), missing)


def _cell(
    activation: FloatArray, active: BoolArray, member: BoolArray, known: BoolArray, names: tuple[str, str, str]
) -> CoactivationCell:
    n, n_group = int(known.sum()), int((member & known).sum())
    reason = "" if 0 < n_group < n else ("no sample of the group" if n_group == 0 else "no sample outside the group")
    auroc = float("nan") if reason else float(roc_auc_score(member[known], activation[known]))
    rate = float(active[member & known].mean()) if n_group else float("nan")
    attribute, group, stratum = names
    return CoactivationCell(attribute, group, stratum, auroc, rate, n, n_group, reason)


def _problems(
    hidden: FloatArray,
    channel: int,
    labels: npt.NDArray[Any],
    attributes: Mapping[str, Sequence[str]],
    quantile: float,
) -> list[str]:
    problems = []
    if hidden.ndim != 2 or not hidden.size or not bool(np.isfinite(hidden).all()):
        return [f"expected finite features of shape (N, D), got shape {hidden.shape}; check the run that wrote them"]
    if not 0 <= channel < hidden.shape[1]:
        problems.append(f"expected channel from 0 to {hidden.shape[1] - 1}, got {channel}; correct it")
    if labels.shape != hidden.shape[:1] or not set(np.unique(labels).tolist()) <= {0, 1}:
        problems.append(f"expected {len(hidden)} labels 0 or 1, got shape {labels.shape}; give one per row")
    if not 0 < quantile < 1:
        problems.append(f"expected quantile between 0 and 1, got {quantile}; correct it")
    problems += [
        f"attribute '{name}': expected {len(hidden)} values, got {len(values)}; give one per row of features"
        for name, values in attributes.items()
        if len(values) != len(hidden)
    ]
    if _LABEL in attributes:
        problems.append(f"expected attributes other than '{_LABEL}', which is the disease here; rename it")
    return problems
