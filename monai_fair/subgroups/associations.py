"""What discovered subgroups go along with: the label, and any recorded attribute.

An association in the training data is what a classifier can take for a shortcut. All p values treat rows as
independent: give one row per subject. A subgroup that was discovered with a variable in view (a mixture that is
fitted on labels too) goes along with it by construction; test that on rows the fit has not seen.
"""

from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import kruskal
from sklearn.metrics import roc_auc_score

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.multiplicity import holm
from monai_fair.subgroups.contingency import Association, IntArray, cramers_v, group_odds_ratio, value_codes

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelAssociation:
    """How subgroups and the label go together.

    Attributes:
        by_subgroup: one row per subgroup, see :func:`label_association`.
        overall: Cramer's V of the subgroup (first variable) and the label (second).
    """

    by_subgroup: pd.DataFrame
    overall: Association


def label_association(
    subgroup: npt.ArrayLike,
    label: npt.ArrayLike,
    *,
    positive: int = 1,
    confidence: float = 0.95,
    permutations: int = 1000,
    seed: int = 0,
) -> LabelAssociation:
    """Measure how much the label depends on the subgroup.

    The odds ratio compares the odds of ``positive`` in a subgroup with those in all other rows, and is 1 where the
    subgroup tells nothing about the label: the conditional maximum-likelihood estimate (0 or infinite when a cell of
    the two-by-two table is empty), its exact conditional interval, and Fisher's exact p. It is undefined for a
    subgroup of no or all rows, and when there are no positive or no negative rows.

    Args:
        subgroup: subgroup per row ``(n,)``, or responsibilities ``(n, K)``, of which the largest counts.
        label: class per row, shape ``(n,)``.
        positive: the class the odds are of; all others are its opposite.
        confidence: of the interval, in (0, 1).
        permutations: shuffles for the p of Cramer's V, which is of all classes.
        seed: of the shuffles.

    Returns:
        ``by_subgroup`` with ``subgroup, n, n_positive, prevalence, odds_ratio, low, high, p, p_holm, reason``, where
        ``p_holm`` is adjusted for all subgroups (two of them are one test); and the ``overall`` association.

    Raises:
        MonaiFairError: if the lengths differ or a value is missing.
    """
    codes, names = _membership(subgroup)
    if np.shape(label) != codes.shape:
        raise MonaiFairError(f"label: expected shape {codes.shape} as of the subgroups, got {np.shape(label)}")
    value_codes(label, "label")
    overall = cramers_v(codes, label, permutations=permutations, seed=seed)
    hit = np.asarray(label) == positive
    n = np.bincount(codes, minlength=len(names))
    hits = np.bincount(codes[hit], minlength=len(names))
    ratios = [
        astuple(group_odds_ratio(int(part), int(size), int(hit.sum()), hit.size, confidence=confidence))
        for part, size in zip(hits, n, strict=True)
    ]
    prevalence = np.divide(hits, n, out=np.full(n.size, np.nan), where=n > 0)
    table = pd.DataFrame({"subgroup": names, "n": n, "n_positive": hits, "prevalence": prevalence})
    table = table.join(pd.DataFrame(ratios, columns=["odds_ratio", "low", "high", "p", "reason"]))
    p = table["p"].to_numpy(dtype=np.float64)
    table.insert(8, "p_holm", holm(p) if (n > 0).sum() > 2 else p)
    return LabelAssociation(table, overall)


