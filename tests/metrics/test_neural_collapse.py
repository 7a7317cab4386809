"""Every measure of neural collapse: values by hand, limits, an independent derivation, reasons and errors."""

import json
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_fair.data.artifacts import write_json
from monai_fair.errors import MonaiFairError
from monai_fair.metrics import (
    COLLAPSE_MEASURES,
    ClassMeans,
    FeatureMoments,
    NeuralCollapse,
    linear_head,
    neural_collapse,
)
from monai_fair.metrics.arrays import BoolArray, FloatArray, IntArray

NAN = float("nan")


def numbers(found: NeuralCollapse) -> dict[str, float]:
    return {name: value.value for name, value in found.values.items()}


def reasons(found: NeuralCollapse) -> dict[str, str]:
    return {name: value.reason for name, value in found.values.items() if value.reason}


# Class 0: (-1, 0) and (1, 2) with mean (0, 1); class 1: (3, 0) and (5, 2) with mean (4, 1); the means are 4 apart. Each
# sample is (-1, -1) or (1, 1) from its mean. Group a has the first sample of each class, b the second.
FEATURES = [[-1.0, 0.0], [1.0, 2.0], [3.0, 0.0], [5.0, 2.0]]
LABELS = [0, 0, 1, 1]
GROUPS = ["a", "b", "a", "b"]
WEIGHT, BIAS = [[-1.0, 0.0], [1.0, 0.0]], [2.0, -2.0]  # class 1 where the first feature is above 2


def by_hand(**options: Any) -> NeuralCollapse:
    given: dict[str, Any] = {"weight": WEIGHT, "bias": BIAS, "groups": GROUPS, **options}
    return neural_collapse(FEATURES, LABELS, **given)


def test_values_of_two_classes_by_hand() -> None:
    found = numbers(by_hand(mislabelled=[False, True, False, False]))
    assert found["nc1_distance"] == pytest.approx(sqrt(2), rel=1e-15)
    assert found["nc1_normalized"] == pytest.approx(sqrt(2) / 4, rel=1e-15)
    # Sigma_W = [[1, 1], [1, 1]]; Sigma_B = [[4, 0], [0, 0]], its pseudoinverse [[1/4, 0], [0, 0]]; trace 1/4, over K
    assert found["nc1_pinv"] == pytest.approx(1 / 8, rel=1e-14)
    assert found["nc1_trace_quotient"] == pytest.approx(2 / 4, rel=1e-15)
    assert found["nc1_cdnv"] == pytest.approx((2 + 2) / (2 * 16), rel=1e-15)
    # one sample for each class and group
    assert found["nc1_within_configuration"] == 0
    # |mu_0| = 1, |mu_1| = sqrt 17: mean (1 + sqrt 17) / 2, standard deviation (sqrt 17 - 1) / 2; mu_0 . mu_1 = 1
    assert found["nc2_equinorm_uncentred"] == pytest.approx((sqrt(17) - 1) / (sqrt(17) + 1), rel=1e-14)
    assert found["nc2_cosine"] == pytest.approx(1 / sqrt(17), rel=1e-14)
    # Gram matrix [[1, 1], [1, 17]]: eigenvalues 9 +- sqrt(64 + 1)
    assert found["nc2_singular_ratio"] == pytest.approx(sqrt((9 + sqrt(65)) / (9 - sqrt(65))), rel=1e-12)
    assert [found[f"nc2_weight_{name}"] for name in ("balance", "equinorm", "equiangular")] == [0, 0, 0]
    # the classifier points along the centred means (-2, 0) and (2, 0)
    assert [found[f"nc3_{name}"] for name in ("direction", "cosine", "self_duality")] == [0, 1, 0]
    assert found["nc3_etf_error"] == pytest.approx(0, abs=1e-15)
    # (-1, 0) and mu_0 = (0, 1) are orthogonal; (1, 0) and mu_1 = (4, 1) have the sine 1 / sqrt 17; weights are equal
    assert found["nc3_sine"] == pytest.approx((1 + 1 / sqrt(17)) / 2, rel=1e-14)
    # without the bias the classifier takes (1, 2) for class 1
    assert [found[name] for name in ("nc4_disagreement", "nc4_disagreement_without_bias", "error")] == [0, 0.25, 0]
    # (1, 2) from (0, 1) and from (4, 1)
    assert found["mislabelled_to_label"] == pytest.approx(sqrt(2), rel=1e-15)
    assert found["mislabelled_to_other"] == pytest.approx(sqrt(10), rel=1e-15)
    assert found["mislabelled_ratio"] == pytest.approx(sqrt(1 / 5), rel=1e-15)


