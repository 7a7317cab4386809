"""One grouping of a measured target, as the writers of records see it."""

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from monai_fair.metrics.arrays import FloatArray, IntArray
from monai_fair.metrics.clusters import Clusters
from monai_fair.metrics.definitions import METRICS
from monai_fair.metrics.estimates import Estimates
from monai_fair.metrics.groups import Grouping
from monai_fair.metrics.resampling import range_margin
from monai_fair.metrics.settings import AuditSettings
from monai_fair.metrics.spread import shared_seeds
from monai_fair.metrics.target_audit import MeasuredTarget


class TargetTable:
    """One grouping of a measured target.

    Attributes:
        target: what was measured.
        index: of the grouping.
        settings: of the audit.
    """

    def __init__(self, target: MeasuredTarget, index: int, settings: AuditSettings) -> None:
        self.target, self.index, self.settings = target, index, settings

    @cached_property
    def grouping(self) -> Grouping:
        """The grouping; its codes are in file order."""
        return self.target.samples.groupings[self.index]

    @cached_property
    def codes(self) -> IntArray:
        """Group of each sample in canonical order, shape ``(N,)``."""
        return self.target.codes[self.index]

    @cached_property
    def clusters(self) -> Clusters:
        """The subjects of its groups."""
        return self.target.clusters[self.index]

    @cached_property
    def size(self) -> int:
        """Number of groups."""
        return len(self.grouping.names)

    @cached_property
    def inside(self) -> slice:
        """Where its groups stand among the groups of all groupings."""
        return self.target.groups_of(self.index)

    @cached_property
    def names(self) -> list[str]:
        """Names of the runs."""
        return [run.name for run in self.target.runs]

    @cached_property
    def estimates(self) -> list[Mapping[str, Estimates]]:
        """Estimates of each run."""
        return [of_run[self.index] for of_run in self.target.estimates]

    def shared(self, run: int) -> tuple[list[int], list[int]]:
        """Return the positions of the seeds that ``run`` shares with the first run, in it and in the first."""
        return shared_seeds(self.target.runs[0].seeds, self.target.runs[run].seeds)

    def counted_subjects(self, run: int, key: str) -> FloatArray:
        """Return the subjects behind a quantity in each group that takes part in its gap, NaN in the others."""
        if key.startswith("equalized_odds@"):
            rule = key.partition("@")[2]
            return np.minimum(*(self.counted_subjects(run, f"{name}@{rule}") for name in ("tpr", "fpr")))
        subjects = self.target.subjects_behind(METRICS[key.partition("@")[0]])
        return np.where(self.estimates[run][key].counted, subjects[self.inside], np.nan)

    def gap_margin(self, errors: FloatArray, subjects: FloatArray) -> float:
        """Return half the length of a gap's interval; see :func:`monai_fair.metrics.resampling.range_margin`.

        Args:
            errors: of the gap in each resample, by grouping, shape ``(B, A)``.
            subjects: of the smaller class in each group that takes part, NaN in others; the smallest group counts.
        """
        least = float(np.fmin.reduce(subjects, initial=np.nan))
        return float(range_margin(errors[:, self.index], least, confidence=self.settings.confidence))
