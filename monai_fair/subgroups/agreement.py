"""How well discovered subgroups agree with a truth that is known: planted groups, or the cases a bias fails.

Rows with equal scores are in random order: precision and average precision are their expected values over all
orders of the ties, so that neither row order nor saturated responsibilities decide.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, roc_auc_score

from monai_fair.errors import MonaiFairError, raise_problems

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
_TOLERANCE = 1e-3  # responsibilities that were written with few digits add up to 1 no better


def precision_at(score: npt.ArrayLike, truth: npt.ArrayLike, *, k: int) -> float:
    """Return the expected share of true rows among the ``k`` with the highest scores.

    Let t rows, m of them true, share the score at rank k, and a rows stand above them. The last ``k - a`` places
    are filled by a draw without replacement from the t rows, so ``m (k - a) / t`` true rows are expected there.
    1 when all k are true; with fewer than k true rows it cannot be 1. NaN with fewer than k rows.

    Args:
        score: higher is more likely true, shape ``(n,)``.
        truth: boolean or 0/1, shape ``(n,)``.
        k: at least 1.

    Returns:
        A value in [0, 1], or NaN.

    Raises:
        MonaiFairError: if the shapes differ, a score is NaN, or ``k`` is below 1.

    References:
        McSherry and Najork, Computing information retrieval performance measures efficiently in the presence of tied
        scores, ECIR 2008, doi:10.1007/978-3-540-78646-7_38.
    """
    if k < 1:
        raise MonaiFairError(f"k: expected at least 1, got {k}")
    size, hits = _ties(score, truth)
    above = np.cumsum(size) - size
    taken = np.clip(k - above, 0, size)
    return float((taken * hits / size).sum() / k) if k <= size.sum() else float("nan")


def average_precision(score: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Return the expected mean, over the true rows, of the precision at each one's rank.

    Without ties it is scikit-learn's ``average_precision_score``. Among t tied rows, m of them true, with a rows and
    h true ones above: the row at place ``j = 1 .. t`` is true with chance ``m / t``; the ``j - 1`` rows before it
    then hold ``(j - 1)(m - 1) / (t - 1)`` of the other true rows, so it adds
    ``m / t * (h + 1 + (j - 1)(m - 1) / (t - 1)) / (a + j)``. A random order has about the share of true rows.

    Args:
        score: higher is more likely true, shape ``(n,)``.
        truth: boolean or 0/1, shape ``(n,)``.

    Returns:
        A value in (0, 1]; NaN without a true row.

    Raises:
        MonaiFairError: if the shapes differ or a score is NaN.

    References:
        McSherry and Najork, ECIR 2008, doi:10.1007/978-3-540-78646-7_38.
    """
    size, hits = _ties(score, truth)
    block = np.repeat(np.arange(size.size), size)
    above, true_above = (np.cumsum(size) - size)[block], (np.cumsum(hits) - hits)[block]
    before = np.arange(block.size) - above  # places of the same score before this one
    m, t = hits[block], size[block]
    precision = (true_above + 1 + before * (m - 1) / np.maximum(t - 1, 1)) / (above + before + 1)
    return float((m / t * precision).sum() / hits.sum()) if hits.any() else float("nan")


