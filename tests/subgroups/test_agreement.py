from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    adjusted_rand_score,
    average_precision_score,
    f1_score,
    normalized_mutual_info_score,
    recall_score,
    roc_auc_score,
)

from monai_fair.errors import MonaiFairError
from monai_fair.subgroups.agreement import average_precision, detection_table, precision_at


def test_precision_by_hand() -> None:
    score, truth = [0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]
    assert [precision_at(score, truth, k=k) for k in (1, 2, 3, 4)] == [1, 1 / 2, pytest.approx(2 / 3), 1 / 2]
    # 0.5 is shared by 3 rows, 1 of them true; after the one above, k = 2 draws one: (1 + 1/3) / 2
    assert precision_at([0.5, 0.9, 0.5, 0.5], [1, 1, 0, 0], k=2) == pytest.approx(2 / 3)
    assert np.isnan(precision_at(score, truth, k=5))


def test_average_precision_by_hand() -> None:
    # true rows at ranks 1 and 3: (1 + 2/3) / 2
    assert average_precision([0.9, 0.8, 0.7], [1, 0, 1]) == pytest.approx(5 / 6)
    # one true row of two with the same score: first or second, (1 + 1/2) / 2; scikit-learn says 1/2
    assert average_precision([0.5, 0.5], [True, False]) == pytest.approx(3 / 4)
    assert np.isnan(average_precision([0.5, 0.4], [0, 0]))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6), st.integers(1, 6))
def test_ties_count_as_the_mean_over_all_orders(rows: list[tuple[int, bool]], k: int) -> None:
    score, truth = (np.array(column) for column in zip(*rows, strict=True))
    orders = [
        truth[list(order)] for order in permutations(range(len(rows))) if (np.diff(score[list(order)]) <= 0).all()
    ]
    if k <= len(rows):
        assert precision_at(score, truth, k=k) == pytest.approx(np.mean([order[:k].mean() for order in orders]))
    if truth.any():
        ranks = np.arange(1, len(rows) + 1)
        each = [np.mean((np.cumsum(order) / ranks)[order]) for order in orders]
        assert average_precision(score, truth) == pytest.approx(np.mean(each))


def test_without_ties_average_precision_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 10, 500):
        score, truth = rng.random(n), rng.integers(0, 2, n)
        truth[0] = 1
        assert average_precision(score, truth) == pytest.approx(average_precision_score(truth, score), rel=1e-12)


def test_a_constant_score_has_the_precision_of_a_random_order() -> None:
    truth = np.arange(40) < 10
    assert precision_at(np.ones(40), truth, k=10) == pytest.approx(1 / 4)
    rng = np.random.default_rng(1)
    shuffled = [average_precision_score(truth, rng.random(40)) for _ in range(1000)]
    assert average_precision(np.ones(40), truth) == pytest.approx(np.mean(shuffled), abs=0.012)  # se 0.0028


