"""Every measure of neural collapse from the sums of two passes."""

from collections.abc import Callable
from itertools import combinations

import numpy as np

from monai_fair.metrics import neural_collapse_frames as frames
from monai_fair.metrics.arrays import FloatArray
from monai_fair.metrics.neural_collapse_distances import FeatureDistances
from monai_fair.metrics.neural_collapse_head import LinearHead
from monai_fair.metrics.neural_collapse_means import ClassMeans
from monai_fair.metrics.neural_collapse_reasons import Reasons
from monai_fair.metrics.neural_collapse_results import CollapseValue, Configuration, GroupCollapse, NeuralCollapse

Values = dict[str, CollapseValue]
_TWO_CLASSES = "with two classes it is 0 for any features"
_TWO_WEIGHTED = "with two classes it is |n_0 - n_1| / n for any features"
_ONE_LOGIT = "of one logit w_0 = -w_1, so that it is 0 for any weights"
_SPREAD = ("distance", "squared", "whitened")
_DECISIONS = ("disagree", "disagree_without_bias", "error")
_ONE_LOGIT_SIGN = "of one logit it is 0 or 2, by the sign of nc3_cosine"


def collapse_result(distances: FeatureDistances) -> NeuralCollapse:
    """Return all measures of what two passes have summed.

    Args:
        distances: of the second pass, of all processes.
    """
    means, head = distances.means, distances.head
    reasons = Reasons(distances)
    names = [name for name in distances.groups if name]
    missing = distances.total("n", "") if "" in distances.groups else 0
    return NeuralCollapse(
        n_by_class=tuple(distances.by_class("n").astype(int).tolist()),
        n_without_group=int(missing),
        one_logit=None if head is None else head.one_logit,
        values={
            **_spread(distances, reasons),
            **_cdnv(distances, reasons),
            **_configuration_spread(distances, reasons),
            **_frames(means, reasons),
            **_weights(head, reasons),
            **_duality(means, head, reasons),
            **_decisions(distances, reasons),
            **_mislabelled(distances, reasons),
        },
        groups=tuple(_group(distances, reasons, name) for name in names),
        configurations=_configurations(means, reasons),
        means=means,
    )


def _value(found: float | Callable[[], float], n: int, *reasons: str, undefined: str = "") -> CollapseValue:
    """Return a value, or NaN with the first reason; ``undefined`` is that of a NaN which only computing shows.

    A function is called where there is no reason against it: a decomposition of NaN would raise.
    """
    reason = next(filter(None, reasons), "")
    value = float("nan") if reason else found() if callable(found) else found
    return CollapseValue(value, n, reason or (undefined if np.isnan(value) else ""))


def _over(above: float, below: float) -> float:
    return above / below if below else float("nan")


def _spread(distances: FeatureDistances, reasons: Reasons, group: str | None = None) -> Values:
    """Return NC1 of all samples or of one group's: means over its samples, around the same class means."""
    means = distances.means
    n = int(distances.total("n", group))
    known = reasons.samples(group)
    whole = [known, reasons.empty]
    trace = float((means.centred**2).sum()) / means.num_classes
    distance, squared, whitened = (_over(distances.total(name, group), n) for name in _SPREAD)
    return {
        "nc1_distance": _value(distance, n, known),
        "nc1_normalized": _value(_over(distance, reasons.length), n, *whole, reasons.coincide),
        "nc1_pinv": _value(whitened / means.num_classes, n, *whole, reasons.rank),
        "nc1_trace_quotient": _value(_over(squared, trace), n, *whole, reasons.coincide),
    }


def _cdnv(distances: FeatureDistances, reasons: Reasons) -> Values:
    counts = distances.by_class("n")
    first, second = np.triu_indices(distances.means.num_classes, 1)

    def compute() -> float:
        variance = distances.by_class("squared") / counts
        return float(((variance[first] + variance[second]) / (2 * distances.means.pair_distances**2)).mean())

    n = int(counts.sum())
    return {"nc1_cdnv": _value(compute, n, reasons.samples(), reasons.empty, reasons.pair, reasons.no_sample)}


def _configuration_spread(distances: FeatureDistances, reasons: Reasons, group: str | None = None) -> Values:
    n = int(distances.total("n_own", group))
    known = [reasons.samples(group), reasons.configurations(group)]
    spread = _over(distances.total("own", group), n)
    normalized = _over(spread, reasons.length)
    return {
        "nc1_within_configuration": _value(spread, n, *known),
        "nc1_within_configuration_normalized": _value(normalized, n, *known, reasons.empty, reasons.coincide),
    }


