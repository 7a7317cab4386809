"""GroupMetric: values of the audit, batch by batch; what it refuses, and what it says of groups left out."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ignite.engine import Engine
from ignite.metrics import Accuracy, Recall
from ignite.metrics.fairness import SubgroupDifference, SubgroupMetric
from monai.data import MetaTensor
from monai.metrics import ROCAUCMetric
from sklearn.metrics import brier_score_loss, roc_auc_score

from monai_fair.errors import MonaiFairError
from monai_fair.metrics.cumulative import GroupMetric

# Group A: positives 0.9, 0.4 and negatives 0.1, 0.4, so 1 + 1 + 1 + 1/2 (a tie) of 4 pairs are right: AUC 0.875.
# Group B: positives 0.7, 0.2 and negatives 0.3, 0.6, so 2 of 4 pairs: 0.5. At 0.5 A has TPR 1/2 and FPR 0, B TPR 1/2
# and FPR 1/2. The sample without a group counts in the overall value only: positives 0.9, 0.4, 0.7, 0.2, 1.0 against
# 0.1, 0.4, 0.3, 0.6 are right in 4, 2.5, 4, 1 and 4 of 4 pairs each: 15.5 / 20 = 0.775.
SCORE = [0.9, 0.4, 0.1, 0.4, 0.7, 0.2, 0.3, 0.6, 1.0]
LABEL = [1, 1, 0, 0, 1, 1, 0, 0, 1]
GROUP = ["A", "A", "A", "A", "B", "B", "B", "B", ""]
IDS = [str(row) for row in range(9)]


def metric(name: str = "auc", **options: Any) -> GroupMetric:
    return GroupMetric(name, **{"attribute": "sex", "min_count": 1, **options})


def filled(found: GroupMetric, *, rows: Sequence[int] = range(9), batch: int = 4) -> GroupMetric:
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        found(
            torch.tensor([SCORE[row] for row in part], dtype=torch.float64),
            torch.tensor([LABEL[row] for row in part]),
            [GROUP[row] for row in part],
            [IDS[row] for row in part],
        )
    return found


@pytest.mark.parametrize(
    ("name", "summary", "expected"),
    [
        ("auc", "overall", 0.775),
        ("auc", "worst", 0.5),
        ("auc", "gap", 0.375),
        ("auc", "mean", 0.6875),
        ("tpr", "worst", 0.5),
        ("fpr", "worst", 0.5),  # the largest
        ("fpr", "mean", 0.25),
        ("fpr", "gap", 0.5),
        ("selection_rate", "gap", 0.25),  # 1 of 4 and 2 of 4
        ("selection_rate", "overall", 4 / 9),
    ],
)
def test_summaries_of_a_case_done_by_hand(name: str, summary: str, expected: float) -> None:
    assert filled(metric(name, summary=summary)).aggregate() == pytest.approx(expected, abs=1e-12)


def test_the_worst_calibration_slope_is_the_one_furthest_from_1() -> None:
    # A and B have the same scores; swapping B's labels turns its slope into the opposite one, further from 1
    found, generator = metric("calibration_slope"), torch.Generator().manual_seed(0)
    score = torch.rand(50, generator=generator, dtype=torch.float64)
    label = (torch.rand(50, generator=generator) < score).long()
    found(
        torch.cat([score, score]), torch.cat([label, 1 - label]), ["A"] * 50 + ["B"] * 50, [str(x) for x in range(100)]
    )
    good, swapped = found.by_group().values
    assert good > 0
    assert swapped == pytest.approx(-good, abs=1e-8)
    assert found.aggregate() == swapped


def test_a_threshold_is_reached_by_a_score_equal_to_it() -> None:
    assert filled(metric("tpr", threshold=0.4, summary="gap")).aggregate() == 0.5  # 2 of 2 and 1 of 2
    assert filled(metric("tpr", threshold=0.41, summary="gap")).aggregate() == 0.0


def test_groups_are_reported_with_their_counts() -> None:
    results = filled(metric()).by_group()
    assert results.names == ("A", "B")
    np.testing.assert_allclose(results.values, [0.875, 0.5], rtol=1e-12)
    assert results.n.tolist() == [4, 4]
    assert results.n_positive.tolist() == [2, 2]
    assert (results.n_total, results.n_missing) == (9, 1)
    assert results.left_out == ("", "")


def random_case(seed: int, n: int = 60) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(0, 20, (n,), generator=generator).double() / 20  # with ties
    return score, torch.randint(0, 2, (n,), generator=generator), torch.randint(0, 3, (n,), generator=generator)


@pytest.mark.parametrize("seed", range(5))
def test_one_group_is_what_monai_computes(seed: int) -> None:
    score, label, _ = random_case(seed)
    found, reference = metric(summary="worst"), ROCAUCMetric()
    for part in range(0, 60, 7):
        batch = slice(part, part + 7)
        size = len(score[batch])
        found(score[batch], label[batch], ["x"] * size, [str(part + index) for index in range(size)])
        reference(score[batch], label[batch])
    assert found.aggregate() == pytest.approx(reference.aggregate(), abs=1e-12)
    assert found.aggregate("overall") == found.aggregate()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("name", "base"), [("accuracy", Accuracy), ("tpr", Recall)])
def test_groups_are_what_ignite_computes(seed: int, name: str, base: Callable[[], Any]) -> None:
    score, label, group = random_case(seed)
    found = metric(name)
    found(score, label, [f"g{index}" for index in group], [str(row) for row in range(60)])
    engine = Engine(lambda _, batch: ((score >= 0.5).long(), label, group))
    SubgroupMetric(base(), range(3)).attach(engine, "groups")
    SubgroupDifference(base(), range(3)).attach(engine, "difference")
    metrics = engine.run([0]).metrics
    np.testing.assert_allclose(found.by_group().values, [metrics[index] for index in range(3)], rtol=1e-6)
    assert found.aggregate("gap") == pytest.approx(metrics["difference"], abs=1e-6)


@pytest.mark.parametrize(("name", "reference"), [("auc", roc_auc_score), ("brier", brier_score_loss)])
def test_groups_are_what_scikit_learn_computes(name: str, reference: Callable[..., float]) -> None:
    score, label, group = (values.numpy() for values in random_case(7))
    found = metric(name)
    found(torch.tensor(score), torch.tensor(label), [str(index) for index in group], [str(row) for row in range(60)])
    expected = [reference(label[group == index], score[group == index]) for index in range(3)]
    np.testing.assert_allclose(found.by_group().values, expected, rtol=1e-12)


@settings(deadline=None)
@given(st.permutations(range(9)), st.integers(1, 9), st.lists(st.integers(0, 8), max_size=5))
def test_order_batches_and_repeated_samples_change_nothing(rows: list[int], batch: int, again: list[int]) -> None:
    expected, got = filled(metric()).by_group(), filled(metric(), rows=[*rows, *again], batch=batch).by_group()
    assert got.values.tolist() == expected.values.tolist()
    assert (got.n.tolist(), got.n_total, got.overall) == (expected.n.tolist(), 9, expected.overall)


def column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values)[:, None]


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (torch.tensor(SCORE), torch.tensor(LABEL)),
        (column(SCORE), column(LABEL)),
        (column(SCORE), torch.tensor(LABEL).float()),
        (MetaTensor(column(SCORE)), MetaTensor(torch.tensor(LABEL))),
        ([torch.tensor([value]) for value in SCORE], LABEL),
        ([torch.tensor([value]) for value in SCORE], [torch.tensor(value) for value in LABEL]),
        (np.array(SCORE), np.array(LABEL)),
    ],
    ids=["(B,)", "(B, 1)", "float labels", "MetaTensor", "list and ints", "list of tensors", "numpy"],
)
def test_forms_of_a_batch(scores: Any, labels: Any) -> None:
    found = metric()
    found(scores, labels, GROUP, IDS)
    assert found.aggregate() == pytest.approx(0.5, abs=1e-7)
    alone = metric()
    for row in range(9):
        alone(scores[row : row + 1], labels[row : row + 1], GROUP[row : row + 1], IDS[row : row + 1])
    assert alone.aggregate() == found.aggregate()


def test_one_class_of_several_against_the_rest() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.dirichlet(np.ones(3), size=40), rng.integers(0, 3, 40)
    groups, ids = [str(row % 2) for row in range(40)], [str(row) for row in range(40)]
    for index in range(3):
        found, one_hot = metric(class_index=index), metric(class_index=index)
        found(torch.tensor(scores), torch.tensor(labels), groups, ids)
        one_hot(torch.tensor(scores), torch.eye(3)[torch.tensor(labels)], groups, ids)
        expected = [roc_auc_score(labels[part::2] == index, scores[part::2, index]) for part in range(2)]
        np.testing.assert_allclose(found.by_group().values, expected, rtol=1e-12)
        assert one_hot.by_group().values.tolist() == found.by_group().values.tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_of_half_precision(dtype: torch.dtype) -> None:
    found = metric("accuracy")
    found(torch.tensor(SCORE, dtype=dtype), torch.tensor(LABEL), GROUP, IDS)
    assert found.by_group().values.tolist() == filled(metric("accuracy")).by_group().values.tolist()


def test_reset_forgets_all_samples_and_names() -> None:
    found = filled(metric())
    found.reset()
    found(torch.tensor([0.2, 0.8]), torch.tensor([0, 1]), ["new", "new"], ["0", "1"])
    assert found.by_group().names == ("new",)
    assert found.aggregate() == 1.0


def test_a_batch_after_aggregate_is_added() -> None:
    found = filled(metric(), rows=range(4))
    assert found.by_group().names == ("A",)
    filled(found, rows=range(4, 9))
    assert found.by_group().names == ("A", "B")


def test_names_survive_as_they_are_and_stand_in_natural_order() -> None:
    names = ["10", "9", "żółć", 'tab\t"quote"', "89+", "ÅÄÖ 日本"]
    found = metric()
    for index, name in enumerate(names):
        found(torch.tensor([0.1, 0.9]), torch.tensor([0, 1]), [name, name], [f"é{index}", f"ê{index}"])
    results = found.by_group()
    assert set(results.names) == set(names)
    assert results.names.index("9") < results.names.index("10") < results.names.index("89+")
    assert results.n.tolist() == [2] * 6


def test_a_small_group_is_left_out_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    found = metric(min_count=2, summary="gap")
    filled(found)
    found(torch.tensor([0.0, 1.0, 0.5]), torch.tensor([1, 0, 0]), ["C", "C", "D"], ["c1", "c2", "d"])
    with caplog.at_level(logging.WARNING):
        assert found.aggregate() == 0.375  # C has an AUC of 0 from one pair
        found.aggregate()
    assert caplog.messages == [
        "auc, gap of 'sex': left out: 'C' (fewer than 2 positives in this group), "
        "'D' (fewer than 2 positives in this group); 1 of 12 samples have no value"
    ]
    assert found.by_group().values[:3].tolist() == [0.875, 0.5, 0.0]
    assert np.isnan(found.by_group().values[3])


@pytest.mark.parametrize(
    ("name", "summary", "rows", "said"),
    [
        ("auc", "worst", [0, 1], "left out: 'A' (fewer than 1 negatives in this group); undefined"),
        ("auc", "mean", [8], "1 of 1 samples have no value; undefined"),
        ("auc", "gap", [0, 2], "undefined"),
        ("ppv", "worst", [1, 2], "left out: 'A' (fewer than 1 predicted positives in this group); undefined"),
        ("tpr", "worst", [2], "left out: 'A' (fewer than 1 positives in this group); undefined"),
        (
            "calibration_slope",
            "worst",
            [0, 2],
            "left out: 'A' (no positive or no negative case, all scores equal, or scores that separate the classes in "
            "this group); undefined",
        ),
    ],
)
def test_undefined_is_nan_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture, name: str, summary: str, rows: list[int], said: str
) -> None:
    with caplog.at_level(logging.WARNING):
        assert np.isnan(filled(metric(name, summary=summary), rows=rows).aggregate())
    assert caplog.messages == [f"{name}, {summary} of 'sex': {said}"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "selection_rate"},
            "summary: 'worst' needs a metric with a best value, 'selection_rate' has none; use 'gap'",
        ),
        ({"summary": "max"}, "summary: expected one of overall, worst, gap, mean, got 'max'; choose one"),
        ({"min_count": 0}, "min_count: expected at least 1, got 0; raise it"),
        ({"threshold": 50.0}, "threshold: expected a number in [0, 1], got 50.0; scores are probabilities"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MonaiFairError) as caught:
        metric(**options)
    assert str(caught.value) == f"GroupMetric: {message}"


def test_another_summary_is_checked_too() -> None:
    found = filled(metric("selection_rate", summary="gap"))
    assert found.aggregate("mean") == 0.375
    for summary in ("worst", "max"):
        with pytest.raises(MonaiFairError, match=f"^GroupMetric: summary: .*'{summary}'"):
            found.aggregate(summary)  # type: ignore[arg-type]


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    with pytest.raises(MonaiFairError, match=r"^GroupMetric: name: expected one of auc, .*, got 'AUC'; choose one$"):
        metric("AUC")


@pytest.mark.parametrize(
    ("scores", "labels", "groups", "options", "message"),
    [
        (torch.rand(2), torch.ones(3), ["a", "b"], {},
         "expected as many of each in a batch, got 2 scores, 3 labels, 2 groups and 2 ids"),
        (torch.rand(2, 3), torch.ones(2), ["a", "b"], {},
         "scores of 3 classes: expected the class that is positive, got class_index None; name one"),
        (torch.rand(2, 3), torch.ones(2), ["a", "b"], {"class_index": 3},
         "scores of 3 classes: expected the class that is positive, got class_index 3; name one"),
        (torch.rand(2, 1), torch.ones(2), ["a", "b"], {"class_index": 1},
         "class_index 1: expected scores of several classes, got one column"),
        (torch.rand(2, 3), torch.ones(2, 2), ["a", "b"], {"class_index": 1},
         "labels: expected 1 or 3 columns as the scores have, got 2"),
        (torch.rand(2), torch.ones(2), torch.ones(2), {}, "groups: expected text, got Tensor; write values as text"),
        (torch.rand(2), torch.ones(2), ["a", float("nan")], {},
         "groups: expected text, got float; write values as text"),
    ],
)  # fmt: skip
def test_a_batch_that_does_not_fit_is_refused(
    scores: torch.Tensor, labels: torch.Tensor, groups: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(MonaiFairError) as caught:
        metric(**options)(scores, labels, groups, ["0", "1"])
    assert str(caught.value) == f"auc, worst of 'sex': {message}"


def refusal(scores: Sequence[float], labels: Sequence[float], ids: Sequence[str]) -> str:
    found = metric()
    found(torch.tensor(scores), torch.tensor(labels), ["a"] * len(ids), ids)
    with pytest.raises(MonaiFairError) as caught:
        found.aggregate()
    return str(caught.value)


LABELS = "auc, worst of 'sex': expected labels that are class indices (0 or 1 for one score) or one-hot, "


@pytest.mark.parametrize("bad", [3.25, -0.5, float("nan"), float("inf")])
def test_logits_are_refused(bad: float) -> None:
    assert refusal([0.5, bad, 0.0], [0, 1, 0], ["0", "1", "2"]) == (
        f"auc, worst of 'sex': expected probabilities in [0, 1], 1 of 3 samples have others, first {bad:.6g}; "
        "add Activationsd to the postprocessing"
    )


@pytest.mark.parametrize("bad", [2, -1, 0.5, float("nan")])
def test_labels_that_are_no_class_are_refused(bad: float) -> None:
    assert refusal([0.5, 0.5], [0, bad], ["0", "1"]) == f"{LABELS}1 of 2 samples have others"


def test_soft_labels_are_refused() -> None:
    found = metric(class_index=0)
    found(torch.full((2, 2), 0.5), torch.tensor([[0.5, 0.5], [1.0, 0.0]]), ["a", "a"], ["0", "1"])
    with pytest.raises(MonaiFairError) as caught:
        found.aggregate()
    assert str(caught.value) == f"{LABELS}1 of 2 samples have others"


@pytest.mark.parametrize(("scores", "labels"), [([0.2, 0.9], [0, 0]), ([0.5, 0.5], [0, 1])], ids=["score", "label"])
def test_ids_that_stand_for_several_samples_are_refused(scores: list[float], labels: list[int]) -> None:
    """A subject's id for two of its images would drop one of them."""
    assert refusal(scores, labels, ["sübject 7", "sübject 7"]) == (
        "auc, worst of 'sex': expected ids that tell samples apart, 'sübject 7' stands for several; "
        "use the row or the image's path"
    )


def test_an_id_in_two_groups_is_refused() -> None:
    found = metric()
    found(torch.tensor([0.5, 0.5]), torch.tensor([0, 0]), ["a", "b"], ["7", "7"])
    with pytest.raises(MonaiFairError, match="'7' stands for several"):
        found.aggregate()


def test_no_sample_is_an_error() -> None:
    with pytest.raises(MonaiFairError) as caught:
        metric().aggregate()
    assert str(caught.value) == (
        "auc, worst of 'sex': expected at least one sample, got none; call it with a batch first"
    )
