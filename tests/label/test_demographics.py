"""What is known of a patient: who tells beats who noted beats the table, and nothing is guessed."""

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fair.errors import LabelError
from monai_fair.label.demographics import Demographics, Known, attribute_values, image_id_of

VALUES = st.dictionaries(st.sampled_from(["sex", "race", "site"]), st.sampled_from(["", "a", "b"]))


def write(path: Path, rows: list[list[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n").writerows(rows)
    return path


@pytest.fixture
def manifest(tmp_path: Path) -> Demographics:
    rows = [
        ["subject_id", "image", "label", "split", "sex", "age"],
        ["p1", "part_1/scan.one.jpg", "5", "train", "female", "51"],
        ["p1", "part_2/two.nii.gz", "", "", "female", ""],
        ["p2", "three.png", "x", "", "", "70"],
    ]
    return Demographics.read(write(tmp_path / "manifest.csv", rows))


@pytest.fixture
def participants(tmp_path: Path) -> Demographics:
    rows = [["participant_id", "sex", "age"], ["sub-01", "F", "51"], ["sub-010", "M", "n/a"]]
    return Demographics.read(write(tmp_path / "participants.tsv", rows))


@given(VALUES, VALUES, VALUES)
def test_told_beats_stored_beats_the_table(table: dict[str, str], stored: dict[str, str], told: dict[str, str]) -> None:
    found = Demographics({"x": table}, "t.csv").of("x", stored={"attributes": stored}, told=told)
    for name in ("sex", "race", "site"):
        layers = (("request", told), ("datastore", stored), ("t.csv", table))
        source, value = next(((source, layer[name]) for source, layer in layers if name in layer), ("", ""))
        assert found.values.get(name, "") == value  # an empty text above hides what lies below
        assert found.sources.get(name, "") == (source if value else "")
    assert found.values.keys() == found.sources.keys()


def test_a_manifest_is_read_by_file_name(manifest: Demographics) -> None:
    assert manifest.of("scan.one").values == {"sex": "female", "age": "51"}
    assert manifest.of("two") == Known({"sex": "female"}, {"sex": "manifest.csv"})
    assert manifest.of("three").values == {"age": "70"}
    assert manifest.of("four") == Known()
    assert manifest.attributes == ("sex", "age")  # label and split are no attributes
    assert [manifest.subject(image) for image in ("scan.one", "two", "three", "four")] == ["p1", "p1", "p2", "four"]


def test_participants_are_read_by_the_beginning_of_a_bids_name(participants: Demographics) -> None:
    for image in ("sub-01", "sub-01_T1w", "sub-01_ses-2_T1w"):
        assert participants.of(image).values == {"sex": "F", "age": "51"}
        assert participants.subject(image) == "sub-01"
    assert participants.of("sub-010_T1w").values == {"sex": "M"}  # n/a is missing
    for image in ("sub-0", "sub-011", "xsub-01", "sub-01-T1w", "sub-01.T1w"):
        assert participants.of(image) == Known()
    assert participants.subject("sub-7_T1w") == "sub-7"


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "participants.tsv", [["participant_id", "sex", "age"], ["sub-01", "F", "51"]])
    assert Demographics.read(path, ("age",)).of("sub-01").values == {"age": "51"}
    with pytest.raises(LabelError, match=r"attribute 'gender': expected a column of sex, age; correct the name"):
        Demographics.read(path, ("gender",))


def test_without_a_table_there_is_what_is_told() -> None:
    assert Demographics.read(None).of("x", told={"age": 54, "sex": None, "smoker": True}).values == {
        "age": "54",
        "smoker": "True",
    }


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("manifest.csv", [["subject_id", "image", "sex"], ["a", "1/x.png", "f"], ["b", "2/x.png", "m"]]),
        ("manifest.csv", [["subject_id", "image", "sex"], ["a", "1/x.png", "f"], ["b", "2/x.png", "f"]]),
        ("participants.tsv", [["participant_id", "sex"], ["x", "f"], ["x", "m"]]),
    ],
)
def test_rows_of_one_image_must_agree(tmp_path: Path, name: str, rows: list[list[str]]) -> None:
    with pytest.raises(LabelError, match=r"lines 2 and 3: expected one row for 'x', got rows that differ"):
        Demographics.read(write(tmp_path / name, rows))


def test_rows_that_say_the_same_are_one(tmp_path: Path) -> None:
    rows = [["subject_id", "image", "sex"], ["a", "1/x.png", "f"], ["a", "2/x.png", "f"]]
    assert Demographics.read(write(tmp_path / "manifest.csv", rows)).of("x").values == {"sex": "f"}


@pytest.mark.parametrize("rows", [[["a", "b"], ["1", "2"]], [["subject_id", "sex"], ["1", "2"]]])
def test_another_table_is_refused(tmp_path: Path, rows: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="expected a column 'image'"):
        Demographics.read(write(tmp_path / "manifest.csv", rows))


@pytest.mark.parametrize(
    "given",
    [
        "f",
        ["f"],
        {"": "x"},
        {"subject_id": "x"},
        {"a b": "x"},
        {"sex": ["f"]},
        {"sex": {}},
        {"sex": "x" * 201},
        {1: "x"},
    ],
)
def test_what_is_no_attribute_is_refused(given: Any) -> None:
    with pytest.raises(LabelError, match="request: attributes"):
        attribute_values(given, "request")


@pytest.mark.parametrize(
    ("image", "name"), [("a/b/x.nii.gz", "x"), ("x.nii", "x"), ("x.y.png", "x.y"), ("sub-1_T1w.nii.gz", "sub-1_T1w")]
)
def test_ids_are_those_of_monai_label(image: str, name: str) -> None:
    assert image_id_of(image) == name
