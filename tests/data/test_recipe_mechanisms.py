"""What the recipes for chest X-rays needed of the recipe language, each on a table of a few rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fair.data import build_manifest, read_recipe
from monai_fair.data.columns import make_columns
from monai_fair.data.crosstables import code_groups
from monai_fair.data.named_tables import merge_rows, need_tables, read_named_table
from monai_fair.data.row_filters import filter_reasons
from monai_fair.errors import RecipeError

Writer = Callable[..., Path]


def table(text: str) -> pd.DataFrame:
    lines = [line.split(",") for line in text.split()]
    return pd.DataFrame(lines[1:], columns=lines[0], dtype=str)


def message(path: Path, options: dict[str, Any] | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, options)
    return str(caught.value)


def test_filters_keep_by_code_and_give_every_reason() -> None:
    rows = table("view,kind a,1 b,2 ,1 a,3")
    filters = {"side": {"column": "view", "keep": ["a"]}, "sort": {"column": "kind", "keep": [1]}}
    assert filter_reasons(rows, filters).tolist() == [
        "",
        "side is not one that the recipe keeps: b; sort is not one that the recipe keeps: 2",
        "side is not one that the recipe keeps: empty",
        "sort is not one that the recipe keeps: 3",
    ]
    assert filter_reasons(rows, {}).tolist() == [""] * 4


def test_rules_do_not_read_rows_that_a_filter_leaves_out(
    tmp_path: Path, write_recipe: Writer, refusal: Callable[..., str]
) -> None:
    (tmp_path / "rows.csv").write_text("who,dx,sex,part,view\na,ill,f,a,x\nb,odd,q,b,y\nc,well,m,b,x\n")
    recipe = {"image": {"file": "{who}.png"}, "filters": {"view": {"column": "view", "keep": ["x"]}}}
    built = build_manifest(write_recipe(**recipe), tmp_path)
    assert built.table["subject_id"].tolist() == ["a", "c"]
    assert built.record["dropped"] == [
        {"reason": "view is not one that the recipe keeps: y", "n": 1, "subject_id": ["b"]}
    ]
    recipe["filters"] = {"view": {"column": "side", "keep": ["z"]}}
    assert refusal(write_recipe(**recipe), tmp_path) == (
        "tiny.yaml: expected a column 'side' (for view), found who, dx, sex, part, view"
    )
    recipe["filters"] = {"view": {"column": "view", "keep": ["z"]}}
    reasons = {"view is not one that the recipe keeps: x": 2, "view is not one that the recipe keeps: y": 1}
    assert refusal(write_recipe(**recipe), tmp_path) == f"tiny.yaml on {tmp_path}: every row is dropped: {reasons}"


def test_years_between_calendar_years_are_added() -> None:
    made = {"age": {"age_at_entry": "age0", "entry_year": "year0", "year": "now"}}
    ready, _ = make_columns(table("age0,year0,now 52,2180,2183 60.5,2180,2179 ,2180,2181 50,2180,"), made, "here")
    # 52 + 3; 60.5 - 1; no age and no year give none
    assert ready["age"].tolist() == ["55", "59.5", "", ""]
    with pytest.raises(RecipeError) as caught:
        make_columns(table("age0,year0,now 52,2180s,2183"), made, "here")
    assert str(caught.value) == "here: column 'age': expected a number in year0, got '2180s' in 1 rows"


def test_a_contradiction_may_have_a_text_of_its_own() -> None:
    rows = table("id,race 1,w 2,w 1,b 3,u 3,w 2,u 4,u 4,u")
    merged, notes = merge_rows(rows, "id", "t.csv", missing=["", "u"], contradiction="differ")
    # u is no value: it contradicts nothing, and two of it are none
    assert merged.to_numpy().tolist() == [["1", "differ"], ["2", "w"], ["3", "w"], ["4", ""]]
    assert notes[1] == "t.csv: 1 cells contradict each other and say 'differ': 1 (race: w, b)"


@settings(deadline=None)
@given(rows=st.lists(st.tuples(*[st.sampled_from("123"), *[st.sampled_from(["", "x", "y", " x"])] * 2]), min_size=1))
def test_rows_of_one_key_as_a_loop_takes_them_together(rows: list[tuple[str, str, str]]) -> None:
    frame = pd.DataFrame(rows, columns=["id", "one", "two"], dtype=str)
    merged, notes = merge_rows(frame, "id", "t.csv", missing=[""])
    expected, told = [], []
    for who in dict.fromkeys(row[0] for row in rows):
        mine = [row for row in rows if row[0] == who]
        cells = list(mine[0])
        for place, name in enumerate(("one", "two"), start=1):
            found = list(dict.fromkeys(row[place].strip() for row in mine if row[place].strip()))
            if len(mine) > 1:
                cells[place] = found[0] if len(found) == 1 else ""
            told += [f"{who} ({name}: {', '.join(found)})"] if len(found) > 1 else []
        expected.append(cells)
    assert merged.to_numpy().tolist() == expected
    assert [note.split(": ", 2)[2] for note in notes[1:]] == (["; ".join(told)] if told else [])


def test_columns_and_names_of_a_joined_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,ethnicity\n1,w - r\n1,w\n2,b\n")
    spec = {
        "table": "a.csv",
        "also_named": {"race": ["colour", "ethnicity"]},
        "columns": {"word": {"from": "race", "match": "([a-z])(?: .*)?"}},
        "one_row_per": "id",
        "contradiction": "differ",
    }
    read = read_named_table(spec, tmp_path)
    assert read.rows.to_numpy().tolist() == [["1", "differ", "w"], ["2", "b", "b"]]
    assert list(read.rows) == ["id", "race", "word"]
    # a table that has the name keeps its other columns as they are
    (tmp_path / "a.csv").write_text("id,race,ethnicity\n1,w,h\n")
    assert list(read_named_table(spec, tmp_path).rows) == ["id", "race", "ethnicity", "word"]


def test_missing_tables_are_named_together(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    with pytest.raises(RecipeError) as caught:
        need_tables(["a.csv", ["b.csv", "*.tsv"], list("cdef")], tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: 2 problems\n"
        "  1. expected the metadata file b.csv or *.tsv, found none; check --root\n"
        "  2. expected the metadata file c (or under one of 3 other names and places, see the recipe), found none; "
        "check --root"
    )


def test_rows_without_a_partner_may_be_left_out(tmp_path: Path, write_recipe: Writer) -> None:
    (tmp_path / "rows.csv").write_text("who,dx,part\na,ill,a\nb,well,b\nc,well,b\n")
    (tmp_path / "more.csv").write_text("id,sex\na,f\nc,\n")
    join = {"table": "more.csv", "keys": {"who": "id"}, "take": ["sex"]}
    recipe = {"image": {"file": "{who}.png"}, "join": {"more": join}}
    assert build_manifest(write_recipe(**recipe), tmp_path).table["sex"].tolist() == ["female", "", ""]
    built = build_manifest(write_recipe(**{**recipe, "join": {"more": {**join, "if_missing": "drop"}}}), tmp_path)
    assert built.table["subject_id"].tolist() == ["a", "c"]  # the row of c is there, its cell is empty
    assert built.record["dropped"] == [{"reason": "no row in more.csv", "n": 1, "subject_id": ["b"]}]


def test_codes_by_group_are_counted() -> None:
    codes = pd.Series(["w", "w", "b", "u", "u", "x"])
    groups = pd.Series(["White", "White", "Other", "", "", ""])
    subjects = pd.Series(["1", "1", "2", "3", "4", "5"])
    kept = pd.Series([True, True, False, True, False, False])
    assert code_groups(codes, groups, subjects, kept) == [
        {"code": "u", "group": "missing", "n": 1, "n_subjects": 1, "n_dropped": 1},
        {"code": "x", "group": "dropped", "n": 0, "n_subjects": 0, "n_dropped": 1},
        {"code": "b", "group": "Other", "n": 0, "n_subjects": 0, "n_dropped": 1},
        {"code": "w", "group": "White", "n": 2, "n_subjects": 1, "n_dropped": 0},
    ]


def test_a_choice_may_depend_on_another_option(write_recipe: Writer) -> None:
    ill, well = {"subject_id": "ill"}, {"subject_id": "well"}
    conditional = {"by": "finding", "of": {"Edema": ill, "Mass": None}, "otherwise": well}
    options = {
        "finding": {"value": "text", "default": "Edema"},
        "rule": {"default": "plain", "choices": {"plain": None, "mixed": conditional}},
    }
    path = write_recipe(options=options)
    assert read_recipe(path).content["subject_id"] == "who"
    found = {
        finding: read_recipe(path, {"rule": "mixed", "finding": finding}).content["subject_id"]
        for finding in ("Edema", "Mass", "Nodule")
    }
    assert found == {"Edema": "ill", "Mass": "who", "Nodule": "well"}


@pytest.mark.parametrize(
    "patch",
    [
        {"by": "finding", "of": {}},
        {"by": "rule", "of": {}, "otherwise": None},
        {"by": "colour", "of": {}, "otherwise": None},
        {"by": "finding", "of": [], "otherwise": None},
    ],
)
def test_a_malformed_choice_ends_in_a_message(write_recipe: Writer, patch: dict[str, Any]) -> None:
    options = {
        "finding": {"value": "text", "default": "Edema"},
        "rule": {"default": "plain", "choices": {"plain": None, "mixed": patch}},
    }
    path = write_recipe(options=options)
    assert message(path) == (
        f"{path}: option 'rule': mixed: expected 'by' (another option), 'of' (its choice to changes) and 'otherwise'"
    )


def test_lists_of_codes_may_be_put_together_of_lists(write_recipe: Writer) -> None:
    label = {"column": "dx", "groups": {"0": [["well", ["fine"]], "good"], "1": [["ill"]]}}
    content = read_recipe(write_recipe(label=label)).content
    assert content["label"]["groups"] == {"0": ["well", "fine", "good"], "1": ["ill"]}


IMAGE = {"file": "{who}.png"}
JOIN = {"table": "b.csv", "keys": {"who": "id"}, "take": ["x"]}
FOLDS = {"folds": 5, "test": 0.15, "fold": 0}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"filters": ["a"]}, "filters: expected a mapping from name to filter, got list"),
        ({"filters": {"a": {"column": "b"}}}, "filter 'a': expected 'column' and 'keep', a list of codes"),
        ({"filters": {"a": {"column": "b", "keep": "c"}}}, "filter 'a': expected 'column' and 'keep', a list of codes"),
        (
            {"image": {**IMAGE, "folders": ["a"], "beside": "table"}},
            "image: expected either 'folders' or 'beside: table'",
        ),
        ({"image": {**IMAGE, "beside": "b.csv"}}, "image: expected either 'folders' or 'beside: table'"),
        (
            {"image": {**IMAGE, "if_missing": "drop"}},
            "image: if_missing: expected 'folders' or 'beside' too, other images are not looked for",
        ),
        (
            {"image": {**IMAGE, "beside": "table", "if_missing": "keep"}},
            "image: if_missing: expected one of error, drop, got 'keep'",
        ),
        (
            {"source": {"table": "a.csv", "more": ["b.csv"]}},
            "source: more: expected a mapping from name to table, and no 'one_row_per'",
        ),
        (
            {"source": {"table": "a.csv", "also_named": {"a": "b"}}},
            "source: also_named: expected a mapping from column to a list of its other names",
        ),
        (
            {"join": {"b": {**JOIN, "if_missing": "error"}}},
            "join 'b': if_missing: expected one of keep, drop, got 'error'",
        ),
        (
            {"join": {"b": {**JOIN, "columns": {"x": {"from": "y", "match": "*"}}}}},
            "join 'b': column 'x': match: expected a regular expression, got '*': nothing to repeat at position 0",
        ),
        ({"split": {**FOLDS, "folds": 1}}, "split: folds: expected a whole number from 2, got 1"),
        ({"split": {**FOLDS, "fold": 5}}, "split: fold: expected a whole number from 0 to 4, got 5"),
        ({"split": {**FOLDS, "test": 15}}, "split: test: expected a share between 0 and 1, got 15"),
        (
            {"split": {**FOLDS, "shares": {"train": 1.0}}},
            "split: expected exactly one of 'shares' (part to share), 'folds' and 'column' (with 'groups')",
        ),
    ],
)
def test_a_malformed_key_ends_in_a_message(write_recipe: Writer, changed: dict[str, Any], expected: str) -> None:
    path = write_recipe(**changed)
    assert message(path) == f"{path}: {expected}"


@pytest.mark.parametrize(("folds", "fold"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_folds_of_subjects(tmp_path: Path, write_recipe: Writer, folds: int, fold: int) -> None:
    # 40 subjects with two rows each: 10 are test, and 30 make equal folds
    rows = [f"s{who:02d}{scan},s{who:02d},{('ill', 'well')[who % 2]},f" for who in range(40) for scan in "ab"]
    (tmp_path / "rows.csv").write_text("\n".join(["scan,who,dx,sex", *rows]) + "\n")
    path = write_recipe(image={"file": "{scan}.png"}, split={"test": 0.25, "folds": folds, "fold": fold})
    parts = build_manifest(path, tmp_path).table.groupby("subject_id")["split"].agg(["nunique", "first"])
    assert (parts["nunique"] == 1).all()
    sizes = {"test": 10, "val": 30 // folds, "train": 30 - 30 // folds}
    assert parts["first"].value_counts().to_dict() == sizes