def test_groups_and_configurations_by_hand() -> None:
    found = by_hand()
    assert [(group.name, group.n_by_class) for group in found.groups] == [("a", (1, 1)), ("b", (1, 1))]
    for group in found.groups:
        assert group.values["nc1_distance"].value == pytest.approx(sqrt(2), rel=1e-15)
        assert group.values["nc1_distance"].n == 2
    # in either class the two groups are (2, 2) apart, and the class means 4
    for label, configuration in enumerate(found.configurations):
        assert (configuration.label, configuration.groups, configuration.n_by_group) == (label, ("a", "b"), (1, 1))
        assert configuration.distance.value == pytest.approx(2 * sqrt(2) / 4, rel=1e-15)
    assert found.means.means.tolist() == [[0, 1], [4, 1]]
    assert found.means.group_means.tolist() == [[[-1, 0], [3, 0]], [[1, 2], [5, 2]]]


def test_what_two_classes_cannot_tell_has_a_reason() -> None:
    always = "with two classes it is 0 for any features"
    assert reasons(by_hand()) == {
        "nc2_equinorm": always,
        "nc2_equiangular": always,
        "nc2_etf_error": always,
        "nc2_equinorm_weighted": "with two classes it is |n_0 - n_1| / n for any features",
        "mislabelled_to_label": "it is not given which samples are mislabelled",
        "mislabelled_to_other": "it is not given which samples are mislabelled",
        "mislabelled_ratio": "it is not given which samples are mislabelled",
    }


@pytest.mark.parametrize("sizes", [(3, 9), (6, 6), (11, 1)])
def test_the_weighted_mean_tells_two_classes_only_their_sizes(sizes: tuple[int, int]) -> None:
    """Why it is no substitute: mu_0 - mu = -(n_1 / n) (mu_1 - mu_0), mu_1 - mu = (n_0 / n) (mu_1 - mu_0)."""
    random = np.random.default_rng(sum(sizes))
    features, labels = random.normal(size=(12, 5)), np.repeat([0, 1], sizes)
    lengths = [np.linalg.norm(features[labels == k].mean(axis=0) - features.mean(axis=0)) for k in (0, 1)]
    assert np.std(lengths) / np.mean(lengths) == pytest.approx(abs(sizes[0] - sizes[1]) / 12, rel=1e-12, abs=1e-12)


def test_one_logit_is_two_halves() -> None:
    one = neural_collapse(FEATURES, LABELS, weight=[[2.0, 0.0]], bias=[-4.0], groups=GROUPS)
    two = by_hand()
    assert one.one_logit is True
    assert two.one_logit is False
    trivial = {
        "nc2_weight_balance": "of one logit w_0 = -w_1, so that it is 0 for any weights",
        "nc2_weight_equinorm": "of one logit w_0 = -w_1, so that it is 0 for any weights",
        "nc2_weight_equiangular": "of one logit w_0 = -w_1, so that it is 0 for any weights",
        "nc3_etf_error": "of one logit it is 0 or 2, by the sign of nc3_cosine",
    }
    assert reasons(one) == reasons(two) | trivial
    for name, value in numbers(one).items():
        if name not in trivial:
            assert value == pytest.approx(numbers(two)[name], nan_ok=True, rel=1e-15), name


