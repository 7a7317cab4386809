"""How well an attribute can be read off the features of a model: the AUC of a linear probe."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_fair.errors import MonaiFairError

FloatArray = npt.NDArray[np.float64]
_LEAST = 5  # fitted rows of a level, below which a probe says nothing
_STRENGTHS = 10.0 ** np.arange(-4.0, 3.0)  # inverse strengths of the penalty that are tried
_FOLDS = 5


@dataclass(frozen=True)
class Probe:
    """What a probe reads.

    Attributes:
        auc: on rows that it was not fitted on, in [0, 1]; the mean over levels, each against the others, for more than
            two; NaN where it is undefined.
        n_fitted: rows it was fitted on, those without the attribute left out.
        n: rows it was judged on.
        reason: why the AUC is NaN; else empty.
    """

    auc: float
    n_fitted: int
    n: int
    reason: str = ""


def attribute_probe(
    features: npt.ArrayLike,
    attribute: Sequence[str],
    split: Sequence[str],
    *,
    fit_on: str = "val",
    judge_on: str = "test",
    seed: int = 0,
) -> Probe:
    """Return how well a linear model reads an attribute off features.

    Features are brought to mean 0 and standard deviation 1; the strength of the penalty is chosen by cross-validation
    in the fitted rows. Fit it on rows that the model was not trained on: of these, features may tell what they would
    not tell of others. An AUC of 0.5 says that this probe reads nothing, not that nothing is there.

    Args:
        features: shape ``(n, d)``.
        attribute: its levels as text; empty where it is missing, shape ``(n,)``.
        split: part of each row, shape ``(n,)``.
        fit_on: the part that the probe is fitted on.
        judge_on: the part that it is judged on.
        seed: of the folds.

    Returns:
        The probe's AUC, or NaN with a reason where a part has one level or too few rows of one.

    Raises:
        MonaiFairError: if the lengths differ, or features are not finite.
    """
    x, level, part = np.asarray(features, dtype=np.float64), np.asarray(attribute, dtype=str), np.asarray(split)
    if x.ndim != 2 or not len(x) == len(level) == len(part) or not np.isfinite(x).all():
        raise MonaiFairError(
            "attribute_probe: expected finite features of shape (n, d) with an attribute and a split for each row, "
            f"got {x.shape}, {len(level)} and {len(part)}"
        )
    fitted, judged = ((part == name) & (level != "") for name in (fit_on, judge_on))
    levels, counts = np.unique(level[fitted], return_counts=True)
    judged &= np.isin(level, levels)
    size = int(fitted.sum()), int(judged.sum())
    if len(levels) < 2 or counts.min() < _LEAST:
        found = ", ".join(f"{name} {count}" for name, count in zip(levels, counts, strict=True)) or "none"
        return Probe(float("nan"), *size, f"expected two levels with {_LEAST} rows in {fit_on}, got {found}")
    if len(np.unique(level[judged])) < len(levels):
        return Probe(float("nan"), *size, f"expected every level in {judge_on}, got {len(np.unique(level[judged]))}")
    probability = _fitted(x[fitted], level[fitted], int(counts.min()), seed).predict_proba(x[judged])
    score = probability[:, 1] if len(levels) == 2 else probability
    auc = roc_auc_score(level[judged], score, multi_class="ovr", labels=levels if len(levels) > 2 else None)
    return Probe(float(auc), *size)


def _fitted(x: FloatArray, level: npt.NDArray[np.str_], smallest: int, seed: int) -> Pipeline:
    """Return the probe of the strength that reads rows left out best; the stronger of equals.

    It is a search over a grid with the scaling inside of each fold; scikit-learn's own spends more time around the
    fits than in them.
    """
    folds = StratifiedKFold(min(_FOLDS, smallest), shuffle=True, random_state=seed)
    losses = np.zeros((folds.n_splits, len(_STRENGTHS)))
    for fold, (kept, left) in enumerate(folds.split(x, level)):
        scaler = StandardScaler().fit(x[kept])
        near, away = scaler.transform(x[kept]), scaler.transform(x[left])
        for place, strength in enumerate(_STRENGTHS):
            probe = _probe(strength).fit(near, level[kept])
            losses[fold, place] = log_loss(level[left], probe.predict_proba(away), labels=probe.classes_)
    best = _STRENGTHS[losses.mean(axis=0).argmin()]
    return make_pipeline(StandardScaler(), _probe(best)).fit(x, level)


def _probe(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=2000)
