"""CheXpert with its demographics workbook: files as they are published (names, columns, oddities), in miniature."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from monai_fair.data import build_manifest, read_recipe
from monai_fair.errors import RecipeError

Writer = Callable[..., Path]
FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
HEADER = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS)
Row = tuple[str, str, str, str, str]  # study, sex, age, view, effusion; the other findings follow from the place
ROWS: tuple[Row, ...] = (
    ("patient00001/study1/view1_frontal", "Female", "68", "AP", "0.0"),
    ("patient00001/study1/view2_lateral", "Female", "68", "", "0.0"),
    ("patient00001/study2/view1_frontal", "Female", "59", "PA", "1.0"),
    ("patient00002/study1/view1_frontal", "Male", "60", "AP", ""),
    ("patient00003/study1/view1_frontal", "Male", "41", "AP", "-1.0"),
    ("patient00004/study1/view1_frontal", "Unknown", "20", "AP", "1.0"),
    ("patient00005/study1/view1_frontal", "Male", "0", "PA", "1.0"),
    ("patient00006/study1/view1_frontal", "Female", "90", "LL", "1.0"),
    ("patient00007/study1/view1_frontal", "Male", "33", "PA", "0.0"),
    ("patient00008/study1/view1_frontal", "Female", "50", "PA", "1.0"),
)
VALID: tuple[Row, ...] = (("patient64541/study1/view1_frontal", "Male", "73", "AP", "1.0"),)
WORKBOOK: tuple[tuple[str, str, int, str, str], ...] = (  # 00007 is not there
    ("patient00002", "Male", 59, "Black or African American", "Not Hispanic"),
    ("patient00001", "Female", 60, "White", "Non-Hispanic/Non-Latino"),
    ("patient00003", "Male", 41, "White, Hispanic", "Hispanic/Latino"),
    ("patient00004", "Female", 20, "White", "Unknown"),
    ("patient00005", "Male", 22, "Asian - Historical Conv", "Non-Hispanic/Non-Latino"),
    ("patient00006", "Female", 88, "White, non-Hispanic", "Non-Hispanic/Non-Latino"),
    ("patient00008", "Female", 50, "Patient Refused", "Patient Refused"),
    ("patient64541", "Male", 73, "Other", "Non-Hispanic/Non-Latino"),
)
PARTS = {"00001": "train", "00002": "val", "00006": "test", "00007": "test", "00008": "train", "64541": "val"}


def lines(folder: str, rows: Sequence[Row], prefix: str) -> list[str]:
    cells = []
    for study, sex, age, view, effusion in rows:
        side = "Lateral" if study.endswith("lateral") else "Frontal"
        findings = dict.fromkeys(FINDINGS, "") | {
            "Pleural Effusion": effusion,
            "No Finding": "1.0" if age < "4" else "",
        }
        findings |= {"Edema": "-1.0" if view == "AP" else "0.0", "Pneumonia": "-1.0" if view == "AP" else "1.0"}
        cells.append(",".join([f"{prefix}{folder}/{study}.jpg", sex, age, side, view, *findings.values()]))
    return [",".join(HEADER), *cells]


@pytest.fixture
def chexpert(tmp_path: Path, touch: Callable[..., None], write_xlsx: Callable[..., None]) -> Writer:
    """Write CheXpert, small or full, and the workbook beside its folder; return the folder above it."""

    def write(release: str = "CheXpert-v1.0-small", *, rows: Sequence[Row] = ROWS, workbook: bool = True) -> Path:
        root = tmp_path / "stanford"
        for folder, listed in (("train", rows), ("valid", VALID)):
            touch(root / release, *(f"{folder}/{study}.jpg" for study, *_ in listed))
            text = "\n".join(lines(folder, listed, f"{release}/"))
            (root / release / f"{folder}.csv").write_text(text + "\n")
        if workbook:
            header = ("PATIENT", "GENDER", "AGE_AT_CXR", "PRIMARY_RACE", "ETHNICITY")
            write_xlsx(root / "CHEXPERT DEMO.xlsx", [header, *WORKBOOK])
        return root

    return write


@pytest.fixture
def split(write_split: Callable[..., Path]) -> Path:
    return write_split({f"patient{who}": part for who, part in PARTS.items()})


@pytest.mark.parametrize("release", ["CheXpert-v1.0-small", "CheXpert-v1.0"])
def test_every_row_of_chexpert(chexpert: Writer, split: Path, release: str) -> None:
    root = chexpert(release)
    built = build_manifest("chexpert", root, split=split)
    at = f"{release}/train"
    # blank is no effusion; 60 is old; LL is no AP or PA; 00007 is not in the workbook, 00008 refused to tell
    expected = (
        "subject_id,image,image_id,label,split,sex,age,age_group,race,view\n"
        f"patient00001,{at}/patient00001/study1/view1_frontal.jpg,patient00001_study1_view1_frontal,"
        "0,train,female,68,>=60,White,AP\n"
        f"patient00001,{at}/patient00001/study2/view1_frontal.jpg,patient00001_study2_view1_frontal,"
        "1,train,female,59,<60,White,PA\n"
        f"patient00002,{at}/patient00002/study1/view1_frontal.jpg,patient00002_study1_view1_frontal,"
        "0,val,male,60,>=60,Non-White,AP\n"
        f"patient00006,{at}/patient00006/study1/view1_frontal.jpg,patient00006_study1_view1_frontal,"
        "1,test,female,90,>=60,White,\n"
        f"patient00007,{at}/patient00007/study1/view1_frontal.jpg,patient00007_study1_view1_frontal,"
        "0,test,male,33,<60,,PA\n"
        f"patient00008,{at}/patient00008/study1/view1_frontal.jpg,patient00008_study1_view1_frontal,"
        "1,train,female,50,<60,,PA\n"
    )
    assert built.table.to_csv(index=False, lineterminator="\n") == expected
    assert built.record["dropped"] == [
        {
            "reason": "age is missing; age_group is missing",
            "n": 1,
            "image_id": ["patient00005_study1_view1_frontal"],
        },
        {
            "reason": "label code is dropped by the recipe: -1.0",
            "n": 1,
            "image_id": ["patient00003_study1_view1_frontal"],
        },
        {
            "reason": "projection is not one that the recipe keeps: Lateral",
            "n": 1,
            "image_id": ["patient00001_study1_view2_lateral"],
        },
        {"reason": "sex is missing", "n": 1, "image_id": ["patient00004_study1_view1_frontal"]},
    ]
    assert built.record["notes"] == ["CHEXPERT DEMO.xlsx: 9 of 10 rows have a row there"]
    assert list(built.record["sources"]) == [f"{release}/train.csv", "CHEXPERT DEMO.xlsx"]


def test_the_root_may_be_the_folder_itself_and_the_workbook_a_csv(chexpert: Writer, split: Path) -> None:
    root = chexpert()
    whole = build_manifest("chexpert", root, split=split).table
    folder = root / "CheXpert-v1.0-small"
    workbook = ["PATIENT,GENDER,AGE_AT_CXR,PRIMARY_RACE,ETHNICITY"]
    workbook += [f'{who},{sex},{age},"{race}",{ethnicity}' for who, sex, age, race, ethnicity in WORKBOOK]
    (folder / "CHEXPERT_DEMO.csv").write_text("\n".join(workbook) + "\n")
    table = build_manifest("chexpert", folder, split=split).table
    assert table["image"].tolist() == [image.removeprefix("CheXpert-v1.0-small/") for image in whole["image"]]
    pd.testing.assert_frame_equal(table.drop(columns="image"), whole.drop(columns="image"))


def test_the_cross_table_of_race_strings_by_group(chexpert: Writer, split: Path) -> None:
    def told(rule: str) -> dict[str, tuple[str, int, int, int]]:
        built = build_manifest("chexpert", chexpert(), options={"race_rule": rule}, split=split)
        cells = built.record["codes"]["race"]
        return {cell["code"]: (cell["group"], cell["n"], cell["n_subjects"], cell["n_dropped"]) for cell in cells}

    # 00003 to 00005 are dropped for other reasons; the lateral view of 00001 is filtered before the rule reads it
    assert told("contains") == {
        "": ("missing", 1, 1, 0),
        "Patient Refused": ("missing", 1, 1, 0),
        "Asian - Historical Conv": ("Non-White", 0, 0, 1),
        "Black or African American": ("Non-White", 1, 1, 0),
        "White": ("White", 2, 1, 1),
        "White, Hispanic": ("White", 0, 0, 1),
        "White, non-Hispanic": ("White", 1, 1, 0),
    }
    exact = told("exact")
    assert exact["White, non-Hispanic"] == ("Non-White", 1, 1, 0)
    assert exact["White"] == ("White", 2, 1, 1)
    assert exact["Patient Refused"] == ("missing", 1, 1, 0)


@pytest.mark.parametrize(
    ("options", "column", "expected"),
    [
        # the rows that stay: 00001 study 1 and 2, 00002, 00006, 00007, 00008
        ({}, "label", "010101"),
        # only 00007 has no finding; 00003, whose effusion is uncertain, stays when another finding is the label
        ({"finding": "No Finding"}, "label", "0000010"),
        ({"finding": "No Finding", "positive": "absent"}, "label", "1111101"),
        ({"finding": "Fracture"}, "label", "0000000"),
        ({"uncertain": "zero"}, "label", "0100101"),
        ({"uncertain": "one"}, "label", "0101101"),
        ({"uncertain": "fcro"}, "label", "0100101"),
        # AP images have an uncertain edema and pneumonia, PA and LL ones no edema and a pneumonia
        ({"finding": "Edema"}, "label", "0000"),
        ({"finding": "Edema", "uncertain": "fcro"}, "label", "1011000"),
        ({"finding": "Pneumonia", "uncertain": "fcro"}, "label", "0100111"),
        ({"finding": "Pneumonia", "uncertain": "one"}, "label", "1111111"),
        ({"age_equal": "below"}, "age_group", [">60", "<=60", "<=60", ">60", "<=60", "<=60"]),
        ({"age_cut": "68"}, "age_group", [">=68", "<68", "<68", ">=68", "<68", "<68"]),
        # the workbook has one age per patient: 60 60 59 88, none for 00007, 50; and 22 for 00005
        ({"age_source": "workbook"}, "age", ["60", "60", "59", "22", "88", "50"]),
        ({"race_rule": "exact"}, "race", ["White", "White", "Non-White", "Non-White", "", ""]),
        ({"race_missing": "drop"}, "race", ["White", "White", "Non-White", "White"]),
        # without 00007, who is not in the workbook; who refused to tell is Non-White as in FairREAD's code
        ({"race_rule": "fairread"}, "race", ["White", "White", "Non-White", "Non-White", "Non-White"]),
        ({"race_rule": "black_white_asian"}, "race", ["White", "White", "Black", "White"]),
        ({"view": "all"}, "view", ["frontal", "lateral", "frontal", "frontal", "frontal", "frontal", "frontal"]),
        ({"valid": "add"}, "image_id", None),
    ],
)
def test_options(
    chexpert: Writer, write_split: Callable[..., Path], options: dict[str, str], column: str, expected: Sequence[str]
) -> None:
    split = write_split({f"patient{number:05d}": "train" for number in (*range(1, 9), 64541)})
    built = build_manifest("chexpert", chexpert(), options=options, split=split)
    found = built.table[column].tolist()
    if expected is None:
        assert found[-1] == "patient64541_study1_view1_frontal"
        assert built.table["image"].iloc[-1] == "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg"
        assert list(built.record["sources"])[1] == "CheXpert-v1.0-small/valid.csv"
    else:
        assert found == list(expected)


def test_three_races_are_of_those_on_record_as_not_hispanic(chexpert: Writer, split: Path) -> None:
    built = build_manifest("chexpert", chexpert(), options={"race_rule": "black_white_asian"}, split=split)
    reasons = {entry["reason"]: entry["n"] for entry in built.record["dropped"]}
    assert reasons["ethnicity is not one that the recipe keeps: Hispanic/Latino"] == 1
    assert reasons["ethnicity is not one that the recipe keeps: empty"] == 1
    assert reasons["ethnicity is not one that the recipe keeps: Patient Refused"] == 1
    assert set(built.table["subject_id"]) == {"patient00001", "patient00002", "patient00006"}


def many(patients: int) -> tuple[Row, ...]:
    """Two studies per patient, of which every third has one effusion, and sexes and ages of all kinds."""
    return tuple(
        (
            f"patient{who:05d}/study{study}/view1_frontal",
            ("Female", "Male")[who % 2],
            str(40 + who % 40),
            "AP",
            effusion,
        )
        for who in range(1, patients + 1)
        for study, effusion in ((1, "0.0"), (2, "1.0" if who % 3 == 0 else ""))
    )


def test_folds_are_of_patients_and_test_is_the_same_in_all(chexpert: Writer) -> None:
    root = chexpert(rows=many(100))
    built = [build_manifest("chexpert", root, options={"split": "folds", "fold": fold}, seed=3) for fold in range(5)]
    parts = [one.table.groupby("subject_id")["split"].agg(["nunique", "first"]) for one in built]
    assert all((part["nunique"] == 1).all() for part in parts)
    # 15 of 100 patients are test; the other 85 make five folds of 17, each val once
    assert [part["first"].value_counts().to_dict() for part in parts] == [{"train": 68, "val": 17, "test": 15}] * 5
    tests = {frozenset(part.index[part["first"] == "test"]) for part in parts}
    assert len(tests) == 1
    folds = [set(part.index[part["first"] == "val"]) for part in parts]
    assert set.union(*folds) == set(parts[0].index) - set(*tests)
    assert sum(map(len, folds)) == 85
    assert built[2].record["split"] == {
        "from": "subjects",
        "test": 0.15,
        "folds": 5,
        "fold": 2,
        "stratify": ["label", "sex", "age_group", "race"],
        "seed": 3,
    }


def test_shares_are_of_patients(chexpert: Writer) -> None:
    table = build_manifest("chexpert", chexpert(rows=many(50))).table
    parts = table.groupby("subject_id")["split"].agg(["nunique", "first"])
    assert (parts["nunique"] == 1).all()
    assert parts["first"].value_counts().to_dict() == {"train": 30, "test": 15, "val": 5}


@pytest.mark.parametrize("fold", ["5", "-1", "0.5"])
def test_a_fold_that_there_is_not(fold: str) -> None:
    with pytest.raises(RecipeError, match=rf"split: fold: expected a whole number from 0 to 4, got {fold}$"):
        read_recipe("chexpert", {"split": "folds", "fold": fold})


def test_a_missing_workbook_is_named(chexpert: Writer, refusal: Callable[..., str]) -> None:
    root = chexpert(workbook=False)
    wanted = "(or under one of 4 other names and places, see the recipe), found none; check --root"
    assert refusal("chexpert", root) == f"{root}: expected the metadata file CHEXPERT DEMO.xlsx {wanted}"
    (root / "CheXpert-v1.0-small" / "train.csv").unlink()
    assert refusal("chexpert", root) == (
        f"{root}: 2 problems\n"
        "  1. expected the metadata file train.csv or */train.csv, found none; check --root\n"
        f"  2. expected the metadata file CHEXPERT DEMO.xlsx {wanted}"
    )


def test_a_path_of_another_form_is_named(chexpert: Writer, refusal: Callable[..., str]) -> None:
    root = chexpert()
    table = root / "CheXpert-v1.0-small" / "train.csv"
    table.write_text(table.read_text().replace("CheXpert-v1.0-small/train/patient00007/study1/", "images/7/"))
    pattern = read_recipe("chexpert").content["columns"]["file"]["match"]
    assert refusal("chexpert", root) == (
        f"chexpert.yaml: column 'file': expected Path like '{pattern}', got 'images/7/view1_frontal.jpg' in 1 rows"
    )


def test_unknown_codes_are_named(chexpert: Writer, refusal: Callable[..., str], split: Path) -> None:
    rows = (*ROWS[:4], ("patient00009/study1/view1_frontal", "Other", "abc", "XX", "2.0"))
    root = chexpert(rows=rows)
    fix = "name the code in the recipe (under a group, 'missing' or 'drop')"
    assert refusal("chexpert", root).splitlines() == [
        f"{root}: 5 problems",
        "  1. label (column 'Pleural Effusion'): expected one of '', '0', '0.0', '1', '1.0', "
        f"got '2.0' in 1 rows; {fix}",
        f"  2. sex (column 'Sex'): expected one of 'Female', 'Male', got 'Other' in 1 rows; {fix}",
        "  3. age (column 'Age'): expected a number from 0 to 120, got 'abc' in 1 rows",
        "  4. age_group (column 'Age'): expected a number, got 'abc' in 1 rows",
        f"  5. view (column 'AP/PA'): expected one of 'AP', 'PA', got 'XX' in 1 rows; {fix}",
    ]


def test_an_unknown_race_string_is_no_group(
    chexpert: Writer, refusal: Callable[..., str], write_xlsx: Callable[..., None]
) -> None:
    root = chexpert()
    header = ("PATIENT", "GENDER", "AGE_AT_CXR", "PRIMARY_RACE", "ETHNICITY")
    write_xlsx(root / "CHEXPERT DEMO.xlsx", [header, ("patient00001", "Female", 60, "white", "Unknown")])
    for rule in ("contains", "exact", "fairread", "black_white_asian"):
        said = refusal("chexpert", root, options={"race_rule": rule})
        if rule == "black_white_asian":
            assert "every row is dropped" in said
        else:
            assert "race (column 'PRIMARY_RACE'): expected one of 'White'" in said
            assert "got 'white' in 2 rows" in said


def test_an_unknown_finding_is_named(chexpert: Writer, refusal: Callable[..., str]) -> None:
    said = refusal("chexpert", chexpert(), options={"finding": "Effusion"})
    assert said.startswith("chexpert.yaml: expected a column 'Effusion' (for label), found Path, Sex, Age,")


def test_images_that_are_not_there(chexpert: Writer, refusal: Callable[..., str], split: Path) -> None:
    root = chexpert()
    image = "train/patient00001/study2/view1_frontal.jpg"
    (root / "CheXpert-v1.0-small" / image).unlink()
    assert refusal("chexpert", root) == (
        f"{root}: expected 6 images in the folder of CheXpert-v1.0-small/train.csv; 1 are not there: {image}"
    )
    built = build_manifest("chexpert", root, options={"without_image": "drop"}, split=split)
    assert len(built.table) == 5
    entry = {"reason": "no image", "n": 1, "image_id": ["patient00001_study2_view1_frontal"]}
    assert entry in built.record["dropped"]


def test_valid_csv_with_other_columns(chexpert: Writer, refusal: Callable[..., str]) -> None:
    root = chexpert()
    (root / "CheXpert-v1.0-small" / "valid.csv").write_text("Path,Sex\nCheXpert-v1.0/valid/p/s/v.jpg,Male\n")
    said = refusal("chexpert", root, options={"valid": "add"})
    assert said.startswith(
        "CheXpert-v1.0-small/valid.csv: expected the columns of CheXpert-v1.0-small/train.csv, Path, Sex, Age,"
    )
    assert said.endswith("; found Path, Sex")
