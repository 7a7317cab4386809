import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from monai_fair.data.artifacts import sha256
from monai_fair.data.spreadsheets import read_spreadsheet
from monai_fair.errors import ManifestError
from monai_fair.simulation.chest_workbook import write_workbook

TABLE = pd.DataFrame({"PATIENT": ["patient00001", "patient00002"], "NOTE": ["A & B <c>", ""], "AGE": [61, 7]})


def test_a_reader_of_workbooks_gets_the_table_back(tmp_path: Path) -> None:
    path = write_workbook(tmp_path / "some book.xlsx", TABLE)
    pd.testing.assert_frame_equal(read_spreadsheet(path, ManifestError, "Sheet1"), TABLE.astype(str), check_dtype=False)


def test_numbers_are_numbers_and_empty_text_is_no_cell(tmp_path: Path) -> None:
    with zipfile.ZipFile(write_workbook(tmp_path / "a.xlsx", TABLE)) as archive:
        parts = {name: ElementTree.fromstring(archive.read(name)) for name in archive.namelist()}  # all are XML
    cells = {cell.get("r"): cell for cell in parts["xl/worksheets/sheet1.xml"].iter() if cell.tag.endswith("}c")}
    assert set(cells) == {"A1", "B1", "C1", "A2", "B2", "C2", "A3", "C3"}
    assert cells["A2"].get("t") == "inlineStr"
    assert cells["C2"].get("t") is None
    assert "".join(cells["C2"].itertext()) == "61"


def test_the_day_of_writing_leaves_no_trace(tmp_path: Path) -> None:
    first = write_workbook(tmp_path / "a.xlsx", TABLE)
    with zipfile.ZipFile(first) as archive:
        assert {item.date_time for item in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert sha256(first) == sha256(write_workbook(tmp_path / "b.xlsx", TABLE))
