"""Groups and cases equal what plain Python makes of the rows, one by one."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fair.data.predictions import check_predictions
from monai_fair.metrics.cases import gather_cases
from monai_fair.metrics.groups import group_by, groupings, natural_order

LAWS = settings(max_examples=100, deadline=None, derandomize=True)
FEWER = settings(LAWS, max_examples=30)  # every example reads two tables
CELL = st.sampled_from(["", "a", "B", "é", "9", "10", "007", "7", "10 to 19", "100+", "missing", "a & b", " ", "٣"])


def plain_groups(rows: list[tuple[str, ...]], *, missing: str) -> tuple[list[Any], list[str], list[int]]:
    """Levels, names and codes by sets, dicts and loops."""
    kept = {row for row in rows if missing == "group" or all(row)}
    levels = sorted(kept, key=lambda row: tuple(natural_order(cell) for cell in row))
    codes = [levels.index(row) if row in levels else -1 for row in rows]
    names = []
    for level in levels:
        shown = []
        for place, cell in enumerate(level):
            taken = any(row[place] == "missing" for row in rows)
            shown.append(cell or ("missing (empty cell)" if taken else "missing"))
        names.append(" & ".join(shown))
    return levels, names, codes


@LAWS
@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=40), st.sampled_from(["drop", "group"]))
def test_groups_are_those_of_plain_python(rows: list[tuple[str, str, str]], missing: Any) -> None:
    table = pd.DataFrame(rows, columns=["a", "b", "c"], dtype=str, index=range(5, 5 + len(rows)))
    for found in groupings(table, ["a", "b", "c"], missing=missing):
        places = ["abc".index(name) for name in found.attributes]
        chosen = [tuple(row[place] for place in places) for row in rows]
        levels, names, codes = plain_groups(chosen, missing=missing)
        assert list(found.levels) == levels
        assert list(found.names) == names
        assert found.codes.tolist() == codes
        assert found.codes.dtype == np.int64
        assert found.num_missing == sum("" in row for row in chosen)
        alone = group_by(table, found.attributes, missing=missing)
        assert (alone.levels, alone.names, alone.codes.tolist()) == (found.levels, found.names, codes)


@pytest.mark.parametrize("kind", [str, object, "category"])
def test_the_kind_of_text_column_changes_nothing(kind: Any) -> None:
    table = pd.DataFrame({"age": ["9", "10", "", "9"], "sex": ["f", "m", "f", ""]}).astype(kind)
    found = group_by(table, ["age", "sex"], missing="group")
    assert found.levels == (("9", "f"), ("9", ""), ("10", "m"), ("", "f"))
    assert found.codes.tolist() == [0, 2, 3, 1]


@FEWER
@given(
    st.lists(st.tuples(CELL.filter(bool), CELL), min_size=1, max_size=30, unique=True),
    st.randoms(use_true_random=False),
)
def test_cases_stand_in_one_order_and_know_their_subject(rows: list[tuple[str, str]], random: Any) -> None:
    def predictions(keys: list[tuple[str, str]], source: str) -> Any:
        table = pd.DataFrame(keys, columns=["subject_id", "image"], dtype=str)
        score = [f"0.{rows.index(key):02d}" for key in keys]
        return check_predictions(table.assign(split="test", label="0", score=score, sex="f"), source)

    shuffled = random.sample(rows, len(rows))
    cases = gather_cases({"a": [predictions(rows, "a.csv"), predictions(shuffled, "b.csv")]}, ["sex"])
    ordered = sorted(rows)  # by code point, whatever the storage of text
    assert list(zip(cases.table["subject_id"], cases.table["image"], strict=True)) == ordered
    assert cases.runs[0].scores[:, :, 0].tolist() == [[rows.index(key) / 100 for key in ordered]] * 2
    subjects = list(dict.fromkeys(subject for subject, _ in ordered))
    assert cases.subjects.tolist() == [subjects.index(subject) for subject, _ in ordered]