def test_of_one_logit_the_direction_is_a_cosine() -> None:
    # mu_1 - mu_0 = (4, 0) and w = (3, 4): cosine 3/5, and the distance of unit vectors is sqrt(2 - 2 * 3/5)
    found = numbers(neural_collapse(FEATURES, LABELS, weight=[3.0, 4.0]))
    assert found["nc3_cosine"] == pytest.approx(3 / 5, rel=1e-15)
    assert found["nc3_direction"] == pytest.approx(sqrt(4 / 5), rel=1e-14)
    assert found["nc3_self_duality"] == pytest.approx(4 / 5, rel=1e-14)


def simplex(num_classes: int, num_features: int, seed: int = 0) -> FloatArray:
    """K corners with equal lengths and angles around 0, turned at random."""
    turned, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(num_features, num_features)))
    corners: FloatArray = (np.eye(num_classes) - 1 / num_classes) @ turned[:num_classes]
    return corners


# At these ends only for frames of their own: a simplex is centred, so that its mean matrix has rank K - 1.
UNCENTRED = {"nc2_cosine", "nc2_singular_ratio"}


@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_collapsed_features_give_the_stated_limit(num_classes: int) -> None:
    corners = simplex(num_classes, 8)
    labels = np.repeat(np.arange(num_classes), 5)
    groups = ["a", "b", "a", "b", "b"] * num_classes
    marks = np.arange(len(labels)) % 5 == 0
    found = neural_collapse(corners[labels], labels, weight=3 * corners, groups=groups, mislabelled=marks)
    assert set(found.values) == set(COLLAPSE_MEASURES)
    for name, value in found.values.items():
        if not value.reason and name not in UNCENTRED and name != "mislabelled_to_other":
            assert value.value == pytest.approx(COLLAPSE_MEASURES[name].collapsed, abs=1e-14), name
    assert found.values["nc2_cosine"].value == pytest.approx(-1 / (num_classes - 1), rel=1e-12)
    assert found.values["nc2_singular_ratio"].reason == "the class means, uncentred, are linearly dependent"
    assert all(each.distance.value == pytest.approx(0, abs=1e-14) for each in found.configurations)


@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_an_orthogonal_frame_gives_the_uncentred_limits(num_classes: int) -> None:
    """What ReLU features collapse to."""
    labels = np.repeat(np.arange(num_classes), 4)
    found = neural_collapse(np.eye(num_classes + 2)[labels], labels, weight=np.eye(num_classes, num_classes + 2))
    for name in (*UNCENTRED, "nc2_equinorm_uncentred", "nc3_sine"):
        assert found.values[name].value == pytest.approx(COLLAPSE_MEASURES[name].collapsed, abs=1e-14), name


@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_random_features_are_away_from_every_limit(num_classes: int) -> None:
    random = np.random.default_rng(num_classes)
    labels = np.arange(120) % num_classes
    found = neural_collapse(
        random.normal(size=(120, 8)) + 0.5 + labels[:, None] / 4,
        labels,
        weight=random.normal(size=(num_classes, 8)),
        bias=random.normal(size=num_classes),
        groups=["ab"[i % 7 > 3] for i in range(120)],
        mislabelled=np.arange(120) % 9 == 0,
    )
    left_out = {name for name in COLLAPSE_MEASURES if name.startswith("nc2_e") and "uncentred" not in name}
    trivial = left_out if num_classes == 2 else {"mislabelled_to_other", "mislabelled_ratio"}
    assert set(reasons(found)) == trivial
    for name, value in numbers(found).items():
        if name not in trivial and name != "mislabelled_to_other":
            assert abs(value - COLLAPSE_MEASURES[name].collapsed) > 0.05, name


def unit(vector: FloatArray) -> FloatArray:
    return vector / sqrt(float(vector @ vector))


def frame_distance(products: FloatArray) -> float:
    size = len(products)
    wanted = np.array([[(1.0 if i == j else 0.0) - 1 / size for j in range(size)] for i in range(size)])
    return float(np.linalg.norm(products / np.linalg.norm(products) - wanted / sqrt(size - 1)))


