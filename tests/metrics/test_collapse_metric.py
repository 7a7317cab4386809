"""NeuralCollapseMetric: what neural_collapse gives of all samples, however they came; processes; what it refuses."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.metrics import CumulativeIterationMetric
from torch import nn

from monai_fair.errors import MonaiFairError
from monai_fair.metrics import NeuralCollapse, NeuralCollapseMetric, neural_collapse

N = 31
RANDOM = np.random.default_rng(0)
LABEL = RANDOM.integers(0, 2, N)
FEATURES = (RANDOM.normal(size=(N, 4)) + 2 * LABEL[:, None] + 1).astype(np.float32)
GROUP = RANDOM.choice(["a", "ž", ""], N).tolist()
WRONG = RANDOM.random(N) < 0.3
IDS = [f"row {row}" for row in range(N)]
WEIGHT, BIAS = RANDOM.normal(size=(2, 4)), RANDOM.normal(size=2)


def expected(**layer: Any) -> NeuralCollapse:
    return neural_collapse(FEATURES, LABEL, groups=GROUP, mislabelled=WRONG, **layer)


def add(metric: NeuralCollapseMetric, rows: Sequence[int], *, ids: bool = True) -> NeuralCollapseMetric:
    """Add one batch."""
    places = list(rows)
    metric(
        torch.tensor(FEATURES[places]),
        torch.tensor(LABEL[places]),
        [GROUP[row] for row in places],
        torch.tensor(WRONG[places]),
        ids=[IDS[row] for row in places] if ids else None,
    )
    return metric


def filled(rows: Sequence[int] = range(N), batch: int = 7, *, ids: bool = True) -> NeuralCollapseMetric:
    metric = NeuralCollapseMetric()
    for start in range(0, len(rows), batch):
        add(metric, rows[start : start + batch], ids=ids)
    return metric


def flat(record: Any, path: str = "") -> dict[str, Any]:
    if isinstance(record, dict | list):
        items = record.items() if isinstance(record, dict) else enumerate(record)
        return {name: value for key, item in items for name, value in flat(item, f"{path}/{key}").items()}
    return {path: record}


def close(found: NeuralCollapse, wanted: NeuralCollapse) -> None:
    one, other = flat(found.record()), flat(wanted.record())
    assert one.keys() == other.keys()
    for name, value in other.items():
        approx = pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True) if isinstance(value, float) else value
        assert one[name] == approx, name


def test_values_by_hand() -> None:
    # class 0: (0, 0) and (0, 2) around (0, 1); class 1: (4, 0) and (4, 2) around (4, 1): each 1 from its mean, the
    # means 4 apart
    metric = NeuralCollapseMetric()
    metric(torch.tensor([[0.0, 0.0], [4.0, 2.0]]), torch.tensor([0, 1]))
    metric(torch.tensor([[4.0, 0.0], [0.0, 2.0]]), torch.tensor([1, 0]))
    found = metric.aggregate(weight=[[-1.0, 0.0], [1.0, 0.0]], bias=[2.0, -2.0])
    assert found.n_by_class == (2, 2)
    assert found.values["nc1_distance"].value == 1
    assert found.values["nc1_normalized"].value == 0.25
    assert found.values["error"].value == 0
    assert metric.aggregate().values["error"].reason == "no classifier is given"


def test_it_is_a_cumulative_metric_of_monai() -> None:
    metric = filled()
    assert isinstance(metric, CumulativeIterationMetric)
    assert len(metric) == N


@settings(deadline=None)
@given(
    st.permutations(range(N)),
    st.lists(st.integers(1, 12), min_size=1),
    st.lists(st.integers(0, N - 1), max_size=6),
)
def test_batches_order_and_repeated_samples_change_nothing(
    order: list[int], sizes: list[int], again: list[int]
) -> None:
    metric, rows = NeuralCollapseMetric(), [*order, *again]
    while rows:
        size = sizes[len(rows) % len(sizes)]
        add(metric, rows[:size])
        rows = rows[size:]
    found = metric.aggregate(WEIGHT, BIAS)
    close(found, expected(weight=WEIGHT, bias=BIAS))
    assert repr(found.record()) == repr(filled().aggregate(WEIGHT, BIAS).record())  # to the last bit


@settings(deadline=None)
@given(st.permutations(range(N)), st.integers(1, N))
def test_without_ids_every_row_counts(order: list[int], batch: int) -> None:
    close(filled(order, batch, ids=False).aggregate(WEIGHT, BIAS), expected(weight=WEIGHT, bias=BIAS))
    twice = filled([*range(N), *range(N)], batch, ids=False).aggregate()
    assert twice.n == 2 * N


def test_means_of_other_samples() -> None:
    train, test = range(20), range(20, N)
    first = filled(train).aggregate(WEIGHT, BIAS)
    found = filled(test).aggregate(WEIGHT, BIAS, means=first.means)
    wanted = neural_collapse(FEATURES[20:], LABEL[20:], weight=WEIGHT, bias=BIAS, groups=GROUP[20:],
                             mislabelled=WRONG[20:], means=first.means)  # fmt: skip
    close(found, wanted)
    assert found.values["nc1_distance"].value != filled(test).aggregate().values["nc1_distance"].value


def test_a_single_logit_of_a_network() -> None:
    layer = nn.Linear(4, 1)
    found = filled().aggregate(layer.weight, layer.bias)
    assert found.one_logit
    weight, bias = (values.detach().numpy() for values in (layer.weight, layer.bias))
    close(found, expected(weight=weight, bias=bias))


def test_groups_and_masks_may_be_left_out() -> None:
    metric = NeuralCollapseMetric()
    metric(torch.tensor(FEATURES), torch.tensor(LABEL))
    close(metric.aggregate(), neural_collapse(FEATURES, LABEL))


def test_a_batch_without_a_mask_has_no_mislabelled_sample() -> None:
    metric = NeuralCollapseMetric()
    metric(torch.tensor(FEATURES[:20]), torch.tensor(LABEL[:20]), mislabelled=torch.tensor(WRONG[:20]))
    metric(torch.tensor(FEATURES[20:]), torch.tensor(LABEL[20:]), GROUP[20:])
    known = np.append(WRONG[:20], np.zeros(N - 20, dtype=bool))
    close(metric.aggregate(), neural_collapse(FEATURES, LABEL, groups=[""] * 20 + GROUP[20:], mislabelled=known))


@pytest.mark.parametrize(
    ("features", "labels", "marks"),
    [
        (torch.tensor(FEATURES), torch.tensor(LABEL)[:, None], torch.tensor(WRONG)[:, None]),
        (torch.tensor(FEATURES), torch.eye(2)[torch.tensor(LABEL)], torch.tensor(WRONG)),
        (torch.tensor(FEATURES).double(), torch.tensor(LABEL).float(), WRONG.tolist()),
        (MetaTensor(torch.tensor(FEATURES)), MetaTensor(torch.tensor(LABEL)), torch.tensor(WRONG)),
        (torch.tensor(FEATURES, requires_grad=True), torch.tensor(LABEL), torch.tensor(WRONG)),
        (list(torch.tensor(FEATURES)), list(torch.tensor(LABEL)), list(torch.tensor(WRONG))),
        (FEATURES, LABEL, WRONG),
    ],
    ids=["(B, 1)", "one-hot", "float64", "MetaTensor", "gradients", "lists", "numpy"],
)
def test_forms_of_a_batch(features: Any, labels: Any, marks: Any) -> None:
    metric = NeuralCollapseMetric()
    metric(features, labels, GROUP, marks, ids=IDS)
    close(metric.aggregate(WEIGHT, BIAS), expected(weight=WEIGHT, bias=BIAS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_of_half_precision_are_measured_as_they_are(dtype: torch.dtype) -> None:
    features, metric = torch.tensor(FEATURES).to(dtype), NeuralCollapseMetric()
    metric(features, torch.tensor(LABEL))
    close(metric.aggregate(), neural_collapse(features.double().numpy(), LABEL))


def test_a_tensor_may_be_filled_again() -> None:
    metric, again = NeuralCollapseMetric(), torch.empty(1, 4)
    for row in range(N):
        again[0] = torch.tensor(FEATURES[row])
        metric(again, torch.tensor(LABEL[row : row + 1]))
    close(metric.aggregate(), neural_collapse(FEATURES, LABEL))


def test_reset_forgets_all_samples() -> None:
    metric = filled()
    metric.reset()
    metric(torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1]), ["new", "new"], ids=["row 0", "row 1"])  # other d
    found = metric.aggregate()
    assert (found.n, [group.name for group in found.groups]) == (2, ["new"])
    assert found.values["mislabelled_ratio"].reason == "it is not given which samples are mislabelled"


def test_a_batch_after_aggregate_is_added() -> None:
    metric = filled(range(20))
    assert metric.aggregate().n == 20
    add(metric, range(20, N))
    close(metric.aggregate(), expected())


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"features": torch.ones(2)},
         "features: expected shape (B, d) with B and d from 1, got (2,); take the last layer's input"),
        ({"features": torch.ones(2, 4, 1, 1)},
         "features: expected shape (B, d) with B and d from 1, got (2, 4, 1, 1); take the last layer's input"),
        ({"features": torch.ones(0, 4), "labels": torch.ones(0)},
         "features: expected shape (B, d) with B and d from 1, got (0, 4); take the last layer's input"),
        ({"features": [], "labels": []},
         "features: expected shape (B, d) with B and d from 1, got (0,); take the last layer's input"),
        ({"features": torch.ones(2, 5)}, "features: expected 4 as in earlier batches, got 5; call reset first"),
        ({"labels": torch.tensor(1)}, "labels: expected 2, one per row of features, got 1; give as many"),
        ({"labels": torch.ones(2, 0)}, "labels: expected at least one column, got none; give class indices"),
        ({"groups": ["a"]}, "groups: expected 2, one per row of features, got 1; give as many"),
        ({"groups": ["a", float("nan")]}, "groups: expected text, got float; write values as text"),
        ({"ids": [3, 4]}, "ids: expected text, got int; write values as text"),
        ({"ids": ["3"]}, "ids: expected 2, one per row of features, got 1; give as many"),
        ({"mislabelled": torch.tensor([0.0, 1.0])},
         "mislabelled: expected truth values, got torch.float32; give a mask"),
        ({"mislabelled": torch.tensor(True)}, "mislabelled: expected 2, one per row of features, got 1; give as many"),
        ({"mislabelled": torch.ones(2, 2) == 1},
         "mislabelled: expected one per sample, got shape (2, 2); give a mask"),
    ],
)  # fmt: skip
def test_a_batch_that_does_not_fit_is_refused(batch: dict[str, Any], message: str) -> None:
    metric = add(NeuralCollapseMetric(), range(5))
    with pytest.raises(MonaiFairError) as caught:
        metric(**{"features": torch.ones(2, 4), "labels": torch.tensor([0, 1]), **batch})
    assert str(caught.value) == f"NeuralCollapseMetric: {message}"
    assert metric.aggregate().n == 5


def test_all_problems_of_a_batch_in_one_message() -> None:
    with pytest.raises(MonaiFairError) as caught:
        NeuralCollapseMetric()(torch.ones(3, 4), torch.ones(2), [1.5], torch.ones(4))  # type: ignore[list-item]
    assert str(caught.value).splitlines()[0] == "NeuralCollapseMetric: 5 problems"


def refusal(metric: NeuralCollapseMetric, **layer: Any) -> str:
    with pytest.raises(MonaiFairError) as caught:
        metric.aggregate(**layer)
    return str(caught.value)


LABELS = "NeuralCollapseMetric: expected labels that are class indices"


@pytest.mark.parametrize("bad", [-1, 0.5, float("nan"), float("inf"), 1e300])
def test_labels_that_are_no_class_are_refused(bad: float) -> None:
    metric = NeuralCollapseMetric()
    metric(torch.rand(3, 2), torch.tensor([0, bad, 1], dtype=torch.float64))
    assert refusal(metric) == (
        f"{LABELS} or one-hot, 1 of 3 samples have others, first 'row 1 of process 0'; correct them"
    )


@pytest.mark.parametrize("bad", [[0.5, 0.5], [1.0, 1.0], [0.0, 0.0]])
def test_rows_that_are_not_one_hot_are_refused(bad: list[float]) -> None:
    metric = NeuralCollapseMetric()
    metric(torch.rand(2, 2), torch.tensor([bad, [1.0, 0.0]]), ids=["é", "ê"])
    assert refusal(metric) == f"{LABELS} or one-hot, 1 of 2 samples have others, first 'é'; correct them"


@pytest.mark.parametrize("layer", [{"weight": torch.ones(2, 4)}, {"weight": np.ones(4)}, {"means": expected().means}])
def test_more_classes_than_the_network_has_are_refused(layer: dict[str, Any]) -> None:
    metric = filled()
    metric(torch.rand(1, 4), torch.tensor([2]), ids=["a third"])
    assert refusal(metric, **layer) == (
        f"{LABELS} below 2 or one-hot, 1 of {N + 1} samples have others, first 'a third'; correct them"
    )
    assert metric.aggregate().n_by_class == (*np.bincount(LABEL), 1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(bad: float) -> None:
    metric = filled()
    metric(torch.full((2, 4), bad), torch.tensor([0, 0]), ids=["ü", "ü"])  # the same one again
    assert refusal(metric) == (
        f"NeuralCollapseMetric: expected finite features, 2 of {N + 2} samples have others, first 'ü'; "
        "check the training that made them"
    )


CLASH = "expected ids that tell samples apart, 'row 3' stands for several; use the row or the image's path"


@pytest.mark.parametrize(
    "change", [{"features": torch.tensor(1.1 * FEATURES[3:4])}, {"labels": torch.tensor([1 - LABEL[3]])},
               {"groups": ["other"]}, {"mislabelled": ~torch.tensor(WRONG[3:4])}, {"mislabelled": None}]
)  # fmt: skip
def test_ids_that_stand_for_several_samples_are_refused(change: dict[str, Any]) -> None:
    metric = filled()
    same = {
        "features": torch.tensor(FEATURES[3:4]),
        "labels": torch.tensor(LABEL[3:4]),
        "groups": GROUP[3:4],
        "mislabelled": torch.tensor(WRONG[3:4]),
    }
    metric(**{**same, "features": 1.005 * same["features"]}, ids=["row 3"])  # as another batch may round it
    assert metric.aggregate().n == N
    metric(**{**same, **change}, ids=["row 3"])
    assert refusal(metric) == f"NeuralCollapseMetric: {CLASH}"


def test_a_layer_that_does_not_fit_is_refused() -> None:
    assert refusal(filled(), weight=np.ones((2, 3))) == (
        "neural collapse: weight: expected shape (2, 4) by class, got (2, 3); give the layer the features enter"
    )


NOTHING = "NeuralCollapseMetric: expected features of one number of columns, got none; call it with a batch first"


def test_no_sample_is_an_error() -> None:
    metric = filled()
    metric.reset()
    assert refusal(NeuralCollapseMetric()) == refusal(metric) == NOTHING


def work(rank: int, _: Path) -> tuple[dict[str, Any], list[nn.Module]]:
    """Two processes: samplers that pad and do not, all samples on one, and errors that only one has caused."""
    padded = [*range(rank, N, 2), *([0] if rank else [])]
    found = {
        "padded": filled(padded),
        "uneven": filled(range(10) if rank else range(10, N), batch=4),
        "alone": filled(range(N) if rank else []),
        "without ids": filled(range(rank, N, 2), ids=False),
    }
    results: dict[str, Any] = {name: flat(each.aggregate(WEIGHT, BIAS).record()) for name, each in found.items()}
    clash, wide = filled(range(rank, N, 2)), NeuralCollapseMetric()
    clash(torch.full((1, 4), 1.0 + rank), torch.tensor([0]), ids=["é"])
    wide(torch.ones(1, 4 + rank), torch.tensor([rank]))
    bad = filled(range(rank, N, 2))
    if rank:
        bad(torch.full((1, 4), float("nan")), torch.tensor([0]), ids=["bad"])
    refused = [refusal(each) for each in (clash, wide, bad, NeuralCollapseMetric())]
    found["alone"].reset()
    return {**results, "refused": refused, "again": add(found["alone"], range(rank, 8, 2)).aggregate().n}, []


@pytest.fixture(scope="module")
def ranks(two_processes: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return two_processes(work, tmp_path_factory.mktemp("gloo"))


@pytest.mark.parametrize("sampler", ["padded", "uneven", "alone"])
def test_two_processes_give_what_one_gives(ranks: list[dict[str, Any]], sampler: str) -> None:
    single = flat(filled().aggregate(WEIGHT, BIAS).record())
    for rank in ranks:
        assert repr(rank[sampler]) == repr(single)  # to the last bit, with NaN equal to NaN


def test_two_processes_without_ids(ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["without ids"] for rank in ranks)
    assert repr(first) == repr(second)
    for name, value in flat(expected(weight=WEIGHT, bias=BIAS).record()).items():
        approx = pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True) if isinstance(value, float) else value
        assert first[name] == approx, name


def test_errors_and_resets_reach_every_process(ranks: list[dict[str, Any]]) -> None:
    """Else the others would wait for the one that is gone."""
    messages = [
        f"NeuralCollapseMetric: {CLASH.replace('row 3', 'é')}",
        "NeuralCollapseMetric: expected features of one number of columns, got 4 and 5 in processes; measure one layer",
        f"NeuralCollapseMetric: expected finite features, 1 of {N + 1} samples have others, first 'bad'; "
        "check the training that made them",
        NOTHING,
    ]
    assert [rank["refused"] for rank in ranks] == [messages] * 2
    assert [rank["again"] for rank in ranks] == [8, 8]
