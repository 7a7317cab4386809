"""Curves of every group of one table, with bands."""

import numpy as np

from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.by_group import score_counts
from monai_fair.metrics.curves import (
    CURVE_GRID,
    band,
    calibration_bins,
    calibration_records,
    precision_on_grid,
    roc_on_grid,
    shares_above,
)
from monai_fair.metrics.intervals import wilson_interval
from monai_fair.metrics.records import Record
from monai_fair.metrics.target_table import TargetTable


def curves_of_groups(table: TargetTable, run: int) -> list[Record | None]:
    """Return ROC, precision-recall, calibration and threshold curves of each group; None without both classes.

    Bands of ROC and precision-recall curves come from resamples, point by point, and are nowhere narrower than the
    Wilson interval of the rate that the point is: where all positives are found, resamples find them all. Those of the
    others are Wilson intervals, in which a subject with several images counts once.

    Args:
        table: of all samples or of one attribute.
        run: index of the run.
    """
    scored, y = table.target.runs[run], table.target.samples.y
    seeds = len(scored.scores)
    exact = np.full((2, table.size, seeds, 101), np.nan)
    shares = np.full((table.size, seeds, 2, 101), np.nan)
    bins = np.zeros((table.size, 3, 10))
    for seed, score in enumerate(scored.scores):
        for index, counts, scores in score_counts(y, score, table.codes, table.size):
            exact[0, index, seed] = roc_on_grid(counts)
            exact[1, index, seed] = precision_on_grid(counts)
            shares[index, seed] = shares_above(counts, scores)
            bins[index] += calibration_bins(counts, scores) / seeds
    bands = _bands(table, run, exact.mean(axis=2))
    subjects = [table.clusters.count((table.codes >= 0) & chosen) for chosen in (~y, y)]
    everyone, n = table.clusters.count(table.codes >= 0), bins[:, 0].sum(axis=1)
    confidence = table.settings.confidence
    # Of the cases called positive at a recall, as many are positive as the recall says.
    with np.errstate(invalid="ignore", divide="ignore"):
        called = np.fmin(np.maximum(CURVE_GRID * subjects[1][:, None], 1.0) / bands[1][0], everyone[:, None])
    curves: list[Record | None] = []
    for index in range(table.size):
        if not (subjects[0][index] and subjects[1][index]):
            curves.append(None)
            continue
        sweep = {}
        for label, name in enumerate(("fpr", "tpr")):
            share, worth = shares[index, :, label].mean(axis=0), subjects[label][index]
            low, high = wilson_interval(np.minimum(share, 1.0) * worth, worth, confidence=confidence)
            sweep[name] = band(share, low, high)
        worth_of_one = float(everyone[index] / n[index])
        curves.append(
            {
                "roc": band(*_at_least_wilson(bands[0][:, index], subjects[1][index], confidence)),
                "pr": band(*_at_least_wilson(bands[1][:, index], called[index], confidence)),
                "sweep": sweep,
                "calibration": calibration_records(bins[index], worth_of_one, confidence=confidence),
            }
        )
    return curves


def _bands(table: TargetTable, run: int, exact: FloatArray) -> list[FloatArray]:
    """Value, lower and upper end of both curves in each group, each of shape ``(3, G, 101)``."""
    spread, plan = table.target.spreads[run], table.target.plan
    position = np.searchsorted(plan.curved, np.arange(table.inside.start, table.inside.stop))
    tail = (1 - table.settings.confidence) / 2
    bands = []
    for kind in (0, 1):
        ends = np.quantile(spread.resampled_curves[:, kind, position], [tail, 1 - tail], axis=0)
        # Scores were binned for resamples: their quantiles are taken around their own curve.
        shift = exact[kind] - spread.curves[kind, position]
        low, high = (end + shift for end in ends)
        bands.append(np.stack([exact[kind], np.minimum(low, exact[kind]), np.maximum(high, exact[kind])]))
    return bands


def _at_least_wilson(
    curve: FloatArray, trials: FloatArray, confidence: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Widen a band to the Wilson interval of each point; ``curve`` is value, lower and upper end."""
    value, low, high = curve
    count = np.broadcast_to(np.where(np.isnan(value), 0, trials), value.shape)
    ends = wilson_interval(np.nan_to_num(np.clip(value, 0, 1)) * count, count, confidence=confidence)
    return value, np.fmin(low, ends[0]), np.fmax(high, ends[1])