def relative_spread(lengths: Sequence[float]) -> float:
    middle = sum(lengths) / len(lengths)
    return sqrt(sum((length - middle) ** 2 for length in lengths) / len(lengths)) / middle


def reference(
    h: FloatArray,
    y: IntArray,
    W: FloatArray,
    b: FloatArray,
    groups: Sequence[str],
    marks: BoolArray,
    from_rows: tuple[FloatArray, IntArray, Sequence[str]] | None = None,
) -> dict[str, float]:
    """The formulas of the specification, sample by sample, with full covariance matrices."""
    K, d, n = len(W), h.shape[1], len(h)
    mh, my, mg = from_rows or (h, y, groups)
    mu = [mh[my == k].mean(axis=0) for k in range(K)]
    own = {(k, a): mh[[i for i in range(len(mh)) if my[i] == k and mg[i] == a]].mean(axis=0)
           for k in range(K) for a in sorted(set(mg) - {""})}  # fmt: skip
    centre = sum(mu) / K
    within = sum(np.outer(h[i] - mu[y[i]], h[i] - mu[y[i]]) for i in range(n)) / n
    between = sum(np.outer(m - centre, m - centre) for m in mu) / K
    lengths, vectors = np.linalg.eigh(between)
    rank = min(K - 1, d)
    inverse = sum(np.outer(vectors[:, -1 - r], vectors[:, -1 - r]) / lengths[-1 - r] for r in range(rank))
    pairs = [(k, j) for k in range(K) for j in range(k)]
    apart = sum(sqrt(float(((mu[k] - mu[j]) ** 2).sum())) for k, j in pairs) / len(pairs)
    distance = [sqrt(float(((h[i] - mu[y[i]]) ** 2).sum())) for i in range(n)]
    variance = [np.mean([distance[i] ** 2 for i in range(n) if y[i] == k]) for k in range(K)]
    around_own = [float(np.linalg.norm(h[i] - own[y[i], groups[i]])) for i in range(n) if groups[i]]
    overall = mh.mean(axis=0)
    scores = [[float(W[k] @ h[i] + b[k]) for k in range(K)] for i in range(n)]
    bare = [[float(W[k] @ h[i]) for k in range(K)] for i in range(n)]
    nearest = [int(np.argmin([np.linalg.norm(h[i] - m) for m in mu])) for i in range(n)]
    chosen = [int(np.argmax(score)) for score in scores]
    M = np.array([m - centre for m in mu])
    uncentred = np.linalg.eigvalsh(np.array([[m @ o for o in mu] for m in mu]))
    found = {
        "nc1_distance": sum(distance) / n,
        "nc1_normalized": sum(distance) / n / apart,
        "nc1_pinv": float(np.trace(within @ inverse)) / K,
        "nc1_trace_quotient": float(np.trace(within) / np.trace(between)),
        "nc1_cdnv": float(
            np.mean([(variance[k] + variance[j]) / (2 * ((mu[k] - mu[j]) ** 2).sum()) for k, j in pairs])
        ),
        "nc1_within_configuration": sum(around_own) / len(around_own),
        "nc1_within_configuration_normalized": sum(around_own) / len(around_own) / apart,
        "nc2_equinorm": relative_spread([float(np.linalg.norm(m)) for m in M]),
        "nc2_equiangular": float(np.mean([abs(unit(M[k]) @ unit(M[j]) + 1 / (K - 1)) for k, j in pairs])),
        "nc2_etf_error": frame_distance(M @ M.T),
        "nc2_equinorm_weighted": relative_spread([float(np.linalg.norm(m - overall)) for m in mu]),
        "nc2_equinorm_uncentred": relative_spread([float(np.linalg.norm(m)) for m in mu]),
        "nc2_cosine": float(np.mean([unit(mu[k]) @ unit(mu[j]) for k, j in pairs])),
        "nc2_singular_ratio": sqrt(uncentred[-1] / uncentred[0]) if d >= K else NAN,
        "nc2_weight_balance": float(np.linalg.norm(sum(W)) / sum(np.linalg.norm(w) for w in W)),
        "nc2_weight_equinorm": relative_spread([float(np.linalg.norm(w)) for w in W]),
        "nc2_weight_equiangular": float(np.mean([abs(unit(W[k]) @ unit(W[j]) + 1 / (K - 1)) for k, j in pairs])),
        "nc3_direction": float(np.mean([np.linalg.norm(unit(M[k]) - unit(W[k])) for k in range(K)])),
        "nc3_cosine": float(np.mean([unit(M[k]) @ unit(W[k]) for k in range(K)])),
        "nc3_etf_error": frame_distance(M @ W.T),
        "nc3_self_duality": float(((W / np.linalg.norm(W) - M / np.linalg.norm(M)) ** 2).sum()),
        "nc3_sine": float(
            np.average(
                [sqrt(1 - (unit(W[k]) @ unit(mu[k])) ** 2) for k in range(K)], weights=[np.linalg.norm(w) for w in W]
            )
        ),
        "nc4_disagreement": np.mean([chosen[i] != nearest[i] for i in range(n)]),
        "nc4_disagreement_without_bias": np.mean([int(np.argmax(bare[i])) != nearest[i] for i in range(n)]),
        "error": np.mean([chosen[i] != y[i] for i in range(n)]),
        "mislabelled_to_label": np.mean([distance[i] for i in range(n) if marks[i]]),
        "mislabelled_to_other": np.mean([np.linalg.norm(h[i] - mu[1 - y[i]]) for i in range(n) if marks[i]]) if K == 2
        else NAN,
    }  # fmt: skip
    return found | {"mislabelled_ratio": found["mislabelled_to_label"] / found["mislabelled_to_other"]}


