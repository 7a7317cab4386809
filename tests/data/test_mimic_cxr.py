"""MIMIC-CXR-JPG with MIMIC-IV demographics: files as PhysioNet has them (names, columns, oddities), in miniature."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_fair.data import build_manifest, read_recipe

Writer = Callable[..., Path]
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
CXR, IV = "mimic-cxr-jpg/2.0.0", "mimiciv/2.2"
IMAGES = (  # dicom, subject, study, view, date
    ("02aa804e-bde0afdd", "10000032", "50414267", "PA", "21800506"),
    ("174413ec-4ec4c1f7", "10000032", "50414267", "LATERAL", "21800506"),
    ("68b5c4b1-227d0485", "10000032", "53911762", "AP", "21800723"),
    ("096052b7-d256dc40", "10000764", "57375967", "AP", "21321015"),
    ("b79e55c3-735ce5ac", "10000898", "50771383", "PA", "21880312"),
    ("8d0476be-64e9bdde", "10000935", "50578979", "AP", "21870823"),
    ("d0b71acc-b5a62046", "10000980", "50985099", "AP", "21890622"),
    ("24c5dfb1-83b8d2d8", "11000000", "51967283", "PA", "21500101"),
    ("4c3c1335-0fce9b11", "11000001", "50000001", "AP", "21500101"),
    ("44a0d2c7-6ff3eda6", "12000000", "50000002", "AP", "21500101"),
    ("03f11bb5-9a3d63c5", "12000001", "50000003", "", "21500101"),
    ("0c4eb1e1-b801903c", "12000002", "50000004", "PA", "21500101"),
)
EFFUSION = {  # study to label; 50000001 has no row of its own
    "50414267": "1.0", "53911762": "", "57375967": "0.0", "50771383": "1.0", "50578979": "-1.0", "50985099": "1.0",
    "51967283": "0.0", "50000002": "1.0", "50000003": "1.0", "50000004": "1.0",
}  # fmt: skip
PATIENTS = (  # subject, gender, anchor_age, anchor_year; 11000000 is not there
    ("10000032", "F", "52", "2180"),
    ("10000764", "M", "86", "2132"),
    ("10000898", "F", "79", "2188"),
    ("10000935", "F", "52", "2182"),
    ("10000980", "F", "57", "2186"),
    ("11000001", "M", "50", "2150"),
    ("12000000", "M", "0", "2145"),
    ("12000001", "M", "40", "2150"),
    ("12000002", "M", "58", "2148"),
    ("19999999", "M", "30", "2150"),
)
ADMISSIONS = (  # subject, race
    ("10000032", "WHITE"),
    ("10000032", "UNKNOWN"),
    ("10000032", "WHITE - RUSSIAN"),
    ("10000764", "BLACK/AFRICAN AMERICAN"),
    ("10000898", "WHITE"),
    ("10000898", "ASIAN - CHINESE"),
    ("10000935", "WHITE"),
    ("10000980", "HISPANIC/LATINO - CUBAN"),
    ("12000002", "UNABLE TO OBTAIN"),
    ("12000002", "UNKNOWN"),
)
OFFICIAL = {"10000032": "train", "10000764": "validate", "10000980": "test", "12000002": "train"}


def gz(path: Path, header: str, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(("\n".join([header, *rows]) + "\n").encode()))


def place(dicom: str) -> str:
    _, subject, study, *_ = next(image for image in IMAGES if image[0] == dicom)
    return f"{CXR}/files/p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"


@pytest.fixture
def mimic(tmp_path: Path, touch: Callable[..., None]) -> Writer:
    """Write both databases as wget leaves them under one folder, and return it."""

    def write(*, race: str = "race", hosp: str = f"{IV}/hosp") -> Path:
        root = tmp_path / "physionet"
        touch(root, *(place(image[0]) for image in IMAGES))
        metadata = [
            f"{dicom},{subject},{study},CHEST (PA AND LAT),{view},3056,2544,{date},213014.531"
            for dicom, subject, study, view, date in IMAGES
        ]
        header = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate"
        gz(root / CXR / "mimic-cxr-2.0.0-metadata.csv.gz", f"{header},StudyTime", metadata)
        subject_of = {study: subject for _, subject, study, *_ in IMAGES}
        for labeler, labels in (("chexpert", EFFUSION), ("negbio", dict.fromkeys(EFFUSION, "0.0"))):
            rows = [
                ",".join([subject_of[study], study, *({"Pleural Effusion": label}.get(name, "") for name in FINDINGS)])
                for study, label in labels.items()
            ]
            gz(root / CXR / f"mimic-cxr-2.0.0-{labeler}.csv.gz", ",".join(["subject_id,study_id", *FINDINGS]), rows)
        split = [f"{dicom},{study},{subject},{OFFICIAL.get(subject, 'train')}" for dicom, subject, study, *_ in IMAGES]
        gz(root / CXR / "mimic-cxr-2.0.0-split.csv.gz", "dicom_id,study_id,subject_id,split", split)
        patients = [f"{subject},{sex},{age},{year},2011 - 2013," for subject, sex, age, year in PATIENTS]
        header = "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod"
        gz(root / hosp / "patients.csv.gz", header, patients)
        admissions = [
            f"{subject},2{n:07d},2180-05-06 22:23:00,Other,{race}" for n, (subject, race) in enumerate(ADMISSIONS)
        ]
        gz(root / hosp / "admissions.csv.gz", f"subject_id,hadm_id,admittime,insurance,{race}", admissions)
        return root

    return write


@pytest.fixture
def split(write_split: Callable[..., Path]) -> Path:
    return write_split({subject: "train" for _, subject, *_ in IMAGES})


def test_every_row_of_mimic_cxr(mimic: Writer, split: Path) -> None:
    built = build_manifest("mimic_cxr", mimic(), split=split)
    # age: 52 + 2180 - 2180; 86 + 2132 - 2132; 57 + 2189 - 2186 = 60; 58 + 2150 - 2148 = 60
    # race: WHITE and WHITE - RUSSIAN are White, UNKNOWN contradicts nothing; of 12000002 nothing is known
    rows = (
        ("10000032", "02aa804e-bde0afdd", "1,train,female,52,<60,White,PA"),
        ("10000032", "68b5c4b1-227d0485", "0,train,female,52,<60,White,AP"),
        ("10000764", "096052b7-d256dc40", "0,train,male,86,>=60,Non-White,AP"),
        ("10000980", "d0b71acc-b5a62046", "1,train,female,60,>=60,Non-White,AP"),
        ("12000002", "0c4eb1e1-b801903c", "1,train,male,60,>=60,,PA"),
    )
    assert built.table.to_csv(index=False, lineterminator="\n") == (
        "subject_id,image,image_id,label,split,sex,age,age_group,race,view\n"
        + "".join(f"{subject},{place(dicom)},{dicom},{rest}\n" for subject, dicom, rest in rows)
    )
    no_row = f"no row in {CXR}/mimic-cxr-2.0.0-chexpert.csv.gz"
    assert [(entry["reason"], entry["image_id"]) for entry in built.record["dropped"]] == [
        ("age is missing; age_group is missing", ["44a0d2c7-6ff3eda6"]),  # an anchor_age of 0
        ("label code is dropped by the recipe: -1.0", ["8d0476be-64e9bdde"]),
        (no_row, ["4c3c1335-0fce9b11"]),
        ("projection is not one that the recipe keeps: LATERAL", ["174413ec-4ec4c1f7"]),
        ("projection is not one that the recipe keeps: empty", ["03f11bb5-9a3d63c5"]),
        ("race code is dropped by the recipe: admissions differ", ["b79e55c3-735ce5ac"]),
        ("sex is missing; age is missing; age_group is missing", ["24c5dfb1-83b8d2d8"]),  # not among the patients
    ]
    admissions = f"{IV}/hosp/admissions.csv.gz"
    assert built.record["notes"] == [
        f"{CXR}/mimic-cxr-2.0.0-chexpert.csv.gz: 11 of 12 rows have a row there",
        f"{IV}/hosp/patients.csv.gz: 11 of 12 rows have a row there",
        f"{admissions}: 7 rows of 3 subject_id are taken together, one row each",
        f"{admissions}: 3 cells contradict each other and say 'admissions differ': "
        "10000032 (race: WHITE, WHITE - RUSSIAN); 10000898 (race: WHITE, ASIAN - CHINESE); "
        "10000898 (race_word: WHITE, ASIAN)",
        f"{admissions}: 8 of 12 rows have a row there",
    ]


def test_names_of_attributes_and_groups_are_those_of_chexpert() -> None:
    """So that a model of one dataset, with its thresholds, is tested on the other."""
    for options in ({}, {"race_rule": "exact"}, {"race_rule": "black_white_asian"}, {"view": "all"}):
        ours, theirs = (read_recipe(name, options).content for name in ("mimic_cxr", "chexpert"))
        assert list(ours["attributes"]) == list(theirs["attributes"])
        for name, rule in ours["attributes"].items():
            groups = set(rule.get("groups", {})) - {"other"}  # MIMIC alone has oblique views
            assert groups == set(theirs["attributes"][name].get("groups", {}))
        for key in ("label", "stratify", "split"):
            assert ours[key] == theirs[key]
        assert ours["attributes"]["age_group"]["bins"] == theirs["attributes"]["age_group"]["bins"]


@pytest.mark.parametrize(
    ("options", "column", "expected"),
    [
        # the rows that stay: two of 10000032, 10000764, 10000980, 12000002
        ({}, "label", "10011"),
        ({"labeler": "negbio"}, "label", "000000"),  # 10000935 is not uncertain there
        ({"uncertain": "one"}, "label", "100111"),
        ({"uncertain": "fcro"}, "label", "100011"),
        ({"finding": "Edema"}, "label", "000000"),
        ({"age_equal": "below"}, "age_group", ["<=60", "<=60", ">60", "<=60", "<=60"]),
        # as strings WHITE and WHITE - RUSSIAN differ, so 10000032 is dropped
        ({"race_rule": "exact"}, "race", ["Non-White", "Non-White", ""]),
        ({"race_rule": "black_white_asian"}, "race", ["White", "White", "Black"]),
        ({"race_missing": "drop"}, "race", ["White", "White", "Non-White", "Non-White"]),
        # with 12000001, whose view is not said
        ({"view": "all"}, "view", ["frontal", "lateral", "frontal", "frontal", "frontal", "", "frontal"]),
        # 10000935 is in train, but its label is uncertain
        ({"split": "official"}, "split", ["train", "train", "val", "test", "train"]),
    ],
)
def test_options(mimic: Writer, split: Path, options: dict[str, str], column: str, expected: list[str]) -> None:
    given = None if "split" in options else split
    built = build_manifest("mimic_cxr", mimic(), options=options, split=given)
    assert built.table[column].tolist() == list(expected)


def test_the_official_split_stands_in_the_record(mimic: Writer) -> None:
    built = build_manifest("mimic_cxr", mimic(), options={"split": "official"})
    assert built.record["split"] == {
        "from": "column split",
        "groups": {"train": ["train"], "val": ["validate"], "test": ["test"]},
    }
    assert f"{CXR}/mimic-cxr-2.0.0-split.csv.gz" in built.record["sources"]


def test_mimic_iv_before_2_names_race_ethnicity_and_lies_in_core(mimic: Writer, split: Path) -> None:
    root = mimic(race="ethnicity", hosp="mimiciv/1.0/core")
    table = build_manifest("mimic_cxr", root, split=split).table
    assert table["race"].tolist() == ["White", "White", "Non-White", "Non-White", ""]


def test_unpacked_tables_are_read_too(mimic: Writer, split: Path) -> None:
    root = mimic()
    expected = build_manifest("mimic_cxr", root, split=split).table
    for path in list(root.rglob("*.csv.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert build_manifest("mimic_cxr", root, split=split).table.equals(expected)


def test_every_missing_file_is_named_in_one_message(mimic: Writer, refusal: Callable[..., str]) -> None:
    root = mimic()
    for path in root.rglob("*.csv.gz"):
        path.unlink()

    def wanted(name: str, others: int) -> str:
        return (
            f"expected the metadata file {name} (or under one of {others} other names and places, see the recipe), "
            "found none; check --root"
        )

    expected = [
        wanted("mimic-cxr-2.0.0-metadata.csv.gz", 3),
        wanted("mimic-cxr-2.0.0-chexpert.csv.gz", 3),
        wanted("hosp/patients.csv.gz", 6),
        wanted("hosp/admissions.csv.gz", 6),
    ]
    assert refusal("mimic_cxr", root).splitlines() == [
        f"{root}: 4 problems",
        *(f"  {number}. {text}" for number, text in enumerate(expected, start=1)),
    ]
    said = refusal("mimic_cxr", root, options={"split": "official", "labeler": "negbio"})
    assert wanted("mimic-cxr-2.0.0-negbio.csv.gz", 3) in said
    assert wanted("mimic-cxr-2.0.0-split.csv.gz", 3) in said


def test_two_versions_of_mimic_iv_are_not_mixed(mimic: Writer, refusal: Callable[..., str]) -> None:
    root = mimic()
    mimic(hosp="mimiciv/3.1/hosp")
    assert refusal("mimic_cxr", root) == (
        f"{root}: expected one metadata file */*/hosp/patients.csv*, found 2: mimiciv/2.2/hosp/patients.csv.gz, "
        "mimiciv/3.1/hosp/patients.csv.gz; keep one"
    )


def test_a_damaged_gz_file_is_named(mimic: Writer, refusal: Callable[..., str]) -> None:
    root = mimic()
    path = root / CXR / "mimic-cxr-2.0.0-chexpert.csv.gz"
    path.write_bytes(path.read_bytes()[:-20])
    assert refusal("mimic_cxr", root).startswith(f"{path}: expected a whole gzip file;")


def rewrite(path: Path, old: str, new: str) -> None:
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new).encode()))


def test_unknown_codes_are_named(mimic: Writer, refusal: Callable[..., str]) -> None:
    root = mimic()
    fix = "name the code in the recipe (under a group, 'missing' or 'drop')"
    rewrite(root / CXR / "mimic-cxr-2.0.0-chexpert.csv.gz", "-1.0", "2.0")
    rewrite(root / IV / "hosp" / "patients.csv.gz", "10000764,M,86", "10000764,X,186")
    assert refusal("mimic_cxr", root).splitlines() == [
        f"{root}: 3 problems",
        "  1. label (column 'Pleural Effusion'): expected one of '', '0', '0.0', '1', '1.0', "
        f"got '2.0' in 1 rows; {fix}",
        f"  2. sex (column 'gender'): expected one of 'F', 'M', got 'X' in 1 rows; {fix}",
        "  3. age (column 'study_age'): expected a number from 0 to 120, got '186' in 1 rows",
    ]


def test_a_race_that_the_recipe_does_not_know_is_named(mimic: Writer, refusal: Callable[..., str]) -> None:
    root = mimic()
    rewrite(root / IV / "hosp" / "admissions.csv.gz", "BLACK/AFRICAN AMERICAN", "Black")
    said = refusal("mimic_cxr", root)
    assert said.startswith(f"{IV}/hosp/admissions.csv.gz: column 'race_word': expected race like '(WHITE|BLACK|")
    assert said.endswith("got 'Black' in 1 rows")


def test_an_unknown_finding_and_a_missing_column_are_named(mimic: Writer, refusal: Callable[..., str]) -> None:
    root = mimic()
    said = refusal("mimic_cxr", root, options={"finding": "Effusion"})
    assert said.startswith(f"{CXR}/mimic-cxr-2.0.0-chexpert.csv.gz: expected a column 'Effusion' (to join), found ")
    rewrite(root / IV / "hosp" / "admissions.csv.gz", "insurance,race", "insurance,colour")
    assert refusal("mimic_cxr", root) == (
        f"{IV}/hosp/admissions.csv.gz: expected a column 'race' (for column 'race_word'), found "
        "subject_id, hadm_id, admittime, insurance, colour"
    )


def test_a_part_of_the_images_may_be_enough(mimic: Writer, refusal: Callable[..., str], split: Path) -> None:
    root = mimic()
    image = place("096052b7-d256dc40")
    (root / image).unlink()
    looked = f"the folder of {CXR}/mimic-cxr-2.0.0-metadata.csv.gz"
    assert refusal("mimic_cxr", root) == (
        f"{root}: expected 5 images in {looked}; 1 are not there: {image.removeprefix(f'{CXR}/')}"
    )
    built = build_manifest("mimic_cxr", root, options={"without_image": "drop"}, split=split)
    assert "10000764" not in set(built.table["subject_id"])
    assert {"reason": "no image", "n": 1, "image_id": ["096052b7-d256dc40"]} in built.record["dropped"]
