"""Splits by subject: no subject stands in two parts, and every stratum is shared out evenly."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from monai_fair.data.tables import read_table, write_table
from monai_fair.errors import SplitError, raise_problems

_ROUNDING = 1e-9  # 10 * 0.7 is 7.000000000000001 and still whole


def split_by_subject(
    table: pd.DataFrame, shares: Mapping[str, float], *, stratify: Sequence[str] = (), seed: int = 0
) -> pd.DataFrame:
    """Assign every subject to one part.

    Subjects are grouped into strata by the combination of their values in ``stratify`` (a subject with several
    images has the combination of all its values). In every stratum, and over all, a part gets its share rounded
    down or up to whole subjects; chance decides who goes where.

    Args:
        table: one row per image, with ``subject_id`` and the columns of ``stratify`` as text.
        shares: part name to its share; shares are positive and add up to 1. Five equal shares named ``0`` to
            ``4`` give five folds.
        stratify: columns to balance over the parts.
        seed: the same seed and the same subjects give the same split, in whatever order the rows come.

    Returns:
        One row per subject: ``subject_id``, ``split``; sorted by ``subject_id``.

    Raises:
        SplitError: if the shares do not add up to 1, or there are fewer subjects than parts.

    References:
        Cox, A constructive procedure for unbiased controlled rounding, JASA 1987,
        doi:10.1080/01621459.1987.10478456 (that such a rounding always exists).
    """
    if abs(sum(shares.values()) - 1) > 1e-9 or min(shares.values(), default=0) <= 0:
        raise SplitError(f"expected positive shares that add up to 1, got {dict(shares)}")
    strata = _strata(table, list(stratify))
    if len(strata) < len(shares):
        raise SplitError(f"expected at least {len(shares)} subjects for {len(shares)} parts, got {len(strata)}")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(strata))
    order = order[np.argsort(strata.to_numpy()[order], kind="stable")]
    counts = _whole_counts(np.bincount(strata), np.asarray(list(shares.values())), rng)
    parts = np.empty(len(strata), dtype=object)
    parts[order] = np.repeat(np.tile(np.asarray(list(shares), dtype=object), len(counts)), counts.ravel())
    return pd.DataFrame({"subject_id": strata.index, "split": parts})


def _strata(table: pd.DataFrame, columns: list[str]) -> pd.Series:
    """Give each subject, in order of its id, the number of its stratum."""
    if not columns:
        return pd.Series(0, index=pd.Index(sorted(table["subject_id"].unique())))
    values = table[["subject_id", *columns]].astype(str).drop_duplicates().sort_values(["subject_id", *columns])
    rows = ["\x1f".join(row) for row in zip(*(values[name] for name in columns), strict=True)]
    joined = pd.Series(rows, index=values.index, dtype=object).groupby(values["subject_id"]).agg("\x1e".join)
    return pd.Series(pd.factorize(joined, sort=True)[0], index=joined.index)


def _whole_counts(sizes: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Round ``sizes x shares`` down or up to whole subjects, so that each stratum and each part adds up.

    Every cell gets its share rounded down, and one subject more in some cells: the cheapest flow from strata to
    parts, where the largest remainders go first. A little noise makes it the only cheapest one, so that the
    answer depends on the seed and not on the solver. A vertex of this linear program is always whole.
    """
    from scipy.optimize import linprog  # a quarter of a second, for one function that few commands call
    from scipy.sparse import eye_array, kron, vstack

    exact = np.outer(sizes, shares / shares.sum())
    whole = np.floor(exact + _ROUNDING).astype(np.int64)
    remainder = (exact - whole).clip(min=0)
    strata, parts = exact.shape
    per_part = kron(np.ones((1, strata)), eye_array(parts))
    open_places = (remainder * (remainder > _ROUNDING)).sum(axis=0)
    flow = linprog(
        (rng.uniform(0, 0.01, exact.shape) - remainder).ravel(),
        A_ub=vstack([per_part, -per_part]),
        b_ub=np.concatenate([np.ceil(open_places - _ROUNDING), -np.floor(open_places + _ROUNDING)]),
        A_eq=kron(eye_array(strata), np.ones((1, parts))),
        b_eq=sizes - whole.sum(axis=1),
        bounds=np.column_stack([np.zeros(exact.size), (remainder > _ROUNDING).ravel()]),
        method="highs-ds",
    )
    return np.asarray(whole + np.rint(flow.x).astype(np.int64).reshape(exact.shape))


def write_split(path: str | Path, split: pd.DataFrame) -> Path:
    """Write a split as CSV with the columns ``subject_id`` and ``split``."""
    return write_table(path, split[["subject_id", "split"]])


def read_split(path: str | Path) -> pd.DataFrame:
    """Read a split written by :func:`write_split`, or published in that form.

    Returns:
        One row per subject: ``subject_id``, ``split``.

    Raises:
        SplitError: if a column is missing or a subject stands there twice.
    """
    split = read_table(path, SplitError)
    columns = [name for name in ("subject_id", "split") if name not in split]
    raise_problems(SplitError, path, [f"expected a column '{name}', found none" for name in columns])
    twice = split.loc[split["subject_id"].duplicated(), "subject_id"].unique()
    raise_problems(SplitError, path, [f"subject '{subject}' has more than one line; keep one" for subject in twice])
    return split[["subject_id", "split"]]


def subjects_in_several_parts(table: pd.DataFrame, part: str = "split") -> dict[str, list[str]]:
    """Return the subjects that stand in more than one part, with their parts in order."""
    pairs = table[["subject_id", part]].drop_duplicates()
    several = pairs[pairs["subject_id"].duplicated(keep=False)].groupby("subject_id")[part]
    return {str(subject): sorted(found) for subject, found in several}
