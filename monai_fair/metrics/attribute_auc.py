"""How well scores tell the two levels of an attribute: an AUC with its interval, of a probe or of a whole model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.data.predictions import read_predictions
from monai_fair.errors import PredictionsError
from monai_fair.metrics.arrays import BoolArray, FloatArray
from monai_fair.metrics.auc import auc_by_group, auc_degrees, logit_interval, placements
from monai_fair.metrics.clusters import clusters_of

_LEAST = 10  # subjects of a level, below which an interval does not cover what it says


@dataclass(frozen=True)
class AttributeAUC:
    """The AUC of scores of one level against the other.

    Attributes:
        n_negative: samples of the level whose scores should be low.
        n_positive: samples of the other.
        auc: in [0, 1]; 0.5 tells nothing; NaN where it is undefined.
        low: lower end of the logit-DeLong interval with subjects as clusters; NaN where there is none.
        high: upper end.
        reason: why the AUC is NaN; else empty.
        interval_reason: why there is no interval; else empty.
    """

    n_negative: int
    n_positive: int
    auc: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    reason: str = ""
    interval_reason: str = ""


def scored_auc(
    y: BoolArray, score: FloatArray, subject: Sequence[str] | None = None, *, confidence: float = 0.95
) -> AttributeAUC:
    """Return the AUC of scores with its interval.

    Args:
        y: True for one of the levels, shape ``(N,)``.
        score: higher where that level is likelier, shape ``(N,)``.
        subject: who each sample is of, length ``N``; by default each is of a subject of its own.
        confidence: of the interval.

    Returns:
        NaN with a reason if a level is absent; no interval below 10 subjects of a level, or for an AUC of 0 or 1.
    """
    counts = int((~y).sum()), int(y.sum())
    if not all(counts):
        reason = "no sample of one of the levels"
        return AttributeAUC(*counts, reason=reason, interval_reason=reason)
    everyone = np.zeros(y.shape, dtype=np.int64)
    subjects = None if subject is None else pd.factorize(np.asarray(subject))[0].astype(np.int64)
    clusters = clusters_of(everyone, 1, subjects)
    placed = placements(y, score, everyone)
    auc, error = auc_by_group(y, placed, everyone, 1, clusters)
    if min(int(clusters.count(level)[0]) for level in (y, ~y)) < _LEAST:
        few = f"fewer than {_LEAST} subjects of one of the levels"
        return AttributeAUC(*counts, float(auc[0]), interval_reason=few)
    degrees = auc_degrees(y, placed, everyone, clusters)
    low, high = (float(end[0]) for end in logit_interval(auc, error, confidence=confidence, degrees=degrees))
    exact = "an AUC of exactly 0 or 1 has no DeLong interval" if np.isnan(low) else ""
    return AttributeAUC(*counts, float(auc[0]), low, high, interval_reason=exact)


def separability(predictions: str | Path, *, split: str = "test", confidence: float = 0.95) -> AttributeAUC:
    """Return how well a model that was trained to tell an attribute from images does so.

    The model's manifest has the attribute as its label, so that ``label`` in its predictions is the level.

    Args:
        predictions: table of that model, of two levels, with ``score`` (or ``score_0`` and ``score_1``).
        split: the part it is judged on.
        confidence: of the interval.

    Returns:
        The AUC; several images of a subject are one draw in its interval.

    Raises:
        PredictionsError: if the table breaks its contract, has more than two levels, or no rows in ``split``.

    References:
        Jones et al., The role of subgroup separability in group-fair medical image classification, MICCAI 2023,
        arXiv:2307.02791.
    """
    found = read_predictions(predictions)
    if found.num_classes != 2:
        raise PredictionsError(f"{predictions}: expected an attribute of two levels, got {found.num_classes} scores")
    rows = found.table[found.table["split"] == split]
    if not len(rows):
        there = ", ".join(sorted(set(found.table["split"])))
        raise PredictionsError(f"{predictions}: expected rows with split '{split}', the splits there are {there}")
    score: npt.NDArray[np.float64] = rows[found.score_columns[-1]].to_numpy(dtype=np.float64)
    return scored_auc((rows["label"] == 1).to_numpy(dtype=np.bool_), score, rows["subject_id"].tolist(),
                      confidence=confidence)  # fmt: skip
