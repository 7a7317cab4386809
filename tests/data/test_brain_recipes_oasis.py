"""OASIS-1 and OASIS-2: files as they are published (names, columns, oddities), in miniature and invented."""

from collections.abc import Callable
from pathlib import Path

import pytest

from monai_fair.data import build_manifest

OASIS1_HEADER = "ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"
OASIS1_ROWS = (  # Delay is N/A but for a repeated session, which has no CDR of its own; nor have the young
    "OAS1_0001_MR1,F,R,75,2,3,29,0,1344,0.743,1.306,N/A",
    "OAS1_0002_MR1,M,R,74,4,1,20,0.5,1447,0.737,1.213,N/A",
    "OAS1_0003_MR1,F,R,20,,,,,1500,0.85,1.1,N/A",
    "OAS1_0003_MR2,F,R,20,,,,,1501,0.85,1.1,40",
    "OAS1_0004_MR1,M,R,88,3,2,15,2,1500,0.7,1.1,N/A",
)
OASIS1_PARTS = {"OAS1_0001": "train", "OAS1_0002": "val", "OAS1_0003": "test", "OAS1_0004": "test"}
OASIS1_T88 = "{folder}{scan}/PROCESSED/MPRAGE/T88_111/{scan}_mpr_n4_anon_111_t88_{kind}.{suffix}"
OASIS1_SUBJ = "{folder}{scan}/PROCESSED/MPRAGE/SUBJ_111/{scan}_mpr_n4_anon_sbj_111.{suffix}"


def typed(lines: tuple[str, ...] | list[str]) -> list[list[str | float]]:
    """Turn lines of CSV into cells as a spreadsheet stores them."""
    return [[float(cell) if cell.replace(".", "", 1).isdigit() else cell for cell in line.split(",")] for line in lines]


@pytest.fixture
def oasis1(tmp_path: Path, touch: Callable[..., None], write_split: Callable[..., Path]) -> Path:
    root = tmp_path / "OASIS-1"
    discs = ("disc1/", "disc1/", "oasis_cross-sectional_disc2/disc2/", "disc2/", "")
    for folder, row in zip(discs, OASIS1_ROWS, strict=True):
        scan = row.split(",")[0]
        for suffix in ("hdr", "img"):
            touch(
                root,
                *(
                    OASIS1_T88.format(folder=folder, scan=scan, kind=kind, suffix=suffix)
                    for kind in ("gfc", "masked_gfc")
                ),
            )
            touch(root, OASIS1_SUBJ.format(folder=folder, scan=scan, suffix=suffix))
        touch(root, f"{folder}{scan}/RAW/{scan}_mpr-1_anon.img")
    # a Mac's copy beside a file is no second image
    touch(root, "disc1/OAS1_0001_MR1/PROCESSED/MPRAGE/T88_111/._OAS1_0001_MR1_mpr_n4_anon_111_t88_masked_gfc.img")
    (root / "oasis_cross-sectional.csv").write_text("\n".join([OASIS1_HEADER, *OASIS1_ROWS]) + "\n")
    write_split(OASIS1_PARTS)
    return root


def t88(folder: str, scan: str) -> str:
    return OASIS1_T88.format(folder=folder, scan=scan, kind="masked_gfc", suffix="img")


def test_every_row_of_oasis1(oasis1: Path, tmp_path: Path) -> None:
    built = build_manifest("oasis1", oasis1, split=tmp_path / "split.csv")
    # CDR 0 -> 0; 0.5 and 2 -> 1; the two sessions of 0003 have none. 75 is old, 74 is not
    assert built.table.to_csv(index=False, lineterminator="\n") == (
        "subject_id,image,image_id,label,split,sex,age,age_group,session\n"
        f"OAS1_0001,{t88('disc1/', 'OAS1_0001_MR1')},OAS1_0001_MR1,0,train,female,75,>=75,1\n"
        f"OAS1_0002,{t88('disc1/', 'OAS1_0002_MR1')},OAS1_0002_MR1,1,val,male,74,<75,1\n"
        f"OAS1_0004,{t88('', 'OAS1_0004_MR1')},OAS1_0004_MR1,1,test,male,88,>=75,1\n"
    )
    assert built.record["dropped"] == [
        {"reason": "label is missing", "n": 2, "image_id": ["OAS1_0003_MR1", "OAS1_0003_MR2"]}
    ]
    assert built.record["notes"] == []


