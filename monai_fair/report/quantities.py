"""The quantities on the page: their names, units and how many digits they are worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monai_fair.metrics.definitions import METRICS

Record = dict[str, Any]

_IN_PERCENT = ("tpr", "fpr", "tnr", "ppv", "npv", "accuracy", "balanced_accuracy", "selection_rate", "equalized_odds")
_TWO_DIGITS = ("calibration_intercept", "calibration_slope")
_KNOWN_AS = {"tpr": "equal opportunity", "selection_rate": "demographic parity"}
_METHODS = {
    "youden": "the largest TPR − FPR (Youden)",
    "min_gap": "the smallest difference of TPR and TNR",
    "g_means": "the largest geometric mean of TPR and TNR",
    "f1": "the largest F1",
    "fixed": "a fixed number",
    "given": "the one given with the predictions",
}


@dataclass(frozen=True)
class Quantity:
    """How one quantity of the audit is written.

    Attributes:
        key: its key in the results, such as ``tpr@youden``.
        name: its abbreviation, such as ``TPR``.
        title: its name, such as ``true positive rate``.
        below: what its trials are called: positives, negatives, or both for all others.
        percent: whether values are written in percent and gaps in percentage points.
        digits: after the point.
    """

    key: str
    name: str
    title: str
    below: str
    percent: bool
    digits: int

    @property
    def short(self) -> str:
        """Its abbreviation with the unit of its values."""
        return f"{self.name}, %" if self.percent else self.name

    @property
    def short_gap(self) -> str:
        """Its abbreviation with the unit of its gaps and changes."""
        return f"{self.name}, points" if self.percent else self.name

    @property
    def words(self) -> str:
        """Its name in a sentence."""
        return f"{self.title} ({self.name})" if self.spelled_out else self.title

    @property
    def spelled_out(self) -> str:
        """Its name, to stand below its abbreviation; empty where that is the name."""
        return "" if self.title.lower() == self.name.lower() else self.title

    @property
    def unit(self) -> str:
        """Unit of a gap or change; empty for most."""
        return "percentage points" if self.percent else ""

    @property
    def known_as(self) -> str:
        """The name of the fairness criterion that its gap measures; empty for most."""
        return _KNOWN_AS.get(self.key.split("@")[0], "")

    def number(self, value: float) -> str:
        """Write a value or a gap without its unit, with a real minus sign; ``undefined`` for NaN."""
        if math.isnan(value):
            return "undefined"
        text = f"{100 * value:.1f}" if self.percent else f"{value:.{self.digits}f}"
        zero = text.lstrip("-").strip("0.") == ""
        return text.lstrip("-") if zero else text.replace("-", "−")

    def signed(self, value: float) -> str:
        """Write a change without its unit, with its sign."""
        text = self.number(value)
        return f"+{text}" if value > 0 and text.strip("0.") else text

    def value(self, value: float) -> str:
        """Write a value with its unit."""
        return f"{self.number(value)}\u00a0%" if self.percent and not math.isnan(value) else self.number(value)

    def gap(self, value: float) -> str:
        """Write a gap with its unit."""
        return f"{self.number(value)} percentage points" if self.percent else self.number(value)

    def span(self, low: float | None, high: float | None) -> str:
        """Write an interval without unit; empty when it is undefined."""
        ends = as_float(low), as_float(high)
        return "" if any(math.isnan(end) for end in ends) else f"{self.number(ends[0])} to {self.number(ends[1])}"


def quantity(key: str) -> Quantity:
    """Return how the quantity of a key such as ``tpr@youden`` is written."""
    name = key.split("@")[0]
    percent, digits = name in _IN_PERCENT, 2 if name in _TWO_DIGITS else 3
    if name == "equalized_odds":
        title = "equalized odds: the larger of the TPR and the FPR gap"
        return Quantity(key, "Equalized odds", title, "both", percent, digits)
    metric = METRICS[name]
    below = metric.needs if metric.needs in ("positives", "negatives") else "both"
    return Quantity(key, metric.short, metric.title, below, percent, digits)


AUC = quantity("auc")


def rates(rule: str) -> tuple[Quantity, Quantity]:
    """Return true and false positive rate at the threshold of ``rule``."""
    return quantity(f"tpr@{rule}"), quantity(f"fpr@{rule}")


def headline(rule: str) -> list[Quantity]:
    """Return the quantities that every table shows."""
    return [AUC, *rates(rule)]


def headline_gaps(rule: str) -> list[Quantity]:
    """Return the gaps that every table shows."""
    return [*headline(rule), quantity(f"equalized_odds@{rule}"), quantity(f"selection_rate@{rule}")]


def others(rule: str) -> list[Quantity]:
    """Return the quantities of the folded tables: first those of scores, then those at the threshold of ``rule``."""
    shown = {item.key for item in headline(rule)}
    keys = [key if metric.of_scores else f"{key}@{rule}" for key, metric in METRICS.items()]
    ordered = sorted(keys, key=lambda key: "@" in key)
    return [quantity(key) for key in ordered if key not in shown]


def as_float(value: float | None) -> float:
    """Return a number of the results; None, which is how JSON writes an undefined one, becomes NaN."""
    return float("nan") if value is None else float(value)


def p_text(value: float | None) -> str:
    """Write a p value; ``undefined`` for NaN."""
    p = as_float(value)
    if math.isnan(p):
        return "undefined"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def level_text(confidence: float) -> str:
    """Write the confidence of intervals: ``95 %``."""
    return f"{100 * confidence:g}\u00a0%"


def joined(names: Sequence[str]) -> str:
    """Join names into ``a``, ``a and b`` or ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(number: int, noun: str) -> str:
    """Write ``1 case``, ``2,000 cases``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def primary_rule(results: Record, target: Record) -> str:
    """Return the rule whose rates lead the page: the first that has a threshold in every run, else the last one."""
    rules = list(results["settings"]["rules"])
    usable = [rule for rule in rules if not any(run[rule]["reason"] for run in target["thresholds"].values())]
    return str([*usable, rules[-1]][0])


def rule_words(rule: str, target: Record) -> str:
    """Say which threshold a rule is: ``the threshold chosen on validation (youden)``."""
    method = next(iter(target["thresholds"].values()))[rule]["method"]
    if method == "fixed":
        return f"the fixed threshold {rule}"
    if method == "given":
        return "the threshold given with the predictions"
    return f"the threshold chosen on validation ({rule})"


def method_words(record: Record) -> str:
    """Say what a threshold was chosen for: ``the largest TPR − FPR (Youden)``, ``a sensitivity of 0.9``."""
    method, target = record["method"], record["target"]
    return str(_METHODS.get(method, method)) if target is None else f"a {method} of {target}"
