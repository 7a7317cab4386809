"""OASIS-3: its tables, and scans as its download script lays them out, in miniature and invented."""

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_fair.data import build_manifest
from monai_fair.errors import RecipeError

OASIS3_DEMOGRAPHICS = (
    "OASISID,Subject_accession,AgeatEntry,AgeatDeath,GENDER,EDUC,SES,racecode,race,AIAN,NHPI,ASIAN,AA,WHITE,"
    "ETHNIC,daddem,momdem,HAND,APOE",
    "OAS30001,,65.1951,,2,12,2,5,White,0,0,0,0,1,0,0,1,R,23",
    "OAS30002,,69.6482,85.1,1,18,1,4,Black,0,0,0,1,0,0,1,0,R,#N/A",
    "OAS30003,,58.0,,2,16,,0,Unknown,,,,,,,5,5,,0",
    "OAS30004,,80.5,,1,16,,6,more than one,1,0,0,0,1,0,5,5,L,33",
)
OASIS3_CDR = (
    "OASISID,OASIS_session_label,days_to_visit,age at visit,MMSE,memory,orient,judgment,commun,homehobb,perscare,"
    "CDRSUM,CDRTOT,dx1_code,dx1",
    "OAS30001,OAS30001_UDSb4_d0000,0000,65.20,29,0,0,0,0,0,0,0,0,1,Cognitively normal",
    "OAS30001,OAS30001_UDSb4_d0339,0339,66.12,28,0,0,0,0,0,0,0,,1,Cognitively normal",
    "OAS30001,OAS30001_UDSb4_d2000,2000,70.67,20,1,0.5,0,0,0,0,1.5,0.5,2,AD Dementia",
    "OAS30002,OAS30002_UDSb4_d0100,0100,69.92,25,1,1,1,1,1,0,5,1.0,2,AD Dementia",
    "OAS30002,OAS30002_UDSb4_d0300,0300,70.47,25,2,2,2,2,2,2,12,2,2,AD Dementia",
)
OASIS3_IMAGES = (
    "OAS30001_MR_d0129/anat2/sub-OAS30001_ses-d0129_run-02_T1w.nii.gz",
    "OAS30001_MR_d0129/anat1/sub-OAS30001_ses-d0129_run-01_T1w.nii.gz",
    "OAS30001_MR_d0129/anat1/sub-OAS30001_ses-d0129_run-01_T1w.json",
    "OAS30001_MR_d0129/anat4/sub-OAS30001_ses-d0129_acq-TSE_T2w.nii.gz",
    "OAS30001_MR_d1900/anat1/NIFTI/sub-OAS30001_ses-d1900_T1w.nii.gz",
    "OAS30001_MR_d2366/anat1/NIFTI/sub-OAS30001_ses-d2366_T1w.nii.gz",
    "OAS30002_MR_d0200/anat1/sub-OAS30002_sess-d0200_T1w.nii.gz",
    "OAS30002_MR_d0200/anat2/sub-OAS30002_ses-d0200_acq-iso_T1w.nii.gz",
    "OAS30004_MR_d0010/anat1/sub-OAS30004_ses-d0010_T1w.nii.gz",
    "OAS39999_MR_d0010/anat1/sub-OAS39999_ses-d0010_T1w.nii.gz",
)
OASIS3_PARTS = {"OAS30001": "train", "OAS30002": "val", "OAS30004": "test"}


@pytest.fixture
def oasis3(tmp_path: Path, touch: Callable[..., None], write_split: Callable[..., Path]) -> Path:
    root = tmp_path / "OASIS-3"
    touch(root, *OASIS3_IMAGES)
    files = root / "OASIS3_data_files" / "scans"
    for folder, name, lines in (
        ("demo-demographics", "OASIS3_demographics.csv", OASIS3_DEMOGRAPHICS),
        ("UDSb4-Form_B4__Global_Staging__CDR__Standard_and_Supplemental", "OASIS3_UDSb4_cdr.csv", OASIS3_CDR),
    ):
        path = files / folder / "resources" / "csv" / "files" / name
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines) + "\n")
    write_split(OASIS3_PARTS)
    return root


