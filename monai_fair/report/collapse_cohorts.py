"""Who is in the datasets of a study of neural collapse, and how many labels its biased arm changed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from monai_fair.data import read_manifest
from monai_fair.data.artifacts import read_json
from monai_fair.data.predictions import SPLITS
from monai_fair.errors import ArtifactError, raise_problems
from monai_fair.metrics.groups import natural_order
from monai_fair.report.collapse_tables import EARLY, LABELS_RECORD, experiment_name
from monai_fair.report.quantities import Record


def read_cohorts(experiments: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Return Table 1: for each experiment the counts of its manifest and of the labels that were changed.

    Args:
        experiments: of :attr:`monai_fair.engines.CollapseStudies.experiments`.

    Returns:
        ``name``; ``n`` and ``n_positive`` samples; ``splits``, samples of each; ``groups`` in natural order, each with
        ``name`` (empty for a missing value, which is last), ``n``, ``n_positive`` and ``splits``, samples and positives
        of each; ``changed``, for each split whose labels may change, the positives of the group as ``n_eligible`` and
        how many of them were missed in each seed as ``n_changed``.

    Raises:
        ManifestError: if a manifest breaks its contract.
        ArtifactError: with every attribute that a manifest lacks, or if the labels of a run have no record.
    """
    tables = {path: read_manifest(path).table for path in dict.fromkeys(own["manifest"] for own in experiments)}
    problems = [
        f"{own['manifest']}: expected the attribute '{own['attribute']}' and a column 'split', found "
        f"{', '.join(map(str, tables[own['manifest']]))}; correct the manifest"
        for own in experiments
        if not {own["attribute"], "split"} <= {*tables[own["manifest"]]}
    ]
    raise_problems(ArtifactError, "neural collapse study", problems)
    return [{**_counts(tables[own["manifest"]], own), "changed": _changed(own)} for own in experiments]


def _counts(table: pd.DataFrame, experiment: Mapping[str, Any]) -> Record:
    positives = table.assign(positive=table["label"] == 1)
    cells = positives.groupby([experiment["attribute"], "split"])["positive"].agg(["size", "sum"])
    names = sorted(cells.index.unique(0), key=natural_order)
    groups = []
    for name in names:
        own = cells.loc[name].reindex(list(SPLITS), fill_value=0)
        counts = {split: [int(own.loc[split, "size"]), int(own.loc[split, "sum"])] for split in SPLITS}
        groups.append(
            {"name": name, "n": int(own["size"].sum()), "n_positive": int(own["sum"].sum()), "splits": counts}
        )
    return {
        "name": experiment_name(experiment),
        "n": len(table),
        "n_positive": int(positives["positive"].sum()),
        "splits": {split: int((table["split"] == split).sum()) for split in SPLITS},
        "groups": groups,
    }


def _changed(experiment: Mapping[str, Any]) -> dict[str, Record]:
    paths = [Path(folder) / LABELS_RECORD for folder in experiment["runs"]["biased"][EARLY]]
    biases = [read_json(path, "manifest").get("label_bias") for path in paths]
    raise_problems(
        ArtifactError,
        "neural collapse study",
        [
            f"{path}: expected the counts of a label bias, found none; do the run again"
            for path, bias in zip(paths, biases, strict=True)
            if bias is None
        ],
    )
    found: dict[str, Record] = {}
    for bias in filter(None, biases):
        for counts in bias["measured"]:
            if counts["split"] in bias["parts"]:
                own = found.setdefault(counts["split"], {"n_eligible": counts["n_eligible"], "n_changed": []})
                own["n_changed"].append(counts["n_changed"])
    return found