def test_the_spreadsheet_of_oasis1_gives_the_same_manifest(
    oasis1: Path, tmp_path: Path, write_xlsx: Callable[..., None]
) -> None:
    split = tmp_path / "split.csv"
    expected = build_manifest("oasis1", oasis1, split=split).table
    (oasis1 / "oasis_cross-sectional.csv").unlink()
    name = "oasis_cross-sectional-5708aa0a98d82080.xlsx"
    write_xlsx(oasis1 / name, typed([OASIS1_HEADER, *OASIS1_ROWS]))
    built = build_manifest("oasis1", oasis1, split=split)
    assert built.table.equals(expected)
    assert list(built.record["sources"]) == [name]


def test_blank_cdr_as_control_keeps_both_sessions_in_one_part(oasis1: Path) -> None:
    for seed in range(5):
        built = build_manifest("oasis1", oasis1, options={"cdr_blank": "control"}, seed=seed)
        assert built.table["label"].tolist() == ["0", "1", "0", "0", "1"]
        twice = built.table[built.table["subject_id"] == "OAS1_0003"]
        assert twice["image_id"].tolist() == ["OAS1_0003_MR1", "OAS1_0003_MR2"]
        assert twice["split"].nunique() == 1


def test_repeated_sessions_of_oasis1_may_be_dropped(oasis1: Path, tmp_path: Path) -> None:
    options = {"cdr_blank": "control", "sessions": "first"}
    built = build_manifest("oasis1", oasis1, options=options, split=tmp_path / "split.csv")
    assert "OAS1_0003_MR2" not in set(built.table["image_id"])
    assert built.record["dropped"] == [
        {"reason": "a later scan of the subject, by 'session'", "n": 1, "image_id": ["OAS1_0003_MR2"]}
    ]


def test_oasis1_in_subject_space_and_another_cut(oasis1: Path, tmp_path: Path) -> None:
    options = {"space": "subject", "age_cut": "74.5", "age_equal": "below"}
    table = build_manifest("oasis1", oasis1, options=options, split=tmp_path / "split.csv").table
    assert table["image"].tolist() == [
        OASIS1_SUBJ.format(folder=folder, scan=scan, suffix="img")
        for folder, scan in (("disc1/", "OAS1_0001_MR1"), ("disc1/", "OAS1_0002_MR1"), ("", "OAS1_0004_MR1"))
    ]
    assert table["age_group"].tolist() == [">74.5", "<=74.5", ">74.5"]


def test_missing_and_doubled_images_of_oasis1_are_named_but_not_those_of_dropped_rows(
    oasis1: Path, refusal: Callable[..., str], touch: Callable[..., None]
) -> None:
    one, two = t88("disc1/", "OAS1_0001_MR1"), t88("disc1/", "OAS1_0002_MR1")
    (oasis1 / one).unlink()
    touch(oasis1, f"backup/{two.removeprefix('disc1/')}")
    (oasis1 / t88("disc2/", "OAS1_0003_MR2")).unlink()  # no CDR, so its image is not needed
    assert refusal("oasis1", oasis1) == (
        f"{oasis1}: 2 problems\n"
        "  1. subject 'OAS1_0001': expected one image, found none\n"
        f"  2. subject 'OAS1_0002': expected one image, found 2: backup/{two.removeprefix('disc1/')}, {two}"
    )


def test_an_id_of_another_form_is_named(oasis1: Path, refusal: Callable[..., str]) -> None:
    text = (oasis1 / "oasis_cross-sectional.csv").read_text()
    (oasis1 / "oasis_cross-sectional.csv").write_text(text.replace("OAS1_0002_MR1", "OAS1_2_MR1"))
    assert refusal("oasis1", oasis1) == (
        "oasis1.yaml: 2 problems\n"
        "  1. column 'subject': expected ID like '(OAS1_[0-9]{4})_MR[0-9]', got 'OAS1_2_MR1' in 1 rows\n"
        "  2. column 'session': expected ID like 'OAS1_[0-9]{4}_MR([0-9])', got 'OAS1_2_MR1' in 1 rows"
    )


