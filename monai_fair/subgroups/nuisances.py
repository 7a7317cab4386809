"""What is recorded and taken out before looking, such as site or age: its columns of numbers, and rows without it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import OneHotEncoder

from monai_fair.errors import MonaiFairError, raise_problems

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
_FEW_NUMBERS = 10  # up to so many different numbers are codes of categories
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Nuisances:
    """Recorded columns as numbers.

    Attributes:
        names: of the columns.
        categories: of each column, sorted; empty for one of numbers.
        values: shape ``(n, m)``: one column of numbers; of K categories K - 1 columns of 0 and 1, all 0 for the first.
    """

    names: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    values: FloatArray

    def record(self) -> list[dict[str, object]]:
        """Return name, kind and categories of each, as a discovery writes them."""
        return [
            {"name": name, "kind": "categorical" if levels else "numeric", "categories": list(levels)}
            for name, levels in zip(self.names, self.categories, strict=True)
        ]


def are_numbers(values: pd.Series) -> bool:
    """Say whether a column of text holds numbers: finite ones, and more than 10 different; fewer are categories.

    Args:
        values: text, without missing values.
    """
    numbers = pd.to_numeric(values, errors="coerce")
    return bool(numbers.nunique() > _FEW_NUMBERS and np.isfinite(numbers).all())


def nuisance_problems(table: pd.DataFrame, names: Sequence[str], fitted: BoolArray) -> list[str]:
    """Say why columns cannot be taken out.

    Args:
        table: ``subject_id`` and the columns, as text.
        names: of the columns.
        fitted: rows the fit sees, shape ``(n,)``: they say what is a number and which categories there are.
    """
    problems = []
    for name in names:
        column, known = table[name], table[name] != ""
        seen = column[fitted & known]
        if not known.all():
            problems.append(
                f"nuisance '{name}': expected a value for every registered subject, {int((~known).sum())} have none: "
                f"{_shown(table['subject_id'][~known])}; fill them, or leave these subjects or the nuisance out"
            )
        if seen.nunique() == 1:
            problems.append(
                f"nuisance '{name}': expected different values among the fitted subjects, got '{seen.iloc[0]}' only; "
                "leave it out"
            )
            continue
        if mixture := _mixture(seen):
            problems.append(f"nuisance '{name}': {mixture}")
            continue
        if are_numbers(seen):
            expected = "numbers, as in the fitted subjects"
            bad = known & ~np.isfinite(pd.to_numeric(column, errors="coerce"))
        else:
            expected = f"only values that fitted subjects have ({_shown(sorted(set(seen)))})"
            bad = known & ~column.isin(set(seen))
        if bad.any():
            others = table["subject_id"][bad] + " '" + column[bad] + "'"
            problems.append(
                f"nuisance '{name}': expected {expected}, {int(bad.sum())} of the others have another: "
                f"{_shown(others)}; its effect cannot be estimated, so leave these subjects or the nuisance out"
            )
    return problems


def _mixture(values: pd.Series) -> str:
    """Say that a column is neither numbers nor categories: with one '89+', every age would be a category."""
    numbers = pd.to_numeric(values, errors="coerce")
    if are_numbers(values) or numbers.nunique() <= _FEW_NUMBERS:
        return ""
    others = sorted(set(values[~np.isfinite(numbers)]))
    return (
        f"expected numbers or categories, got {numbers.nunique()} different numbers beside {_shown(others)}; write all "
        "as numbers, or give codes of categories a letter"
    )


def read_nuisances(table: pd.DataFrame, names: Sequence[str], fitted: BoolArray) -> Nuisances:
    """Return recorded columns as numbers.

    A column with more than 10 different numbers among the fitted rows is one of numbers, every other one is of
    categories; more than 10 sites coded as numbers need a letter.

    Args:
        table: ``subject_id`` and the columns, as text.
        names: of the columns.
        fitted: rows the fit sees, shape ``(n,)``.

    Raises:
        MonaiFairError: if a value is missing, a category is not among the fitted rows, all of them have one value, or
            numbers stand beside text; with every problem.
    """
    raise_problems(MonaiFairError, "nuisances", nuisance_problems(table, names, fitted))
    columns: list[FloatArray] = [np.empty((len(table), 0))]
    categories: list[tuple[str, ...]] = []
    for name in names:
        if are_numbers(table[name][fitted]):
            columns.append(pd.to_numeric(table[name]).to_numpy(np.float64)[:, None])
            categories.append(())
            continue
        texts = table[name].to_numpy(dtype=object)[:, None]
        encoder = OneHotEncoder(drop="first", sparse_output=False).fit(texts[fitted])
        columns.append(encoder.transform(texts))
        categories.append(tuple(encoder.categories_[0]))
    return Nuisances(tuple(names), tuple(categories), np.hstack(columns))


@dataclass(frozen=True, eq=False)
class LinearEffects:
    """What a linear regression on nuisances explains of rows.

    Attributes:
        coefficients: shape ``(d, m)``.
        intercept: shape ``(d,)``.
        mean: of the rows that the regression saw, shape ``(d,)``; it is put back.
    """

    coefficients: FloatArray
    intercept: FloatArray
    mean: FloatArray

    def taken_out(self, values: FloatArray, nuisances: FloatArray) -> FloatArray:
        """Return rows less the effects, shape ``(n, d)``.

        Args:
            values: shape ``(n, d)``.
            nuisances: shape ``(n, m)``.
        """
        return np.asarray(values - (nuisances @ self.coefficients.T + self.intercept) + self.mean)

    def tensors(self) -> dict[str, FloatArray]:
        """Return its numbers by name."""
        return {"coefficients": self.coefficients, "intercept": self.intercept, "mean": self.mean}


def linear_effects(values: FloatArray, nuisances: FloatArray, fitted_on: BoolArray) -> LinearEffects:
    """Return what a linear regression on nuisances, such as head size, site or age, explains of rows.

    Args:
        values: shape ``(n, d)``.
        nuisances: shape ``(n, m)``; the mean log Jacobian is the log of relative head size.
        fitted_on: rows that the regression sees, shape ``(n,)``: of training and validation, never of the test part.

    Raises:
        MonaiFairError: if rows are missing, numbers are not finite, or no more rows than nuisances are fitted on.
    """
    if nuisances.ndim != 2 or not len(values) == len(nuisances) == len(fitted_on):
        raise MonaiFairError(
            f"nuisances: expected a table of {len(values)} rows, got shapes {nuisances.shape} and {fitted_on.shape}"
        )
    if not (np.isfinite(values).all() and np.isfinite(nuisances).all()):
        raise MonaiFairError("nuisances: expected finite numbers in rows and nuisances, got others; leave them out")
    if fitted_on.sum() <= nuisances.shape[1] + 1:
        raise MonaiFairError(
            f"nuisances: expected more than {nuisances.shape[1] + 1} rows to fit on, got {int(fitted_on.sum())}"
        )
    found = LinearRegression().fit(nuisances[fitted_on], values[fitted_on])
    return LinearEffects(found.coef_, found.intercept_, values[fitted_on].mean(axis=0))


def without_nuisances(values: FloatArray, nuisances: FloatArray, fitted_on: BoolArray) -> FloatArray:
    """Return rows less what :func:`linear_effects` finds, with the mean of the fitted rows put back, shape ``(n, d)``.

    Args:
        values: see :func:`linear_effects`, as the others.
        nuisances: shape ``(n, m)``.
        fitted_on: shape ``(n,)``.

    Raises:
        MonaiFairError: as well.
    """
    return linear_effects(values, nuisances, fitted_on).taken_out(values, nuisances)


def coded_nuisances(
    table: pd.DataFrame, names: Sequence[str], categories: Sequence[Sequence[str]]
) -> tuple[FloatArray, list[str]]:
    """Return recorded columns of new subjects as numbers, coded as those of a fit were.

    Args:
        table: the columns as text; one that is absent is missing in every row.
        names: of the columns.
        categories: of each, as in :class:`Nuisances`.

    Returns:
        Shape ``(n, m)``, and why a row has none, which is empty for the others; the numbers of such a row are 0.
    """
    columns: list[FloatArray] = [np.empty((len(table), 0))]
    reasons: list[list[str]] = [[] for _ in range(len(table))]
    for name, levels in zip(names, categories, strict=True):
        texts = table[name].astype(str) if name in table else pd.Series([""] * len(table))
        if levels:
            good = texts.isin(list(levels)).to_numpy()
            coded = (texts.to_numpy(dtype=object)[:, None] == np.array(levels[1:], dtype=object)).astype(np.float64)
        else:
            numbers = pd.to_numeric(texts, errors="coerce").to_numpy(np.float64)
            good = np.isfinite(numbers)
            coded = np.where(good, numbers, 0.0)[:, None]
        columns.append(coded)
        wanted = f"one of the fitted subjects ({_shown(list(levels))})" if levels else "a number"
        for place in np.flatnonzero(~good):
            reasons[place].append(f"nuisance '{name}': expected {wanted}, got '{texts.iloc[place]}'")
    return np.hstack(columns), ["; ".join(reason) for reason in reasons]


def _shown(names: Sequence[str] | pd.Series) -> str:
    return ", ".join(list(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
