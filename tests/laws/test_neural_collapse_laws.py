"""Laws of the measures of neural collapse that hold for every set of features."""

from collections.abc import Collection
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fair.metrics import FeatureDistances, FeatureMoments, NeuralCollapse, collapse_result, linear_head
from monai_fair.metrics import neural_collapse as measure
from monai_fair.metrics.arrays import FloatArray

SETTINGS = settings(deadline=None, max_examples=40, derandomize=True)
Data = dict[str, Any]
IN_LENGTHS = {"nc1_distance", "nc1_within_configuration", "mislabelled_to_label", "mislabelled_to_other"}
FROM_ZERO = {"nc2_equinorm_uncentred", "nc2_cosine", "nc2_singular_ratio", "nc3_sine"}


@st.composite
def data(draw: st.DrawFn) -> Data:
    """Classes of unequal size around means that are apart, three groups that some classes may lack, a classifier."""
    num_classes, num_features = draw(st.integers(2, 5)), draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2 * num_classes, 40))
    labels = np.concatenate([np.arange(num_classes), random.integers(0, num_classes, n - num_classes)])
    spread = draw(st.sampled_from([1e-3, 0.3, 3.0]))
    means = random.normal(size=(num_classes, num_features))
    logits = draw(st.sampled_from([1, 2])) if num_classes == 2 else num_classes
    return {
        "features": means[labels] + spread * random.normal(size=(n, num_features)),
        "labels": labels,
        "groups": random.choice(["a", "b", "c", ""], n).tolist(),
        "mislabelled": random.random(n) < draw(st.sampled_from([0.0, 0.3])),
        "weight": random.normal(size=(logits, num_features)),
        "random": random,
    }


def find(rows: Data, **changed: Any) -> NeuralCollapse:
    given_data = {name: value for name, value in (rows | changed).items() if name != "random"}
    given_data.setdefault("bias", np.linspace(-0.5, 0.7, len(given_data["weight"])))
    return measure(**given_data)


def sets_of(found: NeuralCollapse) -> dict[str, Any]:
    """Values and reasons of all samples, of groups and of pairs of groups, by name."""
    sets = {"all": found.values} | {f"group {group.name}": group.values for group in found.groups}
    flat = {f"{where}: {name}": value for where, values in sets.items() for name, value in values.items()}
    pairs = {f"class {each.label}, {each.groups}": each.distance for each in found.configurations}
    return flat | pairs


