from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, rankdata
from sklearn.metrics import roc_auc_score

from monai_fair.errors import MonaiFairError
from monai_fair.metrics import holm
from monai_fair.subgroups.associations import attribute_associations, label_association
from monai_fair.subgroups.contingency import cramers_v, group_odds_ratio


def test_labels_by_subgroup() -> None:
    # 6 of 8 positive in a, 1 of 4 in b, 2 of 8 in c
    subgroup = np.repeat(["a", "b", "c"], [8, 4, 8])
    label = np.repeat([1, 0, 1, 0, 1, 0], [6, 2, 1, 3, 2, 6])
    found = label_association(subgroup, label, confidence=0.9, permutations=500, seed=4)
    table = found.by_subgroup
    assert list(table.columns) == (
        "subgroup n n_positive prevalence odds_ratio low high p p_holm reason".split()  # noqa: SIM905
    )
    assert table[["subgroup", "n", "n_positive", "prevalence"]].to_numpy().tolist() == [
        ["a", 8, 6, 0.75],
        ["b", 4, 1, 0.25],
        ["c", 8, 2, 0.25],
    ]
    for row, counts in zip(table.itertuples(), [(6, 8), (1, 4), (2, 8)], strict=True):
        alone = group_odds_ratio(*counts, 9, 20, confidence=0.9)
        assert (row.odds_ratio, row.low, row.high, row.p) == (alone.value, alone.low, alone.high, alone.p)
        assert row.odds_ratio > 1 if row.subgroup == "a" else row.odds_ratio < 1
    np.testing.assert_array_equal(table["p_holm"], holm(table["p"]))
    assert found.overall == cramers_v(subgroup, label, permutations=500, seed=4)


def test_two_subgroups_are_one_test() -> None:
    found = label_association([0, 0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 1, 0]).by_subgroup
    assert found["p_holm"].tolist() == found["p"].tolist()
    assert found["p"][0] == pytest.approx(found["p"][1])
    assert found["odds_ratio"][0] == pytest.approx(1 / found["odds_ratio"][1])
    np.testing.assert_allclose(found["low"], 1 / found["high"][::-1])


def test_responsibilities_count_for_the_largest_and_empty_subgroups_keep_a_row() -> None:
    hard = np.array([0, 0, 0, 2, 2, 2, 2])
    soft = np.full((7, 3), 0.2)
    soft[np.arange(7), hard] = 0.6
    label = [1, 1, 0, 0, 0, 1, 0]
    table = label_association(soft, label).by_subgroup
    expected = label_association(hard, label).by_subgroup
    pd.testing.assert_frame_equal(table.iloc[[0, 2]].reset_index(drop=True), expected)
    empty = table.iloc[1]
    assert (empty["subgroup"], empty["n"], empty["reason"]) == (1, 0, "no row in the subgroup")
    assert np.isnan(empty[["prevalence", "odds_ratio", "low", "high", "p", "p_holm"]].astype(float)).all()


def test_one_class_or_one_subgroup_says_why_nothing_is_known() -> None:
    found = label_association(["a", "a", "b"], [1, 1, 1])
    assert found.by_subgroup["reason"].tolist() == ["no negative row"] * 2
    assert found.by_subgroup["prevalence"].tolist() == [1, 1]
    assert found.overall.reason == "second variable has one value only"
    found = label_association(["a"] * 3, [0, 1, 1])
    assert found.by_subgroup["reason"].tolist() == ["every row is in the subgroup"]
    assert found.overall.reason == "first variable has one value only"


def test_odds_are_of_the_chosen_class() -> None:
    subgroup, label = ["a"] * 4 + ["b"] * 4, np.array([2, 2, 2, 0, 1, 1, 0, 2])
    found = label_association(subgroup, label, positive=2)
    binary = label_association(subgroup, label == 2)
    pd.testing.assert_frame_equal(found.by_subgroup, binary.by_subgroup)
    assert found.overall == cramers_v(subgroup, label)  # of all three classes


def attributes(n: int = 60) -> tuple[np.ndarray, pd.DataFrame]:
    rng = np.random.default_rng(0)
    subgroup = rng.integers(0, 3, n)
    sex = np.where(rng.random(n) < np.array([0.9, 0.5, 0.1])[subgroup], "F", "M").astype(object)
    sex[:4] = ["", None, float("nan"), "F"]
    age = (60 + 8 * (subgroup == 2) + rng.normal(0, 5, n)).round().astype(int).astype(str).astype(object)
    age[5:7] = ["", None]
    return subgroup, pd.DataFrame({"age": age, "sex": sex, "site": rng.integers(0, 4, n), "scanner": "A"})


def test_a_categorical_attribute_has_cramers_v_of_rows_with_a_value() -> None:
    subgroup, table = attributes()
    row = attribute_associations(subgroup, table, ["sex"], permutations=300, seed=2).iloc[0]
    known = cramers_v(subgroup[3:], table["sex"][3:], permutations=300, seed=2)
    assert row[["kind", "n", "n_missing", "measure", "reason"]].tolist() == ["categorical", 57, 3, "cramers_v", ""]
    assert (row["value"], row["corrected"], row["p"], row["p_holm"]) == (known.value, known.corrected, known.p, known.p)
    assert row["subgroup"] is None


