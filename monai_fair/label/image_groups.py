"""Ways to divide the images of a server: by what is recorded of patients, or by subgroups that were found."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from monai_fair.label.sidecar import NONE, ImageScores
from monai_fair.metrics.groups import natural_order

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
SUBGROUP = "subgroup"  # the way to divide images that is found, not recorded
MOST_LEVELS = 10  # of an attribute that is looked at unasked
MISSING = "missing"


@dataclass(frozen=True)
class ImageFacts:
    """What a server knows of an image.

    Attributes:
        image_id: its id.
        labelled: whether it has a final label; for a classifier, one of a class.
        served_at: when somebody was last given it, in seconds; 0 for never.
        attributes: of the patient, as text; what is missing is absent or empty.
        subject_id: who it shows; empty where nobody tells.
    """

    image_id: str
    labelled: bool
    served_at: float = 0.0
    attributes: Mapping[str, str] = field(default_factory=dict)
    subject_id: str = ""


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Images that the model was trained on and that are not among the server's labelled ones.

    Attributes:
        attributes: of each image, as text.
        subgroups: probabilities of discovered subgroups, shape ``(n, K)``; none where they are not known.
        subgroup_names: of the K.
    """

    attributes: Sequence[Mapping[str, str]] = ()
    subgroups: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    subgroup_names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Groups:
    """A way to divide the images.

    Attributes:
        name: such as ``sex``, ``sex+age_group`` or ``subgroup``.
        names: of the G groups.
        shares: probability of each image to be in each group, shape ``(n, G)``; 0 and 1 for recorded ones, NaN in the
            rows of images whose group is not known.
        earlier: images of each group that the model was trained on and that are not in the table, shape ``(G,)``.
        unknown: why groups are not known, such as ``not scored yet``.
    """

    name: str
    names: tuple[str, ...]
    shares: FloatArray
    earlier: FloatArray
    unknown: str = "not recorded"

    @property
    def known(self) -> BoolArray:
        """Which images have a group, shape ``(n,)``."""
        return np.asarray(~np.isnan(self.shares).any(axis=1))

    @property
    def best(self) -> npt.NDArray[np.int64]:
        """The most probable group of each image, -1 where none is known, shape ``(n,)``."""
        if not self.names:
            return np.full(len(self.shares), -1, np.int64)
        return np.where(self.known, np.nan_to_num(self.shares).argmax(axis=1), -1).astype(np.int64)


def usual_ways(
    images: Sequence[ImageFacts], named: Sequence[str], *, subgroups: ImageScores = NONE, training: TrainingRows | None
) -> list[str]:
    """Return how images are divided when nobody says.

    Args:
        images: of the server.
        named: attributes that thresholds or an audit know; those that no image has are left out.
        subgroups: with discovered subgroups, which are looked at where there are any.
        training: what the model was trained on.

    Returns:
        The attributes in ``named``; where there is none, all that are recorded with at most 10 levels. One of a single
        level divides nothing.
    """
    rows = [*(image.attributes for image in images), *(training.attributes if training else ())]
    levels: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            if value:
                levels.setdefault(name, set()).add(value)
    divides = {name for name, values in levels.items() if len(values) > 1}
    known = [name for name in dict.fromkeys(named) if _column(name) in divides or name == SUBGROUP]
    found = known or sorted(name for name in divides if len(levels[name]) <= MOST_LEVELS)
    own = [SUBGROUP] if subgroups.subgroup_names and SUBGROUP not in found else []
    return [name for name in found if name != SUBGROUP or subgroups.subgroup_names] + own


def level_of(value: str, levels: Sequence[str]) -> str:
    """Return the group of a number, as an audit names groups of numbers; empty where there is none.

    Args:
        value: a number as text; empty where missing.
        levels: names such as ``below 40``, ``40 to below 60``, ``60 and above``, as
            :func:`monai_fair.metrics.binning.with_bins` makes them.
    """
    try:
        number = float(value)
    except ValueError:
        return ""
    return next((level for level in levels if _holds(level, number)), "")


def levels_of_cuts(rule: str) -> list[str]:
    """Return the names of groups of numbers between cuts, such as those of ``40/60``."""
    cuts = rule.split("/")
    between = [f"{low} to below {high}" for low, high in pairwise(cuts)]
    return [f"below {cuts[0]}", *between, f"{cuts[-1]} and above"]


