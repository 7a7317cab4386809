"""Measures of neural collapse, each with n and, where it is undefined, the reason."""

from dataclasses import dataclass
from typing import Any

from monai_fair.metrics.neural_collapse_means import ClassMeans


@dataclass(frozen=True)
class CollapseValue:
    """A value with what it rests on.

    Attributes:
        value: NaN where undefined.
        n: samples it is computed from; for NC2 and NC3 those behind the means, for weights alone 0.
        reason: why it is NaN; else empty.
    """

    value: float
    n: int
    reason: str = ""

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"value": self.value, "n": self.n, "reason": self.reason or None}


@dataclass(frozen=True)
class GroupCollapse:
    """Measures of the samples of one group, around the class means of all groups.

    Attributes:
        name: of the group.
        n_by_class: its samples of each class.
        values: by name, of those that are means over samples.
    """

    name: str
    n_by_class: tuple[int, ...]
    values: dict[str, CollapseValue]

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = {name: value.record() for name, value in self.values.items()}
        return {"name": self.name, "n": sum(self.n_by_class), "n_by_class": list(self.n_by_class), "values": values}


@dataclass(frozen=True)
class Configuration:
    """Distance between the means of one class in two groups, ``D_k``.

    Attributes:
        label: the class.
        groups: names of the two.
        n_by_group: samples behind their means.
        distance: ``|mu_{k,a} - mu_{k,b}| / mean_{k<k'} |mu_k - mu_k'|``; 0 where the groups share one mean.
    """

    label: int
    groups: tuple[str, str]
    n_by_group: tuple[int, int]
    distance: CollapseValue

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        where = {"label": self.label, "groups": list(self.groups), "n_by_group": list(self.n_by_group)}
        return where | self.distance.record()


@dataclass(frozen=True)
class NeuralCollapse:
    """What :func:`monai_fair.metrics.neural_collapse` returns.

    Attributes:
        n_by_class: samples of each class.
        n_without_group: samples without a group, in no row of ``groups``.
        one_logit: whether the classifier has a single logit; ``None`` without a classifier.
        values: by name; :data:`monai_fair.metrics.COLLAPSE_MEASURES` says what each is.
        groups: one per group, in the order of the names.
        configurations: one per class and pair of groups.
        means: that distances are taken from.
    """

    n_by_class: tuple[int, ...]
    n_without_group: int
    one_logit: bool | None
    values: dict[str, CollapseValue]
    groups: tuple[GroupCollapse, ...]
    configurations: tuple[Configuration, ...]
    means: ClassMeans

    @property
    def n(self) -> int:
        """Samples."""
        return sum(self.n_by_class)

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON; the means themselves are not among them."""
        return {
            "n": self.n,
            "n_by_class": list(self.n_by_class),
            "n_without_group": self.n_without_group,
            "n_of_means_by_class": self.means.counts.tolist(),
            "num_features": len(self.means.shift),
            "one_logit": self.one_logit,
            "values": {name: value.record() for name, value in self.values.items()},
            "groups": [group.record() for group in self.groups],
            "configurations": [configuration.record() for configuration in self.configurations],
        }
