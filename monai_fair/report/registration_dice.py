"""Overlap of labels after a registration: the template's labels, moved by the field, and the subject's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.data.manifest import resolve_inside
from monai_fair.data.volumes import read_labels
from monai_fair.errors import GeometryError
from monai_fair.geometry import Grid
from monai_fair.metrics.registration import dice_by_label
from monai_fair.parallel import run_all
from monai_fair.report.cells import Cell, cell_of
from monai_fair.report.quantities import Record
from monai_fair.report.registration_volumes import load_places, moved, on_grid, subject_files

Labels = npt.NDArray[np.integer]
_FIELDS = ("before", "after")


@dataclass(frozen=True)
class LabelMap:
    """Labels that the template and the subjects have, such as tissues or regions.

    Attributes:
        name: what the page calls them, such as ``Tissues``.
        template: label map on the template's grid; 0 is the background.
        subjects: path of a subject's own label map under the data root, ``{subject_id}`` standing for its name:
            ``derivatives/truth/{subject_id}/{subject_id}_dseg.nii.gz``.
        names: of labels; one without a name is shown by its number.
    """

    name: str
    template: str | Path
    subjects: str
    names: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Comparison:
    """One subject's labels against the template's: a call that runs in a process of its own."""

    out: Path
    dataset_dir: Path
    pattern: str
    template: Labels
    values: Sequence[int]
    grid: Grid

    def __call__(self, subject_id: str) -> pd.DataFrame:
        path = resolve_inside(self.dataset_dir, self.pattern.replace("{subject_id}", subject_id))
        own = on_grid(read_labels(path), self.grid)
        places = load_places(subject_files(self.out, subject_id)["field"], self.grid)
        found = [dice_by_label(labels, own, self.values) for labels in (self.template, moved(self.template, places))]
        return pd.DataFrame(dict(zip(_FIELDS, found, strict=True)))


def dice_table(
    labels: LabelMap,
    subjects: Sequence[str],
    *,
    out: str | Path,
    dataset_dir: str | Path,
    grid: Grid,
    workers: int | None = None,
) -> Record:
    """Return the Dice coefficient of every label over subjects, before and after registration.

    Args:
        labels: whose.
        subjects: ``subject_id`` of those that were registered.
        out: folder of the registration.
        dataset_dir: data root that the subjects' label maps lie under.
        grid: of the template, turned to right, anterior, superior.
        workers: processes; ``None`` takes one per core.

    Returns:
        ``name``, ``rows`` (a label each: name, n, cells before and after) and ``left_out``: sentences about subjects
        whose labels cannot be compared.

    Raises:
        GeometryError: if the template's label map cannot be read, lies on another grid, or has no label.
    """
    template = on_grid(read_labels(labels.template), grid)
    if not template.any():
        raise GeometryError(f"{labels.template}: expected labels, got 0 in every voxel; give another file")
    numbers = [int(value) for value in np.unique(template) if value]
    compare = _Comparison(Path(out), Path(dataset_dir), labels.subjects, template, numbers, grid)
    outcomes = run_all(compare, subjects, workers=workers, description=f"Dice: {labels.name}", unit="subject")
    found = {outcome.item: outcome.value for outcome in outcomes if outcome.value is not None}
    rows = []
    for number in numbers if found else ():
        own = pd.DataFrame({who: table.loc[number] for who, table in found.items()}).T
        rows.append(
            {
                "name": labels.names.get(number, f"label {number}"),
                "n": f"{int(own['after'].notna().sum()):,}",
                "cells": [_cell(own[name]) for name in _FIELDS],
            }
        )
    left_out = [f"{outcome.item}: {outcome.error}" for outcome in outcomes if outcome.error]
    return {"name": labels.name, "rows": rows, "left_out": left_out}


def _cell(values: pd.Series) -> Cell:
    defined = values.dropna()
    if not len(defined):
        return cell_of("undefined", words=["no subject has it"], quiet=True)
    low, middle, high = np.quantile(defined, [0.25, 0.5, 0.75])
    worst = f"worst {defined.min():.3f}: {defined.idxmin()}"
    return cell_of(f"{middle:.3f}", lines=[f"{low:.3f} to {high:.3f}"], words=[worst])