def test_every_row_of_oasis3(oasis3: Path, tmp_path: Path) -> None:
    built = build_manifest("oasis3", oasis3, split=tmp_path / "split.csv")
    # 30001 day  129: visits at 0 (CDR 0) and 339 (no CDR, passed over): 129 days -> 0; 65.1951 + 129/365.25 = 65.5483
    # 30001 day 1900: visit at 2000, 100 days -> CDR 0.5 -> 1;                        65.1951 + 1900/365.25 = 70.3970
    # 30001 day 2366: visit at 2000, 366 days: one too far -> dropped
    # 30002 day  200: visits at 100 and 300, both 100 days: the earlier, CDR 1 -> 1;  69.6482 + 200/365.25 = 70.1958
    # 30003: no image; 30004: no visit -> dropped
    assert built.table.to_csv(index=False, lineterminator="\n") == (
        "subject_id,image,image_id,label,split,sex,age,age_group,race\n"
        f"OAS30001,{OASIS3_IMAGES[1]},OAS30001_MR_d0129,0,train,female,65.5483,<70,White\n"
        f"OAS30001,{OASIS3_IMAGES[4]},OAS30001_MR_d1900,1,train,female,70.3970,>=70,White\n"
        f"OAS30002,{OASIS3_IMAGES[7]},OAS30002_MR_d0200,1,val,male,70.1958,>=70,Black\n"
    )
    assert built.record["dropped"] == [
        {"reason": "no image", "n": 1, "subject_id": ["OAS30003"]},
        {"reason": "label is missing", "n": 2, "image_id": ["OAS30001_MR_d2366", "OAS30004_MR_d0010"]},
    ]
    cdr = "OASIS3_data_files/scans/UDSb4-Form_B4__Global_Staging__CDR__Standard_and_Supplemental/resources/csv/files"
    wanted = "sub-(?P<OASISID>OAS3[0-9]{4})_ses-d(?P<day>[0-9]+)_(?:[^/]*_)?T1w\\.nii\\.gz$"
    assert built.record["notes"] == [
        f"1 images are left out, their paths are not like '{wanted}': {OASIS3_IMAGES[6]}",
        f"1 images have no row in the dataset's table: {OASIS3_IMAGES[9]}",
        "1 rows have several images, of which the first by name is taken",
        f"{cdr}/OASIS3_UDSb4_cdr.csv: 3 of 5 rows have a row there within 365 days, at most 129 apart",
    ]
    assert len(built.record["sources"]) == 2


def test_the_first_labelled_session_of_oasis3(oasis3: Path, tmp_path: Path) -> None:
    options = {"sessions": "first", "within_days": "366"}
    built = build_manifest("oasis3", oasis3, options=options, split=tmp_path / "split.csv")
    assert built.table["image_id"].tolist() == ["OAS30001_MR_d0129", "OAS30002_MR_d0200"]
    later = {"reason": "a later scan of the subject, by 'day'", "n": 2}
    assert {**later, "image_id": ["OAS30001_MR_d1900", "OAS30001_MR_d2366"]} in built.record["dropped"]
    # within 100 days day 129 has no visit left, so the first labelled scan is that of day 1900
    options["within_days"] = "100"
    built = build_manifest("oasis3", oasis3, options=options, split=tmp_path / "split.csv")
    assert built.table["image_id"].tolist() == ["OAS30001_MR_d1900", "OAS30002_MR_d0200"]


def test_runs_and_absent_images_of_oasis3_may_be_errors(oasis3: Path, refusal: Callable[..., str]) -> None:
    options = {"several": "error", "without_image": "error"}
    # 30003 has no image, but no CDR either, so that it leaves the manifest anyway
    assert refusal("oasis3", oasis3, options=options) == (
        f"{oasis3}: subject 'OAS30001': expected one image, found 2: {OASIS3_IMAGES[1]}, {OASIS3_IMAGES[0]}"
    )


def test_bad_days_and_ages_of_oasis3_are_named(oasis3: Path, refusal: Callable[..., str]) -> None:
    scans = oasis3 / "OASIS3_data_files" / "scans"
    (cdr,) = scans.glob("UDSb4*/resources/csv/files/*.csv")
    cdr.write_text("\n".join(OASIS3_CDR).replace(",0339,", ",day 339,").replace(",0100,", ",100.5,") + "\n")
    name = cdr.relative_to(oasis3).as_posix()
    wanted = "expected a whole number of days or a date such as 2006-04-18 in 'days_to_visit'"
    assert refusal("oasis3", oasis3) == (
        f"{name}: 2 problems\n  1. {wanted}, got 'day 339' in 1 rows\n  2. {wanted}, got '100.5' in 1 rows"
    )
    (demographics,) = scans.glob("demo*/resources/csv/files/*.csv")
    demographics.write_text("\n".join(OASIS3_DEMOGRAPHICS).replace("65.1951", "65 years") + "\n")
    said = refusal("oasis3", oasis3)
    assert said == "oasis3.yaml: column 'age': expected a number in AgeatEntry, got '65 years' in 3 rows"


def test_an_unknown_race_of_oasis3_is_named(oasis3: Path) -> None:
    (path,) = (oasis3 / "OASIS3_data_files").glob("scans/demo*/resources/csv/files/*.csv")
    path.write_text("\n".join(OASIS3_DEMOGRAPHICS).replace(",Black,", ",AA,") + "\n")
    with pytest.raises(
        RecipeError, match=r"race \(column 'race'\): expected one of 'AIAN', .* got 'AA' in 1 rows; name"
    ):
        build_manifest("oasis3", oasis3)
