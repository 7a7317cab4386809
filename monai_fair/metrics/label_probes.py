"""What features tell of an attribute beyond the label: probes within each class, and the probe of the label alone."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monai_fair.errors import MonaiFairError
from monai_fair.metrics.probes import Probe, attribute_probe


def within_label_probe(
    features: npt.ArrayLike,
    attribute: Sequence[str],
    label: npt.ArrayLike,
    split: Sequence[str],
    *,
    fit_on: str = "val",
    judge_on: str = "test",
    seed: int = 0,
) -> Probe:
    """Return how well a linear model reads an attribute off features among cases of one label.

    Where the label is more common in one group than in another, features that tell the label tell something of the
    attribute as well. A probe is therefore fitted and judged in each class on its own; the AUC is the mean over
    classes.

    Args:
        features: shape ``(n, d)``.
        attribute: its levels as text; empty where it is missing, shape ``(n,)``.
        label: class of each row, shape ``(n,)``.
        split: part of each row, shape ``(n,)``.
        fit_on: see :func:`~monai_fair.metrics.attribute_probe`, as the following.
        judge_on: the part that the probes are judged on.
        seed: of the folds.

    Returns:
        The mean AUC, and the rows of all classes together. NaN where one of the classes has none, with the reason of
        each of these.

    Raises:
        MonaiFairError: if the lengths differ, or features are not finite.
    """
    x, level, part, y = np.asarray(features), np.asarray(attribute, dtype=str), np.asarray(split), np.asarray(label)
    if not len(x) == len(level) == len(part) == len(y):
        raise MonaiFairError(
            "within_label_probe: expected an attribute, a label and a split for each row of features, got "
            f"{len(x)}, {len(level)}, {len(y)} and {len(part)}"
        )
    found = {
        int(own): attribute_probe(
            x[y == own], level[y == own].tolist(), part[y == own].tolist(), fit_on=fit_on, judge_on=judge_on, seed=seed
        )
        for own in np.unique(y)
    }
    reasons = [f"class {own}: {probe.reason}" for own, probe in found.items() if probe.reason]
    return Probe(
        float(np.mean([probe.auc for probe in found.values()])) if found else float("nan"),
        sum(probe.n_fitted for probe in found.values()),
        sum(probe.n for probe in found.values()),
        "; ".join(reasons) if found else "there are no rows",
    )


def label_alone_probe(
    attribute: Sequence[str],
    label: npt.ArrayLike,
    split: Sequence[str],
    *,
    fit_on: str = "val",
    judge_on: str = "test",
    seed: int = 0,
) -> Probe:
    """Return how well an attribute can be read off the label itself: the probe of one column per class.

    Args:
        attribute: see :func:`within_label_probe`, as the following.
        label: class of each row, shape ``(n,)``.
        split: part of each row, shape ``(n,)``.
        fit_on: the part that the probe is fitted on.
        judge_on: the part that it is judged on.
        seed: of the folds.

    Returns:
        The probe.

    Raises:
        MonaiFairError: if the lengths differ.
    """
    y = np.asarray(label)
    one_hot = (y[:, None] == np.unique(y)[None, :]).astype(np.float64)
    return attribute_probe(one_hot, attribute, split, fit_on=fit_on, judge_on=judge_on, seed=seed)
