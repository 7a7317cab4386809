"""Why a measure of neural collapse has no value."""

import numpy as np

from monai_fair.metrics.neural_collapse_distances import FeatureDistances


class Reasons:
    """What stands in the way of measures; each attribute is empty where nothing does.

    Args:
        distances: of the second pass.

    Attributes:
        length: mean distance of the class means.
        means: features behind the means are not finite, or there are none.
        empty: a class has no mean.
        coincide: all class means are one point.
        pair: two class means are one point.
        central: a class mean is the mean of all.
        rank: the class means span fewer directions than they could.
        no_sample: a class has a mean, but none of the samples that are measured.
        head: there is no classifier, or one that is not finite.
        mislabelled: no sample is known to be mislabelled.
    """

    def __init__(self, distances: FeatureDistances) -> None:
        means = distances.means
        self._distances = distances
        self.means = _not_finite(means.n_not_finite, means.n, "behind the means ")
        missing = np.flatnonzero(means.counts == 0).tolist()
        self.empty = f"the means have no sample of class {', '.join(map(str, missing))}" if missing else ""
        self.length = float(means.pair_distances.mean())
        self.coincide = self.pair = self.central = self.rank = ""
        if not missing:
            self._look(distances)
        absent = np.flatnonzero(distances.by_class("n") == 0).tolist()
        self.no_sample = f"no sample of class {', '.join(map(str, absent))}" if absent else ""
        self.head = "" if distances.head is not None else "no classifier is given"
        if distances.head is not None and not distances.head.finite:
            self.head = "the classifier's weights are not finite"
        self.mislabelled = "" if distances.marked else "it is not given which samples are mislabelled"
        if distances.marked and not distances.total("n_mislabelled"):
            self.mislabelled = "no sample is mislabelled"

    def _look(self, distances: FeatureDistances) -> None:
        means = distances.means
        pairs = means.pair_distances
        first, second = np.triu_indices(means.num_classes, 1)
        near = np.flatnonzero(pairs <= means.resolution)
        if near.size:
            self.pair = f"the means of classes {first[near[0]]} and {second[near[0]]} coincide"
        if near.size == pairs.size:
            self.coincide = "the class means coincide"
        middle = np.flatnonzero(np.linalg.norm(means.centred, axis=1) <= means.resolution)
        if middle.size:
            self.central = f"the mean of class {middle[0]} is the mean of all class means"
        if means.whitening() is None:
            most = min(means.num_classes - 1, len(means.shift))
            directions = "direction" if most == 1 else "directions"
            self.rank = f"the class means span fewer than {most} {directions}"

    def samples(self, group: str | None = None) -> str:
        """Return why samples, or those of one group, have no distances."""
        distances = self._distances
        counts = distances.by_class("n", group)
        lost = _not_finite(distances.n_not_finite, int(distances.total("n")), "")
        unknown = np.flatnonzero((counts > 0) & (distances.means.counts == 0)).tolist()
        if lost or self.means:
            return lost or self.means
        if unknown:
            return f"the means have no sample of class {', '.join(map(str, unknown))}"
        return "" if counts.any() else "no sample"

    def configurations(self, group: str | None = None) -> str:
        """Return why samples have no mean of their own group."""
        distances = self._distances
        names = [name for name in distances.groups if name] if group is None else [group]
        with_group = sum(distances.total("n", name) for name in names)
        if not with_group:
            return "no sample has a group"
        left = int(with_group - distances.total("n_own", group))
        return f"{left} of {int(with_group)} samples are of a group without a mean in their class" if left else ""


def _not_finite(lost: int, kept: int, where: str) -> str:
    return f"{lost} of {lost + kept} rows of features {where}are not finite" if lost else ""
