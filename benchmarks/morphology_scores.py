"""What is scored where the truth is known: subgroups against the planted group, classifiers in its cells."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from monai_fair.subgroups import average_precision, detection_table, precision_at

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
AT = (10, 25)
_SHUFFLES = 20  # of the truth, for what chance gives
_LEAST_DIFFERENCE = 0.1  # of a label's share between the two groups, below which neither is the rarer one


def conflicting_pairs(group: npt.ArrayLike, label: npt.ArrayLike) -> tuple[dict[int, str], str]:
    """Return the group of each label that is rarer there than overall, such as women among patients, or why none is.

    Args:
        group: true group of every training row, two of them, shape ``(n,)``.
        label: 0 or 1, shape ``(n,)``.
    """
    counts = pd.crosstab(np.asarray(label), np.asarray(group))
    if counts.shape != (2, 2):
        return {}, f"expected two groups and two labels in training, got {counts.shape[1]} and {counts.shape[0]}"
    rates = counts / counts.sum()
    apart = rates.max(axis=1) - rates.min(axis=1)
    if (apart < _LEAST_DIFFERENCE).any():
        return {}, "label and group are not associated in training, so no case is against the association"
    rarer = rates.idxmin(axis=1)
    return dict(zip(map(int, rarer.index), map(str, rarer), strict=True)), ""


def in_conflict(group: npt.ArrayLike, label: npt.ArrayLike, pairs: Mapping[int, str]) -> BoolArray:
    """Say which rows are of the rarer group of their label, shape ``(n,)``."""
    return np.array([pairs[int(each)] == name for each, name in zip(label, group, strict=True)])  # type: ignore[arg-type]


def suspicion(membership: npt.ArrayLike, label: npt.ArrayLike, training: BoolArray) -> FloatArray:
    """Return how unusual the label of each row is for its subgroups: ``1 - sum_k m_k P(label | k)``.

    ``P(y | k)`` is the share of label y among the training rows, each weighted by its membership in k; a subgroup
    without training rows has the share among all of them.

    Args:
        membership: probabilities m, shape ``(n, K)``.
        label: 0 or 1, shape ``(n,)``.
        training: rows that P is taken from, shape ``(n,)``.
    """
    shares, one_hot = np.asarray(membership, float), np.eye(2)[np.asarray(label, int)]
    mass = shares[training].T @ one_hot[training]
    total = mass.sum(axis=1, keepdims=True)
    overall = one_hot[training].mean(axis=0)
    given = np.where(total > 0, mass / np.where(total > 0, total, 1), overall)
    return np.asarray(1 - (shares @ given * one_hot).sum(axis=1))


def slicer_scores(
    membership: FloatArray, group: npt.NDArray[Any], label: npt.NDArray[Any], split: npt.NDArray[Any], *, seed: int
) -> list[dict[str, Any]]:
    """Score subgroups that were found without labels, on the training rows and on the test rows.

    ``adjusted_rand``, ``normalized_mutual_info`` and ``auroc`` (membership of the best subgroup or its complement)
    are against the group; chance is the mean over shuffled groups. ``precision@k`` and ``average_precision`` rank
    rows by :func:`suspicion` and are against the rows in conflict; chance is what a random order has.

    Args:
        membership: of all subjects, shape ``(n, K)``.
        group: true group, shape ``(n,)``.
        label: 0 or 1, shape ``(n,)``.
        split: train, val or test, shape ``(n,)``.
        seed: of the shuffles.

    Returns:
        Rows with ``rows`` (train or test), ``measure, value, chance, reason, n``.
    """
    training = split == "train"
    pairs, reason = conflicting_pairs(group[training], label[training])
    score = suspicion(membership, label, training)
    random = np.random.default_rng(seed)
    found = []
    for part in ("train", "test"):
        at = split == part
        chance = pd.DataFrame(_group_measures(membership[at], random.permutation(group[at])) for _ in range(_SHUFFLES))
        values = {
            name: (value, float(chance[name].mean()), "" if np.isfinite(value) else "one group only")
            for name, value in _group_measures(membership[at], group[at]).items()
        }
        true = in_conflict(group[at], label[at], pairs) if pairs else np.zeros(at.sum(), bool)
        by_chance = _ranked(np.zeros(at.sum()), true)  # a random order
        for name, value in _ranked(score[at], true).items():
            values[name] = (value, by_chance[name], "") if pairs else (np.nan, np.nan, reason)
        found += [
            {"rows": part, "measure": name, "value": value, "chance": random_value, "reason": why, "n": int(at.sum())}
            for name, (value, random_value, why) in values.items()
        ]
    return found


def _group_measures(membership: FloatArray, group: npt.NDArray[Any]) -> dict[str, float]:
    table = detection_table(membership, group == sorted(set(group))[0], at=())
    values = dict(zip(table["measure"], table["value"], strict=True))
    return {name: float(values[name]) for name in ("adjusted_rand", "normalized_mutual_info", "auroc")}


def _ranked(score: FloatArray, true: BoolArray) -> dict[str, float]:
    values = {f"precision@{k}": precision_at(score, true, k=k) for k in AT}
    return values | {"average_precision": average_precision(score, true)}


def error_aware_scores(
    probabilities: FloatArray,
    returned: Sequence[int],
    group: npt.NDArray[Any],
    label: npt.NDArray[Any],
    pairs: Mapping[int, str],
    *,
    seed: int,
) -> list[dict[str, Any]]:
    """Score slices of a mixture that knows labels and predictions, each measure with its best slice or complement.

    Such slices are pure in label, so the mean over the two halves of the rows in conflict (one per label, ``_half``)
    stands beside their union. Chance is the mean over groups shuffled within each label.

    Args:
        probabilities: of all slices for the test rows, shape ``(n, K)``.
        returned: the slices that count.
        group: true group of the test rows, shape ``(n,)``.
        label: 0 or 1, shape ``(n,)``.
        pairs: of :func:`conflicting_pairs`, from the training rows; not empty.
        seed: of the shuffles.
    """
    random = np.random.default_rng(seed)
    values = _slice_measures(probabilities, returned, group, label, pairs)
    shuffled = []
    for _ in range(_SHUFFLES):
        mixed = group.copy()
        for each in np.unique(label):
            mixed[label == each] = random.permutation(group[label == each])
        shuffled.append(_slice_measures(probabilities, returned, mixed, label, pairs))
    chance = pd.DataFrame(shuffled).mean()
    return [
        {"rows": "test", "measure": name, "value": value, "chance": float(chance[name]), "n": len(label),
         "reason": "" if np.isfinite(value) else "too few rows"}
        for name, value in values.items()
    ]  # fmt: skip


def _slice_measures(
    probabilities: FloatArray,
    returned: Sequence[int],
    group: npt.NDArray[Any],
    label: npt.NDArray[Any],
    pairs: Mapping[int, str],
) -> dict[str, float]:
    true = in_conflict(group, label, pairs)
    names = [*(f"precision@{k}" for k in AT), "average_precision"]

    def best(truth: BoolArray) -> dict[str, float]:
        table = detection_table(probabilities, truth, at=AT, returned=returned)
        table = table[table["group"].map(lambda name: name is True)]
        return dict(zip(table["measure"], table["value"], strict=True))

    whole, halves = best(true), [best(true & (label == each)) for each in sorted(pairs)]
    values = {name: float(whole[name]) for name in names}
    return values | {f"{name}_half": float(np.mean([half[name] for half in halves])) for name in names}


def run_scores(table: pd.DataFrame, training: pd.DataFrame, *, group: str) -> dict[str, float]:
    """Score a classifier on test rows at a threshold of 0.5, as they are and with the association reversed.

    Reversed, a row weighs so much that label and group are distributed as in training with the two groups exchanged.

    Args:
        table: test rows with ``label``, ``score`` and the group.
        training: training rows with ``label`` and the group.
        group: name of the column; two groups.

    Returns:
        ``auc, accuracy, worst_cell`` (lowest accuracy of a cell, group by label), ``worst_group_auc, tpr_gap,
        fpr_gap`` (absolute), ``reversed_accuracy, reversed_auc``; NaN where a cell of the test rows is empty.
    """
    label, names = table["label"].to_numpy(), sorted(training[group].unique())
    score, of = table["score"].to_numpy(float), table[group].to_numpy()
    right = (score >= 0.5) == (label == 1)
    cells = {(name, each): (of == name) & (label == each) for name in names for each in (0, 1)}
    rates = {cell: right[rows].mean() if rows.any() else np.nan for cell, rows in cells.items()}
    values = {"accuracy": right.mean(), "worst_cell": np.min(list(rates.values()))}
    for name, each in (("tpr_gap", 1), ("fpr_gap", 0)):
        values[name] = abs(rates[names[0], each] - rates[names[1], each])
    if all(rows.any() for rows in cells.values()):
        weight = reversed_weights(cells, training, group)
        values |= {
            "auc": roc_auc_score(label, score),
            "worst_group_auc": min(roc_auc_score(label[of == name], score[of == name]) for name in names),
            "reversed_accuracy": np.average(right, weights=weight),
            "reversed_auc": roc_auc_score(label, score, sample_weight=weight),
        }
    else:
        values |= dict.fromkeys(("auc", "worst_group_auc", "reversed_accuracy", "reversed_auc"), np.nan)
    return {name: float(value) for name, value in values.items()}


def reversed_weights(cells: Mapping[tuple[str, int], BoolArray], training: pd.DataFrame, group: str) -> FloatArray:
    """Return the weights of test rows that give them the training rows' cells with the two groups exchanged.

    Args:
        cells: group and label to which test rows are in it, each with at least one.
        training: training rows with ``label`` and the group.
        group: name of the column.
    """
    names = sorted({name for name, _ in cells})
    other = dict(zip(names, names[::-1], strict=True))
    weight = np.zeros(len(next(iter(cells.values()))))
    for (name, label), rows in cells.items():
        there = ((training[group] == other[name]) & (training["label"] == label)).mean()
        weight[rows] = there / rows.mean()
    return weight


def share_interval(gain: npt.ArrayLike, whole: npt.ArrayLike, *, confidence: float = 0.95) -> tuple[float, ...]:
    """Return the ratio of two means over the same cohorts, and its interval by Fieller's theorem.

    The interval holds every share r for which the mean of ``gain - r whole`` is not further from 0 than Student's t
    allows. It has no ends (NaN) with fewer than two cohorts, or where the mean of ``whole`` itself may be 0.

    Args:
        gain: what was gained in each cohort, shape ``(n,)``.
        whole: what could be, shape ``(n,)``.
        confidence: of the interval.

    Returns:
        Ratio, lower end, upper end.

    References:
        Fieller, Some problems in interval estimation, JRSS B 1954.
    """
    a, b = np.asarray(gain, float), np.asarray(whole, float)
    mean_a, mean_b, n = a.mean(), b.mean(), len(a)
    if n < 2 or mean_b == 0:
        return (float(mean_a / mean_b) if mean_b else float("nan")), float("nan"), float("nan")
    (var_a, cov), (_, var_b) = np.cov(a, b) / n
    square = t.ppf(0.5 + confidence / 2, n - 1) ** 2
    # (mean_a - r mean_b)^2 <= square (var_a - 2 r cov + r^2 var_b) is a quadratic in r
    first, second, third = mean_b**2 - square * var_b, mean_a * mean_b - square * cov, mean_a**2 - square * var_a
    if first <= 0:
        return float(mean_a / mean_b), float("nan"), float("nan")
    root = np.sqrt(max(second**2 - first * third, 0.0))
    return float(mean_a / mean_b), float((second - root) / first), float((second + root) / first)


def flat(records: Sequence[Mapping[str, Any]], key: str) -> Iterator[dict[str, Any]]:
    """Yield the rows under a key of every cohort's record, each with the cohort it is of."""
    for record in records:
        for row in record[key]:
            yield {"cohort": record["cohort"], **row}