def _holds(level: str, number: float) -> bool:
    numeral = r"(-?[0-9.]+(?:e[-+]?[0-9]+)?)"
    if found := re.fullmatch(f"below {numeral}", level):
        return number < float(found[1])
    if found := re.fullmatch(f"{numeral} to below {numeral}", level):
        return float(found[1]) <= number < float(found[2])
    if found := re.fullmatch(f"{numeral} and above", level):
        return number >= float(found[1])
    return level == "all"


def _column(name: str) -> str:
    return name.partition(":")[0]


def way_problems(
    by: Sequence[str],
    rows: Sequence[Mapping[str, str]],
    rules: Mapping[str, Sequence[str]],
    subgroups: ImageScores,
) -> list[str]:
    """Say which ways to divide images there are none of; see :func:`~monai_fair.label.image_table.build_table`."""
    recorded = sorted({name for row in rows for name, value in row.items() if value})
    problems = []
    for name in [part for way in by for part in way.split("+")]:
        column, _, rule = name.partition(":")
        if name == SUBGROUP and name in by:
            if not subgroups.subgroup_names:
                problems.append(
                    "by: expected discovered subgroups for 'subgroup', no image has one; score a registration bundle "
                    "with subgroups first (POST /scoring/NAME)"
                )
        elif column not in recorded:
            problems.append(
                f"by: expected an attribute that an image has ({', '.join(recorded) or 'none'}), got '{column}'; "
                "correct the name, or tell the attribute"
            )
        elif rule and name not in rules and not re.fullmatch(r"-?[0-9.]+(/-?[0-9.]+)*", rule):
            problems.append(f"by: expected cuts such as {column}:40/60, or a rule that the audit has, got '{name}'")
    return problems


def _values(name: str, rows: Sequence[Mapping[str, str]], rules: Mapping[str, Sequence[str]]) -> list[str]:
    column, _, rule = name.partition(":")
    values = [row.get(column, "") for row in rows]
    if not rule:
        return values
    levels = rules.get(name) or levels_of_cuts(rule)
    return [level_of(value, levels) for value in values]


def recorded_groups(
    way: str,
    rows: Sequence[Mapping[str, str]],
    earlier: Sequence[Mapping[str, str]],
    rules: Mapping[str, Sequence[str]],
    *,
    own_group: bool,
) -> Groups:
    """Divide images by what is recorded; several attributes at once by their values taken together."""
    parts = way.split("+")
    both = [*rows, *earlier]
    columns = [_values(name, both, rules) for name in parts]
    together = list(zip(*columns, strict=True))
    # values that differ are never one group, even if their joined names look alike
    levels = sorted(
        {values for values in together if own_group or all(values)},
        key=lambda values: [natural_order(v) for v in values],
    )
    place = {values: code for code, values in enumerate(levels)}
    codes = np.array([place.get(values, -1) for values in together], dtype=np.int64)
    shares = np.full((len(rows), len(levels)), np.nan)
    inside = codes[: len(rows)] >= 0
    shares[inside] = np.eye(len(levels))[codes[: len(rows)][inside]]
    seen = codes[len(rows) :]
    counts = np.bincount(seen[seen >= 0], minlength=len(levels)).astype(np.float64)
    names = tuple(" & ".join(value or MISSING for value in values) for values in levels)
    return Groups(way, names, shares, counts, "not recorded")


def found_groups(images: Sequence[ImageFacts], subgroups: ImageScores, training: TrainingRows) -> Groups:
    """Divide images by discovered subgroups."""
    shares = rows_of(images, subgroups, subgroups.subgroups)
    same = training.subgroup_names == subgroups.subgroup_names
    earlier = training.subgroups.sum(axis=0) if same else np.zeros(len(subgroups.subgroup_names))
    return Groups(SUBGROUP, subgroups.subgroup_names, shares, earlier, "not known (not scored yet, or not registered)")


def rows_of(images: Sequence[ImageFacts], rows: ImageScores, part: FloatArray) -> FloatArray:
    """Return rows in the order of the images, NaN where there is none."""
    found = np.full((len(images), *part.shape[1:]), np.nan)
    place = rows.place()
    pairs = [(at, place[image.image_id]) for at, image in enumerate(images) if image.image_id in place]
    if pairs:
        at, of = map(list, zip(*pairs, strict=True))
        found[at] = part[of]
    return found
