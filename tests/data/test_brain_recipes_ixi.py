"""IXI: its workbook of Excel 97 with its repeated rows, and its file names, in miniature and invented."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_fair.data import build_manifest
from monai_fair.data.spreadsheets import read_spreadsheet
from monai_fair.errors import RecipeError

Cell = str | float | None

IXI_HEADER = (
    "IXI_ID", "SEX_ID (1=m, 2=f)", "HEIGHT", "WEIGHT", "ETHNIC_ID", "MARITAL_ID", "OCCUPATION_ID", "QUALIFICATION_ID",
    "DOB", "DATE_AVAILABLE", "STUDY_DATE", "AGE",
)  # fmt: skip
IXI_ROWS: tuple[tuple[Cell, ...], ...] = (
    (1.0, 1.0, 170.0, 80.0, 1.0, 2.0, 5.0, 2.0, 21000.0, 0.0, None, None),  # no image, no age
    (2.0, 2.0, 164.0, 58.0, 1.0, 4.0, 1.0, 5.0, 25000.0, 1.0, 38667.0, 35.80013689253936),
    (12.0, 1.0, 175.0, 70.0, 3.0, 2.0, 1.0, 5.0, 24000.0, 1.0, 38500.0, 50.0),
    (13.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, None, 0.0, None, None),  # the zeroed copy of the next row
    (13.0, 1.0, 182.0, 70.0, 5.0, 2.0, 1.0, 5.0, 24000.0, 1.0, 38400.0, 46.7),
    (328.0, 1.0, 182.0, 70.0, 4.0, 2.0, 1.0, 5.0, 24000.0, 1.0, 38400.0, 31.5),  # two people under one number
    (328.0, 2.0, 160.0, 70.0, 4.0, 2.0, 1.0, 5.0, 24000.0, 1.0, 38400.0, 61.25),
    (400.0, 2.0, 0.0, 0.0, 6.0, 2.0, 1.0, 5.0, 24000.0, 1.0, 38400.0, None),
    (517.0, 0.0, 0.0, 0.0, 0.0, 2.0, 1.0, 5.0, 24000.0, 1.0, 38400.0, 70.0),
)
IXI_IMAGES = (
    "IXI-T1/IXI002-Guys-0828-T1.nii.gz",
    "IXI-T1/IXI012-HH-1211-T1.nii.gz",
    "IXI-T1/IXI013-HH-1212-T1.nii.gz",
    "IXI-T1/IXI014-HH-1236-T1.nii.gz",  # no row
    "IXI-T1/IXI328-Guys-0889-T1.nii.gz",
    "IXI-T1/IXI400-IOP-0902-T1.nii.gz",
    "IXI-T1/IXI517-IOP-1144-T1.nii.gz",
    "IXI-T2/IXI002-Guys-0828-T2.nii.gz",
)
IXI_PARTS = {"IXI002": "train", "IXI012": "val", "IXI013": "test", "IXI328": "test", "IXI400": "train"}


def record(kind: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack("<HH", kind, len(body)) + body


def write_xls(path: Path, rows: list[tuple[Cell, ...]], sheet: str) -> None:
    """Write an Excel 97 workbook of one sheet: BIFF8 records ([MS-XLS]) in one stream of a compound file ([MS-CFB])."""
    cells = b""
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            place = struct.pack("<HHH", row, column, 0)
            if isinstance(value, str):
                cells += record(0x0204, place, struct.pack("<HB", len(value), 0), value.encode("latin-1"))  # Label
            elif value is not None:
                cells += record(0x0203, place, struct.pack("<d", value))  # Number
    start = struct.pack("<HHHII", 0x0600, 0, 0, 0, 6)
    size = struct.pack("<IIHHH", 0, len(rows), 0, max(map(len, rows)), 0)
    body = record(0x0809, start[:2], b"\x10\x00", start[4:], b"\0\0") + record(0x0200, size) + cells + record(0x000A)
    head = record(0x0809, start[:2], b"\x05\x00", start[4:], b"\0\0")
    name = struct.pack("<BB", len(sheet), 0) + sheet.encode()
    offset = len(head) + 4 + 6 + len(name) + 4
    stream = head + record(0x0085, struct.pack("<IBB", offset, 0, 0), name) + record(0x000A) + body
    stream = stream.ljust(max(4096, -(-len(stream) // 512) * 512), b"\0")  # shorter ones would lie in small sectors
    sectors = len(stream) // 512
    end, free = 0xFFFFFFFE, 0xFFFFFFFF
    fat = [0xFFFFFFFD, end, *range(3, sectors + 2), end]
    entries = []
    for entry, kind, first, length in (("Root Entry", 5, end, 0), ("Workbook", 2, 2, len(stream))):
        text = (entry + "\0").encode("utf-16-le")
        child = 1 if kind == 5 else free
        tail = struct.pack("<HBBIII", len(text), kind, 1, free, free, child) + bytes(36)
        entries.append(text.ljust(64, b"\0") + tail + struct.pack("<IQ", first, length))
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(6)
    header += struct.pack("<IIIIIIIII", 0, 1, 1, 0, 4096, end, 0, end, 0) + struct.pack("<109I", 0, *[free] * 108)
    table = struct.pack("<128I", *fat, *[free] * (128 - len(fat)))
    path.write_bytes(header + table + b"".join(entries).ljust(512, b"\0") + stream)


def ixi_csv(rows: tuple[tuple[Cell, ...], ...] = IXI_ROWS) -> str:
    """As a spreadsheet program exports the sheet; the header has a comma of its own."""
    lines = [",".join(f'"{name}"' if "," in name else name for name in IXI_HEADER)]
    return (
        "\n".join([*lines, *(",".join("" if cell is None else f"{cell:.14g}" for cell in row) for row in rows)]) + "\n"
    )


@pytest.fixture
def ixi(tmp_path: Path, touch: Callable[..., None], write_split: Callable[..., Path]) -> Path:
    root = tmp_path / "IXI"
    touch(root, *IXI_IMAGES)
    write_xls(root / "IXI.xls", [IXI_HEADER, *IXI_ROWS], "Table")
    write_split(IXI_PARTS)
    return root


def test_a_workbook_of_excel_97_is_read_as_text(ixi: Path) -> None:
    rows = read_spreadsheet(ixi / "IXI.xls", RecipeError, "Table")
    assert tuple(rows.columns) == IXI_HEADER
    assert rows.iloc[1].tolist() == [
        "2",
        "2",
        "164",
        "58",
        "1",
        "4",
        "1",
        "5",
        "25000",
        "1",
        "38667",
        "35.80013689253936",
    ]
    assert rows.iloc[0].tolist()[-2:] == ["", ""]
    assert len(rows) == len(IXI_ROWS)


def test_every_row_of_ixi(ixi: Path, tmp_path: Path) -> None:
    built = build_manifest("ixi", ixi, split=tmp_path / "split.csv")
    # label and sex: 1 = male -> 1, 2 = female -> 0. Of 13 the zeroed copy says nothing. 328 contradicts itself in sex
    # and age and, like 517, has no sex, so no label. 50 is not under 50; 400 has no age. 001 has no image.
    assert built.table.to_csv(index=False, lineterminator="\n") == (
        "subject_id,image,label,split,sex,age,age_group,site,ethnicity\n"
        "IXI002,IXI-T1/IXI002-Guys-0828-T1.nii.gz,0,train,female,35.80013689253936,<50,Guys,White\n"
        "IXI012,IXI-T1/IXI012-HH-1211-T1.nii.gz,1,val,male,50,>=50,HH,Asian\n"
        "IXI013,IXI-T1/IXI013-HH-1212-T1.nii.gz,1,test,male,46.7,<50,HH,Chinese\n"
        "IXI400,IXI-T1/IXI400-IOP-0902-T1.nii.gz,0,train,female,,,IOP,other\n"
    )
    assert built.record["dropped"] == [
        {"reason": "no image", "n": 1, "subject_id": ["IXI001"]},
        {"reason": "label is missing", "n": 2, "subject_id": ["IXI328", "IXI517"]},
    ]
    assert built.record["notes"] == [
        "IXI.xls: 4 rows of 2 IXI_ID are taken together, one row each",
        "IXI.xls: 3 cells contradict each other and are left empty: 328 (SEX_ID (1=m, 2=f): 1, 2); "
        "328 (HEIGHT: 182, 160); 328 (AGE: 31.5, 61.25)",
        "1 images have no row in the dataset's table: IXI-T1/IXI014-HH-1236-T1.nii.gz",
    ]


def test_an_export_of_ixi_to_csv_gives_the_same_manifest(ixi: Path, tmp_path: Path) -> None:
    expected = build_manifest("ixi", ixi, split=tmp_path / "split.csv").table
    (ixi / "IXI.xls").unlink()
    (ixi / "IXI.csv").write_text(ixi_csv())
    table = build_manifest("ixi", ixi, split=tmp_path / "split.csv").table
    assert table.drop(columns="age").equals(expected.drop(columns="age"))
    # the export has 14 digits: 35.800136892539
    assert table["age"].tolist() == ["35.800136892539", "50", "46.7", ""]


def test_other_images_and_missing_ages_of_ixi(ixi: Path, write_split: Callable[..., Path]) -> None:
    built = build_manifest("ixi", ixi, options={"image": "IXI-T2/*-T2.nii.gz"}, split=write_split({"IXI002": "train"}))
    assert built.table["image"].tolist() == ["IXI-T2/IXI002-Guys-0828-T2.nii.gz"]
    built = build_manifest("ixi", ixi, options={"missing": "drop"}, split=write_split(IXI_PARTS))
    assert "IXI400" not in set(built.table["subject_id"])
    assert {"reason": "age is missing; age_group is missing", "n": 1, "subject_id": ["IXI400"]} in built.record[
        "dropped"
    ]


def test_absent_images_of_ixi_may_be_errors(ixi: Path, refusal: Callable[..., str]) -> None:
    said = refusal("ixi", ixi, options={"without_image": "error"})
    assert said == f"{ixi}: subject 'IXI001': expected one image, found none"
    said = refusal("ixi", ixi, options={"image": "IXI-MRA/*.nii.gz"})
    assert said == f"{ixi}: expected images like IXI-MRA/*.nii.gz, found none; check --root"


@pytest.mark.parametrize(("column", "what"), [(1, "label"), (4, "ethnicity")])
def test_an_unknown_code_of_ixi_is_named(ixi: Path, column: int, what: str) -> None:
    rows = [
        tuple(9.0 if place == column and row[0] == 12.0 else cell for place, cell in enumerate(row)) for row in IXI_ROWS
    ]
    write_xls(ixi / "IXI.xls", [IXI_HEADER, *rows], "Table")
    with pytest.raises(
        RecipeError, match=rf"{what} \(column '{IXI_HEADER[column][:6]}.*got '9' in 1 rows; name the code"
    ):
        build_manifest("ixi", ixi)


def test_an_unknown_site_of_ixi_is_named(ixi: Path, refusal: Callable[..., str]) -> None:
    (ixi / IXI_IMAGES[1]).rename(ixi / "IXI-T1" / "IXI012-UCL-1211-T1.nii.gz")
    assert refusal("ixi", ixi) == (
        f"{ixi}: site (column 'site'): expected one of 'Guys', 'HH', 'IOP', got 'UCL' in 1 rows; "
        "name the code in the recipe (under a group, 'missing' or 'drop')"
    )


def test_what_is_wrong_with_a_workbook_is_said(ixi: Path, refusal: Callable[..., str]) -> None:
    path = ixi / "IXI.xls"
    write_xls(path, [IXI_HEADER, *IXI_ROWS], "Sheet1")
    assert refusal("ixi", ixi) == f"{path}: expected a sheet 'Table', found Sheet1"
    write_xls(path, [("IXI_ID", "AGE", "AGE", ""), (1.0, 2.0, 3.0, 4.0)], "Table")
    assert refusal("ixi", ixi) == (
        f"{path}: 2 problems\n  1. expected one column 'AGE', found 2; keep one\n"
        "  2. expected a name for every column in the first row"
    )
    write_xls(path, [("AGE", "HEIGHT"), (1.0, 2.0)], "Table")
    assert refusal("ixi", ixi) == "IXI.xls: expected a column 'IXI_ID', found none"
    write_xls(path, [IXI_HEADER, (None, 2.0), (3.0, 2.0)], "Table")
    assert refusal("ixi", ixi) == "IXI.xls: expected a value of 'IXI_ID' in every row, 1 have none"
    for content in (b"", b"<html>a login page</html>", path.read_bytes()[:700]):
        path.write_bytes(content)
        assert refusal("ixi", ixi).startswith(f"{path}: expected a readable spreadsheet; ")