def attribute_associations(
    subgroup: npt.ArrayLike,
    table: pd.DataFrame,
    attributes: Sequence[str],
    *,
    numeric: Collection[str] = (),
    permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure how subgroups and recorded attributes go together.

    A categorical attribute gets Cramer's V and its permutation p. A numeric one gets the AUROC of membership, the
    chance that a member has a larger value than another row (0.5 when the subgroup tells nothing, 0 or 1 when it is
    set apart), of the subgroup where it is furthest from 0.5, and over all subgroups the p of Kruskal and Wallis (by
    chi-squared, which is rough with fewer than about 5 rows in a subgroup). Rows without a value (``None``, NaN or
    an empty text) are left out for that attribute and counted.

    Args:
        subgroup: subgroup per row ``(n,)``, or responsibilities ``(n, K)``, of which the largest counts.
        table: the attributes of the same rows.
        attributes: columns to look at.
        numeric: those of them that are numbers; text is converted.
        permutations: shuffles per categorical attribute.
        seed: of the shuffles; an attribute's p does not depend on which others are looked at.

    Returns:
        One row per attribute: ``attribute, kind`` (categorical or numeric), ``n, n_missing, measure`` (cramers_v or
        auroc), ``value, corrected`` (of V; NaN for an AUROC), ``subgroup`` (that the AUROC is of; ``None`` for V),
        ``p, p_holm`` (adjusted for all attributes), ``reason`` (why a value is NaN).

    Raises:
        MonaiFairError: if the lengths differ, an attribute is absent, or a value of a numeric one is not a finite
            number; with every problem.
    """
    codes, names = _membership(subgroup)
    raise_problems(MonaiFairError, "attributes", _problems(codes.size, table, attributes, numeric))
    found = []
    for name in attributes:
        known = ~_missing(table[name])
        counts = {"attribute": name, "n": int(known.sum()), "n_missing": int((~known).sum())}
        values, groups = table[name].to_numpy()[known], codes[known]
        if name in numeric:
            measured = _numeric(groups, pd.to_numeric(values).astype(np.float64), names)
        else:
            measured = _categorical(groups, values.astype(str), permutations, seed)
        found.append(counts | measured)
    order = ["attribute", "kind", "n", "n_missing", "measure", "value", "corrected", "subgroup", "p", "reason"]
    # of objects at first: pandas would turn subgroups 0, 1, None into 0.0, 1.0, NaN
    result = pd.DataFrame(found, columns=order, dtype=object)
    kinds: dict[str, Any] = dict.fromkeys(["n", "n_missing"], np.int64)
    kinds |= dict.fromkeys(["value", "corrected", "p"], np.float64)
    result = result.astype(kinds | dict.fromkeys(["attribute", "kind", "measure", "reason"], str))
    result.insert(9, "p_holm", holm(result["p"].to_numpy()))
    return result


def _membership(subgroup: npt.ArrayLike) -> tuple[IntArray, list[Any]]:
    """Return each row's place in the list of subgroups, and the list; every column of responsibilities is in it."""
    given = np.asarray(subgroup)
    if given.ndim != 2:
        return value_codes(given, "subgroup")
    if not given.size or not np.isfinite(given).all():
        raise MonaiFairError(f"subgroup: expected finite responsibilities (n, K), got shape {given.shape} or NaN")
    return given.argmax(axis=1), list(range(given.shape[1]))


def _missing(column: pd.Series) -> npt.NDArray[np.bool_]:
    return (column.isna() | (column.astype(object) == "")).to_numpy(dtype=bool)


def _problems(n: int, table: pd.DataFrame, attributes: Sequence[str], numeric: Collection[str]) -> list[str]:
    problems = [f"expected a column '{name}', found none; correct the name" for name in attributes if name not in table]
    problems += [f"numeric: '{name}' is not among the attributes; add it" for name in numeric if name not in attributes]
    if len(table) != n:
        problems.append(f"expected one row per row of the subgroups, {n}, got {len(table)}")
    for name in numeric:
        if name in attributes and name in table:
            column = table[name]
            numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
            bad = ~_missing(column) & ~np.isfinite(numbers)
            if bad.any():
                first = column.to_numpy()[bad][0]
                problems.append(f"column '{name}': expected finite numbers, got '{first}'; {int(bad.sum())} are none")
    return problems


def _categorical(codes: IntArray, values: npt.NDArray[Any], permutations: int, seed: int) -> dict[str, Any]:
    nan = float("nan")
    start = {"kind": "categorical", "measure": "cramers_v", "value": nan, "corrected": nan, "subgroup": None, "p": nan}
    reason = _too_few(codes, values)
    if reason:
        return start | {"reason": reason}
    found = cramers_v(codes, values, permutations=permutations, seed=seed)
    return start | {"value": found.value, "corrected": found.corrected, "p": found.p, "reason": found.reason}


def _numeric(codes: IntArray, values: FloatArray, names: Sequence[Any]) -> dict[str, Any]:
    nan = float("nan")
    start = {"kind": "numeric", "measure": "auroc", "value": nan, "corrected": nan, "subgroup": None, "p": nan}
    reason = _too_few(codes, values)
    if reason:
        return start | {"reason": reason}
    present = np.unique(codes)
    aurocs = np.array([roc_auc_score(codes == code, values) for code in present])
    # of two subgroups both are equally far; rounding must not choose
    best = int(np.round(np.abs(aurocs - 0.5), 12).argmax())
    p = float(kruskal(*(values[codes == code] for code in present)).pvalue)
    return start | {"value": float(aurocs[best]), "subgroup": names[present[best]], "p": p, "reason": ""}


def _too_few(codes: IntArray, values: npt.NDArray[Any]) -> str:
    """Say why nothing can be compared; empty when it can."""
    if not codes.size:
        return "no row has a value"
    if np.unique(codes).size < 2:
        return "all rows with a value are in one subgroup"
    return "all values are equal" if np.unique(values).size < 2 else ""
