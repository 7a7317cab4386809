"""ADNI: a collection's CSV file and ADNIMERGE.csv as the archive writes them, in miniature and invented."""

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_fair.data import build_manifest
from monai_fair.errors import RecipeError

SEARCH = "ADNI1_Complete_1Yr_1.5T_3_07_2022.csv"
SEARCH_HEADER = (
    '"Image Data ID","Subject","Group","Sex","Age","Visit","Modality","Description","Type","Acq Date","Format",'
    '"Downloaded"'
)
DESCRIPTION = "MPR; GradWarp; B1 Correction; N3; Scaled"
SCANS = (  # image, subject, group, sex, age, visit, day
    ("I45108", "002_S_0295", "CN", "M", "84", "sc", "4/18/2006"),
    ("I63874", "002_S_0295", "CN", "M", "85", "m12", "5/02/2007"),
    ("118680", "005_S_0221", "AD", "F", "75", "sc", "11/12/2005"),  # newer collections write the number alone
    ("I40966", "005_S_0222", "MCI", "F", "74", "sc", "2/02/2006"),
    ("I50000", "127_S_1427", "AD", "F", "70", "sc", "8/08/2007"),
    ("I60000", "023_S_0031", "CN", "F", "77", "sc", "1/23/2006"),
)
MERGE_HEADER = '"RID","COLPROT","ORIGPROT","PTID","SITE","VISCODE","EXAMDATE","DX_bl","AGE","PTGENDER","PTRACCAT","DX"'
VISITS = (  # subject, visit, day, race, diagnosis at the visit
    ("002_S_0295", "bl", "2006-04-18", "White", "CN"),
    ("002_S_0295", "m06", "2006-11-02", "White", ""),
    ("002_S_0295", "m12", "2007-05-25", "White", "MCI"),
    ("005_S_0221", "bl", "2005-11-12", "Unknown", "Dementia"),
    ("005_S_0221", "m06", "2006-05-12", "Black", "Dementia"),
    ("005_S_0222", "bl", "2006-02-02", "Asian", "MCI"),
    ("127_S_1427", "bl", "2008-08-08", "Am Indian/Alaskan", "Dementia"),
    ("127_S_1427", "m06", "2009-02-08", "More than one", "Dementia"),
)


def place(subject: str, image: str) -> str:
    number = image.removeprefix("I")
    scan = "2006-04-18_08_20_30.0"
    name = f"ADNI_{subject}_MR_MPR__GradWarp__B1_Correction__N3__Scaled_Br_20070319113623975_S13408_I{number}.nii"
    return f"ADNI/{subject}/MPR__GradWarp__B1_Correction__N3__Scaled/{scan}/I{number}/{name}"


def write_tables(root: Path, **changed: str) -> None:
    rows = [
        f'"{image}","{subject}","{group}","{sex}","{age}","{visit}","MRI","{DESCRIPTION}","Processed","{day}","NiFTI",""'
        for image, subject, group, sex, age, visit, day in SCANS
    ]
    visits = [
        f'"{number}","ADNI1","ADNI1","{subject}","{subject[:3]}","{visit}","{day}","","70.1","Male","{race}","{dx}"'
        for number, (subject, visit, day, race, dx) in enumerate(VISITS)
    ]
    for name, lines in ((SEARCH, [SEARCH_HEADER, *rows]), ("ADNIMERGE_12Jan2024.csv", [MERGE_HEADER, *visits])):
        text = "\n".join(lines) + "\n"
        for old, new in changed.items():
            text = text.replace(old, new)
        (root / name).write_text(text)


@pytest.fixture
def adni(tmp_path: Path, touch: Callable[..., None], write_split: Callable[..., Path]) -> Path:
    root = tmp_path / "archive"
    touch(root, *(place(subject, image) for image, subject, *_ in SCANS[:-1]))  # the last one was not downloaded
    write_tables(root)
    write_split({"002_S_0295": "train", "005_S_0221": "val", "005_S_0222": "test", "127_S_1427": "test"})
    return root


def build(root: Path, **options: str) -> list[list[str]]:
    table = build_manifest("adni", root, options=options, split=root.parent / "split.csv").table
    return table[["image_id", "label"]].to_numpy().tolist()


def test_every_row_of_adni(adni: Path) -> None:
    built = build_manifest("adni", adni, split=adni.parent / "split.csv")
    # race: Unknown and Black are Black; 127_S_1427 contradicts itself, so it stays empty. 75 is old.
    assert built.table.to_csv(index=False, lineterminator="\n") == (
        "subject_id,image,image_id,label,split,sex,age,age_group,race,site\n"
        f"002_S_0295,{place('002_S_0295', 'I45108')},I45108,0,train,male,84,>=75,White,002\n"
        f"002_S_0295,{place('002_S_0295', 'I63874')},I63874,0,train,male,85,>=75,White,002\n"
        f"005_S_0221,{place('005_S_0221', '118680')},118680,1,val,female,75,>=75,Black,005\n"
        f"127_S_1427,{place('127_S_1427', 'I50000')},I50000,1,test,female,70,<75,,127\n"
    )
    assert built.record["dropped"] == [
        {"reason": "no image", "n": 1, "subject_id": ["023_S_0031"]},
        {"reason": "label code is dropped by the recipe: MCI", "n": 1, "image_id": ["I40966"]},
    ]
    assert built.record["notes"] == [
        "ADNIMERGE_12Jan2024.csv: 7 rows of 3 PTID are taken together, one row each",
        "ADNIMERGE_12Jan2024.csv: 1 cells contradict each other and are left empty: "
        "127_S_1427 (PTRACCAT: Am Indian/Alaskan, More than one)",
        "ADNIMERGE_12Jan2024.csv: 5 of 5 rows have a row there",
    ]