def cohort(n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Responsibilities of four subgroups, of which 1 and 3 lean on the true groups x and y."""
    rng = np.random.default_rng(2)
    truth = rng.choice(["x", "y", "z"], n)
    logits = rng.normal(0, 1, (n, 4))
    logits[truth == "x", 1] += 2
    logits[truth == "y", 3] += 2
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), truth


def test_each_measure_takes_the_best_of_subgroups_and_complements() -> None:
    shares, truth = cohort()
    table = detection_table(shares, truth, at=(5,))
    found = shares.argmax(axis=1)
    sides = [(column, False) for column in range(4)] + [(column, True) for column in range(4)]
    for name in "xyz":
        true = truth == name
        score = [1 - shares[:, column] if other else shares[:, column] for column, other in sides]
        member = [found != column if other else found == column for column, other in sides]
        expected: dict[str, list[float]] = {
            "precision@5": [true[np.argsort(-s)[:5]].mean() for s in score],
            "average_precision": [average_precision_score(true, s) for s in score],
            "auroc": [roc_auc_score(true, s) for s in score],
            "f1": [f1_score(true, m) for m in member],
        }
        rows = table[table["group"] == name].set_index("measure")
        for measure, values in expected.items():
            row = rows.loc[measure]
            assert row["value"] == pytest.approx(max(values), rel=1e-12)
            assert values[sides.index((row["subgroup"], row["complement"]))] == pytest.approx(max(values), rel=1e-12)
        chosen = sides.index((rows.loc["f1", "subgroup"], rows.loc["f1", "complement"]))
        assert rows.loc["recall", ["subgroup", "complement"]].tolist() == list(sides[chosen])
        assert rows.loc["recall", "value"] == pytest.approx(recall_score(true, member[chosen]))
        assert (rows["n"] == 80).all()
        assert (rows["n_true"] == true.sum()).all()
    whole = table[table["group"].isna()].set_index("measure")["value"]
    assert whole.to_dict() == {
        "adjusted_rand": pytest.approx(adjusted_rand_score(truth, found)),
        "normalized_mutual_info": pytest.approx(normalized_mutual_info_score(truth, found)),
    }
    best = table[table["measure"] == "average_precision"].set_index("group")
    assert best.loc[["x", "y"], "subgroup"].tolist() == [1, 3]
    assert best.loc[["x", "y"], "complement"].tolist() == [False, False]


def test_a_perfect_discovery_is_1_in_everything() -> None:
    truth = np.repeat([0, 1, 2], [12, 10, 15])
    table = detection_table(np.eye(3)[truth], truth, at=(10,))
    np.testing.assert_allclose(table["value"], 1)
    assert table.loc[table["measure"] == "f1", "subgroup"].tolist() == [0, 1, 2]


def test_a_slice_that_no_subgroup_but_a_complement_is() -> None:
    found = np.repeat([0, 1, 2], [5, 4, 3])
    table = detection_table(np.eye(3)[found], found != 1, at=(4,)).set_index("measure")
    scores = table.loc[["precision@4", "average_precision", "auroc", "f1", "recall"]]
    np.testing.assert_allclose(scores["value"].astype(float), 1)
    # subgroup 0 has 5 of the 8 rows, so its first 4 are true as well
    assert scores["subgroup"].tolist() == [0, 1, 1, 1, 1]
    assert scores["complement"].tolist() == [False, True, True, True, True]
    assert scores["group"].tolist() == [True] * 5
    assert (scores["n_true"] == 8).all()


def test_only_returned_subgroups_are_candidates() -> None:
    shares, truth = cohort()
    table = detection_table(shares, truth, returned=np.array([2, 0]))
    assert set(table["subgroup"].dropna()) <= {0, 2}
    assert table["value"].iloc[-2] == pytest.approx(adjusted_rand_score(truth, shares.argmax(axis=1)))


def test_a_complement_keeps_the_order_of_tiny_responsibilities() -> None:
    # 1 - p is 1 for all of them; the true rows have the smallest p
    p = 10.0 ** -np.arange(17, 41)
    truth = np.arange(24) >= 20
    table = detection_table(np.stack([1 - p, p], axis=1), truth, at=(4,), returned=[1]).set_index("measure")
    assert table.loc["precision@4", ["value", "complement"]].tolist() == [1, True]
    assert table.loc["average_precision", ["value", "complement"]].tolist() == [1, True]


def test_order_of_rows_and_of_subgroups_changes_no_value() -> None:
    shares, truth = cohort()
    shares = shares.round(1)
    shares[:, 0] += 1 - shares.sum(axis=1)
    shares = np.abs(shares) / np.abs(shares).sum(axis=1, keepdims=True)
    rng = np.random.default_rng(3)
    order, columns = rng.permutation(80), rng.permutation(4)
    first = detection_table(shares, truth)
    ranked = first["measure"].str.contains("precision|auroc")
    np.testing.assert_allclose(detection_table(shares[order], truth[order])["value"], first["value"])
    # a tie for the largest responsibility goes to the first column, and so to other members
    other = detection_table(shares[:, columns], truth)
    np.testing.assert_allclose(other.loc[ranked, "value"], first.loc[ranked, "value"])


def test_undefined_measures_say_why() -> None:
    shares = np.eye(2)[[0, 0, 1]]
    nobody = detection_table(shares, np.zeros(3, bool), at=(2, 4)).set_index("measure")
    assert nobody["reason"].to_dict() == {
        "precision@2": "",
        "precision@4": "fewer than 4 rows",
        "average_precision": "no row is in the true group",
        "auroc": "no row is in the true group",
        "f1": "no row is in the true group",
        "recall": "no row is in the true group",
        "adjusted_rand": "the truth has one group only",
        "normalized_mutual_info": "the truth has one group only",
    }
    assert nobody["value"].isna().tolist() == [reason != "" for reason in nobody["reason"]]
    assert nobody.loc[nobody["value"].isna(), ["subgroup", "complement"]].isna().all(axis=None)
    everybody = detection_table(shares, ["one"] * 3, at=()).set_index("measure")
    assert everybody.loc["auroc", "reason"] == "every row is in the true group"
    assert everybody.loc["average_precision", "value"] == 1


@pytest.mark.parametrize(
    ("shares", "truth", "options", "message"),
    [
        ([0.5, 0.5], [1, 0], {}, "expected probabilities (n, K) and a truth (n,), got shapes (2,) and (2,)"),
        ([[1.0]], [1, 0], {}, "expected probabilities (n, K) and a truth (n,), got shapes (1, 1) and (2,)"),
        (
            [[0.5, 0.4], [1.0, 0.0], [1.5, -0.5], [np.nan, 1]],
            ["a", "b", "a", "a"],
            {},
            "expected rows of probabilities that add up to 1, 3 do not, first row 0",
        ),
        ([[1.0], [1.0]], ["a", None], {}, "expected a true group in every row, 1 lack one; leave them out"),
        ([[1.0, 0.0]], [1], {"at": (0, 1)}, "at: expected ranks of at least 1, got 0"),
        ([[1.0, 0.0]], [1], {"returned": []}, "returned: expected different columns from 0 to 1, got []"),
        ([[1.0, 0.0]], [1], {"returned": [0, 0]}, "returned: expected different columns from 0 to 1, got [0, 0]"),
        ([[1.0, 0.0]], [1], {"returned": [2]}, "returned: expected different columns from 0 to 1, got [2]"),
    ],
)
def test_bad_tables_are_refused(shares: Any, truth: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        detection_table(shares, np.array(truth), **options)
    assert str(caught.value) == f"detection_table: {message}"


def test_bad_scores_are_refused() -> None:
    for score, truth in (([0.1], [1, 0]), ([np.nan, 1], [1, 0]), ([], [])):
        shapes = f"({len(score)},) and ({len(truth)},)"
        with pytest.raises(MonaiFairError) as caught:
            average_precision(score, truth)
        assert str(caught.value) == f"expected a number and a truth per row, got shapes {shapes} or NaN"
    with pytest.raises(MonaiFairError, match=r"^truth: expected booleans or 0 and 1, got other values$"):
        precision_at([0.1, 0.2], [1, 2], k=1)
    with pytest.raises(MonaiFairError, match=r"^k: expected at least 1, got 0$"):
        precision_at([0.1], [1], k=0)
