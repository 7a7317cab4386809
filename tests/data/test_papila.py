"""PAPILA: two workbooks whose headers take three rows, and two eyes of a patient, as published, in miniature."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from monai_fair.data import build_manifest, read_recipe
from monai_fair.data.spreadsheets import read_spreadsheet
from monai_fair.errors import RecipeError

Writer = Callable[..., Path]
Eye = tuple[str, float | str, int | str, int]  # patient, age, gender, diagnosis

# a heading over three columns and one over two; the second row names every column; the third has only the word ID
HEADINGS = (
    "", "Age", "Gender", "Diagnosis", "Refractive_Defect", "", "", "Phakic/Pseudophakic", "IOP", "", "Pachymetry",
    "Axial_Length", "VF_MD",
)  # fmt: skip
NAMES = (
    "", "Age", "Gender", "Diagnosis", "dioptre_1", "dioptre_2", "astigmatism", "Phakic/Pseudophakic", "Pneumatic",
    "Perkins", "Pachymetry", "Axial_Length", "VF_MD",
)  # fmt: skip
MERGED = ("A1:A2", "E1:G1", "I1:J1")
RIGHT: tuple[Eye, ...] = (
    ("#002", 47, 0, 2), ("#004", 58, 1, 1), ("#005", 60, 1, 0), ("#006", 71, 0, 1), ("#010", 83, 1, 0),
)  # fmt: skip
LEFT: tuple[Eye, ...] = (
    ("#002", 47, 0, 2), ("#004", 58, 1, 0), ("#005", 60, 1, 0), ("#006", 71, 0, 2), ("#010", 83, 1, 0),
)  # fmt: skip
PARTS = {"RET004": "train", "RET005": "val", "RET006": "train", "RET010": "test"}
FOLDER = "PapilaDB-PAPILA-17f8fa7746adb20275b5b6a0d99dc9dfe3007e9f"


def sheet(eyes: Sequence[Eye], header: Sequence[Sequence[str]] = (HEADINGS, NAMES, ("ID",))) -> list[Sequence[Any]]:
    # measurements of one eye; the visual field of healthy eyes was not tested
    rows = [(*eye, 0.75, -1.75, 90, 0, 21, "", 586, 23.64, -0.07 if eye[3] else "") for eye in eyes]
    return [*header, *rows]


def merge_cells(path: Path, places: Sequence[str]) -> None:
    """Say in a workbook that cells are merged; only the first of them has a text."""
    name = "xl/worksheets/sheet1.xml"
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part).decode() for part in archive.namelist()}
    cells = "".join(f'<mergeCell ref="{place}"/>' for place in places)
    parts[name] = parts[name].replace("</worksheet>", f"<mergeCells>{cells}</mergeCells></worksheet>")
    with zipfile.ZipFile(path, "w") as archive:
        for part, text in parts.items():
            archive.writestr(part, text)


@pytest.fixture
def papila(tmp_path: Path, touch: Callable[..., None], write_xlsx: Callable[..., None]) -> Writer:
    """Write PAPILA as it is unpacked; return the folder above it."""

    def write(
        right: Sequence[Eye] = RIGHT, left: Sequence[Eye] = LEFT, *, workbooks: Sequence[str] = ("od", "os")
    ) -> Path:
        root = tmp_path / "glaucoma"
        clinical = root / FOLDER / "ClinicalData"
        clinical.mkdir(parents=True, exist_ok=True)
        for side, eyes in (("od", right), ("os", left)):
            images = [f"RET{eye[0].removeprefix('#')}{side.upper()}.jpg" for eye in eyes]
            touch(root / FOLDER, *(f"FundusImages/{image}" for image in images))
            touch(root / FOLDER, *(f"ExpertsSegmentations/ImagesWithContours/Opht_cont_{image}" for image in images))
            if side in workbooks:
                write_xlsx(clinical / f"patient_data_{side}.xlsx", sheet(eyes))
                merge_cells(clinical / f"patient_data_{side}.xlsx", MERGED)
        return root

    return write


@pytest.fixture
def split(write_split: Callable[..., Path]) -> Path:
    return write_split(PARTS)


def test_every_row_of_papila(papila: Writer, split: Path) -> None:
    built = build_manifest("papila", papila(), split=split)
    at = f"{FOLDER}/FundusImages"
    # right eyes, then left ones; both eyes of 002 and the left one of 006 are suspects; 60 is old
    expected = (
        "subject_id,image,image_id,label,split,sex,age,age_group,eye\n"
        f"RET004,{at}/RET004OD.jpg,RET004OD,1,train,female,58,<60,right\n"
        f"RET005,{at}/RET005OD.jpg,RET005OD,0,val,female,60,>=60,right\n"
        f"RET006,{at}/RET006OD.jpg,RET006OD,1,train,male,71,>=60,right\n"
        f"RET010,{at}/RET010OD.jpg,RET010OD,0,test,female,83,>=60,right\n"
        f"RET004,{at}/RET004OS.jpg,RET004OS,0,train,female,58,<60,left\n"
        f"RET005,{at}/RET005OS.jpg,RET005OS,0,val,female,60,>=60,left\n"
        f"RET010,{at}/RET010OS.jpg,RET010OS,0,test,female,83,>=60,left\n"
    )
    assert built.table.to_csv(index=False, lineterminator="\n") == expected
    assert built.record["dropped"] == [
        {
            "reason": "label code is dropped by the recipe: 2",
            "n": 3,
            "image_id": ["RET002OD", "RET002OS", "RET006OS"],
        }
    ]
    clinical = f"{FOLDER}/ClinicalData"
    assert list(built.record["sources"]) == [f"{clinical}/patient_data_od.xlsx", f"{clinical}/patient_data_os.xlsx"]
    assert (built.record["n"], built.record["n_subjects"]) == (7, 4)


def test_the_root_may_be_the_folder_itself(papila: Writer, split: Path) -> None:
    root = papila()
    above = build_manifest("papila", root, split=split).table
    inside = build_manifest("papila", root / FOLDER, split=split).table
    assert inside["image"].tolist() == [image.removeprefix(f"{FOLDER}/") for image in above["image"]]
    assert inside.drop(columns="image").equals(above.drop(columns="image"))


@pytest.mark.parametrize(
    ("options", "column", "expected"),
    [
        ({"suspects": "glaucoma"}, "label", "1101010010"),
        ({"suspects": "healthy"}, "label", "0101000000"),
        ({"age_equal": "below"}, "age_group", ["<=60", "<=60", ">60", ">60", "<=60", "<=60", ">60"]),
        ({"age_cut": "71"}, "age_group", ["<71", "<71", ">=71", ">=71", "<71", "<71", ">=71"]),
    ],
)
def test_options(
    papila: Writer, write_split: Callable[..., Path], options: dict[str, str], column: str, expected: Sequence[str]
) -> None:
    split = write_split({**PARTS, "RET002": "train"})
    built = build_manifest("papila", papila(), options=options, split=split)
    assert built.table[column].tolist() == list(expected)


def test_both_eyes_of_a_patient_stand_in_one_part(papila: Writer) -> None:
    """100 patients, each third with glaucoma in the right eye and each fourth in the left one."""
    people = [(f"#{number:03d}", 40 + number % 40, number % 2) for number in range(1, 101)]
    root = papila(
        [(*who, int(number % 3 == 0)) for number, who in enumerate(people)],
        [(*who, int(number % 4 == 0)) for number, who in enumerate(people)],
    )
    table = build_manifest("papila", root, seed=1).table
    parts = table.groupby("subject_id")["split"].agg(["nunique", "first", "size"])
    assert (parts["nunique"] == 1).all()
    assert (parts["size"] == 2).all()
    assert parts["first"].value_counts().to_dict() == {"train": 70, "test": 20, "val": 10}


@pytest.mark.parametrize(("there", "absent"), [("od", "os"), ("os", "od")])
def test_a_missing_workbook_is_named(papila: Writer, refusal: Callable[..., str], there: str, absent: str) -> None:
    root = papila(workbooks=[there])
    name = f"ClinicalData/patient_data_{absent}.xlsx"
    assert refusal("papila", root) == (
        f"{root}: expected the metadata file {name} or */{name}, found none; check --root"
    )


def test_both_missing_workbooks_are_named_at_once(papila: Writer, refusal: Callable[..., str]) -> None:
    root = papila(workbooks=[])
    od, os = (f"ClinicalData/patient_data_{side}.xlsx" for side in ("od", "os"))
    assert refusal("papila", root) == (
        f"{root}: 2 problems\n"
        f"  1. expected the metadata file {od} or */{od}, found none; check --root\n"
        f"  2. expected the metadata file {os} or */{os}, found none; check --root"
    )


def test_a_missing_image_is_named_unless_its_row_is_dropped(papila: Writer, refusal: Callable[..., str]) -> None:
    root = papila()
    images = root / FOLDER / "FundusImages"
    (images / "RET002OD.jpg").unlink()  # a suspect
    (images / "RET005OS.jpg").unlink()
    assert refusal("papila", root) == f"{root}: subject 'RET005': expected one image, found none"
    built = build_manifest("papila", root, options={"without_image": "drop"})
    assert "RET005OS" not in set(built.table["image_id"])
    # suspects leave for their diagnosis; who has no image leaves before that is looked at
    assert {entry["reason"]: entry["n"] for entry in built.record["dropped"]} == {
        "no image": 2,
        "label code is dropped by the recipe: 2": 2,
    }


def test_unknown_codes_are_named(papila: Writer, refusal: Callable[..., str]) -> None:
    root = papila([("#002", 47, 3, 9), *RIGHT[1:]])
    there = "name the code in the recipe (under a group, 'missing' or 'drop')"
    assert refusal("papila", root) == (
        f"{root}: 2 problems\n"
        f"  1. label (column 'Diagnosis'): expected one of '0', '1', got '9' in 1 rows; {there}\n"
        f"  2. sex (column 'Gender'): expected one of '1', '0', got '3' in 1 rows; {there}"
    )


def test_an_age_that_is_missing_stays_missing(papila: Writer, split: Path) -> None:
    built = build_manifest("papila", papila([RIGHT[0], ("#004", "", "", 1), *RIGHT[2:]]), split=split)
    assert built.table.loc[0, ["sex", "age", "age_group"]].tolist() == ["", "", ""]


def test_a_column_has_the_lowest_name_of_its_header(tmp_path: Path, write_xlsx: Callable[..., None]) -> None:
    path = tmp_path / "t.xlsx"
    write_xlsx(path, [("", "Group", "", "Both"), ("", "a", " b ", ""), ("ID",), ("#1", 1, 2, 3), ("#2", 4, "", 6)])
    found = read_spreadsheet(path, RecipeError, header_rows=3)
    assert list(found) == ["ID", "a", "b", "Both"]
    assert found.to_numpy().tolist() == [["#1", "1", "2", "3"], ["#2", "4", "", "6"]]
    with pytest.raises(RecipeError) as caught:
        read_spreadsheet(path, RecipeError)
    assert str(caught.value) == (
        f"{path}: 2 problems\n"
        "  1. expected one column '', found 2; keep one\n"
        "  2. expected a name for every column in the first row"
    )
    with pytest.raises(RecipeError) as caught:
        read_spreadsheet(path, RecipeError, header_rows=2)
    assert str(caught.value) == f"{path}: expected a name for every column in one of the first 2 rows"


def test_a_table_that_ends_in_its_header(tmp_path: Path, write_xlsx: Callable[..., None]) -> None:
    path = tmp_path / "t.xlsx"
    write_xlsx(path, [("", "Age"), ("ID", "")])
    assert read_spreadsheet(path, RecipeError, header_rows=3).shape == (0, 2)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"header_rows": 0}, "source: header_rows: expected a whole number from 1 on, got 0"),
        ({"header_rows": True}, "source: header_rows: expected a whole number from 1 on, got True"),
        ({"origin": "side"}, "source: origin: expected a column, and what it says in rows of the first table"),
        (
            {"origin": {"a": 1, "b": 2}},
            "source: origin: expected a column, and what it says in rows of the first table",
        ),
    ],
)
def test_malformed_keys_end_in_a_message(write_recipe: Writer, changed: dict[str, Any], expected: str) -> None:
    path = write_recipe(source={"table": "rows.csv", **changed})
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    assert str(caught.value) == f"{path}: {expected}"


def test_an_origin_is_a_column_of_its_own(tmp_path: Path, write_recipe: Writer, refusal: Callable[..., str]) -> None:
    (tmp_path / "rows.csv").write_text("who,eye\n1,left\n")
    path = write_recipe(source={"table": "rows.csv", "origin": {"eye": "OD"}})
    assert refusal(path, tmp_path) == "rows.csv: origin: the table has a column 'eye'; choose another name"
