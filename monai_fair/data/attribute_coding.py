"""Attributes of a manifest as numbers for a network, by what the training rows have."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from monai_fair.data.artifacts import read_json
from monai_fair.errors import ArtifactError, ManifestError, raise_problems

CONTINUOUS = "continuous"
_SHOWN = 5


def output_widths(counts: Sequence[int]) -> list[int]:
    """Return how many outputs guess each attribute: one for two levels or a number, else one for each level.

    Args:
        counts: number of levels of each, 0 for a continuous one.
    """
    return [count if count > 2 else 1 for count in counts]


@dataclass(frozen=True)
class AttributeCodes:
    """How the attributes of a subject become numbers; what :func:`attribute_codes` makes.

    Attributes:
        levels: attribute to its values in the order of their indices; empty for a continuous one.
        scales: continuous attribute to mean and standard deviation of its training rows.
        combinations: distinct codes of the training rows in which all attributes are known, with the means of fifths
            for a continuous one: what a missing attribute could be.
        frequencies: number of training rows with each of them.
        lacking: of each attribute, whether some training rows lack it: only then can a network learn what that means.
    """

    levels: Mapping[str, tuple[str, ...]]
    scales: Mapping[str, tuple[float, float]]
    combinations: tuple[tuple[float, ...], ...] = ()
    frequencies: tuple[int, ...] = ()
    lacking: tuple[bool, ...] = ()

    @property
    def counts(self) -> list[int]:
        """Number of levels of each attribute, 0 for a continuous one, as networks and losses take them."""
        return [len(values) for values in self.levels.values()]

    @property
    def categorical(self) -> list[str]:
        """Attributes with levels, whose joint groups can be counted."""
        return [name for name, values in self.levels.items() if values]

    @property
    def outputs(self) -> int:
        """Number of outputs that guess them all; see :func:`output_widths`."""
        return sum(output_widths(self.counts))

    def record(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return {
            "levels": {name: list(values) for name, values in self.levels.items()},
            "scales": {name: list(scale) for name, scale in self.scales.items()},
            "combinations": [list(values) for values in self.combinations],
            "frequencies": list(self.frequencies),
            "lacking": list(self.lacking),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "AttributeCodes":
        """Return what :meth:`record` wrote."""
        return cls(
            {name: tuple(values) for name, values in record["levels"].items()},
            {name: (float(scale[0]), float(scale[1])) for name, scale in record["scales"].items()},
            tuple(tuple(float(value) for value in values) for values in record["combinations"]),
            tuple(int(count) for count in record["frequencies"]),
            tuple(bool(value) for value in record["lacking"]),
        )

    def encode(self, table: pd.DataFrame) -> tuple[npt.NDArray[np.float32], list[str]]:
        """Return indices of levels and scaled numbers, and what could not be read.

        Args:
            table: text, a column for each attribute; empty where it is missing.

        Returns:
            Shape ``(n, A)``, NaN where an attribute is missing or cannot be read; and a sentence for each attribute
            with values that are no level, or no number.
        """
        columns, problems = [], []
        for name, values in self.levels.items():
            text = table[name].astype(str)
            known = text != ""
            if values:
                found = text.map({value: float(place) for place, value in enumerate(values)}).astype(float)
                wanted = f"one of {', '.join(values)}"
            else:
                mean, deviation = self.scales[name]
                found, wanted = (pd.to_numeric(text, errors="coerce") - mean) / deviation, "a number"
            if (strange := known & found.isna()).any():
                worst = ", ".join(f"'{value}'" for value, _ in Counter(text[strange]).most_common(_SHOWN))
                problems.append(
                    f"{name}: expected {wanted}, {int(strange.sum())} rows have another value, such as {worst}"
                )
            columns.append(found.where(known).to_numpy(dtype=np.float32))
        return np.stack(columns, axis=1), problems


def attribute_codes(
    datalist: Sequence[Mapping[str, Any]], attributes: Mapping[str, Sequence[str] | str | None]
) -> AttributeCodes:
    """Return how attributes become numbers.

    Args:
        datalist: training rows of :func:`monai_fair.data.load_datalist`.
        attributes: name to its levels in the order of their indices, to ``None`` for all values of the training rows
            in alphabetical order, or to ``"continuous"`` for numbers, brought to mean 0 and standard deviation 1.

    Raises:
        ManifestError: with every attribute that is not recorded, has a single level in training, or is not of its kind.
    """
    levels: dict[str, tuple[str, ...]] = {}
    scales: dict[str, tuple[float, float]] = {}
    problems = [] if attributes else ["expected at least one attribute, got none"]
    for name, kind in attributes.items():
        values = pd.Series([row["attributes"].get(name) for row in datalist], dtype=object)
        known = values[values.notna() & (values != "")].astype(str)
        if values.isna().all():
            recorded = ", ".join(datalist[0]["attributes"]) if datalist else ""
            problems.append(f"{name}: expected a recorded attribute ({recorded or 'none'}); correct the name")
        elif kind == CONTINUOUS:
            levels[name] = ()
            problems += _add_scale(scales, name, known)
        else:
            levels[name] = tuple(sorted(set(known))) if kind is None else tuple(map(str, kind))
            problems += _level_problems(name, levels[name], known)
    raise_problems(ManifestError, "attributes of the training rows", problems)
    codes = AttributeCodes(levels, scales)
    return replace(codes, **_combinations(codes, pd.DataFrame([row["attributes"] for row in datalist], dtype=object)))


def read_attribute_codes(path: str | Path) -> AttributeCodes:
    """Return the codes that a model was trained with.

    Args:
        path: the model; its settings lie beside it as JSON of the same name.

    Raises:
        ArtifactError: if they do not, or are of a model without attributes.
    """
    record = Path(path).with_suffix(".json")
    settings = read_json(record, "model")["settings"]
    if "attributes" not in settings:
        raise ArtifactError(f"{record}: expected the attributes of a FairREAD model, found none; give such a model")
    return AttributeCodes.from_record(settings["attributes"])


def with_attribute_codes(
    datalist: Sequence[Mapping[str, Any]],
    codes: AttributeCodes,
    *,
    unseen: Literal["error", "missing"] = "error",
    missing: Literal["keep", "told", "error"] = "keep",
    key: str = "attribute_codes",
) -> list[dict[str, Any]]:
    """Return rows with codes of their attributes, shape ``(A,)``, float32, NaN where an attribute is missing.

    Args:
        datalist: rows of :func:`monai_fair.data.load_datalist`.
        codes: of the training rows.
        unseen: what a value is that the training rows do not have: an ``error``, or ``missing``.
        missing: ``keep`` allows any attribute to be missing; ``told`` only those that some training rows lack too, for
            a network that is told what is missing; ``error`` none.
        key: of a row, for the codes.

    Raises:
        ManifestError: with every attribute that is not recorded, has values that cannot be read, or is missing where it
            must not be.
    """
    table = pd.DataFrame([row["attributes"] for row in datalist], dtype=object)
    absent = [f"{name}: expected a recorded attribute, found none" for name in codes.levels if name not in table]
    raise_problems(ManifestError, "attributes", absent)
    values, problems = codes.encode(table)
    if unseen == "error":
        more = "; correct the values, or take unseen 'missing'"
        raise_problems(ManifestError, "attributes", [problem + more for problem in problems])
    if missing != "keep":
        raise_problems(ManifestError, "attributes", _missing_problems(values, codes, told=missing == "told"))
    return [{**row, key: values[place]} for place, row in enumerate(datalist)]


def _missing_problems(values: npt.NDArray[np.float32], codes: AttributeCodes, *, told: bool) -> list[str]:
    remedies = {
        (False, True): "take missing_attributes True, or leave these rows out",
        (False, False): "leave these rows out; the model could not learn what that means",
        (True, False): "leave these rows out; no training row lacks it, so the model cannot know what that means",
    }
    return [
        f"{name}: expected a value in every row, {int(count)} of {len(values)} have none; {remedies[told, lacks]}"
        for name, count, lacks in zip(codes.levels, np.isnan(values).sum(axis=0), codes.lacking, strict=True)
        if count and not (told and lacks)
    ]


def _combinations(codes: AttributeCodes, table: pd.DataFrame) -> dict[str, Any]:
    every = pd.DataFrame(codes.encode(table)[0], dtype=np.float64)
    values = every.dropna()
    for place, count in enumerate(codes.counts):
        if not count and len(values):
            fifth = pd.qcut(values[place], 5, labels=False, duplicates="drop")
            values[place] = values[place].groupby(fifth).transform("mean").round(6)
    counted = values.value_counts(sort=False).sort_index()
    return {
        "combinations": tuple(tuple(map(float, row)) for row in counted.index),
        "frequencies": tuple(map(int, counted)),
        "lacking": tuple(map(bool, every.isna().any())),
    }


def _add_scale(scales: dict[str, tuple[float, float]], name: str, known: pd.Series) -> list[str]:
    numbers = pd.to_numeric(known, errors="coerce")
    if numbers.isna().any():
        return [f"{name}: expected numbers, got '{known[numbers.isna()].iloc[0]}'; take levels instead of 'continuous'"]
    deviation = float(numbers.std(ddof=0)) if len(numbers) else 0.0
    if not deviation > 0:
        return [f"{name}: expected numbers that differ, got {len(numbers.unique())} different; leave it out"]
    scales[name] = float(numbers.mean()), deviation
    return []


def _level_problems(name: str, values: tuple[str, ...], known: pd.Series) -> list[str]:
    strange = sorted(set(known) - set(values))
    problems = []
    if strange:
        problems.append(
            f"{name}: expected one of {', '.join(values)}, got {', '.join(strange[:_SHOWN])}; add the levels"
        )
    if len(set(values)) < len(values):
        problems.append(f"{name}: expected each level once, got {', '.join(values)}")
    if known.nunique() < 2:
        problems.append(
            f"{name}: expected at least two levels in the training rows, got {', '.join(known.unique()) or 'none'}; "
            "leave it out"
        )
    return problems
