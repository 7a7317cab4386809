"""Everything that the page of a study of neural collapse and label bias shows, as one dict."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from monai_fair.metrics.collapse_comparisons import (
    ARMS,
    compare_families,
    epoch_curves,
    falls,
    undefined_curves,
    window_values,
)
from monai_fair.metrics.groups import natural_order
from monai_fair.metrics.seed_summaries import seed_means, split_agreements, split_changes, split_points
from monai_fair.report.collapse_cohorts import read_cohorts
from monai_fair.report.collapse_planes import read_planes
from monai_fair.report.collapse_tables import CHECKPOINTS, StudyTables, experiment_name, read_study
from monai_fair.report.quantities import Record
from monai_fair.simulation.collapse_toy import CollapseToy, simulate_collapse_toy

_CURVE = ["experiment", "arm", "part", "group", "measure"]
_CONFIGURATION = ["experiment", "arm", "checkpoint", "part", "label", "first", "second"]
_FALL = ["experiment", "arm", "measure"]


def collapse_results(
    experiments: Sequence[Mapping[str, Any]], *, confidence: float = 0.95, threshold: float = 0.5
) -> Record:
    """Return the statistics of a study of neural collapse and label bias.

    Args:
        experiments: of :attr:`monai_fair.engines.CollapseStudies.experiments`: clean and biased runs of each dataset
            and attribute, at the checkpoints ``early`` and ``final``, and models that were trained to tell the group.
        confidence: of all intervals; they know seeds and not cases.
        threshold: of F1; ``score >= threshold`` is predicted positive.

    Returns:
        Plain values for JSON: ``settings``, ``experiments``, ``cohorts`` (Table 1), ``curves`` over epochs and what is
        ``undefined`` in all of them, ``falls`` of NC1, ``comparisons`` of the arms with Holm's adjustment over all rows
        of a checkpoint, those of the early ``window``, ``split`` (SPLIT test, its agreement with separability, its
        change from early to final), ``configurations``, ``mislabelled``, ``planes`` and ``toy`` (Fig. 1). What is
        undefined is NaN with a ``reason`` beside it.

    Raises:
        ArtifactError: with every run and file that is not there, or with what files lack.
        PredictionsError: if runs of an experiment do not have the same test cases.
    """
    tables = read_study(experiments, threshold=threshold)
    points = split_points(tables.split, tables.separability)
    window = window_values(tables.epochs, tables.trainings)
    compared = pd.concat([tables.f1, _nc1(tables.measures)], ignore_index=True)
    until = window.drop_duplicates("experiment").set_index("experiment")["until"]
    return {
        "settings": {"confidence": confidence, "threshold": threshold, "alternative": "two-sided"},
        "experiments": [_experiment(own, tables) for own in experiments],
        "cohorts": read_cohorts(experiments),
        "curves": _curves(epoch_curves(tables.epochs)),
        "undefined": _records(undefined_curves(tables.epochs)),
        "falls": _falls(falls(tables.epochs)),
        "comparisons": _records(compare_families(compared, confidence=confidence)),
        "window": _records(compare_families(window, confidence=confidence).join(until, on="experiment")),
        "split": {
            "points": _records(points),
            "agreement": _records(split_agreements(points)),
            "changes": _records(split_changes(tables.split, confidence=confidence)),
        },
        "configurations": _configurations(tables.configurations),
        "mislabelled": _mislabelled(tables.measures),
        "planes": [plane for own in experiments for plane in read_planes(own)],
        "toy": _toy(simulate_collapse_toy()),
    }


def _records(table: pd.DataFrame) -> list[Record]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _experiment(experiment: Mapping[str, Any], tables: StudyTables) -> Record:
    name = experiment_name(experiment)
    own = tables.trainings[tables.trainings["experiment"] == name]
    groups = set(tables.f1.loc[tables.f1["experiment"] == name, "group"])
    epochs = {
        key: {arm: own.loc[own["arm"] == arm, column].tolist() for arm in ARMS}
        for key, column in (("early_epochs", "early"), ("last_epoch", "last"))
    }
    return {
        "name": name,
        "dataset": experiment["dataset"],
        "attribute": experiment["attribute"],
        "group": str(experiment["group"]),
        "n_seeds": len(experiment["seeds"]),
        "groups": sorted(groups, key=natural_order),
        **epochs,
    }


def _nc1(measures: pd.DataFrame) -> pd.DataFrame:
    return measures[measures["measure"].str.startswith("nc1_")]


def _curves(curves: pd.DataFrame) -> list[Record]:
    """Return a record per curve with a value; where the mean of an epoch is NaN, ``n`` is 0 there."""
    lists = ["epochs", "mean", "sd", "n"]
    return [
        {**dict(zip(_CURVE, key, strict=True)), **{name: own[name].tolist() for name in lists}}
        for key, own in curves.rename(columns={"epoch": "epochs"}).groupby(_CURVE, sort=False)
        if own["n"].any()
    ]


def _falls(table: pd.DataFrame) -> list[Record]:
    lists = ["max", "last", "ratio", "reason"]
    return [
        {**dict(zip(_FALL, key, strict=True)), "part": "train", **{name: own[name].tolist() for name in lists}}
        for key, own in table.groupby(_FALL, sort=False)
    ]


def _configurations(values: pd.DataFrame) -> list[Record]:
    found = seed_means(values, _CONFIGURATION)
    found.insert(5, "groups", list(map(list, zip(found["first"], found["second"], strict=True))))
    return _records(found.drop(columns=["first", "second"]))


def _mislabelled(measures: pd.DataFrame) -> list[Record]:
    """Return how far the mislabelled train samples of the biased arm are from both class means."""
    biased = measures[(measures["arm"] == "biased") & measures["measure"].str.startswith("mislabelled_")]
    rows = []
    for (experiment, checkpoint), own in biased.groupby(["experiment", "checkpoint"], sort=False):
        means = seed_means(own, ["measure"]).set_index("measure")
        short = {str(name).removeprefix("mislabelled_"): row for name, row in means.to_dict("index").items()}
        samples = own.loc[own["measure"] == "mislabelled_to_label", "n"]
        rows.append({
            "experiment": experiment,
            "checkpoint": checkpoint,
            **{f"{name}_mean": row["mean"] for name, row in short.items()},
            "ratio_sd": short["ratio"]["sd"],
            "n_seeds": short["ratio"]["n"],
            "n_samples": samples.tolist(),
            "reason": "; ".join(dict.fromkeys(row["reason"] for row in short.values() if row["reason"])),
        })  # fmt: skip
    return rows


def _toy(toy: CollapseToy) -> Record:
    labels = {
        "label": toy.label.tolist(),
        "clean_label": toy.clean_label.tolist(),
        "in_group": toy.in_group.tolist(),
    }
    moments = {
        name: {
            "epoch": moment.epoch,
            "points": moment.points.tolist(),
            **labels,
            "means": moment.means.tolist(),
            "error": moment.error,
        }
        for name, moment in zip(CHECKPOINTS, (toy.early, toy.final), strict=True)
    }
    return {**moments, "n": len(toy.label), "settings": toy.settings}
