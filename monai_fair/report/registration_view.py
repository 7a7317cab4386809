"""A registration as what its page prints: a plain dict of texts, tables, a figure and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from monai_fair.report.quantities import Record, counted
from monai_fair.report.registration_figures import DOTS, distribution_figure
from monai_fair.report.registration_measures import MEASURE, MEASURES, SUFFIXES
from monai_fair.report.registration_slices import (
    LINES_MM,
    PLANES,
    Limits,
    columns_of,
    common_limits,
    place_of_largest_difference,
    position_words,
)
from monai_fair.report.registration_table import (
    counts_by_split,
    failures,
    registered,
    shown_subjects,
    subject_facts,
    summary,
)
from monai_fair.report.registration_volumes import SubjectVolumes, Template

_HEADLINE = ("endpoint_error_mm", "dice_tissue", "similarity", "folds", "seconds")


@dataclass(frozen=True, eq=False)
class Pictured:
    """A subject whose pictures are shown, or why they are not.

    Attributes:
        subject_id: who.
        rank: ``Best``, ``Median``, ``Worst`` or ``Only``.
        volumes: what was read; None if it could not be.
        problem: why it could not be read.
    """

    subject_id: str
    rank: str
    volumes: SubjectVolumes | None
    problem: str = ""


def registration_view(
    table: pd.DataFrame,
    template: Template,
    pictured: Sequence[Pictured],
    *,
    through: str,
    dice: Sequence[Record] = (),
    codes: str = "",
    settings: Mapping[str, object] | None = None,
) -> Record:
    """Return everything the page prints.

    Args:
        table: of :func:`~monai_fair.report.registration_table.read_registration`.
        template: and its brain.
        pictured: the best, the median and the worst subject.
        through: ``centre`` or ``difference``; where the slices lie.
        dice: tables of :func:`~monai_fair.report.registration_dice.dice_table`.
        codes: what is known of the codes, in a sentence or two.
        settings: of the registration, by name.
    """
    done = registered(table)
    measure, _ = shown_subjects(done)
    volumes = [each.volumes for each in pictured if each.volumes is not None]
    limits = common_limits(volumes, template)
    return {
        "title": f"Registration of {counted(len(table), 'subject')}",
        "facts": _facts(table),
        "splits": counts_by_split(table),
        "failures": failures(table),
        "codes": codes,
        "settings": {name: str(value) for name, value in (settings or {}).items()},
        "grid": _grid_words(template),
        "summaries": _summaries(done),
        "figure": distribution_figure(done, {each.subject_id: each.rank for each in pictured}),
        "dots": DOTS if len(done) > DOTS else None,
        "ranked_by": None if measure is None else measure.name.lower(),
        "through": through,
        "step_mm": f"{LINES_MM:g}",
        "subjects": [_subject(each, done, template, limits, through) for each in pictured],
        "dice": list(dice),
        "measures": [each for each in MEASURES if any(f"{each.key}{suffix}" in table for suffix in SUFFIXES)],
    }


def _facts(table: pd.DataFrame) -> list[tuple[str, str]]:
    done = registered(table)
    said = [(f"{len(done):,}", "registered"), (f"{len(table) - len(done):,}", "failed")]
    for measure in (MEASURE[key] for key in _HEADLINE):
        if measure.key in done and done[measure.key].notna().any():
            said.append((measure.value(float(done[measure.key].median())), f"{measure.name}, median"))
    return said


def _summaries(done: pd.DataFrame) -> list[Record]:
    """Return a table of measures for each split: a fit is no measure of what it has not seen."""
    splits = list(done.groupby("split", sort=False))
    several = len(splits) > 1
    return [{"split": (str(split) or "not said") if several else "", **summary(rows)} for split, rows in splits]


def _grid_words(template: Template) -> str:
    shape = " × ".join(map(str, template.grid.shape))
    return f"{shape} voxels of {' × '.join(f'{side:.3g}' for side in template.grid.spacing_mm)} mm"


def _subject(each: Pictured, done: pd.DataFrame, template: Template, limits: Limits, through: str) -> Record:
    view: Record = {
        "id": each.subject_id,
        "rank": each.rank,
        "facts": subject_facts(done, each.subject_id),
        "problem": each.problem,
        "columns": [],
        "planes": "",
    }
    if each.volumes is None:
        return view
    place = template.centre if through == "centre" else place_of_largest_difference(each.volumes, template)
    positions = zip(PLANES, position_words(place, template.grid), strict=True)
    view["planes"] = ", ".join(f"{name} plane at {words}" for (name, *_), words in positions)
    view["columns"] = columns_of(each.volumes, template, place, limits)
    return view
