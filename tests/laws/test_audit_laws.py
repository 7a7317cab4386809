"""What must not matter to an audit: order of rows and attributes, and every name."""

import math
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import audit

# Every example is two whole audits; shrinking them would take minutes and tell little.
LAWS = settings(max_examples=8, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
NAMES = {"sex": ["f", "m"], "site": ["a", "b", "c"]}
Key = tuple[Any, ...]


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Predictions with ties, missing values, and one or several images per subject."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, images, digits = draw(st.integers(40, 120)), draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 2, 6]))
    label = (rng.random(n) < 0.5).astype(int)
    score = 1 / (1 + np.exp(1 - 2 * label - 1.5 * rng.normal(size=n)))
    subject = rng.integers(0, n // images, n) if images > 1 else np.arange(n)
    table = pd.DataFrame({"subject_id": [f"s{i:03d}" for i in subject], "image": [f"{i:03d}.png" for i in range(n)]})
    # whole subjects are for validation
    table["split"] = np.where(subject % 4 == 0, "val", "test")
    table["label"], table["score"] = label, score.round(digits)
    for name, levels in NAMES.items():
        table[name] = np.where(rng.random(n) < 0.1, "", rng.choice(levels, n))
    return table


def run(table: pd.DataFrame, attributes: list[str], missing: Any) -> dict[str, Any]:
    found = check_predictions(table.reset_index(drop=True).astype(str), "p.csv")
    later = check_predictions(
        table.assign(score=(table["score"] ** 2).round(3)).reset_index(drop=True).astype(str), "q.csv"
    )
    options: dict[str, Any] = {"resamples": 100, "permutations": 10, "min_count": 3, "thresholds": ["youden", "0.5"]}
    return audit({"erm": [found], "nir": [later]}, attributes, missing=missing, **options)


def numbers(results: dict[str, Any], old_names: dict[str, dict[str, str]]) -> dict[Key, Any]:
    """Everything in the results but names, by what it is about; groups go by their old names."""
    target = results["targets"][0]
    found = dict(flat(("thresholds",), target["thresholds"])) | dict(flat(("overall",), target["overall"]))
    for table in target["tables"]:
        about = frozenset(table["attributes"])
        groups = {}
        for row in table["groups"]:
            levels = zip(table["attributes"], row["levels"], strict=True)
            groups[row["name"]] = frozenset((name, old_names[name].get(level, level)) for name, level in levels)
            found |= dict(flat((about, groups[row["name"]]), {**row, "name": 0, "levels": 0}))
        found |= dict(flat((about, "gap_differences"), table["gap_differences"]))
        found |= dict(flat((about, "fate"), table["fate"]))
        for name, gaps in table["gaps"].items():
            for key, gap in gaps.items():
                # Which of several equal groups is named depends on their order.
                ends = {part: gap[part] and gap[part]["value"] for part in ("lowest", "highest")}
                out = {(groups[entry["group"]], entry["reason"]): True for entry in gap["left_out"]}
                found |= dict(flat((about, name, key), {**gap, **ends, "worst": 0, "left_out": out}))
    return found


def flat(path: Key, value: Any) -> list[tuple[Key, Any]]:
    if isinstance(value, dict):
        return [pair for key, part in value.items() for pair in flat((*path, key), part)]
    if isinstance(value, list):
        return [pair for key, part in enumerate(value) for pair in flat((*path, key), part)]
    return [(path, value)]


def assert_same(one: dict[Key, Any], other: dict[Key, Any]) -> None:
    """Equal keys, texts and counts; equal numbers but for rounding in sums."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, float):
            # at the float32 of curves and weights, sums differ in the seventh digit
            assert math.isclose(value, other[key], rel_tol=1e-6, abs_tol=1e-6) or math.isnan(value), key
            assert math.isnan(value) == math.isnan(other[key]), key
        else:
            assert value == other[key], key


SAME = {name: dict(zip(levels, levels, strict=True)) for name, levels in NAMES.items()}


def shuffled_names(table: pd.DataFrame, column: str, random: Any) -> pd.Series:
    names = sorted(set(table[column]))
    return table[column].map(dict(zip(names, random.sample(names, len(names)), strict=True)))


@LAWS
@given(
    tables(),
    st.permutations(NAMES["sex"]),
    st.permutations(NAMES["site"]),
    st.randoms(use_true_random=False),
    st.sampled_from(["drop", "group"]),
)
def test_order_and_names_change_nothing(
    table: pd.DataFrame, sexes: list[str], sites: list[str], random: Any, missing: str
) -> None:
    """Rows and attributes in another order, and groups, subjects and images under other names, all at once."""
    new = {name: dict(zip(NAMES[name], names, strict=True)) for name, names in (("sex", sexes), ("site", sites))}
    other = table.assign(**{name: table[name].map({**new[name], "": ""}) for name in NAMES})
    other = other.assign(**{name: shuffled_names(table, name, random) for name in ("subject_id", "image")})
    order = random.sample(range(len(table)), len(table))
    old = {name: {after: before for before, after in pairs.items()} for name, pairs in new.items()}
    expected = numbers(run(table, ["sex", "site"], missing), SAME)
    assert_same(numbers(run(other.iloc[order], ["site", "sex"], missing), old), expected)
