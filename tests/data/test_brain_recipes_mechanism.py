"""Made columns, joined tables and images found by pattern: the rules, and every message about the files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fair.data import build_manifest
from monai_fair.data.columns import make_columns
from monai_fair.data.derivations import derive
from monai_fair.data.found_images import find_images
from monai_fair.data.joins import join_table
from monai_fair.data.named_tables import merge_rows
from monai_fair.errors import RecipeError

Writer = Callable[..., Path]


def table(text: str) -> pd.DataFrame:
    lines = [line.split(",") for line in text.split()]
    return pd.DataFrame(lines[1:], columns=lines[0], dtype=str)


def test_columns_are_made_as_soon_as_they_can_be() -> None:
    made = {
        "name": {"to": "{group}-{number:0>3}"},  # made before group, listed first
        "group": {"from": "id", "match": "([a-z])[0-9]+"},
        "number": {"from": "id", "match": "[a-z]0*([0-9]+)"},
        "day": {"from": "when", "match": "([0-9]+)/([0-9]+)", "to": "{2}-{1:0>2}"},
        "same": {"from": "when", "match": "[0-9/]+"},
        "age": {"age_at_entry": "entry", "days": "after"},
        "late": {"to": "{group}{site}"},
    }
    rows = table("id,when,entry,after a07,3/2001,60.5,0365 b12,,70,")
    ready, waiting = make_columns(rows, made, "here")
    # 60.5 + 365 / 365.25 = 61.49932; the second row has no days, so no age
    assert ready[["name", "group", "number", "day", "same", "age"]].to_numpy().tolist() == [
        ["a-007", "a", "7", "2001-03", "3/2001", "61.4993"],
        ["b-012", "b", "12", "", "", ""],
    ]
    assert list(waiting) == ["late"]
    later, waiting = make_columns(ready.assign(site="x"), waiting, "here")
    assert (later["late"].tolist(), waiting) == (["ax", "bx"], {})
    assert list(rows) == ["id", "when", "entry", "after"]


def test_a_made_column_takes_no_name_that_is_there() -> None:
    with pytest.raises(RecipeError) as caught:
        make_columns(table("id,age a,6"), {"age": {"to": "{id}"}}, "tiny.yaml")
    assert str(caught.value) == "tiny.yaml: column 'age': the dataset has one of this name; choose another"


def test_a_column_that_is_never_made_is_named(
    tmp_path: Path, write_recipe: Writer, refusal: Callable[..., str]
) -> None:
    (tmp_path / "rows.csv").write_text("id,dx,sex,part\na,ill,f,a\n")
    columns = {"who": {"to": "{id}"}, "site": {"to": "{center}{who}"}}
    image = {"file": "{who}.png"}
    attributes = {"site": {"column": "site", "text": True}}
    path = write_recipe(columns=columns, image=image, attributes=attributes)
    assert refusal(path, tmp_path) == (
        "tiny.yaml: expected a column 'center' (for column 'site'), found id, dx, sex, part, who"
    )


def test_rows_of_one_key_are_one_row_unless_they_contradict_each_other() -> None:
    rows = table("id,sex,age 2,0,30 1,m, 2,f,30 1,m,44 3,f,0 4,f,1 4,m,2")
    merged, notes = merge_rows(rows, "id", "t.csv", missing=["", 0])
    assert merged.to_numpy().tolist() == [["2", "f", "30"], ["1", "m", "44"], ["3", "f", "0"], ["4", "", ""]]
    assert notes == [
        "t.csv: 6 rows of 3 id are taken together, one row each",
        "t.csv: 2 cells contradict each other and are left empty: 4 (sex: f, m); 4 (age: 1, 2)",
    ]
    assert merge_rows(rows.iloc[[0, 4]], "id", "t.csv", missing=[""])[1] == []


def join(folder: Path, text: str, rows: pd.DataFrame, **spec: Any) -> tuple[pd.DataFrame, str]:
    (folder / "more.csv").write_text(text.replace(" ", "\n") + "\n")
    joined = join_table(rows, {"table": "more.csv", **spec}, folder, "tiny.yaml")
    return joined.rows, joined.note


def test_a_join_by_two_keys(tmp_path: Path) -> None:
    rows = table("who,visit,x a,1,p a,2,q b,1,r ,1,s")
    text = "id,v,score a,2,22 a,1,11 a,1,11 c,1,31 ,1,99"
    joined, note = join(tmp_path, text, rows, keys={"who": "id", "visit": "v"}, take=["score"])
    assert joined["score"].tolist() == ["11", "22", "", ""]  # an empty key is no key
    assert joined["x"].tolist() == ["p", "q", "r", "s"]
    assert note == "more.csv: 2 of 4 rows have a row there"
    assert list(rows) == ["who", "visit", "x"]


def test_columns_of_any_name_are_taken(tmp_path: Path) -> None:
    rows = table("who,when a,5 b,5")
    text = "id,key,day,visit,place a,k,4,v,p b,k,9,w,q"
    names = ["id", "key", "day", "visit", "place"]
    expected = [["a", "k", "4", "v", "p"], ["b", "k", "9", "w", "q"]]
    joined, _ = join(tmp_path, text, rows, keys={"who": "id"}, take=names)
    assert joined[names].to_numpy().tolist() == expected
    nearest = {"here": "when", "there": "day", "within_days": 4}
    joined, _ = join(tmp_path, text, rows, keys={"who": "id"}, take=names, nearest=nearest)
    assert joined[names].to_numpy().tolist() == expected


def test_what_is_wrong_with_a_join_is_said(tmp_path: Path) -> None:
    rows = table("who,visit,score a,1,5 b,2,6")
    text = "id,v,score,level a,1,7,x a,1,7,y b,2,8,z b,2,8,w"

    def said(**spec: Any) -> str:
        with pytest.raises(RecipeError) as caught:
            join(tmp_path, text, rows, **{"keys": {"who": "id", "visit": "v"}, "take": ["level"], **spec})
        return str(caught.value)

    assert said() == (
        "more.csv: 2 problems\n"
        "  1. expected one row per id and v, found 2 that differ for 'a 1'\n"
        "  2. expected one row per id and v, found 2 that differ for 'b 2'"
    )
    assert said(take=["score"]) == "tiny.yaml: column 'score' of more.csv: the dataset has one of this name"
    assert said(keys={"person": "id"}) == (
        "tiny.yaml: expected a column 'person' (to join more.csv), found who, visit, score"
    )
    assert said(take=["depth"]) == "more.csv: expected a column 'depth' (to join), found id, v, score, level"
    assert said(table="none.csv") == f"{tmp_path}: expected the metadata file none.csv, found none; check --root"
    nearest = {"here": "day", "there": "visit", "within_days": 3}
    assert said(nearest=nearest) == "tiny.yaml: expected a column 'day' (to join more.csv), found who, visit, score"


visits = st.lists(st.tuples(st.sampled_from("ab"), st.integers(-30, 30), st.booleans()), max_size=8)
scans = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-30, 30)), min_size=1, max_size=8)


@settings(deadline=None, max_examples=60)
@given(scans=scans, visits=visits, within=st.integers(0, 20), as_dates=st.booleans())
def test_the_nearest_visit_is_that_of_an_exhaustive_search(
    tmp_path_factory: pytest.TempPathFactory,
    scans: list[tuple[str, int]],
    visits: list[tuple[str, int, bool]],
    within: int,
    as_dates: bool,
) -> None:
    def written(day: int) -> str:
        return str(np.datetime64("2001-01-31") + day) if as_dates else str(day)

    # two visits of one day say the same; a visit without a value is no visit
    lines = [f"{who},{written(day)},{f'{who}{day}' if full else ''}" for who, day, full in visits]
    rows = pd.DataFrame([(who, written(day)) for who, day in scans], columns=["who", "day"], dtype=str)
    nearest = {"here": "day", "there": "when", "within_days": within}
    text = " ".join(["id,when,value", *lines])
    joined, _ = join(tmp_path_factory.mktemp("join"), text, rows, keys={"who": "id"}, take=["value"], nearest=nearest)
    expected = []
    for who, day in scans:
        # the smaller day first: of two that are equally near the earlier one
        known = sorted((abs(day - there), there) for other, there, full in visits if full and other == who)
        expected.append(f"{who}{known[0][1]}" if known and known[0][0] <= within else "")
    assert joined["value"].tolist() == expected


def test_images_bring_columns_and_rows(tmp_path: Path, touch: Callable[..., None]) -> None:
    touch(tmp_path, "a_1_x.png", "a_1_y.png", "a_2_x.png", "c_9_x.png", "odd.png", ".a_3_x.png", "a_4_x.png/folder")
    image = {"glob": ["*.png", "a*.png"], "match": "(?P<who>[a-z])_(?P<run>[0-9])_(?P<kind>.)", "per": ["run"]}
    found = find_images({**image, "several": "last"}, table("who,age a,6 b,7"), tmp_path)
    assert found.rows.to_numpy().tolist() == [["a", "6", "1", "y"], ["a", "6", "2", "x"], ["b", "7", "", ""]]
    assert found.images.tolist() == ["a_1_y.png", "a_2_x.png", ""]
    assert found.problems.tolist() == ["", "", "expected one image, found none"]
    assert found.notes == (
        "1 images are left out, their paths are not like '(?P<who>[a-z])_(?P<run>[0-9])_(?P<kind>.)': odd.png",
        "1 images have no row in the dataset's table: c_9_x.png",
        "1 rows have several images, of which the last by name is taken",
    )
    found = find_images(image, table("who,age a,6 b,7"), tmp_path)
    assert found.problems.tolist()[0] == "expected one image, found 2: a_1_x.png, a_1_y.png"


def test_images_that_cannot_be_told_apart(tmp_path: Path, touch: Callable[..., None]) -> None:
    touch(tmp_path, "a.png", "b.png")
    with pytest.raises(RecipeError) as caught:
        find_images({"glob": "*.png", "match": "(?P<person>[a-z])"}, table("who,age a,6"), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected a column of the dataset among the named groups of 'match' (person), "
        "found the columns who, age"
    )
    with pytest.raises(RecipeError) as caught:
        find_images({"glob": "*.png", "match": "(?P<who>[0-9])"}, table("who,age a,6"), tmp_path)
    assert str(caught.value) == f"{tmp_path}: expected paths of images like '(?P<who>[0-9])', got a.png, b.png"


def test_when_no_row_is_left_the_reasons_are_given(
    tmp_path: Path, write_recipe: Writer, refusal: Callable[..., str], touch: Callable[..., None]
) -> None:
    (tmp_path / "rows.csv").write_text("who,dx,sex,part\na,ill,f,a\nb,odd,f,b\nc,odd,f,b\n")
    touch(tmp_path, "b.png", "z.png")
    label = {"column": "dx", "groups": {"0": ["well"], "1": ["ill"]}, "drop": ["odd"]}
    path = write_recipe(label=label, image={"glob": "*.png", "match": "(?P<who>[a-z]+)", "if_missing": "drop"})
    reasons = {"no image": 2, "label code is dropped by the recipe: odd": 1}
    assert refusal(path, tmp_path) == f"tiny.yaml on {tmp_path}: every row is dropped: {reasons}"


def test_the_first_scan_is_first_by_number(tmp_path: Path, write_recipe: Writer, refusal: Callable[..., str]) -> None:
    lines = ["who,scan,dx,sex,part", "a,,ill,f,a", "a,10,ill,f,a", "a,9,ill,f,a", "b,2,odd,f,b", "b,3,well,f,b"]
    rows = tmp_path / "rows.csv"
    rows.write_text("\n".join([*lines, "c,,well,f,b"]) + "\n")
    label = {"column": "dx", "groups": {"0": ["well"], "1": ["ill"]}, "drop": ["odd"]}
    path = write_recipe(label=label, image={"file": "{who}{scan}.png"}, first_by="scan")
    built = build_manifest(path, tmp_path)
    # an empty number comes last, and scan 2 of b is dropped for another reason
    assert built.table["image"].tolist() == ["a9.png", "b3.png", "c.png"]
    assert built.record["dropped"][0] == {
        "reason": "a later scan of the subject, by 'scan'", "n": 2, "subject_id": ["a", "a"]
    }  # fmt: skip
    rows.write_text("\n".join([*lines, "c,MR1,well,f,b"]) + "\n")
    assert refusal(path, tmp_path) == "Tiny: first_by: expected numbers in 'scan', got 'MR1' in 1 rows"


def test_subjects_have_names_before_their_images_are_looked_for(
    tmp_path: Path, write_recipe: Writer, refusal: Callable[..., str], touch: Callable[..., None]
) -> None:
    (tmp_path / "rows.csv").write_text("scan,dx,sex,part\na,ill,f,a\nb,well,f,b\n")
    (tmp_path / "people.csv").write_text("scan,who\na,1\nb,2\n")
    touch(tmp_path, "b.png")
    image = {"glob": "*.png", "match": "(?P<scan>[a-z])", "if_missing": "drop"}
    people = {"table": "people.csv", "keys": {"scan": "scan"}, "take": ["who"]}
    assert refusal(write_recipe(image=image, join={"people": people}), tmp_path) == (
        "tiny.yaml: subject_id: expected a column of the first table or of the images' paths, so that subjects "
        "without an image can be named; 'who' comes later"
    )


def test_capped_numbers_only_where_the_rule_says_so() -> None:
    column = pd.Series(["89+", "90.5+", "12", "+9"], name="age", dtype=str)
    plain = derive(column, "age", {"column": "age", "number": {"min": 0}})
    assert plain.problems[0] == "age (column 'age'): expected a number from 0 to inf, got '89+' in 1 rows"
    assert "capped" not in plain.record
    capped = derive(column, "age", {"column": "age", "number": {"min": 0}, "capped": True})
    assert capped.values.tolist() == ["89", "90.5", "12", "+9"]
    assert (capped.record["capped"], capped.problems) == (2, [])
