"""What the keys of a recipe for brain images may say, options with values, and every message about them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_fair.data import read_recipe
from monai_fair.errors import RecipeError

Writer = Callable[..., Path]


def message(path: Path, options: dict[str, Any] | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, options)
    return str(caught.value)


IMAGE = {"glob": "*", "match": "(?P<who>.)"}
JOIN = {"table": "b.csv", "keys": {"who": "id"}, "take": ["x"]}
NEAREST = {"here": "day", "there": "day", "within_days": 3}
IMAGE_KEYS = "glob, if_missing, match, per, several"
COLUMN_KINDS = "'to', or 'from' and 'match' (and 'to'), or 'age_at_entry' and 'days' (or 'entry_year' and 'year')"
JOIN_KEYS = "also_named, columns, contradiction, if_missing, keys, missing, nearest, one_row_per, sheet, table, take"
OPTION_KINDS = "'default' and 'choices' (choice to its changes), or with 'value' (text, list, number)"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (
            {"glob": "*"},
            "expected a mapping with 'file', a pattern such as '{image_id}.jpg', or with 'glob' and 'match'",
        ),
        ({"file": "{who}.png", "glob": "*"}, "'glob' is not one of beside, file, folders, if_missing"),
        ({**IMAGE, "folder": "a"}, f"'folder' is not one of {IMAGE_KEYS}"),
        ({**IMAGE, "match": "(?P<a>"}, "match: expected a regular expression with named groups, got '(?P<a>'"),
        ({**IMAGE, "match": "(who)"}, "match: expected a regular expression with named groups, got '(who)'"),
        ({**IMAGE, "per": ["run"]}, "per: 'run' is not a named group of 'match'"),
        ({**IMAGE, "per": "run"}, "per: expected a list of named groups, got 'run'"),
        ({**IMAGE, "several": "any"}, "several: expected one of error, first, last, got 'any'"),
        ({**IMAGE, "if_missing": "keep"}, "if_missing: expected one of error, drop, got 'keep'"),
    ],
)
def test_a_malformed_image_ends_in_a_message(write_recipe: Writer, image: dict[str, Any], expected: str) -> None:
    path = write_recipe(image=image)
    assert message(path) == f"{path}: image: {expected}"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({"from": "b"}, f"expected {COLUMN_KINDS}"),
        ({"to": "b", "days": "c"}, f"expected {COLUMN_KINDS}"),
        ({"from": "b", "match": "*"}, "match: expected a regular expression, got '*': nothing to repeat at position 0"),
        ({"from": "b", "match": "(.)", "to": "{2}"}, "to: expected the numbers of groups of 'match', got '{2}'"),
    ],
)
def test_a_malformed_column_ends_in_a_message(write_recipe: Writer, made: dict[str, Any], expected: str) -> None:
    path = write_recipe(columns={"a": made})
    assert message(path) == f"{path}: column 'a': {expected}"


@pytest.mark.parametrize(
    ("join", "expected"),
    [
        ({**JOIN, "take": []}, "expected 'table', 'keys' (column here to column there) and 'take', a list"),
        ({**JOIN, "keys": "who"}, "expected 'table', 'keys' (column here to column there) and 'take', a list"),
        ({**JOIN, "how": "left"}, f"'how' is not one of {JOIN_KEYS}"),
        (
            {**JOIN, "nearest": {"here": "day"}},
            "nearest: expected 'here', 'there' (columns) and 'within_days', a whole number",
        ),
        (
            {**JOIN, "nearest": {**NEAREST, "within_days": 0.5}},
            "nearest: expected 'here', 'there' (columns) and 'within_days', a whole number",
        ),
        (
            {**JOIN, "nearest": NEAREST, "one_row_per": "id"},
            "expected only one of 'nearest' and 'one_row_per'",
        ),
    ],
)
def test_a_malformed_join_ends_in_a_message(write_recipe: Writer, join: dict[str, Any], expected: str) -> None:
    path = write_recipe(join={"a": join})
    assert message(path) == f"{path}: join 'a': {expected}"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"source": {"table": "a.csv", "tabel": "b"}},
            "source: 'tabel' is not one of also_named, contradiction, header_rows, missing, more, one_row_per, origin, "
            "sheet, table",
        ),
        ({"columns": ["a"]}, "columns: expected a mapping from name to how it is made, got list"),
        ({"join": ["a"]}, "join: expected a mapping from name to table, got list"),
        (
            {"attributes": {"sex": {"column": "sex", "text": True, "capped": True}}},
            "attribute 'sex': capped: expected 'true', and the rule 'bins' or 'number'",
        ),
        ({"options": {"a": {"value": "integer"}}}, f"option 'a': expected a mapping with {OPTION_KINDS}"),
        ({"options": {"a": {"value": "text", "choices": {}}}}, f"option 'a': expected a mapping with {OPTION_KINDS}"),
        (
            {"options": {"a": {"default": "x", "choices": {"x": None}}}, "subject_id": "${a}"},
            "'${a}' stands for no option with 'value' of this recipe",
        ),
        ({"subject_id": "${b}"}, "'${b}' stands for no option with 'value' of this recipe"),
    ],
)
def test_a_malformed_key_ends_in_a_message(write_recipe: Writer, changed: dict[str, Any], expected: str) -> None:
    path = write_recipe(**changed)
    assert message(path) == f"{path}: {expected}"


def test_values_stand_where_their_names_stand(write_recipe: Writer) -> None:
    two = {"attributes": {"age": {"bins": {"edges": ["${cut}", 90]}}}}
    options = {
        "who": {"value": "text", "default": "id"},
        "ill": {"value": "list", "default": "AD|MCI"},
        "cut": {"value": "number", "default": 60},
        "cuts": {"default": "one", "choices": {"one": None, "two": two}},
    }
    path = write_recipe(
        subject_id="${who}",
        notes="${who} and ${cut}",
        label={"column": "dx", "groups": {"0": ["well"], "1": ["ill", "${ill}"]}},
        attributes={"age": {"column": "age", "bins": {"edges": ["${cut}"]}}},
        options=options,
    )
    content = read_recipe(path).content
    assert (content["subject_id"], content["notes"]) == ("id", "id and 60")
    assert content["label"]["groups"]["1"] == ["ill", "AD", "MCI"]
    assert content["attributes"]["age"]["bins"]["edges"] == [60]
    changed = read_recipe(path, {"who": "name", "ill": "AD", "cut": "62.5", "cuts": "two"})
    assert changed.content["label"]["groups"]["1"] == ["ill", "AD"]
    assert changed.content["attributes"]["age"]["bins"]["edges"] == [62.5, 90]
    assert changed.options == {"who": "name", "ill": "AD", "cut": "62.5", "cuts": "two"}
    assert changed.content["options"] == options


def test_null_in_a_patch_takes_a_key_away(write_recipe: Writer) -> None:
    shares = {"shares": {"train": 0.5, "test": 0.5}}
    choices = {"own": None, "dealt": {"split": {"column": None, "groups": None, **shares}, "stratify": None}}
    path = write_recipe(stratify=["sex"], options={"split": {"default": "own", "choices": choices}})
    content = read_recipe(path, {"split": "dealt"}).content
    assert content["split"] == shares
    assert "stratify" not in content


@pytest.mark.parametrize("text", ["", "inf", "nan", "6o"])
def test_a_number_is_a_finite_number(write_recipe: Writer, text: str) -> None:
    path = write_recipe(options={"cut": {"value": "number", "default": 60}})
    assert message(path, {"cut": text}) == f"{path}: option 'cut': expected a number, got '{text}'"
