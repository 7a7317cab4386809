"""Positive labels of a group turned to negative in training: planted under-diagnosis, to study what comes of it.

The labels of test are never changed, because results are measured on them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.data.manifest import RESERVED
from monai_fair.data.predictions import SPLITS
from monai_fair.errors import MonaiFairError, raise_problems

BiasMethod = Literal["exact", "bernoulli"]
_TRAINING = ("train", "val")
_SHOWN = 5


def inject_label_bias(
    table: pd.DataFrame,
    group: Mapping[str, str],
    *,
    rate: float,
    method: BiasMethod = "exact",
    parts: Sequence[str] | None = None,
    seed: int = 0,
) -> npt.NDArray[np.bool_]:
    """Choose the positive rows of a group whose label is turned to 0.

    Eligible are rows of the named parts with label 1 and every attribute value of ``group``. Each of them gets a number
    from [0, 1) by chance, which depends on the seed and on the images eligible in its part, and not on the order of
    rows. ``exact`` takes the ``round(rate n)`` rows of lowest number among the n eligible ones of every part (a half
    goes to the even count), so that each part has the rate that was asked for; ``bernoulli`` takes every row whose
    number is below the rate, as published code does, so that counts vary with the seed. In both, a larger rate takes
    the rows of a smaller one and more.

    Args:
        table: of a manifest: ``image``, ``label`` (0 or 1) and ``split``, and the attributes as text; n rows.
        group: attribute to value, such as ``{"sex": "female"}``; a row is of the group if it has all of them.
        rate: share of the eligible rows, from 0 (nothing changes) to 1 (no positive is left).
        method: ``exact`` or ``bernoulli``.
        parts: ``train``, ``val`` or both; by default those of the two that have rows. ``test`` is refused.
        seed: of the draw.

    Returns:
        True for a row whose label is to become 0, shape ``(n,)``.

    Raises:
        MonaiFairError: with every problem of the table and the options, or if no row is eligible.

    References:
        Jones et al., The role of subgroup separability in group-fair medical image classification, MICCAI 2023,
        arXiv:2307.02791 (Bernoulli draws); Mouheb et al., MICCAI 2024, arXiv:2407.05843.
    """
    problems = label_bias_problems(table, group, rate=rate, method=method, parts=parts)
    raise_problems(MonaiFairError, "label bias", problems)
    eligible = (table["label"] == 1).to_numpy() & group_rows(table, group)
    split, image = table["split"].to_numpy(dtype=str), table["image"].to_numpy(dtype=str)
    changed = np.zeros(len(table), dtype=np.bool_)
    for part in biased_parts(table, parts):
        rows = np.flatnonzero(eligible & (split == part))
        number = np.empty(len(rows))
        number[np.argsort(image[rows])] = np.random.default_rng(seed).random(len(rows))
        if method == "exact":
            changed[rows[np.argsort(number)[: round(rate * len(rows))]]] = True
        else:
            changed[rows[number < rate]] = True
    return changed


def group_rows(table: pd.DataFrame, group: Mapping[str, str]) -> npt.NDArray[np.bool_]:
    """Return which rows have every attribute value of ``group``, shape ``(n,)``."""
    inside = [(table[name] == str(value)).to_numpy(dtype=np.bool_) for name, value in group.items()]
    return np.asarray(np.logical_and.reduce(inside))


def biased_parts(table: pd.DataFrame, parts: Sequence[str] | None) -> list[str]:
    """Return the parts whose labels may change, in the order of splits; by default train and val, where they occur."""
    wanted = set(table["split"]) if parts is None else set(parts)
    return [part for part in _TRAINING if part in wanted]


def label_bias_problems(
    table: pd.DataFrame,
    group: Mapping[str, str],
    *,
    rate: float,
    method: str = "exact",
    parts: Sequence[str] | None = None,
) -> list[str]:
    """Say everything that is wrong with the input of :func:`inject_label_bias`, which has the arguments."""
    if absent := [name for name in ("image", "label", "split") if name not in table]:
        return [f"expected a column '{name}', found none; add it" for name in absent]
    problems = []
    if "clean_label" in table:
        problems.append(
            "labels were changed before (column 'clean_label'); take the manifest that this one is made from"
        )
    if not table["label"].isin((0, 1)).all():
        problems.append("expected labels 0 and 1 only; make a manifest of two classes first")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        problems.append(f"rate: expected a share from 0 to 1, got {rate!r}")
    if method not in get_args(BiasMethod):
        problems.append(f"method: expected one of {', '.join(get_args(BiasMethod))}, got {method!r}")
    problems += [*_part_problems(table, parts), *group_problems(table, group)]
    return problems or _eligible_problems(table, group, parts)


def _part_problems(table: pd.DataFrame, parts: Sequence[str] | None) -> Iterator[str]:
    found = [name for name in SPLITS if (table["split"] == name).any()]
    if parts is None and not set(_TRAINING) & set(found):
        yield f"expected rows of train or val, whose labels may be changed, found only {', '.join(found)}"
    if parts is not None and not parts:
        yield "parts: expected at least one, got none; leave it out for train and val"
    for name in dict.fromkeys(parts or ()):
        if name == "test":
            yield "parts: expected train or val, got 'test', whose labels stay as they are to measure on; leave it out"
        elif name not in _TRAINING:
            yield f"parts: expected train or val, got '{name}'"
        elif name not in found:
            yield f"parts: expected rows with split '{name}', got none; found {', '.join(found)}"


def group_problems(table: pd.DataFrame, group: Mapping[str, str]) -> Iterator[str]:
    """Say what keeps a group from being one of the table's; see :func:`inject_label_bias`."""
    recorded = [str(name) for name in table if name not in RESERVED]
    if not group:
        yield "group: expected an attribute and its value, got none"
    for name, value in group.items():
        if name not in recorded:
            yield f"{name}: expected a recorded attribute ({', '.join(recorded) or 'none'}); correct the name"
        elif not (table[name] == str(value)).any():
            values = sorted(set(table[name]) - {""})
            shown = ", ".join(values[:_SHOWN]) + (", ..." if len(values) > _SHOWN else "")
            yield f"{name}={value}: expected a group that occurs ({shown or 'none does'}), got no row of it"


def _eligible_problems(table: pd.DataFrame, group: Mapping[str, str], parts: Sequence[str] | None) -> list[str]:
    chosen = biased_parts(table, parts)
    rows = (table["label"] == 1) & group_rows(table, group) & table["split"].isin(chosen)
    if rows.any():
        return []
    name = group_name(group)
    return [f"expected rows of {name} with label 1 in {' or '.join(chosen)}, got none, so that no label can change"]


def group_name(group: Mapping[str, str]) -> str:
    """Return a group as it is written on the command line: ``sex=female,age_group=<60``."""
    return ",".join(f"{name}={value}" for name, value in group.items())
