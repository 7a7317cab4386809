import numpy as np
import pandas as pd
import pytest

from monai_fair.metrics.groups import group_by, groupings

TABLE = pd.DataFrame(
    {
        "sex": ["f", "m", "", "f", "m"],
        "age": ["9", "10", "9", "10", ""],
        "site": ["x", "x", "y", "y", "y"],
    }
)


def test_drop_leaves_missing_out_and_counts_it() -> None:
    grouping = group_by(TABLE, ["sex"])
    assert grouping.names == ("f", "m")
    assert grouping.codes.tolist() == [0, 1, -1, 0, 1]
    assert grouping.num_missing == 1


def test_group_gives_missing_its_own_row() -> None:
    grouping = group_by(TABLE, ["sex"], missing="group")
    assert grouping.names == ("f", "m", "missing")
    assert grouping.codes.tolist() == [0, 1, 2, 0, 1]
    assert grouping.num_missing == 1


@pytest.mark.parametrize("missing", ["drop", "group"])
def test_counts_add_up(missing: str) -> None:
    grouping = group_by(TABLE, ["sex", "age"], missing=missing)
    left_out = int((grouping.codes < 0).sum())
    assert np.bincount(grouping.codes[grouping.codes >= 0]).sum() + left_out == len(TABLE)
    assert grouping.num_missing == 2
    assert left_out == (2 if missing == "drop" else 0)


def test_numbers_are_ordered_as_numbers() -> None:
    table = pd.DataFrame({"age": ["10 to 19", "100+", "9", "missing", ""]})
    assert group_by(table, ["age"]).names == ("9", "10 to 19", "100+", "missing")


def test_a_real_value_named_missing_is_not_merged_with_the_missing_value() -> None:
    table = pd.DataFrame({"race": ["missing", "", "missing"]})
    grouping = group_by(table, ["race"], missing="group")
    assert grouping.names == ("missing", "missing (empty cell)")
    assert grouping.codes.tolist() == [0, 1, 0]


def test_intersections_with_equal_joined_names_stay_apart() -> None:
    table = pd.DataFrame({"a": ["x & y", "x"], "b": ["z", "y & z"]})
    grouping = group_by(table, ["a", "b"])
    assert grouping.names == ("x & y & z", "x & y & z")
    assert len(set(grouping.codes.tolist())) == 2


def test_groupings_are_singles_then_pairs_then_all() -> None:
    names = [grouping.name for grouping in groupings(TABLE, ["sex", "age", "site"])]
    assert names == ["sex", "age", "site", "sex & age", "sex & site", "age & site", "sex & age & site"]
    assert [grouping.name for grouping in groupings(TABLE, ["sex", "age"])] == ["sex", "age", "sex & age"]
    assert [grouping.name for grouping in groupings(TABLE, ["sex"])] == ["sex"]
    assert [grouping.name for grouping in groupings(TABLE, ["sex", "age"], intersections=False)] == ["sex", "age"]


def test_all_missing_gives_no_group() -> None:
    grouping = group_by(pd.DataFrame({"sex": ["", ""]}), ["sex"])
    assert grouping.names == ()
    assert grouping.num_missing == 2
