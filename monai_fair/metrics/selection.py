"""Which epoch to keep: by the overall value, the worst group, the distance to the best of all groups, or dominance."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from monai_fair.metrics.arrays import BoolArray, FloatArray


class EpochSelection(TypedDict):
    """What :func:`select_epochs` returns: positions of epochs, counted from 0."""

    overall: int | None
    worst_group: int | None
    dto: int | None
    pareto: list[int]
    left_out: dict[int, str]


def select_epochs(
    overall: npt.ArrayLike, by_group: npt.ArrayLike, *, names: Sequence[str] | None = None
) -> EpochSelection:
    """Choose an epoch by each of four strategies, from validation values of which larger is better.

    ``overall``: the largest overall value. ``worst_group``: the largest value of the group that is worst in that
    epoch, ``max over e of min over g of v[e, g]``. ``dto``: the smallest distance to the utopia point, see
    :func:`distance_to_utopia`. ``pareto``: all epochs that no other dominates, see :func:`pareto_front`; which of
    them to take is a judgement about groups that no number makes. Ties go to the earliest epoch.

    An epoch with an undefined value (NaN) takes part in no strategy and is named in ``left_out`` with the reason;
    without an epoch left a strategy has ``None``, and ``pareto`` is empty.

    Args:
        overall: value over all samples, shape ``(E,)``; negate a metric of which smaller is better.
        by_group: value of each group, shape ``(E, G)``.
        names: of the groups, for the reasons; length ``G``.

    Returns:
        Positions along ``E``.

    Raises:
        ValueError: if the shapes do not fit, or there is no group.

    References:
        Zong, Yang, Hospedales, MEDFAIR: Benchmarking fairness for medical imaging, ICLR 2023, arXiv 2210.01725
        (overall, minimax Pareto and DTO selection).
    """
    whole, values = np.asarray(overall, dtype=np.float64), np.asarray(by_group, dtype=np.float64)
    if whole.ndim != 1 or values.ndim != 2 or len(whole) != len(values) or not values.shape[1]:
        shapes = f"{whole.shape} and {values.shape}"
        raise ValueError(f"expected overall of shape (E,) and by_group of shape (E, G) with G > 0, got {shapes}")
    labels = [f"group {index}" for index in range(values.shape[1])] if names is None else [f"'{x}'" for x in names]
    if len(labels) != values.shape[1]:
        raise ValueError(f"expected one name for each of {values.shape[1]} groups, got {len(labels)}")
    left_out = _reasons(whole, values, labels)
    usable = np.array([epoch not in left_out for epoch in range(len(whole))], dtype=np.bool_)
    chosen = np.where(usable[:, None], values, np.nan)
    return {
        "overall": _first_largest(np.where(usable, whole, np.nan)),
        "worst_group": _first_largest(chosen.min(axis=1)),
        "dto": _first_largest(-distance_to_utopia(chosen)),
        "pareto": np.flatnonzero(pareto_front(chosen)).tolist(),
        "left_out": left_out,
    }


def _reasons(overall: FloatArray, by_group: FloatArray, labels: Sequence[str]) -> dict[int, str]:
    reasons = {}
    for epoch, (whole, row) in enumerate(zip(overall, by_group, strict=True)):
        missing = ["the overall value"] if np.isnan(whole) else []
        missing += [f"the value of {label}" for label, value in zip(labels, row, strict=True) if np.isnan(value)]
        if missing:
            reasons[epoch] = f"undefined: {', '.join(missing)}"
    return reasons


def _first_largest(values: FloatArray) -> int | None:
    if np.isnan(values).all():
        return None
    return int(np.nanargmax(values))


def distance_to_utopia(by_group: FloatArray) -> FloatArray:
    """Return ``d[e] = sqrt(sum over g of (u[g] - v[e, g])^2)`` with ``u[g] = max over e of v[e, g]``.

    The utopia point ``u`` gives each group its own best epoch; 0 means that one epoch is the best for all groups at
    once. NaN for an epoch with an undefined value, which has no part in the utopia point either.

    Args:
        by_group: shape ``(E, G)``; larger is better.

    Returns:
        Distances, at least 0, shape ``(E,)``.

    References:
        Han, Baldwin, Cohn, Balancing out bias: achieving fairness through balanced training, EMNLP 2022, arXiv
        2109.08253 (DTO); Marler and Arora, Survey of multi-objective optimization methods for engineering, 2004.
    """
    defined = ~np.isnan(by_group).any(axis=1)
    distance = np.full(len(by_group), np.nan)
    if defined.any():
        utopia = by_group[defined].max(axis=0)
        distance[defined] = np.linalg.norm(utopia - by_group[defined], axis=1)
    return distance


def pareto_front(by_group: FloatArray) -> BoolArray:
    """Say which epochs no other epoch dominates.

    An epoch dominates another if no group is worse off and at least one is better off, so epochs with equal values
    stay side by side. An epoch with an undefined value is not in the front and dominates none.

    Args:
        by_group: shape ``(E, G)``; larger is better.

    Returns:
        Shape ``(E,)``.
    """
    # comparisons with NaN are false, so an undefined epoch dominates none
    dominated = [((by_group >= row).all(axis=1) & (by_group > row).any(axis=1)).any() for row in by_group]
    return ~np.array(dominated, dtype=np.bool_) & ~np.isnan(by_group).any(axis=1)