def cohort(num_classes: int, num_features: int, n: int, seed: int) -> dict[str, Any]:
    """Unequal classes and groups of every class, around means that are apart; some rows have no group."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes).repeat(3), random.integers(0, num_classes, n - 3 * num_classes)])
    groups = np.concatenate(
        [np.tile(["a", "b", "ž"], num_classes), random.choice(["a", "b", "b", "ž", ""], n - 3 * num_classes)]
    )
    centres = random.normal(size=(num_classes, num_features)) * 2
    features = centres[labels] + random.normal(size=(n, num_features)) + 0.4 * (groups == "a")[:, None]
    return {"features": features, "labels": labels, "groups": groups.tolist(), "mislabelled": random.random(n) < 0.2}


def classifier(num_classes: int, num_features: int, seed: int) -> tuple[FloatArray, FloatArray]:
    random = np.random.default_rng(seed + 99)
    return random.normal(size=(num_classes, num_features)), random.normal(size=num_classes)


SHAPES = [(2, 5), (2, 1), (3, 4), (5, 9), (6, 3)]  # the last with fewer features than classes


@pytest.mark.parametrize(("num_classes", "num_features"), SHAPES)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_agreement_with_an_independent_derivation(num_classes: int, num_features: int, elsewhere: bool) -> None:
    data = cohort(num_classes, num_features, 90, 1)
    other = cohort(num_classes, num_features, 70, 2) if elsewhere else data
    weight, bias = classifier(num_classes, num_features, 3)
    means = neural_collapse(other["features"], other["labels"], groups=other["groups"]).means if elsewhere else None
    found = neural_collapse(**data, weight=weight, bias=bias, means=means)
    expected = reference(
        data["features"], data["labels"], weight, bias, data["groups"], data["mislabelled"],
        (other["features"], other["labels"], other["groups"]),
    )  # fmt: skip
    defined = {name: value for name, value in numbers(found).items() if not found.values[name].reason}
    assert len(defined) >= 22
    for name, value in defined.items():
        assert value == pytest.approx(expected[name], rel=1e-10, abs=1e-12), name
    assert found.n == 90
    assert found.n_without_group == data["groups"].count("")
    assert found.means.n == (70 if elsewhere else 90)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_groups_add_up_to_the_whole_with_their_sizes(seed: int) -> None:
    """Eq. 2 of the paper, with the weights that it needs: S = sum_a (n_a / n) S_a."""
    data = cohort(3, 4, 80, seed)
    data["groups"] = ["" if name == "" else name for name in data["groups"]]
    weight, bias = classifier(3, 4, seed)
    whole = neural_collapse(**data, weight=weight, bias=bias)
    known = neural_collapse(**{**data, "groups": [name or "none" for name in data["groups"]]}, weight=weight, bias=bias)
    assert sum(sum(group.n_by_class) for group in known.groups) == 80
    assert sum(sum(group.n_by_class) for group in whole.groups) == 80 - whole.n_without_group
    for name in ("nc1_distance", "nc1_normalized", "nc1_pinv", "nc1_trace_quotient", "nc4_disagreement", "error"):
        parts = sum(sum(group.n_by_class) / 80 * group.values[name].value for group in known.groups)
        assert parts == pytest.approx(whole.values[name].value, rel=1e-12), name
    # each group by itself, around the means of all
    for group in whole.groups:
        rows = np.array(data["groups"]) == group.name
        alone = neural_collapse(data["features"][rows], data["labels"][rows], means=whole.means)
        assert alone.values["nc1_pinv"].value == pytest.approx(group.values["nc1_pinv"].value, rel=1e-12)
        assert alone.n_by_class == group.n_by_class


def test_train_means_and_test_means_differ_in_what_they_say_of_test_features() -> None:
    train, test = cohort(2, 4, 60, 1), cohort(2, 4, 50, 7)
    fitted = neural_collapse(train["features"], train["labels"], groups=train["groups"])
    moved = neural_collapse(test["features"] + 5, test["labels"], groups=test["groups"], means=fitted.means)
    own = neural_collapse(test["features"] + 5, test["labels"], groups=test["groups"])
    assert moved.values["nc1_distance"].value > 2 * own.values["nc1_distance"].value
    assert moved.configurations == fitted.configurations


def test_a_group_that_a_class_lacks_has_a_reason_and_its_samples_their_distance() -> None:
    found = neural_collapse(FEATURES, LABELS, groups=["a", "a", "a", "b"])
    assert [group.n_by_class for group in found.groups] == [(2, 1), (0, 1)]
    assert found.groups[1].values["nc1_distance"].value == pytest.approx(sqrt(2))
    first, second = found.configurations
    assert np.isnan(first.distance.value)
    assert first.distance.reason == "group 'b' has no sample of class 0"
    assert second.distance.value == pytest.approx(2 * sqrt(2) / 4)
    elsewhere = neural_collapse(FEATURES, LABELS, groups=["a", "b", "a", "c"], means=found.means)
    reason = "2 of 4 samples are of a group without a mean in their class"
    assert elsewhere.values["nc1_within_configuration"].reason == reason
    assert elsewhere.groups[0].values["nc1_within_configuration"].reason == ""
    assert elsewhere.groups[2].values["nc1_within_configuration"].reason == reason.replace("2 of 4", "1 of 1")


def test_a_class_without_samples_leaves_only_what_needs_no_other_mean() -> None:
    found = neural_collapse(FEATURES, LABELS, weight=[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], groups=GROUPS)
    left = {name for name, value in found.values.items() if not value.reason}
    assert left == {"nc1_distance", "nc1_within_configuration", "error"} | {
        f"nc2_weight_{name}" for name in ("balance", "equinorm", "equiangular")
    }
    assert found.values["nc2_equinorm"].reason == "the means have no sample of class 2"
    assert found.values["nc1_distance"].value == pytest.approx(sqrt(2))
    assert found.configurations[0].distance.reason == "the means have no sample of class 2"


def test_labels_without_a_mean_elsewhere_have_a_reason() -> None:
    three = neural_collapse([*FEATURES, [9.0, 9.0]], [*LABELS, 2], means=means_of_two_of_three())
    assert three.values["nc1_distance"].reason == "the means have no sample of class 2"
    one = neural_collapse(FEATURES[:2], LABELS[:2], means=by_hand().means)
    assert one.values["nc1_distance"].value == pytest.approx(sqrt(2))
    assert one.values["nc1_cdnv"].reason == "no sample of class 1"


def means_of_two_of_three() -> ClassMeans:
    moments = FeatureMoments(3, 2)
    moments.update(FEATURES, LABELS)
    return moments.means()


@pytest.mark.parametrize("shift", [0.0, 3e5])
def test_means_that_coincide_have_a_reason(shift: float) -> None:
    """Both classes hold the same points; only rounding tells their means apart."""
    random = np.random.default_rng(0)
    points = random.normal(size=(50, 4)) + shift
    features = np.concatenate([points, points[random.permutation(50)]])
    found = neural_collapse(features, np.repeat([0, 1], 50), weight=random.normal(size=(2, 4)))
    same = "the class means coincide"
    assert found.values["nc1_normalized"].reason == same
    assert found.values["nc1_trace_quotient"].reason == same
    assert found.values["nc4_disagreement"].reason == same
    assert found.values["nc1_cdnv"].reason == "the means of classes 0 and 1 coincide"
    assert found.values["nc1_pinv"].reason == "the class means span fewer than 1 direction"
    assert found.values["nc3_cosine"].reason == "the mean of class 0 is the mean of all class means"
    assert found.values["nc1_distance"].value > 1


def test_means_on_a_line_have_no_pseudoinverse() -> None:
    """A pseudoinverse of lower rank would leave out the direction in which the classes are not told apart."""
    features = np.array([[0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [1.0, 0.0], [2.0, 1.0], [2.0, -1.0]])
    found = neural_collapse(features, [0, 0, 1, 1, 2, 2])
    assert found.values["nc1_pinv"].reason == "the class means span fewer than 2 directions"
    assert found.values["nc2_equiangular"].reason == "the mean of class 1 is the mean of all class means"
    # lengths 1, 0, 1: mean 2/3, standard deviation sqrt(2)/3
    assert found.values["nc2_equinorm"].value == pytest.approx(sqrt(2) / 2)


def test_a_classifier_of_zeros_has_reasons() -> None:
    found = neural_collapse(FEATURES, LABELS, weight=np.zeros((2, 2)))
    assert found.values["nc3_direction"].reason == "a row of the classifier is 0"
    assert found.values["nc3_sine"].reason == "a row of the classifier or a class mean is 0"
    assert found.values["nc3_etf_error"].reason == "classifier and class means are orthogonal"
    assert found.values["nc2_weight_balance"].reason == "a row of the classifier is 0"


def test_masks_that_say_nothing_have_reasons() -> None:
    none = by_hand(mislabelled=[False] * 4)
    assert none.values["mislabelled_ratio"].reason == "no sample is mislabelled"
    at_other = neural_collapse([[0.0], [0.0], [0.0], [4.0]], [0, 0, 0, 1], mislabelled=[False] * 3 + [True])
    assert at_other.values["mislabelled_ratio"].value == 0
    there = neural_collapse([[1.0], [3.0], [1.0]], [0, 0, 1], mislabelled=[True, False, False])
    assert there.values["mislabelled_ratio"].reason == "the mislabelled samples lie at the mean of the other class"
    three = neural_collapse(np.eye(3), [0, 1, 2], mislabelled=[True, False, False])
    assert three.values["mislabelled_to_label"].value == 0
    reason = "of more than two classes the mask does not tell the other one"
    assert three.values["mislabelled_ratio"].reason == reason


def test_the_record_is_json_with_every_reason(tmp_path: Path) -> None:
    found = by_hand(mislabelled=[True, False, False, False])
    stored = json.loads(write_json(tmp_path / "nc.json", "collapse", found.record()).read_text())
    assert stored["n"] == 4
    assert stored["n_by_class"] == stored["n_of_means_by_class"] == [2, 2]
    assert (stored["n_without_group"], stored["num_features"], stored["one_logit"]) == (0, 2, False)
    assert stored["values"]["nc1_distance"] == {"value": pytest.approx(sqrt(2)), "n": 4, "reason": None}
    assert stored["values"]["nc2_equinorm"] == {
        "value": None, "n": 4, "reason": "with two classes it is 0 for any features",
    }  # fmt: skip
    assert [group["name"] for group in stored["groups"]] == ["a", "b"]
    assert stored["configurations"][1]["label"] == 1
    assert stored["configurations"][1]["n_by_group"] == [1, 1]


def test_float32_features_are_summed_in_float64() -> None:
    data = cohort(2, 6, 200, 4)
    low = data["features"].astype(np.float32)
    assert numbers(neural_collapse(low, data["labels"])) == pytest.approx(
        numbers(neural_collapse(low.astype(np.float64), data["labels"])), nan_ok=True, rel=0, abs=0
    )


def broken(features: Any = FEATURES, labels: Any = LABELS, **options: Any) -> str:
    with pytest.raises(MonaiFairError) as caught:
        neural_collapse(features, labels, **options)
    return str(caught.value)


def test_bad_input_is_named() -> None:
    infinite = np.array(FEATURES)
    infinite[2, 1], infinite[3, 0] = np.inf, np.nan
    assert broken(infinite) == (
        "neural collapse: features: expected finite numbers, 2 of 4 rows have others, first row 2; "
        "check the training that made them"
    )
    assert broken(np.zeros((0, 3)), []) == (
        "neural collapse: features: expected shape (n, d) with n and d from 1, got (0, 3); give one row each"
    )
    assert broken(labels=[0] * 4) == (
        "neural collapse: expected two classes or more and features, got 1 and 2; "
        "a network of one logit has two classes"
    )
    assert broken(weight=np.ones((2, 3)), bias=[0.0, NAN]) == (
        "neural collapse: 2 problems\n"
        "  1. weight: expected shape (2, 2) by class, got (2, 3); give the layer the features enter\n"
        "  2. weight and bias: expected finite numbers, got NaN or infinite ones; check the training"
    )
    assert broken(weight=np.ones((1, 3))) == (
        "neural collapse: weight: expected shape (2, 2) by class, got (2, 3) of one logit; "
        "give the layer the features enter"
    )
    assert broken([[1.0], [2.0]], [0, 1], means=by_hand().means) == (
        "neural collapse: means: expected shape (2, 1), got (2, 2); give those of the same network"
    )


def test_all_problems_of_a_batch_come_at_once() -> None:
    assert broken(labels=[0, 2, -1, 1], num_classes=2, groups=["a"], mislabelled=[0, 1, 0, 0]) == (
        "neural collapse: 3 problems\n"
        "  1. labels: expected classes 0 to 1, got 2 in row 1; 1 more rows have others; correct them\n"
        "  2. groups: expected 4 names, got 1; give one per row, '' where it is missing\n"
        "  3. mislabelled: expected 4 truth values, got int64 of shape (4,); give a mask"
    )
    assert broken(labels=[0, 1], num_classes=2) == (
        "neural collapse: labels: expected shape (4,), got (2,); give one per row of features"
    )
    moments = FeatureMoments(2, 3)
    with pytest.raises(MonaiFairError) as caught:
        moments.update(FEATURES, LABELS)
    assert str(caught.value) == (
        "neural collapse: features: expected shape (n, 3), got (4, 2); take the last layer's input"
    )


def test_a_head_of_odd_shape_is_named() -> None:
    with pytest.raises(MonaiFairError) as caught:
        linear_head(np.ones((2, 3)), [1.0])
    assert str(caught.value) == "neural collapse: bias: expected shape (2,), got (1,); give the last layer's"
    with pytest.raises(MonaiFairError, match=r"weight: expected shape \(K, d\) or \(1, d\), got \(2, 2, 2\)"):
        linear_head(np.ones((2, 2, 2)))
