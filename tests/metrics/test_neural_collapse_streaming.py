"""Two passes over batches: the same as at once, on several processes, with features far from 0, in bounded memory."""

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_fair.errors import MonaiFairError
from monai_fair.metrics import FeatureDistances, FeatureMoments, NeuralCollapse, collapse_result, linear_head
from monai_fair.metrics import neural_collapse as at_once
from monai_fair.metrics.arrays import FloatArray

Rows = dict[str, Any]


def rows(n: int = 61, *, num_classes: int = 3, num_features: int = 5, seed: int = 0) -> Rows:
    random = np.random.default_rng(seed)
    labels = random.integers(0, num_classes, n)
    features = random.normal(size=(n, num_features)) + 2 * random.normal(size=(num_classes, num_features))[labels]
    groups = random.choice(["a", "b", "ž", ""], n).tolist()
    return {"features": features, "labels": labels, "groups": groups, "mislabelled": random.random(n) < 0.2}


def head(num_classes: int = 3, num_features: int = 5) -> dict[str, FloatArray]:
    random = np.random.default_rng(9)
    return {"weight": random.normal(size=(num_classes, num_features)), "bias": random.normal(size=num_classes)}


def part(data: Rows, chosen: Sequence[int]) -> Rows:
    return {name: [values[i] for i in chosen] if isinstance(values, list) else values[list(chosen)]
            for name, values in data.items()}  # fmt: skip


def batches(data: Rows, sizes: Sequence[int]) -> Iterator[Rows]:
    start = 0
    for size in sizes:
        yield part(data, range(start, start + size))
        start += size


def add(moments: FeatureMoments, batch: Rows) -> None:
    moments.update(batch["features"], batch["labels"], batch["groups"])


def streamed(parts: Sequence[Rows], **layer: Any) -> NeuralCollapse:
    moments = FeatureMoments(len(layer["weight"]), layer["weight"].shape[1])
    for batch in parts:
        add(moments, batch)
    distances = FeatureDistances(moments.means(), linear_head(**layer))
    for batch in parts:
        distances.update(**batch)
    return collapse_result(distances)


def close(found: NeuralCollapse, expected: NeuralCollapse, rel: float = 1e-10) -> None:
    one, other = flat(found.record()), flat(expected.record())
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value == (pytest.approx(other[name], rel=rel, abs=1e-13, nan_ok=True)
                         if isinstance(value, float) else other[name]), name  # fmt: skip


def flat(record: Any, path: str = "") -> dict[str, Any]:
    if isinstance(record, dict | list):
        items = record.items() if isinstance(record, dict) else enumerate(record)
        return {name: value for key, item in items for name, value in flat(item, f"{path}/{key}").items()}
    return {path: record}


@pytest.mark.parametrize("sizes", [[61], [1] * 61, [7, 30, 0, 24], [60, 1]])
def test_batches_give_what_all_samples_give(sizes: list[int]) -> None:
    data, layer = rows(), head()
    close(streamed(list(batches(data, sizes)), **layer), at_once(**data, **layer))


def test_a_large_batch_is_taken_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    data, layer = rows(), head()
    whole = at_once(**data, **layer)
    monkeypatch.setattr("monai_fair.metrics.neural_collapse_batches._PART", 5 * 4)  # four rows
    close(at_once(**data, **layer), whole)


def test_a_mean_that_all_features_share_costs_no_digits() -> None:
    """Features are multiples of 2^-20 below 8, so that adding 2^30 is exact in float64; E[h^2] - E[h]^2 would lose all:
    of 2^60, float64 resolves 2^8, and the variance here is about 2^-14."""
    random = np.random.default_rng(3)
    labels = np.arange(200) % 2
    features = np.round((random.normal(size=(200, 6)) / 128 + labels[:, None] / 4) * 2**20) / 2**20
    far = features + 2.0**30
    assert np.array_equal(far - 2.0**30, features)
    near, moved = (at_once(h, labels, groups=["ab"[i % 3 == 0] for i in range(200)]) for h in (features, far))
    for name in ("nc1_distance", "nc1_normalized", "nc1_pinv", "nc1_trace_quotient", "nc1_cdnv",
                 "nc1_within_configuration"):  # fmt: skip
        assert moved.values[name].value == pytest.approx(near.values[name].value, rel=1e-12), name
    for one, other in zip(near.configurations, moved.configurations, strict=True):
        assert other.distance.value == pytest.approx(one.distance.value, rel=1e-10)
    naive = (far**2).mean(axis=0) - far.mean(axis=0) ** 2
    assert np.abs(naive - features.var(axis=0)).max() > features.var(axis=0).max()


def shards(data: Rows, places: Sequence[Sequence[int]], **layer: Any) -> list[NeuralCollapse]:
    """What processes with these rows find, with sums that each of them sees, in one process and one after the other."""
    width = (len(layer["weight"]), layer["weight"].shape[1])
    moments = [FeatureMoments(*width) for _ in places]
    for each, chosen in zip(moments, places, strict=True):
        for start in range(0, len(chosen), 7):
            add(each, part(data, chosen[start : start + 7]))
    names = sorted({name for each in moments for name in each.groups})
    joined = together(moments, names)
    distances = [FeatureDistances(each.means(), linear_head(**layer)) for each in joined]
    for each, chosen in zip(distances, places, strict=True):
        if chosen:
            each.update(**part(data, chosen))
    return [collapse_result(each) for each in together(distances, names)]