def same(one: NeuralCollapse, other: NeuralCollapse, *, factor: float = 1, left_out: Collection[str] = ()) -> None:
    first, second = sets_of(one), sets_of(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        measured = name.split(": ")[-1]
        if measured in left_out:
            continue
        wanted = value.value * (factor if measured in IN_LENGTHS else 1)
        assert second[name].value == pytest.approx(wanted, rel=1e-7, abs=1e-10, nan_ok=True), name
        assert second[name].reason == value.reason, name


@SETTINGS
@given(data())
def test_a_rotation_of_features_and_classifier_changes_nothing(rows: Data) -> None:
    size = rows["features"].shape[1]
    turn, _ = np.linalg.qr(rows["random"].normal(size=(size, size)))
    same(find(rows), find(rows, features=rows["features"] @ turn, weight=rows["weight"] @ turn))


@SETTINGS
@given(data(), st.sampled_from([1e-6, 0.5, 8.0, 1e6]))
def test_the_scale_shows_in_lengths_alone(rows: Data, factor: float) -> None:
    """The classifier's scale is undone by its own; NC2 and NC3 do not see it."""
    scaled = find(rows, features=rows["features"] * factor, weight=rows["weight"] / factor)
    same(find(rows), scaled, factor=factor)


@SETTINGS
@given(data(), st.floats(-20, 20))
def test_a_translation_shows_in_uncentred_measures_alone(rows: Data, by: float) -> None:
    bias = np.linspace(-0.5, 0.7, len(rows["weight"]))
    moved = find(rows, features=rows["features"] + by, bias=bias - rows["weight"].sum(axis=1) * by)
    same(find(rows), moved, left_out=FROM_ZERO | {"nc4_disagreement_without_bias"})


@SETTINGS
@given(data())
def test_the_order_of_samples_changes_nothing(rows: Data) -> None:
    order = rows["random"].permutation(len(rows["labels"]))
    shuffled = {name: rows[name][order] for name in ("features", "labels", "mislabelled")}
    same(find(rows), find(rows, **shuffled, groups=[rows["groups"][i] for i in order]))


@SETTINGS
@given(data(), st.integers(2, 4))
def test_repeating_every_sample_changes_nothing_but_n(rows: Data, times: int) -> None:
    repeated = {name: np.concatenate([rows[name]] * times) for name in ("features", "labels", "mislabelled")}
    found, again = find(rows), find(rows, **repeated, groups=rows["groups"] * times)
    same(found, again)
    assert again.n == times * found.n
    assert again.values["nc1_distance"].n == times * found.values["nc1_distance"].n


@SETTINGS
@given(data(), st.lists(st.integers(0, 12), min_size=1, max_size=6))
def test_how_samples_come_in_batches_changes_nothing(rows: Data, cuts: list[int]) -> None:
    head = linear_head(rows["weight"], np.linspace(-0.5, 0.7, len(rows["weight"])))
    ends = sorted({0, *(min(cut * 3, len(rows["labels"])) for cut in cuts), len(rows["labels"])})
    parts = [slice(first, last) for first, last in pairwise(ends)]
    moments = FeatureMoments(len(head.weight), rows["features"].shape[1])
    for part in parts:
        moments.update(rows["features"][part], rows["labels"][part], rows["groups"][part])
    distances = FeatureDistances(moments.means(), head)
    for part in parts:
        distances.update(*(rows[name][part] for name in ("features", "labels", "groups", "mislabelled")))
    same(find(rows), collapse_result(distances))


@SETTINGS
@given(data())
def test_names_of_groups_change_nothing_but_the_names(rows: Data) -> None:
    """The names keep their order, because rows stand in it."""
    names = {"": "", "a": "male", "b": "other", "c": "ž"}
    found, renamed = find(rows), find(rows, groups=[names[name] for name in rows["groups"]])
    assert [names[group.name] for group in found.groups] == [group.name for group in renamed.groups]
    assert repr([group.values for group in found.groups]) == repr([group.values for group in renamed.groups])
    assert repr(found.values) == repr(renamed.values)


@SETTINGS
@given(data())
def test_numbers_of_classes_change_nothing(rows: Data) -> None:
    """With them the rows of the classifier change places; a single logit changes its sign."""
    labels, weight = rows["labels"], rows["weight"]
    bias = np.linspace(-0.5, 0.7, len(weight))
    if len(weight) == 1:
        changed = find(rows, labels=1 - labels, weight=-weight, bias=-bias)
    else:
        order = rows["random"].permutation(len(weight))
        changed = find(rows, labels=np.argsort(order)[labels], weight=weight[order], bias=bias[order])
    one, other = find(rows).values, changed.values
    for name, value in one.items():
        assert other[name].value == pytest.approx(value.value, rel=1e-9, abs=1e-12, nan_ok=True), name


@SETTINGS
@given(data())
def test_the_whole_is_the_weighted_mean_of_the_groups(rows: Data) -> None:
    """Eq. 2 of Mouheb et al. with the weights that it needs: S = sum_a (n_a / n) S_a."""
    found = find(rows, groups=[name or "none" for name in rows["groups"]])
    for name in ("nc1_distance", "nc1_normalized", "nc1_trace_quotient", "nc1_within_configuration", "error"):
        parts = sum(sum(group.n_by_class) * group.values[name].value for group in found.groups) / found.n
        assert parts == pytest.approx(found.values[name].value, rel=1e-10), name


@SETTINGS
@given(data())
def test_the_own_configuration_is_never_farther_on_the_whole_in_squares(rows: Data) -> None:
    """A mean is the point of least squares; the distance itself may be larger, so the law is that of the squares."""
    found = find(rows, groups=[name or "none" for name in rows["groups"]])
    means, place = found.means, {name: index for index, name in enumerate(found.means.groups)}
    names = [place[name or "none"] for name in rows["groups"]]
    own = rows["features"] - means.group_means[names, rows["labels"]]
    around: FloatArray = rows["features"] - means.means[rows["labels"]]
    assert (own**2).sum() <= (around**2).sum() * (1 + 1e-12)
    assert found.values["nc1_within_configuration"].value == pytest.approx(
        np.linalg.norm(own, axis=1).mean(), rel=1e-9, abs=1e-12
    )


@SETTINGS
@given(data())
def test_shrinking_the_classes_around_their_means_shrinks_nc1_alone(rows: Data) -> None:
    """Half the distances: NC1 halves, its squares quarter, and the geometry of means does not change."""
    found = find(rows)
    means = found.means.means[rows["labels"]]
    half = find(rows, features=means + (rows["features"] - means) / 2)
    factors = {"nc1_distance": 1 / 2, "nc1_normalized": 1 / 2, "nc1_trace_quotient": 1 / 4, "nc1_pinv": 1 / 4,
               "nc1_cdnv": 1 / 4}  # fmt: skip
    for name, value in found.values.items():
        if name in factors or name.startswith(("nc2", "nc3")):
            wanted = value.value * factors.get(name, 1)
            assert half.values[name].value == pytest.approx(wanted, rel=1e-7, abs=1e-9, nan_ok=True), name