def _frames(means: ClassMeans, reasons: Reasons) -> Values:
    """Return NC2 of the class means."""
    n, centred, uncentred = means.n, means.centred, means.means
    weighted = means.offsets - np.average(means.offsets, axis=0, weights=means.counts if means.n else None)
    known = [reasons.means, reasons.empty]
    two = _TWO_CLASSES if means.num_classes == 2 else ""
    two_weighted = _TWO_WEIGHTED if two else ""
    zero = "a class mean is 0"
    dependent = "the class means, uncentred, are linearly dependent"
    same = reasons.coincide
    return {
        "nc2_equinorm": _value(lambda: frames.equinorm(centred), n, *known, two, same),
        "nc2_equiangular": _value(lambda: frames.equiangularity(centred), n, *known, two, reasons.central),
        "nc2_etf_error": _value(lambda: frames.frame_error(centred, centred), n, *known, two, same),
        "nc2_equinorm_weighted": _value(lambda: frames.equinorm(weighted), n, *known, two_weighted, same),
        "nc2_equinorm_uncentred": _value(lambda: frames.equinorm(uncentred), n, *known, undefined=zero),
        "nc2_cosine": _value(lambda: frames.mean_cosine(uncentred), n, *known, undefined=zero),
        "nc2_singular_ratio": _value(lambda: frames.singular_value_ratio(uncentred), n, *known, undefined=dependent),
    }


def _weights(head: LinearHead | None, reasons: Reasons) -> Values:
    """Return NC2 of the classifier's rows."""
    weight = np.zeros((2, 1)) if head is None else head.weight
    known = [reasons.head, _ONE_LOGIT if head is not None and head.one_logit else ""]
    zero = "a row of the classifier is 0"
    return {
        "nc2_weight_balance": _value(lambda: frames.balance(weight), 0, *known, undefined=zero),
        "nc2_weight_equinorm": _value(lambda: frames.equinorm(weight), 0, *known, undefined=zero),
        "nc2_weight_equiangular": _value(lambda: frames.equiangularity(weight), 0, *known, undefined=zero),
    }


def _duality(means: ClassMeans, head: LinearHead | None, reasons: Reasons) -> Values:
    """Return NC3."""
    n, centred = means.n, means.centred
    weight: FloatArray = np.zeros_like(centred) if head is None else head.weight
    known = [reasons.means, reasons.empty, reasons.head]
    sign = _ONE_LOGIT_SIGN if head is not None and head.one_logit else ""
    zero = "a row of the classifier is 0"
    either = "a row of the classifier or a class mean is 0"
    product = "classifier and class means are orthogonal"
    central = reasons.central
    return {
        "nc3_direction": _value(lambda: frames.direction_distance(centred, weight), n, *known, central, undefined=zero),
        "nc3_cosine": _value(lambda: frames.direction_cosine(centred, weight), n, *known, central, undefined=zero),
        "nc3_etf_error": _value(
            lambda: frames.frame_error(centred, weight), n, *known, sign, reasons.coincide, undefined=product
        ),
        "nc3_self_duality": _value(
            lambda: frames.matrix_distance(weight, centred), n, *known, reasons.coincide, undefined=zero
        ),
        "nc3_sine": _value(lambda: frames.weighted_sine(weight, means.means), n, *known, undefined=either),
    }


def _decisions(distances: FeatureDistances, reasons: Reasons, group: str | None = None) -> Values:
    """Return NC4 and the error."""
    n = int(distances.total("n", group))
    known = [reasons.samples(group), reasons.head]
    apart, without_bias, error = (_over(distances.total(name, group), n) for name in _DECISIONS)
    return {
        "nc4_disagreement": _value(apart, n, *known, reasons.empty, reasons.coincide),
        "nc4_disagreement_without_bias": _value(without_bias, n, *known, reasons.empty, reasons.coincide),
        "error": _value(error, n, *known),
    }


def _mislabelled(distances: FeatureDistances, reasons: Reasons) -> Values:
    n = int(distances.total("n_mislabelled"))
    known = [reasons.samples(), reasons.mislabelled]
    more = "" if distances.means.num_classes == 2 else "of more than two classes the mask does not tell the other one"
    to_label, to_other = (_over(distances.total(name), n) for name in ("to_label", "to_other"))
    near = "the mislabelled samples lie at the mean of the other class"
    both = [*known, reasons.empty, more]
    return {
        "mislabelled_to_label": _value(to_label, n, *known),
        "mislabelled_to_other": _value(to_other, n, *both),
        "mislabelled_ratio": _value(_over(to_label, to_other), n, *both, undefined=near),
    }


def _group(distances: FeatureDistances, reasons: Reasons, name: str) -> GroupCollapse:
    values = {
        **_spread(distances, reasons, name),
        **_configuration_spread(distances, reasons, name),
        **_decisions(distances, reasons, name),
    }
    return GroupCollapse(name, tuple(distances.by_class("n", name).astype(int).tolist()), values)


def _configurations(means: ClassMeans, reasons: Reasons) -> tuple[Configuration, ...]:
    found = []
    for label in range(means.num_classes):
        for first, second in combinations(range(len(means.groups)), 2):
            counts = int(means.group_counts[first, label]), int(means.group_counts[second, label])
            names = means.groups[first], means.groups[second]
            absent = [name for name, count in zip(names, counts, strict=True) if not count]
            reason = f"group '{absent[0]}' has no sample of class {label}" if absent else ""
            apart = float(np.linalg.norm(means.group_offsets[first, label] - means.group_offsets[second, label]))
            known = [reasons.means, reason, reasons.empty, reasons.coincide]
            distance = _value(_over(apart, reasons.length), sum(counts), *known)
            found.append(Configuration(label, names, counts, distance))
    return tuple(found)
