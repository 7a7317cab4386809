"""Small cells: what the page hides so that no single person can be read off it.

A count below the least count is hidden, and what would give it away: the positives of a group with few negatives, its
prevalence, its values and curves, and counts of other groups from which it would follow
(:mod:`monai_fair.report.suppression`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from monai_fair.report.linked_counts import Hidden
from monai_fair.report.quantities import Quantity, Record, as_float
from monai_fair.report.suppression import has_small_class, has_small_n, hidden_counts, in_no_group


@dataclass(frozen=True)
class Mask:
    """Decides what is shown of one table.

    Attributes:
        least: smallest count that is shown.
        show_small: show everything.
        hidden: counts that the table hides.
        has_missing_group: whether cases without a value are a group of the table.
    """

    least: int
    show_small: bool = False
    hidden: Hidden = field(default_factory=Hidden)
    has_missing_group: bool = False

    def small(self, count: float) -> bool:
        """Whether a count is too small to be shown."""
        return not self.show_small and count < self.least

    def count(self, count: int) -> str:
        """Write a count, or that it is below the least one."""
        return f"<{self.least}" if self.small(count) else f"{count:,}"

    def hides_n(self, row: Record) -> bool:
        """Whether the n of a group is hidden."""
        return not self.show_small and (has_small_n(row, self.least) or row["name"] in self.hidden.n)

    def hides_values(self, row: Record) -> bool:
        """Whether a group has so few positives or negatives that its values are hidden.

        All values are hidden then: an interval over the negatives tells their number, and with n the positives.
        """
        return not self.show_small and has_small_class(row, self.least)

    def hides_classes(self, row: Record) -> bool:
        """Whether the number of positives of a group is hidden, and with it negatives and prevalence."""
        return self.hides_values(row) or (not self.show_small and row["name"] in self.hidden.classes)

    def n(self, row: Record, key: str = "n") -> str:
        """Write the number of cases, or with ``n_subjects`` of subjects, of a group."""
        if self.small(row[key]):
            return self.count(row[key])
        return "masked" if self.hides_n(row) else self.count(row[key])

    def share(self, row: Record, total: int) -> str:
        """Write the share that a group has of all cases, in percent."""
        return "masked" if self.hides_n(row) else f"{100 * row['n'] / total:.1f}"

    def missing(self, count: int) -> str:
        """Write how many values are missing; nobody is behind a zero."""
        if self.has_missing_group:
            return "a group of their own"
        if self.hides_missing(count):
            return self.count(count) if self.small(count) else "masked"
        return f"{count:,}"

    def hides_missing(self, count: int) -> bool:
        """Whether the number of missing values is hidden."""
        return count > 0 and not self.show_small and (self.hidden.missing or count < self.least)

    def positives(self, row: Record) -> str:
        """Write the number of positives of a group."""
        if self.small(row["n_positive"]):
            return self.count(row["n_positive"])
        return "masked" if self.hides_classes(row) else self.count(row["n_positive"])

    def prevalence(self, row: Record) -> tuple[str, str]:
        """Write the prevalence of a group in percent, and its interval."""
        if self.hides_classes(row):
            return "masked", ""
        low, high = as_float(row["prevalence_low"]), as_float(row["prevalence_high"])
        return f"{100 * as_float(row['prevalence']):.1f}", f"{100 * low:.1f} to {100 * high:.1f}"

    def trials(self, row: Record, quantity: Quantity) -> str:
        """Write how many cases of a group a value stands for, without giving a hidden count away."""
        if quantity.below == "both":
            return f"n {self.n(row)}"
        if self.hides_classes(row):
            return f"n {quantity.below[:-1]} masked"
        key = "n_positive" if quantity.below == "positives" else "n_negative"
        return f"n {quantity.below[:-1]} {row[key]:,}"

    def reason(self, row: Record, reason: str | None) -> str:
        """Write why a group has no value, without telling an empty class from a small one."""
        if self.hides_values(row):
            return f"fewer than {self.least} positives or negatives"
        return str(reason)


@dataclass(frozen=True)
class Masks:
    """Masks of one target: of every table, and of the row of everyone."""

    overall: Mask
    tables: dict[str, Mask]


def masks_of(target: Record, least: int, *, show_small: bool) -> Masks:
    """Return what every table of a target hides.

    Args:
        target: one target of the results.
        least: smallest count that is shown.
        show_small: show everything.

    Returns:
        The masks.
    """
    tables: Sequence[Record] = target["tables"]
    hidden = hidden_counts(tables, target["overall"], least)
    grouped = [table["n_missing"] > 0 and not in_no_group(table, target["overall"]) for table in tables]
    masks = {
        table["name"]: Mask(least, show_small, own, has_group)
        for table, own, has_group in zip(tables, hidden, grouped, strict=True)
    }
    return Masks(Mask(least, show_small), masks)
