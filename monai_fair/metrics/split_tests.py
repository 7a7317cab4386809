"""The SPLIT test: how well a linear model, fitted on training rows, reads an attribute off frozen features."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.metrics.attribute_auc import scored_auc

_PARTS = ("train", "val", "test")
_LEAST = 5  # fitted rows of a level, below which a probe says nothing
_STRENGTHS = 10.0 ** np.arange(-4.0, 3.0)  # inverse strengths of the penalty that are tried
_STEPS = 5000  # of the solver: separable features need many where the penalty is weak
_SEVERAL = "more than two levels: the mean of their AUCs has no interval"
FloatArray = npt.NDArray[np.float64]
TextArray = npt.NDArray[np.str_]


@dataclass(frozen=True)
class SplitTest:
    """What the SPLIT test reads.

    Attributes:
        n_train: rows that were fitted, those without the attribute left out.
        n_val: rows the strength was chosen on.
        n: test rows.
        auc: on test, in [0, 1]; the mean over levels, each against the others, for more than two; NaN where undefined.
        low: lower end of the logit-DeLong interval, NaN where there is none.
        high: upper end.
        val_auc: the AUC on val of the strength that was chosen by it.
        strength: that inverse strength of the penalty, C of scikit-learn.
        reason: why the AUC is NaN; else empty.
        interval_reason: why there is no interval; else empty.
    """

    n_train: int
    n_val: int
    n: int
    auc: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    val_auc: float = float("nan")
    strength: float = float("nan")
    reason: str = ""
    interval_reason: str = ""


def split_test(
    features: npt.ArrayLike,
    attribute: Sequence[str],
    split: Sequence[str],
    *,
    subject: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> SplitTest:
    """Return how well a linear model reads an attribute off features of a frozen model.

    Features are brought to mean 0 and standard deviation 1 on train; a logistic regression with an L2 penalty is fitted
    on train; of seven strengths the one with the best AUC on val is taken, the strongest penalty of equals; the AUC is
    that on test. 0.5 says that this model reads nothing, not that nothing is there. Nothing is random.

    Features have to be those of an evaluation without augmentation. :func:`~monai_fair.metrics.attribute_probe` asks
    another question: it is fitted on rows that the network was not trained on.

    Args:
        features: input of the network's last layer, shape ``(n, d)``.
        attribute: its levels as text; empty where it is missing, shape ``(n,)``.
        split: ``train``, ``val`` or ``test`` of each row, shape ``(n,)``; rows of other parts are not looked at.
        subject: who each row is of, shape ``(n,)``, for the interval; by default each is of a subject of its own.
        confidence: of the interval.

    Returns:
        NaN with a reason where a part lacks a level, or train has fewer than 5 rows of one. Levels that train does not
        have are left out.

    Raises:
        MonaiFairError: if the lengths differ, or features are not finite.

    References:
        Glocker, Jones, Bernhardt, Winzeck, Algorithmic encoding of protected characteristics in chest X-ray disease
        detection models, eBioMedicine 2023, doi:10.1016/j.ebiom.2023.104467.
    """
    x, level, part = np.asarray(features, dtype=np.float64), np.asarray(attribute, dtype=str), np.asarray(split)
    raise_problems(MonaiFairError, "split_test", _input_problems(x, len(level), len(part), subject))
    levels, counts = np.unique(level[(part == "train") & (level != "")], return_counts=True)
    rows = {name: np.flatnonzero((part == name) & np.isin(level, levels)) for name in _PARTS}
    sizes = len(rows["train"]), len(rows["val"]), len(rows["test"])
    if reason := _undefined(levels, counts, {name: level[place] for name, place in rows.items()}):
        return SplitTest(*sizes, reason=reason, interval_reason=reason)
    probe, val_auc = _chosen(x, level, rows, several=len(levels) > 2)
    strength = float(probe[-1].C)
    test = rows["test"]
    probability = probe.predict_proba(x[test])
    if len(levels) > 2:
        auc = float(roc_auc_score(level[test], probability, multi_class="ovr", labels=levels))
        return SplitTest(*sizes, auc, val_auc=val_auc, strength=strength, interval_reason=_SEVERAL)
    who = None if subject is None else np.asarray(subject)[test].tolist()
    # log-odds, because probabilities of 1 would tie
    found = scored_auc(level[test] == levels[1], probe.decision_function(x[test]), who, confidence=confidence)
    return SplitTest(*sizes, found.auc, found.low, found.high, val_auc, strength, interval_reason=found.interval_reason)


def _input_problems(x: FloatArray, levels: int, parts: int, subject: Sequence[str] | None) -> list[str]:
    if x.ndim != 2:
        return [f"expected features of shape (n, d), got {x.shape}"]
    lengths = {"an attribute": levels, "a split": parts, **({} if subject is None else {"a subject": len(subject)})}
    problems = [
        f"expected {what} for each of {len(x)} rows of features, got {length}"
        for what, length in lengths.items()
        if length != len(x)
    ]
    if wrong := int((~np.isfinite(x)).any(axis=1).sum()):
        problems.append(f"expected finite features, {wrong} of {len(x)} rows are not; leave them out or find out why")
    return problems


def _undefined(levels: TextArray, counts: npt.NDArray[np.int64], found: dict[str, TextArray]) -> str:
    if len(levels) < 2 or counts.min() < _LEAST:
        there = ", ".join(f"{name} {count}" for name, count in zip(levels, counts, strict=True)) or "none"
        return f"expected two levels with {_LEAST} rows in train, got {there}"
    for name in ("val", "test"):
        if absent := sorted(set(levels) - set(found[name])):
            return f"expected every level in {name}, got no row of {', '.join(absent)}"
    return ""


def _chosen(
    x: FloatArray, level: TextArray, rows: dict[str, npt.NDArray[np.int64]], *, several: bool
) -> tuple[Pipeline, float]:
    """Return the probe, fitted on train, whose strength has the best AUC on val, and that AUC."""
    both = np.concatenate([rows["train"], rows["val"]])
    fold = np.repeat([-1, 0], [len(rows["train"]), len(rows["val"])])  # -1 is never left out
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_STEPS))
    search = GridSearchCV(
        probe,
        {"logisticregression__C": _STRENGTHS},
        scoring="roc_auc_ovr" if several else "roc_auc",
        cv=PredefinedSplit(fold),
        refit=False,
        error_score="raise",
    ).fit(x[both], level[both])
    probe.set_params(**search.best_params_)
    return probe.fit(x[rows["train"]], level[rows["train"]]), float(search.best_score_)