OASIS2_HEADER = "Subject ID,MRI ID,Group,Visit,MR Delay,M/F,Hand,Age,EDUC,SES,MMSE,CDR,eTIV,nWBV,ASF"
OASIS2_ROWS = (
    "OAS2_0001,OAS2_0001_MR1,Nondemented,1,0,M,R,87,14,2,27,0,1987,0.696,0.883",
    "OAS2_0001,OAS2_0001_MR2,Nondemented,2,457,M,R,88,14,2,30,0,2004,0.681,0.876",
    "OAS2_0002,OAS2_0002_MR1,Demented,1,0,F,R,75,12,,23,0.5,1678,0.736,1.046",
    "OAS2_0002,OAS2_0002_MR3,Demented,3,560,F,R,76,12,,28,1,1738,0.713,1.01",
    "OAS2_0003,OAS2_0003_MR1,Converted,1,0,F,R,74,18,3,28,0,1215,0.71,1.444",
    "OAS2_0003,OAS2_0003_MR2,Converted,2,420,F,R,75,18,3,27,0.5,1200,0.718,1.462",
)
OASIS2_PARTS = {"OAS2_0001": "train", "OAS2_0002": "val", "OAS2_0003": "test"}


@pytest.fixture
def oasis2(
    tmp_path: Path, touch: Callable[..., None], write_split: Callable[..., Path], write_xlsx: Callable[..., None]
) -> Path:
    root = tmp_path / "OASIS-2"
    for number, row in enumerate(OASIS2_ROWS):
        scan, part = row.split(",")[1], f"OAS2_RAW_PART{1 + number // 3}"
        touch(root, *(f"{part}/{scan}/RAW/mpr-{run}.nifti.{suffix}" for run in (1, 2, 3) for suffix in ("hdr", "img")))
    write_xlsx(root / "oasis_longitudinal_demographics-8d83e569fa2e2d30.xlsx", typed([OASIS2_HEADER, *OASIS2_ROWS]))
    write_split(OASIS2_PARTS)
    return root


def test_every_row_of_oasis2(oasis2: Path, tmp_path: Path) -> None:
    built = build_manifest("oasis2", oasis2, split=tmp_path / "split.csv")
    # session 4 of 6 lies in the second part of the download; the first of the three runs is taken
    assert built.table.to_csv(index=False, lineterminator="\n") == (
        "subject_id,image,image_id,label,split,sex,age,age_group,visit\n"
        "OAS2_0001,OAS2_RAW_PART1/OAS2_0001_MR1/RAW/mpr-1.nifti.img,OAS2_0001_MR1,0,train,male,87,>=75,1\n"
        "OAS2_0001,OAS2_RAW_PART1/OAS2_0001_MR2/RAW/mpr-1.nifti.img,OAS2_0001_MR2,0,train,male,88,>=75,2\n"
        "OAS2_0002,OAS2_RAW_PART1/OAS2_0002_MR1/RAW/mpr-1.nifti.img,OAS2_0002_MR1,1,val,female,75,>=75,1\n"
        "OAS2_0002,OAS2_RAW_PART2/OAS2_0002_MR3/RAW/mpr-1.nifti.img,OAS2_0002_MR3,1,val,female,76,>=75,3\n"
    )
    assert built.record["dropped"] == [
        {
            "reason": "label code is dropped by the recipe: Converted",
            "n": 2,
            "image_id": ["OAS2_0003_MR1", "OAS2_0003_MR2"],
        }
    ]
    assert built.record["notes"] == ["6 rows have several images, of which the first by name is taken"]


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"label": "group_converted_demented"}, "001111"),
        ({"label": "cdr"}, "001101"),  # the converted subject's CDR is 0, then 0.5
        ({"label": "cdr", "sessions": "first"}, "010"),
    ],
)
def test_labels_of_oasis2(oasis2: Path, tmp_path: Path, options: dict[str, str], labels: str) -> None:
    table = build_manifest("oasis2", oasis2, options=options, split=tmp_path / "split.csv").table
    assert "".join(table["label"]) == labels


def test_an_unknown_group_of_oasis2_is_named(oasis2: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    rows = [row.replace("Converted", "converted") for row in OASIS2_ROWS]
    (oasis2 / "oasis_longitudinal.csv").write_text("\n".join([OASIS2_HEADER, *rows]) + "\n")
    assert refusal("oasis2", oasis2) == (
        f"{oasis2}: label (column 'Group'): expected one of 'Nondemented', 'Demented', got 'converted' in 2 rows; "
        "name the code in the recipe (under a group, 'missing' or 'drop')"
    )
