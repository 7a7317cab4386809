from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from monai_fair.data import build_manifest, read_recipe
from monai_fair.data.derivations import derive
from monai_fair.data.recipes import recipe_folder
from monai_fair.errors import ImageFileError, RecipeError


def recipe(**changed: Any) -> dict[str, Any]:
    content = {
        "name": "Tiny",
        "reference": "none",
        "licence": "none",
        "source": {"table": "rows.csv"},
        "subject_id": "who",
        "image": {"file": "{picture}.png"},
        "label": {"column": "dx", "groups": {"0": ["well"], "1": ["ill"]}},
        "attributes": {"sex": {"column": "sex", "groups": {"female": ["f"], "male": ["m"]}}},
        "split": {"column": "part", "groups": {"train": ["a"], "test": ["b"]}},
    }
    return {key: value for key, value in {**content, **changed}.items() if value is not None}


def write(folder: Path, content: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def message(path: Path, options: dict[str, str] | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, options)
    return str(caught.value)


def test_the_recipe_of_these_tests_is_good(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("who,picture,dx,sex,part\n1,one,ill,f,a\n2,two,well,m,b\n")
    built = build_manifest(write(tmp_path, recipe()), tmp_path)
    assert built.table.to_csv(index=False, lineterminator="\n") == (
        "subject_id,image,label,split,sex\n1,one.png,1,train,female\n2,two.png,0,test,male\n"
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in recipe_folder().glob("*.yaml")))
def test_every_choice_of_every_stored_recipe_can_be_read(name: str) -> None:
    needed = {"bids": {"positive": "AD", "negative": "CN"}}.get(name, {})
    options = read_recipe(name, needed).content.get("options", {})
    assert options
    for option, described in options.items():
        for choice in described.get("choices", []):
            assert read_recipe(name, {**needed, option: choice}).options[option] == str(choice)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe("ham1000")
    assert str(caught.value) == (
        "expected the name of a recipe (adni, bids, chexpert, ham10000, harvard_gdp, harvard_gf, ixi, mimic_cxr, "
        "oasis1, oasis2, oasis3, openbhb, papila) or a .yaml file, got 'ham1000'"
    )


def test_every_wrong_option_is_named() -> None:
    path = recipe_folder() / "ham10000.yaml"
    assert message(path, {"labels": "akiec_mel", "age_equal": "over", "missing": "impute"}) == (
        f"{path}: 3 problems\n"
        "  1. expected an option of label, age_equal, age_zero, missing, got 'labels'\n"
        "  2. option 'age_equal': expected one of above, below, got 'over'\n"
        "  3. option 'missing': expected one of keep, drop_age, drop, got 'impute'"
    )


def test_broken_yaml(tmp_path: Path) -> None:
    path = write(tmp_path, "name: [Tiny\nlabel: 1")
    text = message(path)
    assert text.startswith(f"{path}: expected a recipe in YAML; while parsing a flow sequence")
    assert message(write(tmp_path, "- a\n- b\n")) == f"{path}: expected a mapping of keys, got list"
    path.write_bytes(b"name: \xff")
    assert message(path).startswith(f"{path}: expected a recipe in YAML; 'utf-8' codec can't decode")
    assert "No such file" in message(tmp_path / "none.yaml")


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    mark = tmp_path / "was_run"
    path = write(
        tmp_path, f"name: !!python/object/apply:pathlib.Path.touch [!!python/object/new:pathlib.Path ['{mark}']]"
    )
    assert "could not determine a constructor" in message(path)
    assert not mark.exists()


def test_all_problems_of_a_recipe_at_once(tmp_path: Path) -> None:
    content = recipe(
        licence=None,
        colour="red",
        source={"table": "rows.csv", "npz": "*.npz"},
        image={"folders": ["images"]},
        label={"column": "dx", "bins": {"edges": [60], "equal": "never"}},
        attributes={
            "split": {"column": "part", "text": True},
            "sex": {"column": "sex", "groups": {"female": "f", "male": ["m"]}, "if_missing": "guess"},
            "race": {"column": "race", "group": {}},
            "site": {"groups": {}},
            "ward": {"column": "ward", "groups": {"east": ["1", "2"], "west": [2]}, "missing": ["1"]},
            "age": {"column": "age", "bins": {"edges": [60, 40]}},
        },
        stratify=["sex", "height"],
        split={"shares": {"train": 0.5, "holdout": 0.5}},
    )
    path = write(tmp_path, content)
    keys = (
        "name, reference, licence, source, subject_id, image, label, attributes, split, "
        "notes, image_id, columns, join, first_by, stratify, options, filters"
    )
    expected = [
        "key 'licence': expected, found none",
        f"key 'colour': not a key of a recipe ({keys})",
        "source: expected exactly one of 'table' and 'npz'",
        "image: expected a mapping with 'file', a pattern such as '{image_id}.jpg', or with 'glob' and 'match'",
        "label: expected the rule 'groups', from class index to codes",
        "label: bins: equal: expected 'above' or 'below', got 'never'",
        "attribute 'split': a manifest needs this name for itself",
        "attribute 'sex': if_missing: expected 'keep' or 'drop', got 'guess'",
        "attribute 'sex': female: expected a list of codes",
        "attribute 'race': 'group' is not a key of a rule",
        "attribute 'race': expected exactly one of groups, bins, number, text",
        "attribute 'site': expected a mapping with 'column'",
        "attribute 'ward': code '2' is listed 2 times; keep one",
        "attribute 'ward': code '1' is listed 2 times; keep one",
        "attribute 'age': bins: expected 'edges', a list of rising numbers",
        "split: expected parts among train, val, test, got {'train', 'holdout'}",
        "stratify: 'height' is not an attribute of this recipe",
    ]
    lines = message(path).replace("{'holdout', 'train'}", "{'train', 'holdout'}").splitlines()
    assert lines[0] == f"{path}: {len(expected)} problems"
    assert sorted(line.split(". ", 1)[1] for line in lines[1:]) == sorted(expected)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"options": ["a"]}, "options: expected a mapping from name to option, got list"),
        (
            {"options": {"a": {"choices": {"x": {}}}}},
            "option 'a': expected a mapping with 'default' and 'choices' (choice to its changes), "
            "or with 'value' (text, list, number)",
        ),
        ({"attributes": ["sex"]}, "attributes: expected a mapping from name to rule, got list"),
        ({"label": "dx"}, "label: expected a mapping with 'column'"),
        ({"label": {"column": "dx", "groups": ["well"]}}, "label: groups: expected a mapping from group to codes"),
        ({"source": "rows.csv"}, "source: expected exactly one of 'table' and 'npz'"),
        ({"source": {"npz": "*.npz"}}, "source: expected 'columns', the list of arrays to read from each npz file"),
        (
            {"attributes": {"age": {"column": "age", "bins": {"edges": [40, 60], "names": ["young", "old"]}}}},
            "attribute 'age': bins: expected 3 names, got 2",
        ),
        (
            {"split": "part"},
            "split: expected exactly one of 'shares' (part to share), 'folds' and 'column' (with 'groups')",
        ),
    ],
)
def test_a_malformed_recipe_ends_in_a_message(tmp_path: Path, changed: dict[str, Any], expected: str) -> None:
    path = write(tmp_path, recipe(**changed))
    assert message(path) == f"{path}: {expected}"


