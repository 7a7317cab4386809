"""F1 of every group in every arm and seed of a study, from tables of predictions of the same test cases."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from monai_fair.data.predictions import Predictions
from monai_fair.errors import PredictionsError
from monai_fair.metrics.by_group import group_values
from monai_fair.metrics.cases import gather_cases
from monai_fair.metrics.definitions import METRICS
from monai_fair.metrics.groups import Missing, group_by


def f1_by_seed(
    arms: Mapping[str, Sequence[Predictions]],
    attribute: str,
    *,
    threshold: float = 0.5,
    split: str = "test",
    missing: Missing = "drop",
) -> pd.DataFrame:
    """Return F1 of every group for every seed of every arm.

    All arms and seeds have to score the same cases with the same labels. A model that was trained on biased labels is
    therefore measured on the clean labels of test, as any other.

    Args:
        arms: tables of predictions of each arm, one per seed, of two classes (``score``, or ``score_0`` and
            ``score_1``).
        attribute: whose values are the groups.
        threshold: ``score >= threshold`` is predicted positive.
        split: the part that is measured.
        missing: rows without the attribute: ``drop`` (counted) or ``group``, a group of their own.

    Returns:
        One row per arm, seed and group, ready for :func:`compare_arms`: ``measure`` (``f1``), ``attribute``, ``group``,
        ``arm``, ``seed``, ``value`` in [0, 1], ``n`` and ``n_positive`` cases of the group, ``n_missing`` cases without
        the attribute, and ``reason``, why the value is NaN.

    Raises:
        PredictionsError: with every problem, such as other cases or labels in one of the tables.
    """
    cases = gather_cases(arms, [attribute], split=split)
    if len(cases.score_columns) > 2:
        raise PredictionsError(f"f1_by_seed: expected two classes, got {len(cases.score_columns)} score columns")
    grouping = group_by(cases.table, [attribute], missing=missing)
    y = (cases.table["label"] == 1).to_numpy(dtype=np.bool_)
    size = len(grouping.names)
    counts = [np.bincount(grouping.codes[(grouping.codes >= 0) & chosen], minlength=size) for chosen in (y | ~y, y)]
    rows = []
    for run in cases.runs:
        for seed, scores in zip(run.seeds, run.scores, strict=True):
            values = group_values("f1", y, scores[:, -1], grouping.codes, size, threshold=threshold)
            for group, value in enumerate(values):
                rows.append(
                    {
                        "measure": "f1",
                        "attribute": attribute,
                        "group": grouping.names[group],
                        "arm": run.name,
                        "seed": seed,
                        "value": float(value),
                        "n": int(counts[0][group]),
                        "n_positive": int(counts[1][group]),
                        "n_missing": grouping.num_missing,
                        "reason": f"{METRICS['f1'].undefined} in this group" if np.isnan(value) else "",
                    }
                )
    return pd.DataFrame(rows)
