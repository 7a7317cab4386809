"""The quantities on the page: their names, units and how many digits they are worth."""

import math
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Quantity:
    """How one quantity of the audit is written.

    Attributes:
        key: its key in the results, such as ``tpr@youden``.
        short: its name in a table head.
        words: its name in a sentence.
        below: what its trials are called: positives, negatives, or both for the AUC.
        percent: whether values are written in percent and gaps in percentage points.
    """

    key: str
    short: str
    words: str
    below: str
    percent: bool = True

    @property
    def name(self) -> str:
        """Its abbreviation without a unit."""
        return self.short.split(",")[0]

    @property
    def unit(self) -> str:
        """Unit of a gap or change."""
        return "percentage points" if self.percent else "on the scale from 0 to 1"

    def number(self, value: float) -> str:
        """Write a value or a gap without its unit, with a real minus sign; ``undefined`` for NaN."""
        if math.isnan(value):
            return "undefined"
        text = f"{100 * value:.1f}" if self.percent else f"{value:.3f}"
        zero = text.lstrip("-").strip("0.") == ""
        return text.lstrip("-") if zero else text.replace("-", "−")

    def value(self, value: float) -> str:
        """Write a value with its unit."""
        return f"{self.number(value)}\u00a0%" if self.percent and not math.isnan(value) else self.number(value)

    def gap(self, value: float) -> str:
        """Write a gap or change with its unit."""
        return f"{self.number(value)} percentage points" if self.percent else self.number(value)

    def span(self, low: float, high: float) -> str:
        """Write an interval without unit; empty when it is undefined."""
        return "" if math.isnan(low) or math.isnan(high) else f"{self.number(low)} to {self.number(high)}"


AUC = Quantity("auc", "AUC", "area under the ROC curve (AUC)", "both", percent=False)


def rates(rule: str) -> tuple[Quantity, Quantity]:
    """Return true and false positive rate at the threshold of ``rule``."""
    return (
        Quantity(f"tpr@{rule}", "TPR, %", "true positive rate (TPR)", "positives"),
        Quantity(f"fpr@{rule}", "FPR, %", "false positive rate (FPR)", "negatives"),
    )


def predictive(rule: str) -> tuple[Quantity, Quantity]:
    """Return true negative rate and positive predictive value at the threshold of ``rule``."""
    return (
        Quantity(f"tnr@{rule}", "TNR, %", "true negative rate (TNR)", "negatives"),
        Quantity(f"ppv@{rule}", "PPV, %", "positive predictive value (PPV)", "both"),
    )


def as_float(value: float | None) -> float:
    """Return a number of the results; None, which is how JSON writes an undefined one, becomes NaN."""
    return float("nan") if value is None else float(value)


def p_text(value: float | None) -> str:
    """Write a p value; ``undefined`` for NaN."""
    p = as_float(value)
    if math.isnan(p):
        return "undefined"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def joined(names: list[str]) -> str:
    """Join names into ``a``, ``a and b`` or ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(number: int, noun: str) -> str:
    """Write ``1 case``, ``2,000 cases``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