def together(parts: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """Call ``over_processes`` of each with sums over all, asking again until every message of all is known."""
    messages: list[list[FloatArray]] = [[] for _ in parts]
    totals: list[FloatArray] = []
    while True:
        found = []
        for place, each in enumerate(parts):
            sent: list[FloatArray] = []

            def total(array: FloatArray, sent: list[FloatArray] = sent) -> FloatArray:
                sent.append(array)
                return totals[len(sent) - 1] if len(sent) <= len(totals) else array

            found.append(each.over_processes(total, names))
            messages[place] = sent
        if len(totals) == len(messages[0]):
            return found
        known = len(totals)
        totals.append(np.sum([sent[known] for sent in messages], axis=0))


@pytest.mark.parametrize("places", [[range(30), range(30, 61)], [range(61), []], [[], range(20), range(20, 61)]])
def test_processes_give_what_one_gives(places: list[Sequence[int]]) -> None:
    data, layer = rows(), head()
    expected = at_once(**data, **layer)
    for found in shards(data, places, **layer):
        close(found, expected)
        assert found.means.n == 61
        # the spread is that around the point they agree on
        around = data["features"] - found.means.shift
        assert found.means.scale == pytest.approx(np.sqrt((around**2).sum(axis=1).mean()), rel=1e-12)


def work(rank: int, _: Path) -> tuple[dict[str, Any], list[Any]]:
    import torch
    from torch import distributed as dist

    def total(array: FloatArray) -> FloatArray:
        tensor = torch.from_numpy(array.copy())
        dist.all_reduce(tensor)
        return tensor.numpy()

    data, layer = rows(), head()
    own = part(data, range(40) if rank == 0 else range(40, 61))
    moments = FeatureMoments(3, 5)
    add(moments, own)
    names = ["", "a", "b", "ž"]
    distances = FeatureDistances(moments.over_processes(total, names).means(), linear_head(**layer))
    distances.update(**own)
    return {"found": flat(collapse_result(distances.over_processes(total, names)).record())}, []


def test_two_gloo_processes_give_what_one_gives(
    two_processes: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    expected = flat(at_once(**rows(), **head()).record())
    first, second = (each["found"] for each in two_processes(work, tmp_path))
    assert repr(first) == repr(second)  # to the last bit, with NaN equal to NaN
    assert first.keys() == expected.keys()
    for name, value in expected.items():
        wanted = pytest.approx(value, rel=1e-10, abs=1e-13, nan_ok=True) if isinstance(value, float) else value
        assert first[name] == wanted, name


def test_memory_does_not_grow_with_the_samples() -> None:
    def peak(n: int) -> int:
        data, layer = rows(n, num_features=64), head(num_features=64)
        tracemalloc.start()
        streamed([data], **layer)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    # parts of 32768 rows: the second has twice as many parts, and needs as much but for what belongs to a batch
    few, many = peak(70_000), peak(140_000)
    assert many - few < 140_000 * 64 * 8 / 4


def test_features_that_are_not_finite_are_counted_and_leave_reasons() -> None:
    data, layer = rows(), head()
    data["features"][[4, 9], 0] = np.nan, np.inf
    found = streamed([data], **layer)
    assert found.n_by_class == tuple(np.bincount(np.delete(data["labels"], [4, 9])).tolist())
    names = np.delete(np.array(data["groups"]), [4, 9])
    assert found.n_without_group == (names == "").sum()
    assert sum(found.groups[0].n_by_class) == (names == "a").sum()
    of_samples, of_means = "2 of 61 rows of features are not finite", (
        "2 of 61 rows of features behind the means are not finite"
    )  # fmt: skip
    for name, value in found.values.items():
        assert np.isnan(value.value) != name.startswith("nc2_weight"), name
        if not name.startswith("nc2_weight"):
            assert value.reason == (of_means if name.startswith(("nc2", "nc3")) else of_samples), name
    assert all(value.reason == of_samples for group in found.groups for value in group.values.values())
    assert all(each.distance.reason == of_means for each in found.configurations)


def test_no_finite_row_leaves_reasons_too() -> None:
    moments = FeatureMoments(2, 3)
    moments.update(np.full((4, 3), np.nan), [0, 0, 1, 1])
    distances = FeatureDistances(moments.means(), linear_head(np.full((2, 3), np.nan)))
    distances.update(np.full((4, 3), np.nan), [0, 0, 1, 1])
    found = collapse_result(distances)
    assert found.n == 0
    assert found.values["nc1_distance"].reason == "4 of 4 rows of features are not finite"
    assert found.values["nc2_weight_balance"].reason == "the classifier's weights are not finite"
    assert all(np.isnan(value.value) and value.reason for value in found.values.values())


def test_processes_without_a_finite_row_leave_reasons_too() -> None:
    data = rows(12)
    data["features"][:] = np.nan
    for found in shards(data, [range(6), range(6, 12)], **head()):
        assert found.n == 0
        assert found.values["nc1_distance"].reason == "12 of 12 rows of features are not finite"


def test_a_classifier_that_is_not_finite_leaves_reasons() -> None:
    data = rows()
    distances = FeatureDistances(at_once(**data).means, linear_head(np.full((3, 5), np.inf)))
    distances.update(**data)
    found = collapse_result(distances)
    without = {
        name for name, value in found.values.items() if value.reason == "the classifier's weights are not finite"
    }
    assert without == {name for name in found.values if name.startswith(("nc3", "nc4", "nc2_weight"))} | {"error"}


def test_means_of_nothing_are_an_error() -> None:
    with pytest.raises(MonaiFairError) as caught:
        FeatureMoments(2, 3).means()
    assert str(caught.value) == "neural collapse: expected features, got none; add a batch first"
    with pytest.raises(MonaiFairError) as caught:
        FeatureMoments(2, 0)
    assert str(caught.value) == (
        "neural collapse: expected two classes or more and features, got 2 and 0; "
        "a network of one logit has two classes"
    )
