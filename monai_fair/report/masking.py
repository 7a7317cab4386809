"""Small cells: what the page hides so that no single person can be read off it.

A count below the least count is hidden, and what would give it away: the positives of a group with few
negatives, its prevalence, and its values. A hidden count can still follow from the totals when only one group is
hidden; publish the page with that in mind.
"""

from dataclasses import dataclass

from monai_fair.report.quantities import Quantity, Record


@dataclass(frozen=True)
class Mask:
    """Decides what is shown.

    Attributes:
        least: smallest count that is shown.
        show_small: show everything.
    """

    least: int
    show_small: bool = False

    def hides(self, count: int) -> bool:
        """Whether a count is hidden."""
        return not self.show_small and count < self.least

    def count(self, count: int) -> str:
        """Write a count, or that it is below the least one."""
        return f"<{self.least}" if self.hides(count) else f"{count:,}"

    def missing(self, count: int) -> str:
        """Write how many values are missing; nobody is behind a zero."""
        return "0" if count == 0 else self.count(count)

    def positives(self, row: Record) -> str:
        """Write the number of positives of a group."""
        if self.hides(row["n_positive"]):
            return self.count(row["n_positive"])
        return "masked" if self.hides_classes(row) else self.count(row["n_positive"])

    def prevalence(self, row: Record) -> str:
        """Write the prevalence of a group in percent."""
        return "masked" if self.hides_classes(row) else f"{100 * row['prevalence']:.1f}"

    def prevalence_with_unit(self, row: Record) -> str:
        """Write the prevalence of a group with its unit."""
        return self.prevalence(row) if self.hides_classes(row) else f"{self.prevalence(row)}\u00a0%"

    def hides_classes(self, row: Record) -> bool:
        """Whether positives or negatives of a group are too few, so that its values are hidden.

        All values are hidden then: an interval over the negatives tells their number, and with n the positives.
        """
        return self.hides(row["n_positive"]) or self.hides(row["n_negative"])

    def trials(self, row: Record, quantity: Quantity) -> str:
        """Write how many cases of a group a value stands for, without giving a hidden count away."""
        if quantity.below == "both" or self.hides_classes(row):
            return f"n {self.count(row['n'])}"
        key = "n_positive" if quantity.below == "positives" else "n_negative"
        return f"n {quantity.below[:-1]} {row[key]:,}"

    def reason(self, reason: str) -> str:
        """Write a reason without telling an empty class from a small one."""
        if self.show_small:
            return reason
        for word in ("positive", "negative"):
            reason = reason.replace(f"no {word} in this group", f"fewer than {self.least} {word}s in this group")
        return reason