def detection_table(
    probabilities: npt.ArrayLike,
    truth: npt.ArrayLike,
    *,
    at: Sequence[int] = (10, 25),
    returned: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Compare discovered subgroups with the true ones, each true group with the best of the returned subgroups.

    Candidates are the returned subgroups and their complements. ``precision@k``, ``average_precision`` and ``auroc``
    rank rows by responsibility, and each takes the candidate where it is largest. ``f1`` is of membership, the rows
    whose largest responsibility it is, and takes the largest; ``recall`` is of that same candidate, because by
    itself it would always prefer the largest one. ``adjusted_rand`` and ``normalized_mutual_info`` compare the
    partition by largest responsibility with the true one: 1 for the same; for an unrelated one adjusted Rand is 0 on
    average and mutual information a little more. The best of 2 K candidates is chosen with the truth in hand, so
    it is above chance also for subgroups that found nothing: compare it with that of a shuffled truth.

    Args:
        probabilities: responsibilities of all K subgroups, shape ``(n, K)``; rows add up to 1.
        truth: boolean, true in the one true slice; or the group of every row, each of which is a slice; ``(n,)``.
        at: ranks k of the precision.
        returned: columns that were returned as subgroups, such as the first of a ranking; ``None`` for all.

    Returns:
        One row per true group and measure: ``group`` (``True`` for a slice; ``None`` for the measures of the
        partition), ``measure, value, subgroup`` (the candidate's column), ``complement, n, n_true`` (n for the
        partition), ``reason`` (why a value is NaN).

    Raises:
        MonaiFairError: with every problem of shapes, missing or impossible values.
    """
    shares, groups = np.asarray(probabilities, dtype=np.float64), np.asarray(truth)
    raise_problems(MonaiFairError, "detection_table", _problems(shares, groups, at, returned))
    columns = range(shares.shape[1]) if returned is None else [int(column) for column in returned]
    found = shares.argmax(axis=1)
    candidates = [(column, complement) for complement in (False, True) for column in columns]
    names = [True] if groups.dtype == np.bool_ else np.unique(groups).tolist()
    rows = [row for name in names for row in _group_rows(shares, found, groups == name, candidates, at, name)]
    true_codes = np.unique(groups, return_inverse=True)[1]
    single = "the truth has one group only" if true_codes.max() == 0 else ""
    for measure, score in (
        ("adjusted_rand", adjusted_rand_score),
        ("normalized_mutual_info", normalized_mutual_info_score),
    ):
        value = float("nan") if single else float(score(true_codes, found))
        rows.append({"group": None, "measure": measure, "value": value, "n_true": groups.size, "reason": single})
    order = ["group", "measure", "value", "subgroup", "complement", "n", "n_true", "reason"]
    full = [{"subgroup": None, "complement": None, "n": groups.size} | row for row in rows]
    # of objects at first: pandas would turn columns 0, 1, None into 0.0, 1.0, NaN
    table = pd.DataFrame(full, columns=order, dtype=object)
    return table.astype({"measure": str, "value": np.float64, "n": np.int64, "n_true": np.int64, "reason": str})


def _group_rows(
    shares: FloatArray,
    found: npt.NDArray[np.int64],
    true: BoolArray,
    candidates: Sequence[tuple[int, bool]],
    at: Sequence[int],
    name: Any,
) -> list[dict[str, Any]]:
    """Score one true group, each measure with its best candidate."""
    # the sign keeps the order of tiny responsibilities, which 1 - p would round to ties
    scores = [-shares[:, column] if complement else shares[:, column] for column, complement in candidates]
    members = [(found == column) != complement for column, complement in candidates]
    f1 = [2 * (member & true).sum() / (member.sum() + true.sum()) if true.any() else np.nan for member in members]
    two = 0 < true.sum() < true.size
    values = {f"precision@{k}": [precision_at(score, true, k=k) for score in scores] for k in at}
    values |= {
        "average_precision": [average_precision(score, true) for score in scores],
        "auroc": [roc_auc_score(true, score) if two else np.nan for score in scores],
        "f1": f1,
    }
    rows = []
    for measure, each in values.items():
        best = int(np.argmax(each))
        reason = _reason(measure, true) if np.isnan(each[best]) else ""
        subgroup, complement = (None, None) if reason else candidates[best]
        row = {"group": name, "subgroup": subgroup, "complement": complement, "n_true": int(true.sum())}
        rows.append(row | {"measure": measure, "value": float(each[best]), "reason": reason})
    best = int(np.argmax(f1))
    recall = float((members[best] & true).sum() / true.sum()) if true.any() else float("nan")
    return [*rows, rows[-1] | {"measure": "recall", "value": recall}]


def _reason(measure: str, true: BoolArray) -> str:
    if measure.startswith("precision@"):
        return f"fewer than {measure.removeprefix('precision@')} rows"
    return "no row is in the true group" if not true.any() else "every row is in the true group"


def _ties(score: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return how many rows have each score, and how many of them are true, from the highest score on."""
    values, true = np.asarray(score, dtype=np.float64), np.asarray(truth)
    if values.ndim != 1 or values.shape != true.shape or not values.size or np.isnan(values).any():
        raise MonaiFairError(
            f"expected a number and a truth per row, got shapes {values.shape} and {true.shape} or NaN"
        )
    if not np.isin(true, (0, 1)).all():
        raise MonaiFairError("truth: expected booleans or 0 and 1, got other values")
    _, block, size = np.unique(-values, return_inverse=True, return_counts=True)
    return size, np.bincount(block[true.astype(bool)], minlength=size.size)


def _problems(
    shares: FloatArray, groups: npt.NDArray[Any], at: Sequence[int], returned: Sequence[int] | None
) -> list[str]:
    if shares.ndim != 2 or not shares.size or groups.shape != shares.shape[:1]:
        return [f"expected probabilities (n, K) and a truth (n,), got shapes {shares.shape} and {groups.shape}"]
    problems = []
    wrong = ~((shares >= 0).all(axis=1) & (np.abs(shares.sum(axis=1) - 1) <= _TOLERANCE))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        problems.append(f"expected rows of probabilities that add up to 1, {int(wrong.sum())} do not, first row {row}")
    if pd.isna(groups).any():
        problems.append(f"expected a true group in every row, {int(pd.isna(groups).sum())} lack one; leave them out")
    problems += [f"at: expected ranks of at least 1, got {k}" for k in at if k < 1]
    if returned is not None and not 0 < len(set(returned) & set(range(shares.shape[1]))) == len(returned):
        got = np.asarray(returned).tolist()
        problems.append(f"returned: expected different columns from 0 to {shares.shape[1] - 1}, got {got}")
    return problems
