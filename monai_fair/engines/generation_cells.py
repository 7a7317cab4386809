"""How many images every cell gets, label by subgroup, and whose image each of them starts from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from monai_fair.data import cell_deficits
from monai_fair.errors import MonaiFairError, raise_problems
from monai_fair.subgroups.code_sampling import CodeSampler, SamplingRule

Cell = tuple[int, str]  # label and subgroup


@dataclass(frozen=True)
class GenerationOptions:
    """How many images are generated, and how.

    Attributes:
        rule: how codes are drawn, see :class:`~monai_fair.subgroups.CodeSampler`.
        donors: whose images are deformed: training subjects of the same ``cell``, or of the same ``label``. ``None``
            is the cell, for a swap the label.
        fill: share of each cell's deficit to fill, above 0 and at most 1.
        max_per_member: images at most for each training subject of the cell; ``None`` is any number.
        limit: images at most in all, shared among cells in proportion; ``None`` is any number.
        seed: 0 or above.
        explained: share of the codes' variance that the space of the draws holds.
        level: of the ellipsoid that no code may leave.

    Raises:
        MonaiFairError: with every problem. ``rule``, ``explained`` and ``level`` are for the sampler to judge.
    """

    rule: SamplingRule = "gaussian"
    donors: Literal["cell", "label"] | None = None
    fill: float = 1.0
    max_per_member: int | None = 10
    limit: int | None = None
    seed: int = 0
    explained: float = 0.95
    level: float = 0.95

    def __post_init__(self) -> None:
        problems = []
        if self.donors not in ("cell", "label", None):
            problems.append(f"donors: expected cell, label or None, got {self.donors!r}")
        if not 0 < self.fill <= 1:
            problems.append(f"fill: expected a share above 0 and at most 1, got {self.fill!r}")
        numbers = {"max_per_member": self.max_per_member, "limit": self.limit}
        problems += [
            f"{name}: expected a whole number from 1, or None, got {value!r}"
            for name, value in numbers.items()
            if value is not None and (not isinstance(value, int) or value < 1)
        ]
        if not isinstance(self.seed, int) or self.seed < 0:
            problems.append(f"seed: expected a whole number from 0, got {self.seed!r}")
        raise_problems(MonaiFairError, "options of generated images", problems)

    @property
    def pool(self) -> str:
        """Where donors come from, ``cell`` or ``label``."""
        return self.donors or ("label" if self.rule == "swap" else "cell")


@dataclass(frozen=True)
class CellPlan:
    """What a cell gets.

    Attributes:
        label: of its rows.
        subgroup: of its rows.
        n: training rows.
        deficit: rows that it lacks to be as large as the largest cell.
        generated: images that are made for it.
        reason: why that is less than the share of the deficit that was asked for; empty when it is not.
    """

    label: int
    subgroup: str
    n: int
    deficit: int
    generated: int
    reason: str


@dataclass(frozen=True)
class PlannedImage:
    """One image to be made.

    Attributes:
        number: from 1; with the seed it is all that the draws depend on.
        subject_id: its name.
        cell: whose code, and so whose label, it has.
        donor: row of the training subject whose image is deformed.
    """

    number: int
    subject_id: str
    cell: Cell
    donor: int


def plan_cells(cells: Sequence[Cell], sampler: CodeSampler, options: GenerationOptions) -> list[CellPlan]:
    """Say how many images every cell gets, empty ones too, and why if that is not its share of the deficit.

    Args:
        cells: of each training row.
        sampler: of the same rows.
        options: how many are wanted.
    """
    table = cell_deficits([label for label, _ in cells], [subgroup for _, subgroup in cells])
    found = [
        CellPlan(int(label), str(subgroup), int(n), int(deficit), int(np.floor(options.fill * deficit + 0.5)), "")
        for label, subgroup, n, deficit in zip(*(table[name] for name in table), strict=True)
    ]
    return _limited([_possible(cell, cells, sampler, options) for cell in found], options.limit)


def plan_images(
    planned: Sequence[CellPlan], cells: Sequence[Cell], options: GenerationOptions, *, prefix: str
) -> list[PlannedImage]:
    """Number the images and draw a donor for each.

    Args:
        planned: of :func:`plan_cells`.
        cells: of each training row.
        options: where donors come from.
        prefix: of the names.
    """
    wanted = [(cell.label, cell.subgroup) for cell in planned for _ in range(cell.generated)]
    pools = {cell: _donors(cell, cells, options) for cell in dict.fromkeys(wanted)}
    images = []
    for number, cell in enumerate(wanted, start=1):
        donor = int(np.random.default_rng([options.seed, number, 0]).choice(pools[cell]))
        images.append(PlannedImage(number, f"{prefix}{number:04d}", cell, donor))
    return images


def _possible(planned: CellPlan, cells: Sequence[Cell], sampler: CodeSampler, options: GenerationOptions) -> CellPlan:
    """Return the plan of a cell as far as its members allow it."""
    cell = (planned.label, planned.subgroup)
    if not planned.generated:
        return planned
    if reason := sampler.reason(cell):
        return replace(planned, generated=0, reason=reason)
    if not _donors(cell, cells, options):
        alone = f"its one training subject is alone in its {options.pool}, and a swap needs another one's image"
        return replace(planned, generated=0, reason=alone)
    most = planned.generated if options.max_per_member is None else options.max_per_member * planned.n
    if planned.generated > most:
        reason = f"at most {options.max_per_member} for each of its training subjects, of which there are {planned.n}"
        return replace(planned, generated=most, reason=reason)
    return planned


def _limited(planned: list[CellPlan], limit: int | None) -> list[CellPlan]:
    """Return the plans with ``limit`` images in all, in proportion, the largest remainders rounded up."""
    total = sum(cell.generated for cell in planned)
    if limit is None or total <= limit:
        return planned
    shares = np.array([cell.generated for cell in planned]) * limit / total
    counts = np.floor(shares).astype(int)
    counts[np.argsort(counts - shares, kind="stable")[: limit - counts.sum()]] += 1
    reason = f"at most {limit} in all"
    return [
        replace(cell, generated=count, reason=reason) if count < cell.generated else cell
        for cell, count in zip(planned, counts.tolist(), strict=True)
    ]


def _donors(cell: Cell, cells: Sequence[Cell], options: GenerationOptions) -> list[int]:
    """Return the rows whose images may be deformed for a cell."""
    members = [row for row, other in enumerate(cells) if other == cell]
    rows = [row for row, other in enumerate(cells) if other[0] == cell[0]] if options.pool == "label" else members
    # the code of a cell's only member cannot be swapped onto its own image
    return [row for row in rows if row not in members] if options.rule == "swap" and len(members) == 1 else rows
