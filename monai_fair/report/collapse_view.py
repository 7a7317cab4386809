"""A study of neural collapse as what its page prints: sentences, figures and tables from one dict of results."""

import math
from collections.abc import Mapping, Sequence

from monai_fair.report.collapse_curve_figure import Column, Key, curve_figure, curve_index
from monai_fair.report.collapse_difference_figure import difference_figure, drawn_rows
from monai_fair.report.collapse_plane_figure import Panel, panel_of, plane_figure
from monai_fair.report.collapse_rows import (
    cohort_bodies,
    configuration_bodies,
    configuration_heads,
    fall_bodies,
    last_epoch_rows,
    mislabelled_bodies,
    undefined_lines,
)
from monai_fair.report.collapse_sentences import power_sentences, short_findings
from monai_fair.report.collapse_split_figure import split_figure
from monai_fair.report.collapse_test_rows import agreement_rows, comparison_bodies, split_bodies
from monai_fair.report.collapse_words import ARMS, CHECKPOINTS, FEW, LEVEL, chosen, extent, is_few, small
from monai_fair.report.quantities import Record, as_float, joined, level_text

_NC1 = [Column("train", name, log=True) for name in ("nc1_distance", "nc1_normalized", "nc1_pinv")]
_BY_GROUP = [Column(part, "nc1_normalized", log=True) for part in ("train", "test_to_train")]
# Of NC2 and NC3 those that two classes do not fix by themselves; all others stand in a table.
_OTHERS = [
    Column("train", name)
    for name in ("nc2_singular_ratio", "nc2_weight_balance", "nc3_direction", "nc4_disagreement", "error")
]


def collapse_view(results: Record, *, links: Mapping[str, str]) -> Record:
    """Return everything the template prints.

    Args:
        results: of :func:`~monai_fair.report.collapse_results.collapse_results`; its numbers may be ``None`` for NaN.
        links: experiment to the address of a page about it, where it has one.

    Returns:
        Texts, tables and figures.
    """
    experiments, comparisons = results["experiments"], results["comparisons"]
    settings, index = results["settings"], curve_index(results["curves"])
    return {
        "facts": _facts(results),
        "experiments": [{"name": own["name"], "link": links.get(own["name"], "")} for own in experiments],
        "level": level_text(settings["confidence"]),
        "threshold": f"{settings['threshold']:g}",
        "alternative": settings["alternative"],
        "p_level": f"{LEVEL:g}",
        "power": power_sentences(results),
        "findings": short_findings(results),
        "groups": _groups(experiments),
        "cohorts": cohort_bodies(results),
        "toy": _toy(results["toy"]),
        "planes": _planes(results["planes"], experiments),
        **_curves(index, experiments),
        "early": _early_rows(experiments),
        "falls": fall_bodies(results),
        "last": last_epoch_rows(index, experiments, part="train"),
        "undefined": undefined_lines(results["undefined"]),
        "split": split_figure(results["split"]["points"], [own["name"] for own in experiments]),
        "agreement": agreement_rows(results),
        "split_bodies": split_bodies(results),
        **_differences(comparisons, experiments),
        "window": comparison_bodies(results["window"], experiments),
        "mislabelled": mislabelled_bodies(results),
        "configurations": configuration_bodies(results),
        "configuration_heads": configuration_heads(),
        "n_configurations": len(results["configurations"]),
    }


def _curves(index: Mapping[Key, Record], experiments: Sequence[Record]) -> Record:
    return {
        "nc1": curve_figure(index, experiments, _NC1, name="Fig. 2", groups=False),
        "by_group": curve_figure(index, experiments, _BY_GROUP, name="NC1 by group", groups=True),
        "others": curve_figure(index, experiments, _OTHERS, name="NC2, NC3 and NC4", groups=False),
    }


def _differences(comparisons: Sequence[Record], experiments: Sequence[Record]) -> Record:
    """Return Fig. 4, the comparisons in it, all others, and whether groups in it have few cases."""
    drawn = drawn_rows(comparisons)
    return {
        "differences": difference_figure(comparisons, experiments),
        "drawn_bodies": comparison_bodies(drawn, experiments),
        "other_comparisons": comparison_bodies([row for row in comparisons if row not in drawn], experiments),
        "n_others": len(comparisons) - len(drawn),
        "few": FEW if any(row["measure"] == "f1" and is_few(row) for row in drawn) else 0,
    }


def _facts(results: Record) -> list[tuple[str, str]]:
    experiments = results["experiments"]
    tested = [as_float(row["p_smallest"]) for row in results["comparisons"]]
    known = [p for p in tested if not math.isnan(p)]
    last = [epoch for own in experiments for arm in ARMS for epoch in own["last_epoch"][arm]]
    return [
        (str(len(experiments)), "experiments" if len(experiments) > 1 else "experiment"),
        (extent([own["n_seeds"] for own in experiments]), "seeds of each arm"),
        (extent(last), "the last epoch"),
        (small(min(known)) if known else "undefined", "smallest p that so many seeds can have"),
    ]


def _groups(experiments: Sequence[Record]) -> str:
    return joined([f"{own['group']} ({own['name']})" for own in experiments])


def _early_rows(experiments: Sequence[Record]) -> list[Record]:
    """Return for each experiment and arm which epoch early stopping kept, and the last one."""
    return [
        {
            "experiment": own["name"],
            "arm": arm,
            "median": f"{_median(own['early_epochs'][arm]):g}",
            "early": extent(own["early_epochs"][arm]),
            "last": extent(own["last_epoch"][arm]),
            "n": len(own["early_epochs"][arm]),
        }
        for own in experiments
        for arm in ARMS
    ]


def _median(values: Sequence[float | None]) -> float:
    known = sorted(as_float(value) for value in values)
    if not known or any(map(math.isnan, known)):
        return float("nan")
    middle = len(known) // 2
    return known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2


def _toy(toy: Record) -> Record:
    panels = []
    for name in CHECKPOINTS:
        error = f"{100 * as_float(toy[name]['error']):.1f}\u00a0%"
        panels.append(panel_of(toy[name], f"{name}: epoch {toy[name]['epoch']}, train error {error}"))
    return {
        "svg": plane_figure([("", panels[0], panels[1])], group="G1", salt="Fig. 1, the toy"),
        "near": _near(panels[0], panels[1]),
        "settings": toy["settings"],
    }


def _near(early: Panel, final: Panel) -> str:
    """Say how many points with a changed label lie on the side of their true class."""
    first, later = (f"{panel.near_true} of {int(panel.changed.sum())}" for panel in (early, final))
    return f"{first} early, {later} at the end"


def _planes(planes: Sequence[Record], experiments: Sequence[Record]) -> Record:
    pairs, near = [], []
    for own in experiments:
        by_checkpoint = {plane["checkpoint"]: plane for plane in chosen(planes, experiment=own["name"])}
        if set(by_checkpoint) != set(CHECKPOINTS):
            continue
        early, final = (panel_of(by_checkpoint[name], _title(by_checkpoint[name])) for name in CHECKPOINTS)
        pairs.append((own["name"], early, final))
        near.append(f"{own['name']}: {_near(early, final)}")
    svg = plane_figure(pairs, group="G1", salt="Features of train in the biased arm, first seed") if pairs else None
    return {"svg": svg, "near": near}


def _title(plane: Record) -> str:
    drawn, n = len(plane["points"]), int(plane["n"])
    return f"{plane['checkpoint']}, n {n:,}" if drawn == n else f"{plane['checkpoint']}, {drawn:,} of {n:,}"
