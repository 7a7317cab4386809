"""The images of a server as a table: who has labels, what is known of the patients, and what a model made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from monai_fair.errors import LabelError, raise_problems
from monai_fair.label.image_groups import (
    SUBGROUP,
    BoolArray,
    FloatArray,
    Groups,
    ImageFacts,
    TrainingRows,
    found_groups,
    recorded_groups,
    rows_of,
    way_problems,
)
from monai_fair.label.sidecar import NONE, ImageScores
from monai_fair.metrics import Thresholds

_FIXED = 0.5


@dataclass(frozen=True, eq=False)
class ImageTable:
    """What is known of the images of a server; a row each, in any order.

    Attributes:
        ids: each once.
        labelled: shape ``(n,)``.
        served_at: when somebody was last given the image, in seconds; 0 for never, shape ``(n,)``.
        groups: ways to divide the images.
        scores: of class 1, shape ``(n,)``, or of every class, shape ``(n, C)``; NaN where there is none.
        thresholds: of the group of each image, shape ``(n,)``.
        threshold_sources: whose threshold it is, a text each.
        failed: which images a scoring found no score of, shape ``(n,)``; ``None`` for none.
    """

    ids: tuple[str, ...]
    labelled: BoolArray
    served_at: FloatArray
    groups: tuple[Groups, ...] = ()
    scores: FloatArray | None = None
    thresholds: FloatArray | None = None
    threshold_sources: tuple[str, ...] = ()
    failed: BoolArray | None = None


def build_table(
    images: Sequence[ImageFacts],
    by: Sequence[str],
    *,
    scores: ImageScores = NONE,
    subgroups: ImageScores = NONE,
    thresholds: Thresholds | None = None,
    training: TrainingRows | None = None,
    missing: str = "last",
    cuts: Mapping[str, Sequence[str]] | None = None,
) -> ImageTable:
    """Return the table that rules choose from.

    Args:
        images: each once, in any order.
        by: ways to divide them: an attribute, several as ``sex+age_group``, one of numbers with cuts as ``age:40/60``,
            or ``subgroup`` for discovered ones.
        scores: of the model; rows of other images do not matter.
        subgroups: with probabilities of discovered subgroups.
        thresholds: of groups; without them 0.5 for all.
        training: what the model was trained on.
        missing: ``last`` leaves images without a value to the end; ``group`` makes them a group.
        cuts: attribute with a rule, such as ``age:quartiles``, to the names of its groups.

    Raises:
        LabelError: with every way to divide images that there is none of.
    """
    known = training or TrainingRows()
    rules = cuts or {}
    attributes = [image.attributes for image in images]
    problems = [f"missing: expected last or group, got '{missing}'"] if missing not in ("last", "group") else []
    problems += way_problems(by, [*attributes, *known.attributes], rules, subgroups)
    raise_problems(LabelError, "strategy", problems)
    groups = [
        found_groups(images, subgroups, known)
        if way == SUBGROUP
        else recorded_groups(way, attributes, known.attributes, rules, own_group=missing == "group")
        for way in by
    ]
    values = rows_of(images, scores, scores.scores)
    failed = {name for name, reason in zip(scores.image_ids, scores.reasons, strict=True) if reason}
    limits, sources = _limits(attributes, thresholds)
    return ImageTable(
        tuple(image.image_id for image in images),
        np.array([image.labelled for image in images], dtype=bool),
        np.array([image.served_at for image in images], dtype=np.float64),
        tuple(groups),
        values,
        limits,
        sources,
        np.array([image.image_id in failed for image in images], dtype=bool),
    )


def _limits(
    attributes: Sequence[Mapping[str, str]], thresholds: Thresholds | None
) -> tuple[FloatArray, tuple[str, ...]]:
    """Return the threshold of each image, and whose it is; 0.5 where there is none."""
    n = len(attributes)
    if thresholds is None:
        return np.full(n, _FIXED), ("no thresholds are stored",) * n
    table = pd.DataFrame(
        {name: [row.get(name, "") for row in attributes] for name in thresholds.attributes},
        index=range(n),
        dtype=object,
    )
    found = thresholds.for_groups(table) if n else np.zeros(0)
    names = {group.levels: group.name for group in thresholds.groups}
    sources = []
    for row, value in zip(attributes, found, strict=True):
        levels = tuple(row.get(name, "") for name in thresholds.attributes)
        pooled = "pooled" if thresholds.attributes else "of everybody"
        source = f"group {names[levels]}" if levels in names else pooled
        sources.append("no threshold is defined" if np.isnan(value) else source)
    return np.where(np.isnan(found), _FIXED, found), tuple(sources)
