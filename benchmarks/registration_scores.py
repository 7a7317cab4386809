"""What a registration got right: a simulated cohort with its truth, and the quality of a field against it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from monai_fair.data import read_displacement, read_labels, read_volume
from monai_fair.data.artifacts import read_json
from monai_fair.errors import GeometryError
from monai_fair.metrics import registration_quality

LABELS = {"tissue": "dseg", "roi": "desc-roi_dseg"}


@dataclass(frozen=True)
class Cohort:
    """A folder of ``python -m monai_fair simulate brain``."""

    folder: Path
    record: dict[str, Any]
    table: pd.DataFrame

    @classmethod
    def read(cls, folder: Path) -> "Cohort":
        """Read the manifest and the record of the simulation."""
        table = pd.read_csv(folder / "manifest.csv", dtype=str)
        return cls(folder, read_json(folder / "simulation.json", "simulated_brain"), table)

    @property
    def template(self) -> Path:
        """The image that is moved."""
        return self.template_file("T1w")

    def template_file(self, kind: str) -> Path:
        """The template, or a label map of it."""
        return self.folder / f"derivatives/truth/template_{kind}.nii.gz"

    def subjects(self, split: str) -> list[str]:
        """Names of the subjects of a split, in the order of the manifest."""
        return self.table.loc[self.table["split"] == split, "subject_id"].tolist()

    def image(self, subject: str) -> Path:
        """The subject's scan, on the template's grid."""
        return self.folder / self.table.set_index("subject_id").loc[subject, "image"]

    def truth(self, subject: str, kind: str) -> Path:
        """A file of the subject's truth."""
        return self.folder / f"derivatives/truth/{subject}/{subject}_{kind}.nii.gz"

    def check_grids(self, subjects: list[str]) -> None:
        """Refuse images that lie on other grids than the template's."""
        grid = read_volume(self.template).grid
        for subject in subjects:
            if not read_volume(self.image(subject)).grid.matches(grid):
                raise GeometryError(
                    f"{self.image(subject)}: expected the template's grid, got another; simulate without scramble_axes"
                )


def quality(cohort: Cohort, subject: str, field: Path | None) -> dict[str, float]:
    """Compare a field with the truth; the same measures for every method.

    Args:
        cohort: with its truth.
        subject: its name.
        field: what a method wrote; ``None`` for no displacement at all.

    Returns:
        What :func:`monai_fair.metrics.registration_quality` returns for tissues and regions, inside the subject's true
        brain mask.
    """
    truth, grid = read_displacement(cohort.truth(subject, "desc-truth_xfm"))
    found = np.zeros_like(truth) if field is None else read_displacement(field)[0]
    labels = {
        name: (read_labels(cohort.template_file(kind)).array, read_labels(cohort.truth(subject, kind)).array)
        for name, kind in LABELS.items()
    }
    return registration_quality(
        found,
        subject=read_volume(cohort.image(subject)).array,
        template=read_volume(cohort.template).array,
        mask=read_labels(cohort.truth(subject, "desc-brain_mask")).array > 0,
        spacing_mm=grid.spacing_mm,
        truth_vox=truth,
        labels=labels,
        before=False,
    )
