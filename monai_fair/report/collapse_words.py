"""How the page of a study of neural collapse names what it shows and writes its numbers."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from monai_fair.metrics.neural_collapse_measures import COLLAPSE_MEASURES
from monai_fair.report.quantities import Record, as_float, counted, p_text, quantity

ARMS = ("clean", "biased")
CHECKPOINTS = ("early", "final")
LEVEL = 0.05  # of p, below which a difference is marked
FEW = 10  # test positives or negatives of a group, below which its F1 is marked
PARTS = {"train": "train", "test": "test, own means", "test_to_train": "test, train means"}
_NAMES = {
    "f1": "F1",
    "nc1_distance": "NC1, eq. 1",
    "nc1_normalized": "NC1, normalised",
    "nc1_pinv": "NC1, pinv",
    "nc1_cdnv": "NC1 CDNV",
    "nc2_etf_error": "NC2 ETF error",
    "nc3_etf_error": "NC3 ETF error",
    "mean_nc1_distance": "mean NC1, eq. 1",
    "mean_nc1_normalized": "mean NC1, normalised",
    "epochs_to_half": "first epoch with normalised NC1 at half of its maximum",
}


def measure_name(measure: str) -> str:
    """Return the short name of a measure."""
    return _NAMES.get(measure, measure.replace("_", " ").replace("nc", "NC", 1))


def measure_words(measure: str) -> str:
    """Say what a measure is; empty where its name says it."""
    return COLLAPSE_MEASURES[measure].words if measure in COLLAPSE_MEASURES else ""


def significant(value: float | None) -> str:
    """Write a number with three digits that count and a real minus sign; ``undefined`` for NaN."""
    number = as_float(value)
    if math.isnan(number):
        return "undefined"
    if not number:
        return "0"
    power = math.floor(math.log10(abs(number)))
    if -4 <= power < 4:
        return f"{number:.{max(0, 2 - power)}f}".replace("-", "−")
    digits, exponent = f"{number:.1e}".split("e")
    return f"{digits}e{int(exponent)}".replace("-", "−")


def number(measure: str, value: float | None) -> str:
    """Write a value of a measure."""
    return quantity(measure).number(as_float(value)) if measure in ("f1", "auc") else significant(value)


def signed(measure: str, value: float | None) -> str:
    """Write a difference of a measure with its sign."""
    text = number(measure, value)
    return f"+{text}" if as_float(value) > 0 and text.strip("0.") else text


def span(measure: str, low: float | None, high: float | None) -> str:
    """Write an interval; empty where it is undefined."""
    ends = as_float(low), as_float(high)
    return "" if any(map(math.isnan, ends)) else f"{number(measure, low)} to {number(measure, high)}"


def spread(measure: str, mean: float | None, sd: float | None) -> str:
    """Write ``mean ± sd``; of one seed the mean alone."""
    around = "" if math.isnan(as_float(sd)) else f" ± {number(measure, sd)}"
    return f"{number(measure, mean)}{around}"


def p_words(row: Record) -> str:
    """Write ``p 0.012, Holm 0.048``, with the second where a row has it; ``p undefined`` for NaN."""
    adjusted = as_float(row.get("p_holm"))
    return f"p {small(row['p'])}" + ("" if math.isnan(adjusted) else f", Holm {small(adjusted)}")


def small(p: float | None) -> str:
    """Write a p value, one below a thousandth with its power of ten, as ``1.1e−5``."""
    value = as_float(p)
    if not 0 < value < 0.001:
        return p_text(value)
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}e−{-int(exponent)}"


def chosen(rows: Iterable[Record], **fields: Any) -> list[Record]:
    """Return the rows that have these fields."""
    return [row for row in rows if all(row[name] == value for name, value in fields.items())]


def extent(values: Sequence[float | None]) -> str:
    """Write ``3`` or ``3 to 7``: the numbers of several seeds, those that are not NaN."""
    known = [as_float(value) for value in values if not math.isnan(as_float(value))]
    if not known:
        return "undefined"
    ends = [f"{end:,.0f}" if end == round(end) else significant(end) for end in (min(known), max(known))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def is_few(row: Record) -> bool:
    """Whether a comparison's group has few positives or negatives."""
    positives = as_float(row["group_n_positive"])
    return bool(min(positives, as_float(row["group_n"]) - positives) < FEW)


def group_name(row: Record, experiment: Record) -> str:
    """Return the group of a row, with a mark for the under-diagnosed one; empty for all samples."""
    group = str(row.get("group") or "")
    return f"{group} (G1)" if group == experiment["group"] else group


def seeds(count: int) -> str:
    """Write ``1 seed``, ``10 seeds``."""
    return counted(count, "seed")