def test_labels_by_group(adni: Path) -> None:
    assert build(adni, label="mci_cn") == [["I45108", "0"], ["I63874", "0"], ["I40966", "1"]]
    three = [["I45108", "0"], ["I63874", "0"], ["118680", "2"], ["I40966", "1"], ["I50000", "2"]]
    assert build(adni, label="three_classes") == three
    assert build(adni, sessions="first") == [["I45108", "0"], ["118680", "1"], ["I50000", "1"]]


def test_labels_by_the_nearest_visit(adni: Path) -> None:
    # I63874 of 2007-05-02: the visit of 2007-05-25 says MCI (23 days), so it is dropped; I50000 is a year before any
    built = build_manifest("adni", adni, options={"label": "visit"}, split=adni.parent / "split.csv")
    assert built.table[["image_id", "label"]].to_numpy().tolist() == [["I45108", "0"], ["118680", "1"]]
    assert built.record["dropped"][1:] == [
        {"reason": "label code is dropped by the recipe: MCI", "n": 2, "image_id": ["I63874", "I40966"]},
        {"reason": "label is missing", "n": 1, "image_id": ["I50000"]},
    ]
    assert built.record["notes"][-1] == (
        "ADNIMERGE_12Jan2024.csv: 4 of 5 rows have a row there within 183 days, at most 23 apart"
    )
    # within 10 days, and within 366: 2007-08-08 to 2008-08-08 is 366 days, because of 29 February
    assert build(adni, label="visit", within_days="10") == [["I45108", "0"], ["118680", "1"]]
    assert build(adni, label="visit", within_days="366") == [["I45108", "0"], ["118680", "1"], ["I50000", "1"]]
    assert build(adni, label="visit", within_days="365") == [["I45108", "0"], ["118680", "1"]]


def test_without_adnimerge(adni: Path, refusal: Callable[..., str]) -> None:
    (adni / "ADNIMERGE_12Jan2024.csv").unlink()
    assert refusal("adni", adni) == (
        f"{adni}: expected the metadata file ADNIMERGE.csv or ADNIMERGE*.csv, found none; check --root"
    )
    table = build_manifest("adni", adni, options={"adnimerge": "none"}, split=adni.parent / "split.csv").table
    assert list(table) == ["subject_id", "image", "image_id", "label", "split", "sex", "age", "age_group", "site"]


def test_two_collections_are_not_mixed(adni: Path, refusal: Callable[..., str]) -> None:
    (adni / "ADNI2_Screening_4_01_2023.csv").write_text(SEARCH_HEADER + "\n")
    pattern = "ADNI*_[0-9]*_[0-9]*_[0-9][0-9][0-9][0-9].csv"
    assert refusal("adni", adni) == (
        f"{adni}: expected one metadata file {pattern}, found 2: {SEARCH}, ADNI2_Screening_4_01_2023.csv; keep one"
    )
    assert len(build(adni, table=SEARCH)) == 4


@pytest.mark.parametrize("table", ["../secret.csv", "/etc/passwd"])
def test_a_table_outside_of_the_folder_is_refused(adni: Path, table: str, refusal: Callable[..., str]) -> None:
    for options, value in (({"table": table}, table), ({"image": table}, table)):
        said = refusal("adni", adni, options=options)
        assert said == f"{adni}: expected a path or pattern under this folder, got '{value}'"


def test_unknown_groups_dates_and_ids_are_named(adni: Path, refusal: Callable[..., str]) -> None:
    write_tables(adni, **{'"AD"': '"ad"'})
    with pytest.raises(RecipeError, match=r"label \(column 'Group'\): expected one of 'CN', 'AD', got 'ad' in 2 rows"):
        build_manifest("adni", adni)
    write_tables(adni, **{"11/12/2005": "2005-11-12", "005_S_0222": "0222"})
    assert refusal("adni", adni) == (
        "adni.yaml: 2 problems\n"
        "  1. column 'site_number': expected Subject like '([0-9]{3})_S_[0-9]{4,5}', got '0222' in 1 rows\n"
        "  2. column 'scan_date': expected Acq Date like '([0-9]{1,2})/([0-9]{1,2})/([0-9]{4})', "
        "got '2005-11-12' in 1 rows"
    )
    write_tables(adni, **{"118680": "45108"})
    assert refusal("adni", adni) == f"{adni}: expected one row per image_number, found 2 of '45108'"


def test_a_day_that_does_not_exist_is_named(adni: Path, refusal: Callable[..., str]) -> None:
    write_tables(adni, **{"2006-02-02": "2006-02-30"})
    assert refusal("adni", adni, options={"label": "visit"}) == (
        "ADNIMERGE_12Jan2024.csv: expected a whole number of days or a date such as 2006-04-18 in 'EXAMDATE', "
        "got '2006-02-30' in 1 rows"
    )
