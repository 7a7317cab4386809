"""What is recorded and taken out: its columns, the regression by another library, and what cannot be taken out."""

import numpy as np
import pandas as pd
import pytest

from monai_fair.errors import MonaiFairError
from monai_fair.subgroups import read_nuisances, without_nuisances

N = 24
FITTED = np.arange(N) < 18


def table_of(**columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"subject_id": [f"s{row:02d}" for row in range(N)], **columns})


def ages() -> list[str]:
    return [str(40 + 2 * row) for row in range(N)]


def test_numbers_are_a_column_and_categories_one_less_than_there_are() -> None:
    site = ["B", "A", "C"] * 8
    found = read_nuisances(table_of(site=site, age=ages()), ["site", "age"], FITTED)
    # sorted, A is first and has no column of its own
    expected = np.column_stack([np.array(site) == "B", np.array(site) == "C", 40 + 2 * np.arange(N)])
    np.testing.assert_array_equal(found.values, expected)
    assert found.record() == [
        {"name": "site", "kind": "categorical", "categories": ["A", "B", "C"]},
        {"name": "age", "kind": "numeric", "categories": []},
    ]


def test_up_to_ten_different_numbers_are_codes_of_categories() -> None:
    ten, eleven = ([str(row % count) for row in range(N)] for count in (10, 11))
    found = read_nuisances(table_of(ten=ten, eleven=eleven), ["ten", "eleven"], FITTED)
    assert [len(levels) for levels in found.categories] == [10, 0]
    assert found.values.shape == (N, 9 + 1)


def test_nothing_to_take_out_is_no_column() -> None:
    found = read_nuisances(table_of(), [], FITTED)
    assert (found.values.shape, found.record()) == ((N, 0), [])


def test_everything_that_cannot_be_taken_out_is_said_at_once() -> None:
    site, scanner, age = ["A", "B"] * 12, ["X"] * 18 + ["Y"] * 6, ages()
    site[3], site[20], site[21] = "", "C", "D"
    age[0], age[22] = "", "90+"
    with pytest.raises(MonaiFairError) as caught:
        read_nuisances(table_of(site=site, scanner=scanner, age=age), ["site", "scanner", "age"], FITTED)
    assert str(caught.value) == (
        "nuisances: 5 problems\n"
        "  1. nuisance 'site': expected a value for every registered subject, 1 have none: s03; fill them, or leave "
        "these subjects or the nuisance out\n"
        "  2. nuisance 'site': expected only values that fitted subjects have (A, B), 2 of the others have another: "
        "s20 'C', s21 'D'; its effect cannot be estimated, so leave these subjects or the nuisance out\n"
        "  3. nuisance 'scanner': expected different values among the fitted subjects, got 'X' only; leave it out\n"
        "  4. nuisance 'age': expected a value for every registered subject, 1 have none: s00; fill them, or leave "
        "these subjects or the nuisance out\n"
        "  5. nuisance 'age': expected numbers, as in the fitted subjects, 1 of the others have another: s22 '90+'; "
        "its effect cannot be estimated, so leave these subjects or the nuisance out"
    )


def test_numbers_beside_text_are_neither_numbers_nor_categories() -> None:
    """As 18 categories of one subject each, the ages would take nearly everything out of 18 fitted rows."""
    age = ages()
    age[4], age[7] = "89+", "unknown"
    with pytest.raises(MonaiFairError) as caught:
        read_nuisances(table_of(age=age), ["age"], FITTED)
    assert str(caught.value) == (
        "nuisances: nuisance 'age': expected numbers or categories, got 16 different numbers beside 89+, unknown; "
        "write all as numbers, or give codes of categories a letter"
    )
    few = ["1", "2", "other"] * 8  # codes of categories
    assert read_nuisances(table_of(few=few), ["few"], FITTED).categories == (("1", "2", "other"),)


def planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows made of a nuisance and something else, the else, and which rows are fitted on."""
    rng = np.random.default_rng(seed)
    nuisance, other = rng.normal(size=(200, 2)), rng.normal(size=(200, 3))
    return nuisance, other, np.arange(200) < 150


def test_a_linear_effect_of_nuisances_is_taken_out() -> None:
    nuisance, _, fitted = planted()
    values = nuisance @ [[1.0, -2.0], [0.5, 3.0]] + [10.0, -4.0]
    found = without_nuisances(values, nuisance, fitted)
    np.testing.assert_allclose(found, np.broadcast_to(values[fitted].mean(axis=0), values.shape), rtol=0, atol=1e-10)


def test_what_does_not_go_along_with_a_nuisance_stays() -> None:
    nuisance, other, fitted = planted()
    found = without_nuisances(other + nuisance @ np.ones((2, 3)), nuisance, fitted)
    assert all(np.corrcoef(found[:, k], other[:, k])[0, 1] > 0.98 for k in range(3))
    residual = found[fitted] - found[fitted].mean(axis=0)
    np.testing.assert_allclose(residual.T @ nuisance[fitted], 0, atol=1e-9)


def test_rows_that_are_judged_do_not_change_the_fit() -> None:
    nuisance, other, fitted = planted()
    poisoned, spoiled = other.copy(), nuisance.copy()
    poisoned[~fitted], spoiled[~fitted] = 1e6, -1e6
    plain = without_nuisances(other, nuisance, fitted)[fitted]
    np.testing.assert_array_equal(without_nuisances(poisoned, spoiled, fitted)[fitted], plain)


def test_nuisances_need_rows() -> None:
    nuisance, other, fitted = planted()
    with pytest.raises(MonaiFairError, match="expected more than 3 rows to fit on, got 3"):
        without_nuisances(other, nuisance, np.arange(200) < 3)
    with pytest.raises(MonaiFairError, match="expected a table of 200 rows"):
        without_nuisances(other, nuisance[:5], fitted)


def test_the_regression_is_that_of_least_squares() -> None:
    nuisance, other, fitted = planted()
    values = other + nuisance @ np.ones((2, 3))
    design = np.column_stack([np.ones(len(values)), nuisance])
    coefficients = np.linalg.lstsq(design[fitted], values[fitted], rcond=None)[0]
    expected = values - design @ coefficients + values[fitted].mean(axis=0)
    np.testing.assert_allclose(without_nuisances(values, nuisance, fitted), expected, rtol=0, atol=1e-10)


def test_numbers_that_are_not_finite_are_refused() -> None:
    nuisance, other, fitted = planted()
    other[7, 1] = np.nan
    with pytest.raises(MonaiFairError, match="expected finite numbers in rows and nuisances, got others"):
        without_nuisances(other, nuisance, fitted)