def test_columns_of_the_image_pattern_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("who,dx,sex,part\n1,ill,f,a\n")
    with pytest.raises(RecipeError) as caught:
        build_manifest(write(tmp_path, recipe()), tmp_path)
    assert str(caught.value) == "tiny.yaml: expected a column 'picture' (for image), found who, dx, sex, part"


def test_drop_rule_and_free_text(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("who,picture,dx,sex,part\n1,one,ill,f,a\n2,two,unsure,m,b\n3,six,well,m,b\n")
    label = {"column": "dx", "groups": {"0": ["well"], "1": ["ill"]}, "drop": ["unsure"]}
    attributes = {"sex": {"column": "sex", "text": True}}
    built = build_manifest(write(tmp_path, recipe(label=label, attributes=attributes)), tmp_path)
    assert built.table["sex"].tolist() == ["f", "m"]
    assert built.record["dropped"] == [
        {"reason": "label code is dropped by the recipe: unsure", "n": 1, "subject_id": ["2"]}
    ]


@pytest.mark.parametrize(
    ("equal", "expected"),
    [
        # edges 20 and 60; the values are below, on, between, on and above them
        ("above", ["<20", "20 to <60", "20 to <60", ">=60", ">=60"]),
        ("below", ["<=20", "<=20", ">20 to 60", ">20 to 60", ">60"]),
    ],
)
def test_bins_say_on_which_side_equality_falls(equal: str, expected: list[str]) -> None:
    column = pd.Series(["19.9", "20", "20.1", "60.0", "61"], name="age", dtype=str)
    derived = derive(column, "age_group", {"column": "age", "bins": {"edges": [20, 60], "equal": equal}})
    assert derived.values.tolist() == expected
    assert derived.problems == []


def test_blanks_around_a_code_mean_nothing() -> None:
    column = pd.Series(["f ", "\tm", "  ", " unknown"], name="sex", dtype=str)
    rule = {"column": "sex", "groups": {"female": ["f"], "male": ["m"]}, "missing": ["", "unknown"]}
    derived = derive(column, "sex", rule)
    assert derived.values.tolist() == ["female", "male", "", ""]
    assert (derived.record["missing"], derived.problems) == (2, [])


def test_bins_can_have_names_of_their_own() -> None:
    column = pd.Series(["59", "60"], name="age", dtype=str)
    rule = {"column": "age", "bins": {"edges": [60], "names": ["young", "old"]}}
    assert derive(column, "age_group", rule).values.tolist() == ["young", "old"]


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e400", "60 years", "0x3c"])
def test_what_is_not_a_finite_number_is_a_problem(text: str) -> None:
    column = pd.Series(["60", text], name="age", dtype=str)
    for rule in ({"bins": {"edges": [60]}}, {"number": {}}):
        assert derive(column, "age", rule).problems == [
            f"age (column 'age'): expected a number, got {text!r} in 1 rows"
        ]


def test_an_error_of_the_source_is_one_of_this_package(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 but no archive")
    content = recipe(source={"npz": "*.npz", "columns": ["dx"]}, image={"file": "{file}"})
    with pytest.raises(ImageFileError, match=r"a\.npz: File is not a zip file"):
        build_manifest(write(tmp_path, content), tmp_path)