def test_a_numeric_attribute_has_the_auroc_of_the_subgroup_furthest_from_half_and_kruskals_p() -> None:
    subgroup, table = attributes()
    row = attribute_associations(subgroup, table, ["age"], numeric=["age"]).iloc[0]
    known = np.delete(np.arange(60), [5, 6])
    age, group = table["age"][known].astype(float).to_numpy(), subgroup[known]
    aurocs = [roc_auc_score(group == at, age) for at in range(3)]
    assert (row["n"], row["n_missing"], row["measure"]) == (58, 2, "auroc")
    assert (row["subgroup"], row["value"]) == (2, pytest.approx(aurocs[2]))
    assert abs(aurocs[2] - 0.5) == max(abs(auroc - 0.5) for auroc in aurocs)
    # H from mean ranks, divided by the correction for ties
    rank, n = rankdata(age), age.size
    spread = sum((group == at).sum() * (rank[group == at].mean() - (n + 1) / 2) ** 2 for at in range(3))
    ties = np.unique(age, return_counts=True)[1]
    h = 12 / (n * (n + 1)) * spread / (1 - (ties**3 - ties).sum() / (n**3 - n))
    assert row["p"] == pytest.approx(chi2.sf(h, 2), rel=1e-9)
    assert np.isnan(row["corrected"])


def test_of_two_subgroups_the_first_is_reported_below_half_when_its_values_are_smaller() -> None:
    table = pd.DataFrame({"age": [1.0, 2, 3, 2.5, 4, 5]})
    row = attribute_associations(list("bbbccc"), table, ["age"], numeric=["age"]).iloc[0]
    # of 9 pairs of a b and a c only 3 > 2.5 has the larger value in b
    assert (row["subgroup"], row["value"]) == ("b", pytest.approx(1 / 9))


def test_a_subgroup_without_values_takes_no_part() -> None:
    table = pd.DataFrame({"age": ["", "", "1", "2", "4", "3", "5", "6"]})
    row = attribute_associations(list("aabbbccc"), table, ["age"], numeric=["age"]).iloc[0]
    # of 9 pairs of a b and a c only 4 > 3 has the larger value in b
    assert (row["subgroup"], row["value"], row["n"]) == ("b", pytest.approx(1 / 9), 6)


def test_holm_is_over_attributes_and_leaves_out_what_is_undefined() -> None:
    subgroup, table = attributes()
    names = ["sex", "age", "scanner", "site"]
    found = attribute_associations(subgroup, table, names, numeric=["age"])
    np.testing.assert_array_equal(found["p_holm"], holm(found["p"]))
    assert found["p_holm"].isna().tolist() == [False, False, True, False]
    assert found["reason"].tolist() == ["", "", "all values are equal", ""]
    assert found["attribute"].tolist() == names
    turned = attribute_associations(subgroup, table, names[::-1], numeric=["age"])
    pd.testing.assert_frame_equal(turned.iloc[::-1].reset_index(drop=True), found)


@pytest.mark.parametrize("numeric", [True, False])
def test_undefined_attributes_say_why(numeric: bool) -> None:
    table = pd.DataFrame({"none": ["", None, ""], "here": ["1", "2", ""], "same": ["1", "1", "1"]})
    names = list(table)
    found = attribute_associations(["a", "a", "b"], table, names, numeric=names if numeric else [])
    assert found["reason"].tolist() == [
        "no row has a value",
        "all rows with a value are in one subgroup",
        "all values are equal",
    ]
    assert found["n"].tolist() == [0, 2, 3]
    assert found["n_missing"].tolist() == [3, 1, 0]
    assert found[["value", "corrected", "p", "p_holm"]].isna().all(axis=None)


def test_columns_of_any_type_of_pandas() -> None:
    subgroup, table = attributes()
    first = attribute_associations(subgroup, table, ["sex", "age"], numeric=["age"])
    known = table["age"].replace("", None)
    for other in (
        table.assign(sex=table["sex"].astype("category"), age=pd.to_numeric(known)),
        table.assign(sex=table["sex"].astype("string"), age=pd.to_numeric(known).astype("Int64")),
        table.fillna("").astype(str),
    ):
        pd.testing.assert_frame_equal(attribute_associations(subgroup, other, ["sex", "age"], numeric=["age"]), first)


def test_no_attribute_is_an_empty_table() -> None:
    assert len(attribute_associations([0, 1], pd.DataFrame({"a": [1, 2]}), [])) == 0


def test_bad_tables_are_refused_with_every_problem() -> None:
    table = pd.DataFrame({"age": ["60", "89+", "inf", "", "x"], "sex": list("FMFMF")})
    with pytest.raises(MonaiFairError) as caught:
        attribute_associations([0, 1], table, ["age", "race"], numeric=["age", "sex"])
    assert str(caught.value) == (
        "attributes: 4 problems\n"
        "  1. expected a column 'race', found none; correct the name\n"
        "  2. numeric: 'sex' is not among the attributes; add it\n"
        "  3. expected one row per row of the subgroups, 2, got 5\n"
        "  4. column 'age': expected finite numbers, got '89+'; 3 are none"
    )


@pytest.mark.parametrize(
    ("subgroup", "label", "message"),
    [
        ([0, 1], [0, 1, 1], "label: expected shape (2,) as of the subgroups, got (3,)"),
        ([0, None], [0, 1], "subgroup: expected one value per row, got shape (2,) with 1 missing"),
        ([0, 1], [0, np.nan], "label: expected one value per row, got shape (2,) with 1 missing"),
        ([[0.5, np.nan]], [0], "subgroup: expected finite responsibilities (n, K), got shape (1, 2) or NaN"),
        (np.zeros((0, 2)), [], "subgroup: expected finite responsibilities (n, K), got shape (0, 2) or NaN"),
    ],
)
def test_bad_rows_are_refused(subgroup: Any, label: Any, message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        label_association(subgroup, label)
    assert str(caught.value) == message
