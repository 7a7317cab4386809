"""Clean and biased trainings compared: curves over epochs, falls, early windows, and tests by families.

Tables have one row per value, with ``experiment`` (dataset and attribute), ``arm`` (``clean`` or ``biased``), ``seed``,
``part`` (``train``, ``test`` around its own class means, ``test_to_train`` around those of train), ``group`` (empty for
all samples), ``measure``, ``value``, ``reason`` (why it is NaN), ``n`` and ``n_positive`` samples.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from monai_fair.metrics.arm_statistics import Alternative, compare_arms
from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.seed_summaries import why_undefined

ARMS = ("clean", "biased")
FALLING = ("nc1_distance", "nc1_normalized", "nc1_pinv")
HALVING = "nc1_normalized"  # whose way to half of its maximum is timed
WINDOW = "window"
_CURVE = ["experiment", "arm", "part", "group", "measure"]
_RUN = ["experiment", "arm", "seed"]
_CELL = ["experiment", "part", "measure", "group"]
_AVERAGED = ("nc1_distance", "nc1_normalized")


def epoch_curves(values: pd.DataFrame) -> pd.DataFrame:
    """Return mean and spread over seeds of every measure in every epoch that all seeds of an arm have.

    Args:
        values: the columns above and ``epoch``.

    Returns:
        One row per curve and epoch, epochs ascending: ``experiment``, ``arm``, ``part``, ``group``, ``measure``,
        ``epoch``; ``mean`` and ``sd`` (n - 1 in its denominator) of the ``n`` seeds that have a value, NaN where there
        are none, or for ``sd`` fewer than two. Curves without any value are among them.
    """
    seeds = values.groupby(["experiment", "arm"], observed=True)["seed"].transform("nunique")
    there = values.groupby(["experiment", "arm", "epoch"], observed=True)["seed"].transform("nunique")
    shared = values[seeds == there].sort_values("epoch", kind="stable")
    cells = shared.groupby([*_CURVE, "epoch"], sort=False, observed=True, dropna=False)["value"]
    found = cells.agg(mean="mean", sd="std", n="count").reset_index()
    place = found.groupby(_CURVE, sort=False, observed=True).ngroup()
    return found.iloc[np.argsort(place.to_numpy(), kind="stable")].reset_index(drop=True)


def undefined_curves(values: pd.DataFrame) -> pd.DataFrame:
    """Return what no seed has a value of in any epoch.

    Args:
        values: see :func:`epoch_curves`.

    Returns:
        One row per ``measure`` and ``reason``, with the number of such curves as ``n_curves``.
    """
    known = values.groupby(_CURVE, observed=True)["value"].transform("count")
    lost = values.loc[known == 0, [*_CURVE, "reason"]].drop_duplicates()
    counts = lost.groupby(["measure", "reason"], sort=False, observed=True).size()
    return counts.rename("n_curves").reset_index()


def falls(values: pd.DataFrame) -> pd.DataFrame:
    """Return how far NC1 of train has fallen from its maximum in each training.

    Args:
        values: see :func:`epoch_curves`.

    Returns:
        One row per ``experiment``, ``arm``, ``measure`` (:data:`FALLING`) and ``seed``: ``max`` over its epochs,
        ``last``, that of its last epoch, ``ratio``, the first over the second, and ``reason``, why the ratio is NaN.
    """
    chosen = _of_all(values, "train", FALLING).sort_values("epoch", kind="stable")
    cells = chosen.groupby(["experiment", "arm", "measure", "seed"], sort=False, observed=True)
    found = pd.DataFrame({"max": cells["value"].max()})
    ends = cells.tail(1).set_index(cells.keys)
    found["last"] = ends["value"]
    collapsed = found["last"] == 0
    found["ratio"] = (found["max"] / found["last"]).mask(collapsed)
    found["reason"] = ends["reason"].where(~collapsed, "it is 0 in the last epoch")
    return found.reset_index()


def window_values(values: pd.DataFrame, trainings: pd.DataFrame) -> pd.DataFrame:
    """Return what tells how NC1 of train begins, of every training.

    Args:
        values: see :func:`epoch_curves`.
        trainings: one row per ``experiment``, ``arm`` and ``seed`` with ``early``, the epoch that early stopping kept.

    Returns:
        Rows as those of ``values``, without ``epoch``, with ``checkpoint`` :data:`WINDOW` and ``until``, the median of
        ``early`` over both arms of the experiment: ``mean_nc1_distance`` and ``mean_nc1_normalized``, means over the
        epochs up to it; and ``epochs_to_half``, the first epoch from that of the maximum on in which ``nc1_normalized``
        is at most half of its maximum. NaN with a reason where there is no such epoch, or a value is undefined.
    """
    until = trainings.groupby("experiment", sort=False)["early"].median().to_dict()
    rows = []
    for key, run in _of_all(values, "train", _AVERAGED).groupby(_RUN, sort=False, observed=True):
        where = dict(zip(_RUN, key, strict=True))
        end = float(until[where["experiment"]])
        for measure, curve in run.sort_values("epoch").groupby("measure", sort=False, observed=True):
            found = {f"mean_{measure}": _window_mean(curve, end)}
            if measure == HALVING:
                found["epochs_to_half"] = _first_half(curve)
            counts = curve[["n", "n_positive"]].iloc[0].to_dict()
            rows += [
                {"measure": name, **where, **counts, "until": end, "value": value, "reason": reason}
                for name, (value, reason) in found.items()
            ]
    return pd.DataFrame(rows).assign(part="train", group="", checkpoint=WINDOW)


def _of_all(values: pd.DataFrame, part: str, measures: tuple[str, ...]) -> pd.DataFrame:
    return values[(values["part"] == part) & (values["group"] == "") & values["measure"].isin(measures)]


def _window_mean(curve: pd.DataFrame, end: float) -> tuple[float, str]:
    inside = curve[curve["epoch"] <= end]
    if not len(inside):
        return float("nan"), f"no epoch up to {end:g} was measured"
    if inside["value"].isna().any():
        return float("nan"), why_undefined(inside["value"], inside["reason"], "epochs")
    return float(inside["value"].mean()), ""


def _first_half(curve: pd.DataFrame) -> tuple[float, str]:
    values: FloatArray = curve["value"].to_numpy(dtype=np.float64)
    if np.isnan(values).any():
        return float("nan"), why_undefined(curve["value"], curve["reason"], "epochs")
    top = int(values.argmax())
    below = np.flatnonzero(values[top:] <= values[top] / 2)
    epochs = curve["epoch"].to_numpy()
    if not below.size:
        return float("nan"), f"above half of its maximum up to epoch {epochs[-1]}, the last"
    return float(epochs[top + below[0]]), ""


def compare_families(
    values: pd.DataFrame, *, alternative: Alternative = "two-sided", confidence: float = 0.95
) -> pd.DataFrame:
    """Compare the arms in every cell, with Holm's adjustment over all cells of a checkpoint.

    Args:
        values: the columns above and ``checkpoint``, which tells the families of comparisons apart.
        alternative: see :func:`monai_fair.metrics.compare_arms`.
        confidence: of the intervals.

    Returns:
        Rows of :func:`monai_fair.metrics.compare_arms` by ``experiment``, ``checkpoint``, ``part``, ``measure`` and
        ``group``, with ``group_n`` and ``group_n_positive``, the samples behind the first value of the clean arm, whose
        labels are the true ones. A ``reason`` says what the values themselves say.

    Raises:
        MonaiFairError: see :func:`monai_fair.metrics.compare_arms`.
    """
    families = []
    for checkpoint, family in values.groupby("checkpoint", sort=False):
        found = compare_arms(family, by=_CELL, arms=ARMS, alternative=alternative, confidence=confidence)
        keys = pd.MultiIndex.from_frame(found[_CELL])
        found.insert(1, "checkpoint", checkpoint)
        counts = family[family["arm"] == ARMS[0]].drop_duplicates(_CELL).set_index(_CELL)[["n", "n_positive"]]
        found[["group_n", "group_n_positive"]] = counts.reindex(keys).to_numpy()
        found["reason"] = _with_details(found["reason"].tolist(), keys, _details(family))
        families.append(found)
    return pd.concat(families, ignore_index=True)


def _details(family: pd.DataFrame) -> Mapping[object, str]:
    """Return by cell what its undefined values say, each once."""
    lost = family[family["value"].isna() & (family["reason"] != "")].drop_duplicates([*_CELL, "reason"])
    told: Mapping[object, str] = lost.groupby(_CELL, sort=False, observed=True)["reason"].agg("; ".join).to_dict()
    return told


def _with_details(reasons: list[str], keys: pd.MultiIndex, details: Mapping[object, str]) -> list[str]:
    return [
        f"{reason}: {details[key]}" if reason and key in details else reason
        for reason, key in zip(reasons, keys, strict=True)
    ]
