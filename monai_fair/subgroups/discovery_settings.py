"""What a discovery is asked for, and what is wrong with it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.subgroups.discovery import LEAST_ROWS
from monai_fair.subgroups.nuisances import nuisance_problems
from monai_fair.subgroups.registered_rows import REPRESENTATIONS, Cohort

FIT_SPLITS = ("train", "val")


@dataclass(frozen=True)
class DiscoverySettings:
    """All that changes what a discovery finds, beside its files; see :func:`~monai_fair.subgroups.discover_files`.

    Attributes:
        representations: names of :data:`~monai_fair.subgroups.registered_rows.REPRESENTATIONS`.
        methods: ways of looking.
        attributes: columns the subgroups are compared with; ``None`` for all.
        nuisances: columns taken out before looking; ``None`` for none.
        fit_splits: names of :data:`FIT_SPLITS`.
        block_mm: side of a block.
        keep_scale: whether the size of a brain stays in its volumes.
        alpha: chance of a false claim.
        min_stability: that a claim needs.
        seed: of everything drawn.
    """

    representations: tuple[str, ...]
    methods: tuple[str, ...]
    attributes: tuple[str, ...] | None
    nuisances: tuple[str, ...] | None
    fit_splits: tuple[str, ...]
    block_mm: float
    keep_scale: bool
    alpha: float
    min_stability: float
    seed: int

    def record(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def check(self, *, embeddings: object, regions: object) -> None:
        """Raise every problem that shows without a file.

        Args:
            embeddings: file of embeddings; empty or ``None`` without.
            regions: file of regions, as well.

        Raises:
            MonaiFairError: with every problem.
        """
        problems = representation_problems(self.representations, embeddings=embeddings, regions=regions)
        problems += _name_problems("fit_splits", self.fit_splits, FIT_SPLITS)
        nuisances = self.nuisances or ()
        if len(set(nuisances)) < len(nuisances):
            problems.append(f"nuisances: expected each once, got '{','.join(nuisances)}'")
        if not self.block_mm > 0:
            problems.append(f"block_mm: expected a number above 0, got {self.block_mm}")
        raise_problems(MonaiFairError, "discover", problems)

    def check_cohort(self, cohort: Cohort, source: object) -> None:
        """Raise everything that a cohort lacks for these settings.

        Args:
            cohort: its subjects.
            source: the manifest, for the message.

        Raises:
            MonaiFairError: with every problem.
        """
        nuisances, fitted = self.nuisances or (), cohort.fitted(self.fit_splits)
        problems = _unknown("attributes", self.attributes or (), cohort) + _unknown("nuisances", nuisances, cohort)
        if fitted.sum() < LEAST_ROWS:
            problems.append(
                f"expected at least {LEAST_ROWS} registered subjects in {' and '.join(self.fit_splits)} to fit on, got "
                f"{int(fitted.sum())}; fewer show no shape to speak of"
            )
        problems += nuisance_problems(cohort.table, [name for name in nuisances if name in cohort.attributes], fitted)
        raise_problems(MonaiFairError, source, problems)


def representation_problems(names: Sequence[str], *, embeddings: object, regions: object) -> list[str]:
    """Return what is wrong with names of representations, and with the files that some of them need.

    Args:
        names: of :data:`~monai_fair.subgroups.registered_rows.REPRESENTATIONS`.
        embeddings: file of embeddings; empty or ``None`` without.
        regions: file of regions, as well.
    """
    needed = {"embeddings": (embeddings, "embeddings"), "regions": (regions, "regional_volumes")}
    return _name_problems("representations", names, REPRESENTATIONS) + [
        f"{option}: expected a file with, and only with, the representation '{name}'"
        for option, (file, name) in needed.items()
        if bool(file) != (name in names)
    ]


def _name_problems(option: str, given: Sequence[str], allowed: Sequence[str]) -> list[str]:
    if given and len(set(given)) == len(given) and set(given) <= set(allowed):
        return []
    return [f"{option}: expected names of {', '.join(allowed)}, each once, got '{','.join(map(str, given))}'"]


def _unknown(option: str, names: Sequence[str], cohort: Cohort) -> list[str]:
    recorded = ", ".join(cohort.attributes) or "none"
    return [
        f"{option}: expected recorded ones ({recorded}), got '{name}'; correct the name"
        for name in names
        if name not in cohort.attributes
    ]
