"""The measures of a registration: columns of ``registration.csv``, how they are written, and which end is worse."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MINUS = "−"


@dataclass(frozen=True)
class Measure:
    """How one column of ``registration.csv`` is written and read.

    Attributes:
        key: the column.
        name: what the page calls it.
        unit: of its values; empty for a pure number.
        words: its definition in a sentence or two.
        worse: which end is the worse one: ``lowest``, ``highest``, or nothing where none is.
        digits: after the point.
        scale: from the file's value to the unit.
    """

    key: str
    name: str
    unit: str
    words: str
    worse: str
    digits: int = 3
    scale: float = 1.0

    @property
    def head(self) -> str:
        """Its name with its unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def number(self, value: float) -> str:
        """Write a value of the file without its unit; what would be rounded to 0 is written as below a limit."""
        if math.isnan(value):
            return "undefined"
        scaled, limit = value * self.scale, 10.0**-self.digits
        if 0 < abs(scaled) < limit / 2:
            return f"< {limit:.{self.digits}f}" if scaled > 0 else f"> {MINUS}{limit:.{self.digits}f}"
        return "0" if scaled == 0 else f"{scaled:,.{self.digits}f}".replace("-", MINUS)

    def value(self, value: float) -> str:
        """Write a value of the file with its unit."""
        return f"{self.number(value)}\u00a0{self.unit}" if self.unit and not math.isnan(value) else self.number(value)


@dataclass(frozen=True)
class Stage:
    """A state of a registration that has columns of its own.

    Attributes:
        suffix: of its columns.
        name: what the page calls it.
    """

    suffix: str
    name: str

    def column(self, measure: Measure) -> str:
        """Return the name of the column of ``measure`` at this stage."""
        return f"{measure.key}{self.suffix}"


MEASURES = (
    Measure(
        "endpoint_error_mm",
        "Endpoint error",
        "mm",
        "Distance between where the field and where the true field leads; mean over the voxels of the brain.",
        "highest",
    ),
    Measure(
        "endpoint_error_p95_mm",
        "Endpoint error, 95th percentile",
        "mm",
        "95 of 100 voxels of the brain have a smaller endpoint error.",
        "highest",
    ),
    Measure(
        "dice_tissue",
        "Dice of tissues",
        "",
        "Overlap 2 |A ∩ B| / (|A| + |B|) of the template's tissues, moved by the field, with the subject's own; "
        "mean over the tissues. 0: none, 1: complete.",
        "lowest",
    ),
    Measure("dice_roi", "Dice of regions", "", "The same for regions of interest; mean over the regions.", "lowest"),
    Measure(
        "similarity",
        "Local correlation",
        "",
        "Correlation of the subject with the template in a window around each voxel; mean over the brain. 1 is the "
        "largest value.",
        "lowest",
    ),
    Measure(
        "folds",
        "Folds",
        "%",
        "Share of the voxels of the brain where the map turns inside out: its Jacobian determinant is 0 or less.",
        "highest",
        scale=100.0,
    ),
    Measure(
        "min_det_jacobian",
        "Smallest det J",
        "",
        "Smallest Jacobian determinant. 1 keeps the volume; at 0 and below the map folds.",
        "lowest",
    ),
    Measure(
        "sd_log_det_jacobian",
        "SD of log det J",
        "",
        "Standard deviation of the logarithm of the Jacobian determinant over the brain, folds left out; 0 for a map "
        "that changes all volumes by one factor.",
        "highest",
    ),
    Measure(
        "inverse_error_mm",
        "Inverse error",
        "mm",
        "How far a point lands from its place when the field and then its inverse move it; mean over the brain.",
        "highest",
    ),
    Measure("code_norm", "Length of the code", "", "Euclidean length of the subject's code.", "", digits=2),
    Measure("iterations", "Iterations", "", "Steps of the fit to the subject.", "", digits=0),
    Measure("seconds", "Time", "s", "Wall-clock time of the subject's registration.", "highest", digits=2),
)
MEASURE = {measure.key: measure for measure in MEASURES}
BEFORE, CODES = Stage("_before", "Before"), Stage("_codes", "Codes only")
SUFFIXES = ("", BEFORE.suffix, CODES.suffix)


def stages_of(columns: Sequence[str]) -> list[Stage]:
    """Return the stages that a table has columns of, first to last; the last one is the answer that was written.

    Args:
        columns: names of the table's columns.
    """
    present = {suffix for suffix in SUFFIXES for measure in MEASURES if f"{measure.key}{suffix}" in columns}
    last = Stage("", "Codes and residual" if CODES.suffix in present else "Registered")
    return [stage for stage in (BEFORE, CODES, last) if stage.suffix in present]
